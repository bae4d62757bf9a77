"""The gradient of attention in 16-bit floats, a primitive of its own, against that in float32, made of products."""

from __future__ import annotations

import numpy as np
import pytest

from tests.differential import to_numpy
from tests.module_under_test import mx

CASES = {
    "self": dict(heads=4, kv=4, queries=7, keys=7, features=16, values=16),
    "grouped": dict(heads=6, kv=2, queries=9, keys=9, features=32, values=32),
    "causal": dict(heads=2, kv=1, queries=8, keys=8, features=64, values=64, mask="causal"),
    "causal, more keys": dict(heads=2, kv=2, queries=3, keys=11, features=16, values=16, mask="causal"),
    "other lengths and features": dict(heads=3, kv=3, queries=5, keys=6, features=16, values=24),
    "additive mask": dict(heads=4, kv=2, queries=6, keys=6, features=16, values=16, mask="additive"),
    "one query": dict(heads=4, kv=2, queries=1, keys=6, features=16, values=16),
    "bool mask": dict(heads=4, kv=2, queries=6, keys=6, features=16, values=16, mask="bool"),
    "fewer keys": dict(heads=2, kv=2, queries=6, keys=4, features=16, values=16, mask="causal"),
}


def arrays_of(heads, kv, queries, keys, features, values, mask=None, batch=2):
    """q, k, v, a cotangent and the mask, as float32 that bfloat16 can hold."""
    rng = np.random.default_rng(5)
    shapes = [(batch, heads, queries, features), (batch, kv, keys, features), (batch, kv, keys, values)]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in (*shapes, (batch, heads, queries, values))]
    # By products of bits, so that both dtypes start from equal numbers.
    arrays = [mx.array((a.view(np.uint32) & 0xFFFF0000).view(np.float32)) for a in arrays]
    if mask == "additive":
        numbers = np.round(rng.normal(size=(heads, 1, keys)), 1) + np.where(np.arange(keys) == 2, -np.inf, 0)
        return arrays, mx.array(numbers.astype(np.float32)).astype(mx.bfloat16)
    if mask == "bool":
        return arrays, mx.array(rng.random((queries, keys)) < 0.6)
    return arrays, mask


def attention_of(mask):
    def attention(q, k, v):
        chosen = mask.astype(q.dtype) if isinstance(mask, mx.array) and mask.dtype != mx.bool_ else mask
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=chosen)

    return attention


def assert_near(found, expected, dtype):
    scale = max(1.0, float(np.abs(to_numpy(expected)).max()))
    assert found.shape == expected.shape and found.dtype == dtype
    tolerance = scale * (4e-3 if dtype == mx.float16 else 3e-2)
    np.testing.assert_allclose(to_numpy(found.astype(mx.float32)), to_numpy(expected), atol=tolerance)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_gradient(name, dtype):
    (q, k, v, c), mask = arrays_of(**CASES[name])
    short = getattr(mx, dtype)
    attention = attention_of(mask)
    _, expected = mx.vjp(attention, [q, k, v], [c])
    outputs, found = mx.vjp(attention, [a.astype(short) for a in (q, k, v)], [c.astype(short)])
    mx.eval(outputs, found)
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b, short)


@pytest.mark.mlxlite_only  # MLX does not evaluate inside a transform
@pytest.mark.parametrize("name", ["grouped", "causal", "other lengths and features"])
def test_forward_then_backward_in_two_evaluations(name):
    """The result is in memory by then; the softmax's sums are computed from the queries and keys."""
    (q, k, v, c), mask = arrays_of(**CASES[name])
    attention = attention_of(mask)
    _, expected = mx.vjp(attention, [q, k, v], [c])
    given = [a.astype(mx.bfloat16) for a in (q, k, v)]

    def evaluated(*inputs):
        out = attention(*inputs)
        mx.async_eval(out)
        return out

    _, found = mx.vjp(evaluated, given, [c.astype(mx.bfloat16)])
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b, mx.bfloat16)


@pytest.mark.parametrize("name", ["self", "causal", "other lengths and features", "additive mask"])
def test_second_derivatives(name):
    (q, k, v, c), mask = arrays_of(**CASES[name])
    attention = attention_of(mask)

    def penalty(dtype):
        def of(*inputs):
            _, found = mx.vjp(attention, list(inputs), [c.astype(dtype)])
            return sum((a.astype(mx.float32) ** 2).sum() for a in found)

        return of

    expected = mx.grad(penalty(mx.float32), argnums=(0, 1, 2))(q, k, v)
    short = [a.astype(mx.bfloat16) for a in (q, k, v)]
    found = mx.grad(penalty(mx.bfloat16), argnums=(0, 1, 2))(*short)
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b, mx.bfloat16)


