"""Indexing: `a[i]`, `a[i] = x`, `a.at[i].add(x)`.

An index is split into a *view* (integers and slices: one `slice` node, its bounds data) and *arrays* (one `gather` or
`scatter` node on that view). An array never changes, so an assignment makes a new array, of which the object then is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _graph
from . import elementwise as ew
from . import reduce as reductions
from . import shape as shapes
from ._index_arrays import check_not_empty, gather, index_arrays, scatter
from ._registry import alias, array, general, remembered, to_dtype
from .construct import construct
from .positions import take
from .shape import NEGATIVE_STEP, POSITIVE_STEP, UNIT_STEP, WHOLE

_slice_update = general("slice_update", "scatter")
_slice = shapes._slice

_FULL = slice(None)
_WHOLE_NUMBERS = frozenset((_graph.int32, _graph.uint32, _graph.int64))  # dtypes that a gather takes
_OF_ROWS = ((0,),)


# ---- what an index means


class _Layout(NamedTuple):
    """An index, read: the view of every dim of the array, and the entries of the index in their order."""

    starts: list[int]
    counts: list[int]
    steps: list[int]
    mask: tuple[int, ...]
    entries: list[Any]  # "new" for None, else (dim, None) for a slice, (dim, -1) for an integer, (dim, array)
    shape: list[int]  # of the result, if no entry is an array
    reshaped: bool  # whether there are integers or None


def _too_many(ndim: int) -> ValueError:
    if ndim == 0:
        return ValueError("too many indices for array: array is 0-dimensional")
    return ValueError(f"Too many indices for array with {ndim} dimensions.")


def _slice_of(item: slice, n: int) -> tuple[int, int, int]:
    for bound in (item.start, item.stop, item.step):
        if bound.__class__ is not int and bound is not None and not isinstance(bound, (int, np.integer)):
            raise ValueError("Slice indices must be integers or None.")
    if item.step is not None and item.step == 0:
        raise ValueError("slice step cannot be zero")
    start, stop, step = item.indices(n)
    return start, len(range(start, stop, step)), step


def _read(shape: tuple[int, ...], index: tuple[Any, ...]) -> _Layout:
    """Read an index of integers, slices, None, Ellipsis and arrays.

    Raises:
        IndexError: an integer is out of range.
        ValueError: too many entries, two ellipses, or an entry that is no index.
    """
    ndim = len(shape)
    used = 0
    for item in index:
        if item is not None and item is not Ellipsis:
            used += 1
    if used > ndim:
        raise _too_many(ndim)
    starts = [0] * ndim
    steps = [1] * ndim
    counts = list(shape)
    mask = [WHOLE] * ndim
    entries: list[Any] = []
    out: list[int] = []
    reshaped = False
    dim = 0
    skipped = ndim - used  # the dims that the ellipsis stands for
    ellipsis = False
    for item in index:
        if item.__class__ is slice:
            n = shape[dim]
            if item.start is not None or item.stop is not None or item.step is not None:
                start, count, step = _slice_of(item, n)
                if count != n or step != 1:
                    starts[dim], counts[dim], steps[dim] = start, count, step
                    mask[dim] = UNIT_STEP if step == 1 else POSITIVE_STEP if step > 1 else NEGATIVE_STEP
                n = count
            out.append(n)
            entries.append((dim, None))
            dim += 1
        elif item.__class__ is int:
            n = shape[dim]
            start = item + n if item < 0 else item
            if not 0 <= start < n:
                raise IndexError(f"index {item} is out of bounds for axis {dim} with size {n}")
            if n != 1:
                starts[dim], counts[dim], mask[dim] = start, 1, UNIT_STEP
            entries.append((dim, -1))
            reshaped = True
            dim += 1
        elif item is None:
            out.append(1)
            entries.append("new")
            reshaped = True
        elif item is Ellipsis:
            if ellipsis:
                raise ValueError("An index can only have a single ellipsis (...)")
            ellipsis = True
            for _ in range(skipped):
                out.append(shape[dim])
                entries.append((dim, None))
                dim += 1
        else:  # an array
            entries.append((dim, item))
            dim += 1
    for d in range(dim, ndim):
        out.append(shape[d])
        entries.append((d, None))
    return _Layout(starts, counts, steps, tuple(mask), entries, out, reshaped)


_BASIC = frozenset({slice, int, type(None), type(Ellipsis)})


def _normalized(index: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
    """The index with NumPy integers as int and lists and NumPy arrays as arrays; whether there are arrays."""
    items: list[Any] = []
    arrays = False
    for item in index:
        if item.__class__ in _BASIC:
            items.append(item)
            continue
        if isinstance(item, np.ndarray) and item.ndim == 0 and item.dtype.kind in "iu":
            item = int(item)
        elif isinstance(item, (bool, np.bool_)):
            raise ValueError("Cannot index mlx array using the given type: a bool; use an array for a mask.")
        elif isinstance(item, (int, np.integer)):
            item = int(item)
        elif isinstance(item, (list, np.ndarray)):
            item = construct(item)
        elif not isinstance(item, array):
            raise ValueError(f"Cannot index mlx array using the given type: {type(item).__name__}.")
        arrays = arrays or isinstance(item, array)
        items.append(item)
    return tuple(items), arrays


# ---- reading


@remembered
def getitem(a: array, index: Any) -> array:
    """`a[index]`, with NumPy's meaning.

    Args:
        a: an array.
        index: an integer, slice, None, Ellipsis, array or list of integers, or a tuple of these.

    Returns:
        A view for integers and slices; elements picked by the index arrays otherwise.

    Raises:
        IndexError: an integer is out of range.
        ValueError: too many indices, a boolean mask, a float, index arrays that do not broadcast.
    """
    if index.__class__ is array and index.dtype in _WHOLE_NUMBERS and a.ndim and a.shape[0]:
        rows = (*index.shape, *a.shape[1:])  # as nearly always: rows by their numbers
        return gather.record((a, index), rows, a.dtype, _OF_ROWS)
    if index.__class__ is not tuple:
        index = (index,)
    for item in index:
        if item.__class__ not in _BASIC:
            index, arrays = _normalized(index)
            if arrays:
                return _getitem_arrays(a, _read(a.shape, index))
            break
    starts, counts, steps, mask, _, shape, reshaped = _read(a.shape, index)
    if any(mask):
        result = _slice.record((a,), counts, a.dtype, (mask,), starts + steps)
        return _graph.reshape(result, shape) if reshaped else result
    return _graph.reshape(a, shape) if reshaped else alias(a)


def _view(a: array, layout: _Layout) -> array:
    if not any(layout.mask):
        return a
    return _slice.record((a,), layout.counts, a.dtype, (layout.mask,), layout.starts + layout.steps)


class _Plan(NamedTuple):
    """How the dims of a gather's result, index dims first, stand in that of `a[index]`."""

    axes: list[int]  # of the array, one an index array
    index_shape: tuple[int, ...]
    kept: list[int]  # dims of the array that a slice keeps, in order
    before: int  # how many of those stand before the index dims
    shape: list[int]  # of the result


