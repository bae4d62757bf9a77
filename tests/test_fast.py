"""Normalisation, rotary positions and attention: against their definitions in float64, and against MLX."""

from __future__ import annotations

import numpy as np
import pytest

from .differential import TOLERANCE, same_as_mlx, same_as_numpy, samples, to_module
from .module_under_test import mx

DTYPES = ("float32", "float16", "bfloat16")


def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm(dtype):
    for shape in [(8,), (3, 16), (2, 3, 33), (1, 1)]:
        x, weight = samples(dtype, shape, domain="small"), samples(dtype, shape[-1:], seed=1, domain="small")
        for eps in (1e-5, 0.1):
            wide = _wide(x)
            expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + eps)
            case = (dtype, shape, eps)
            tolerance = 2 * TOLERANCE[dtype]
            result = mx.fast.rms_norm(to_module(mx, x), to_module(mx, weight), eps)
            same_as_numpy(result, expected * _wide(weight), case=case, tolerance=tolerance)
            same_as_numpy(mx.fast.rms_norm(to_module(mx, x), None, eps), expected, case=case, tolerance=tolerance)
            same_as_mlx(lambda m, x, w, e=eps: m.fast.rms_norm(x, w, e), x, weight, case=case, tolerance=tolerance)
    same_as_mlx(
        lambda m, x, w: m.fast.rms_norm(x, w.astype(m.float32), 1e-5),
        samples(dtype, (2, 8), domain="small"),
        samples(dtype, (8,), domain="small"),
        case="promotion",
        tolerance=2 * TOLERANCE[dtype],
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm(dtype):
    for shape in [(8,), (3, 16), (2, 3, 33)]:
        x = samples(dtype, shape, domain="small")
        weight, bias = (samples(dtype, shape[-1:], seed=k, domain="small") for k in (1, 2))
        wide = _wide(x)
        plain = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
        for w, b in [(weight, bias), (weight, None), (None, bias), (None, None)]:
            expected = plain * (1 if w is None else _wide(w)) + (0 if b is None else _wide(b))
            arguments = [None if v is None else to_module(mx, v) for v in (x, w, b)]
            case = (dtype, shape, w is None, b is None)
            tolerance = 3 * TOLERANCE[dtype]
            same_as_numpy(mx.fast.layer_norm(*arguments, 1e-5), expected, case=case, tolerance=tolerance, scale=3)
            same_as_mlx(lambda m, *a: m.fast.layer_norm(*a, 1e-5), x, w, b, case=case, tolerance=tolerance, scale=3)


def _rope(x, dims, traditional, base, scale, offset, freqs=None):
    """x: (B, H, T, D), float64; offset: (B,)."""
    half = dims // 2
    rates = 1 / freqs if freqs is not None else base ** (-np.arange(half) / half)
    positions = (np.asarray(offset).reshape(-1, 1) + np.arange(x.shape[-2])) * scale
    angles = (positions[..., None] * rates)[:, None]
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = (x[..., :dims:2], x[..., 1:dims:2]) if traditional else (x[..., :half], x[..., half:dims])
    turned = first * cos - second * sin, first * sin + second * cos
    out = x.copy()
    if traditional:
        out[..., :dims:2], out[..., 1:dims:2] = turned
    else:
        out[..., :half], out[..., half:dims] = turned
    return out


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rope(dtype, traditional):
    x = samples(dtype, (2, 3, 5, 16), domain="small")
    for dims, base, scale, offset in [(16, 10000.0, 1.0, 0), (8, 10000.0, 1.0, 7), (16, 500.0, 0.5, 100)]:
        options = {"traditional": traditional, "base": base, "scale": scale, "offset": offset}
        case = (dtype, dims, options)
        # Angles of up to 100 in float32 lose two digits of their sine.
        tolerance = max(TOLERANCE[dtype], 5e-5)
        expected = _rope(_wide(x), dims, traditional, base, scale, offset)
        same_as_numpy(
            mx.fast.rope(to_module(mx, x), dims, **options), expected, case=case, tolerance=tolerance, scale=5
        )
        same_as_mlx(lambda m, x, o=options, d=dims: m.fast.rope(x, d, **o), x, case=case, tolerance=tolerance, scale=5)
        same_as_mlx(
            lambda m, x, n, o=options, d=dims: m.fast.rope(x, d, **{**o, "offset": n}),
            x,
            np.array([3, 9], np.int32),
            case=(case, "an offset a sequence"),
            tolerance=tolerance,
            scale=5,
        )
    freqs = samples("float32", (8,), domain="above_one")
    same_as_mlx(
        lambda m, x, f: m.fast.rope(x, 16, traditional=traditional, base=None, scale=1.0, offset=2, freqs=f),
        x,
        freqs,
        case=(dtype, "freqs"),
        tolerance=max(TOLERANCE[dtype], 5e-5),
        scale=5,
    )


def test_rope_of_other_ranks_and_layouts():
    def call(m, x):
        return m.fast.rope(x, 8, traditional=False, base=1e4, scale=1.0, offset=3)

    same_as_mlx(call, samples("float32", (5, 8), domain="small"), case="2-d", tolerance=5e-5)
    same_as_mlx(call, samples("float32", (3, 5, 8), domain="small"), case="3-d", tolerance=5e-5)
    x = samples("float32", (2, 5, 3, 8), domain="small")
    same_as_mlx(lambda m, x: call(m, x.transpose(0, 2, 1, 3)), x, case="heads last", tolerance=5e-5)


def _attention(q, k, v, scale, mask=None, sinks=None):
    """In float64; a boolean mask keeps, another is added; k and v are repeated for their queries."""
    repeats = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeats, axis=1), np.repeat(v, repeats, axis=1)
    scores = (q * scale) @ k.swapaxes(-1, -2)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if sinks is not None:
        sink = np.broadcast_to(sinks.reshape(1, -1, 1, 1), (*scores.shape[:-1], 1))
        scores = np.concatenate([sink, scores], axis=-1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights[..., 1:] if sinks is not None else weights) @ v


