"""Shapes: views, joining, splitting, padding."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any, cast

from .. import _graph
from ._registry import (
    Dtype,
    alias,
    array,
    as_array,
    general,
    normalize_axes,
    normalize_axis,
    normalize_shape,
    remembered,
    require_array,
    to_dtype,
)

_transpose = general("transpose", "view")
_broadcast_to = general("broadcast_to", "view")
_slice = general("slice", "view")
_concatenate = general("concatenate", "concatenate")
_reinterpret = general("view", "copy")

WHOLE, UNIT_STEP, POSITIVE_STEP, NEGATIVE_STEP = range(4)  # the mask of a slice, one entry a dim


# ---- views


def reshape(a: array, /, shape: Sequence[int], *, stream: Any = None) -> array:
    """The same elements, in row-major order, in another shape.

    Args:
        a: an array.
        shape: the new dims, one of which may be -1: what is left.
        stream: a stream or device.

    Raises:
        ValueError: the number of elements differs.

    >>> mx.reshape(mx.arange(4), (2, -1))
    array([[0, 1],
           [2, 3]], dtype=int32)
    """
    require_array(a, "reshape")
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"[reshape] shape must be a sequence of integers, got {type(shape).__name__}")
    return _graph.reshape(a, list(map(operator.index, shape)), stream)


@remembered
def flatten(a: array, /, start_axis: int = 0, end_axis: int = -1, *, stream: Any = None) -> array:
    """The dims from start_axis through end_axis made one; a 0-d array becomes 1-d. Axes beyond the ends are clamped."""
    shape = require_array(a, "flatten").shape
    ndim = len(shape)
    if ndim == 0:
        return _graph.reshape(a, [1], stream)
    start = max(0, start_axis + ndim if start_axis < 0 else start_axis)
    end = min(ndim - 1, end_axis + ndim if end_axis < 0 else end_axis)
    if end < start:
        raise ValueError("[flatten] start_axis must be less than or equal to end_axis")
    return _graph.reshape(a, [*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]], stream)


@remembered
def unflatten(a: array, /, axis: int, shape: Sequence[int], *, stream: Any = None) -> array:
    """One dim made several. ValueError unless `shape` (-1: what is left) has as many elements."""
    dims = require_array(a, "unflatten").shape
    axis = normalize_axis(axis, len(dims), "unflatten")
    shape = list(shape)
    if not shape:
        raise ValueError("[unflatten] Shape to unflatten to cannot be empty.")
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) == 1 and known and dims[axis] % known == 0:
        shape[shape.index(-1)] = dims[axis] // known
    if math.prod(shape) != dims[axis] or min(shape) < 0:
        raise ValueError(f"[unflatten] Cannot unflatten axis {axis} with size {dims[axis]} into shape {tuple(shape)}.")
    return _graph.reshape(a, [*dims[:axis], *shape, *dims[axis + 1 :]], stream)


@remembered
def expand_dims(a: array, /, axis: int | Sequence[int], *, stream: Any = None) -> array:
    """Dims of size 1 put in at the given positions of the result."""
    require_array(a, "expand_dims")
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    ndim = a.ndim + count
    axes = normalize_axes(axis, ndim, "expand_dims")
    dims = iter(a.shape)
    return _graph.reshape(a, [1 if d in axes else next(dims) for d in range(ndim)], stream)


@remembered
def squeeze(a: array, /, axis: int | Sequence[int] | None = None, *, stream: Any = None) -> array:
    """Dims of size 1 taken out: those given, or all. ValueError for a dim of another size."""
    shape = require_array(a, "squeeze").shape
    if axis is None:
        return _graph.reshape(a, [n for n in shape if n != 1], stream)
    axes = normalize_axes(axis, len(shape), "squeeze")
    for d in axes:
        if shape[d] != 1:
            raise ValueError(f"[squeeze] Cannot squeeze axis {d} with size {shape[d]} which is not equal to 1.")
    return _graph.reshape(a, [n for d, n in enumerate(shape) if d not in axes], stream)


@remembered
def transpose(a: array, /, axes: Sequence[int] | None = None, *, stream: Any = None) -> array:
    """The dims in another order: dim i of the result is dim axes[i] of a; reversed for None.

    Raises:
        ValueError: `axes` is not as long as a has dims, or repeats one.
        IndexError: an axis is out of range.
    """
    shape = require_array(a, "transpose").shape
    ndim = len(shape)
    if axes is None:
        order = tuple(range(ndim - 1, -1, -1))
    else:
        if len(axes) != ndim:
            raise ValueError(f"[transpose] Received {len(axes)} axes for array with {ndim} dimensions.")
        order = tuple([normalize_axis(axis, ndim, "transpose") for axis in axes])
        if len(set(order)) != ndim:
            raise ValueError("[transpose] Repeat axes not allowed.")
    return _permute(a, order, stream)


permute_dims = transpose


def _permute(a: array, order: tuple[int, ...], stream: Any) -> array:
    if order == tuple(range(len(order))):
        return alias(a)
    shape = a.shape
    return _transpose.record((a,), [shape[d] for d in order], a.dtype, static=(order,), stream=stream)


@remembered
def swapaxes(a: array, /, axis1: int, axis2: int, *, stream: Any = None) -> array:
    """Two dims exchanged."""
    ndim = require_array(a, "swapaxes").ndim
    axis1, axis2 = normalize_axis(axis1, ndim, "swapaxes"), normalize_axis(axis2, ndim, "swapaxes")
    order = list(range(ndim))
    order[axis1], order[axis2] = axis2, axis1
    return _permute(a, tuple(order), stream)


@remembered
def moveaxis(a: array, /, source: int, destination: int, *, stream: Any = None) -> array:
    """One dim moved, the others in order."""
    ndim = require_array(a, "moveaxis").ndim
    source, destination = normalize_axis(source, ndim, "moveaxis"), normalize_axis(destination, ndim, "moveaxis")
    order = [d for d in range(ndim) if d != source]
    order.insert(destination, source)
    return _permute(a, tuple(order), stream)


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that arrays of these shapes broadcast to. ValueError if they do not, or there is none."""
    if not shapes:
        raise ValueError("[broadcast_shapes] Must provide at least one shape.")
    result = tuple(shapes[0])
    for shape in shapes[1:]:
        result = _broadcast_pair(result, tuple(shape))
    return result


