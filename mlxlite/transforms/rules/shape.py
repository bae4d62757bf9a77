"""Views, joining, copies."""

from __future__ import annotations

from ... import _graph
from ..._graph import TracedNode, array
from ...core import creation
from ...core import shape as shapes
from ...core._registry import PRIMITIVES
from .._tables import covers, jvp, picks, vjp, vmap
from ._common import align, linear, spread_all, unbroadcast

WHOLE = shapes.WHOLE


@vjp("reshape")
def _reshape_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [_graph.reshape(cotangent, node.inputs[0].shape)]


@linear("reshape")
def _reshape(node: TracedNode, a: array) -> array:
    return _graph.reshape(a, node.shape)


@vmap("reshape")
def _reshape_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return _graph.reshape(inputs[0], (size, *node.shape))


@vjp("transpose")
def _transpose_vjp(node: TracedNode, cotangent: array) -> list[array]:
    (order,) = node.static
    return [shapes.transpose(cotangent, sorted(range(len(order)), key=order.__getitem__))]


@linear("transpose")
def _transpose(node: TracedNode, a: array) -> array:
    return shapes.transpose(a, node.static[0])


@vmap("transpose")
def _transpose_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return shapes.transpose(inputs[0], (0, *[d + 1 for d in node.static[0]]))


@vjp("broadcast_to")
def _broadcast_to_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [unbroadcast(cotangent, node.inputs[0].shape)]


@linear("broadcast_to")
def _broadcast_to(node: TracedNode, a: array) -> array:
    return shapes.broadcast_to(a, node.shape)


@vmap("broadcast_to")
def _broadcast_to_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return shapes.broadcast_to(align(inputs[0], True, len(node.shape)), (size, *node.shape))


def update_slice(a: array, update: array, mask: tuple[int, ...], ints: tuple[int, ...], mode: str = "none") -> array:
    """`a` with the part that `mask` and `ints` describe, of update's shape, replaced, or added to if mode is "add"."""
    return PRIMITIVES["slice_update"].record((a, update), a.shape, a.dtype, (mask, mode), ints)


@picks("slice")
def _slice_vjp(node: TracedNode, before: array | None, cotangent: array) -> array:
    mask = node.static[0]
    if before is not None:
        return update_slice(before, cotangent, mask, node.ints, "add")
    return update_slice(creation.zeros(node.inputs[0].shape, cotangent.dtype), cotangent, mask, node.ints)


@covers("slice")
def _slices_of_all(parts: list[tuple[TracedNode, array]]) -> array | None:
    """Slices along one axis that follow one another from its begin to its end, as those of `split` do."""
    mask = parts[0][0].static[0]
    rank = len(mask)
    axes = [d for d, how in enumerate(mask) if how != WHOLE]
    if len(axes) != 1 or any(node.static[0] != mask for node, _ in parts):
        return None
    (axis,) = axes
    if any(node.ints[rank + axis] != 1 for node, _ in parts) or len({c.dtype for _, c in parts}) != 1:
        return None
    ordered = sorted(parts, key=lambda part: (part[0].ints[axis], part[0].shape[axis]))
    end = 0
    for node, _ in ordered:
        if node.ints[axis] != end:
            return None
        end += node.shape[axis]
    return shapes.concatenate([c for _, c in ordered], axis) if end == parts[0][0].inputs[0].shape[axis] else None


def take_slice(a: array, shape: tuple[int, ...], mask: tuple[int, ...], ints: tuple[int, ...]) -> array:
    """The part of `a`, of `shape`, that `mask` and `ints` describe."""
    return PRIMITIVES["slice"].record((a,), shape, a.dtype, (mask,), ints) if any(mask) else a


@linear("slice")
def _slice(node: TracedNode, a: array) -> array:
    return take_slice(a, node.shape, node.static[0], node.ints)


def with_mapped_axis(mask: tuple[int, ...], ints: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The mask and ints of a slice for arrays that have one more axis in front."""
    rank = len(mask)
    return (WHOLE, *mask), (0, *ints[:rank], 1, *ints[rank:])


@vmap("slice")
def _slice_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    mask, ints = with_mapped_axis(node.static[0], node.ints)
    return take_slice(inputs[0], (size, *node.shape), mask, ints)


@vjp("concatenate")
def _concatenate_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    (axis,) = node.static
    parts: list[array | None] = []
    start = 0
    for a, source in zip(node.inputs, node.sources, strict=True):
        stop = start + a.shape[axis]
        parts.append(shapes.slice_along(cotangent, axis, start, stop) if source >= 0 else None)
        start = stop
    return parts


@jvp("concatenate")
def _concatenate_jvp(node: TracedNode, tangents: list[array | None]) -> array:
    parts = [creation.zeros_like(a) if t is None else t for a, t in zip(node.inputs, tangents, strict=True)]
    return shapes.concatenate(parts, node.static[0])


@vmap("concatenate")
def _concatenate_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return shapes.concatenate(spread_all(inputs, batched, size), node.static[0] + 1)


@vjp("copy")
def _copy_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [cotangent]


@linear("copy")
def _copy(node: TracedNode, a: array) -> array:
    return _graph.contiguous(a)


@vmap("copy")
def _copy_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return _graph.contiguous(inputs[0])
