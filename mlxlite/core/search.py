"""Searching what is sorted, and telling apart what is equal. Both are composites of sorts and gathers."""

from __future__ import annotations

import operator
from typing import Any

from .. import _graph
from . import elementwise as ew
from . import reduce as reductions
from . import shape as shapes
from ._registry import array, as_array, is_inexact, remembered, require_array, to_dtype
from .creation import arange, full
from .positions import put_along_axis, take
from .sort import argsort


def _before(a: array, b: array, or_equal: bool, stream: Any) -> array:
    """Whether a sort puts a before b, NaN coming last; or nowhere in particular, if they may be equal."""
    before = (ew.less_equal if or_equal else ew.less)(a, b, stream=stream)
    if not is_inexact(a.dtype):
        return before
    last = ew.isnan(b, stream=stream)
    if not or_equal:
        last = ew.logical_and(last, ew.logical_not(ew.isnan(a, stream=stream), stream=stream), stream=stream)
    return ew.logical_or(before, last, stream=stream)


@remembered
def searchsorted(sorted_sequence: array, values: array, /, side: str = "left", *, stream: Any = None) -> array:
    """Where values would be put into a sorted vector.

    Args:
        sorted_sequence: (n,), ascending, NaN last.
        values: of any shape.
        side: "left" for the first place that keeps the order (so many elements are less), "right" for the last (so many
            are less or equal).
        stream: a stream or device.

    Returns:
        uint32 in [0, n], shaped as `values`.

    Raises:
        ValueError: `sorted_sequence` is no vector, or another side.

    >>> mx.searchsorted(mx.array([1, 2, 2, 4]), mx.array([0, 2, 3, 5]))
    array([0, 1, 3, 4], dtype=uint32)
    """
    if require_array(sorted_sequence, "searchsorted").ndim != 1:
        raise ValueError(f"[searchsorted] The sorted sequence must be 1-D but has {sorted_sequence.ndim} dimensions.")
    if side not in ("left", "right"):
        raise ValueError(f"[searchsorted] The side must be 'left' or 'right', got {side!r}.")
    dtype = _graph.promote_types(sorted_sequence.dtype, require_array(values, "searchsorted").dtype)
    row, values = to_dtype(sorted_sequence, dtype, stream), to_dtype(values, dtype, stream)
    n = row.size
    place = full(values.shape, 0, dtype=_graph.uint32, stream=stream)
    if values.size == 0:
        return place
    # Halving steps: `place` elements are known to come before the value; are there `step` more?
    step = 1 << n.bit_length() >> 1
    while step:
        further = place + step
        # Beyond the end the last element is looked at, and the answer not used.
        found = take(row, ew.minimum(further, n, stream=stream) - 1, 0, stream=stream)
        more = _before(found, values, side == "right", stream)
        place = ew.where(ew.logical_and(further <= n, more, stream=stream), further, place, stream=stream)
        step >>= 1
    return place


def unique(
    a: array,
    /,
    size: int,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    fill_value: Any = None,
    *,
    stream: Any = None,
) -> array | tuple[array, ...]:
    """The different elements of an array, sorted, in a vector of a length that is told beforehand.

    Args:
        a: an array, which is flattened.
        size: the length of the result. The smallest are kept if there are more.
        return_index: whether to return where in the flattened array each is found first (uint32).
        return_inverse: whether to return which of them each element of `a` is (uint32, shaped as `a`); elements that
            were not kept count as the last.
        return_counts: whether to return how often each occurs (int32).
        fill_value: what comes after the last, with a count of 0; the first of them for None.
        stream: a stream or device.

    Returns:
        The elements; a tuple of them and what else was asked for, in this order.

    Raises:
        ValueError: a negative size, a fill value of several elements, or none for an array of nothing.

    >>> mx.unique(mx.array([3, 1, 3]), 3, return_counts=True)
    (array([1, 3, 1], dtype=int32), array([1, 2, 0], dtype=int32))
    """
    require_array(a, "unique")
    size = operator.index(size)
    if size < 0:
        raise ValueError(f"[unique] Received negative size {size}.")
    fill = None
    if fill_value is not None:
        fill = to_dtype(as_array(fill_value), a.dtype, stream)
        if fill.size != 1:
            raise ValueError(f"[unique] The fill value must have one element, got shape {fill.shape}.")
        fill = _graph.reshape(fill, [], stream)
    flat = shapes.flatten(a, stream=stream)
    n = flat.size
    if n == 0:
        if size and fill is None:
            raise ValueError("[unique] An array of nothing needs a fill value unless the size is 0.")
        values = full((size,), 0 if fill is None else fill, dtype=a.dtype, stream=stream)
        index, counts = (full((size,), 0, dtype=d, stream=stream) for d in (_graph.uint32, _graph.int32))
        inverse = full(a.shape, 0, dtype=_graph.uint32, stream=stream)
    else:
        order = argsort(flat, stream=stream)
        ordered = take(flat, order, 0, stream=stream)
        # The number of different elements before each one: equal ones have the same, in an ascending row.
        changes = shapes.slice_along(ordered, 0, 1, n, stream=stream) != shapes.slice_along(
            ordered, 0, 0, n - 1, stream=stream
        )
        ranks = reductions.cumsum(to_dtype(changes, _graph.int32, stream), stream=stream)
        ranks = shapes.pad(ranks, [(1, 0)], stream=stream)
        starts = searchsorted(ranks, arange(size + 1, dtype=_graph.int32, stream=stream), stream=stream)
        ends = shapes.slice_along(starts, 0, 1, size + 1, stream=stream)
        starts = shapes.slice_along(starts, 0, 0, size, stream=stream)
        # What there is not begins at n; the first of all stands in its place.
        first = ew.where(starts < n, starts, 0, stream=stream)
        values, index = take(ordered, first, 0, stream=stream), take(order, first, 0, stream=stream)
        if fill is not None:
            values = ew.where(starts < n, values, fill, stream=stream)
        counts = to_dtype(ends - starts, _graph.int32, stream)
        kept = to_dtype(ew.minimum(ranks, max(0, size - 1), stream=stream), _graph.uint32, stream)
        inverse = put_along_axis(full((n,), 0, dtype=_graph.uint32, stream=stream), order, kept, 0, stream=stream)
        inverse = _graph.reshape(inverse, list(a.shape), stream)
    asked = [(return_index, index), (return_inverse, inverse), (return_counts, counts)]
    extra = [result for wanted, result in asked if wanted]
    return (values, *extra) if extra else values
