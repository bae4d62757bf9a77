"""Arrays made of numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from .. import _graph
from . import elementwise as ew
from . import shape as shapes
from ._registry import Dtype, array, general, is_inexact, normalize_shape, remembered, require_array, to_dtype

_full = general("full", "creation")
_arange = general("arange", "creation")

_INT32_MAX = 2**31 - 1


@remembered
def full(shape: int | Sequence[int], vals: Any, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """An array filled with a number, or with an array broadcast to the shape.

    Args:
        shape: the dims.
        vals: a number or an array.
        dtype: the dtype of the result; that of `vals` if None.
        stream: a stream or device.

    Raises:
        ValueError: a negative dim, or `vals` does not broadcast.

    >>> mx.full((2,), 7)
    array([7, 7], dtype=int32)
    """
    dims = normalize_shape(shape, "full")
    if isinstance(vals, array):
        value = vals if dtype is None else to_dtype(vals, dtype, stream)
    elif dtype is None:
        value = _graph.as_array(vals)
    else:
        value = _graph.scalar(vals, dtype) if isinstance(vals, (bool, int, float, complex)) else _graph.as_array(vals)
        value = to_dtype(value, dtype, stream)
    if shapes.broadcast_shapes(value.shape, dims) != dims:
        raise ValueError(f"[broadcast_shapes] Shapes {value.shape} and {dims} cannot be broadcast.")
    return _full.record((value,), dims, value.dtype, stream=stream)


@remembered
def full_like(a: array, vals: Any, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """`full` of a's shape, and of its dtype unless one is given."""
    require_array(a, "full_like")
    return full(a.shape, vals, dtype or a.dtype, stream=stream)


@remembered
def zeros(shape: int | Sequence[int], dtype: Dtype | None = _graph.float32, *, stream: Any = None) -> array:
    """An array of zeros (float32 unless a dtype is given)."""
    return full(shape, 0, dtype or _graph.float32, stream=stream)


