"""Indexing: reading and functional writing by ints, slices, None, Ellipsis and integer arrays.

The result shapes are NumPy's: ints beside index arrays count as index arrays, and when index arrays are separated by a
slice the indexed dims come first. A Python int outside its dim is an IndexError; an index array is checked on the CPU.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _graph
from ._registry import array, as_array, general, normalize_axis, require_array
from .creation import arange
from .elementwise import add, divide, maximum, minimum, multiply, negative, subtract, where
from .reduce import cumsum
from .shape import (
    NEGATIVE_STEP,
    POSITIVE_STEP,
    UNIT_STEP,
    WHOLE,
    broadcast_shapes,
    broadcast_to,
    strided_slice,
    transpose,
)

_gather = general("gather", "gather")
_scatter = general("scatter", "scatter")
_take_along_axis = general("take_along_axis", "gather")
_put_along_axis = general("put_along_axis", "scatter")
_slice_update = general("slice_update", "scatter")


# ---- understanding an index


class Basic(NamedTuple):
    """A rectangular region: start, count and step of each dim, and the result's shape (no ints, Nones added)."""

    starts: list[int]
    counts: list[int]
    steps: list[int]
    shape: list[int]

    def is_whole(self, shape: tuple[int, ...]) -> bool:
        return tuple(self.counts) == shape and all(s == 1 for s in self.steps)


def _expand(index: Any, ndim: int) -> list[Any]:
    """One entry a dim, plus Nones: the Ellipsis and what is left out become whole slices."""
    entries = list(index) if isinstance(index, tuple) else [index]
    used = sum(1 for e in entries if e is not None and e is not Ellipsis)
    used += sum(e.ndim - 1 for e in entries if isinstance(e, array) and e.dtype is _graph.bool_)
    if used > ndim:
        raise IndexError(f"Too many indices for array with {ndim} dimensions: {used} given.")
    places = [i for i, e in enumerate(entries) if e is Ellipsis]
    if len(places) > 1:
        raise IndexError("An index can only have a single ellipsis (...)")
    at = places[0] if places else len(entries)
    return entries[:at] + [slice(None)] * (ndim - used) + entries[at + 1 :]


def _position(value: Any, dim: int, axis: int) -> int:
    position = operator.index(value)
    if not -dim <= position < dim:
        raise IndexError(f"Index {position} is out of bounds for axis {axis} with size {dim}.")
    return position + dim if position < 0 else position


