"""Gather, scatter and their kin. Index arrays carry no derivative."""

from __future__ import annotations

from ... import _graph
from ..._graph import TracedNode, array
from ...core import creation, positions
from ...core import elementwise as ew
from ...core import shape as shapes
from ...core._registry import PRIMITIVES
from .._tables import jvp, picks, vjp, vmap
from ._common import linear, spread_all
from .shape import take_slice, update_slice, with_mapped_axis


def _gather(a: array, indices: list[array], axes: tuple[int, ...]) -> array:
    rest = [n for d, n in enumerate(a.shape) if d not in axes]
    return PRIMITIVES["gather"].record((a, *indices), [*indices[0].shape, *rest], a.dtype, (axes,))


def _scatter(a: array, updates: array, indices: list[array], axes: tuple[int, ...], mode: str) -> array:
    return PRIMITIVES["scatter"].record((a, updates, *indices), a.shape, a.dtype, (axes, mode))


@picks("gather")
def _gather_vjp(node: TracedNode, before: array | None, cotangent: array) -> array:
    a, *indices = node.inputs
    into = creation.zeros(a.shape, cotangent.dtype) if before is None else before
    return _scatter(into, cotangent, indices, node.static[0], "add")


@linear("gather")
def _gather_again(node: TracedNode, a: array) -> array:
    return _gather(a, node.inputs[1:], node.static[0])


def _mapped_indices(
    indices: list[array], batched: list[bool], axes: tuple[int, ...], size: int, each: bool
) -> tuple[list[array], tuple[int, ...]]:
    """Indices with a mapped axis in front; and if `each`, one more that pairs it with the first axis of the array."""
    indices = spread_all(indices, batched, size)
    if not each:
        return indices, axes
    shape = indices[0].shape
    line = _graph.reshape(creation.arange(size, dtype=indices[0].dtype), [size, *[1] * (len(shape) - 1)])
    return [shapes.broadcast_to(line, shape), *indices], (0, *[d + 1 for d in axes])


@vmap("gather")
def _gather_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    (axes,) = node.static
    a, *indices = inputs
    if any(batched[1:]):
        return _gather(a, *_mapped_indices(indices, batched[1:], axes, size, batched[0]))
    found = _gather(a, indices, tuple([d + 1 for d in axes]))
    return shapes.moveaxis(found, indices[0].ndim, 0)


@vjp("scatter")
def _scatter_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    a, updates, *indices = node.inputs
    axes, mode = node.static
    none: list[array | None] = [None] * len(indices)
    met = _gather(cotangent, indices, axes)
    if mode == "add":
        return [cotangent, met, *none]
    if mode == "none":
        zeros = creation.zeros(updates.shape, cotangent.dtype)
        return [_scatter(cotangent, zeros, indices, axes, "none"), met, *none]
    if mode == "prod":
        of_a, of_updates = _product_factors(node)
        return [ew.multiply(cotangent, of_a), ew.multiply(met, of_updates), *none]
    # max, min: every one that is the extreme gets all
    best = _gather(node.output, indices, axes)
    return [
        ew.where(ew.equal(node.output, a), cotangent, 0),
        ew.where(ew.equal(best, updates), met, 0),
        *none,
    ]


def _product_factors(node: TracedNode) -> tuple[array, array]:
    """What each element of `a`, and each update, is multiplied with in the end."""
    a, updates, *indices = node.inputs
    axes, _ = node.static
    ones = creation.ones_like(a)
    of_a = _scatter(ones, updates, indices, axes, "prod")
    zero = ew.equal(updates, 0)
    safe = ew.where(zero, 1, updates)
    product = _gather(_scatter(ones, safe, indices, axes, "prod"), indices, axes)
    counts = _scatter(creation.zeros(a.shape, _graph.int32), _graph.astype(zero, _graph.int32), indices, axes, "add")
    other_zeros = ew.subtract(_gather(counts, indices, axes), _graph.astype(zero, _graph.int32))
    others = ew.where(ew.equal(other_zeros, 0), ew.divide(product, safe), 0)
    return of_a, ew.multiply(others, _gather(a, indices, axes))


@jvp("scatter")
def _scatter_jvp(node: TracedNode, tangents: list[array | None]) -> array | None:
    a, updates, *indices = node.inputs
    axes, mode = node.static
    of_a = creation.zeros_like(a) if tangents[0] is None else tangents[0]
    of_updates = creation.zeros_like(updates) if tangents[1] is None else tangents[1]
    if mode in ("none", "add"):
        return _scatter(of_a, of_updates, indices, axes, mode)
    if mode == "prod":
        by_a, by_updates = _product_factors(node)
        return _scatter(ew.multiply(of_a, by_a), ew.multiply(of_updates, by_updates), indices, axes, "add")
    best = _gather(node.output, indices, axes)
    return _scatter(
        ew.where(ew.equal(node.output, a), of_a, 0),
        ew.where(ew.equal(best, updates), of_updates, 0),
        indices,
        axes,
        "add",
    )


