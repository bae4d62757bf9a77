"""Updates through index arrays on the emulator, against the CPU backend's rules and NumPy."""

from __future__ import annotations

from types import SimpleNamespace

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.indexing import (
    INDEX_DTYPES,
    MODES,
    generate_put_along_axis,
    generate_scatter,
)
from backend_cuda.kernels.ops import DTYPES, INEXACT
from mlxlite.backend_cpu._rules import RULES

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUMPY = {d: np.dtype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for d in DTYPES}
ROWS = {(dtype, mode): generate_scatter(dtype, "int32", 1, 1, mode) for dtype in DTYPES for mode in MODES}
ELEMENTS = {index: generate_scatter("float32", index, 2, 0, "add") for index in INDEX_DTYPES}
PLANES = generate_scatter("int16", "int64", 2, 2, "max")
PUTS = {
    (dtype, mode, n): generate_put_along_axis(dtype, "int32", n, mode)
    for dtype in ("float32", "bfloat16", "int8")
    for mode in ("none", "add")
    for n in (1, 3)
}


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build([*ROWS.values(), *ELEMENTS.values(), PLANES, *PUTS.values()])


def samples(dtype, shape, seed):
    """Small whole numbers, so that sums and products of a few are exact in any order and any dtype."""
    rng = np.random.default_rng(seed)
    a = rng.integers(-2 if dtype in INEXACT or dtype[0] == "i" else 0, 3, shape)
    return (a + 1j * rng.integers(-2, 3, shape) if dtype == "complex64" else a).astype(NUMPY[dtype])


def expected(name, static, dtype, *inputs):
    node = SimpleNamespace(name=name, static=static, shape=inputs[0].shape, np_dtype=NUMPY[dtype])
    return RULES[name].function(node, *inputs, inplace=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows(dtype, mode):
    """Rows met several times, unless the last one stays; negative indices and ones outside; neighbours share words."""
    a, updates = samples(dtype, (5, 7), 1), samples(dtype, (6, 7), 2)
    index = np.array([4, -5, 2, 4, 99, -99], np.int32)
    if mode == "none":
        index, updates = index[1:4], updates[1:4]
    (found,) = emulator.run(
        ROWS[dtype, mode], (len(index), 7), [updates, index], [(a.shape, a.dtype)], ints={0: 5, 1: 7}, initial={0: a}
    )
    np.testing.assert_array_equal(found, expected("scatter", ((0,), mode), dtype, a, updates, index))


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_nan_stays(dtype, mode):
    a = np.array([[np.nan, 1, 2]], NUMPY[dtype])
    updates = np.array([[0, np.nan, 5], [1, 3, -5]], NUMPY[dtype])
    index = np.zeros(2, np.int32)
    (found,) = emulator.run(
        ROWS[dtype, mode], (2, 3), [updates, index], [(a.shape, a.dtype)], ints={0: 1, 1: 3}, initial={0: a}
    )
    np.testing.assert_array_equal(found[0].astype(float), [np.nan, np.nan, 5 if mode == "max" else -5])


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
def test_single_elements(index_dtype):
    a, updates = samples("float32", (4, 5), 3), samples("float32", (300,), 4)
    rng = np.random.default_rng(5)
    low = 0 if index_dtype == "uint32" else -1
    rows, columns = (rng.integers(low * n, n, 300).astype(index_dtype) for n in a.shape)
    ints = {0: 4, 1: 5, 2: 5, 3: 1}
    kernel = ELEMENTS[index_dtype]
    (found,) = emulator.run(kernel, (300,), [updates, rows, columns], [(a.shape, a.dtype)], ints=ints, initial={0: a})
    np.testing.assert_array_equal(found, expected("scatter", ((0, 1), "add"), "float32", a, updates, rows, columns))


def test_axes_apart():
    """Axes 1 and 3 of four: what remains lies on both sides of an axis."""
    a, updates = samples("int16", (2, 3, 4, 5), 6), samples("int16", (9, 2, 4), 7)
    rng = np.random.default_rng(8)
    index = [rng.integers(-n, n, 9) for n in (3, 5)]
    ints = {0: 3, 1: 20, 2: 5, 3: 1}
    (found,) = emulator.run(
        PLANES, (9, 2, 4), [updates, *index], [(a.shape, a.dtype)],
        ints=ints, initial={0: a}, out_strides={0: (0, 60, 5)},
    )  # fmt: skip
    np.testing.assert_array_equal(found, expected("scatter", ((1, 3), "max"), "int16", a, updates, *index))


@pytest.mark.parametrize(("dtype", "mode", "n"), PUTS)
def test_put_along_axis(dtype, mode, n):
    shape = (4, 5, 6)[:n]
    a = samples(dtype, shape, 9)
    for axis in range(n):
        rng = np.random.default_rng(axis)
        shape_of_index = tuple(3 if d == axis else s for d, s in enumerate(shape))
        if mode == "none":  # each place once, for which is last is not said
            index = np.argsort(rng.random(shape), axis).take(range(3), axis).astype(np.int32) - np.int32(shape[axis])
        else:
            index = rng.integers(-shape[axis] - 2, shape[axis] + 2, shape_of_index).astype(np.int32)
        values = np.broadcast_to(samples(dtype, (*shape_of_index[:-1], 1), 10), shape_of_index)
        strides = emulator.strides_of(a)
        still = tuple(0 if d == axis else s for d, s in enumerate(strides))
        (found,) = emulator.run(
            PUTS[dtype, mode, n], shape_of_index, [values, index], [(a.shape, a.dtype)],
            ints={0: shape[axis], 1: strides[axis]}, initial={0: a}, out_strides={0: still},
        )  # fmt: skip
        np.testing.assert_array_equal(found, expected("put_along_axis", (axis, mode), dtype, a, index, values))


def test_refused():
    with pytest.raises(ValueError, match="put_along_axis"):
        generate_put_along_axis("float32", "int32", 1, "average")
    with pytest.raises(TypeError, match=r"\[scatter\].*uint8"):
        generate_scatter("float32", "uint8", 1, 0, "none")