def _plan(layout: _Layout, axes: list[int], index_shape: tuple[int, ...]) -> _Plan:
    entries = layout.entries
    advanced = [i for i, entry in enumerate(entries) if entry != "new" and entry[1] is not None]
    together = advanced[-1] - advanced[0] == len(advanced) - 1
    first = advanced[0] if together else 0
    kept: list[int] = []
    shape: list[int] = []
    before = 0
    for i, entry in enumerate(entries):
        if i == first:
            before = len(kept)
            shape += index_shape
        if entry == "new":
            shape.append(1)
        elif entry[1] is None:
            kept.append(entry[0])
            shape.append(layout.counts[entry[0]])
    return _Plan(axes, index_shape, kept, before, shape)


def _split_arrays(layout: _Layout) -> tuple[list[int], list[array]]:
    found = [entry for entry in layout.entries if entry != "new" and isinstance(entry[1], array)]
    return [dim for dim, _ in found], [a for _, a in found]


def _getitem_arrays(a: array, layout: _Layout) -> array:
    axes, arrays = _split_arrays(layout)
    arrays, index_shape = index_arrays(arrays, "gather")
    check_not_empty(a, axes, index_shape)
    plan = _plan(layout, axes, index_shape)
    view = _view(a, layout)
    integers = [entry[0] for entry in layout.entries if entry != "new" and entry[1].__class__ is int]
    if integers:
        view = shapes.squeeze(view, integers)
        axes = [axis - sum(d < axis for d in integers) for axis in axes]
    rest = [layout.counts[d] for d in plan.kept]
    result = gather.record((view, *arrays), [*index_shape, *rest], a.dtype, (tuple(axes),))
    if plan.before and index_shape:
        k = len(index_shape)
        order = [*range(k, k + plan.before), *range(k), *range(k + plan.before, k + len(rest))]
        result = shapes.transpose(result, order)
    return _graph.reshape(result, plan.shape)