@vmap("scatter")
def _scatter_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    axes, mode = node.static
    a, updates = spread_all(inputs[:2], batched[:2], size)
    indices = inputs[2:]
    if any(batched[2:]):
        indices, axes = _mapped_indices(indices, batched[2:], axes, size, True)
        return _scatter(a, updates, indices, axes, mode)
    updates = shapes.moveaxis(updates, 0, indices[0].ndim)
    return _scatter(a, updates, indices, tuple([d + 1 for d in axes]), mode)


# ---- along an axis


def _put(a: array, indices: array, values: array, axis: int, mode: str) -> array:
    return PRIMITIVES["put_along_axis"].record((a, indices, values), a.shape, a.dtype, (axis, mode))


@picks("take_along_axis")
def _take_along_axis_vjp(node: TracedNode, before: array | None, cotangent: array) -> array:
    a, indices = node.inputs
    (axis,) = node.static
    if indices.shape[axis] != 1:
        into = creation.zeros(a.shape, cotangent.dtype) if before is None else before
        return _put(into, indices, cotangent, axis, "add")
    # One of each row, as for a cross entropy: a comparison fuses with what else makes the cotangent, where zeros to be
    # written into would be as large as `a` once more.
    n = a.shape[axis]
    line = _graph.reshape(creation.arange(n, dtype=indices.dtype), [n, *[1] * (a.ndim - axis - 1)])
    if indices.dtype.category == "signed":
        indices = ew.where(ew.less(indices, 0), ew.add(indices, n), indices)
    placed = ew.where(ew.equal(line, indices), cotangent, 0)
    return placed if before is None else ew.add(before, placed)


@linear("take_along_axis")
def _take_along_axis(node: TracedNode, a: array) -> array:
    return positions.take_along_axis(a, node.inputs[1], node.static[0])


@vmap("take_along_axis")
def _take_along_axis_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    a, indices = spread_all(inputs, batched, size)
    return positions.take_along_axis(a, indices, node.static[0] + 1)


@vjp("put_along_axis")
def _put_along_axis_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    _, indices, values = node.inputs
    axis, mode = node.static
    met = positions.take_along_axis(cotangent, indices, axis)
    if mode == "none":
        cotangent = _put(cotangent, indices, creation.zeros(values.shape, cotangent.dtype), axis, mode)
    return [cotangent, None, met]


@jvp("put_along_axis")
def _put_along_axis_jvp(node: TracedNode, tangents: list[array | None]) -> array:
    a, indices, values = node.inputs
    axis, mode = node.static
    of_a = creation.zeros_like(a) if tangents[0] is None else tangents[0]
    of_values = creation.zeros_like(values) if tangents[2] is None else tangents[2]
    return _put(of_a, indices, of_values, axis, mode)


@vmap("put_along_axis")
def _put_along_axis_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    axis, mode = node.static
    a, indices, values = spread_all(inputs, batched, size)
    return _put(a, indices, values, axis + 1, mode)


# ---- slices


@vjp("slice_update")
def _slice_update_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    a, update = node.inputs
    mask, mode = node.static
    met = take_slice(cotangent, update.shape, mask, node.ints)
    if mode == "add":
        return [cotangent, met]
    if mode == "none":
        of_part, of_update = creation.zeros_like(met), met
    else:
        part = take_slice(a, update.shape, mask, node.ints)
        of_part, of_update = _combine_factors(mode, part, update, met)
    return [update_slice(cotangent, of_part, mask, node.ints), of_update]


def _combine_factors(mode: str, part: array, update: array, change: array) -> tuple[array, array]:
    if mode == "prod":
        return ew.multiply(change, update), ew.multiply(change, part)
    first = ew.greater(part, update) if mode == "max" else ew.less(part, update)
    return ew.where(first, change, 0), ew.where(first, 0, change)


@jvp("slice_update")
def _slice_update_jvp(node: TracedNode, tangents: list[array | None]) -> array:
    a, update = node.inputs
    mask, mode = node.static
    of_a = creation.zeros_like(a) if tangents[0] is None else tangents[0]
    of_update = creation.zeros_like(update) if tangents[1] is None else tangents[1]
    if mode == "none":
        return update_slice(of_a, of_update, mask, node.ints)
    moved = take_slice(of_a, update.shape, mask, node.ints)
    if mode == "add":
        return update_slice(of_a, ew.add(moved, of_update), mask, node.ints)
    part = take_slice(a, update.shape, mask, node.ints)
    by_part = _combine_factors(mode, part, update, moved)[0]
    by_update = _combine_factors(mode, part, update, of_update)[1]
    return update_slice(of_a, ew.add(by_part, by_update), mask, node.ints)


@vmap("slice_update")
def _slice_update_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    mask, mode = node.static
    mask, ints = with_mapped_axis(mask, node.ints)
    a, update = spread_all(inputs, batched, size)
    return PRIMITIVES["slice_update"].record((a, update), a.shape, a.dtype, (mask, mode), ints)
