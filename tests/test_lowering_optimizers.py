"""The steps of optimizers in plans: few kernels for all parameters, which are updated where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kernel_emulator as emulator
import numpy as np
import pytest

import mlxlite.core as mx
import mlxlite.optimizers as optim
from backend_cuda.lowering import lower
from backend_cuda.lowering.plan import KernelNode, Plan
from mlxlite import _graph
from mlxlite.backend_cpu.plan import CpuPlan
from mlxlite.utils import tree_map
from tests.checked_backend import checked
from tests.plan_simulator import Call, Simulator

SHAPES = ((7, 5), (33,), (1, 6), (), (2, 3, 4))

OPTIMIZERS = {
    "sgd": lambda: optim.SGD(learning_rate=0.1),
    "momentum": lambda: optim.SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda: optim.Adam(learning_rate=0.1, bias_correction=True),
    "adamw": lambda: optim.AdamW(learning_rate=lambda step: 0.1 / (1 + step)),
    "lion": lambda: optim.Lion(learning_rate=0.1, weight_decay=0.1),
    "adamax": lambda: optim.Adamax(learning_rate=0.1),
    "rmsprop": lambda: optim.RMSprop(learning_rate=0.1),
    "adagrad": lambda: optim.Adagrad(learning_rate=0.1),
}


@pytest.fixture
def plans() -> Iterator[list[Plan]]:
    """The plans that were lowered and checked."""
    with checked() as found:
        yield found


def normal(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def evaluated(*shape: int, seed: int = 0, dtype: Any = mx.float32) -> mx.array:
    """An array whose memory is its own, of the CPU's backend: it may be overwritten once nobody holds it."""
    a = normal(*shape, seed=seed).astype(dtype) * 1
    mx.eval(a)
    return a


def parameters(n: int, dtype: Any = mx.float32) -> dict[str, mx.array]:
    return {f"p{k}": evaluated(*SHAPES[k % len(SHAPES)], seed=k, dtype=dtype) for k in range(n)}


def on_leaves(plan: Plan) -> list[int]:
    """Outputs that lie where a leaf was, by number."""
    return [k for k, view in enumerate(plan.outputs) if view.buffer.kind == "leaf"]


def plan_of(*outputs: Any, fuse: bool = True) -> Plan:
    (tape,) = _graph.tapes(outputs, "gpu")
    return lower(tape, fuse)


# ---- side by side


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_over_40_parameters_is_a_few_kernels_in_place(plans: list[Plan], name: str, dtype: str) -> None:
    optimizer = OPTIMIZERS[name]()
    model = parameters(40, getattr(mx, dtype))
    optimizer.init(model)
    mx.eval(model, optimizer.state)
    for step in range(3):
        gradients = tree_map(lambda p, step=step: evaluated(*p.shape, seed=step, dtype=p.dtype), model)
        plans.clear()
        model = optimizer.apply_gradients(gradients, model)
        del gradients
        mx.eval(model, optimizer.state)
        (plan,) = plans
        together = [n for n in plan.nodes if isinstance(n, KernelNode) and n.instances]
        # 32 arrays and 8 numbers, which may be computed with what follows from the number of the step.
        assert sum(len(n.instances) for n in together) >= 32
        assert len(together) <= 2 and len(plan.nodes) <= 10
        # New memory is for numbers only, such as the step and the schedule's value.
        assert all(view.buffer.kind == "leaf" for view in plan.outputs if view.dims)


def test_without_fusion_each_op_is_a_kernel() -> None:
    optimizer = optim.SGD(learning_rate=0.1)
    model = parameters(8)
    gradients = tree_map(lambda p: evaluated(*p.shape, seed=9), model)
    optimizer.init(model)
    mx.eval(optimizer.state)
    new = optimizer.apply_gradients(gradients, model)
    plan = plan_of(new, fuse=False)
    assert not any(n.instances for n in plan.nodes if isinstance(n, KernelNode))
    assert all(len(n.covers) == 1 for n in plan.nodes)


def test_more_parameters_than_a_table_holds_are_several_kernels_of_one_source(plans: list[Plan]) -> None:
    optimizer = optim.AdamW(learning_rate=0.1)
    model = {f"p{k}": evaluated(5 + k % 3, seed=k) for k in range(150)}
    gradients = tree_map(lambda p: evaluated(*p.shape, seed=9), model)
    optimizer.init(model)
    mx.eval(optimizer.state)
    plans.clear()
    model = optimizer.apply_gradients(gradients, model)
    mx.eval(model, optimizer.state)
    together = [n for n in plans[0].nodes if isinstance(n, KernelNode) and n.instances]
    assert len(together) == 5 and len({n.source.name for n in together if n.source}) == 1
    for node in together:
        words = sum(len(a[1]) if a[0] == "table" else 1 for a in node.arguments)
        assert words * 8 <= 4096


