"""Generated matrix-vector kernels, run by g++, against NumPy in double precision."""

from __future__ import annotations

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.codegen import Operand, Output
from backend_cuda.kernels.matvec import ColumnVariant, RowVariant, choose_variant, generate

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

# Of the largest element of the result: one rounding of the result, and float's of the sum.
TOLERANCE = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2e-6, "float64": 1e-14, "complex64": 3e-6}


def numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    a = rng.normal(size=shape)
    if dtype == "complex64":
        a = a + 1j * rng.normal(size=shape)
    return a.astype(numpy_dtype(dtype))


def over_loop_dims(a: np.ndarray, dims: str) -> np.ndarray:
    """A view of `a`, whose dims are named by letters of bmnk, with all four of them."""
    index = tuple(slice(None) if d in dims else np.newaxis for d in "bmnk")
    return np.transpose(a, [dims.index(d) for d in "bmnk" if d in dims])[index]


def check(kernel, dtype, x, w, **options):
    """x is (b, m, k); w is (b, n, k), maybe a transposed view."""
    expected = wide(x) @ np.swapaxes(wide(w), 1, 2)
    dims = (*expected.shape, x.shape[2])
    operands = [over_loop_dims(x, "bmk"), over_loop_dims(w, "bnk")]
    (found,) = emulator.run(kernel, dims, operands, [(expected.shape, numpy_dtype(dtype))], **options)
    error = np.abs(wide(found) - expected).max()
    assert error <= TOLERANCE[dtype] * max(1, np.abs(expected).max()), error


ROW_VARIANTS = [
    RowVariant(),
    RowVariant(team=8, stages=4, threads=64),
    RowVariant(team=16, stages=3, weight_rows=2, threads=64),
    RowVariant(team=128, stages=2, threads=128),
    RowVariant(team=64, stages=3, weight_rows=3, threads=128),
]
COLUMN_VARIANTS = [ColumnVariant(), ColumnVariant(across=8, down=8, stages=3)]
# (m, n, k): odd ones take the path for rows off a 16-byte boundary
SHAPES = [(1, 1, 1), (1, 5, 8), (1, 13, 31), (1, 70, 96), (1, 9, 520), (1, 300, 40)]


def _kernels():
    for layout, variants in (("nk", ROW_VARIANTS), ("kn", COLUMN_VARIANTS)):
        for variant in variants:
            for dtype in ("bfloat16", "float32"):
                yield layout, variant, dtype, generate(dtype, layout, 1, variant=variant)
        for dtype in TOLERANCE:
            yield layout, variants[-1], dtype, generate(dtype, layout, 3, batched=True, variant=variants[-1])


KERNELS = list(_kernels())
BIAS = [
    ("value", 0, "bfloat16"),
    ("scalar", 0, "bfloat16"),
    ("op", "multiply", (), (0, 1), ("bfloat16",) * 2, "bfloat16"),
    ("load", 0),
    ("op", "add", (), (2, 3), ("bfloat16",) * 2, "bfloat16"),
    ("op", "astype", (), (4,), ("bfloat16",), "float32"),
]


def biased(layout, rows, batched):
    """0.5 * x @ w + c, rounded to bfloat16, also as float32; c repeated over the batch, y with padded rows."""
    return generate(
        "bfloat16",
        layout,
        rows,
        batched=batched,
        program=BIAS,
        operands=[Operand("bfloat16", (0, None, 1))],
        outputs=[Output(4, "bfloat16"), Output(5, "float32", (None, None, None))],
    )


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build([k[-1] for k in KERNELS] + [biased(*case) for case in BIASED])


BIASED = [("nk", 1, False), ("nk", 2, True), ("kn", 1, False), ("kn", 4, True)]


def weight(rng, layout, b, n, k, dtype, padding=0):
    """(b, n, k), contiguous along k or n, with `padding` elements between rows."""
    if layout == "nk":
        return normal(rng, (b, n, k + padding), dtype)[:, :, :k]
    return np.swapaxes(normal(rng, (b, k, n + padding), dtype)[:, :, :n], 1, 2)


