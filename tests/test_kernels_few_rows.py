"""Generated kernels of products of a few rows, run by g++, against NumPy."""

from __future__ import annotations

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.few_rows import DTYPES, MAX_ROWS, Variant, choose_variant, generate
from backend_cuda.kernels.target import target

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUMPY = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
TOLERANCE = {"bfloat16": 2**-8, "float16": 2**-11}  # one rounding of the result
VARIANTS = [
    Variant(),
    Variant(rows=8, tiles=4, warps=4, stages=3, blocks=1),
    Variant(rows=16, tiles=1, warps=8, stages=24, blocks=2),
    Variant(rows=8, tiles=2, warps=16, stages=2, together=1),
    Variant(rows=16, tiles=8, warps=4, stages=5, blocks=2),
]


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return rng.normal(size=shape).astype(NUMPY[dtype])


def check(found: np.ndarray, x: np.ndarray, w: np.ndarray, dtype: str) -> None:
    expected = x.astype(np.float64) @ w.astype(np.float64).T
    error = np.abs(found.astype(np.float64) - expected).max()
    assert error <= TOLERANCE[dtype] * max(1, np.abs(expected).max()), error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_products(dtype: str, variant: Variant) -> None:
    rng = np.random.default_rng(0)
    kernel = generate(dtype, variant=variant)
    for m, n, k in (
        (1, 1, 1),
        (2, 33, 40),
        (5, 100, 264),
        (variant.rows, 70, 520),
        (3, 9, 1031),
        (variant.rows - 1, 300, 64),
    ):
        for misalign in (0, 1):
            x, w = normal(rng, (m, k), dtype), normal(rng, (n, k), dtype)
            (y,) = emulator.run(kernel, (m, n, k), [x, w[None]], [((m, n), NUMPY[dtype])], misalign=misalign)
            check(y, x, w, dtype)


def test_rows_that_are_apart() -> None:
    """Of x and w, some off boundaries of 16 bytes, and of the result."""
    rng = np.random.default_rng(1)
    kernel = generate("bfloat16", variant=Variant(rows=8, tiles=1, stages=3, blocks=2))
    m, n, k = 6, 43, 136
    for first, x_step, w_step in ((0, 160, 144), (8, 151, 144), (0, 144, 141), (3, 168, 168)):
        x = normal(rng, (m, x_step), "bfloat16")[:, first : first + k]
        w = normal(rng, (n, w_step), "bfloat16")[:, -k:]
        (y,) = emulator.run(kernel, (m, n, k), [x, w[None]], [((m, n), NUMPY["bfloat16"])])
        check(y, x, w, "bfloat16")
    a, b = normal(rng, (m, k), "bfloat16"), normal(rng, (n, k), "bfloat16")
    (y,) = emulator.run(kernel, (m, n, k), [a, b[None]], [((m, n + 5), NUMPY["bfloat16"])], out_strides={0: (n + 5, 1)})
    check(y[:, :n], a, b, "bfloat16")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_is_added_before_it_is_rounded(dtype: str) -> None:
    rng = np.random.default_rng(3)
    kernel = generate(dtype, adds=True, early=False, variant=Variant(rows=8, tiles=2, stages=3, blocks=2))
    x, w, c = normal(rng, (5, 200), dtype), normal(rng, (37, 200), dtype), normal(rng, (5, 40), dtype)[:, :37]
    (y,) = emulator.run(kernel, (5, 37, 200), [x, w[None], c], [((5, 37), NUMPY[dtype])])
    expected = x.astype(np.float64) @ w.astype(np.float64).T + c.astype(np.float64)
    np.testing.assert_allclose(y.astype(np.float64), expected, rtol=TOLERANCE[dtype], atol=1e-4)


def test_what_is_not_finite_stays_in_its_row_and_column() -> None:
    rng = np.random.default_rng(2)
    x, w = normal(rng, (3, 72), "bfloat16"), normal(rng, (20, 72), "bfloat16")
    x[1, 5], w[7, 70] = np.inf, np.nan
    (y,) = emulator.run(
        generate("bfloat16", variant=VARIANTS[1]), (3, 20, 72), [x, w[None]], [((3, 20), NUMPY["bfloat16"])]
    )
    finite = np.isfinite(y.astype(np.float32))
    assert finite[[0, 2]][:, np.arange(20) != 7].all() and not finite[1].any() and not finite[:, 7].any()


@pytest.mark.parametrize("shared", [227, 99, 64])
@pytest.mark.parametrize("n, k", [(1, 1), (576, 576), (4096, 4096), (2048, 8192), (128256, 2048), (28672, 4096)])
def test_variants_fit(monkeypatch: pytest.MonkeyPatch, n: int, k: int, shared: int) -> None:
    monkeypatch.setattr(target, "shared", shared << 10)
    for m in range(1, MAX_ROWS + 1):
        variant = choose_variant(m, n, k)
        if variant is None:
            assert m > 8 and n * k > 2048 * 2048
            continue
        assert variant.rows >= m and variant.stages >= 2
        source = generate("bfloat16", variant=variant)
        assert source.launch.shared <= target.shared
        assert 0 < variant.blocks <= target.places(source.launch.shared)
    assert choose_variant(MAX_ROWS + 1, n, k) is None


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        generate("float32")
    with pytest.raises(ValueError, match="8 or 16 rows"):
        generate("bfloat16", variant=Variant(rows=12))
    with pytest.raises(ValueError, match="shared"):
        generate("bfloat16", variant=Variant(stages=9))