# ---- writing


@remembered
def setitem(a: array, index: Any, value: Any) -> array:
    """The array that `a` is after `a[index] = value`.

    Args:
        a: an array.
        index: as for reading, or a boolean array of a's first dims: its true elements are assigned.
        value: a number or array that broadcasts to `a[index]`; cast to a's dtype. With a mask it broadcasts to the
            dims after the mask's, or has one row for every true element, in order.

    Raises:
        IndexError: an integer is out of range.
        ValueError: as for reading, or `value` does not broadcast.
    """
    if index.__class__ is bool:
        return setitem(a, _FULL if a.ndim else (), value) if index else alias(a)
    update = _value(value, a)
    if index.__class__ is not tuple:
        index = (index,)
    for item in index:
        if item.__class__ not in _BASIC:
            index, arrays = _normalized(index)
            if arrays:
                mask = _mask_of(index)
                if mask is not None:
                    return _masked(a, mask, update)
                return _update_arrays(a, _read(a.shape, index), update, "none")
            break
    return _update_view(a, _read(a.shape, index), update)


def _value(value: Any, a: array) -> array:
    if not isinstance(value, array):
        if value is None:
            raise TypeError("None cannot be assigned to an array's elements")
        if isinstance(value, (list, tuple, str, dict)):
            raise ValueError(f"Invalid type {type(value).__name__} received in array initialization.")
        value = _graph.weak_operand(value, a)
    return value if value.dtype == a.dtype else _graph.astype(value, a.dtype)


def _fit(update: array, layout: _Layout) -> array:
    """`update`, which broadcasts to the indexed part, with one dim a dim of the array, which broadcast to the slice."""
    shape = update.shape
    if not shape:
        return update
    region = layout.shape
    while len(shape) > len(region) and shape[0] == 1:
        shape = shape[1:]
    n = len(shape)
    if n > len(region) or any(m != r and m != 1 for m, r in zip(shape, region[len(region) - n :], strict=True)):
        raise ValueError(f"[broadcast_shapes] Shapes {update.shape} and {tuple(region)} cannot be broadcast.")
    if layout.reshaped:
        dims: list[int] = []
        for entry in reversed(layout.entries):
            if entry != "new" and entry[1] is not None:
                dims.append(1)  # an integer
            else:
                if n == 0:
                    break
                n -= 1
                if entry != "new":
                    dims.append(shape[n])
        shape = tuple(reversed(dims))
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
    return update if shape == update.shape else _graph.reshape(update, shape)


def _update_view(a: array, layout: _Layout, update: array) -> array:
    update = _fit(update, layout)
    counts = layout.counts
    if update.shape != tuple(counts):
        # The counts of the slice are those of the update: they are not among the ints.
        update = shapes._broadcast_to.record((update,), counts, a.dtype)
    if any(layout.mask):
        ints = layout.starts + layout.steps
        return _slice_update.record((a, update), a.shape, a.dtype, (layout.mask, "none"), ints)
    return alias(update)


def _update_arrays(a: array, layout: _Layout, update: array, mode: str) -> array:
    axes, arrays = _split_arrays(layout)
    arrays, index_shape = index_arrays(arrays, "scatter")
    check_not_empty(a, axes, index_shape)
    plan = _plan(layout, axes, index_shape)
    shape = update.shape
    while len(shape) > len(plan.shape) and shape[0] == 1:
        shape = shape[1:]
    update = shapes.broadcast_to(_graph.reshape(update, shape), plan.shape)
    k, before, n_kept = len(index_shape), plan.before, len(plan.kept)
    counts = [layout.counts[d] for d in plan.kept]
    update = _graph.reshape(update, [*counts[:before], *index_shape, *counts[before:]])  # without new dims
    if before and k:
        update = shapes.transpose(update, [*range(before, before + k), *range(before), *range(before + k, k + n_kept)])
    rest = [layout.counts[d] for d in range(a.ndim) if d not in axes]  # dims of integers, of size 1, too
    update = _graph.reshape(update, [*index_shape, *rest])
    view = _view(a, layout)
    result = scatter.record((view, update, *arrays), layout.counts, a.dtype, (tuple(axes), mode))
    if not any(layout.mask):
        return result
    ints = layout.starts + layout.steps
    return _slice_update.record((a, result), a.shape, a.dtype, (layout.mask, "none"), ints)


