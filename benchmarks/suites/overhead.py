"""What an op costs on the host, and what a small evaluation costs from end to end.

Model: a launch and the wait for it take about 8 us; recording, 0.2 us an op; a chain of elementwise ops is one kernel.
"""

from __future__ import annotations

import importlib
import itertools
from typing import Any

from benchmarks.timing import median_us

PEERS = ("mlxlite", "mlx", "torch", "jax")
LENGTH = 256
SETTLING_S = 2.0  # for a program's kernels, which may be compiled behind the scenes


def measure(peer: str) -> dict[str, tuple[float, str]]:
    """Host costs of a peer."""
    if peer in ("torch", "jax"):
        return {"torch": _torch, "jax": _jax}[peer]()
    return _arrays(importlib.import_module(f"{peer}.core"))


def _chain(a: Any, b: Any) -> Any:
    x = a
    for i in range(LENGTH):
        x = x + b if i % 2 else x * b
    return x


def _array_program(x: Any, w: Any) -> Any:
    """192 small ops with 16 row sums, as programs that are not fused by hand have."""
    for _ in range(16):
        y = x * w + 0.5
        y = y - y.sum(axis=-1, keepdims=True) * 0.01
        y = (y * y + 1.0) * 0.5
        x = x + y * 0.1 - 0.2
    return x


def _network(mx: Any) -> Any:
    """The loss of ten layers, 31 ops."""

    def loss(w: Any, x: Any) -> Any:
        for _ in range(10):
            x = mx.tanh(x @ w + 1)
        return x.sum()

    return loss


def _arrays(mx: Any) -> dict[str, tuple[float, str]]:
    a, b = mx.ones((64,)), mx.ones((64,))
    one = mx.ones((1,))
    mx.eval(a, b, one)
    out = {"record one op": (median_us(lambda: _chain(a, b)) / LENGTH, "us")}
    out["chain of 256, record + eval + wait, per op"] = (median_us(lambda: mx.eval(_chain(a, b))) / LENGTH, "us")

    def steady() -> None:
        for _ in range(20):
            mx.async_eval(_chain(a, b))
        mx.synchronize()

    out["chain of 256, async steady state, per op"] = (median_us(steady, 7) / (20 * LENGTH), "us")
    out["x + 1 and wait"] = (median_us(lambda: mx.eval(one + 1), 101), "us")
    numbers = itertools.count()
    out["x * s + 0.5, a new s each call"] = (median_us(lambda: mx.eval(one * (1.0 + next(numbers)) + 0.5), 101), "us")
    x, w = mx.ones((64, 128)), mx.ones((128,))
    mx.eval(x, w)
    same = median_us(lambda: mx.eval(_array_program(x, w)), settling_s=SETTLING_S)
    out["192-op program with 16 row sums"] = (same, "us")
    inputs = [mx.ones((32 + i, 128)) for i in range(20)]
    mx.eval(inputs)
    rows = itertools.cycle(inputs)
    out["192-op program, a new shape each call"] = (median_us(lambda: mx.eval(_array_program(next(rows), w)), 18), "us")
    weight = mx.ones((8, 8))
    rows_of_x = mx.ones((4, 8))
    mx.eval(weight, rows_of_x)
    gradient = mx.value_and_grad(_network(mx))
    compiled = mx.compile(gradient)
    out["record value_and_grad of 31 ops"] = (median_us(lambda: gradient(weight, rows_of_x), 101), "us")
    out["record it, compiled"] = (median_us(lambda: compiled(weight, rows_of_x), 101), "us")
    return out


def _torch() -> dict[str, tuple[float, str]]:
    import torch

    a, b = torch.ones(64, device="cuda"), torch.ones(64, device="cuda")
    wait = torch.cuda.synchronize

    def chain() -> None:
        _chain(a, b)
        wait()

    def add() -> None:
        torch.add(a, 1)
        wait()

    return {
        "chain of 256, record + eval + wait, per op": (median_us(chain) / LENGTH, "us"),
        "x + 1 and wait": (median_us(add, 101), "us"),
    }


def _jax() -> dict[str, tuple[float, str]]:
    """JAX's functions are compiled, once for every shape."""
    from benchmarks.peers import jax_module

    jax = jax_module()
    a, b, one = (jax.numpy.ones(n) for n in (64, 64, 1))
    chain, add, scaled, program = map(jax.jit, (_chain, lambda x: x + 1, lambda x, s: x * s + 0.5, _array_program))
    out = {
        "chain of 256, record + eval + wait, per op": (
            median_us(lambda: chain(a, b).block_until_ready()) / LENGTH,
            "us",
        )
    }
    out["x + 1 and wait"] = (median_us(lambda: add(one).block_until_ready(), 101), "us")
    numbers = itertools.count()

    def new_number() -> None:
        scaled(one, 1.0 + next(numbers)).block_until_ready()

    out["x * s + 0.5, a new s each call"] = (median_us(new_number, 101), "us")
    x, w = jax.numpy.ones((64, 128)), jax.numpy.ones(128)
    out["192-op program with 16 row sums"] = (median_us(lambda: program(x, w).block_until_ready()), "us")
    rows = iter([jax.numpy.ones((32 + i, 128)) for i in range(5)])

    def new_shape() -> None:
        program(next(rows), w).block_until_ready()

    out["192-op program, a new shape each call"] = (median_us(new_shape, 3), "us")
    return out
