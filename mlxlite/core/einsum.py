"""Einstein summation, contracted two by two with matrix products."""

from __future__ import annotations

import itertools
import math
import string
from typing import Any

from .. import _graph
from . import elementwise as ew
from . import reduce as reductions
from . import shape as shapes
from ._registry import array, remembered, require_array
from .matmul import matmul

_LETTERS = frozenset(string.ascii_letters)


@remembered
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
    simple = []
    for i, (a, labels) in enumerate(zip(arrays, inputs, strict=True)):
        others = "".join(inputs[:i] + inputs[i + 1 :])
        simple.append(_simplify(a, labels, sizes, others + output, stream))
    for step in _greedy_path(inputs, output, sizes) if len(simple) > 1 else []:
        (a, a_labels), (b, b_labels) = (simple[i] for i in step)
        simple = [pair for i, pair in enumerate(simple) if i not in step]
        needed = "".join(labels for _, labels in simple) + output
        simple.append(_contract(a, a_labels, b, b_labels, needed, stream))
    [(result, labels)] = simple
    return shapes.transpose(result, [labels.index(x) for x in output], stream=stream)


def einsum_path(subscripts: str, *operands: array) -> tuple[list[tuple[int, ...]], str]:
    """The order in which `einsum` contracts its operands: at each step the two that free most elements.

    Args:
        subscripts, operands: as for `einsum`. No operand is evaluated.

    Returns:
        For each step the places of its operands in the list; the result goes to the end of what is left. And a text
        that says what all at once, and what this order, costs.

    Raises:
        ValueError: the subscripts do not fit the operands.

    >>> mx.einsum_path("ij,jk,kl->il", mx.ones((2, 9)), mx.ones((9, 9)), mx.ones((9, 2)))[0]
    [(0, 1), (0, 1)]
    """
    if not isinstance(subscripts, str):
        raise TypeError(f"[einsum_path] subscripts must be a string, got {type(subscripts).__name__}")
    arrays = [require_array(x, "einsum_path") for x in operands]
    inputs, output = _parse(subscripts, [a.ndim for a in arrays])
    sizes = _letter_sizes(inputs, arrays)
    path = _greedy_path(inputs, output, sizes)
    terms = [set(labels) for labels in inputs]
    everything = set().union(*terms)
    scaling, cost = 0, 0
    for step in path:
        letters = set().union(*(terms[i] for i in step))
        rest = [term for i, term in enumerate(terms) if i not in step]
        kept = letters & set(output).union(*rest)
        scaling = max(scaling, len(letters))
        cost += _flops(letters, len(step), kept != letters, sizes)
        terms = [*rest, kept]
    naive = _flops(everything, len(inputs), everything != set(output), sizes)
    text = (
        f"  Complete contraction:  {subscripts}\n"
        f"         Naive scaling:  {len(everything)}\n"
        f"     Optimized scaling:  {scaling}\n"
        f"      Naive FLOP count:  {naive}\n"
        f"  Optimized FLOP count:  {cost}\n"
    )
    return path, text


def _flops(letters: set[str], terms: int, summed: bool, sizes: dict[str, int]) -> int:
    """Operations of one contraction: products of so many terms, and sums if letters vanish."""
    return math.prod(sizes[x] for x in letters) * (max(1, terms - 1) + (1 if summed else 0))


def _greedy_path(inputs: list[str], output: str, sizes: dict[str, int]) -> list[tuple[int, ...]]:
    """Step by step the pair whose result is smallest beside its operands, the cheaper one if two are alike.

    Pairs that share a letter come first; among those that share none, pairs with the latest result.
    """
    terms = [set(labels) for labels in inputs]
    if len(terms) == 1:
        return [(0,)]

    def size(letters: set[str]) -> int:
        return math.prod(sizes[x] for x in letters)

    def rank(pair: tuple[int, int]) -> tuple[int, int]:
        a, b = (terms[i] for i in pair)
        kept = (a | b) & set(output).union(*(term for i, term in enumerate(terms) if i not in pair))
        return size(kept) - size(a) - size(b), _flops(a | b, 2, kept != a | b, sizes)

    path: list[tuple[int, ...]] = []
    while len(terms) > 1:
        pairs = [*itertools.combinations(range(len(terms)), 2)]
        sharing = [(i, j) for i, j in pairs if terms[i] & terms[j]]
        latest = [(i, j) for i, j in pairs if not path or j == len(terms) - 1]
        best = min(sharing or latest, key=rank)
        path.append(best)
        a, b = (terms[i] for i in best)
        rest = [term for i, term in enumerate(terms) if i not in best]
        terms = [*rest, (a | b) & set(output).union(*rest)]
    return path


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
