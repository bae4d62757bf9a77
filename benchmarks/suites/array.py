"""Array programs that move memory: fused elementwise, reductions, softmax; and a large product.

Model: bytes moved over the bandwidth of a copy measured in the same run, which `fraction of copy` reports.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

from benchmarks.timing import median_us

PEERS = ("mlxlite", "mlx", "torch", "jax")
N = 1 << 24


def measure(peer: str) -> dict[str, tuple[float, str]]:
    """Times of a peer."""
    if peer in ("torch", "jax"):
        return {"torch": _torch, "jax": _jax}[peer]()
    return _arrays(importlib.import_module(f"{peer}.core"))


def _black_scholes(m: Any, s: Any, k: Any, t: Any, rate: float = 0.02, volatility: float = 0.3) -> tuple[Any, Any]:
    d1 = (m.log(s / k) + (rate + 0.5 * volatility * volatility) * t) / (volatility * m.sqrt(t))
    d2 = d1 - volatility * m.sqrt(t)

    def cdf(x: Any) -> Any:
        return 0.5 * (1 + m.erf(x / math.sqrt(2)))

    discounted = k * m.exp(-rate * t)
    call = s * cdf(d1) - discounted * cdf(d2)
    return call, call - s + discounted


def _arrays(mx: Any) -> dict[str, tuple[float, str]]:
    s, k = (mx.random.uniform(10, 50, (N,)) for _ in range(2))
    t = mx.random.uniform(0.1, 2, (N,))
    mx.eval(s, k, t)
    out = {}

    def plain() -> None:
        mx.eval(*_black_scholes(mx, s, k, t))

    out["Black-Scholes 16M, plain"] = (median_us(plain) / 1e3, "ms")
    if hasattr(mx, "compile"):
        compiled = mx.compile(lambda s, k, t: _black_scholes(mx, s, k, t))
        out["Black-Scholes 16M, compiled"] = (median_us(lambda: mx.eval(*compiled(s, k, t))) / 1e3, "ms")
    x = mx.random.normal((8192, 8192))
    mx.eval(x)
    copy = median_us(lambda: mx.eval(x + 1))
    out["copy bandwidth (x + 1, 8192^2 float32)"] = (2 * 4 * 8192**2 / copy / 1e6, "TB/s")
    for axis in (0, 1, None):
        out[f"sum 8192^2 float32, axis {axis}"] = (median_us(lambda a=axis: mx.eval(x.sum(axis=a))) / 1e3, "ms")
    out["softmax 8192^2 float32"] = (median_us(lambda: mx.eval(mx.softmax(x, axis=-1))) / 1e3, "ms")
    out["transpose 8192^2 float32"] = (median_us(lambda: mx.eval(mx.contiguous(x.T))) / 1e3, "ms")
    a, b = (mx.random.normal((8192, 8192)).astype(mx.bfloat16) for _ in range(2))
    mx.eval(a, b)
    out["matmul 8192^3 bfloat16"] = (2 * 8192**3 / median_us(lambda: mx.eval(a @ b)) / 1e6, "TFLOP/s")
    for n, d in ((14336, 4096), (8192, 2048), (1536, 576)):
        weights = [mx.random.normal((n, d)).astype(mx.bfloat16) for _ in range(16)]
        v = mx.random.normal((1, d)).astype(mx.bfloat16)
        mx.eval(weights, v)
        time = median_us(lambda w=weights, v=v: mx.eval([v @ m.T for m in w])) / len(weights)
        out[f"vector @ matrix {n}x{d} bfloat16, 16 at a time"] = (2 * n * d / time / 1e6, "TB/s")
    return out


def _torch() -> dict[str, tuple[float, str]]:
    import torch

    wait = torch.cuda.synchronize
    s, k = (torch.rand(N, device="cuda") * 40 + 10 for _ in range(2))
    t = torch.rand(N, device="cuda") * 1.9 + 0.1

    def timed(function: Any, *arguments: Any) -> float:
        def call() -> None:
            function(*arguments)
            wait()

        return median_us(call)

    def pricing(s: Any, k: Any, t: Any) -> tuple[Any, Any]:
        return _black_scholes(torch, s, k, t)

    out = {"Black-Scholes 16M, plain": (timed(pricing, s, k, t) / 1e3, "ms")}
    compiled = torch.compile(pricing)
    compiled(s, k, t)
    out["Black-Scholes 16M, compiled"] = (timed(compiled, s, k, t) / 1e3, "ms")
    x = torch.randn(8192, 8192, device="cuda")
    out["copy bandwidth (x + 1, 8192^2 float32)"] = (2 * 4 * 8192**2 / timed(lambda: x + 1) / 1e6, "TB/s")
    for axis in (0, 1, None):
        out[f"sum 8192^2 float32, axis {axis}"] = (timed(lambda a=axis: x.sum(dim=a)) / 1e3, "ms")
    out["softmax 8192^2 float32"] = (timed(lambda: torch.softmax(x, -1)) / 1e3, "ms")
    out["transpose 8192^2 float32"] = (timed(lambda: x.T.contiguous()) / 1e3, "ms")
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out["matmul 8192^3 bfloat16"] = (2 * 8192**3 / timed(lambda: a @ b) / 1e6, "TFLOP/s")
    for n, d in ((14336, 4096), (8192, 2048), (1536, 576)):
        weights = [torch.randn(n, d, device="cuda", dtype=torch.bfloat16) for _ in range(16)]
        v = torch.randn(1, d, device="cuda", dtype=torch.bfloat16)
        time = timed(lambda w=weights, v=v: [v @ m.T for m in w]) / len(weights)
        out[f"vector @ matrix {n}x{d} bfloat16, 16 at a time"] = (2 * n * d / time / 1e6, "TB/s")
    return out


def _jax() -> dict[str, tuple[float, str]]:
    from benchmarks.peers import jax_module

    jax = jax_module()
    jnp = jax.numpy
    keys = iter(jax.random.split(jax.random.key(0), 128))

    def timed(function: Any, *arguments: Any) -> float:
        return median_us(lambda: jax.block_until_ready(function(*arguments)))

    def normal(*shape: int) -> Any:
        return jax.random.normal(next(keys), shape, jnp.bfloat16)

    class Module:  # what the pricing asks a module for
        log, sqrt, exp, erf = jnp.log, jnp.sqrt, jnp.exp, jax.scipy.special.erf

    s, k = (jax.random.uniform(next(keys), (N,), minval=10, maxval=50) for _ in range(2))
    t = jax.random.uniform(next(keys), (N,), minval=0.1, maxval=2)

    def pricing(s: Any, k: Any, t: Any) -> tuple[Any, Any]:
        return _black_scholes(Module, s, k, t)

    out = {"Black-Scholes 16M, plain": (timed(pricing, s, k, t) / 1e3, "ms")}
    out["Black-Scholes 16M, compiled"] = (timed(jax.jit(pricing), s, k, t) / 1e3, "ms")
    x = jax.random.normal(next(keys), (8192, 8192))
    copy = timed(jax.jit(lambda x: x + 1), x)
    out["copy bandwidth (x + 1, 8192^2 float32)"] = (2 * 4 * 8192**2 / copy / 1e6, "TB/s")
    for axis in (0, 1, None):
        total = jax.jit(lambda x, axis=axis: x.sum(axis=axis))
        out[f"sum 8192^2 float32, axis {axis}"] = (timed(total, x) / 1e3, "ms")
    out["softmax 8192^2 float32"] = (timed(jax.jit(jax.nn.softmax), x) / 1e3, "ms")
    out["transpose 8192^2 float32"] = (timed(jax.jit(lambda x: x.T.copy()), x) / 1e3, "ms")
    product = jax.jit(lambda a, b: a @ b)
    a, b = normal(8192, 8192), normal(8192, 8192)
    out["matmul 8192^3 bfloat16"] = (2 * 8192**3 / timed(product, a, b) / 1e6, "TFLOP/s")
    products = jax.jit(lambda v, *weights: [v @ m.T for m in weights])
    for n, d in ((14336, 4096), (8192, 2048), (1536, 576)):
        weights, v = [normal(n, d) for _ in range(16)], normal(1, d)
        time = timed(products, v, *weights) / len(weights)
        out[f"vector @ matrix {n}x{d} bfloat16, 16 at a time"] = (2 * n * d / time / 1e6, "TB/s")
    return out