@pytest.mark.parametrize("layout,variant,dtype,kernel", [k for k in KERNELS if "_1_" in k[-1].name], ids=str)
def test_one_row(layout, variant, dtype, kernel):
    rng = np.random.default_rng(1)
    for m, n, k in SHAPES:
        for padding in (0, 8):
            x, w = normal(rng, (1, m, k), dtype), weight(rng, layout, 1, n, k, dtype, padding)
            check(kernel, dtype, x, w, misalign=padding // 8)


@pytest.mark.parametrize("layout,variant,dtype,kernel", [k for k in KERNELS if "_3_" in k[-1].name], ids=str)
def test_rows_and_batches(layout, variant, dtype, kernel):
    """As many rows as the kernel takes at a time, fewer, and more; a weight of the whole batch; strided x."""
    rng = np.random.default_rng(2)
    for b, m, n, k in [(1, 3, 6, 48), (2, 2, 11, 64), (3, 7, 5, 17)]:
        w = weight(rng, layout, b, n, k, dtype)
        check(kernel, dtype, normal(rng, (b, m, k), dtype), w)
        check(kernel, dtype, normal(rng, (m, b, k + 16), dtype)[:, :, 3 : k + 3].swapaxes(0, 1), w)
        check(kernel, dtype, normal(rng, (b, m, k), dtype), np.broadcast_to(w[:1], w.shape))


@pytest.mark.parametrize("start", [0, 1, 8])
def test_weight_that_starts_anywhere(start):
    rng = np.random.default_rng(3)
    for layout in ("nk", "kn"):
        kernel = next(k[-1] for k in KERNELS if k[0] == layout and k[2] == "bfloat16")
        n, k = 24, 40
        if layout == "nk":
            w = normal(rng, (n * 48 + start,), "bfloat16")[start:].reshape(1, n, 48)[:, :, :k]
        else:
            w = normal(rng, (k * 32 + start,), "bfloat16")[start:].reshape(1, k, 32)[:, :, :n].swapaxes(1, 2)
        check(kernel, "bfloat16", normal(rng, (1, 1, k), "bfloat16"), w)


@pytest.mark.parametrize("layout,rows,batched", BIASED)
def test_epilogue(layout, rows, batched):
    rng = np.random.default_rng(4)
    b, m, n, k = 2 if batched else 1, 1 if rows == 1 else 5, 19, 64
    x, w = normal(rng, (b, m, k), "bfloat16"), weight(rng, layout, b, n, k, "bfloat16")
    c = normal(rng, (m, n), "bfloat16")
    expected = 0.5 * (wide(x) @ np.swapaxes(wide(w), 1, 2)) + wide(c)
    operands = [over_loop_dims(x, "bmk"), over_loop_dims(w, "bnk"), np.broadcast_to(c, (b, m, n))]
    types = [(expected.shape, numpy_dtype("bfloat16")), (expected.shape, np.dtype(np.float32))]
    narrow, same = emulator.run(biased(layout, rows, batched), (b, m, n, k), operands, types, scalars={0: 0.5})
    np.testing.assert_array_equal(narrow.astype(np.float32), same)
    assert np.abs(wide(narrow) - expected).max() <= 2**-8 * np.abs(expected).max()


def test_values_that_are_not_finite_stay_in_their_columns():
    rng = np.random.default_rng(5)
    for layout in ("nk", "kn"):
        kernel = next(k[-1] for k in KERNELS if k[0] == layout and k[2] == "float32")
        x, w = normal(rng, (1, 1, 37), "float32"), weight(rng, layout, 1, 30, 37, "float32").copy()
        w[0, 7, 30] = np.inf
        w[0, 29, 0] = np.nan
        if layout == "kn":
            w = w.swapaxes(1, 2).copy().swapaxes(1, 2)
        operands = [over_loop_dims(x, "bmk"), over_loop_dims(w, "bnk")]
        (found,) = emulator.run(kernel, (1, 1, 30, 37), operands, [((30,), np.float32)])
        assert np.flatnonzero(~np.isfinite(found)).tolist() == [7, 29]


def test_variants_fill_the_chip():
    """Every thread has work, and small weights are spread over it."""
    for n in (1, 64, 192, 576, 1536, 4096, 14336, 49152):
        for k in (1, 64, 576, 1536, 4096, 14336):
            for m in range(1, 9):
                v = choose_variant("bfloat16", "nk", m, n, k)
                assert isinstance(v, RowVariant)
                assert v.shared_bytes(m) <= 32 << 10
                generate("bfloat16", "nk", m, variant=v)
                if n >= 576 and k >= 576:
                    assert n // v.weight_rows * v.team >= 132 * 256 or v.team == 256
                generate("bfloat16", "kn", m, variant=choose_variant("bfloat16", "kn", m, n, k))


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"int32.*astype"):
        generate("int32", "nk", 1)
    with pytest.raises(ValueError, match="1 to 8 rows"):
        generate("float32", "nk", 9)
    with pytest.raises(ValueError, match="layout"):
        generate("float32", "mk", 1)
    with pytest.raises(ValueError, match="RowVariant"):
        generate("float32", "nk", 1, variant=ColumnVariant())
    with pytest.raises(ValueError, match="teams of"):
        generate("float32", "nk", 1, variant=RowVariant(team=24))
    with pytest.raises(ValueError, match="the product is float16"):
        generate("float16", "nk", 1, program=[("value", 0, "float32")])
