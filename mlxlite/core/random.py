"""`mx.random`: numbers that follow from a key. The same key gives the same bits as in MLX (threefry2x32).

Without a key, one is split off the state, which `seed` sets.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
import time
from collections.abc import Sequence
from typing import Any, cast

from .. import _graph
from . import elementwise as _ew
from . import positions as _positions
from . import reduce as _reduce
from . import shape as _shapes
from ._registry import (
    Dtype,
    Function,
    array,
    as_array,
    general,
    is_inexact,
    normalize_axis,
    normalize_shape,
    remembered,
    to_dtype,
)
from .sort import argsort as _argsort

__all__ = [
    "bernoulli",
    "categorical",
    "gumbel",
    "key",
    "laplace",
    "multivariate_normal",
    "normal",
    "permutation",
    "randint",
    "seed",
    "split",
    "state",
    "truncated_normal",
    "uniform",
]

_random_bits = general("random_bits", "random")

# The largest number below 1, by dtype.
_BELOW_ONE = {"float32": 1 - 2.0**-24, "float16": 1 - 2.0**-11, "bfloat16": 1 - 2.0**-8}


def key(seed: int) -> array:
    """The key of a seed: its upper and lower 32 bits.

    Raises:
        TypeError: the seed is not an integer of 64 bits.

    >>> mx.random.key(7)
    array([0, 7], dtype=uint32)
    """
    if isinstance(seed, float):
        raise TypeError(f"[key] seed must be an integer, got {seed!r}")
    seed = operator.index(seed)
    if not 0 <= seed < 1 << 64:
        raise TypeError(f"[key] seed must be from 0 to 2**64 - 1, got {seed}")
    return _as_key([seed >> 32, seed & 0xFFFFFFFF])


def _as_key(words: list[int]) -> array:
    return array(words, _graph.uint32)


class _RandomState(list[array]):
    """The key that is split when a function is given none: a list of one array, which transforms take as a tree."""

    def __init__(self) -> None:
        super().__init__([key(time.time_ns() & ((1 << 64) - 1))])

    def __setitem__(self, index: Any, value: Any) -> None:
        if index not in (0, -1):
            raise IndexError("the random state has one key")
        super().__setitem__(0, _check_key(value))

    def _next(self) -> array:
        pair = split(self[0])
        self[0] = pair[0]
        return pair[1]


state = _RandomState()


def seed(seed: int) -> None:
    """Set the state to the key of a seed. TypeError unless it is an integer of 64 bits."""
    state[0] = key(seed)


def _check_key(value: Any) -> array:
    if not isinstance(value, array):
        raise TypeError(f"[random] key must be an array made by mx.random.key, got {type(value).__name__}")
    if value.dtype != _graph.uint32:
        raise ValueError(f"[bits] Expected key type uint32 but received {value.dtype.name}.")
    if value.shape != (2,):
        raise ValueError(f"[bits] Expected key shape (2) but received {value.shape}.")
    return value


_UNSIGNED = {1: _graph.uint8, 2: _graph.uint16, 4: _graph.uint32}


def _drawing(function: Function) -> Function:
    """The function, remembered, with a key that is split off the state where it is given none."""
    drawn = remembered(function)
    position = list(inspect.signature(function).parameters).index("key")

    @functools.wraps(function)
    def with_key(*args: Any, **kwargs: Any) -> Any:
        if len(args) > position:
            if args[position] is None:
                args = (*args[:position], state._next(), *args[position + 1 :])
        elif kwargs.get("key") is None:
            kwargs["key"] = state._next()
        return drawn(*args, **kwargs)

    return cast(Function, with_key)


def _bits(shape: Sequence[int], key: Any, stream: Any, width: int = 4) -> array:
    """Uniform unsigned integers of `width` bytes."""
    if any(n < 0 for n in shape):
        raise ValueError("[bits] Negative dimensions not allowed.")
    return _random_bits.record((_check_key(key),), shape, _UNSIGNED[width], (width,), stream=stream)


@remembered
def split(key: array, num: int = 2, stream: Any = None) -> array:
    """`num` keys that follow from a key.

    Raises:
        ValueError: not a key, or a negative number.

    >>> mx.random.split(mx.random.key(0))
    array([[4146024105, 967050713],
           [2718843009, 1272950319]], dtype=uint32)
    """
    return _bits((operator.index(num), 2), key, stream)


def _shape(shape: Any, name: str) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"[{name}] shape must be a sequence of integers, got {shape!r}")
    return normalize_shape(shape, "bits")


def _fits(shape: tuple[int, ...], *bounds: array, name: str) -> None:
    broadcast = _shapes.broadcast_shapes(shape, *[b.shape for b in bounds])
    if broadcast != shape:
        raise ValueError(f"[{name}] Cannot generate random values of shape {shape} from broadcasted shape {broadcast}.")


def _unit(shape: tuple[int, ...], dtype: Dtype, key: array | None, stream: Any) -> array:
    """Uniform in [0, 1)."""
    s = stream
    wide = _graph.astype(_bits(shape, key, s), _graph.float32, s)
    # Division by 2**32 - 1, which is 2**32 as a float32.
    scaled = to_dtype(_ew.multiply(wide, 2.0**-32, stream=s), dtype, s)
    return _ew.minimum(scaled, _BELOW_ONE[dtype.name], stream=s)


@_drawing
def uniform(
    low: Any = 0,
    high: Any = 1,
    shape: Sequence[int] = (),
    dtype: Dtype | None = _graph.float32,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Numbers spread evenly over [low, high).

    Args:
        low, high: numbers or arrays that broadcast to the shape.
        shape: the dims of the result.
        dtype: float32, float16 or bfloat16.
        key: a key, split off the state if None.
        stream: a stream or device.

    Raises:
        ValueError: another dtype, a negative dim, or bounds that do not broadcast to the shape.

    >>> mx.random.uniform(shape=(2,), key=mx.random.key(0)).shape
    (2,)
    """
    dtype = dtype or _graph.float32
    if dtype.category != "floating":
        raise ValueError("[uniform] Can only generate uniform numbers with real floating point type.")
    if dtype.name not in _BELOW_ONE:
        raise ValueError(f"[uniform] {dtype.name} is not supported: draw float32 and cast with astype.")
    dims = _shape(shape, "uniform")
    s = stream
    lower, upper = to_dtype(as_array(low), dtype, s), to_dtype(as_array(high), dtype, s)
    _fits(dims, lower, upper, name="uniform")
    unit = _unit(dims, dtype, key, s)
    if low.__class__ in (int, float) and high.__class__ in (int, float) and low == 0 and high == 1:
        return unit
    return _ew.add(_ew.multiply(_ew.subtract(upper, lower, stream=s), unit, stream=s), lower, stream=s)


