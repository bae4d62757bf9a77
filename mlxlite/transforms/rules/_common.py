"""What rules of several families need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ... import _graph
from ..._graph import TracedNode, array
from ...core import reduce as reductions
from ...core import shape as shapes
from ...core._registry import PRIMITIVES
from .._tables import jvp


def wide(a: array) -> array:
    """`a` to compute with: 16-bit floats become float32."""
    return _graph.astype(a, _graph.float32) if a.dtype.size == 2 else a


def unbroadcast(a: array, shape: tuple[int, ...]) -> array:
    """`a` summed over the dims along which an array of `shape` was repeated to a's shape."""
    if a.shape == shape:
        return a
    extra = a.ndim - len(shape)
    axes = [d for d, n in enumerate(a.shape) if d < extra or (shape[d - extra] == 1 and n != 1)]
    return _graph.reshape(reductions.sum(a, axes) if axes else a, shape)


def keep_dims(a: array, axes: tuple[int, ...], shape: tuple[int, ...]) -> array:
    """A reduction over `axes` of an array of `shape`, with these axes of size 1."""
    return _graph.reshape(a, [1 if d in axes else n for d, n in enumerate(shape)])


def align(a: array, batched: bool, rank: int) -> array:
    """`a`, for an operation that broadcasts its operands to `rank` dims: a first axis that is mapped stays first."""
    if not batched or a.ndim - 1 == rank:
        return a
    return _graph.reshape(a, [a.shape[0], *[1] * (rank - a.ndim + 1), *a.shape[1:]])


def spread(a: array, batched: bool, size: int) -> array:
    """`a` with the mapped axis first, repeated if it has none."""
    return a if batched else shapes.broadcast_to(a, (size, *a.shape))


def spread_all(inputs: list[array], batched: list[bool], size: int) -> list[array]:
    """`spread` of all of them."""
    return [spread(a, b, size) for a, b in zip(inputs, batched, strict=True)]


def again(node: TracedNode, inputs: list[array], shape: Any = None, static: Any = None) -> array:
    """The node's operation on other inputs; of the same shape and static attributes unless given."""
    return PRIMITIVES[node.name].record(
        inputs,
        node.shape if shape is None else shape,
        node.dtype,
        node.static if static is None else static,
        node.ints,
        node.floats,
    )


def linear(*names: str) -> Callable[..., Any]:
    """Decorator of a function that repeats an operation on its first input: it gives the tangent too.

    For operations that are linear in their first input and take no tangent of another.
    """

    def decorate(operation: Callable[[TracedNode, array], array]) -> Callable[[TracedNode, array], array]:
        @jvp(*names)
        def _(node: TracedNode, tangents: list[array | None]) -> array | None:
            return None if tangents[0] is None else operation(node, tangents[0])

        return operation

    return decorate