def test_a_plan_serves_other_sizes_and_numbers(plans: list[Plan]) -> None:
    for n in (3, 50, 4000):
        arrays = [evaluated(n + k, 3, seed=k) for k in range(6)]
        new = [a * (0.5 * n) - n for a in arrays]
        plans.clear()
        del arrays
        mx.eval(new)
        assert len(plans[0].nodes) == 1 and len(on_leaves(plans[0])) == 6
    assert len({id(p) for p in plans}) == 1


def test_three_of_a_kind_are_kernels_of_their_own() -> None:
    arrays = [evaluated(3 + k) for k in range(4)]
    assert len(plan_of([a + 1 for a in arrays[:3]]).nodes) == 3
    assert len(plan_of([a + 1 for a in arrays]).nodes) == 1


def test_programs_dtypes_and_layouts_are_kept_apart(plans: list[Plan]) -> None:
    plain = [evaluated(4, 3 + k) + 1 for k in range(4)]
    other = [evaluated(4, 3 + k) - 1 for k in range(4)]
    half = [evaluated(4, 3 + k, dtype=mx.float16) + 1 for k in range(4)]
    turned = [evaluated(4, 3 + k).T + evaluated(3 + k, 4) for k in range(4)]
    rows = [evaluated(4, 3 + k) + evaluated(3 + k) for k in range(4)]
    mx.eval(plain, other, half, turned, rows)
    instances = [len(n.instances) for n in plans[-1].nodes if isinstance(n, KernelNode)]
    assert sorted(instances) == [0] * 8 + [4] * 3


def test_activations_do_not_wait_for_one_another() -> None:
    weights = [evaluated(6, 8, seed=k) for k in range(5)]
    x = evaluated(3, 6)
    # Of branches: the products would be kept until the last of them.
    assert len(plan_of([mx.maximum(x @ w, 0) for w in weights]).nodes) == 10
    # Of layers: they wait for one another.
    h = x
    kept = []
    for w in weights:
        h = mx.tanh(h @ w @ w.T) + x
        kept.append(h)
    assert not any(n.instances for n in plan_of(kept).nodes if isinstance(n, KernelNode))


def test_gradients_of_weights_that_are_used_transposed_are_read_in_order(plans: list[Plan]) -> None:
    weights = [evaluated(4, 4, seed=k) for k in range(6)]
    x = evaluated(5, 4)
    mx.eval(x)

    def loss(weights: list[mx.array]) -> mx.array:
        h = x
        for w in weights:
            h = mx.tanh(h @ w.T)
        return h.sum()

    for _ in range(2):
        gradients = mx.grad(loss)(weights)
        weights = [w - 0.1 * g for w, g in zip(weights, gradients, strict=True)]
        del gradients
        plans.clear()
        mx.eval(weights)
        (plan,) = plans
        assert [len(n.instances) for n in plan.nodes if isinstance(n, KernelNode) and n.instances] == [6]
        assert len(on_leaves(plan)) == 6


def test_clipping_by_the_norm_stays_in_the_step(plans: list[Plan]) -> None:
    optimizer = optim.AdamW(learning_rate=0.1)
    model = {f"p{k}": evaluated(3, 2 + k % 4, seed=k) for k in range(20)}
    optimizer.init(model)
    mx.eval(optimizer.state)
    gradients = tree_map(lambda p: evaluated(*p.shape, seed=1), model)
    plans.clear()
    clipped, norm = optim.clip_grad_norm(gradients, max_norm=0.5)
    model = optimizer.apply_gradients(clipped, model)
    del clipped, gradients
    mx.eval(model, optimizer.state, norm)
    (plan,) = plans
    together = [n for n in plan.nodes if isinstance(n, KernelNode) and n.instances]
    assert [len(n.instances) for n in together] == [20]
    reductions = [n for n in plan.nodes if n.label.endswith("sum")]
    assert len(reductions) == 20 and len(plan.nodes) <= 20 + 6


