"""The generated kernels for attention's gradient, run by g++, against NumPy in double precision."""

from __future__ import annotations

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.attention_vjp import DTYPES, generate_dkv, generate_dq, generate_lse

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

# One rounding of results up to 4, and float's of the sums.
TOLERANCE = {"bfloat16": 2**-6, "float16": 2**-9, "float32": 2e-5}


def numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def probabilities(q, k, scale, mask):
    """The softmax, (B, H, Tq, Tk), and the logarithms of its sums, in double."""
    scores = q @ np.swapaxes(k, 2, 3) * scale
    n_queries, n_keys = scores.shape[2:]
    if isinstance(mask, str):
        seen = np.arange(n_keys) <= np.arange(n_queries)[:, None] + n_keys - n_queries
        scores = np.where(seen, scores, -np.inf)
    elif mask is not None:
        scores = scores + mask.astype(np.float64)
    lse = np.log(np.exp(scores).sum(-1))
    return np.exp(scores - lse[..., None]), lse


def gradient(q, k, v, c, scale, mask):
    """lse, delta, dq, dk, dv and the result, in double, by the definition of the derivative of a softmax."""
    q, k, v, c = (a.astype(np.float64) for a in (q, k, v, c))
    kv_heads, group = k.shape[1], q.shape[1] // k.shape[1]
    wide_k, wide_v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    p, lse = probabilities(q, wide_k, scale, mask)
    dp = c @ np.swapaxes(wide_v, 2, 3)
    delta = (dp * p).sum(-1)
    ds = p * (dp - delta[..., None]) * scale

    def of_group(a):
        return a.reshape(a.shape[0], kv_heads, group, *a.shape[2:]).sum(2)

    dk, dv = (of_group(np.swapaxes(a, 2, 3) @ b) for a, b in ((ds, q), (p, c)))
    return lse, delta, ds @ wide_k, dk, dv, p @ wide_v


@pytest.mark.parametrize("mask_kind", ["none", "causal", "additive"])
@pytest.mark.parametrize(
    ("dtype", "b", "h", "kv", "n_queries", "n_keys", "d", "dv"),
    [("bfloat16", 2, 4, 2, 5, 70, 64, 64), ("float16", 1, 3, 3, 33, 33, 33, 7), ("float32", 2, 2, 1, 3, 4, 16, 80)],
)
def test_gradient(dtype, b, h, kv, n_queries, n_keys, d, dv, mask_kind):
    rng = np.random.default_rng(3)
    kind = numpy_dtype(dtype)

    def array(*shape):
        return rng.normal(size=shape).astype(kind)

    q = np.swapaxes(array(b, n_queries, h, d), 1, 2)
    k, v = array(b, kv, n_keys + 3, d)[:, :, :n_keys], array(b, kv, n_keys, dv)
    c = array(b, h, n_queries, dv)
    scale, group = d**-0.5, h // kv
    mask = {"none": None, "causal": "causal"}.get(mask_kind)
    more = []
    if mask_kind == "additive":
        some = np.where(rng.random((h, 1, n_keys)) < 0.2, -np.inf, rng.normal(size=(h, 1, n_keys)))
        some[:, :, 0] = 0
        mask = np.broadcast_to(some.astype(kind), (b, h, n_queries, n_keys))
        more = [mask]
    lse, delta, *expected, out = gradient(q, k, v, c, scale, mask)
    dims = (b, h, n_queries, n_keys)
    by_key = [a[:, :, np.newaxis] for a in (k, v)]

    def run(kernel, operands, types):
        return emulator.run(kernel, dims, [*operands, *more], types, scalars={0: scale})

    single = np.dtype(np.float32)
    (found_lse,) = run(generate_lse(dtype, d, group, mask_kind), [q, by_key[0]], [(lse.shape, single)])
    np.testing.assert_allclose(found_lse, lse, rtol=2e-6, atol=2e-6)
    out, sums = out.astype(kind), lse.astype(single)
    found_dq, found_delta = run(
        generate_dq(dtype, d, dv, group, mask_kind),
        [q, *by_key, out, c, sums],
        [(q.shape, kind), (delta.shape, single)],
    )
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(found_delta, delta, atol=4 * tolerance)
    found_dk, found_dv = run(
        generate_dkv(dtype, d, dv, group, mask_kind),
        [q, *by_key, c, sums, delta.astype(single)],
        [((b, kv, 1, n_keys, d), kind), ((b, kv, 1, n_keys, dv), kind)],
    )
    for found, wanted in zip((found_dq, found_dk[:, :, 0], found_dv[:, :, 0]), expected, strict=True):
        assert np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=tolerance, atol=tolerance)


def test_what_has_no_kernel():
    with pytest.raises(TypeError, match=r"no CUDA kernel for the gradient in float64"):
        generate_dq("float64", 64, 64, 1, "none")
    with pytest.raises(ValueError, match="a mask is one of"):
        generate_lse(DTYPES[0], 64, 1, "bool")
    with pytest.raises(ValueError, match="heads have 1 to 512 features"):
        generate_dkv(DTYPES[0], 64, 513, 1, "none")
