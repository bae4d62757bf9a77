"""`mx.explain`: the plan of a graph that is not evaluated, what it costs at least, and why ops are not fused."""

from __future__ import annotations

import gc
import inspect
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.module_under_test import IS_MLX, mx
from tests.random_programs import RandomProgram

if IS_MLX:
    pytest.skip("MLX has no explain", allow_module_level=True)

from backend_cuda.lowering import memory
from backend_cuda.machines import machine
from mlxlite import _graph
from mlxlite.observe import description, provider

FLOAT = 4


@pytest.fixture(autouse=True)
def assumed_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Floors are those of one GPU, whichever is here."""
    monkeypatch.setattr(provider("gpu"), "machine", lambda: machine(None))


def leaf(*shape: int, dtype: Any = None) -> mx.array:
    a = mx.random.normal(shape).astype(dtype or mx.float32)
    mx.eval(a)
    return a


def gpu_plan(*outputs: Any) -> description.Plan:
    (plan,) = mx.explain(*outputs, device=mx.gpu).plans
    return plan


def reasons(*outputs: Any) -> dict[tuple[str, str], str]:
    return {(r.producer.name, r.consumer.name): r.reason for r in gpu_plan(*outputs).refusals}


def access(accesses: Any) -> dict[str, int]:
    return {a.buffer: a.nbytes for a in accesses}


# ---- without evaluating


def test_nothing_is_evaluated_or_counted() -> None:
    a = leaf(3, 4)
    b = mx.exp(a) * 2
    c = b.sum()
    gc.collect()  # what other tests left pending
    before = (_graph.cache_info(), _graph.pending())
    mx.explain(c)
    mx.explain([c, {"b": b}], device=mx.gpu)
    assert (_graph.cache_info(), _graph.pending()) == before
    assert not _graph.is_evaluated(b) and not _graph.is_evaluated(c)
    np.testing.assert_allclose(c.item(), (np.exp(np.array(a)) * 2).sum(), rtol=1e-5)


def test_evaluated_arrays_have_no_plan() -> None:
    explanation = mx.explain(leaf(3))
    assert explanation.plans == [] and explanation.nodes == []
    assert str(explanation).startswith("nothing to evaluate")
    ElementTree.fromstring(explanation.svg())


def test_it_knows_the_plan_cache(device: str) -> None:
    def graph() -> Any:
        return mx.sin(mx.ones((5, 1)) * 3.5) - mx.ones((1, 7))

    _graph.clear_plans()
    assert not mx.explain(graph()).plans[0].in_cache
    mx.eval(graph())
    (plan,) = mx.explain(graph()).plans
    assert plan.in_cache and plan.device == device
    assert "in the plan cache" in str(mx.explain(graph()))


def test_only_trees_of_arrays_are_explained() -> None:
    with pytest.raises(TypeError, match=r"\[explain\] expected arrays.*float"):
        mx.explain([leaf(2), 1.5])
    with pytest.raises(TypeError, match="device"):
        mx.explain(leaf(2) + 1, device="gpu")


def test_an_op_without_a_lowering_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from backend_cuda.lowering import builder

    monkeypatch.delitem(builder.LOWERINGS, "sort")
    with pytest.raises(NotImplementedError, match=r"\[sort\].*float32"):
        mx.explain(mx.sort(leaf(5)), device=mx.gpu)


# ---- nodes


def test_a_chain_is_one_node_with_its_ops() -> None:
    a, b = leaf(100, 6), leaf(6)
    (node,) = gpu_plan(mx.exp(a * 2 + b) - 1).nodes
    assert [op.name for op in node.ops] == ["multiply", "add", "exp", "subtract"]
    assert node.kind == "kernel" and node.ops[0].shape == (100, 6) and node.ops[0].dtype == "float32"
    assert access(node.reads) == {"leaf 0": 600 * FLOAT, "leaf 1": 6 * FLOAT}
    assert access(node.writes) == {"out 0": 600 * FLOAT}
    assert node.floor == pytest.approx((1206 * FLOAT) / 3.35e12) and node.limit == "memory"


def test_what_is_broadcast_or_read_twice_counts_once() -> None:
    a = leaf(64)
    (node,) = gpu_plan(mx.broadcast_to(a, (10, 64)) + a).nodes
    assert node.bytes_read == 64 * FLOAT and node.bytes_written == 640 * FLOAT


def test_kept_intermediates_are_written_and_say_so() -> None:
    a = leaf(50)
    kept = a * 2
    (node,) = gpu_plan(kept + 1).nodes
    assert {w.buffer: w.why for w in node.writes} == {"out 0": "held", "out 1": "held"}


def test_a_part_of_an_array_is_all_that_is_read() -> None:
    a = leaf(100, 8)
    (node,) = gpu_plan(a[10:20] + 1).nodes
    assert node.bytes_read == 80 * FLOAT


@pytest.mark.parametrize("n, limit", [(64, "memory"), (4096, "operations")])
def test_a_product_is_bound_by_memory_or_by_operations(n: int, limit: str) -> None:
    a, b = mx.zeros((n, n), mx.bfloat16), mx.ones((n, n), mx.bfloat16)
    mx.eval(a, b)
    (node,) = gpu_plan(a @ b).nodes
    assert (node.kind, node.limit, node.operations) == ("matmul", limit, 2 * n**3)
    assert node.bytes_read + node.bytes_written == 3 * n * n * 2
    rate = 3 * n * n * 2 / 3.35e12 if limit == "memory" else 2 * n**3 / 989e12
    assert node.floor == pytest.approx(rate)


def test_a_product_says_that_it_adds_an_array() -> None:
    c, a, b = leaf(32, 256), leaf(32, 128), leaf(128, 256)
    (node,) = gpu_plan(c + a @ b).nodes
    assert [op.name for op in node.ops] == ["matmul", "add"] and node.detail.endswith("k 128, adds an array")
    assert sorted(r.nbytes for r in node.reads) == sorted(FLOAT * n for n in (32 * 256, 32 * 128, 128 * 256))
    assert node.operations == 2 * 32 * 256 * 128
    assert "adds an array" not in gpu_plan(a @ b).nodes[0].detail


def test_a_product_with_a_bias_counts_its_operations_once() -> None:
    c, a, b = leaf(256), leaf(32, 128), leaf(128, 256)
    nodes = gpu_plan(mx.addmm(c, a, b)).nodes
    assert sum(n.operations for n in nodes) == 2 * 32 * 128 * 256
    assert sum(access(n.reads).get("leaf 2", 0) for n in nodes) == 128 * 256 * FLOAT


@pytest.mark.parametrize("mask, pairs", [(None, 4 * 6), ("causal", 3 + 4 + 5 + 6)])
def test_attention_counts_the_pairs_that_see_one_another(mask: Any, pairs: int) -> None:
    q, k, v = leaf(2, 3, 4, 16), leaf(2, 3, 6, 16), leaf(2, 3, 6, 16)
    nodes = gpu_plan(mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0, mask=mask)).nodes
    assert sum(n.operations for n in nodes) == 2 * (2 * 3) * pairs * 32


def test_an_update_in_place_touches_the_part_and_donates() -> None:
    cache = leaf(4, 1000, 8)
    cache[:, 10:11] = leaf(4, 1, 8)
    plan = gpu_plan(cache)
    (node,) = plan.nodes
    assert access(node.writes) == {"leaf 0": 32 * FLOAT} and node.bytes_read == 32 * FLOAT
    assert {b.name: b.kind for b in plan.buffers}["leaf 0"] == "donated"
    assert "leaf 0" in str(mx.explain(cache, device=mx.gpu))


def test_a_shared_array_is_copied_before_its_update() -> None:
    cache = leaf(4, 6)
    view = cache[0]
    cache[1] = 7.0
    plan = gpu_plan(cache, view)
    assert [n.label for n in plan.nodes] == ["copy", "slice_update"]
    assert plan.nodes[0].bytes_read == 24 * FLOAT and plan.nodes[1].bytes_written == 6 * FLOAT
    assert plan.nodes[1].after == (0,)


def test_a_gather_reads_what_it_takes() -> None:
    table, rows = leaf(10000, 16), mx.array([1, 5, 7])
    mx.eval(rows)
    (node,) = gpu_plan(table[rows]).nodes
    assert node.bytes_read == 3 * 16 * FLOAT + rows.nbytes and node.bytes_written == 3 * 16 * FLOAT


@pytest.mark.parametrize(
    ("shape", "most_nodes", "in_a_result"), [((1024, 255), 4, False), ((1024, 256), 4, True), ((1024, 256), 3, False)]
)
def test_slots_are_shared_over_time(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], most_nodes: int, in_a_result: bool
) -> None:
    """Also with a result that is yet to be written, if they are large and nodes are few."""
    monkeypatch.setattr(memory, "LEAST_IN_OUTPUT", 1 << 20)
    monkeypatch.setattr(memory, "MOST_NODES", most_nodes)
    a = leaf(*shape)
    for _ in range(4):
        a = mx.softmax(a, axis=-1)
    plan = gpu_plan(a)
    slots = [b for b in plan.buffers if b.kind == "arena"]
    nbytes = math.prod(shape) * FLOAT
    assert [s.content for s in slots] == ["written by node 0, node 2", "in out 0, " * in_a_result + "written by node 1"]
    assert [s.nbytes for s in slots] == [nbytes, 0 if in_a_result else nbytes]
    assert plan.arena_bytes == sum(-(-s.nbytes // 256) * 256 for s in slots)


def test_views_are_listed_apart() -> None:
    a = leaf(4, 6)
    plan = gpu_plan(mx.exp(a.T.reshape(3, 8)[1:]))
    assert [op.name for op in plan.views] == ["transpose", "reshape", "slice"][: len(plan.views)]
    assert "views, which cost nothing" in str(mx.explain(a.T + 1, device=mx.gpu))


def test_arrays_of_another_device_look_as_after_their_move(device: str) -> None:
    if device != "cpu":
        pytest.skip("needs arrays on the CPU")
    a = mx.array(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32).T)
    (buffer, _) = gpu_plan(a + 1).buffers
    assert "strides" not in buffer.content


def test_arrays_of_two_devices_make_two_plans() -> None:
    a = leaf(8)
    b = mx.multiply(a, 2, stream=mx.cpu)
    c = mx.add(b, 1, stream=mx.gpu)
    del b
    first, second = mx.explain(c).plans
    assert (first.device, second.device) == ("cpu", "gpu")
    assert first.nodes[0].bytes_written == second.nodes[0].bytes_read == 8 * FLOAT


def test_a_description_serves_other_sizes() -> None:
    (tape,) = _graph.tapes([leaf(5, 8) @ leaf(8, 3) + 1], "gpu")
    describe = provider("gpu").describe(tape)
    sizes = [50 if s == 5 else s for s in tape.sizes]
    small, large = describe(tape.sizes), describe(sizes)
    assert small.nodes[0].operations * 10 == large.nodes[0].operations
    assert large.nodes[1].ops[0].shape == (50, 3)
    assert [n.label for n in small.nodes] == [n.label for n in large.nodes]


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(seed: int, device: str) -> None:
    outputs = RandomProgram(mx, seed, ("reduce", "matmul", "indexing", "sort", "fast")).run(14)
    for where in (mx.gpu, mx.cpu):
        explanation = mx.explain(outputs, device=where)
        for plan in explanation.plans:
            assert all((n.bytes_read >= 0 and n.bytes_written > 0) or n.kind == "view" for n in plan.nodes)
            known = {b.name for b in plan.buffers}
            if where == mx.gpu:
                assert {a.buffer for n in plan.nodes for a in (*n.reads, *n.writes)} <= known
        picture = ElementTree.fromstring(explanation.svg())
        titles = [t.text or "" for t in picture.iter("{http://www.w3.org/2000/svg}title")]
        assert sum(t.startswith("node ") and "):" in t for t in titles) == len(explanation.nodes)
    mx.eval(outputs)


# ---- why not


def test_a_softmax_is_a_boundary() -> None:
    a = leaf(4, 6)
    found = reasons(mx.exp(a) / mx.softmax(mx.exp(a), axis=1))
    assert found["exp", "softmax"] == "kernel boundary: softmax is no elementwise op"
    assert found["softmax", "divide"] == "kernel boundary: softmax is no elementwise op"


def test_a_neighbour_that_waits_for_another_kernel() -> None:
    a, c, d = leaf(4, 6), leaf(4, 6), leaf(4, 6)
    b = mx.exp(a)
    found = reasons(mx.sin(b) * c * d / b.sum(axis=0, keepdims=True) - b)
    reason = (
        r"kernel boundary: divide waits for sum \(node \d\) too; \w+ is held, so it is written once in its own dims"
    )
    assert re.fullmatch(reason, found["multiply", "divide"])


def test_different_dims() -> None:
    a, b, c = leaf(6), leaf(4, 6), leaf(5, 6)
    row = mx.exp(a)
    reason = "different dims: (6,) and (4, 6); exp is held, so it is written once in its own dims"
    assert reasons(row + b) == {("exp", "add"): reason}
    del row

    def shared(make: Callable[[], mx.array]) -> tuple[mx.array, mx.array]:
        row = make()
        return row + b, row * c

    assert not reasons(*shared(lambda: mx.exp(a)))  # each computes it again
    found = reasons(*shared(lambda: mx.exp(a) + leaf(6)))
    other = "other kernels read it too, and not all of them can compute it again at no more cost"
    assert found["add", "add"] == f"different dims: (6,) and (4, 6); {other}"
    assert found["add", "multiply"] == f"different dims: (6,) and (5, 6); {other}"

    def long(n: int) -> mx.array:
        row = a
        for _ in range(n):
            row = mx.sin(row)
        return row + b

    assert not reasons(long(8))
    (found_long,) = set(reasons(long(9)).values())
    assert found_long == "different dims: (6,) and (4, 6); 9 ops are too many to compute again (at most 8)"

    def positions() -> mx.array:
        return mx.arange(6) * 2.0 + b

    (found_arange,) = set(reasons(positions()).values())
    assert found_arange == "different dims: (6,) and (4, 6); arange counts in its own dims"


def test_dims_that_only_this_call_shows_to_be_equal() -> None:
    joined, flat = mx.concatenate([leaf(3), leaf(5)]), leaf(2, 4).reshape(8)
    s = mx.sin(flat)
    found = reasons(mx.exp(joined) * s, s)
    reason = "dims that follow from different sizes, though both are (8,) in this call"
    assert found["sin", "multiply"] == f"{reason}; sin is held, so it is written once in its own dims"
    a = leaf(8, 8)
    assert not reasons(mx.exp(leaf(8)) + mx.sin(a[0]))  # the sum says that they are equal


def test_a_view_between() -> None:
    found = reasons(mx.exp(leaf(4, 4)).T * 2)
    assert found["exp", "multiply"] == "a view between them (transpose): elements are read in another order"


def test_the_op_limit() -> None:
    a = leaf(4)
    for _ in range(100):
        a = a + 1
    found = gpu_plan(a).refusals
    assert found and all(r.reason.startswith("op limit: ") and r.reason.endswith("at most 64") for r in found)


def test_the_operand_limit() -> None:
    arrays = [leaf(4) for _ in range(40)]
    total = arrays[0]
    for a in arrays[1:]:
        total = total + a
    found = gpu_plan(total).refusals
    assert found and all("operand limit" in r.reason and r.reason.endswith("at most 24") for r in found)


def test_fusion_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXLITE_FUSE", "0")
    plan = gpu_plan(mx.exp(leaf(4)) * 2)
    assert len(plan.nodes) == 2
    assert [r.reason for r in plan.refusals] == ["fusion is off (MLXLITE_FUSE=0)"]


# ---- side by side


def test_the_same_over_other_arrays_is_one_node_with_instances() -> None:
    arrays = [leaf(4, 3 + k // 2) for k in range(5)]
    results = [mx.exp(a) * 2 for a in arrays]
    plan = gpu_plan(results)
    (node,) = plan.nodes
    assert node.instances == 5 and [op.name for op in node.ops] == ["exp", "multiply"] * 5
    assert node.bytes_read == node.bytes_written == sum(a.nbytes for a in arrays)
    assert plan.apart == () and plan.refusals == ()
    text = str(mx.explain(results, device=mx.gpu))
    assert "5 times exp+multiply" in text
    assert "and the same for float32 (4, 3), float32 (4, 4) x2, float32 (4, 5)" in text
    assert text.count("exp float32") == 1


def test_what_is_overwritten_is_donated() -> None:
    a, b = leaf(6), leaf(6)
    c = a * 2 + b
    del a
    plan = gpu_plan(c)
    assert {x.name: x.kind for x in plan.buffers} == {"leaf 0": "donated", "leaf 1": "leaf", "out 0": "output"}
    assert access(plan.nodes[0].writes) == {"leaf 0": 6 * FLOAT}
    assert access(plan.nodes[0].reads) == {"leaf 0": 6 * FLOAT, "leaf 1": 6 * FLOAT}


APART = {
    "other kernels read what they write": lambda a: mx.softmax(mx.exp(a), axis=-1),
    "transpose is not read in the order of memory": lambda a: mx.exp(a.T),
    "a leaf is not read in the order of memory": lambda a: a + leaf(4),
    "arange counts in its own dims": lambda a: mx.arange(a.shape[0] + 3) * 2,
    "most of what they read is intermediate": lambda a: mx.tanh(a @ a),
}


@pytest.mark.parametrize("reason", APART)
def test_why_kernels_of_one_program_stay_apart(reason: str) -> None:
    results = [APART[reason](leaf(4, 4)) for _ in range(4)]
    (apart,) = gpu_plan(results).apart
    assert len(apart.nodes) == 4 and apart.reason.startswith(reason)
    text = str(mx.explain(results, device=mx.gpu))
    assert f"(nodes {', '.join(map(str, apart.nodes))}): {reason}" in text.split("not side by side\n")[1]
    assert gpu_plan(results[:3]).apart == ()


def test_kernels_of_one_program_stay_apart_without_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXLITE_FUSE", "0")
    (apart,) = gpu_plan([mx.exp(leaf(3 + k)) for k in range(4)]).apart
    assert apart.nodes == (0, 1, 2, 3) and apart.reason == "fusion is off (MLXLITE_FUSE=0)"


# ---- shown


def graph() -> Any:
    a, b = leaf(8, 16), leaf(16, 4)
    return mx.softmax(mx.exp(a @ b), axis=1)


def test_the_text_has_every_node_buffer_and_reason() -> None:
    explanation = mx.explain(graph(), device=mx.gpu)
    text = str(explanation)
    assert text.startswith("gpu plan: 3 nodes for 3 ops; not in the plan cache\nNVIDIA H100 80GB HBM3")
    for node in explanation.nodes:
        assert re.search(rf"^{node.index}   {node.label} ", text, re.M)
        for op in node.ops:
            assert f"      {op}\n" in text
    assert re.search(r"leaf 0, leaf 1 -> slot 0 \[node 1\]\n      1\.02 thousand operations", text)
    assert "not fused\n  #2 matmul (node 0) -> #3 exp (node 1): kernel boundary" in text


def test_graphviz_text() -> None:
    text = mx.explain(graph(), device=mx.gpu).dot()
    assert text.startswith("digraph plan {") and text.endswith("}\n")
    assert '"0/node 0" -> "0/node 1" [label="128 B"];' in text
    assert '"0/leaf 0" -> "0/node 0" [label="512 B"];' in text
    assert '"0/node 2" -> "0/= out 0"' in text


def test_the_picture_is_drawn_without_overlaps() -> None:
    picture = ElementTree.fromstring(mx.explain(graph(), device=mx.gpu).svg())
    space = "{http://www.w3.org/2000/svg}"
    rects = [r for r in picture.iter(f"{space}rect") if r.get("x")]
    boxes = [[float(r.get(k, "nan")) for k in ("x", "y", "width", "height")] for r in rects]
    assert len(boxes) == 3 + 2 + 1
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    for k, (x, y, w, h) in enumerate(boxes):
        assert x >= 0 and x + w <= width and y >= 0 and y + h <= height
        for x2, y2, w2, h2 in boxes[:k]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    assert len([p for p in picture.iter(f"{space}path") if p.get("class") == "edge"]) == 5


def test_notebooks_show_it() -> None:
    explanation = mx.explain(graph(), device=mx.gpu)
    assert explanation._repr_svg_() == explanation.svg()
    assert "<svg" in explanation._repr_html_() and "not fused" in explanation._repr_html_()
    assert "3 nodes" in repr(explanation)


def test_the_cpu_has_a_node_for_each_op() -> None:
    (plan,) = mx.explain(graph(), device=mx.cpu).plans
    assert [n.label for n in plan.nodes] == ["matmul", "exp", "softmax"]
    assert [n.bytes_read for n in plan.nodes] == [(128 + 64) * FLOAT, 32 * FLOAT, 32 * FLOAT]
    assert plan.machine.bandwidth and plan.machine.bandwidth > 1e8
    assert plan.nodes[0].floor is None and plan.nodes[0].operations == 2 * 8 * 16 * 4  # NumPy's rate is not known
    assert plan.nodes[1].floor == pytest.approx(2 * 32 * FLOAT / plan.machine.bandwidth) and plan.floor is None
    assert not plan.refusals


def test_a_gpu_that_is_not_listed_has_the_bandwidth_that_its_driver_tells() -> None:
    other = machine({"name": "NVIDIA Tomorrow", "memory_bandwidth": 1e12})
    assert other.floor(10**6, 10**15, "float16") == (1e-6, "memory") and not other.assumed
    assert machine({"name": "NVIDIA Tomorrow", "memory_bandwidth": 0.0}).floor(10**6) == (None, "memory")
    known = machine({"name": "NVIDIA H200", "memory_bandwidth": 1.0})
    assert known.floor(10**6, 10**15, "float16") == (pytest.approx(1e15 / 989e12), "operations")


def test_numbers_for_people() -> None:
    assert [description.bytes_text(n) for n in (0, 999, 1000, 123456, 10**12)] == [
        "0 B",
        "999 B",
        "1 kB",
        "123 kB",
        "1 TB",
    ]
    assert [description.time_text(t) for t in (None, 0, 2e-9, 1.5e-6, 0.02, 3)] == [
        "-",
        "0 us",
        "2 ns",
        "1.5 us",
        "20 ms",
        "3 s",
    ]


def test_it_is_public_and_documented() -> None:
    assert "explain" in mx.__all__ and inspect.getdoc(mx.explain)