def _broadcast_pair(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    ndim = max(len(a), len(b))
    dims = []
    for m, n in zip((1,) * (ndim - len(a)) + a, (1,) * (ndim - len(b)) + b, strict=True):
        if m != n and m != 1 and n != 1:
            raise ValueError(f"[broadcast_shapes] Shapes {a} and {b} cannot be broadcast.")
        dims.append(n if m == 1 else m)
    return tuple(dims)


@remembered
def broadcast_to(a: Any, /, shape: Sequence[int], *, stream: Any = None) -> array:
    """A view of `a` repeated to `shape`. ValueError if it does not broadcast."""
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"[broadcast_to] shape must be a sequence of integers, got {type(shape).__name__}")
    a = as_array(a)
    wanted = normalize_shape(shape, "broadcast_to")
    if a.shape == wanted:
        return alias(a)
    padded = (1,) * (len(wanted) - a.ndim) + a.shape
    if len(padded) != len(wanted) or any(n not in (1, m) for n, m in zip(padded, wanted, strict=True)):
        raise ValueError(f"[broadcast_to] Shape {a.shape} cannot be broadcast to {wanted}.")
    return _broadcast_to.record((a,), wanted, a.dtype, stream=stream)


def broadcast_arrays(*arrays: array, stream: Any = None) -> list[array]:
    """All arrays broadcast to their common shape."""
    if not arrays:
        return []
    arrays = tuple(map(as_array, arrays))
    shape = broadcast_shapes(*[a.shape for a in arrays])
    return [broadcast_to(a, shape, stream=stream) for a in arrays]


