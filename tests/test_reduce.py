"""Reductions, scans and what is made of them: axes, keepdims, dtypes, empty arrays, layouts."""

from __future__ import annotations

import numpy as np
import pytest

from .differential import (
    DTYPES,
    FLOATS,
    SOME_DTYPES,
    TOLERANCE,
    layouts,
    same_as_mlx,
    same_as_numpy,
    samples,
    to_module,
)
from .module_under_test import IS_MLX, mx

REDUCTIONS = ["sum", "prod", "max", "min", "any", "all", "mean", "var", "std", "logsumexp", "median"]
AXES = [None, 0, 1, -1, (0, 1), (0, 2), (-1, 0), (0, 1, 2), ()]
ORDERED = ("max", "min", "median", "argmax", "argmin", "cummax", "cummin", "logsumexp", "var", "std")


def _tolerance(dtype: str) -> float | None:
    # MLX adds up 16-bit floats in chunks, in float32 or not by function; each chunk may round once more.
    # Its softmax and logsumexp of float64 are computed in float32.
    return 4 * TOLERANCE["float32" if dtype == "float64" else dtype] if dtype in TOLERANCE else None


def _dtypes(name: str, dtypes=DTYPES):
    """Those that MLX has the function for: complex numbers are compared by no published rule."""
    return [d for d in dtypes if not (d == "complex64" and name in ORDERED)]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_axes_and_keepdims(name):
    a = samples("float32", (3, 4, 5), domain="small")
    wide = a.astype(np.float64)
    for axis in AXES:
        for keepdims in (False, True):
            case = (name, axis, keepdims)
            same_as_mlx(
                lambda m, a, x=axis, k=keepdims: getattr(m, name)(a, axis=x, keepdims=k), a, case=case, tolerance=1e-4
            )
            if name == "logsumexp":
                expected = np.log(np.sum(np.exp(wide), axis=axis, keepdims=keepdims))
            elif axis == () and name == "median":
                continue
            else:
                expected = getattr(np, name)(wide, axis=axis, keepdims=keepdims)
            result = getattr(mx, name)(to_module(mx, a), axis=axis, keepdims=keepdims)
            same_as_numpy(result, expected, case=case, tolerance=1e-5, scale=20)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_dtypes(name):
    for dtype in _dtypes(name):
        for shape, axis in [((), None), ((1,), 0), ((7, 6), None), ((7, 6), 0), ((2, 3, 4), (0, 2))]:
            if dtype not in FLOATS and name == "logsumexp":
                continue  # MLX subtracts integers, bools even
            a = samples(dtype, shape, domain="small")
            same_as_mlx(
                lambda m, a, x=axis: getattr(m, name)(a, axis=x),
                a,
                case=(name, dtype, shape, axis),
                tolerance=_tolerance(dtype),
                scale=20,
            )


@pytest.mark.parametrize("name", REDUCTIONS)
def test_as_methods(name):
    if name == "median":
        return
    a = samples("float32", (3, 4), domain="small")
    same_as_mlx(
        lambda m, a: [getattr(a, name)(), getattr(a, name)(1), getattr(a, name)(axis=0, keepdims=True)],
        a,
        tolerance=1e-5,
    )


@pytest.mark.parametrize("name", ["sum", "max", "mean", "argmax", "logsumexp", "cumsum", "softmax"])
def test_layouts(name):
    for shape in [(4,), (3, 4), (2, 3, 4)]:
        for layout, base, view in layouts(shape):
            for axis in range(len(shape)):
                same_as_mlx(
                    lambda m, a, v=view, x=axis: getattr(m, name)(v(a), axis=x),
                    samples("float32", base, domain="small"),
                    case=(name, shape, layout, axis),
                    scale=10,
                )


# NumPy alone is asked: MLX reads what happens to be in memory, for minutes at times.
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("name", ["sum", "prod", "any", "all", "mean"])
def test_of_nothing(name):
    for shape, axis in [((0,), None), ((0, 3), 0), ((0, 3), 1), ((3, 0), 0), ((2, 0, 4), 1), ((2, 0, 4), (0, 1))]:
        a = samples("float32", shape)
        with np.errstate(all="ignore"):
            expected = getattr(np, name)(a, axis=axis)
        same_as_numpy(getattr(mx, name)(to_module(mx, a), axis=axis), expected, case=(name, shape, axis))


