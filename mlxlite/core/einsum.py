"""Einstein summation, contracted from left to right with matrix products."""

from __future__ import annotations

import math
import string
from typing import Any

from .. import _graph
from . import elementwise as ew
from . import reduce as reductions
from . import shape as shapes
from ._registry import array, require_array
from .matmul import matmul

_LETTERS = frozenset(string.ascii_letters)


def einsum(subscripts: str, *operands: array, stream: Any = None) -> array:
    """A sum of products named by letters.

    Args:
        subscripts: a letter for each dim of each operand, separated by commas, then "->" and the letters of the result
            (if left out: those that occur once, in alphabetical order). "..." stands for broadcast leading dims.
        operands: arrays. A letter given twice to one of them takes its diagonal.
        stream: a stream or device.

    Raises:
        ValueError: the subscripts do not fit the operands.

    >>> mx.einsum("ij,kj->ik", mx.ones((2, 3)), mx.ones((4, 3))).shape
    (2, 4)
    """
    if not isinstance(subscripts, str):
        raise TypeError(f"[einsum] subscripts must be a string, got {type(subscripts).__name__}")
    arrays = [require_array(x, "einsum") for x in operands]
    inputs, output = _parse(subscripts, [a.ndim for a in arrays])
    sizes = _letter_sizes(inputs, arrays)
    current, labels = _simplify(arrays[0], inputs[0], sizes, "".join(inputs[1:]) + output, stream)
    for i in range(1, len(arrays)):
        needed = "".join(inputs[i + 1 :]) + output
        other, other_labels = _simplify(arrays[i], inputs[i], sizes, labels + needed, stream)
        current, labels = _contract(current, labels, other, other_labels, needed, stream)
    return shapes.transpose(current, [labels.index(x) for x in output], stream=stream)


def _parse(subscripts: str, ranks: list[int]) -> tuple[list[str], str]:
    """The labels of every operand and of the result, "..." replaced by letters that are not in use."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(
            f"[einsum] Number of operands, {len(ranks)}, does not match number of input subscripts, {len(terms)}"
        )
    for term in [*terms, right]:
        rest = term.replace("...", "", 1)
        if not set(rest) <= _LETTERS:
            raise ValueError(f"[einsum] Subscripts must be letters, got '{term}'.")
    hidden = [n - len(t) + 3 if "..." in t else 0 for t, n in zip(terms, ranks, strict=True)]
    free = sorted(_LETTERS - set(subscripts))
    spread = "".join(free[: max([0, *hidden])])
    inputs = []
    for i, (term, rank, extra) in enumerate(zip(terms, ranks, hidden, strict=True)):
        labels = term.replace("...", spread[len(spread) - extra :] if extra > 0 else "")
        if len(labels) != rank:
            raise ValueError(
                f"[einsum] Invalid number of subscripts {len(labels)} for input {i} with {rank} dimensions."
            )
        inputs.append(labels)
    everything = "".join(inputs)
    if arrow:
        output = right.replace("...", spread)
    else:
        output = spread + "".join(sorted(x for x in set(everything) - set(spread) if everything.count(x) == 1))
    if len(set(output)) != len(output):
        raise ValueError(f"[einsum] Repeat indices not allowed in the output, got '{right}'.")
    if not set(output) <= set(everything):
        raise ValueError(f"[einsum] Indices of the output must be in the input, got '{subscripts}'.")
    return inputs, output


def _letter_sizes(inputs: list[str], arrays: list[array]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for i, (labels, a) in enumerate(zip(inputs, arrays, strict=True)):
        for d, (label, n) in enumerate(zip(labels, a.shape, strict=True)):
            known = sizes.setdefault(label, n)
            if known == 1:
                sizes[label] = n
            elif n not in (1, known):
                raise ValueError(
                    f"[einsum] Cannot broadcast dimension {d} of input {i} with shape {a.shape} to size {known}."
                )
    return sizes


def _simplify(a: array, labels: str, sizes: dict[str, int], needed: str, stream: Any) -> tuple[array, str]:
    """Diagonals taken, dims of 1 broadcast, and letters that nothing else needs summed."""
    full = [sizes[x] for x in labels]
    if list(a.shape) != full:
        a = shapes.broadcast_to(a, full, stream=stream)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            a = shapes.diagonal(a, 0, first, second, stream=stream)
            labels = labels[:first] + labels[first + 1 : second] + labels[second + 1 :] + label
    summed = [d for d, x in enumerate(labels) if x not in needed]
    if summed:
        a = reductions.sum(a, summed, stream=stream)
        labels = "".join(x for x in labels if x in needed)
    return a, labels


def _contract(a: array, a_labels: str, b: array, b_labels: str, needed: str, stream: Any) -> tuple[array, str]:
    """One array of two: letters of both that nothing needs any more are summed, by a matrix product."""
    both = [x for x in a_labels if x in b_labels]
    batch = "".join(x for x in both if x in needed)
    summed = "".join(x for x in both if x not in needed)
    only_a = "".join(x for x in a_labels if x not in b_labels)
    only_b = "".join(x for x in b_labels if x not in a_labels)
    sizes = dict(zip(a_labels + b_labels, a.shape + b.shape, strict=True))

    def arranged(x: array, labels: str, groups: tuple[str, ...]) -> array:
        x = shapes.transpose(x, [labels.index(label) for group in groups for label in group], stream=stream)
        dims = [sizes[label] for label in batch]
        return _graph.reshape(x, dims + [math.prod(sizes[label] for label in g) for g in groups[1:]], stream)

    if summed:
        left = arranged(a, a_labels, (batch, only_a, summed))
        right = arranged(b, b_labels, (batch, summed, only_b))
        out = matmul(left, right, stream=stream)
    else:  # nothing to sum: any dtype will do
        left = shapes.expand_dims(arranged(a, a_labels, (batch, only_a)), -1, stream=stream)
        right = shapes.expand_dims(arranged(b, b_labels, (batch, only_b)), -2, stream=stream)
        out = ew.multiply(left, right, stream=stream)
    labels = batch + only_a + only_b
    return _graph.reshape(out, [sizes[x] for x in labels], stream), labels