def strided_slice(
    a: array, starts: Sequence[int], counts: Sequence[int], steps: Sequence[int], *, stream: Any = None
) -> array:
    """A view of `counts[d]` elements from `starts[d]`, `steps[d]` apart, of every dim d. The caller checks bounds."""
    shape = a.shape
    mask = []
    for start, count, step, n in zip(starts, counts, steps, shape, strict=True):
        if start == 0 and step == 1 and count == n:
            mask.append(WHOLE)
        else:
            mask.append(UNIT_STEP if step == 1 else POSITIVE_STEP if step > 1 else NEGATIVE_STEP)
    if not any(mask):
        return alias(a)
    return _slice.record((a,), counts, a.dtype, static=(tuple(mask),), ints=(*starts, *steps), stream=stream)


def slice_along(a: array, axis: int, start: int, stop: int, step: int = 1, *, stream: Any = None) -> array:
    """The view a[start:stop:step] of one axis, with bounds as Python's `range` takes them (no wrapping)."""
    starts, counts, steps = [0] * a.ndim, list(a.shape), [1] * a.ndim
    starts[axis], counts[axis], steps[axis] = start, len(range(start, stop, step)), step
    return strided_slice(a, starts, counts, steps, stream=stream)


def part_of(a: array, axis: int, index: int, parts: int, *, stream: Any = None) -> array:
    """The view of one of several equal parts along an axis. That it is one of them is known for all sizes."""
    if parts == 1:
        return alias(a)
    shape, static, ints = _part(a.shape, axis, index, parts)
    return _slice.record((a,), shape, a.dtype, static, ints, stream=stream)


@functools.lru_cache(maxsize=256)
def _part(shape: tuple[int, ...], axis: int, index: int, parts: int) -> tuple[tuple[int, ...], Any, tuple[int, ...]]:
    """The shape of one of several equal parts, and what its slice is recorded with."""
    rank, of_part = len(shape), list(shape)
    of_part[axis] //= parts
    starts, mask = [0] * rank, [WHOLE] * rank
    starts[axis], mask[axis] = index * of_part[axis], UNIT_STEP
    return tuple(of_part), (tuple(mask), (axis, index, parts)), (*starts, *[1] * rank)


def reverse(a: array, axis: int, *, stream: Any = None) -> array:
    """A view of `a` with one axis turned round."""
    n = a.shape[axis]
    return slice_along(a, axis, n - 1, -1, -1, stream=stream) if n > 1 else a


@remembered
def flip(a: array, /, axis: int | Sequence[int] | None = None, *, stream: Any = None) -> array:
    """A view with axes turned round; all of them for None."""
    result = alias(require_array(a, "flip"))
    for d in normalize_axes(axis, a.ndim, "flip"):
        result = reverse(result, d, stream=stream)
    return result


def matrix_transpose(a: array, /, *, stream: Any = None) -> array:
    """The last two dims exchanged. ValueError for fewer than two."""
    if require_array(a, "matrix_transpose").ndim < 2:
        raise ValueError("[matrix_transpose] Input array must have at least 2 dimensions.")
    return swapaxes(a, -1, -2, stream=stream)