def _slice_bounds(entry: slice, dim: int) -> tuple[int, int, int]:
    for part in (entry.start, entry.stop, entry.step):
        if part is not None and not isinstance(part, int) and not hasattr(part, "__index__"):
            raise ValueError("Slice indices must be integers or None.")
    start, stop, step = entry.indices(dim)
    count = max(0, -(-(stop - start) // step)) if step > 0 else max(0, -((stop - start) // -step))
    return start, count, step


def _basic(entries: list[Any], shape: tuple[int, ...]) -> Basic:
    """Entries of ints, slices and None alone."""
    starts, counts, steps, result = [], [], [], []
    axis = 0
    for entry in entries:
        if entry is None:
            result.append(1)
            continue
        dim = shape[axis]
        if isinstance(entry, slice):
            if entry.start is None and entry.stop is None and entry.step is None:
                start, count, step = 0, dim, 1
            else:
                start, count, step = _slice_bounds(entry, dim)
            result.append(count)
        else:
            start, count, step = _position(entry, dim, axis), 1, 1
        starts.append(start)
        counts.append(count)
        steps.append(step)
        axis += 1
    return Basic(starts, counts, steps, result)


def _as_index_array(entry: Any) -> array | None:
    if isinstance(entry, array):
        return entry
    if isinstance(entry, (list, np.ndarray)):
        return array(entry)
    return None


def _classify(index: Any, ndim: int) -> tuple[list[Any], bool]:
    """The entries of an index, index arrays as arrays, and whether there is any."""
    if isinstance(index, tuple):
        index = tuple(a if (a := _as_index_array(e)) is not None else e for e in index)
    elif (as_index := _as_index_array(index)) is not None:
        index = as_index
    entries = _expand(index, ndim)
    advanced = False
    for entry in entries:
        if isinstance(entry, array):
            if entry.dtype is not _graph.bool_ and entry.dtype.category not in ("signed", "unsigned"):
                raise ValueError(f"Index arrays must be integers, got {entry.dtype.name}; cast with astype.")
            advanced = True
        elif entry is not None and not isinstance(entry, slice):
            if isinstance(entry, bool) or not hasattr(entry, "__index__"):
                raise ValueError(
                    f"Cannot index an array with {type(entry).__name__}: "
                    "use ints, slices, None, Ellipsis or integer arrays."
                )
    return entries, advanced


class Advanced(NamedTuple):
    """An index with arrays: first a basic region of the array, then a gather along `axes` of what is left."""

    basic: Basic  # every array entry taken whole
    axes: tuple[int, ...]  # dims of the region that are indexed
    indices: list[array]
    index_shape: tuple[int, ...]
    place: int  # where the indexed dims stand in the result


def _advanced(entries: list[Any], shape: tuple[int, ...]) -> Advanced:
    for entry in entries:
        if isinstance(entry, array) and entry.dtype is _graph.bool_:
            raise ValueError(
                "Boolean masks can be assigned through, not read: the result's shape would depend on values."
            )
    basic = _basic([slice(None) if isinstance(e, array) else e for e in entries], shape)
    axes, indices, special, place_of = [], [], [], []
    dim = 0  # of the region
    for at, entry in enumerate(entries):
        if isinstance(entry, array):
            axes.append(dim)
            indices.append(entry)
        if entry is None or isinstance(entry, (slice, array)):
            if not isinstance(entry, array):
                dim += 1
                continue
            dim += 1
        special.append(at)
        place_of.append(sum(1 for e in entries[:at] if e is None or isinstance(e, slice)))
    index_shape = tuple(broadcast_shapes(*[i.shape for i in indices]))
    adjacent = special == list(range(special[0], special[-1] + 1))
    return Advanced(basic, tuple(axes), indices, index_shape, place_of[0] if adjacent else 0)


# ---- reading


def _region(a: array, basic: Basic, stream: Any = None) -> array:
    if not basic.is_whole(a.shape):
        a = strided_slice(a, basic.starts, basic.counts, basic.steps, stream=stream)
    return _graph.reshape(a, basic.shape, stream)


def gather(a: array, indices: Sequence[array], axes: Sequence[int], *, stream: Any = None) -> array:
    """The elements at `indices` along `axes`: shape (broadcast index shape) + (the other dims of a).

    Args:
        a: an array.
        indices: one integer array per axis, broadcast against one another; negative values count from the end.
        axes: the axes indexed, ascending.
    """
    shape = tuple(broadcast_shapes(*[i.shape for i in indices]))
    indices = [broadcast_to(i, shape, stream=stream) for i in indices]
    rest = tuple(d for axis, d in enumerate(a.shape) if axis not in axes)
    empty = any(a.shape[axis] == 0 for axis in axes)
    if empty and 0 not in shape:
        raise IndexError("Cannot index along an axis of size 0.")
    return _gather.record((a, *indices), shape + rest, a.dtype, static=(tuple(axes),), stream=stream)


def _move_indexed_dims(count: int, ndim: int, place: int) -> tuple[int, ...]:
    """The permutation that puts `count` leading dims behind the `place` dims that follow them."""
    rest = list(range(count, ndim))
    return tuple(rest[:place] + list(range(count)) + rest[place:])


def get_item(a: array, index: Any) -> array:
    """`a[index]`."""
    entries, advanced = _classify(index, a.ndim)
    if not advanced:
        return _region(a, _basic(entries, a.shape))
    plan = _advanced(entries, a.shape)
    result = gather(_region(a, plan.basic), plan.indices, plan.axes)
    if plan.place:
        result = transpose(result, _move_indexed_dims(len(plan.index_shape), result.ndim, plan.place))
    return result


def take(a: array, /, indices: int | array, axis: int | None = None, *, stream: Any = None) -> array:
    """Elements along an axis (of the flattened array for None).

    Args:
        a: an array.
        indices: an int, which drops the axis, or an integer array, whose shape replaces it.
        axis: the axis.

    >>> mx.take(mx.array([10, 20, 30]), mx.array([2, 0]))
    array([30, 10], dtype=int32)
    """
    require_array(a, "take")
    if axis is None:
        a, axis = _graph.reshape(a, [-1], stream), 0
    axis = normalize_axis(axis, a.ndim, "take")
    if isinstance(indices, int):
        entries: list[Any] = [slice(None)] * a.ndim
        entries[axis] = indices
        return _region(a, _basic(entries, a.shape), stream)
    indices = as_array(indices)
    if indices.dtype.category not in ("signed", "unsigned"):
        raise ValueError(f"[take] Indices must be integers, got {indices.dtype.name}.")
    result = gather(a, [indices], (axis,), stream=stream)
    if axis == 0:
        return result
    return transpose(result, _move_indexed_dims(indices.ndim, result.ndim, axis), stream=stream)


def _along_shapes(name: str, a: array, indices: array, axis: int, stream: Any) -> tuple[array, array]:
    """`a` and `indices` with their other dims broadcast."""
    if indices.dtype.category not in ("signed", "unsigned"):
        raise ValueError(f"[{name}] Indices must be integers, got {indices.dtype.name}.")
    if a.ndim != indices.ndim:
        raise ValueError(f"[{name}] Indices of {indices.ndim} dimensions do not match an array of {a.ndim}.")
    others = broadcast_shapes(
        tuple(1 if d == axis else n for d, n in enumerate(a.shape)),
        tuple(1 if d == axis else n for d, n in enumerate(indices.shape)),
    )
    a_shape = tuple(a.shape[axis] if d == axis else n for d, n in enumerate(others))
    i_shape = tuple(indices.shape[axis] if d == axis else n for d, n in enumerate(others))
    return broadcast_to(a, a_shape, stream=stream), broadcast_to(indices, i_shape, stream=stream)


def take_along_axis(a: array, /, indices: array, axis: int | None = -1, *, stream: Any = None) -> array:
    """out[..., i, ...] = a[..., indices[..., i, ...], ...], the other dims broadcast; flattened for axis None."""
    require_array(a, "take_along_axis")
    indices = as_array(indices)
    if axis is None:
        a, axis = _graph.reshape(a, [-1], stream), 0
    axis = normalize_axis(axis, a.ndim, "take_along_axis")
    a, indices = _along_shapes("take_along_axis", a, indices, axis, stream)
    return _take_along_axis.record((a, indices), indices.shape, a.dtype, static=(axis,), stream=stream)


# ---- writing


def _broadcast_value(value: array, shape: Sequence[int]) -> array:
    """`value` broadcast to `shape`; surplus leading dims of 1 are dropped, as in assignment."""
    if value.ndim > len(shape):
        surplus = value.ndim - len(shape)
        if any(d != 1 for d in value.shape[:surplus]):
            raise ValueError(f"Cannot assign shape {value.shape} to a region of shape {tuple(shape)}.")
        value = _graph.reshape(value, list(value.shape[surplus:]))
    return value if value.shape == tuple(shape) else broadcast_to(value, tuple(shape))


def _update_region(a: array, basic: Basic, value: array) -> array:
    value = _graph.reshape(_broadcast_value(value, basic.shape), basic.counts)
    if 0 in basic.counts:
        return a
    if basic.is_whole(a.shape):
        return value
    mask = tuple(
        WHOLE
        if count == dim and step == 1
        else UNIT_STEP
        if step == 1
        else POSITIVE_STEP
        if step > 1
        else NEGATIVE_STEP
        for count, dim, step in zip(basic.counts, a.shape, basic.steps, strict=True)
    )
    ints = (*basic.starts, *basic.steps)
    return _slice_update.record((a, value), a.shape, a.dtype, static=(mask, "none"), ints=ints)


def scatter(
    a: array, indices: Sequence[array], updates: array, axes: Sequence[int], mode: str = "none", *, stream: Any = None
) -> array:
    """`a` with updates written at `indices` along `axes`; `mode` none, add, prod, max or min.

    Updates have the shape that `gather` of the same indices has. With mode none, one of the updates to an
    element wins.
    """
    shape = tuple(broadcast_shapes(*[i.shape for i in indices]))
    indices = [broadcast_to(i, shape, stream=stream) for i in indices]
    rest = tuple(d for axis, d in enumerate(a.shape) if axis not in axes)
    updates = broadcast_to(_graph.astype(updates, a.dtype, stream), shape + rest, stream=stream)
    if 0 in updates.shape:
        return a
    if any(a.shape[axis] == 0 for axis in axes):
        raise IndexError("Cannot index along an axis of size 0.")
    return _scatter.record((a, updates, *indices), a.shape, a.dtype, static=(tuple(axes), mode), stream=stream)


def _masked(a: array, mask: array, value: array) -> array:
    """`a` with the elements where `mask` (over its leading dims) is true replaced."""
    if mask.shape != a.shape[: mask.ndim]:
        raise IndexError(f"A boolean mask of shape {mask.shape} does not match the array's {a.shape}.")
    rest = a.shape[mask.ndim :]
    spread = _graph.reshape(mask, [*mask.shape, *([1] * len(rest))])
    if value.ndim <= len(rest) or value.size == 1:
        return where(spread, _broadcast_value(value, rest), a)
    # Row k of the value goes to the k-th true element.
    rank = maximum(subtract(cumsum(_graph.reshape(mask, [-1])), 1), 0)
    rows = _graph.reshape(take(value, minimum(rank, value.shape[0] - 1), axis=0), [*mask.shape, *value.shape[1:]])
    return where(spread, broadcast_to(rows, a.shape), a)


def _updated(a: array, index: Any, value: Any, mode: str) -> array:
    """`a` with `a[index]` combined with `value` by `mode`."""
    value = _graph.weak_operand(value, a) if not isinstance(value, (list, tuple)) else array(value)
    value = _graph.astype(value, a.dtype)
    entries, advanced = _classify(index, a.ndim)
    if not advanced:
        basic = _basic(entries, a.shape)
        return _update_region(a, basic, _combine(_region(a, basic), value, mode))
    masks = [e for e in entries if isinstance(e, array) and e.dtype is _graph.bool_]
    if masks:
        if len(entries) > 1 and not (
            entries[0] is masks[0] and all(e == slice(None) for e in entries[1:] if not isinstance(e, array))
        ):
            raise ValueError("A boolean mask cannot be mixed with other indices.")
        return _masked(a, masks[0], _combine(a, value, mode) if mode != "none" else value)
    plan = _advanced(entries, a.shape)
    region = _region(a, plan.basic)
    rest = [d for axis, d in enumerate(region.shape) if axis not in plan.axes]
    n = len(plan.index_shape)
    value = _broadcast_value(value, [*rest[: plan.place], *plan.index_shape, *rest[plan.place :]])
    if plan.place:
        p = plan.place
        value = transpose(value, (*range(p, p + n), *range(p), *range(p + n, value.ndim)))
    written = scatter(region, plan.indices, value, plan.axes, mode)
    if plan.basic.is_whole(a.shape) and region.shape == a.shape:
        return written
    return _update_region(a, plan.basic, written)


def _combine(old: array, value: array, mode: str) -> array:
    match mode:
        case "add":
            return add(old, value)
        case "prod":
            return multiply(old, value)
        case "max":
            return maximum(old, value)
        case "min":
            return minimum(old, value)
    return value


def set_item(a: array, index: Any, value: Any) -> array:
    """What `a` becomes by `a[index] = value`."""
    if isinstance(value, (list, tuple, str)):
        raise ValueError(f"Invalid type {type(value).__name__} received where an array or a number is expected.")
    return _updated(a, index, value, "none")


class _At:
    """`x.at`: updates that count every repeated index, each returning a new array."""

    def __init__(self, a: array) -> None:
        self._array = a

    def __getitem__(self, index: Any) -> _AtIndex:
        return _AtIndex(self._array, index)


class _AtIndex:
    def __init__(self, a: array, index: Any) -> None:
        self._array = a
        self._index = index

    def add(self, value: Any) -> array:
        """a[index] + value."""
        return _updated(self._array, self._index, value, "add")

    def subtract(self, value: Any) -> array:
        """a[index] - value."""
        return self.add(negative(_graph.weak_operand(value, self._array)))

    def multiply(self, value: Any) -> array:
        """a[index] * value."""
        return _updated(self._array, self._index, value, "prod")

    def divide(self, value: Any) -> array:
        """a[index] / value."""
        return self.multiply(divide(1, _graph.weak_operand(value, self._array)))

    def maximum(self, value: Any) -> array:
        """max(a[index], value)."""
        return _updated(self._array, self._index, value, "max")

    def minimum(self, value: Any) -> array:
        """min(a[index], value)."""
        return _updated(self._array, self._index, value, "min")


def at(a: array) -> _At:
    """`x.at[index].add(value)` and its kin."""
    return _At(a)


def put_along_axis(a: array, /, indices: array, values: Any, axis: int | None = None, *, stream: Any = None) -> array:
    """`a` with out[..., indices[..., i, ...], ...] = values[..., i, ...]; flattened indices for axis None."""
    require_array(a, "put_along_axis")
    shape = a.shape
    if axis is None:
        flat = _graph.reshape(a, [-1], stream)
        indices = _graph.reshape(as_array(indices), [-1], stream)
        values = as_array(values)
        if values.ndim > 1:
            values = _graph.reshape(values, [-1], stream)
        return _graph.reshape(put_along_axis(flat, indices, values, 0, stream=stream), list(shape), stream)
    axis = normalize_axis(axis, a.ndim, "put_along_axis")
    indices = as_array(indices)
    wide, indices = _along_shapes("put_along_axis", a, indices, axis, stream)
    if wide.shape != shape:
        raise ValueError(f"[put_along_axis] Indices of shape {indices.shape} do not fit an array of shape {shape}.")
    values = broadcast_to(_graph.astype(as_array(values), a.dtype, stream), indices.shape, stream=stream)
    return _put_along_axis.record((a, indices, values), shape, a.dtype, static=(axis, "none"), stream=stream)


def _start_indices(
    name: str, a: array, start: array, axes: Sequence[int], sizes: Sequence[int], stream: Any
) -> list[array]:
    """Index arrays of a block of `sizes` that begins at `start`, an integer array of one entry an axis."""
    if start.dtype.category not in ("signed", "unsigned"):
        raise ValueError(f"[{name}] Start indices must be integers, got {start.dtype.name}.")
    if start.size != len(axes):
        raise ValueError(f"[{name}] {start.size} start indices for {len(axes)} axes.")
    start = _graph.reshape(start, [-1], stream)
    result = []
    for k, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        if size > a.shape[axis]:
            raise ValueError(f"[{name}] A block of {size} does not fit axis {axis} of size {a.shape[axis]}.")
        index = add(
            _graph.reshape(start[k], [1], stream), arange(size, dtype=_graph.int32, stream=stream), stream=stream
        )
        dims = [1] * len(axes)
        dims[k] = size
        result.append(_graph.reshape(index, dims, stream))
    return result


def slice_(
    a: array, start_indices: array, axes: Sequence[int], slice_size: Sequence[int], *, stream: Any = None
) -> array:
    """A block of `a` of shape `slice_size`, whose start along `axes` is data (an integer array)."""
    axes = [normalize_axis(x, a.ndim, "slice") for x in axes]
    if len(slice_size) != a.ndim:
        raise ValueError(f"[slice] {len(slice_size)} sizes for an array of {a.ndim} dimensions.")
    region = strided_slice(
        a,
        [0] * a.ndim,
        [a.shape[d] if d in axes else slice_size[d] for d in range(a.ndim)],
        [1] * a.ndim,
        stream=stream,
    )
    starts = _start_indices("slice", region, as_array(start_indices), axes, [slice_size[x] for x in axes], stream)
    for index, axis in zip(starts, axes, strict=True):
        region = take(region, _graph.reshape(index, [-1], stream), axis=axis, stream=stream)
    return region


def slice_update(a: array, update: array, start_indices: array, axes: Sequence[int], *, stream: Any = None) -> array:
    """`a` with a block replaced by `update`; the block's start along `axes` is data (an integer array)."""
    axes = [normalize_axis(x, a.ndim, "slice_update") for x in axes]
    if update.ndim != a.ndim:
        raise ValueError(f"[slice_update] An update of {update.ndim} dimensions for an array of {a.ndim}.")
    order = sorted(range(len(axes)), key=lambda k: axes[k])
    start = take(_graph.reshape(as_array(start_indices), [-1], stream), array(order), stream=stream)
    axes = [axes[k] for k in order]
    indices = _start_indices("slice_update", a, start, axes, [update.shape[x] for x in axes], stream)
    others = [d for d in range(a.ndim) if d not in axes]
    whole = strided_slice(a, [0] * a.ndim, a.shape, [1] * a.ndim, stream=stream)
    if any(update.shape[d] != a.shape[d] for d in others):
        raise ValueError(f"[slice_update] An update of shape {update.shape} does not cover {a.shape} outside {axes}.")
    moved = transpose(update, (*axes, *others), stream=stream)
    return scatter(whole, indices, moved, axes, stream=stream)


_graph.set_hooks(getitem=get_item, setitem=set_item)