@pytest.mark.parametrize("name", ["sum", "prod"])
def test_dtypes_of_sums(name):
    for dtype in DTYPES:
        for shape, axis in [((), None), ((3,), ()), ((3,), None)]:
            a = samples(dtype, shape, domain="small")
            same_as_mlx(lambda m, a, x=axis: getattr(m, name)(a, axis=x), a, case=(dtype, shape, axis))


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_extremes_of_nothing(name):
    with pytest.raises(ValueError):
        mx.eval(getattr(mx, name)(mx.zeros((0,))))
    with pytest.raises(ValueError):
        mx.eval(getattr(mx, name)(mx.zeros((0, 3)), axis=0))
    if name in ("max", "min"):
        assert getattr(mx, name)(mx.zeros((0, 3)), axis=1).shape == (0,)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_arguments_of_extremes(name):
    for dtype in _dtypes(name):
        for shape in [(), (5,), (4, 6), (2, 3, 4)]:
            a = samples(dtype, shape, domain="small")  # many ties among the integers: the first wins
            for axis in [None, *range(-len(shape), len(shape))]:
                for keepdims in (False, True) if shape else (False,):
                    case = (name, dtype, shape, axis, keepdims)
                    same_as_mlx(lambda m, a, x=axis, k=keepdims: getattr(m, name)(a, axis=x, keepdims=k), a, case=case)
                    if shape:
                        expected = getattr(np, name)(a, axis=axis, keepdims=keepdims)
                        same_as_numpy(
                            getattr(mx, name)(to_module(mx, a), axis=axis, keepdims=keepdims), expected, case=case
                        )


@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_propagate_nan(name):
    for dtype in ("float16", "bfloat16", "float32"):
        a = to_module(mx, samples(dtype, (4, 6), domain="small"))
        a[1, 3] = float("nan")
        whole, rows = getattr(mx, name)(a), mx.isnan(getattr(mx, name)(a, axis=1))
        assert mx.isnan(whole).item(), dtype
        assert rows.tolist() == [False, True, False, False], dtype


@pytest.mark.parametrize("ddof", [0, 1, 2])
def test_variance(ddof):
    for dtype in ("int32", "float16", "float32", "bool"):
        a = samples(dtype, (4, 5), domain="small")
        for axis in (None, 0, 1):
            for name in ("var", "std"):
                case = (name, dtype, axis, ddof)
                same_as_mlx(
                    lambda m, a, n=name, x=axis: getattr(m, n)(a, axis=x, ddof=ddof), a, case=case, tolerance=5e-3
                )
                if dtype != "float16":
                    expected = getattr(np, name)(a.astype(np.float64), axis=axis, ddof=ddof)
                    result = getattr(mx, name)(to_module(mx, a), axis=axis, ddof=ddof)
                    same_as_numpy(result, expected, case=case, tolerance=1e-5)


SCANS = {"cumsum": np.cumsum, "cumprod": np.cumprod, "cummax": np.maximum.accumulate, "cummin": np.minimum.accumulate}


@pytest.mark.parametrize("name", [*SCANS, "logcumsumexp"])
def test_scans(name):
    for dtype in _dtypes(name, SOME_DTYPES):
        for shape in [(), (1,), (6,), (3, 4), (2, 3, 4)]:
            if name == "logcumsumexp" and dtype in ("bool", "uint8", "int32", "complex64"):
                continue
            a = samples(dtype, shape, domain="small")
            for axis in [None, *range(-1, len(shape))] if shape else [None]:
                for reverse, inclusive in [(False, True), (True, True), (False, False), (True, False)]:
                    case = (name, dtype, shape, axis, reverse, inclusive)
                    same_as_mlx(
                        lambda m, a, x=axis, r=reverse, i=inclusive: getattr(m, name)(
                            a, axis=x, reverse=r, inclusive=i
                        ),
                        a,
                        case=case,
                        tolerance=_tolerance(dtype),
                        scale=20,
                    )


@pytest.mark.parametrize("name", [*SCANS, "logcumsumexp"])
def test_scans_of_nothing(name):
    for shape in [(0,), (0, 3), (3, 0)]:
        for axis in range(len(shape)):
            for reverse, inclusive in [(False, True), (True, True), (False, False), (True, False)]:
                result = getattr(mx, name)(mx.zeros(shape), axis=axis, reverse=reverse, inclusive=inclusive)
                mx.eval(result)
                assert result.shape == shape and result.dtype == mx.float32


