"""The generated kernels for gradients of normalisations, run by g++, against NumPy in double precision."""

from __future__ import annotations

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.kernel import evaluate_size
from backend_cuda.kernels.normalize_vjp import blocks_of, generate, generate_column_sums

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

# One rounding of results up to 4, and float's of the sums.
TOLERANCE = {"bfloat16": 2**-6, "float16": 2**-9, "float32": 2e-5}
EPS = 1e-3


def numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def gradients(name, x, w, c):
    """dx, dw and the normalised rows, in double."""
    x, c = x.astype(np.float64), c.astype(np.float64)
    g = c if w is None else c * w.astype(np.float64)
    if name == "layer_norm":
        x = x - x.mean(-1, keepdims=True)
    inverse = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
    n = x * inverse
    shift = g.mean(-1, keepdims=True) if name == "layer_norm" else 0
    return inverse * (g - shift - n * (g * n).mean(-1, keepdims=True)), (c * n).sum(0)


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
@pytest.mark.parametrize(
    ("dtype", "rows", "features", "wanted"),
    [
        ("bfloat16", 19, 64, "xw"),
        ("float16", 3, 33, "x"),
        ("float32", 40, 130, "w"),
        ("float32", 5, 1100, "xw"),
        ("bfloat16", 2, 4100, "xw"),
        ("float32", 4, 10, "no weight"),
        ("bfloat16", 300, 1040, "xw"),  # more rows than blocks
        ("bfloat16", 19, 768, "xw and a sum"),
        ("float32", 3, 33, "x and a sum"),
    ],
)
def test_gradients(name, dtype, rows, features, wanted):
    rng = np.random.default_rng(4)
    kind = numpy_dtype(dtype)
    x, c = (
        rng.normal(size=(rows, features + 3)).astype(kind)[:, :features],
        rng.normal(size=(rows, features)).astype(kind),
    )
    w = None if wanted == "no weight" else rng.normal(size=features).astype(kind)
    dx, dw = gradients(name, x, w, c)
    of_x, of_weight, adds = wanted != "w", wanted[:2] in ("xw", "w"), wanted.endswith("a sum")
    addend = rng.normal(size=(rows, features + 1)).astype(kind)[:, :features]
    parts = {"of_x": of_x, "of_weight": of_weight, "adds": adds}
    kernel = generate(name, dtype, features, EPS, has_weight=w is not None, **parts)
    blocks = evaluate_size(blocks_of("d0", features), {"d0": rows})
    types = [(dx.shape, kind)] * of_x + [((blocks, features), np.dtype(np.float32))] * of_weight
    operands = [x, *([w] if w is not None and of_x else []), c]
    if adds:
        operands.append(addend)
        dx = dx + addend.astype(np.float64)
    found = emulator.run(kernel, (rows, features), operands, types)
    tolerance = TOLERANCE[dtype]
    if of_x:
        np.testing.assert_allclose(found[0].astype(np.float64), dx, rtol=tolerance, atol=tolerance)
    if of_weight:
        assert blocks > 1
        np.testing.assert_allclose(found[-1].astype(np.float64).sum(0), dw, rtol=1e-4, atol=1e-4)
        (total,) = emulator.run(generate_column_sums(dtype), (blocks, features), [found[-1]], [(dw.shape, kind)])
        np.testing.assert_allclose(total.astype(np.float64), dw, rtol=tolerance, atol=tolerance)


def test_what_has_no_kernel():
    with pytest.raises(TypeError, match="no CUDA kernel for the gradient in float64"):
        generate("rms_norm", "float64", 8, EPS, has_weight=True, of_x=True, of_weight=True)
    with pytest.raises(ValueError, match="no gradient of rows of 8193 features"):
        generate("rms_norm", "float32", 8193, EPS, has_weight=True, of_x=True, of_weight=True)
