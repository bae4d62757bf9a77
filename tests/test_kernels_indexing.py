"""Gathers, rotary positions and random bits on the emulator, against NumPy and the CPU backend's rules."""

from __future__ import annotations

from types import SimpleNamespace

import kernel_emulator as emulator
import numpy as np
import pytest

from backend_cuda.kernels.indexing import generate_gather, generate_scatter, generate_take_along_axis
from backend_cuda.kernels.random import generate_random_bits
from backend_cuda.kernels.rope import generate_rope
from mlxlite.backend_cpu._rules import RULES

pytestmark = pytest.mark.skipif(not emulator.available(), reason="needs g++")

RNG = np.random.default_rng(0)
GATHERS = {dtype: generate_gather(dtype, "int32", 1, (1,)) for dtype in ("float32", "float16", "uint8", "complex64")}
TAKE = generate_take_along_axis("float32", "int64", 2)
BITS = {width: generate_random_bits(width) for width in (1, 2, 4)}
ROPES = {(kind, traditional): generate_rope("float32", 6, traditional, offset=kind) for kind in ("number", "batch")
         for traditional in (False, True)}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def built():
    tables = (GATHERS, BITS, ROPES)
    emulator.build([k for table in tables for k in table.values()] + [TAKE])


@pytest.mark.parametrize("dtype", GATHERS)
def test_rows_of_a_table(dtype):
    a = (RNG.normal(size=(7, 21)) * 9).astype(dtype)
    index = np.array([3, -1, 0, 6, 99, -99], np.int32)
    (found,) = emulator.run(GATHERS[dtype], (6, 21), [a, index], [((6, 21), a.dtype)], ints={0: 7, 1: 21})
    np.testing.assert_array_equal(found, a[[3, 6, 0, 6, 6, 0]])


@pytest.mark.parametrize("width", BITS)
def test_random_bits(width):
    keys = RNG.integers(0, 2**32, (3, 2), np.uint32)
    dtype = np.dtype(f"u{width}")
    for n in (1, 2, 3, 7, 64, 1001):
        (found,) = emulator.run(BITS[width], (3, n), [keys], [((3, n), dtype)])
        node = SimpleNamespace(shape=(3, n), static=(width,), np_dtype=dtype)
        np.testing.assert_array_equal(found, RULES["random_bits"].function(node, keys))


@pytest.mark.parametrize("axis", [0, 1])
def test_take_along_axis(axis):
    a = RNG.normal(size=(5, 6)).astype(np.float32)
    index = RNG.integers(-a.shape[axis], a.shape[axis], (4, 6) if axis == 0 else (5, 3))
    still = [0 if d == axis else s for d, s in enumerate(a.strides)]
    spread = np.lib.stride_tricks.as_strided(a, index.shape, still)
    ints = {0: a.shape[axis], 1: a.strides[axis] // 4}
    (found,) = emulator.run(TAKE, index.shape, [spread, index], [(index.shape, np.float32)], ints=ints)
    np.testing.assert_array_equal(found, np.take_along_axis(a, index % a.shape[axis], axis))


@pytest.mark.parametrize(("kind", "traditional"), ROPES)
def test_rotary_positions(kind, traditional):
    x = RNG.normal(size=(2, 3, 4, 9)).astype(np.float32)
    offset = np.array([5, 100], np.int32)
    given = [x, offset] if kind == "batch" else [x]
    scalars = {0: 10000.0, 1: 0.5}
    kernel = ROPES[kind, traditional]
    (found,) = emulator.run(kernel, x.shape, given, [(x.shape, np.float32)], scalars=scalars, ints={0: 7})
    node = SimpleNamespace(
        static=(6, traditional, kind == "batch", False), floats=(10000.0, 0.5), ints=(7,), np_dtype=x.dtype
    )
    np.testing.assert_allclose(found, RULES["rope"].function(node, *given), rtol=1e-5, atol=1e-5)


def test_refused():
    with pytest.raises(TypeError, match=r"\[gather\].*int8"):
        generate_gather("float32", "int8", 1, ())
    with pytest.raises(ValueError, match="scatter"):
        generate_scatter("float32", "int32", 1, 0, "average")
    with pytest.raises(TypeError, match=r"\[rope\].*int32"):
        generate_rope("int32", 4, False)
