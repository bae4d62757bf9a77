"""Functions of positions: take and put along an axis, parts whose place is computed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from .. import _graph
from . import creation
from . import elementwise as ew
from . import shape as shapes
from ._index_arrays import check_not_empty, gather, index_arrays, scatter
from ._registry import alias, array, general, normalize_axis, normalize_shape, remembered, require_array, to_dtype

_take_along_axis = general("take_along_axis", "gather")
_put_along_axis = general("put_along_axis", "scatter")


@remembered
def take(a: array, /, indices: int | array, axis: int | None = None, *, stream: Any = None) -> array:
    """Elements at positions along an axis, of the flattened array for None.

    Args:
        a: an array.
        indices: an integer or an array of integers, of any shape; negative ones count from the end.
        axis: the axis.
        stream: a stream or device.

    Returns:
        a's shape with the axis replaced by the shape of `indices`.

    Raises:
        IndexError: the axis, or an integer index, is out of range.
        ValueError: indices that are not integers, or a non-empty take from an empty axis.

    >>> mx.take(mx.array([5, 6, 7]), mx.array([2, 0]))
    array([7, 5], dtype=int32)
    """
    require_array(a, "take")
    if axis is None:
        a = a if a.ndim == 1 else shapes.flatten(a, stream=stream)
        axis = 0
    axis = normalize_axis(axis, a.ndim, "take")
    shape = a.shape
    if not isinstance(indices, array):
        n, i = shape[axis], operator.index(indices)
        if n == 0:
            raise ValueError("[take] Cannot do a non-empty take from an empty axis.")
        if not -n <= i < n:
            raise IndexError(f"[take] index {i} is out of bounds for axis {axis} with size {n}")
        return shapes.squeeze(shapes.slice_along(a, axis, i % n, i % n + 1, stream=stream), axis, stream=stream)
    (index,), index_shape = index_arrays([indices], "gather", stream)
    check_not_empty(a, (axis,), index_shape)
    rest = (*shape[:axis], *shape[axis + 1 :])
    result = gather.record((a, index), (*index_shape, *rest), a.dtype, ((axis,),), stream=stream)
    k = len(index_shape)
    if axis == 0 or k == 0:
        return result
    return shapes.transpose(result, [*range(k, k + axis), *range(k), *range(k + axis, k + len(rest))], stream=stream)


def _aligned(a: array, indices: array, axis: int, name: str, stream: Any) -> tuple[array, tuple[int, ...]]:
    """Indices of an allowed dtype, and the shape all other dims of `a` and them broadcast to (axis: of the indices)."""
    require_array(indices, name)
    if indices.ndim != a.ndim:
        raise ValueError(f"[{name}] Indices of dimension {indices.ndim} does not match array of dimension {a.ndim}.")
    (indices,), shape = index_arrays([indices], name, stream)
    of_a = a.shape
    others = shapes.broadcast_shapes(of_a[:axis] + of_a[axis + 1 :], shape[:axis] + shape[axis + 1 :])
    if of_a[axis] == 0 and 0 not in (*others, shape[axis]):
        raise ValueError(f"[{name}] Cannot index the empty axis {axis}.")
    return indices, (*others[:axis], shape[axis], *others[axis:])


@remembered
def take_along_axis(a: array, /, indices: array, axis: int | None = -1, *, stream: Any = None) -> array:
    """`result[..., i, ...] = a[..., indices[..., i, ...], ...]` along an axis.

    Args:
        a: an array, flattened if the axis is None.
        indices: integers, as many dims as a; the dims other than the axis broadcast.
        axis: the axis.
        stream: a stream or device.

    Raises:
        ValueError: another number of dims, dims that do not broadcast, indices that are not integers.
        IndexError: the axis is out of range.
    """
    require_array(a, "take_along_axis")
    if axis is None:
        a, axis = shapes.flatten(a, stream=stream), 0
    axis = normalize_axis(axis, a.ndim, "take_along_axis")
    indices, shape = _aligned(a, indices, axis, "take_along_axis", stream)
    indices = shapes.broadcast_to(indices, shape, stream=stream)
    a = shapes.broadcast_to(a, (*shape[:axis], a.shape[axis], *shape[axis + 1 :]), stream=stream)
    return _take_along_axis.record((a, indices), shape, a.dtype, (axis,), stream=stream)


@remembered
def put_along_axis(a: array, /, indices: array, values: array, axis: int | None = None, *, stream: Any = None) -> array:
    """`a` with `a[..., indices[..., i, ...], ...] = values[..., i, ...]` along an axis.

    Args:
        a: an array, taken as flattened if the axis is None.
        indices: integers, as many dims as a; the dims other than the axis broadcast to a's.
        values: broadcasts to the indices; cast to a's dtype.
        axis: the axis.
        stream: a stream or device.

    Raises:
        ValueError: another number of dims, dims that do not broadcast, indices that are not integers.
        IndexError: the axis is out of range.
    """
    require_array(a, "put_along_axis")
    require_array(values, "put_along_axis")
    if axis is None:
        flat = put_along_axis(shapes.flatten(a, stream=stream), shapes.flatten(indices, stream=stream), values, 0)
        return _graph.reshape(flat, a.shape, stream)
    axis = normalize_axis(axis, a.ndim, "put_along_axis")
    indices, shape = _aligned(a, indices, axis, "put_along_axis", stream)
    if shape[:axis] + shape[axis + 1 :] != a.shape[:axis] + a.shape[axis + 1 :]:
        raise ValueError(f"[broadcast_shapes] Indices of shape {indices.shape} do not broadcast to {a.shape}.")
    values = to_dtype(values, a.dtype, stream)
    shape = shapes.broadcast_shapes(shape, values.shape) if values.ndim <= len(shape) else shape
    indices = shapes.broadcast_to(indices, shape, stream=stream)
    values = shapes.broadcast_to(values, shape, stream=stream)
    return _put_along_axis.record((a, indices, values), a.shape, a.dtype, (axis, "none"), stream=stream)


def _dynamic_starts(
    a: array, start_indices: array, axes: Sequence[int], sizes: Sequence[int], name: str, stream: Any
) -> dict[int, array]:
    """For each axis the positions start, start + 1, ..., the start held within the array."""
    require_array(start_indices, name)
    if start_indices.ndim > 1:
        raise ValueError(
            f"[{name}] array of starting indices must be zero or one dimensional "
            f"but has dimension {start_indices.ndim}."
        )
    axes = list(axes)
    if start_indices.size != len(axes):
        raise ValueError(f"[{name}] Number of starting indices {start_indices.size} does not match axes {axes}.")
    if start_indices.dtype.category not in ("signed", "unsigned"):
        raise ValueError(f"[{name}] Start indices must be integers, got type {start_indices.dtype.name}.")
    axes = [normalize_axis(axis, a.ndim, name) for axis in axes]
    if len(set(axes)) != len(axes):
        raise ValueError(f"[{name}] Repeat axes not allowed.")
    flat = to_dtype(_graph.reshape(start_indices, [len(axes)], stream), _graph.int32, stream)
    positions = {}
    for i, axis in enumerate(axes):
        start = shapes.slice_along(flat, 0, i, i + 1, stream=stream)
        n, size = a.shape[axis], sizes[axis]
        wrapped = ew.where(ew.less(start, 0, stream=stream), ew.add(start, n, stream=stream), start, stream=stream)
        held = ew.clip(wrapped, 0, n - size, stream=stream)
        positions[axis] = ew.add(held, creation.arange(size, dtype=_graph.int32, stream=stream), stream=stream)
    return positions


@remembered
def slice(
    a: array, start_indices: array, axes: Sequence[int], slice_size: Sequence[int], *, stream: Any = None
) -> array:
    """A part of `a` whose place is computed: `start_indices` is an array.

    Args:
        a: an array.
        start_indices: 0-d or 1-d integers, one an axis; a start is held back so that the part lies within the array.
        axes: the axes they are of; along others the part starts at 0.
        slice_size: the shape of the part.
        stream: a stream or device.

    Raises:
        ValueError: sizes, starts or axes that do not match.
        IndexError: an axis is out of range.

    >>> mx.slice(mx.array([[1, 2, 3], [4, 5, 6]]), mx.array(1), (0,), (1, 2))
    array([[4, 5]], dtype=int32)
    """
    require_array(a, "slice")
    sizes = normalize_shape(slice_size, "slice")
    if len(sizes) != a.ndim:
        raise ValueError(f"[slice] Invalid slice size for array with {a.ndim} dimensions.")
    if any(m > n for m, n in zip(sizes, a.shape, strict=True)):
        raise ValueError(f"[slice] Invalid slice size {sizes} for array with shape {a.shape}.")
    positions = _dynamic_starts(a, start_indices, axes, sizes, "slice", stream)
    fixed = [a.shape[d] if d in positions else sizes[d] for d in range(a.ndim)]
    a = shapes.strided_slice(a, [0] * a.ndim, fixed, [1] * a.ndim, stream=stream)
    if 0 in sizes:
        return shapes.strided_slice(a, [0] * a.ndim, sizes, [1] * a.ndim, stream=stream)
    for axis, index in positions.items():
        a = take(a, index, axis, stream=stream)
    return a


@remembered
def slice_update(a: array, update: array, start_indices: array, axes: Sequence[int], *, stream: Any = None) -> array:
    """`a` with a part replaced whose place is computed: `start_indices` is an array.

    Args:
        a: an array.
        update: the new part, at most as large as a; cast to a's dtype. Missing dims in front have size 1.
        start_indices: 0-d or 1-d integers, one an axis; a start is held back so that the part lies within the array.
        axes: the axes they are of; along others the part starts at 0.
        stream: a stream or device.

    Raises:
        ValueError: shapes, starts or axes that do not match.
        IndexError: an axis is out of range.
    """
    require_array(a, "slice_update")
    require_array(update, "slice_update")
    sizes = (1,) * (a.ndim - update.ndim) + update.shape
    if len(sizes) != a.ndim or any(m > n for m, n in zip(sizes, a.shape, strict=True)):
        raise ValueError(f"[broadcast_shapes] Shapes {update.shape} and {a.shape} cannot be broadcast.")
    positions = _dynamic_starts(a, start_indices, axes, sizes, "slice_update", stream)
    if 0 in sizes:
        return alias(a)
    for d in range(a.ndim):
        if d not in positions and sizes[d] != a.shape[d]:
            positions[d] = creation.arange(sizes[d], dtype=_graph.int32, stream=stream)
    update = _graph.reshape(to_dtype(update, a.dtype, stream), sizes, stream)
    if not positions:
        return update
    indexed = sorted(positions)
    others = [d for d in range(a.ndim) if d not in positions]
    index_shape = [sizes[d] for d in indexed]
    arrays = []
    for i, d in enumerate(indexed):
        spread = _graph.reshape(positions[d], [sizes[d] if j == i else 1 for j in range(len(indexed))], stream)
        arrays.append(shapes.broadcast_to(spread, index_shape, stream=stream))
    update = shapes.transpose(update, indexed + others, stream=stream)
    return scatter.record((a, update, *arrays), a.shape, a.dtype, (tuple(indexed), "none"), stream=stream)