@remembered
def diagonal(a: array, offset: int = 0, axis1: int = 0, axis2: int = 1, stream: Any = None) -> array:
    """The diagonal j = i + offset of the matrices along two axes, as a last axis.

    Raises:
        ValueError: fewer than two dimensions, or both axes are one.
        IndexError: an axis is out of range.
    """
    ndim = require_array(a, "diagonal").ndim
    if ndim < 2:
        raise ValueError(f"[diagonal] Array must have at least two dimensions, but got {ndim} dimensions.")
    axis1, axis2 = normalize_axis(axis1, ndim, "diagonal"), normalize_axis(axis2, ndim, "diagonal")
    if axis1 == axis2:
        raise ValueError("[diagonal] axis1 and axis2 cannot be the same axis")
    rows, columns = a.shape[axis1], a.shape[axis2]
    count = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    rest = tuple(d for d in range(ndim) if d not in (axis1, axis2))
    a = _permute(a, (*rest, axis1, axis2), stream)
    # In row-major order the next element of a diagonal is a row and one column away.
    a = flatten(a, -2, -1, stream=stream)
    first = offset if offset >= 0 else -offset * columns
    starts, steps = [0] * (ndim - 1), [1] * (ndim - 1)
    starts[-1], steps[-1] = (first, columns + 1) if count else (0, 1)
    return strided_slice(a, starts, [*a.shape[:-1], count], steps, stream=stream)


def contiguous(a: array, /, allow_col_major: bool = False, *, stream: Any = None) -> array:
    """The same array, laid out row-major. (A column-major layout is copied too, though it would be allowed.)"""
    return _graph.contiguous(require_array(a, "contiguous"), stream)


def _at_least(ndim: int, arrays: tuple[Any, ...], stream: Any) -> Any:
    results = []
    for a in arrays:
        shape = list(as_array(a).shape)
        if ndim == 3 and len(shape) in (1, 2):
            shape = [1, *shape, 1] if len(shape) == 1 else [*shape, 1]
        results.append(_graph.reshape(as_array(a), [1] * (ndim - len(shape)) + shape, stream))
    return results[0] if len(results) == 1 else results


def atleast_1d(*arys: array, stream: Any = None) -> array | list[array]:
    """Arrays of at least one dim; one array for one, a list for several."""
    return _at_least(1, arys, stream)


def atleast_2d(*arys: array, stream: Any = None) -> array | list[array]:
    """Arrays of at least two dims, new ones in front; one array for one, a list for several."""
    return _at_least(2, arys, stream)


def atleast_3d(*arys: array, stream: Any = None) -> array | list[array]:
    """Arrays of at least three dims, a vector becoming (1, n, 1), a matrix (n, m, 1)."""
    return _at_least(3, arys, stream)


def view(a: Any, dtype: Dtype, stream: Any = None) -> array:
    """The same bytes, row-major, as elements of another dtype. The last dim changes with the size of an element.

    Args:
        a: an array or a number.
        dtype: the dtype to see it as.
        stream: a stream or device.

    Raises:
        ValueError: the last dim is not a whole number of elements, or a 0-d array and a dtype of another size.

    >>> mx.view(mx.array([1.0, -2.0]), mx.uint32)
    array([1065353216, 3221225472], dtype=uint32)
    """
    a = as_array(a)
    if not isinstance(dtype, Dtype):
        raise TypeError(f"[view] expects a dtype, got {type(dtype).__name__}")
    if dtype == a.dtype:
        return alias(a)
    shape, old, new = list(a.shape), a.dtype.size, dtype.size
    if old != new:
        if not shape:
            raise ValueError(f"[view] A 0-d array of {a.dtype.name} can only be seen as a dtype of {old} bytes.")
        if shape[-1] * old % new:
            raise ValueError(
                f"[view] The last dim of shape {a.shape} has {shape[-1] * old} bytes, no whole number of elements of "
                f"{dtype.name}, of {new} bytes."
            )
        shape[-1] = shape[-1] * old // new
    return _reinterpret.record((a,), shape, dtype, stream=stream)


# ---- joining and splitting