class EmulatedPlan:
    """Evaluates by the CPU backend; raises AssertionError if the plan's kernels, run by g++ with the arguments that the
    runtime would pass, compute something else."""

    def __init__(self, tape: Any) -> None:
        self.tape, self.cpu, self.plan = tape, CpuPlan(tape), lower(tape)

    def run(self, sizes: list[int], scalars: list[Any], leaves: list[np.ndarray]) -> list[np.ndarray]:
        memory: dict[int, np.ndarray] = {}
        copies = [np.array(leaf) for leaf in leaves]

        def value(size: Any) -> int:
            return self.plan.table.value(size, list(sizes))

        def block(buffer: Any) -> np.ndarray:
            if id(buffer) not in memory:
                memory[id(buffer)] = np.zeros(value(buffer.nbytes), np.uint8)
                if buffer.kind == "leaf":
                    memory[id(buffer)][:] = copies[buffer.leaf].reshape(-1).view(np.uint8)
            return memory[id(buffer)]

        def argument(a: tuple[Any, ...]) -> bytes:
            match a[0]:
                case "table":
                    return b"".join(argument(word).ljust(8, b"\xee") for word in a[1])
                case "ptr":
                    return np.uint64(block(a[1]).ctypes.data + value(a[2])).tobytes()
                case "i64":
                    return np.int64(value(a[1])).tobytes()
            return {"f32": np.float32, "f64": np.float64, "s64": np.int64}[a[0]](scalars[a[1]]).tobytes()

        for node in self.plan.nodes:
            assert isinstance(node, KernelNode) and node.source is not None
            words = [np.frombuffer(argument(a), np.uint8) for a in node.arguments]
            emulator.launch(node.source, [value(g) for g in node.grid], words)
        expected = self.cpu.run(sizes, scalars, leaves)
        for view, e in zip(self.plan.outputs, expected, strict=True):
            assert value(view.offset) == 0
            np.testing.assert_allclose(block(view.buffer).view(view.dtype), e.reshape(-1), rtol=2e-6, atol=1e-7)
        return expected


@pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")
@pytest.mark.parametrize("name", ["adamw", "lion", "momentum"])
def test_kernels_read_the_tables_that_plans_make(plans: list[Plan], name: str) -> None:
    optimizer = OPTIMIZERS[name]()
    model = {f"p{k}": evaluated(30 + 700 * (k % 3), 1 + k % 4, seed=k) for k in range(40)}
    gradients = tree_map(lambda p: evaluated(*p.shape, seed=99), model)
    optimizer.init(model)
    mx.eval(optimizer.state)
    made: list[EmulatedPlan] = []
    _graph.register_backend("cpu", lambda tape: made.append(EmulatedPlan(tape)) or made[-1])
    for _ in range(3):
        model = optimizer.apply_gradients(gradients, model)
        mx.eval(model, optimizer.state)
    assert any(node.instances for plan in made for node in plan.plan.nodes if isinstance(node, KernelNode))


# ---- in place


def test_a_loop_of_additions_stays_where_it_is(plans: list[Plan]) -> None:
    x = evaluated(4, 5)
    expected = np.array(x)
    for k in range(3):
        plans.clear()
        x = x + 1
        mx.eval(x)
        assert on_leaves(plans[0]) == [0]
        np.testing.assert_array_equal(np.array(x), expected + (k + 1))


HOLDERS = {
    "the array": lambda x: x,
    "an evaluated view": lambda x: (v := x[1:], mx.eval(v))[0],
    "a view": lambda x: x[1:],
    "a transpose": lambda x: x.T,
    "a part of a result": lambda x: x.reshape(-1)[:3],
    "numpy": lambda x: np.array(x, copy=False),
    "a memoryview": memoryview,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_held_is_not_overwritten(plans: list[Plan], holder: str) -> None:
    x = evaluated(4, 5)
    before = np.array(x)
    held = HOLDERS[holder](x)
    expected = np.array(HOLDERS[holder](mx.array(before)))
    plans.clear()
    x = x * 2 + 1
    mx.eval(x)
    assert on_leaves(plans[-1]) == []
    np.testing.assert_array_equal(np.array(held), expected)
    np.testing.assert_array_equal(np.array(x), before * 2 + 1)


def test_views_that_are_evaluated_with_the_result_keep_the_old_values(plans: list[Plan]) -> None:
    x = evaluated(4, 4)
    before = np.array(x)
    view, total, x = x[1:3], x.sum(), x + x[0, 0]
    mx.eval(view, total, x)
    np.testing.assert_array_equal(np.array(view), before[1:3])
    np.testing.assert_allclose(total.item(), before.sum(), rtol=1e-5)
    assert on_leaves(plans[-1]) == [0]  # the view


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + x.T,
        lambda x: x + x[::-1],
        lambda x: x - x[0],
        lambda x: x * x.sum(),
        lambda x: (x + 1).astype(mx.int32),
        lambda x: x[:2] + 1,
        lambda x: (x + 1, x.T * 2),
        lambda x: (x @ x, x * 2),
        lambda x: (mx.softmax(x, axis=-1), x * 2, mx.sort(x, axis=0)),
    ],
)
def test_other_readers_of_the_memory_are_safe(plans: list[Plan], function: Any) -> None:
    x = evaluated(4, 4)
    results = function(x)
    del x
    mx.eval(results)  # the simulator runs it in orders that the edges allow, and compares


