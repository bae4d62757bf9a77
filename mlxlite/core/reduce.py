"""Reductions, softmax and scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _graph
from . import elementwise as ew
from . import shape as shapes
from ._registry import (
    Dtype,
    alias,
    array,
    general,
    is_inexact,
    normalize_axes,
    normalize_axis,
    remembered,
    require_array,
    to_dtype,
    to_inexact,
)
from .sort import sort as sort_array

Axes = int | Sequence[int] | None

_sum = general("sum", "reduce")
_prod = general("prod", "reduce")
_max = general("max", "reduce")
_min = general("min", "reduce")
_any = general("any", "reduce")
_all = general("all", "reduce")
_logsumexp = general("logsumexp", "reduce")
_argmax = general("argmax", "reduce")
_argmin = general("argmin", "reduce")
_softmax = general("softmax", "softmax")
_cumsum = general("cumsum", "scan")
_cumprod = general("cumprod", "scan")
_cummax = general("cummax", "scan")
_cummin = general("cummin", "scan")
_logcumsumexp = general("logcumsumexp", "scan")


def _reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    if keepdims:
        return tuple(1 if d in axes else n for d, n in enumerate(shape))
    return tuple(n for d, n in enumerate(shape) if d not in axes)


def _reduce(
    primitive: _graph.Primitive, a: array, axis: Axes, keepdims: bool, dtype: Dtype | None, stream: Any
) -> array:
    require_array(a, primitive.name)
    shape = a.shape
    axes = normalize_axes(axis, len(shape), primitive.name)
    keepdims = bool(keepdims)
    result = dtype or a.dtype
    return primitive.record((a,), _reduced_shape(shape, axes, keepdims), result, static=(axes, keepdims), stream=stream)


def _accumulated(dtype: Dtype) -> Dtype:
    """The dtype of a sum: integers narrower than 32 bits, and bool, are widened."""
    if is_inexact(dtype) or dtype.size >= 4:
        return dtype
    return _graph.uint32 if dtype.category == "unsigned" else _graph.int32


def _over_nothing(a: array, axis: Axes, name: str) -> bool:
    """Whether there is no axis to add up over: then MLX's sum is its argument, and bool stays bool."""
    return (require_array(a, name).ndim == 0 and axis is None) or axis == () or axis == []