@_drawing
def normal(
    shape: Sequence[int] = (),
    dtype: Dtype | None = _graph.float32,
    loc: Any = None,
    scale: Any = None,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Normally distributed numbers.

    Args:
        shape: the dims of the result.
        dtype: float32, float16, bfloat16 or complex64 (whose parts have half the variance each).
        loc: the mean, 0 if None; a number or an array that broadcasts to the shape.
        scale: the standard deviation, 1 if None.
        key: a key, split off the state if None.
        stream: a stream or device.

    Raises:
        ValueError: another dtype, or loc or scale that does not broadcast.
    """
    dtype = dtype or _graph.float32
    if not is_inexact(dtype):
        raise ValueError("[normal] Only floating point and complex64 types are supported.")
    dims = _shape(shape, "normal")
    s = stream
    if dtype == _graph.complex64:
        parts = _normal((*dims, 2), _graph.float32, math.sqrt(0.5), key, s)
        take = [_shapes.squeeze(part, -1, stream=s) for part in _shapes.split(parts, 2, -1, stream=s)]
        samples = _ew.add(take[0], _ew.multiply(take[1], 1j, stream=s), stream=s)
    else:
        samples = _normal(dims, dtype, 1.0, key, s)
    if scale is not None:
        samples = _ew.multiply(samples, to_dtype(as_array(scale), dtype, s), stream=s)
    if loc is not None:
        samples = _ew.add(samples, to_dtype(as_array(loc), dtype, s), stream=s)
    if samples.shape != dims:
        raise ValueError(f"[normal] loc and scale broadcast to {samples.shape}, which is not the shape {dims}.")
    return samples


def _normal(dims: tuple[int, ...], dtype: Dtype, scale: float, key: array | None, s: Any) -> array:
    flat = uniform(-_BELOW_ONE["float32"], 1.0, dims, _graph.float32, key, s)
    return to_dtype(_ew.multiply(_ew.erfinv(flat, stream=s), math.sqrt(2) * scale, stream=s), dtype, s)


@_drawing
def randint(
    low: Any,
    high: Any,
    shape: Sequence[int] = (),
    dtype: Dtype | None = _graph.int32,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Integers spread evenly over [low, high). (Drawn through float32: a range beyond 2**24 is not met everywhere.)

    Raises:
        ValueError: a dtype that is not integer or bool, or bounds that do not broadcast to the shape.

    >>> mx.random.randint(0, 10, (3,)).dtype
    mlxlite.core.int32
    """
    dtype = dtype or _graph.int32
    if is_inexact(dtype):
        raise ValueError("[randint] randint only accepts integer dtypes and bool.")
    s = stream
    # Rounded down and not towards zero, or 0 would be drawn twice as often between negative and positive bounds.
    return to_dtype(_ew.floor(uniform(low, high, shape, _graph.float32, key, s), stream=s), dtype, s)


@_drawing
def bernoulli(p: Any = 0.5, shape: Sequence[int] | None = None, key: array | None = None, stream: Any = None) -> array:
    """True with probability p.

    Args:
        p: a number or an array of floats.
        shape: the dims of the result, those of p if None.
        key: a key, split off the state if None.
        stream: a stream or device.

    Raises:
        ValueError: p is an array of another dtype, or does not broadcast to the shape.
    """
    s = stream
    chance = p if isinstance(p, array) else _graph.astype(as_array(p), _graph.float32, s)
    if chance.dtype.category != "floating":
        raise ValueError("[bernoulli] bernoulli probability `p` must be a float type.")
    dims = chance.shape if shape is None else _shape(shape, "bernoulli")
    _fits(dims, chance, name="bernoulli")
    if chance.dtype == _graph.float32:
        unit = _unit(dims, _graph.float32, key, s)
        return _ew.less(unit, chance, stream=s)
    return _ew.less(_unit(dims, _graph.float32, key, s), to_dtype(chance, _graph.float32, s), stream=s)


@_drawing
def truncated_normal(
    lower: Any,
    upper: Any,
    shape: Sequence[int] | None = None,
    dtype: Dtype | None = _graph.float32,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Normally distributed numbers held to (lower, upper).

    Args:
        lower, upper: numbers or arrays that broadcast.
        shape: the dims of the result, those of the bounds if None.
        dtype: float32, float16 or bfloat16.
        key: a key, split off the state if None.
        stream: a stream or device.

    Raises:
        ValueError: another dtype, or bounds that do not broadcast to the shape.
    """
    dtype = dtype or _graph.float32
    if dtype.category != "floating":
        raise ValueError("[trunc_normal] trunc_normal only accepts floating point dtypes.")
    s = stream
    root = math.sqrt(2)
    low, high = to_dtype(as_array(lower), dtype, s), to_dtype(as_array(upper), dtype, s)
    dims = _shapes.broadcast_shapes(low.shape, high.shape) if shape is None else _shape(shape, "truncated_normal")
    _fits(dims, low, high, name="truncated_normal")
    a = _ew.erf(_ew.divide(low, root, stream=s), stream=s)
    b = _ew.erf(_ew.divide(high, root, stream=s), stream=s)
    drawn = _ew.multiply(_ew.erfinv(uniform(a, b, dims, dtype, key, s), stream=s), root, stream=s)
    return _ew.maximum(_ew.minimum(high, drawn, stream=s), low, stream=s)


@_drawing
def gumbel(
    shape: Sequence[int] = (), dtype: Dtype | None = _graph.float32, key: array | None = None, stream: Any = None
) -> array:
    """Numbers of the standard Gumbel distribution: -log(-log(u)) for u uniform in (0, 1). ValueError for integers."""
    s = stream
    u = uniform(0, 1, shape, dtype, key, s)
    return _ew.negative(_ew.log(_ew.negative(_ew.log(u, stream=s), stream=s), stream=s), stream=s)


@_drawing
def laplace(
    shape: Sequence[int] = (),
    dtype: Dtype | None = _graph.float32,
    loc: Any = None,
    scale: Any = None,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Numbers of the Laplace distribution with mean `loc` (0) and scale `scale` (1). ValueError for integers."""
    dtype = dtype or _graph.float32
    if dtype.category != "floating":
        raise ValueError("[laplace] Only real floating point types are supported.")
    s = stream
    u = uniform(-_BELOW_ONE["float32"], 1.0, shape, _graph.float32, key, s)
    tail = _ew.log1p(_ew.multiply(_ew.abs(u, stream=s), -1.0, stream=s), stream=s)
    drawn = to_dtype(_ew.multiply(_ew.sign(u, stream=s), tail, stream=s), dtype, s)
    if scale is not None:
        drawn = _ew.multiply(drawn, to_dtype(as_array(scale), dtype, s), stream=s)
    return drawn if loc is None else _ew.add(drawn, to_dtype(as_array(loc), dtype, s), stream=s)


@_drawing
def categorical(
    logits: array,
    axis: int = -1,
    shape: Sequence[int] | None = None,
    num_samples: int | None = None,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Indices drawn with the probabilities softmax(logits).

    Args:
        logits: unnormalised log probabilities.
        axis: the axis that is drawn from.
        shape: the dims of the result; logits without the axis must broadcast to it.
        num_samples: how many to draw of each, as a last axis; not together with `shape`.
        key: a key, split off the state if None.
        stream: a stream or device.

    Returns:
        uint32; the shape of logits without the axis unless `shape` or `num_samples` is given.

    Raises:
        ValueError: both are given, or the shapes do not broadcast.
        IndexError: the axis is out of range.
    """
    if not isinstance(logits, array):
        raise TypeError(f"[categorical] logits must be an array, got {type(logits).__name__}")
    if shape is not None and num_samples is not None:
        raise ValueError("[categorical] At most one of shape or num_samples can be specified.")
    s = stream
    axis = normalize_axis(axis, logits.ndim, "categorical")
    reduced = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    if num_samples is not None:
        wide = _shapes.expand_dims(logits, logits.ndim, stream=s)
        return _gumbel_max(wide, (*logits.shape, operator.index(num_samples)), axis, key, s)
    if shape is None:
        return _gumbel_max(logits, logits.shape, axis, key, s)
    dims = _shape(shape, "categorical")
    if _shapes.broadcast_shapes(dims, reduced) != dims:
        raise ValueError(f"[categorical] Requested shape {dims} is not broadcast compatible with {reduced}.")
    position = axis - logits.ndim + 1 + len(dims)
    noisy = (*dims[:position], logits.shape[axis], *dims[position:])
    return _gumbel_max(logits, noisy, position, key, s)


def _gumbel_max(logits: array, shape: tuple[int, ...], axis: int, key: array | None, s: Any) -> array:
    noise = gumbel(shape, _graph.float32, key, s)
    return _reduce.argmax(_ew.add(noise, logits, stream=s), axis, stream=s)


@_drawing
def permutation(x: int | array, axis: int = 0, key: array | None = None, stream: Any = None) -> array:
    """The integers below x in random order, or an array with its elements along an axis in random order.

    Raises:
        ValueError: a negative integer.
        IndexError: the axis is out of range.

    >>> mx.random.permutation(4).shape
    (4,)
    """
    if not isinstance(x, array):
        if isinstance(x, float):
            raise TypeError(f"[permutation] expects an integer or an array, got {x!r}")
        return _argsort(_bits((operator.index(x),), key, stream), stream=stream)
    axis = normalize_axis(axis, x.ndim, "permutation")
    order = _argsort(_bits((x.shape[axis],), key, stream), stream=stream)
    return _positions.take(x, order, axis, stream=stream)


def multivariate_normal(
    mean: array,
    cov: array,
    shape: Sequence[int] = (),
    dtype: Dtype | None = _graph.float32,
    key: array | None = None,
    stream: Any = None,
) -> array:
    """Not available: it needs the singular value decomposition.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        "[multivariate_normal] needs the singular value decomposition, which is not available; "
        "use mean + normal(shape) @ L.T with a Cholesky factor L of the covariance."
    )
