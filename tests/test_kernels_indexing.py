"""Gathers, rotary positions and random bits on the emulator, against NumPy and the CPU backend's rules."""

from __future__ import annotations

from types import SimpleNamespace

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.indexing import generate_gather, generate_scatter, generate_take_along_axis
from backend_cuda.kernels.random import generate_random_bits
from backend_cuda.kernels.rope import generate_rope
from mlxlite.backend_cpu._rules import RULES

pytestmark = pytest.mark.skipif(not emulator.available(), reason="needs g++")

RNG = np.random.default_rng(0)
NUMPY = {"bfloat16": ml_dtypes.bfloat16}
GATHERS = {dtype: generate_gather(dtype, "int32", 1, (1,)) for dtype in ("float32", "float16", "uint8", "complex64")}
# By dtype, how many axes are picked along, and strides along the others.
PICKS = {
    ("bfloat16", "int64", 1, (None, None)): (1,),
    ("float32", "uint32", 2, ()): (0, 1),
    ("uint8", "int32", 2, (None,)): (0, 2),
    ("float64", "uint32", 1, (None, 1)): (1,),
    ("complex64", "int64", 2, (1,)): (0, 1),
    ("bool", "int32", 1, (0, 1)): (1,),
}
PICKED = {case: generate_gather(*case) for case in PICKS}
TAKE = generate_take_along_axis("float32", "int64", 2)
BITS = {width: generate_random_bits(width) for width in (1, 2, 4)}
ROPES = {(kind, traditional): generate_rope("float32", 6, traditional, offset=kind) for kind in ("number", "batch")
         for traditional in (False, True)}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def built():
    tables = (GATHERS, PICKED, BITS, ROPES)
    emulator.build([k for table in tables for k in table.values()] + [TAKE])


@pytest.mark.parametrize("dtype", GATHERS)
def test_rows_of_a_table(dtype):
    a = (RNG.normal(size=(7, 21)) * 9).astype(dtype)
    index = np.array([3, -1, 0, 6, 99, -99], np.int32)
    (found,) = emulator.run(GATHERS[dtype], (6, 21), [a, index], [((6, 21), a.dtype)], ints={0: 7, 1: 21})
    np.testing.assert_array_equal(found, a[[3, 6, 0, 6, 6, 0]])


@pytest.mark.parametrize("case", PICKS, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_picks_along_axes(case):
    """From arrays of any strides, with indices that wrap and, held inside, indices beyond either end."""
    dtype, index_dtype, _, access = case
    axes = PICKS[case]
    rest_shape = {0: (), 1: (19,), 2: (3, 18)}[len(access)]
    sizes = [5, 7][: len(axes)]
    shape, remains = list(rest_shape), [d for d in range(len(axes) + len(access)) if d not in axes]
    for axis, size in zip(axes, sizes, strict=True):
        shape.insert(axis, size)
    strided = len(access) > 0 and access[-1] is None
    a = (RNG.normal(size=(*shape[:-1], shape[-1] * (2 if strided else 1))) * 9).astype(NUMPY.get(dtype, dtype))
    a = a[..., ::-2] if strided else a
    if 0 in access:
        a = np.broadcast_to(a[:1], a.shape)
    low = 0 if index_dtype == "uint32" else -2
    indices = [RNG.integers(low * n, 2 * n, 11).astype(index_dtype) for n in sizes]
    moved = np.moveaxis(a, axes, range(len(axes)))
    wrapped = [
        np.clip(np.where(i < 0, i.astype(np.int64) + n, i), 0, n - 1) for i, n in zip(indices, sizes, strict=True)
    ]
    expected = moved[tuple(i.astype(np.int64) for i in wrapped)]
    strides = emulator.strides_of(a)
    ints = {2 * j: a.shape[axis] for j, axis in enumerate(axes)}
    ints |= {2 * j + 1: strides[axis] for j, axis in enumerate(axes)}
    loop = np.lib.stride_tricks.as_strided(a, (11, *rest_shape), (0, *(a.strides[d] for d in remains)))
    for misalign in (0, 1) if a.itemsize < 8 else (0,):
        (found,) = emulator.run(
            PICKED[case], (11, *rest_shape), [loop, *indices], [(expected.shape, a.dtype)], ints=ints, misalign=misalign
        )
        np.testing.assert_array_equal(found, expected)


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
