"""Initializers: functions that make an array of random or fixed numbers in the shape of the one they are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

import mlxlite.core as mx

Initializer = Callable[..., mx.array]
Mode = Literal["fan_in", "fan_out"]


def constant(value: float, dtype: mx.Dtype = mx.float32) -> Initializer:
    """Every element is `value`.

    >>> constant(0.5)(mx.zeros(2))
    array([0.5, 0.5], dtype=float32)
    """

    def initializer(a: mx.array) -> mx.array:
        return mx.full(a.shape, value, dtype=dtype)

    return initializer


def normal(mean: float = 0.0, std: float = 1.0, dtype: mx.Dtype = mx.float32) -> Initializer:
    """Normal numbers.

    >>> normal(std=0.1)(mx.zeros((2, 3))).shape
    (2, 3)
    """

    def initializer(a: mx.array) -> mx.array:
        return mx.random.normal(shape=a.shape, scale=std, loc=mean, dtype=dtype)

    return initializer


def uniform(low: float = 0.0, high: float = 1.0, dtype: mx.Dtype = mx.float32) -> Initializer:
    """Uniform numbers in [low, high).

    >>> bool(mx.all(uniform(2.0, 3.0)(mx.zeros(100)) >= 2))
    True
    """

    def initializer(a: mx.array) -> mx.array:
        return mx.random.uniform(low, high, a.shape, dtype=dtype)

    return initializer


def identity(dtype: mx.Dtype = mx.float32) -> Initializer:
    """Ones on the diagonal of a square matrix; ValueError for another shape.

    >>> identity()(mx.zeros((2, 2)))
    array([[1, 0],
           [0, 1]], dtype=float32)
    """

    def initializer(arr: mx.array) -> mx.array:
        if arr.ndim != 2 or arr.shape[0] != arr.shape[1]:
            raise ValueError(f"The identity is a square matrix, got shape {arr.shape}.")
        return mx.eye(arr.shape[0], dtype=dtype)

    return initializer


def _fans(a: mx.array) -> tuple[int, int]:
    """How many inputs and outputs a weight (out, ..., in) connects; the dims between are those of a filter."""
    if a.ndim < 2:
        raise ValueError(f"Glorot and He initialization need at least 2 dimensions, got {a.ndim}.")
    size = math.prod(a.shape[1:-1])
    return a.shape[-1] * size, a.shape[0] * size


def glorot_normal(dtype: mx.Dtype = mx.float32) -> Initializer:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out)), as `initializer(a, gain=1.0)`.

    Raises:
        ValueError: an array of fewer than two dims.

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.

    >>> glorot_normal()(mx.zeros((2, 3)), gain=2.0).shape
    (2, 3)
    """

    def initializer(a: mx.array, gain: float = 1.0) -> mx.array:
        fan_in, fan_out = _fans(a)
        return mx.random.normal(shape=a.shape, scale=gain * math.sqrt(2 / (fan_in + fan_out)), dtype=dtype)

    return initializer


def glorot_uniform(dtype: mx.Dtype = mx.float32) -> Initializer:
    """Uniform within gain * sqrt(6 / (fan_in + fan_out)) of 0, as `initializer(a, gain=1.0)`.

    Raises:
        ValueError: an array of fewer than two dims.

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.

    >>> bool(mx.max(mx.abs(glorot_uniform()(mx.zeros((2, 4))))) <= 1)
    True
    """

    def initializer(a: mx.array, gain: float = 1.0) -> mx.array:
        limit = gain * math.sqrt(6 / sum(_fans(a)))
        return mx.random.uniform(-limit, limit, a.shape, dtype=dtype)

    return initializer


def _fan(a: mx.array, mode: Mode) -> int:
    fans = dict(zip(("fan_in", "fan_out"), _fans(a), strict=True))
    if mode not in fans:
        raise ValueError(f"The mode must be one of {list(fans)}, got {mode!r}.")
    return fans[mode]


