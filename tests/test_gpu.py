"""What only a GPU can show: launches, replays, caches, donation and memory. Results are compared with the CPU's."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlxlite.core as mx
from mlxlite import _graph
from tests.many_programs import evaluate_many
from tests.random_programs import RandomProgram

pytestmark = pytest.mark.gpu

SLAB = 2 << 20  # bytes; arrays of up to 1 MiB are cut from slabs


@pytest.fixture(autouse=True)
def on_the_gpu():
    before = mx.default_device()
    mx.set_default_device(mx.gpu)
    yield
    mx.set_default_device(before)


def counters() -> dict[str, int]:
    return mx.cuda.cache_info()["runtime"]


def spent(call: Callable[[], Any]) -> dict[str, int]:
    """How much each counter grew."""
    mx.eval(mx.zeros(1) + 1)  # the backend is loaded
    before = counters()
    call()
    after = counters()
    return {name: after[name] - before[name] for name in after}


def normal(*shape: int, seed: int = 0, dtype: Any = None) -> mx.array:
    a = mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))
    a = a if dtype is None else a.astype(dtype)
    mx.eval(a)
    return a


def program(x: mx.array, w: mx.array) -> mx.array:
    y = mx.softmax(x @ w, axis=-1)
    return (y * 2 + x.sum(axis=-1, keepdims=True)).T


def test_one_evaluation_is_one_launch() -> None:
    x, w = normal(8, 16), normal(16, 16)
    assert spent(lambda: mx.eval(program(x, w)))["launches"] == 1


def test_the_second_evaluation_builds_nothing() -> None:
    x, w = normal(8, 16), normal(16, 16)
    for _ in range(2):
        mx.eval(program(x, w))
    grown = spent(lambda: mx.eval(program(x, w)))
    plans = _graph.cache_info()["gpu"]["misses"]
    mx.eval(program(x, w))
    assert _graph.cache_info()["gpu"]["misses"] == plans
    assert {name: grown[name] for name in ("templates_built", "execs_built", "matmul_builds", "captures")} == {
        "templates_built": 0, "execs_built": 0, "matmul_builds": 0, "captures": 0,
    }  # fmt: skip


def test_a_new_number_patches_only_its_kernel() -> None:
    x, w = normal(8, 16), normal(16, 16)

    def call(s: float) -> None:
        mx.eval(mx.exp(x @ w) @ w * s)

    call(0.5)
    call(0.25)
    grown = spent(lambda: call(0.125))
    assert grown["nodes_patched"] == 1
    assert grown["execs_built"] == 0


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32, mx.float64])
@pytest.mark.parametrize("rows", [1000, 1024])
def test_a_large_product_is_measured_once_at_most(dtype: mx.Dtype, rows: int) -> None:
    x, w, c = normal(rows, 800, dtype=dtype), normal(700, 800, dtype=dtype), normal(rows, 700, dtype=dtype)
    looked_at = ("matmul_measured", "matmul_from_disk", "matmul_unmeasured")
    results = []

    def call() -> None:
        results.append(np.array((c + x @ w.T).astype(mx.float64)))

    first, second = spent(call), spent(call)
    tuned = os.environ.get("MLXLITE_MATMUL_TUNING", "1") != "0"
    assert sum(first[name] for name in looked_at) <= int(tuned)
    assert sum(second[name] for name in looked_at) == 0 and second["matmul_measuring_us"] == 0
    np.testing.assert_array_equal(results[0], results[1])
    a, b, d = (np.array(array.astype(mx.float64)) for array in (x, w, c))
    rtol = {mx.bfloat16: 2**-7, mx.float16: 2**-10, mx.float32: 2**-9, mx.float64: 1e-13}[dtype]  # TF32: 10 bits
    np.testing.assert_allclose(results[0], a @ b.T + d, rtol=rtol, atol=rtol * 30)


def test_layers_of_one_shape_share_a_cudnn_graph() -> None:
    from backend_cuda import sdpa

    if sdpa.why_unavailable():
        pytest.skip(sdpa.why_unavailable())
    q = normal(1, 4, 48, 64, dtype=mx.bfloat16)
    builds, declined = sdpa.counters["builds"], sdpa.counters["declined"]
    x = q
    for _ in range(32):
        x = mx.fast.scaled_dot_product_attention(x, q, q, scale=0.125, mask="causal")
    mx.eval(x)
    assert sdpa.counters["builds"] - builds == 1
    assert sdpa.counters["declined"] == declined


def test_decoding_builds_no_plan() -> None:
    heads, size = 4, 64
    cache = mx.zeros((1, heads, 512, size), dtype=mx.bfloat16) + 0
    mx.eval(cache)

    def step(t: int) -> mx.array:
        new = normal(1, heads, 1, size, seed=t, dtype=mx.bfloat16)
        cache[:, :, t : t + 1] = new
        keys = cache[:, :, : t + 1]
        return mx.fast.scaled_dot_product_attention(new, keys, keys, scale=0.125)

    for t in range(2, 6):
        mx.eval(step(t), cache)
    misses, built = _graph.cache_info()["gpu"]["misses"], counters()["templates_built"]
    for t in range(6, 306):
        mx.eval(step(t), cache)
    assert _graph.cache_info()["gpu"]["misses"] == misses
    assert counters()["templates_built"] == built


def test_a_loop_of_growing_sizes_makes_few_driver_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    import backend_cuda
    from backend_cuda.lowering import plan

    # Kernels that read arguments from memory are waited for, and not compiled in the background.
    monkeypatch.setattr(backend_cuda, "are_compiled", lambda sources: True)
    rows = [normal(4, 600, seed=i) for i in range(12)]
    calls: list[int] = []

    def loop() -> list[float]:
        _graph.clear_plans()
        calls.clear()
        results = []
        for n in range(300, 320):
            before = counters()["driver_calls"]
            total = sum(mx.logsumexp(x[:, :n], axis=-1) for x in rows).sum()  # type: ignore[attr-defined]
            mx.async_eval(total)
            # Without those of waiting, which follow from how long it is.
            calls.append(counters()["driver_calls"] - before)
            results.append(total.item())
        return results

    mx.eval(mx.zeros(1) + 1)
    promoted = counters()["plans_promoted"]
    in_memory = loop()
    assert counters()["plans_promoted"] == promoted + 1
    assert max(calls[8:]) <= 6, calls
    monkeypatch.setattr(plan, "ARGUMENTS_IN_MEMORY", False)
    assert loop() == in_memory
    assert min(calls[8:]) >= 12, calls
    mx.set_default_device(mx.cpu)
    expected = [sum(mx.logsumexp(x[:, :n], axis=-1) for x in rows).sum().item() for n in range(300, 320)]  # type: ignore[attr-defined]
    assert in_memory == pytest.approx(expected, rel=1e-5)


def test_an_update_of_a_cache_copies_nothing() -> None:
    cache = mx.zeros((64, 1 << 18)) + 0  # 64 MiB
    mx.eval(cache)
    row = normal(1, 1 << 18)
    mx.synchronize()
    mx.reset_peak_memory()
    active = mx.get_active_memory()
    for i in range(4):
        cache[i : i + 1] = row
        mx.eval(cache)
    assert mx.get_peak_memory() - active < 1 << 24
    assert cache[3, :5].tolist() == row[0, :5].tolist()


def test_a_loop_stays_where_it_is() -> None:
    x = mx.zeros((4 << 20,)) + 1
    mx.eval(x)
    for _ in range(3):
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        x = x * 2 + 1
        mx.eval(x)
        assert mx.get_peak_memory() - before < x.nbytes // 2
    assert x[-1].item() == 15


def test_a_small_part_does_not_keep_the_whole() -> None:
    whole = mx.zeros((4 << 20,)) + 1
    mx.eval(whole)
    part = whole[:16]
    mx.eval(part)
    del whole
    before = mx.get_active_memory()
    part = part + 1
    mx.eval(part)
    assert before - mx.get_active_memory() > 8 << 20
    assert part.tolist() == [2] * 16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["SGD", "AdamW", "Lion"])
def test_optimizer_steps_agree_with_the_cpu_in_place(name: str, dtype: str) -> None:
    import mlxlite.optimizers as optim

    shapes = [(257, 33), (1000,), (5, 7, 9), (1 << 20,)] * 12
    results = []
    for device in (mx.cpu, mx.gpu):
        mx.set_default_device(device)
        model = {f"p{k}": normal(*s, seed=k, dtype=getattr(mx, dtype)) for k, s in enumerate(shapes)}
        gradients = {f"p{k}": normal(*s, seed=99 + k, dtype=getattr(mx, dtype)) for k, s in enumerate(shapes)}
        optimizer = getattr(optim, name)(learning_rate=0.01, **({"momentum": 0.9} if name == "SGD" else {}))
        optimizer.init(model)
        mx.eval(model, gradients, optimizer.state)
        for step in range(3):
            if device == mx.gpu:
                mx.reset_peak_memory()
                before = mx.get_active_memory()
            model = optimizer.apply_gradients(gradients, model)
            mx.eval(model, optimizer.state)
            if device == mx.gpu and step > 0:  # the first may make the arena
                assert mx.get_peak_memory() - before < 1 << 20
        results.append([np.array(p.astype(mx.float32)) for p in model.values()])
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_other_holders_keep_their_values() -> None:
    a = mx.arange(8) * 1
    view = a[2:4]
    copy = mx.array(a)
    mx.eval(a, view)
    a[2] = 100
    assert (a[2].item(), view.tolist(), copy.tolist()) == (100, [2, 3], list(range(8)))


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_random_programs_agree_with_the_cpu(first: int) -> None:
    families = ("reduce", "matmul", "indexing", "sort", "fast")
    for seed in range(first, first + 20):
        results = []
        for device in (mx.cpu, mx.gpu):
            mx.set_default_device(device)
            outputs = RandomProgram(mx, seed, families).run(14)
            mx.eval(outputs)
            results.append(outputs)
        for k, (expected, found) in enumerate(zip(*results, strict=True)):
            assert found.dtype == expected.dtype and found.shape == expected.shape
            wide = mx.complex64 if found.dtype == mx.complex64 else mx.float32
            a, b = (np.array(x.astype(wide)) for x in (found, expected))
            # Discontinuous ops turn a last-bit difference into a whole one: rounding, comparisons, and what follows.
            close = np.isclose(a, b, rtol=2e-2, atol=2e-2, equal_nan=True)
            assert close.mean() >= 0.9, f"seed {seed}, output {k}: {a.ravel()[:4]} is not {b.ravel()[:4]}"


def test_out_of_memory_leaves_everything_usable() -> None:
    a = normal(1024, 1024)
    expected = float(a.sum().item())
    limit = mx.set_memory_limit(mx.get_active_memory() + (64 << 20))
    try:
        with pytest.raises(Exception, match=r"(?i)memory") as caught:
            mx.eval(mx.broadcast_to(a, (256, 1024, 1024)) + 1)
        assert "limit" in str(caught.value).lower() or "in use" in str(caught.value).lower()
        assert float(a.sum().item()) == expected
    finally:
        mx.set_memory_limit(limit)
    assert (a + 1).shape == (1024, 1024)


def test_memory_is_given_back() -> None:
    mx.clear_cache()
    kept = mx.get_cache_memory()  # small arrays that are alive keep the slabs they are cut from
    mx.eval(mx.zeros((1 << 22,)) + 1)
    mx.synchronize()
    assert mx.get_cache_memory() >= kept + (1 << 24)
    mx.clear_cache()
    assert mx.get_cache_memory() <= kept + SLAB
    before = mx.get_active_memory()
    a = mx.zeros((1 << 22,)) + 1
    mx.eval(a)
    assert mx.get_active_memory() >= before + (1 << 24)
    del a
    mx.synchronize()
    assert mx.get_active_memory() <= before + (1 << 16)


@pytest.mark.parametrize("capacity", [1024, 100])
def test_many_structures(capacity: int) -> None:
    counts = evaluate_many("gpu", capacity)
    assert (counts["evictions"] > 0) == (capacity < 600)


def test_a_long_chain() -> None:
    x = mx.zeros(4)
    for _ in range(200_000):
        x = x + 1
    assert x.tolist() == [200_000.0] * 4


def test_an_op_without_a_kernel_is_named() -> None:
    with pytest.raises((NotImplementedError, TypeError), match=r"sort.*complex64"):
        mx.eval(mx.sort(normal(4).astype(mx.complex64)))


def test_arrays_move_between_devices() -> None:
    a = normal(5, 7)
    with mx.stream(mx.cpu):
        b = a.T + 1
    c = b * 2
    np.testing.assert_allclose(np.array(c), (np.array(a).T + 1) * 2, rtol=1e-6)