@pytest.mark.parametrize("name", ["grouped", "causal"])
def test_tangents_of_gradients(name):
    (q, k, v, c), mask = arrays_of(**CASES[name])
    attention = attention_of(mask)

    def gradients(*inputs):
        return mx.vjp(attention, list(inputs), [c.astype(inputs[0].dtype)])[1]

    expected = mx.jvp(gradients, [q, k, v], [v[:, :1] * 0 + q if q.shape == v.shape else q, k * 0.5, v])[1]
    short = [a.astype(mx.bfloat16) for a in (q, k, v)]
    moving = [a.astype(mx.bfloat16) for a in (v[:, :1] * 0 + q if q.shape == v.shape else q, k * 0.5, v)]
    for a, b in zip(mx.jvp(gradients, short, moving)[1], expected, strict=True):
        assert_near(a, b, mx.bfloat16)


@pytest.mark.parametrize("name", ["grouped", "causal, more keys", "other lengths and features", "additive mask"])
def test_mapped_gradients(name):
    """vmap of the gradient: each element's is that of the element."""
    (q, k, v, c), mask = arrays_of(**CASES[name], batch=3)
    short = [a.astype(mx.bfloat16)[:, None] for a in (q, k, v, c)]
    attention = attention_of(mask)

    def gradients(q, k, v, c):
        return mx.vjp(attention, [q, k, v], [c])[1]

    found = mx.vmap(gradients)(*short)
    for i in range(3):
        expected = gradients(*[a[i] for a in short])
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(to_numpy(a[i].astype(mx.float32)), to_numpy(b.astype(mx.float32)), atol=2e-2)
    shared = mx.vmap(gradients, in_axes=(0, None, None, 0))(short[0], short[1][0], short[2][0], short[3])
    for a, b in zip(shared, gradients(short[0][2], short[1][0], short[2][0], short[3][2]), strict=True):
        np.testing.assert_allclose(to_numpy(a[2].astype(mx.float32)), to_numpy(b.astype(mx.float32)), atol=2e-2)


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("mask", [None, "causal"])
def test_sums_of_the_softmax(mask):
    """The logarithms of the sums that the gradient is given, and their own derivatives."""
    from mlxlite.core import fast

    (q, k, _, _), _ = arrays_of(**CASES["grouped"])
    scale, group = 0.25, q.shape[1] // k.shape[1]
    seen = mx.tri(q.shape[2], k.shape[2], k=k.shape[2] - q.shape[2]).astype(mx.bool_) if mask else mx.array(True)

    def expected(q, k):
        scores = q @ mx.repeat(k, group, axis=1).swapaxes(2, 3) * scale
        return mx.logsumexp(mx.where(seen, scores, -mx.inf), axis=-1, keepdims=True)

    def found(q, k):
        static = ("causal" if mask else "none", False, q.shape[3], q.shape[3], group)
        return fast._sdpa_lse.record((q, q, k), (*q.shape[:3], 1), mx.float32, static, floats=(scale,))

    short = [a.astype(mx.bfloat16) for a in (q, k)]
    np.testing.assert_allclose(to_numpy(found(*short)), to_numpy(expected(q, k)), rtol=1e-5, atol=1e-5)
    c = mx.random.normal((*q.shape[:3], 1), key=mx.random.key(1))
    for a, b in zip(mx.vjp(found, short, [c])[1], mx.vjp(expected, [q, k], [c])[1], strict=True):
        assert_near(a, b, mx.bfloat16)


def test_sizes_change():
    """One plan serves all lengths."""
    for length in (4, 6, 9):
        case = dict(CASES["grouped"], queries=length, keys=length)
        (q, k, v, c), _ = arrays_of(**case)
        attention = attention_of("causal")
        _, expected = mx.vjp(attention, [q, k, v], [c])
        _, found = mx.vjp(attention, [a.astype(mx.float16) for a in (q, k, v)], [c.astype(mx.float16)])
        for a, b in zip(found, expected, strict=True):
            assert_near(a, b, mx.float16)