@remembered
def concatenate(arrays: Sequence[array], axis: int | None = 0, *, stream: Any = None) -> array:
    """Arrays joined along an axis; all flattened first for None. Dtypes are promoted.

    Raises:
        ValueError: there are none, or dims other than the axis differ.
        IndexError: the axis is out of range.

    >>> mx.concatenate([mx.array([1, 2]), mx.array([3])])
    array([1, 2, 3], dtype=int32)
    """
    arrays = [require_array(a, "concatenate") for a in arrays]
    if not arrays:
        raise ValueError("[concatenate] No arrays provided for concatenation")
    if axis is None:
        arrays = [flatten(a, stream=stream) for a in arrays]
        axis = 0
    first = arrays[0].shape
    axis = normalize_axis(axis, len(first), "concatenate")
    dtype = arrays[0].dtype
    total = 0
    for a in arrays:
        shape = a.shape
        if len(shape) != len(first):
            raise ValueError(
                "[concatenate] All the input arrays must have the same number of dimensions, "
                f"got {len(first)} and {len(shape)}."
            )
        if shape[:axis] != first[:axis] or shape[axis + 1 :] != first[axis + 1 :]:
            raise ValueError(
                "[concatenate] All the input array dimensions must match exactly except for the concatenation axis, "
                f"got shapes {first} and {shape} for axis {axis}."
            )
        total += shape[axis]
        if a.dtype != dtype:
            dtype = _graph.promote_types(dtype, a.dtype)
    arrays = [to_dtype(a, dtype, stream) for a in arrays]
    if len(arrays) == 1:
        return alias(arrays[0])
    shape = (*first[:axis], total, *first[axis + 1 :])
    return _concatenate.record(arrays, shape, dtype, static=(axis,), stream=stream)


concat = concatenate


@remembered
def stack(arrays: Sequence[array], axis: int | None = 0, *, stream: Any = None) -> array:
    """Arrays of one shape joined along a new axis (the first for None). ValueError for none or differing shapes."""
    arrays = [require_array(a, "stack") for a in arrays]
    if not arrays:
        raise ValueError("[stack] No arrays provided for stacking")
    if any(a.shape != arrays[0].shape for a in arrays):
        raise ValueError("[stack] All arrays must have the same shape")
    axis = normalize_axis(0 if axis is None else axis, arrays[0].ndim + 1, "stack")
    return concatenate([expand_dims(a, axis, stream=stream) for a in arrays], axis, stream=stream)


@remembered
def split(a: array, /, indices_or_sections: int | Sequence[int], axis: int = 0, *, stream: Any = None) -> list[array]:
    """Views of the parts of an array along an axis.

    Args:
        a: an array.
        indices_or_sections: how many equal parts; or where each next part begins, as slice bounds.
        axis: the axis.
        stream: a stream or device.

    Raises:
        ValueError: the axis does not divide into that many parts.
    """
    require_array(a, "split")
    axis = normalize_axis(axis, a.ndim, "split")
    n = a.shape[axis]
    if isinstance(indices_or_sections, (tuple, list)):
        bounds = [0, *[operator.index(i) for i in indices_or_sections], n]
        parts = [slice(start, stop).indices(n)[:2] for start, stop in itertools.pairwise(bounds)]
        return [slice_along(a, axis, start, stop, stream=stream) for start, stop in parts]
    sections = operator.index(cast(int, indices_or_sections))
    if sections <= 0:
        raise ValueError(f"[split] num_splits must be positive and non-zero but got {sections}.")
    if n % sections:
        raise ValueError(
            "[split] Array split does not result in sub arrays with equal size: "
            f"attempting {sections} splits along axis {axis} for shape {a.shape}."
        )
    return [part_of(a, axis, i, sections, stream=stream) for i in range(sections)]


@remembered
def unstack(x: array, /, *, axis: int = 0, stream: Any = None) -> tuple[array, ...]:
    """Views of the slices along an axis, without it."""
    axis = normalize_axis(axis, require_array(x, "unstack").ndim, "unstack")
    parts = [slice_along(x, axis, i, i + 1, stream=stream) for i in range(x.shape[axis])]
    return tuple([squeeze(part, axis, stream=stream) for part in parts])