@pytest.mark.parametrize("name", SCANS)
def test_scans_are_numpys(name):
    for dtype in ("int32", "float32"):
        a = samples(dtype, (3, 4), domain="small")
        for axis in (0, 1):
            result = getattr(mx, name)(to_module(mx, a), axis=axis)
            same_as_numpy(result, SCANS[name](a, axis=axis), case=(name, dtype, axis), scale=10)


# A GPU scans rows by warps, blocks, larger blocks and tiles, columns by threads, blocks and tiles, wide or narrow ones.
LARGE_SCANS = {"warps": ((9000, 800), 1), "blocks": ((1100, 1601), 1), "larger blocks": ((3, 5000), 1)}
LARGE_SCANS |= {"tiles": ((2, 40_001), 1), "threads down": ((3, 300_000), 0), "blocks down": ((700, 200), 0)}
LARGE_SCANS |= {"tiles down": ((5000, 200), 0), "few tiles down": ((5000, 72), 0), "narrow tiles down": ((9000, 6), 0)}
LARGE_SCANS |= {"groups of tiles": ((1, 3_000_000), 1), "large tiles": ((17, 1_000_000), 1)}
LARGE_SCANS |= {"largest tiles": ((1, 9_000_000), 1), "largest tiles of 16 bits": ((1, 17_000_000), 1)}
LARGE_SCANS |= {"groups of tiles down": ((40_000, 150), 0), "groups of few tiles down": ((100_000, 32), 0)}


@pytest.mark.parametrize("name", LARGE_SCANS)
def test_scans_of_large_arrays(name):
    """Exactly: one element of a thousand is 1, or fewer, so that all sums are small integers."""
    shape, axis = LARGE_SCANS[name]
    ones = np.random.default_rng(0).random(shape) < min(1e-3, 60 / shape[axis])
    for dtype, reverse in [("float32", False), ("bfloat16", True), ("int8", False)]:
        a = to_module(mx, ones.astype(np.int32)).astype(getattr(mx, dtype))
        for scan, inclusive in [("cumsum", True), ("cumsum", False), ("cummax", True)]:
            result = getattr(mx, scan)(a, axis=axis, reverse=reverse, inclusive=inclusive)
            ordered = np.flip(ones, axis) if reverse else ones
            expected = SCANS[scan](ordered.astype(np.int32), axis=axis)
            if not inclusive:
                expected -= ordered
            expected = np.flip(expected, axis) if reverse else expected
            np.testing.assert_array_equal(np.array(result.astype(mx.int32)), expected, err_msg=f"{scan} of {dtype}")