@remembered
def zeros_like(a: array, /, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """Zeros of a's shape, and of its dtype unless one is given."""
    require_array(a, "zeros_like")
    return full(a.shape, 0, dtype or a.dtype, stream=stream)


@remembered
def ones(shape: int | Sequence[int], dtype: Dtype | None = _graph.float32, *, stream: Any = None) -> array:
    """An array of ones (float32 unless a dtype is given)."""
    return full(shape, 1, dtype or _graph.float32, stream=stream)


@remembered
def ones_like(a: array, /, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """Ones of a's shape, and of its dtype unless one is given."""
    require_array(a, "ones_like")
    return full(a.shape, 1, dtype or a.dtype, stream=stream)


# Memory is never handed out with whatever was in it before.
empty, empty_like = zeros, zeros_like


def _number(value: Any, name: str) -> int | float:
    if isinstance(value, bool):
        raise ValueError(f"bool not supported for {name}.")
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, array):
        raise TypeError(f"[{name}] expects numbers, got an array; use .item()")
    try:
        return operator.index(value)
    except TypeError:
        return float(value)


@remembered
def arange(
    start: Any = None, stop: Any = None, step: Any = None, dtype: Dtype | None = None, *, stream: Any = None
) -> array:
    """The numbers start, start + step, ... before stop. `arange(stop)` starts at 0.

    Args:
        start: the first number; `stop` when it stands alone.
        stop: the end, which is left out.
        step: the distance, 1 if None.
        dtype: int32 (int64 if needed) when all are integers, else float32, unless given.
        stream: a stream or device.

    Raises:
        ValueError: step 0, an infinite length, or bool.

    >>> mx.arange(1, 7, 2)
    array([1, 3, 5], dtype=int32)
    """
    if stop is None:
        if start is None:
            raise TypeError("[arange] stop is required")
        start, stop = 0, start
    start = _number(0 if start is None else start, "arange")
    stop = _number(stop, "arange")
    step = _number(1 if step is None else step, "arange")
    if dtype is None:
        if isinstance(start, float) or isinstance(stop, float) or isinstance(step, float):
            dtype = _graph.float32
        else:
            dtype = _graph.int64 if max(map(abs, (start, stop, step))) > _INT32_MAX else _graph.int32
    if dtype == _graph.bool_:
        raise ValueError("bool not supported for arange.")
    if step == 0:
        raise ValueError("[arange] step must be nonzero.")
    span = (stop - start) / step
    if not math.isfinite(span):
        raise ValueError("[arange] Cannot compute length.")
    if all(isinstance(x, int) for x in (start, stop, step)):
        count = len(range(start, stop, step))
    else:
        count = max(0, math.ceil(span))
    if is_inexact(dtype):
        return _arange.record((), (count,), dtype, floats=(start, step), stream=stream)
    first = int(start)
    return _arange.record((), (count,), dtype, ints=(first, int(start + step) - first), stream=stream)


@remembered
def linspace(
    start: Any,
    stop: Any,
    num: int | None = 50,
    endpoint: bool = True,
    dtype: Dtype | None = _graph.float32,
    stream: Any = None,
) -> array:
    """`num` numbers evenly spaced from start to stop (left out unless endpoint). ValueError for a negative num."""
    num = 50 if num is None else operator.index(num)
    dtype = dtype or _graph.float32
    if num < 0:
        raise ValueError(f"[linspace] number of samples, {num}, must be non-negative.")
    work = dtype if dtype in (_graph.float64, _graph.complex64) else _graph.float32
    if num == 1:
        return to_dtype(shapes.reshape(to_dtype(_graph.as_array(start), work, stream), (1,)), dtype, stream)
    s = stream
    steps = arange(num, dtype=work, stream=s)
    t = ew.divide(steps, float(max(1, num - 1 if endpoint else num)), stream=s)
    rest = ew.subtract(1.0, t, stream=s)
    values = ew.add(ew.multiply(rest, start, stream=s), ew.multiply(t, stop, stream=s), stream=s)
    return to_dtype(values, dtype, stream)


def _band(n: int, m: int | None, k: int, compare: Any, stream: Any) -> array:
    """The (n, m) mask of compare(row + k, column)."""
    rows = arange(n, dtype=_graph.int32, stream=stream)
    columns = arange(n if m is None else m, dtype=_graph.int32, stream=stream)
    return compare(ew.add(shapes.expand_dims(rows, 1, stream=stream), int(k), stream=stream), columns, stream=stream)


@remembered
def eye(n: int, m: int | None = None, k: int = 0, dtype: Dtype | None = _graph.float32, *, stream: Any = None) -> array:
    """The (n, m) matrix with ones on the k-th diagonal. ValueError for negative n or m."""
    if n < 0 or (m is not None and m < 0):
        raise ValueError("[eye] N and M must be positive integers.")
    return to_dtype(_band(n, m, k, ew.equal, stream), dtype or _graph.float32, stream)


@remembered
def identity(n: int, dtype: Dtype | None = _graph.float32, *, stream: Any = None) -> array:
    """The (n, n) identity matrix."""
    return eye(n, dtype=dtype, stream=stream)


@remembered
def tri(n: int, m: int | None = None, k: int = 0, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """The (n, m) matrix with ones on and below the k-th diagonal."""
    n, m = max(0, n), None if m is None else max(0, m)
    return to_dtype(_band(n, m, k, ew.greater_equal, stream), dtype or _graph.float32, stream)


def _triangle(x: array, k: int, name: str, lower: bool, stream: Any) -> array:
    if require_array(x, name).ndim < 2:
        raise ValueError(f"[{name}] array must be at least 2-D")
    mask = _band(x.shape[-2], x.shape[-1], k, ew.greater_equal if lower else ew.greater, stream)
    zero = _graph.scalar(0, x.dtype)
    return ew.where(mask, x, zero, stream=stream) if lower else ew.where(mask, zero, x, stream=stream)


@remembered
def tril(x: array, k: int = 0, *, stream: Any = None) -> array:
    """The array with zeros above the k-th diagonal of its last two dims. ValueError for fewer than two."""
    return _triangle(x, k, "tril", True, stream)


@remembered
def triu(x: array, k: int = 0, *, stream: Any = None) -> array:
    """The array with zeros below the k-th diagonal of its last two dims. ValueError for fewer than two."""
    return _triangle(x, k, "triu", False, stream)


@remembered
def diag(a: array, /, k: int = 0, *, stream: Any = None) -> array:
    """The k-th diagonal of a matrix, or the square matrix with a vector on it. ValueError for other dims."""
    ndim = require_array(a, "diag").ndim
    if ndim == 2:
        return shapes.diagonal(a, k, 0, 1, stream=stream)
    if ndim != 1:
        raise ValueError(f"[diag] array must be 1-D or 2-D, got array with {ndim} dimensions.")
    size = a.size + abs(k)
    rows = shapes.pad(a, [(0, k) if k >= 0 else (-k, 0)], stream=stream)
    mask = _band(size, size, k, ew.equal, stream)
    zero = _graph.scalar(0, a.dtype)
    return ew.where(mask, shapes.expand_dims(rows, 1, stream=stream), zero, stream=stream)


# ---- tapers of signal processing


def _taper(m: int, name: str, values: Callable[[array, int], array], stream: Any) -> array:
    """A taper of m points: none for m < 1, one 1 for m = 1, else `values(0..m-1, m)`."""
    try:
        m = operator.index(m)
    except TypeError:
        raise TypeError(f"[{name}] M must be an integer, got {type(m).__name__}") from None
    if m < 2:
        return ones((max(0, m),), stream=stream)
    return values(arange(0, m, dtype=_graph.float32, stream=stream), m)


def _cosine(n: array, m: int, turns: int, stream: Any) -> array:
    """cos(2 pi turns n / (m - 1)), the angle taken from the middle: there the taper is exactly at its top."""
    middle = (m - 1) / 2
    cosine = ew.cos((n - middle) * (2 * math.pi * turns / (m - 1)), stream=stream)
    return -cosine if turns % 2 else cosine


def hanning(M: int, *, stream: Any = None) -> array:
    """The Hann taper, 0.5 - 0.5 cos(2 pi n / (M - 1)) for n from 0 to M - 1, as float32; nothing for M below 1.

    >>> mx.hanning(3)
    array([0, 1, 0], dtype=float32)
    """
    return _taper(M, "hanning", lambda n, m: 0.5 - 0.5 * _cosine(n, m, 1, stream), stream)


def hamming(M: int, *, stream: Any = None) -> array:
    """The Hamming taper, 0.54 - 0.46 cos(2 pi n / (M - 1)) for n from 0 to M - 1, as float32; nothing for M below 1.

    >>> mx.hamming(3)
    array([0.08, 1, 0.08], dtype=float32)
    """
    return _taper(M, "hamming", lambda n, m: 0.54 - 0.46 * _cosine(n, m, 1, stream), stream)


def blackman(M: int, *, stream: Any = None) -> array:
    """The Blackman taper, 0.42 - 0.5 cos(2 pi n / (M - 1)) + 0.08 cos(4 pi n / (M - 1)), as float32.

    >>> mx.allclose(mx.blackman(3), mx.array([0.0, 1.0, 0.0]), atol=1e-6).item()
    True
    """
    return _taper(
        M,
        "blackman",
        lambda n, m: 0.42 - 0.5 * _cosine(n, m, 1, stream) + 0.08 * _cosine(n, m, 2, stream),
        stream,
    )


def bartlett(M: int, *, stream: Any = None) -> array:
    """The triangle 1 - |2 n / (M - 1) - 1| for n from 0 to M - 1, as float32; nothing for M below 1.

    >>> mx.bartlett(5)
    array([0, 0.5, 1, 0.5, 0], dtype=float32)
    """
    return _taper(M, "bartlett", lambda n, m: 1 - ew.abs(n - (m - 1) / 2, stream=stream) * (2 / (m - 1)), stream)