def _mask_of(index: tuple[Any, ...]) -> array | None:
    """The boolean mask if there is one. ValueError when it is not the only index."""
    masks = [item for item in index if isinstance(item, array) and item.dtype == _graph.bool_]
    if not masks:
        return None
    if len(index) > 1:
        raise ValueError("a boolean mask cannot be combined with other indices: index the part first")
    return masks[0]


def _masked(a: array, mask: array, update: array) -> array:
    shape, k = a.shape, mask.ndim
    if mask.shape != shape[:k]:
        raise ValueError(
            "The boolean mask should have the same shape as the beginning of the indexed array but the mask has shape "
            f"{mask.shape} and the array has shape {shape}."
        )
    rest = shape[k:]
    wide = _graph.reshape(mask, [*mask.shape, *([1] * len(rest))])
    value_shape = update.shape
    while len(value_shape) > len(rest) and value_shape[0] == 1:
        value_shape = value_shape[1:]
    extra = len(value_shape) - len(rest)
    fits = all(m in (1, n) for m, n in zip(reversed(value_shape), reversed(rest), strict=False))
    if extra > 1 or not fits:
        raise ValueError(
            f"Value array of shape {update.shape} must be broadcastable with the last {len(rest)} dimensions {rest} "
            "of the input, or have one more for the true elements of the mask."
        )
    if extra <= 0:
        return ew.where(wide, _graph.reshape(update, value_shape), a)
    if 0 in value_shape or mask.size == 0:
        return alias(a)
    # One row a true element: its number among them says which row is its.
    ordinal = reductions.cumsum(to_dtype(shapes.flatten(mask), _graph.int32))
    row = ew.clip(ew.subtract(ordinal, 1), 0, value_shape[0] - 1)
    rows = take(shapes.broadcast_to(update, (value_shape[0], *rest)), row, 0)
    return ew.where(wide, _graph.reshape(rows, shape), a)


_COMBINE = {"add": ew.add, "prod": ew.multiply, "max": ew.maximum, "min": ew.minimum}


@remembered
def _combined(a: array, index: Any, value: Any, mode: str) -> array:
    """The array with `value` combined with its indexed elements, with every occurrence of an index that is repeated."""
    update = _value(value, a)
    index, arrays = _normalized(index if index.__class__ is tuple else (index,))
    layout = _read(a.shape, index)
    if arrays:
        return _update_arrays(a, layout, update, mode)
    # Without index arrays no element is met twice.
    part = _view(a, layout)
    fitted = _fit(update, layout)
    return _update_view(a, layout._replace(shape=layout.counts, reshaped=False), _COMBINE[mode](part, fitted))


class ArrayAt:
    """`a.at[index]`: updates that count every occurrence of a repeated index.

    >>> mx.zeros(2).at[mx.array([0, 0])].add(1)
    array([2, 0], dtype=float32)
    """

    __slots__ = ("_array", "_index", "_indexed")
    _index: Any

    def __init__(self, a: array):
        self._array = a
        self._indexed = False

    def __getitem__(self, index: Any) -> ArrayAt:
        result = ArrayAt(self._array)
        result._index, result._indexed = index, True
        return result

    def _apply(self, value: Any, mode: str) -> array:
        if not self._indexed:
            raise ValueError("must give indices to array.at: a.at[index]")
        return _combined(self._array, self._index, value, mode)

    def add(self, value: Any) -> array:
        """a with `value` added to the indexed elements."""
        return self._apply(value, "add")

    def subtract(self, value: Any) -> array:
        """a with `value` subtracted from the indexed elements."""
        if not isinstance(value, array) and self._array.dtype == _graph.bool_:
            negated = -value  # an array of bools has no negative, and unsigned integers have no -1
        else:
            negated = ew.negative(_value(value, self._array))
        return self._apply(negated, "add")

    def multiply(self, value: Any) -> array:
        """a with the indexed elements multiplied by `value`."""
        return self._apply(value, "prod")

    def divide(self, value: Any) -> array:
        """a with the indexed elements divided by `value` (multiplied by its reciprocal in a's dtype)."""
        return self._apply(ew.reciprocal(_value(value, self._array)), "prod")

    def maximum(self, value: Any) -> array:
        """a with the indexed elements raised to `value` where they are less."""
        return self._apply(value, "max")

    def minimum(self, value: Any) -> array:
        """a with the indexed elements lowered to `value` where they are greater."""
        return self._apply(value, "min")


_graph.set_hooks(getitem=getitem, setitem=setitem)
