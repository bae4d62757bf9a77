"""Programs of many structures, evaluated one after the other, while counters and memory are watched."""

from __future__ import annotations

import gc
import random
from typing import Any

import mlxlite.core as mx
from mlxlite import _graph
from tests.random_programs import RandomProgram

FAMILIES = ("reduce", "matmul", "indexing", "sort", "fast")
COUNTED = ("hits", "misses", "builds", "evictions")
# Bytes. The programs are small; what cuBLASLt works in is 64 MiB, kept from its first product on.
MOST_MEMORY = 80 << 20


def evaluate_many(device: str, capacity: int, evals: int = 2000, structures: int = 600) -> dict[str, int]:
    """Evaluate programs on the default device; AssertionError if what is counted does not explain itself.

    Args:
        device: its name in the caches' counters.
        capacity: of the plan cache.

    Returns:
        What the plan cache counted, and `plans`: how many it holds in the end.
    """
    capacity_before = _graph.cache_info()[device]["capacity"]
    _graph.set_plan_capacity(device, capacity)
    _graph.clear_plans()
    gc.collect()
    mx.synchronize()
    mx.reset_peak_memory()
    memory = _held(device)
    active = mx.get_active_memory()
    start, runtime = _graph.cache_info()[device], mx.cuda.cache_info()["runtime"]
    draw, seen, lookups = random.Random(0), set(), 0
    try:
        for _ in range(evals):
            structure = draw.randrange(structures)
            before = _graph.cache_info()[device]
            outputs = RandomProgram(mx, structure, FAMILIES).run(14)
            mx.eval(outputs)
            del outputs
            grown = {k: v - before[k] for k, v in _graph.cache_info()[device].items()}
            assert grown["hits"] + grown["misses"] <= 1, f"structure {structure} was evaluated in parts: {grown}"
            assert grown["misses"] == grown["builds"], f"structure {structure} was built without a miss: {grown}"
            if structure in seen and structures <= capacity:
                assert grown["misses"] == 0, f"structure {structure} was built again: {grown}"
            seen.add(structure)
            lookups += grown["hits"] + grown["misses"]
            assert mx.get_peak_memory() - active <= MOST_MEMORY
        end = _graph.cache_info()[device]
        counts = {k: end[k] - start[k] for k in COUNTED} | {"plans": end["plans"]}
        assert lookups == counts["hits"] + counts["misses"] >= evals * 0.95, counts  # a program may keep leaves alone
        assert counts["plans"] == counts["builds"] - counts["evictions"] <= capacity, counts
        assert counts["builds"] <= len(seen) or counts["evictions"] > 0, counts
        if device == "gpu":
            _explain_runtime(runtime, mx.cuda.cache_info()["runtime"], counts)
        _graph.clear_plans()
        gc.collect()
        mx.synchronize()
        assert _held(device) == memory, "arrays or plans that are gone still have memory"
        return counts
    finally:
        _graph.set_plan_capacity(device, capacity_before)


def _held(device: str) -> int:
    """Bytes of arrays and of plans' constants, without the arena and the workspace that all plans share."""
    if device == "cpu":
        return 0
    from backend_cuda import _runtime

    info = _runtime.memory_info()
    return info["active"] - info["arena"] - info["workspace"]


def _explain_runtime(before: dict[str, Any], after: dict[str, Any], counts: dict[str, int]) -> None:
    """What the runtime built follows from what the plan cache built."""
    grown = {k: after[k] - before[k] for k in after}
    assert grown["evaluations"] == counts["hits"] + counts["misses"], (grown, counts)
    assert grown["launches"] <= grown["evaluations"], grown
    assert grown["templates_built"] <= counts["builds"], (grown, counts)  # a plan of views has none
    assert grown["plans"] == counts["plans"], (grown, counts)  # those that were evicted are gone
    assert grown["execs_built"] >= grown["templates_built"], grown
    assert grown["execs_rebuilt"] == 0, grown
    assert grown["matmul_misses"] == grown["matmul_builds"], grown
