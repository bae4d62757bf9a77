"""searchsorted and unique."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from tests.checked_backend import checked
from tests.differential import DTYPES, is_array, numpy_dtype, same_as_mlx, samples, to_module, to_numpy
from tests.module_under_test import IS_MLX, mx

REAL = [d for d in DTYPES if d != "complex64"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_searchsorted(dtype, side):
    for n in (0, 1, 2, 3, 7, 8, 9, 40):
        row = np.sort(samples(dtype, (n,), seed=1, domain="small"))  # many ties
        for shape in ((), (1,), (30,), (2, 3, 4), (0, 2)):
            values = samples(dtype, shape, seed=2, domain="small")
            case = (dtype, side, n, shape)
            found = same_as_mlx(lambda m, r, v: m.searchsorted(r, v, side=side), row, values, case=case)
            if dtype != "complex64":
                wide = np.float64 if dtype not in ("int64", "uint64") else None
                expected = np.searchsorted(row.astype(wide or row.dtype), values.astype(wide or row.dtype), side)
                np.testing.assert_array_equal(to_numpy(found), expected, str(case))


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_of_nan_and_infinity(side):
    special = np.array([-np.inf, -1, -0.0, 0.0, 1, np.inf, np.nan, np.nan], np.float32)
    for row in (special, special[:6], special[6:], special[:1]):
        found = same_as_mlx(lambda m, r, v: m.searchsorted(r, v, side=side), row, special, case=row)
        np.testing.assert_array_equal(to_numpy(found), np.searchsorted(row, special, side))


def test_searchsorted_promotes():
    for a, v in (("uint8", "int8"), ("int32", "float32"), ("float16", "int32"), ("bool", "uint8")):
        row = np.sort(samples(a, (9,), domain="small"))
        assert is_array(same_as_mlx(lambda m, r, x: m.searchsorted(r, x), row, samples(v, (7,), domain="small")))
    row = np.array([1, 200], np.uint8)
    found = same_as_mlx(lambda m, r, x: m.searchsorted(r, x), row, np.array([-1, 100], np.int8))
    assert found.tolist() == [0, 1]


@pytest.mark.parametrize("size", [0, 1, 3, 7, 30])
@pytest.mark.parametrize("dtype", DTYPES)
def test_unique(dtype, size, is_fused):
    if is_fused and dtype == "complex64":
        pytest.skip("the GPU does not sort complex numbers, and says so")
    for shape in ((), (1,), (20,), (3, 5), (2, 2, 3)):
        a = samples(dtype, shape, domain="small")
        for fill in (None, 1):
            values, index, inverse, counts = same_as_mlx(
                lambda m, a, f=fill: m.unique(a, size, True, True, True, f), a, case=(dtype, size, shape, fill)
            )
            n = len(np.unique(a))
            if size >= n:
                expected = np.unique(a, return_index=True, return_inverse=True, return_counts=True)
                np.testing.assert_array_equal(to_numpy(values)[:n], expected[0])
                np.testing.assert_array_equal(to_numpy(index)[:n], expected[1])
                np.testing.assert_array_equal(to_numpy(inverse), expected[2].reshape(shape))
                np.testing.assert_array_equal(to_numpy(counts), [*expected[3], *[0] * (size - n)])


@pytest.mark.parametrize("asked", [(), (True,), (False, True), (False, False, True), (True, False, True)])
def test_unique_returns_what_is_asked_for(asked):
    same_as_mlx(lambda m, a: m.unique(a, 4, *asked), samples("int32", (9,), domain="small"))


def test_unique_of_nan_zero_and_nothing():
    a = np.array([np.nan, 1, np.nan, 0.0, -0.0], np.float32)
    same_as_mlx(lambda m, a: m.unique(a, 5, True, True, True), a)
    for shape in ((0,), (2, 0)):
        same_as_mlx(lambda m, a: m.unique(a, 3, True, True, True, 7), np.zeros(shape, np.int32))
        same_as_mlx(lambda m, a: m.unique(a, 0, True, True, True), np.zeros(shape, np.int32))


def test_fill_values():
    a = np.array([3, 1, 3], np.int32)
    for fill in (1.5, -7, True):
        same_as_mlx(lambda m, a, f=fill: m.unique(a, 5, fill_value=f), a)
    for fill in (np.array(9.0, np.float32), np.array([9], np.int32), np.array([[2.5]], np.float32)):
        same_as_mlx(lambda m, a, f: m.unique(a, 5, fill_value=f), a, fill)
    same_as_mlx(lambda m, a: m.unique(a, 5, fill_value=1.5), a.astype(numpy_dtype("bfloat16")))


ERRORS = {
    "a matrix": lambda m: m.searchsorted(m.ones((2, 2)), m.array(2)),
    "a number": lambda m: m.searchsorted(m.array(2), m.array(2)),
    "side": lambda m: m.searchsorted(m.ones((2,)), m.array(2), side="middle"),
    "a number to search": lambda m: m.searchsorted(m.ones((2,)), 2),
    "negative size": lambda m: m.unique(m.ones((2,)), -1),
    "fraction": lambda m: m.unique(m.ones((2,)), 2.5),
    "list": lambda m: m.unique([3, 3], 2),
    "no size": lambda m: m.unique(m.ones((2,))),
    "two fill values": lambda m: m.unique(m.ones((2,)), 4, fill_value=m.ones((2,))),
    "nothing to fill with": lambda m: m.unique(m.ones((0,)), 4),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    assert same_as_mlx(ERRORS[case], case=case) is None


@pytest.mark.mlxlite_only
def test_plans_for_the_gpu():
    with checked() as checks:
        for dtype in ("int32", "float32"):
            row, values = (to_module(mx, samples(dtype, (n,), domain="small")) for n in (9, 7))
            mx.eval(mx.searchsorted(mx.sort(row), values), *mx.unique(row, 12, True, True, True, 3))
        assert len(checks) >= 2


@pytest.mark.skipif(IS_MLX, reason="MLX's docstrings are not ours to test")
def test_docstrings():
    result = doctest.testmod(importlib.import_module("mlxlite.core.search"), extraglobs={"mx": mx})
    assert result.failed == 0 and result.attempted == 2