def he_normal(dtype: mx.Dtype = mx.float32) -> Initializer:
    """Normal with standard deviation gain / sqrt(fan), as `initializer(a, mode="fan_in", gain=1.0)`.

    Raises:
        ValueError: an array of fewer than two dims, or a mode that is neither "fan_in" nor "fan_out".

    Source: He et al., Delving deep into rectifiers, 2015, arXiv:1502.01852 (with gain sqrt(2)).

    >>> he_normal()(mx.zeros((2, 3)), "fan_out", gain=2.0).shape
    (2, 3)
    """

    def initializer(a: mx.array, mode: Mode = "fan_in", gain: float = 1.0) -> mx.array:
        return mx.random.normal(shape=a.shape, scale=gain / math.sqrt(_fan(a, mode)), dtype=dtype)

    return initializer


def he_uniform(dtype: mx.Dtype = mx.float32) -> Initializer:
    """Uniform within gain * sqrt(3 / fan) of 0, as `initializer(a, mode="fan_in", gain=1.0)`.

    Raises:
        ValueError: an array of fewer than two dims, or a mode that is neither "fan_in" nor "fan_out".

    Source: He et al., Delving deep into rectifiers, 2015, arXiv:1502.01852 (with gain sqrt(2)).

    >>> bool(mx.max(mx.abs(he_uniform()(mx.zeros((2, 3))))) <= 1)
    True
    """

    def initializer(a: mx.array, mode: Mode = "fan_in", gain: float = 1.0) -> mx.array:
        limit = gain * math.sqrt(3 / _fan(a, mode))
        return mx.random.uniform(-limit, limit, a.shape, dtype=dtype)

    return initializer


def sparse(sparsity: float, mean: float = 0.0, std: float = 1.0, dtype: mx.Dtype = mx.float32) -> Initializer:
    """Normal numbers, of which a fraction `sparsity` in each row of a matrix (rounded up) is 0.

    Raises:
        ValueError: an array that is no matrix.

    Source: Martens, Deep learning via Hessian-free optimization, 2010.

    >>> mx.sum(sparse(0.5)(mx.zeros((2, 4))) == 0, axis=1)
    array([2, 2], dtype=int32)
    """

    def initializer(a: mx.array) -> mx.array:
        if a.ndim != 2:
            raise ValueError(f"Sparse initialization is of matrices, got {a.ndim} dimensions.")
        zeros = math.ceil(sparsity * a.shape[1])
        order = mx.argsort(mx.random.uniform(shape=a.shape), axis=1)
        values = mx.random.normal(shape=a.shape, scale=std, loc=mean, dtype=dtype)
        return mx.put_along_axis(values, order[:, :zeros], mx.array(0, dtype), axis=1)

    return initializer


def orthogonal(gain: float = 1.0, dtype: mx.Dtype = mx.float32) -> Initializer:
    """A matrix whose rows (or columns, if they are fewer) are orthogonal and of length `gain`.

    It is evaluated when it is made: the factorisation is NumPy's.

    Raises:
        ValueError: an array that is no matrix.

    Source: Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning, 2014, arXiv:1312.6120.

    >>> q = orthogonal()(mx.zeros((2, 3)))
    >>> mx.allclose(q @ q.T, mx.eye(2), atol=1e-5).item()
    True
    """

    def initializer(a: mx.array) -> mx.array:
        if a.ndim != 2:
            raise ValueError(f"Orthogonal initialization is of matrices, got {a.ndim} dimensions.")
        rows, columns = a.shape
        n = max(rows, columns)
        q, r = np.linalg.qr(np.array(mx.random.normal(shape=(n, n))))
        # With these signs the factorisation is unique, and q uniform over the orthogonal matrices.
        q = (q * np.sign(np.diag(r)))[:rows, :columns] * gain
        return mx.array(q.astype(np.float32)).astype(dtype)

    return initializer