@remembered
def repeat(array: array, /, repeats: int, axis: int | None = None, *, stream: Any = None) -> array:
    """Every element `repeats` times along an axis; of the flattened array for None. ValueError for negative repeats."""
    a = require_array(array, "repeat")
    if axis is None:
        a = flatten(a, stream=stream)
        axis = 0
    axis = normalize_axis(axis, a.ndim, "repeat")
    if repeats < 0:
        raise ValueError("[repeat] Number of repeats cannot be negative")
    shape = a.shape
    spread = broadcast_to(
        expand_dims(a, axis + 1, stream=stream), (*shape[: axis + 1], repeats, *shape[axis + 1 :]), stream=stream
    )
    return _graph.reshape(spread, [*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]], stream)


@remembered
def tile(a: array, reps: int | Sequence[int], /, *, stream: Any = None) -> array:
    """The array laid side by side reps[d] times along each axis (the last axes, where there are fewer)."""
    require_array(a, "tile")
    counts: list[int] = list(reps) if isinstance(reps, (tuple, list)) else [cast(int, reps)]
    if any(n < 0 for n in counts):
        raise ValueError("[tile] Negative dimensions not allowed.")
    shape = list(a.shape)
    ndim = max(len(shape), len(counts))
    shape = [1] * (ndim - len(shape)) + shape
    counts = [1] * (ndim - len(counts)) + counts
    inner, outer = [], []
    for count, n in zip(counts, shape, strict=True):
        inner += [1, n]
        outer += [count, n]
    spread = broadcast_to(_graph.reshape(a, inner, stream), outer, stream=stream)
    return _graph.reshape(spread, [count * n for count, n in zip(counts, shape, strict=True)], stream)


@remembered
def roll(
    a: array, /, shift: int | Sequence[int], axis: int | Sequence[int] | None = None, *, stream: Any = None
) -> array:
    """Elements moved along axes, those that leave coming in at the other end; along the flattened array for None.

    Raises:
        ValueError: as many shifts as axes are needed, or one for all.
    """
    require_array(a, "roll")
    if axis is None:
        total = sum(shift) if isinstance(shift, (tuple, list)) else cast(int, shift)
        rolled = _roll_along(flatten(a, stream=stream), total, 0, stream)
        return _graph.reshape(rolled, list(a.shape), stream)
    axes = list(axis) if isinstance(axis, (tuple, list)) else [axis]
    if isinstance(shift, (tuple, list)):
        # Several shifts of one axis add up.
        shifts = list(shift) if len(axes) > 1 else [sum(shift)]
    else:
        shifts = [shift] * len(axes)
    if len(shifts) < len(axes):
        raise ValueError(f"[roll] At least one shift value per axis is required, but got {len(shifts)} for {len(axes)}")
    result = alias(a)
    for d, count in zip(axes, shifts, strict=False):
        result = _roll_along(result, count, normalize_axis(d, a.ndim, "roll"), stream)
    return result


def _roll_along(a: array, shift: int, axis: int, stream: Any) -> array:
    n = a.shape[axis]
    cut = -shift % n if n else 0
    if cut == 0:
        return alias(a)
    return concatenate(
        [slice_along(a, axis, cut, n, stream=stream), slice_along(a, axis, 0, cut, stream=stream)], axis, stream=stream
    )


# ---- padding


def _pad_widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    if isinstance(pad_width, int):
        return [(pad_width, pad_width)] * ndim
    widths = list(pad_width)
    if all(isinstance(w, int) for w in widths) and len(widths) in (1, 2):
        return [(widths[0], widths[-1])] * ndim
    if len(widths) == 1:
        return [(widths[0][0], widths[0][-1])] * ndim
    if len(widths) != ndim:
        raise ValueError(f"[pad] Invalid number of padding sizes passed to pad with axes of size {ndim}")
    return [(w, w) if isinstance(w, int) else (w[0], w[-1]) for w in widths]


