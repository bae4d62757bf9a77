"""Sorting and what is made of it."""

from __future__ import annotations

from typing import Any

from .. import _graph
from . import shape as shapes
from ._registry import alias, array, general, normalize_axis, remembered, require_array

_sort = general("sort", "sort")
_argsort = general("argsort", "sort")
# Of equal elements the last; in the order in which they are in the array, so that both give the same ones.
_topk = general("topk", "sort")
_argtopk = general("argtopk", "sort")


def _along(a: array, axis: int | None, name: str, stream: Any) -> tuple[array, int]:
    """The array and axis to work on: the flattened array for None."""
    require_array(a, name)
    if axis is None:
        return shapes.flatten(a, stream=stream), 0
    return a, normalize_axis(axis, a.ndim, name)


@remembered
def sort(a: array, /, axis: int | None = -1, *, stream: Any = None) -> array:
    """Sorted along an axis, ascending, NaN last; the flattened array for None.

    Raises:
        IndexError: the axis is out of range.

    >>> mx.sort(mx.array([3, 1, 2]))
    array([1, 2, 3], dtype=int32)
    """
    a, axis = _along(a, axis, "sort", stream)
    return _sort.record((a,), a.shape, a.dtype, static=(axis,), stream=stream)


@remembered
def argsort(a: array, /, axis: int | None = -1, *, stream: Any = None) -> array:
    """The uint32 indices that sort along an axis; equal elements keep their order."""
    a, axis = _along(a, axis, "argsort", stream)
    return _argsort.record((a,), a.shape, _graph.uint32, static=(axis,), stream=stream)


def _check_kth(a: array, kth: int, axis: int | None, name: str) -> None:
    n = a.size if axis is None else a.shape[normalize_axis(axis, a.ndim, name)]
    if not -n <= kth < n:
        raise ValueError(f"[{name}] Received invalid kth {kth} along axis {axis} for array with shape: {a.shape}")


@remembered
def partition(a: array, /, kth: int, axis: int | None = -1, *, stream: Any = None) -> array:
    """Rearranged along an axis so that element kth is where a sort puts it, no greater ones before it. (Here: sorted.)

    Raises:
        ValueError: kth is out of range.
    """
    _check_kth(require_array(a, "partition"), kth, axis, "partition")
    return sort(a, axis, stream=stream)


@remembered
def argpartition(a: array, /, kth: int, axis: int | None = -1, *, stream: Any = None) -> array:
    """The uint32 indices that `partition` along an axis. ValueError when kth is out of range."""
    _check_kth(require_array(a, "argpartition"), kth, axis, "argpartition")
    return argsort(a, axis, stream=stream)


@remembered
def topk(a: array, /, k: int, axis: int | None = -1, *, stream: Any = None) -> array:
    """The k greatest elements along an axis, in no promised order; of the flattened array for None.

    Raises:
        ValueError: k is negative or greater than the axis.
    """
    flat, d = _along(a, axis, "topk", stream)
    n = flat.shape[d]
    if not 0 <= k <= n:
        raise ValueError(f"[topk] Received invalid k={k} along axis {axis} for array with shape: {a.shape}")
    if k == n:
        return alias(flat)
    shape = (*flat.shape[:d], k, *flat.shape[d + 1 :])
    return _topk.record((flat,), shape, flat.dtype, static=(d,), stream=stream)


def argtopk(a: array, k: int, axis: int) -> array:
    """The uint32 indices of the elements that `topk` gives, for its derivative; 0 <= axis, k less than the axis."""
    shape = (*a.shape[:axis], k, *a.shape[axis + 1 :])
    return _argtopk.record((a,), shape, _graph.uint32, static=(axis,))
