"""Functions that make arrays from nothing but numbers."""

from __future__ import annotations

import numpy as np
import pytest

from .differential import DTYPES, FLOATS, dtype_of, same_as_mlx, same_as_numpy, samples, to_module
from .module_under_test import mx


@pytest.mark.parametrize("dtype", DTYPES)
def test_filled(dtype):
    for shape in [(), 3, (0,), (2, 3), [1, 4], (2, 0, 3)]:
        for name in ("zeros", "ones"):
            same_as_mlx(
                lambda m, n=name, s=shape: getattr(m, n)(s, dtype=dtype_of(m, dtype)), case=(name, shape, dtype)
            )
        if dtype in FLOATS:
            same_as_mlx(lambda m, s=shape: m.full(s, 3, dtype=dtype_of(m, dtype)), case=("full", shape, dtype))
    a = samples(dtype, (2, 3))
    for name in ("zeros_like", "ones_like"):
        same_as_mlx(lambda m, a, n=name: getattr(m, n)(a), a, case=(name, dtype))
    same_as_mlx(lambda m, a: m.full_like(a, 2), a, case=("full_like", dtype))


def test_default_dtypes():
    same_as_mlx(lambda m: [m.zeros((2,)), m.ones((2,)), m.eye(2), m.identity(2), m.tri(2), m.linspace(0, 1)])
    for value in (True, 3, 2.5, 1j):
        same_as_mlx(lambda m, v=value: m.full((2,), v), case=value)
    same_as_mlx(lambda m, a: m.full((2, 3), a), np.arange(3, dtype=np.int16))


def test_full_is_of_the_dtype_it_is_given():
    for dtype in DTYPES:
        for value in (True, 3, 2.5, mx.array([1, 2], dtype=mx.int16)):
            assert mx.full((3, 2), value, dtype=dtype_of(mx, dtype)).dtype == dtype_of(mx, dtype)
    assert mx.full((2,), 2.5, dtype=mx.int32).tolist() == [2, 2]


def test_like_with_another_dtype():
    a = samples("int32", (2, 2))
    same_as_mlx(lambda m, a: [m.zeros_like(a, dtype=m.float16), m.ones_like(a, dtype=m.bool_)], a)


ARANGES = [
    (5,),
    (0,),
    (2, 7),
    (7, 2),
    (1, 10, 3),
    (10, 1, -3),
    (10, 0, -2),
    (0.5, 3),
    (3.0,),
    (0, 1, 0.25),
    (1, 0, -0.125),
    (5, 5),
    (-3, 3),
    (0, 1, 0.1),
    (2, 3, 5),
]


@pytest.mark.parametrize("arguments", ARANGES, ids=str)
def test_arange(arguments):
    same_as_mlx(lambda m: m.arange(*arguments), case=arguments)
    same_as_numpy(mx.arange(*arguments), np.arange(*arguments), case=arguments)
    for dtype in ("int8", "uint32", "int64", "float16", "bfloat16", "float32"):
        if dtype.startswith("uint") and any(x < 0 for x in arguments):
            continue
        same_as_mlx(lambda m, d=dtype: m.arange(*arguments, dtype=dtype_of(m, d)), case=(arguments, dtype))


def test_arange_by_name():
    same_as_mlx(lambda m: m.arange(1, stop=4, step=2))
    with pytest.raises(ValueError):
        mx.eval(mx.arange(0, float("inf"), 1))
    with pytest.raises(ValueError):
        mx.eval(mx.arange(0, float("nan"), 1))


def test_arange_of_step_zero():
    with pytest.raises(ValueError):
        mx.eval(mx.arange(0, 3, 0))


def test_linspace():
    for start, stop, num in [(0, 1, 5), (1, 0, 3), (-2.5, 7.5, 11), (0, 1, 1), (3, 3, 4), (0, 1, 0), (0, 100, 50)]:
        same_as_mlx(lambda m, a=start, b=stop, n=num: m.linspace(a, b, n), case=(start, stop, num), scale=abs(stop) + 1)
        same_as_numpy(mx.linspace(start, stop, num), np.linspace(start, stop, num), case=(start, stop, num), scale=100)
    for dtype in ("int32", "float16", "float32"):
        same_as_mlx(lambda m, d=dtype: m.linspace(0, 10, 11, dtype=dtype_of(m, d)), case=dtype)


@pytest.mark.parametrize("k", [-3, -1, 0, 1, 2, 5])
def test_diagonals(k):
    for n, columns in [(3, None), (3, 5), (4, 2), (1, 1), (0, 3)]:
        for name in ("eye", "tri"):
            expected = getattr(np, name)(n, columns, k)
            same_as_numpy(getattr(mx, name)(n, columns, k), expected, case=(name, n, columns, k))
        same_as_mlx(lambda m, n=n, c=columns: m.eye(n, c, k, dtype=m.int32), case=(n, columns, k))
    for dtype in ("int32", "float16", "bool"):
        a = samples(dtype, (2, 3, 4))
        for name in ("tril", "triu"):
            same_as_mlx(lambda m, a, n=name: getattr(m, n)(a, k), a, case=(name, dtype, k))
            same_as_numpy(getattr(mx, name)(to_module(mx, a), k), getattr(np, name)(a, k), case=(name, dtype, k))
        for shape in [(4,), (3, 4), (4, 4)]:
            if len(shape) == 2 and not -shape[0] < k < shape[1]:
                continue
            d = samples(dtype, shape)
            same_as_mlx(lambda m, d: m.diag(d, k), d, case=("diag", dtype, shape, k))
            same_as_numpy(mx.diag(to_module(mx, d), k), np.diag(d, k), case=("diag", dtype, shape, k))


def test_created_arrays_are_independent():
    a = mx.zeros((3,))
    b = mx.zeros_like(a)
    a[0] = 5
    assert a.tolist() == [5, 0, 0] and b.tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(-1,), (2, -3)], ids=str)
def test_negative_dimensions(shape):
    for function in (mx.zeros, mx.ones, lambda s: mx.full(s, 1)):
        with pytest.raises(ValueError):
            mx.eval(function(shape))
