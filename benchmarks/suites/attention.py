"""Scaled dot product attention: prompts, decoding, and a chain of layers of one shape.

Model: 4 B H Tq Tk D operations (half of them if causal) for prompts; the bytes of k and v for one query.
"""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.timing import median_us

PEERS = ("mlxlite", "mlx", "torch", "jax")
# batch, heads, heads of k and v, queries, keys, head size, causal
CASES = (
    (1, 32, 8, 2048, 2048, 128, True),
    (1, 32, 8, 4096, 4096, 128, True),
    (8, 16, 16, 1024, 1024, 64, False),
    (1, 32, 8, 1, 4096, 128, False),
    (1, 9, 3, 1, 2048, 64, False),
)
LAYERS = 32


def measure(peer: str) -> dict[str, tuple[float, str]]:
    """Times of a peer; per layer in a chain of 32, which leaves launch costs out."""
    if peer in ("torch", "jax"):
        return {"torch": _torch, "jax": _jax}[peer]()
    return _arrays(importlib.import_module(f"{peer}.core"))


def _name(case: tuple[Any, ...]) -> str:
    batch, heads, kv, queries, keys, size, causal = case
    return f"{batch}x{heads}/{kv} heads, {queries} x {keys}, d {size}{', causal' if causal else ''}, bfloat16"


def _arrays(mx: Any) -> dict[str, tuple[float, str]]:
    out = {}
    for case in CASES:
        batch, heads, kv, queries, keys, size, causal = case
        q = mx.random.normal((batch, heads, queries, size)).astype(mx.bfloat16)
        k, v = (mx.random.normal((batch, kv, keys, size)).astype(mx.bfloat16) for _ in range(2))
        mx.eval(q, k, v)
        mask = "causal" if causal else None

        def layers(q: Any = q, k: Any = k, v: Any = v, mask: Any = mask, scale: float = size**-0.5) -> None:
            x = q
            for _ in range(LAYERS):
                x = mx.fast.scaled_dot_product_attention(x, k, v, scale=scale, mask=mask)
            mx.eval(x)

        out[_name(case)] = (median_us(layers) / LAYERS, "us")
    return out


def _torch() -> dict[str, tuple[float, str]]:
    import torch

    attention = torch.nn.functional.scaled_dot_product_attention
    out = {}
    for case in CASES:
        batch, heads, kv, queries, keys, size, causal = case
        q = torch.randn(batch, heads, queries, size, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(batch, kv, keys, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))

        def layers(q: Any = q, k: Any = k, v: Any = v, causal: bool = causal) -> None:
            x = q
            for _ in range(LAYERS):
                x = attention(x, k, v, is_causal=causal, enable_gqa=True)
            torch.cuda.synchronize()

        out[_name(case)] = (median_us(layers) / LAYERS, "us")
    return out


def _jax() -> dict[str, tuple[float, str]]:
    """By cuDNN for prompts, where there is a GPU; JAX has heads after positions."""
    from benchmarks.peers import jax_module

    jax = jax_module()
    on_gpu = jax.default_backend() == "gpu"
    keys_of = iter(jax.random.split(jax.random.key(0), 3 * len(CASES)))
    out = {}
    for case in CASES:
        batch, heads, kv, queries, keys, size, causal = case
        shapes = ((batch, queries, heads, size), *((batch, keys, kv, size),) * 2)
        q, k, v = (jax.random.normal(next(keys_of), shape, jax.numpy.bfloat16) for shape in shapes)
        way = "cudnn" if on_gpu and queries > 1 else "xla"

        @jax.jit
        def layers(q: Any, k: Any, v: Any, causal: bool = causal, way: str = way) -> Any:
            for _ in range(LAYERS):
                q = jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation=way)
            return q

        def call(q: Any = q, k: Any = k, v: Any = v, layers: Any = layers) -> None:
            layers(q, k, v).block_until_ready()

        out[_name(case)] = (median_us(call) / LAYERS, "us")
    return out