def _causal(queries: int, keys: int) -> np.ndarray:
    return np.arange(keys) <= np.arange(queries)[:, None] + keys - queries


ATTENTIONS = [
    # batch, query heads, key heads, queries, keys, dim of q and k, dim of v
    (1, 1, 1, 1, 1, 8, 8),
    (2, 4, 4, 6, 6, 16, 16),
    (1, 4, 2, 1, 9, 64, 64),
    (2, 8, 1, 3, 7, 32, 32),
    (1, 2, 2, 5, 8, 24, 16),
    (1, 3, 3, 33, 65, 80, 80),
]


@pytest.mark.parametrize("sizes", ATTENTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype, sizes):
    batch, heads, key_heads, queries, keys, dim, value_dim = sizes
    q = samples(dtype, (batch, heads, queries, dim), seed=1, domain="small")
    k = samples(dtype, (batch, key_heads, keys, dim), seed=2, domain="small")
    v = samples(dtype, (batch, key_heads, keys, value_dim), seed=3, domain="small")
    scale = dim**-0.5
    additive = samples(dtype, (queries, keys), seed=4, domain="small")
    boolean = samples("bool", (batch, 1, queries, keys), seed=5) | (np.arange(keys) == 0)
    sinks = samples(dtype, (heads,), seed=6, domain="small")
    arrays = [to_module(mx, x) for x in (q, k, v)]
    wide = [_wide(x) for x in (q, k, v)]
    # A weight is rounded to the dtype before it meets the values, and the sum once more.
    tolerance = {"float32": 5e-5, "float16": 6e-3, "bfloat16": 5e-2}[dtype]
    masks = {
        "none": (None, None),
        "causal": ("causal", _causal(queries, keys)),
        "additive": (additive, _wide(additive)),
        "boolean": (boolean, boolean),
    }
    for name, (mask, meaning) in masks.items():
        for sink in (None, sinks):
            case = (dtype, sizes, name, sink is not None)
            ours = to_module(mx, mask) if isinstance(mask, np.ndarray) else mask
            result = mx.fast.scaled_dot_product_attention(
                *arrays, scale=scale, mask=ours, sinks=None if sink is None else to_module(mx, sink)
            )
            expected = _attention(*wide, scale, meaning, None if sink is None else _wide(sink))
            same_as_numpy(result, expected, case=case, tolerance=tolerance, scale=3)
            same_as_mlx(
                lambda m, q, k, v, mask, sink: m.fast.scaled_dot_product_attention(
                    q, k, v, scale=scale, mask=mask, sinks=sink
                ),
                q,
                k,
                v,
                mask,
                sink,
                case=case,
                tolerance=tolerance,
                scale=3,
            )


def test_attention_of_transposed_heads():
    q, k, v = (samples("float32", (2, n, 4, 16), seed=n, domain="small") for n in (5, 7, 9))
    v = v[:, :7]

    def call(m, q, k, v):
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        return m.fast.scaled_dot_product_attention(q, k, v, scale=0.25, mask="causal")

    same_as_mlx(call, q, k, v, tolerance=5e-5, scale=3)


WRONG = {
    "rms_norm with a weight of another size": lambda m, x: m.fast.rms_norm(x, m.ones((3,)), 1e-5),
    "rms_norm of integers": lambda m, x: m.fast.rms_norm(x.astype(m.int32), None, 1e-5),
    "rms_norm of a scalar": lambda m, x: m.fast.rms_norm(m.array(1.0), None, 1e-5),
    "layer_norm with a matrix": lambda m, x: m.fast.layer_norm(x, m.ones((2, 8)), None, 1e-5),
    "rope with base and freqs": lambda m, x: m.fast.rope(
        x, 8, traditional=False, base=1e4, scale=1.0, offset=0, freqs=m.ones((4,))
    ),
    "rope with neither": lambda m, x: m.fast.rope(x, 8, traditional=False, base=None, scale=1.0, offset=0),
    "rope of one dim": lambda m, x: m.fast.rope(m.ones((8,)), 8, traditional=False, base=1e4, scale=1.0, offset=0),
    "attention of three dims": lambda m, x: m.fast.scaled_dot_product_attention(x, x, x, scale=1.0),
    "attention with heads that do not divide": lambda m, x: m.fast.scaled_dot_product_attention(
        m.ones((1, 3, 2, 8)), m.ones((1, 2, 2, 8)), m.ones((1, 2, 2, 8)), scale=1.0
    ),
    "attention with other dims": lambda m, x: m.fast.scaled_dot_product_attention(
        m.ones((1, 2, 2, 8)), m.ones((1, 2, 2, 4)), m.ones((1, 2, 2, 4)), scale=1.0
    ),
    "attention with an unknown mask": lambda m, x: m.fast.scaled_dot_product_attention(
        m.ones((1, 2, 2, 8)), m.ones((1, 2, 2, 8)), m.ones((1, 2, 2, 8)), scale=1.0, mask="window"
    ),
    "attention with a mask of another shape": lambda m, x: m.fast.scaled_dot_product_attention(
        m.ones((1, 2, 2, 8)), m.ones((1, 2, 2, 8)), m.ones((1, 2, 2, 8)), scale=1.0, mask=m.ones((3, 3))
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    x = samples("float32", (2, 4, 8), domain="small")
    with pytest.raises((ValueError, TypeError)):
        mx.eval(WRONG[name](mx, to_module(mx, x)))
    same_as_mlx(WRONG[name], x, case=name)