@remembered
def pad(a: array, pad_width: Any, mode: str = "constant", constant_values: Any = 0, *, stream: Any = None) -> array:
    """The array with elements added at both ends of its axes.

    Args:
        a: an array.
        pad_width: one width, a (before, after) pair for all axes, or a pair for each.
        mode: "constant", "edge" (the last element), "reflect" (mirrored without it), "symmetric" (mirrored with it).
        constant_values: a number, for "constant".
        stream: a stream or device.

    Raises:
        ValueError: a negative width, as many pairs as a has axes not given, or an unknown mode.
    """
    require_array(a, "pad")
    widths = _pad_widths(pad_width, a.ndim)
    for axis, (before, after) in enumerate(widths):
        for side, width in (("low", before), ("high", after)):
            if width < 0:
                raise ValueError(
                    f"Invalid {side} padding size ({width}) passed to pad for axis {axis}. "
                    "Padding sizes must be non-negative"
                )
    if mode not in ("constant", "edge", "reflect", "symmetric"):
        raise ValueError(f"Invalid padding mode ({mode}) passed to pad")
    if mode == "constant":
        value = constant_values if isinstance(constant_values, array) else _graph.as_array(constant_values)
        fill = to_dtype(value, a.dtype, stream)
    result = alias(a)
    for axis, (before, after) in enumerate(widths):
        if not before and not after:
            continue
        if mode == "constant":
            shape = result.shape

            def filled(width: int, axis: int = axis, shape: tuple[int, ...] = shape) -> list[array]:
                dims = (*shape[:axis], width, *shape[axis + 1 :])
                return [broadcast_to(fill, dims, stream=stream)] if width else []

            result = concatenate([*filled(before), result, *filled(after)], axis, stream=stream)
        else:
            result = _pad_mirrored(result, axis, before, after, mode, stream)
    return result


def _pad_mirrored(a: array, axis: int, before: int, after: int, mode: str, stream: Any) -> array:
    n = a.shape[axis]
    if n == 0:
        raise ValueError(f"[pad] Cannot pad axis {axis} of size 0 in mode {mode}.")
    if mode == "edge" or n == 1:
        shape = a.shape

        def edge(start: int, width: int) -> list[array]:
            line = slice_along(a, axis, start, start + 1, stream=stream)
            return [broadcast_to(line, (*shape[:axis], width, *shape[axis + 1 :]), stream=stream)] if width else []

        return concatenate([*edge(0, before), a, *edge(n - 1, after)], axis, stream=stream)
    # What is there already is a piece of the mirrored pattern, so mirroring it about its ends goes on with the pattern.
    skip = 1 if mode == "reflect" else 0
    while before:
        n = a.shape[axis]
        width = min(before, n - skip)
        piece = slice_along(a, axis, skip + width - 1, skip - 1, -1, stream=stream)
        a = concatenate([piece, a], axis, stream=stream)
        before -= width
    while after:
        n = a.shape[axis]
        width = min(after, n - skip)
        piece = slice_along(a, axis, n - 1 - skip, n - 1 - skip - width, -1, stream=stream)
        a = concatenate([a, piece], axis, stream=stream)
        after -= width
    return a


@remembered
def meshgrid(
    *arrays: array, sparse: bool | None = False, indexing: str | None = "xy", stream: Any = None
) -> tuple[array, ...]:
    """Coordinate arrays of a grid.

    Args:
        arrays: the coordinates along each axis (flattened).
        sparse: leave the other axes with size 1.
        indexing: "xy" (the first two axes exchanged, as in plots) or "ij".
        stream: a stream or device.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError("[meshgrid] Invalid indexing value. Valid values are 'xy' and 'ij'.")
    count = len(arrays)
    swap = indexing == "xy" and count >= 2
    grids = []
    for i, a in enumerate(arrays):
        axis = 1 - i if swap and i < 2 else i
        shape = [1] * count
        shape[axis] = a.size
        grids.append(_graph.reshape(a, shape, stream))
    return tuple(grids) if sparse else tuple(broadcast_arrays(*grids, stream=stream))