def sum(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """The sum over axes.

    Args:
        a: an array.
        axis: an axis or several; None for all.
        keepdims: leave reduced axes with size 1.
        stream: a stream or device.

    Returns:
        An array of a's dtype; bool and integers of fewer than 32 bits give int32 or uint32.

    Raises:
        IndexError: an axis is out of range.
        ValueError: an axis is repeated.

    >>> mx.sum(mx.array([[1, 2], [3, 4]]), axis=0)
    array([4, 6], dtype=int32)
    """
    found = _graph.try_reduce(_sum, a, axis, keepdims, None, stream)
    if found is not None:
        return found
    if _over_nothing(a, axis, "sum"):
        return alias(a)
    return _reduce(_sum, a, axis, keepdims, _accumulated(require_array(a, "sum").dtype), stream)


def prod(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """The product over axes; dtypes as for `sum`."""
    found = _graph.try_reduce(_prod, a, axis, keepdims, None, stream)
    if found is not None:
        return found
    if _over_nothing(a, axis, "prod"):
        return alias(a)
    return _reduce(_prod, a, axis, keepdims, _accumulated(require_array(a, "prod").dtype), stream)


def _extreme(primitive: _graph.Primitive, a: array, axis: Axes, keepdims: bool, stream: Any) -> array:
    found = _graph.try_reduce(primitive, a, axis, keepdims, None, stream)
    if found is not None:
        return found
    require_array(a, primitive.name)
    for d in normalize_axes(axis, a.ndim, primitive.name):
        if a.shape[d] == 0:
            raise ValueError(f"[{primitive.name}] Cannot {primitive.name} reduce over axis {d} with size 0.")
    return _reduce(primitive, a, axis, keepdims, None, stream)


def max(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """The greatest element over axes; NaN where there is one. ValueError over an axis of size 0."""
    return _extreme(_max, a, axis, keepdims, stream)


def min(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """The least element over axes; NaN where there is one. ValueError over an axis of size 0."""
    return _extreme(_min, a, axis, keepdims, stream)


def any(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """Whether any element over axes is non-zero."""
    found = _graph.try_reduce(_any, a, axis, keepdims, _graph.bool_, stream)
    return found if found is not None else _reduce(_any, a, axis, keepdims, _graph.bool_, stream)


def all(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """Whether all elements over axes are non-zero."""
    found = _graph.try_reduce(_all, a, axis, keepdims, _graph.bool_, stream)
    return found if found is not None else _reduce(_all, a, axis, keepdims, _graph.bool_, stream)


def logsumexp(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """log(sum(exp(a))) over axes, without overflow. ValueError for an empty array."""
    found = _graph.try_reduce(_logsumexp, a, axis, keepdims, None, stream)
    if found is not None:
        return found
    if require_array(a, "logsumexp").size == 0:
        raise ValueError("[logsumexp] Received empty array.")
    return _reduce(_logsumexp, to_inexact(a, stream), axis, keepdims, None, stream)


def _arg_reduce(primitive: _graph.Primitive, a: array, axis: int | None, keepdims: bool, stream: Any) -> array:
    name = primitive.name
    ndim = require_array(a, name).ndim
    axes = () if axis is None else (normalize_axis(axis, ndim, name),)
    if a.size == 0:
        raise ValueError(f"[{name}] Cannot {name} reduce zero size array.")
    shape = _reduced_shape(a.shape, axes or tuple(range(ndim)), bool(keepdims))
    return primitive.record((a,), shape, _graph.uint32, static=(axes, bool(keepdims)), stream=stream)


@remembered
def argmax(a: array, /, axis: int | None = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """The uint32 index of the first greatest element (or NaN) along an axis; into the flattened array for None.

    Raises:
        ValueError: the array is empty.
    """
    return _arg_reduce(_argmax, a, axis, keepdims, stream)


@remembered
def argmin(a: array, /, axis: int | None = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """The uint32 index of the first least element (or NaN) along an axis; into the flattened array for None.

    Raises:
        ValueError: the array is empty.
    """
    return _arg_reduce(_argmin, a, axis, keepdims, stream)


def _count(a: array, axes: tuple[int, ...]) -> int:
    count = 1
    for d in axes:
        count *= a.shape[d]
    return count


def _reciprocal(count: int) -> float:
    return 1.0 / count if count else float("inf")


@remembered
def mean(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """The mean over axes, in a's dtype, or float32 for bool and integers. NaN over no elements."""
    found = _graph.try_reduce(_sum, a, axis, keepdims, None, stream)
    if found is not None:
        return ew.multiply(found, _scalar(found.size / a.size, found.dtype), stream=stream)
    axes = normalize_axes(axis, require_array(a, "mean").ndim, "mean")
    total = sum(to_inexact(a, stream), axes, keepdims, stream=stream)
    return ew.multiply(total, _scalar(_reciprocal(_count(a, axes)), total.dtype), stream=stream)


def _scalar(value: float, dtype: Dtype) -> Any:
    # A complex array times a float is complex already; a number keeps out of the key.
    return value if dtype.category == "complex" else _graph.scalar(value, dtype)


@remembered
def var(a: array, /, axis: Axes = None, keepdims: bool = False, ddof: int = 0, *, stream: Any = None) -> array:
    """The variance over axes, the sum of squared distances from the mean divided by n - ddof.

    Args:
        a: an array.
        axis: an axis or several; None for all.
        keepdims: leave reduced axes with size 1.
        ddof: taken off the divisor.
        stream: a stream or device.

    Returns:
        An array of a's dtype, float32 for bool, integers and complex64.
    """
    axes = normalize_axes(axis, require_array(a, "var").ndim, "var")
    centred = ew.subtract(to_inexact(a, stream), mean(a, axes, True, stream=stream), stream=stream)
    squares = ew.square(ew.abs(centred, stream=stream), stream=stream)
    total = sum(squares, axes, keepdims, stream=stream)
    return ew.multiply(total, _scalar(_reciprocal(_max_int(_count(a, axes) - ddof)), total.dtype), stream=stream)


def _max_int(n: int) -> int:
    return n if n > 0 else 0  # too few samples: 0 / 0 or x / 0, not a negative variance


@remembered
def std(a: array, /, axis: Axes = None, keepdims: bool = False, ddof: int = 0, *, stream: Any = None) -> array:
    """The standard deviation over axes, sqrt(var)."""
    require_array(a, "std")
    return ew.sqrt(var(a, axis, keepdims, ddof, stream=stream), stream=stream)


@remembered
def median(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """The middle value over axes, or the mean of the two middle ones; NaN if there is one.

    Bool and integers give float32.

    Raises:
        ValueError: there are no elements along the axes, or an axis is repeated.
    """
    ndim = require_array(a, "median").ndim
    axes = normalize_axes(axis, ndim, "median")
    count = _count(a, axes)
    if count == 0:
        raise ValueError("[median] Cannot take median along empty axis.")
    if axis is not None and not axes:
        raise ValueError("[median] axis must name at least one axis.")
    s = stream
    kept = tuple(d for d in range(ndim) if d not in axes)
    flat = shapes.transpose(a, kept + axes, stream=s) if ndim else a
    flat = shapes.reshape(flat, (*[a.shape[d] for d in kept], count), stream=s)
    ordered = to_inexact(sort_array(flat, stream=s), s)

    def at(position: int) -> array:
        return shapes.slice_along(ordered, -1, position, position + 1, stream=s)

    middle = at(count // 2)
    if count % 2 == 0:
        middle = ew.multiply(ew.add(at(count // 2 - 1), middle, stream=s), 0.5, stream=s)
    if ordered.dtype.category == "floating":
        last = at(count - 1)  # NaN sorts last
        middle = ew.where(ew.isnan(last, stream=s), last, middle, stream=s)
    return shapes.reshape(middle, _reduced_shape(a.shape, axes, keepdims), stream=s)


@remembered
def softmax(a: array, /, axis: Axes = None, *, precise: bool = False, stream: Any = None) -> array:
    """exp(a) / sum(exp(a)) over axes.

    Args:
        a: an array.
        axis: an axis or several; None for all.
        precise: accumulate in float32 whatever the dtype. Every backend here does so anyway.
        stream: a stream or device.

    Returns:
        An array of a's shape and dtype, float32 for bool and integers.
    """
    axes = normalize_axes(axis, require_array(a, "softmax").ndim, "softmax")
    a = to_inexact(a, stream)
    return _softmax.record((a,), a.shape, a.dtype, static=(axes, bool(precise)), stream=stream)


def _scan(
    primitive: _graph.Primitive,
    a: array,
    axis: int | None,
    reverse: bool,
    inclusive: bool,
    dtype: Dtype | None,
    stream: Any,
) -> array:
    require_array(a, primitive.name)
    if axis is None:
        a = shapes.flatten(a, stream=stream)
        axis = 0
    axis = normalize_axis(axis, a.ndim, primitive.name)
    static = (axis, bool(reverse), bool(inclusive))
    return primitive.record((a,), a.shape, dtype or a.dtype, static=static, stream=stream)


@remembered
def cumsum(
    a: array,
    /,
    axis: int | None = None,
    *,
    reverse: bool = False,
    inclusive: bool = True,
    dtype: Dtype | None = None,
    stream: Any = None,
) -> array:
    """Running sums along an axis; of the flattened array for None.

    Args:
        a: an array.
        axis: the axis; None to flatten first.
        reverse: run from the end.
        inclusive: the i-th output includes the i-th input.
        dtype: convert to it before summing.
        stream: a stream or device.

    Returns:
        An array of a's shape; bool gives int32.
    """
    require_array(a, "cumsum")
    if dtype is not None:
        a = to_dtype(a, dtype, stream)
    return _scan(_cumsum, a, axis, reverse, inclusive, _graph.int32 if a.dtype == _graph.bool_ else None, stream)


@remembered
def cumprod(
    a: array,
    /,
    axis: int | None = None,
    *,
    reverse: bool = False,
    inclusive: bool = True,
    dtype: Dtype | None = None,
    stream: Any = None,
) -> array:
    """Running products along an axis; arguments as for `cumsum`."""
    if dtype is not None:
        a = to_dtype(require_array(a, "cumprod"), dtype, stream)
    return _scan(_cumprod, a, axis, reverse, inclusive, None, stream)


@remembered
def cummax(
    a: array, /, axis: int | None = None, *, reverse: bool = False, inclusive: bool = True, stream: Any = None
) -> array:
    """Running maxima along an axis, NaN from the first NaN on; arguments as for `cumsum`."""
    return _scan(_cummax, a, axis, reverse, inclusive, None, stream)


@remembered
def cummin(
    a: array, /, axis: int | None = None, *, reverse: bool = False, inclusive: bool = True, stream: Any = None
) -> array:
    """Running minima along an axis, NaN from the first NaN on; arguments as for `cumsum`."""
    return _scan(_cummin, a, axis, reverse, inclusive, None, stream)


cumulative_sum, cumulative_prod = cumsum, cumprod


@remembered
def logcumsumexp(
    a: array, /, axis: int | None = None, *, reverse: bool = False, inclusive: bool = True, stream: Any = None
) -> array:
    """Running logsumexp along an axis; float32 for bool and integers; arguments as for `cumsum`."""
    return _scan(
        _logcumsumexp, to_inexact(require_array(a, "logcumsumexp"), stream), axis, reverse, inclusive, None, stream
    )


def allclose(
    a: array, b: array, /, rtol: float = 1e-5, atol: float = 1e-8, *, equal_nan: bool = False, stream: Any = None
) -> array:
    """Whether all elements of a and b are close, as by `isclose`; a bool scalar."""
    return all(ew.isclose(a, b, rtol, atol, equal_nan=equal_nan, stream=stream), stream=stream)


def array_equal(a: Any, b: Any, equal_nan: bool = False, stream: Any = None) -> array:
    """Whether a and b have one shape and equal elements; a bool scalar."""
    a, b = ew.pair(a, b)
    if a.shape != b.shape:
        return _graph.scalar(False, _graph.bool_)
    same = ew.equal(a, b, stream=stream)
    if equal_nan and is_inexact(a.dtype) and is_inexact(b.dtype):
        both = ew.logical_and(ew.isnan(a, stream=stream), ew.isnan(b, stream=stream), stream=stream)
        same = ew.logical_or(same, both, stream=stream)
    return all(same, stream=stream)


@remembered
def trace(
    a: array,
    /,
    offset: int = 0,
    axis1: int = 0,
    axis2: int = 1,
    dtype: Dtype | None = None,
    *,
    stream: Any = None,
) -> array:
    """The sum of a diagonal (see `diagonal`), in `dtype` if given. ValueError for fewer than two dimensions."""
    if require_array(a, "trace").ndim < 2:
        raise ValueError(f"[trace] Array must have at least two dimensions, but got {a.ndim} dimensions.")
    line = shapes.diagonal(a, offset, axis1, axis2, stream=stream)
    if dtype is not None:
        line = to_dtype(line, dtype, stream)
    return sum(line, -1, stream=stream)


def minmax(a: array, /, axis: Axes = None, keepdims: bool = False, *, stream: Any = None) -> tuple[array, array]:
    """(min, max) over axes."""
    return min(a, axis, keepdims, stream=stream), max(a, axis, keepdims, stream=stream)


def count_nonzero(a: array, /, *, axis: Axes = None, keepdims: bool = False, stream: Any = None) -> array:
    """How many elements over axes are not zero; int32."""
    nonzero = to_dtype(require_array(a, "count_nonzero"), _graph.bool_, stream)
    return sum(nonzero, axis, keepdims, stream=stream)


@remembered
def diff(a: array, /, n: int = 1, axis: int = -1, *, stream: Any = None) -> array:
    """Differences of neighbours along an axis, taken n times (for bool: whether they differ).

    Raises:
        ValueError: n is negative.
    """
    axis = normalize_axis(axis, require_array(a, "diff").ndim, "diff")
    if n < 0:
        raise ValueError("[diff] Order `n` must be non-negative.")
    result = alias(a)
    subtract = ew.not_equal if a.dtype == _graph.bool_ else ew.subtract
    for _ in range(n):
        size = result.shape[axis]
        later = shapes.slice_along(result, axis, 1, size, stream=stream)
        earlier = shapes.slice_along(result, axis, 0, size - 1, stream=stream)
        result = subtract(later, earlier, stream=stream)
    return result


@remembered
def vecdot(a: array, b: array, /, *, axis: int = -1, stream: Any = None) -> array:
    """Sums of conj(a) * b along an axis. ValueError unless it is an axis of one size in both."""
    require_array(a, "vecdot")
    require_array(b, "vecdot")
    if not (-a.ndim <= axis < a.ndim and -b.ndim <= axis < b.ndim):
        raise ValueError("[vecdot] axis is out of bounds.")
    if a.shape[axis] != b.shape[axis]:
        raise ValueError("[vecdot] a and b must have the same size along the axis.")
    return sum(ew.multiply(ew.conjugate(a, stream=stream), b, stream=stream), axis, stream=stream)
