"""Generated matrix-vector kernels, run by g++, against NumPy in double precision."""

from __future__ import annotations

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

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
    """A view of `a`, whose dims are named by letters of bnk, with all three of them."""
    index = tuple(slice(None) if d in dims else np.newaxis for d in "bnk")
    return np.transpose(a, [dims.index(d) for d in "bnk" if d in dims])[index]


def check(kernel, dtype, x, w, **options):
    """x is (b, k); w is (b, n, k), maybe a transposed view."""
    expected = (wide(w) @ wide(x)[:, :, None])[:, :, 0]
    dims = (*expected.shape, x.shape[1])
    operands = [over_loop_dims(x, "bk"), over_loop_dims(w, "bnk")]
    (found,) = emulator.run(kernel, dims, operands, [(expected.shape, numpy_dtype(dtype))], **options)
    error = np.abs(wide(found) - expected).max()
    assert error <= TOLERANCE[dtype] * max(1, np.abs(expected).max()), error


ROW_VARIANTS = [
    RowVariant(),
    RowVariant(team=8, stages=4, threads=64),
    RowVariant(team=16, stages=3, threads=64),
    RowVariant(team=128, stages=2, threads=128),
    RowVariant(team=64, stages=3, threads=128),
]
COLUMN_VARIANTS = [ColumnVariant(), ColumnVariant(across=8, down=8, stages=3)]
# (n, k): odd ones take the path for rows off a 16-byte boundary
SHAPES = [(1, 1), (5, 8), (13, 31), (70, 96), (9, 520), (300, 40)]


def _kernels():
    for layout, variants in (("nk", ROW_VARIANTS), ("kn", COLUMN_VARIANTS)):
        for variant in variants:
            for dtype in ("bfloat16", "float32"):
                yield layout, variant, dtype, False, generate(dtype, layout, variant=variant)
        for dtype in TOLERANCE:
            yield layout, variants[-1], dtype, True, generate(dtype, layout, batched=True, variant=variants[-1])


KERNELS = list(_kernels())


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build([k[-1] for k in KERNELS])


def weight(rng, layout, b, n, k, dtype, padding=0):
    """(b, n, k), contiguous along k or n, with `padding` elements between rows."""
    if layout == "nk":
        return normal(rng, (b, n, k + padding), dtype)[:, :, :k]
    return np.swapaxes(normal(rng, (b, k, n + padding), dtype)[:, :, :n], 1, 2)


@pytest.mark.parametrize("layout,variant,dtype,batched,kernel", [k for k in KERNELS if not k[3]], ids=str)
def test_one_product(layout, variant, dtype, batched, kernel):
    rng = np.random.default_rng(1)
    for n, k in SHAPES:
        for padding in (0, 8):
            x, w = normal(rng, (1, k), dtype), weight(rng, layout, 1, n, k, dtype, padding)
            check(kernel, dtype, x, w, misalign=padding // 8)


@pytest.mark.parametrize("layout,variant,dtype,batched,kernel", [k for k in KERNELS if k[3]], ids=str)
def test_batches(layout, variant, dtype, batched, kernel):
    """A weight of the whole batch, and strided x."""
    rng = np.random.default_rng(2)
    for b, n, k in [(1, 6, 48), (2, 11, 64), (3, 5, 17), (4, 70, 33)]:
        w = weight(rng, layout, b, n, k, dtype)
        check(kernel, dtype, normal(rng, (b, k), dtype), w)
        check(kernel, dtype, normal(rng, (b, k + 16), dtype)[:, 3 : k + 3], w)
        check(kernel, dtype, normal(rng, (b, k), dtype), np.broadcast_to(w[:1], w.shape))


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
        check(kernel, "bfloat16", normal(rng, (1, k), "bfloat16"), w)


def test_values_that_are_not_finite_stay_in_their_columns():
    rng = np.random.default_rng(5)
    for layout in ("nk", "kn"):
        kernel = next(k[-1] for k in KERNELS if k[0] == layout and k[2] == "float32")
        x, w = normal(rng, (1, 37), "float32"), weight(rng, layout, 1, 30, 37, "float32").copy()
        w[0, 7, 30] = np.inf
        w[0, 29, 0] = np.nan
        if layout == "kn":
            w = w.swapaxes(1, 2).copy().swapaxes(1, 2)
        operands = [over_loop_dims(x, "bk"), over_loop_dims(w, "bnk")]
        (found,) = emulator.run(kernel, (1, 30, 37), operands, [((30,), np.float32)])
        assert np.flatnonzero(~np.isfinite(found)).tolist() == [7, 29]


def test_variants_fill_the_chip():
    """Every thread has work, and small weights are spread over it."""
    for n in (1, 64, 192, 576, 1536, 4096, 14336, 49152):
        for k in (1, 64, 576, 1536, 4096, 14336):
            v = choose_variant("bfloat16", "nk", n, k)
            assert isinstance(v, RowVariant)
            assert v.shared_bytes <= 32 << 10
            generate("bfloat16", "nk", variant=v)
            if n >= 576 and k >= 576:
                assert n * v.team >= 132 * 256 or v.team == 256
            generate("bfloat16", "kn", variant=choose_variant("bfloat16", "kn", n, k))


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"int32.*astype"):
        generate("int32", "nk")
    with pytest.raises(ValueError, match="layout"):
        generate("float32", "mk")
    with pytest.raises(ValueError, match="RowVariant"):
        generate("float32", "nk", variant=ColumnVariant())
    with pytest.raises(ValueError, match="teams of"):
        generate("float32", "nk", variant=RowVariant(team=24))