def test_other_readers_come_first_where_they_can(plans: list[Plan]) -> None:
    x, w = evaluated(4, 4), evaluated(4, 4, seed=1)
    y = x + 1
    z = mx.softmax(x @ w, axis=-1)
    del x
    mx.eval(y, z)
    plan = plans[-1]
    assert [v.buffer.kind for v in plan.outputs] == ["leaf", "output"]
    assert plan.nodes[-1].label == "add" or plan.nodes[-2].label == "add"


def test_a_number_does_not_wait_for_its_readers(plans: list[Plan]) -> None:
    position, x = evaluated(), evaluated(4, 4)
    y, position = mx.softmax(x * position, axis=-1), position + 1
    mx.eval(y, position)
    assert not any(node.label == "add" for _, k in plans[-1].edges for node in [plans[-1].nodes[k]])
    plans.clear()
    position = position + 1
    mx.eval(position)
    assert on_leaves(plans[0]) == [0]


def test_two_results_that_would_wait_for_one_another(plans: list[Plan]) -> None:
    a, b = evaluated(3, 4), evaluated(3, 4, seed=1)
    c, d = a + b[::-1], b * a[::-1]
    del a, b
    mx.eval(c, d)
    assert len(on_leaves(plans[-1])) == 1


def test_moments_and_parameters_keep_their_places() -> None:
    p, m, g = evaluated(5), evaluated(5, seed=1), evaluated(5, seed=2)
    order = {id(p): 0, id(m): 1}
    assert len(order) == 2
    moment = 0.9 * m + g
    new = p - 0.1 * moment
    del p, m
    (tape,) = _graph.tapes([new, moment], "gpu")
    plan = lower(tape)
    (node,) = plan.nodes
    for i, view in node.outputs.items():
        # A result lies on an array that it is computed from directly: g is held.
        inputs = {tape.leaves[view.buffer.leaf]}
        direct = set(tape.nodes[i].inputs) | {k for j in tape.nodes[i].inputs for k in tape.nodes[j].inputs}
        assert inputs <= direct
    assert len(on_leaves(plan)) == 2


@pytest.mark.parametrize("seed", range(40))
def test_random_updates(plans: list[Plan], seed: int) -> None:
    """Arrays replaced by programs of one another, some held and some not, for a few steps."""
    rng = np.random.default_rng(seed)
    shapes = [(4, 4), (4, 4), (16,), (3, 5), (3, 5), (2, 8)]
    arrays = [evaluated(*s, seed=seed + k) for k, s in enumerate(shapes)]
    values = [np.array(a) for a in arrays]
    held: list[tuple[mx.array, np.ndarray]] = []
    for _ in range(4):
        scale = float(rng.normal())
        for k in rng.permutation(len(arrays)):
            same = [j for j, s in enumerate(shapes) if s == shapes[k]]
            j = int(rng.choice(same))
            kind = rng.integers(5)
            if kind == 0:
                arrays[k], values[k] = arrays[k] * scale + arrays[j], values[k] * np.float32(scale) + values[j]
            elif kind == 1:
                arrays[k], values[k] = arrays[k] + arrays[j][::-1], values[k] + values[j][::-1]
            elif kind == 2:
                arrays[k], values[k] = mx.maximum(arrays[j], arrays[k]), np.maximum(values[j], values[k])
            elif kind == 3:
                arrays[k], values[k] = arrays[k] - arrays[j].sum(), values[k] - values[j].sum()
            if rng.random() < 0.2:
                held.append((arrays[k][1:], values[k][1:]))
        mx.eval(arrays)
        for a, v in zip(arrays, values, strict=True):
            np.testing.assert_allclose(np.array(a), v, rtol=1e-4, atol=1e-4)
    for a, v in held:
        np.testing.assert_allclose(np.array(a), v, rtol=1e-4, atol=1e-4)


def test_the_simulator_sees_a_reader_that_comes_too_late() -> None:
    x, w = evaluated(4, 4), evaluated(4, 4, seed=1)
    leaves = {id(x): np.array(x), id(w): np.array(w)}
    y, z = x + 1, x @ w
    values = list(leaves.values())
    del x
    (tape,) = _graph.tapes([y, z], "gpu")
    plan = lower(tape)
    assert plan.edges == [(0, 1)] and on_leaves(plan)
    plan.edges.clear()
    call = Call(tape.nodes, tape.outputs, tape.leaves, tape.n_sizes, tape.n_scalars, list(tape.sizes), [1.0])
    right = values[0] @ values[1]
    products = [Simulator(plan, call, values, seed).run()[-1] for seed in range(8)]
    assert any(not np.allclose(p, right) for p in products)
