"""Sorting, partitioning and the greatest k."""

from __future__ import annotations

import numpy as np
import pytest

from .differential import DTYPES, layouts, same_as_mlx, same_as_numpy, samples, to_module, to_numpy
from .module_under_test import mx

REAL = [d for d in DTYPES if d != "complex64"]


@pytest.mark.parametrize("name", ["sort", "argsort"])
def test_every_dtype(name):
    for dtype in REAL:
        for shape in [(1,), (9,), (5, 7), (2, 3, 4)]:
            a = samples(dtype, shape, domain="small")  # many ties
            for axis in [None, *range(-len(shape), len(shape))]:
                case = (name, dtype, shape, axis)
                result = getattr(mx, name)(to_module(mx, a), axis=axis)
                expected = getattr(np, name)(a.astype(np.float64), axis=axis, kind="stable")
                same_as_numpy(result, expected, case=case)
                same_as_mlx(lambda m, a, x=axis: getattr(m, name)(a, axis=x), a, case=case)


@pytest.mark.parametrize("name", ["sort", "argsort"])
def test_nan_is_last(name):
    for dtype in ("float16", "bfloat16", "float32"):
        a = np.array([[3, np.nan, -np.inf, 1], [np.nan, np.inf, np.nan, 0]]).astype(samples(dtype, ()).dtype)
        for axis in (0, 1):
            expected = getattr(np, name)(a.astype(np.float64), axis=axis, kind="stable")
            same_as_numpy(getattr(mx, name)(to_module(mx, a), axis=axis), expected, case=(dtype, axis))


@pytest.mark.parametrize("name", ["sort", "argsort"])
def test_layouts(name):
    for layout, base, view in layouts((3, 8)):
        a = samples("float32", base, domain="small")
        for axis in (0, 1):
            expected = getattr(np, name)(view(a), axis=axis, kind="stable")
            same_as_numpy(getattr(mx, name)(view(to_module(mx, a)), axis=axis), expected, case=(layout, axis))


@pytest.mark.parametrize("name", ["sort", "argsort"])
def test_of_nothing(name):
    for shape, axis in [((0,), -1), ((0, 3), 0), ((0, 3), 1), ((3, 0), 1)]:
        result = getattr(mx, name)(mx.zeros(shape), axis=axis)
        same_as_numpy(result, getattr(np, name)(np.zeros(shape), axis=axis), case=(shape, axis))


def test_long_arrays():
    for size in (1000, 5000, 70_000):
        a = samples("int32", (size,))
        same_as_numpy(mx.sort(to_module(mx, a)), np.sort(a), case=size)
        same_as_numpy(mx.argsort(to_module(mx, a)), np.argsort(a, kind="stable"), case=size)


def test_partition():
    for dtype in ("int32", "float16", "float32"):
        a = samples(dtype, (4, 9), domain="small")
        for axis in (0, 1, -1):
            for kth in (0, 2, -1):
                case = (dtype, axis, kth)
                values = to_numpy(mx.partition(to_module(mx, a), kth, axis=axis))
                order = np.sort(a, axis=axis)
                np.testing.assert_array_equal(values.take(kth, axis), order.take(kth, axis), err_msg=str(case))
                np.testing.assert_array_equal(np.sort(values, axis=axis), order, err_msg=str(case))
                place = to_numpy(mx.argpartition(to_module(mx, a), kth, axis=axis))
                picked = np.take_along_axis(a, place.astype(np.int64), axis)
                np.testing.assert_array_equal(picked.take(kth, axis), order.take(kth, axis), err_msg=str(case))


def test_topk():
    for dtype in ("int32", "float32"):
        a = samples(dtype, (4, 9), domain="small")
        for axis in (0, 1, -1, None):
            for k in (1, 3):
                ours = to_numpy(mx.sort(mx.topk(to_module(mx, a), k, axis=axis), axis=-1 if axis is None else axis))
                order = np.sort(a, axis=axis)
                along = 0 if axis is None else axis
                expected = order.take(range(order.shape[along] - k, order.shape[along]), along)
                np.testing.assert_array_equal(ours, expected, err_msg=str((dtype, axis, k)))


def test_topk_of_long_rows():
    for dtype in REAL:
        for shape, k in [((3, 300), 7), ((2, 9000), 100), ((20_000,), 3)]:
            a = samples(dtype, shape, domain="small")
            found = np.sort(to_numpy(mx.topk(to_module(mx, a), k)).astype(np.float64), axis=-1)
            expected = np.sort(a.astype(np.float64), axis=-1)[..., shape[-1] - k :]
            np.testing.assert_array_equal(found, expected, err_msg=str((dtype, shape, k)))


def test_topk_takes_nan_for_the_greatest():
    a = np.array([[3, np.nan, -np.inf, 1], [np.nan, np.inf, np.nan, 0]], np.float32)
    found = to_numpy(mx.topk(to_module(mx, a), 2))
    np.testing.assert_array_equal(np.sort(found, axis=-1), [[3, np.nan], [np.nan, np.nan]])


@pytest.mark.mlxlite_only
def test_topk_keeps_the_order_and_of_equals_the_last():
    a = mx.array([[2, 7, 1, 7, 2, 2], [5, 5, 5, 5, 5, 5]])
    np.testing.assert_array_equal(to_numpy(mx.topk(a, 3)), [[7, 7, 2], [5, 5, 5]])

    gradient = mx.grad(lambda a: (mx.topk(a, 3) * mx.array([1.0, 2.0, 3.0])).sum())
    expected = np.array([[0, 1, 0, 2, 0, 3], [0, 0, 0, 1, 2, 3]])
    np.testing.assert_array_equal(to_numpy(gradient(a.astype(mx.float32))), expected)
    np.testing.assert_array_equal(to_numpy(mx.vmap(gradient)(a.astype(mx.float32))), expected)
    np.testing.assert_array_equal(to_numpy(mx.vmap(gradient, 1, 1)(a.T.astype(mx.float32))), expected.T)


@pytest.mark.parametrize("name", ["sort", "argsort"])
def test_axis_out_of_range(name):
    for axis in (2, -3):
        same_as_mlx(lambda m, a, x=axis: getattr(m, name)(a, axis=x), samples("int32", (2, 3)), case=axis)
        with pytest.raises((ValueError, IndexError)):
            getattr(mx, name)(mx.zeros((2, 3)), axis=axis)


def test_kth_out_of_range():
    for name in ("partition", "argpartition"):
        for kth in (3, -4):
            with pytest.raises(ValueError):
                mx.eval(getattr(mx, name)(mx.zeros((2, 3)), kth))
    with pytest.raises(ValueError):
        mx.eval(mx.topk(mx.zeros((3,)), 4))