def test_scans_of_one_size_after_another():
    """What one leaves in memory for the next means nothing to it, whether it is larger or smaller."""
    for axis in (0, 1):
        for round_ in range(3):
            for n in (50_000, 400_000, 300_000, 1_100_000, 70_000, 1_100_000):
                shape = (n, 1) if axis == 0 else (2, n // 2)
                ones = np.random.default_rng(round_ * n).integers(-3, 4, shape, np.int32)
                found = np.array(mx.cumsum(mx.array(ones), axis=axis))
                np.testing.assert_array_equal(found, np.cumsum(ones, axis))
    columns = np.random.default_rng(1).integers(-3, 4, (30_000, 32), np.int32)
    for n in (9_000, 30_000, 20_000, 30_000):
        np.testing.assert_array_equal(np.array(mx.cumsum(mx.array(columns[:n]), axis=0)), np.cumsum(columns[:n], 0))


def test_softmax():
    for dtype in ("float16", "bfloat16", "float32", "int32", "bool"):
        for shape, axis in [((5,), -1), ((3, 4), 0), ((3, 4), None), ((2, 3, 4), (0, 2)), ((), None)]:
            if dtype in ("int32", "bool") and shape != (5,):
                continue  # MLX truncates the result to integers there
            for precise in (False, True):
                a = samples(dtype, shape, domain="small")
                same_as_mlx(
                    lambda m, a, x=axis, p=precise: m.softmax(a, axis=x, precise=p),
                    a,
                    case=(dtype, shape, axis, precise),
                    tolerance=2 * TOLERANCE[dtype] if dtype in TOLERANCE else None,
                )
    counts = np.array([[1, 2], [3, 4]], np.int32)
    for axis in (0, None):
        expected = np.exp(counts) / np.exp(counts).sum(axis=axis, keepdims=True)
        if not IS_MLX:
            same_as_numpy(mx.softmax(to_module(mx, counts), axis=axis), expected, case=axis)
    a = np.array([1000.0, 1001.0, -np.inf], np.float32)
    same_as_numpy(mx.softmax(mx.array(a)), np.array([0.26894142, 0.7310586, 0.0], np.float32))


def test_logsumexp_of_large_numbers_and_infinities():
    inf = np.inf
    for values, expected in [([1000, 1000], 1000.6931), ([-inf, -inf], -inf), ([inf, 1], inf), ([-inf, 0], 0.0)]:
        same_as_numpy(mx.logsumexp(mx.array(values, dtype=mx.float32)), np.array(expected), case=values)


def test_sums_of_many_numbers():
    a = samples("float32", (100_000,), domain="positive")
    same_as_numpy(mx.sum(to_module(mx, a)), np.sum(a.astype(np.float64)), tolerance=1e-5)
    for dtype in ("float16", "bfloat16"):
        same_as_numpy(mx.mean(mx.ones((5000,), dtype=getattr(mx, dtype))), np.array(1.0), case=dtype)
    assert mx.sum(mx.full((300,), 100, dtype=mx.uint8)).item() == 30_000
    assert mx.sum(mx.array([2**31 - 1, 1], dtype=mx.int32)).dtype == mx.int32


def test_comparisons_of_whole_arrays():
    a = samples("float32", (3, 4))
    b = a.copy()
    b[0, 0] = 99
    for x, y in [(a, a), (a, b), (a, a[:2]), (np.ones((3, 4), np.int32), a)]:
        same_as_mlx(lambda m, x, y: m.array_equal(x, y), x, y)
        same_as_mlx(lambda m, x, y: m.array_equal(x, y, equal_nan=True), x, y)
    same_as_mlx(
        lambda m, x, y: [m.allclose(x, y), m.allclose(x, y, equal_nan=True), m.allclose(x, y, rtol=1, atol=200)], a, b
    )


def test_trace_and_diff():
    a = samples("int32", (4, 5), domain="small")
    for offset in (-2, 0, 1):
        same_as_mlx(lambda m, a, k=offset: m.trace(a, offset=k), a, case=offset)
        same_as_numpy(mx.trace(to_module(mx, a), offset=offset), np.trace(a, offset=offset), case=offset)
    same_as_mlx(lambda m, a: m.trace(a, dtype=m.float32), a)
    b = samples("int32", (3, 4, 5), domain="small")
    same_as_mlx(lambda m, b: m.trace(b, 1, 0, 2), b)
    for n in (0, 1, 2, 7):
        for axis in (0, 1, -1):
            same_as_numpy(mx.diff(to_module(mx, a), n, axis), np.diff(a, n, axis), case=(n, axis))


def test_median():
    for dtype in ("int32", "float16", "float32"):
        for shape in [(5,), (6,), (3, 4)]:
            a = samples(dtype, shape, domain="small")
            same_as_numpy(mx.median(to_module(mx, a)), np.median(a.astype(np.float64)), case=(dtype, shape))


def test_minmax_count_and_vecdot():
    a, b = samples("float32", (3, 4), domain="small"), samples("float32", (3, 4), seed=1, domain="small")
    low, high = mx.minmax(to_module(mx, a), axis=1)
    same_as_numpy(low, a.min(1))
    same_as_numpy(high, a.max(1))
    c = samples("int32", (3, 4), domain="small")
    for axis in (None, 0, 1):
        same_as_mlx(lambda m, c, x=axis: m.count_nonzero(c, axis=x), c, case=axis)
        same_as_numpy(mx.count_nonzero(to_module(mx, c), axis=axis), np.count_nonzero(c, axis=axis), case=axis)
    same_as_mlx(lambda m, a, b: [m.vecdot(a, b), m.vecdot(a, b, axis=0)], a, b)
    same_as_numpy(mx.vecdot(to_module(mx, a), to_module(mx, b)), (a * b).sum(-1))
