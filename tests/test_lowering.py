"""Plans for the GPU, simulated: programs of every family, random programs, and what plans must look like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import mlxlite.core as mx
import mlxlite.nn as nn
from backend_cuda import sdpa
from backend_cuda.kernels.target import target
from backend_cuda.lowering.plan import KernelNode, MatmulNode, Plan
from backend_cuda.lowering.sym import MOST, SymTable
from mlxlite import _graph
from tests.checked_backend import checked
from tests.random_programs import RandomProgram


@pytest.fixture
def plans() -> Iterator[list[Plan]]:
    """The plans that were lowered and checked."""
    with checked() as found:
        yield found


def normal(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def labels(plan: Plan) -> list[str]:
    return [node.label for node in plan.nodes]


def test_a_chain_of_elementwise_ops_is_one_kernel(plans: list[Plan]) -> None:
    a, b = normal(4, 6), normal(6, seed=1)
    mx.eval(mx.where(mx.exp(a * 2 + b) > 1, mx.sin(a), b) / 3)
    (plan,) = plans
    (node,) = plan.nodes
    assert len(node.covers) == 7


def test_a_chain_longer_than_a_kernel_may_be_is_cut(plans: list[Plan]) -> None:
    a = normal(4)
    for _ in range(200):
        a = a + 1
    mx.eval(a)
    assert 2 <= len(plans[0].nodes) <= 8


def test_views_cost_nothing(plans: list[Plan]) -> None:
    a = normal(4, 6, 8)
    mx.eval(mx.exp(a.transpose(2, 0, 1)[::2, 1:].reshape(4, 1, 3, 6)))
    assert len(plans[0].nodes) == 1


def test_what_was_split_is_put_together_without_a_copy(plans: list[Plan]) -> None:
    a = mx.softmax(normal(4, 9), axis=-1)
    left, middle, right = mx.split(a, 3, axis=1)
    mx.eval(mx.concatenate([left, middle, right], axis=1) @ normal(9, 2), mx.concatenate([right, left], axis=1))
    found = labels(plans[0])
    assert found.count("copy") == 2 and len(found) == 4, found


def test_kept_intermediates_are_outputs_of_the_same_kernel(plans: list[Plan]) -> None:
    a = normal(5)
    b = a * 2
    c = b + 1
    mx.eval(c)
    assert len(plans[0].nodes) == 1
    assert len(plans[0].outputs) == 2
    np.testing.assert_allclose(np.array(b), np.array(a) * 2)


def test_an_update_of_memory_that_nobody_else_holds_writes_only_the_part(plans: list[Plan]) -> None:
    cache = mx.zeros((2, 8, 4)) + 0
    mx.eval(cache)
    for t in range(3):
        plans.clear()
        cache[:, t : t + 1] = normal(2, 1, 4, seed=t)
        mx.eval(cache)
        (plan,) = plans
        assert labels(plan) == ["slice_update"]
        assert plan.outputs[0].buffer.kind == "leaf"


def test_an_update_of_shared_memory_copies_it_first(plans: list[Plan]) -> None:
    a = mx.zeros((4, 4)) + 0
    mx.eval(a)
    plans.clear()
    view = a[1]
    a[1] = 7.0
    mx.eval(a, view)
    assert labels(plans[0]) == ["copy", "slice_update"]
    assert view.tolist() == [0.0] * 4


def test_an_update_from_its_own_memory(plans: list[Plan]) -> None:
    a = mx.arange(8) * 1
    a[1:] = a[:-1]
    assert a.tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
    a[::-1] = a
    assert a.tolist() == [6, 5, 4, 3, 2, 1, 0, 0]


def test_readers_of_donated_memory_come_first(plans: list[Plan]) -> None:
    a = normal(6, 4) * 1
    mx.eval(a)
    before = mx.exp(a)
    a[2:4] = 1.0
    mx.eval(a, before)


def test_a_plan_serves_other_sizes_numbers_and_places(plans: list[Plan]) -> None:
    weight = normal(8, 8, seed=1)
    for n in (3, 5, 30):
        x = normal(n, 8, seed=n)
        y = (x @ weight) * (0.5 * n) + x[n - 1]
        mx.eval(y[1:] * n - y.max(axis=1, keepdims=True)[1:])
    assert len({id(plan) for plan in plans}) == 1


def test_empty_arrays(plans: list[Plan]) -> None:
    empty = mx.zeros((0, 3))
    mx.eval(empty + 1, mx.zeros((3, 0)) @ mx.zeros((0, 4)), mx.concatenate([empty, mx.ones((2, 3))]), empty.sum(axis=0))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_products(plans: list[Plan], dtype: str) -> None:
    d = getattr(mx, dtype)
    a, b = normal(3, 4, 6).astype(d), normal(3, 6, 5, seed=1).astype(d)
    mx.eval(a, b)
    mx.eval(
        a @ b,
        a @ b[0],
        a[:, ::2] @ b[:1],
        a.transpose(0, 2, 1) @ a,
        a[0, 0] @ b[0],
        a[:1, :1] @ b,
        mx.expand_dims(a, 1) @ mx.expand_dims(b, 0),
        a[..., ::2] @ b[:, ::2],
        mx.addmm(b[0, 0, :5], a[0], b[0], 0.5, 2.0),
        mx.broadcast_to(a[:1], (3, 4, 6)) @ b,
    )


@pytest.mark.parametrize("rows", [1, 3])
def test_products_that_are_only_read_transposed_have_their_columns_stored(plans: list[Plan], rows: int) -> None:
    a, b, c = normal(rows, 4), normal(4, 5, seed=1), normal(5, rows, seed=2)
    mx.eval((a @ b).T + c, mx.exp((a.T @ a[:, :2]).T), (b.T @ a.T).T, (a @ b[:, :1]).T * 2)
    views = [v for n in plans[0].nodes if n.label == "matmul" for v in n.outputs.values()]
    matrices = [v for v in views if not any(d.const == 1 for d in v.dims)]
    assert len(views) == 4 and len(matrices) == (3 if rows > 1 else 1)
    assert all(v.strides[0] == 1 for v in matrices)
    product = a @ b
    mx.eval(product, product.T + c)  # held: its rows are stored
    (view,) = (v for n in plans[1].nodes if n.label == "matmul" for v in n.outputs.values())
    assert view.strides[1] == 1


def test_a_sum_with_a_product_is_one_product(plans: list[Plan]) -> None:
    x, w, c = normal(2, 3, 4), normal(5, 4, seed=1), normal(2, 3, 5, seed=2)
    s, t = normal(2, 4, 6, seed=3), normal(2, 3, 6, seed=4)
    mx.eval(c + x @ w.T, t + x @ s, (x.reshape(6, 4) @ w.T).reshape(2, 3, 5) + c, mx.softmax(x @ w.T + c))
    assert [n.label for n in plans[0].nodes] == ["matmul+add"] * 4 + ["softmax"]
    assert all(set(n.places) == {"a", "b", "c", "d"} for n in plans[0].nodes[:4] if isinstance(n, MatmulNode))
    chain = c
    for _ in range(3):
        chain = chain + chain @ normal(5, 5, seed=5)
    mx.eval(chain)
    assert [n.label for n in plans[1].nodes] == ["matmul+add"] * 3
    mx.eval(x @ w.T + (x * 2) @ w.T)  # one of them adds the other
    assert sorted(n.label for n in plans[2].nodes) == ["matmul", "matmul+add", "multiply"]


def test_sums_that_no_product_adds(plans: list[Plan]) -> None:
    x, w, c = normal(6, 4), normal(5, 4, seed=1), normal(6, 5, seed=2)
    held = x @ w.T
    mx.eval(held, held + c)
    mx.eval((x @ w.T).reshape(5, 6) + normal(6, 5, seed=3).T)  # known to lie otherwise when it is lowered
    mx.eval(x @ w.T + normal(5, seed=4))
    mx.eval(x @ w.T + 2)
    y = x @ w.T
    mx.eval(y + y)
    mx.eval(mx.exp(x @ w.T + c))  # more than a sum
    mx.eval(normal(1, 4) @ w.T + normal(1, 5))
    mx.eval((c + x @ w.T).sum())  # read by a reduction alone: never written
    mx.eval((x @ w.T).T + c.T)
    for plan in plans:
        assert not any("c" in n.places for n in plan.nodes if isinstance(n, MatmulNode)), [n.label for n in plan.nodes]


def test_a_product_comes_before_an_update_of_what_it_reads_though_a_sum_reads_the_update(plans: list[Plan]) -> None:
    x, w = normal(6, 4), normal(4, 4, seed=1)
    mx.eval(x, w)
    product = x @ w
    x[0] = 1.0
    mx.eval(x, product + x)
    assert [name for name in labels(plans[-1]) if name != "scalar"] == ["matmul", "slice_update", "add"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_addmm_of_a_whole_array_is_one_product(plans: list[Plan], dtype: str) -> None:
    with mx.stream(mx.cpu):
        c, a, b = (normal(*s, seed=k).astype(getattr(mx, dtype)) for k, s in enumerate([(3, 5), (3, 4), (4, 5)]))
        mx.eval(c, a, b)
        plans.clear()
        mx.eval(mx.addmm(c, a, b, 0.5, 2.0))
        mx.eval(mx.addmm(c.T.reshape(3, 5), a, b), mx.addmm(mx.contiguous(c.T).T, a, b), mx.addmm(c[0], a, b))
    (node,) = plans[0].nodes
    assert isinstance(node, MatmulNode) and "c" in node.places and node.options["alpha"] is not None
    assert sum("c" in n.places for n in plans[1].nodes if isinstance(n, MatmulNode)) == 1


REDUCTIONS = ("sum", "max", "min", "mean", "prod", "logsumexp", "any", "all")


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(plans: list[Plan], name: str) -> None:
    a = normal(4, 5, 6)
    mx.eval(a)
    function = getattr(mx, name)
    views = (a, a.transpose(2, 0, 1), a[:, ::2], mx.broadcast_to(a[:, :1], (4, 3, 6)), a.T[1:])
    mx.eval([function(v, axis=axis) for v in views for axis in (0, 1, 2, (0, 2), (1, 2), None)])


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(plans: list[Plan], seed: int) -> None:
    mx.eval(RandomProgram(mx, seed, ("reduce", "matmul", "indexing", "sort", "fast")).run(14))


def test_an_op_without_a_lowering_is_named(plans: list[Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    from backend_cuda.lowering import builder

    monkeypatch.delitem(builder.LOWERINGS, "matmul")
    with pytest.raises(NotImplementedError, match=r"\[matmul\].*float32.*mx\.cpu"):
        mx.eval(normal(3, 3) @ normal(3, 3))


def test_the_simulator_sees_a_missing_edge(plans: list[Plan]) -> None:
    """A check of the check: without its edges a plan of dependent nodes gives garbage in some order."""
    from tests import checked_backend
    from tests.plan_simulator import Simulator

    captured: list[Any] = []
    original = Simulator.run

    def run(self: Simulator) -> list[np.ndarray]:
        captured.append(self)
        self.plan.edges.clear()
        return original(self)

    a = normal(6, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Simulator, "run", run)
        patch.setattr(checked_backend, "ORDERS", 8)
        with pytest.raises(AssertionError):
            mx.eval(((a @ a) @ (a @ a + 1)) @ a)
    assert captured
    assert any(isinstance(n, KernelNode) for n in captured[0].plan.nodes)


@pytest.mark.parametrize("axis", [None, 0, 1, 2, (0, 2)], ids=str)
@pytest.mark.parametrize("name", ["sum", "max", "logsumexp", "mean"])
def test_reductions_of_expressions(plans: list[Plan], name: str, axis: int | None) -> None:
    a, b, c = normal(3, 40, 7), normal(40, 1, seed=1), normal(7, seed=2)
    mx.eval(getattr(mx, name)(mx.tanh(a * b) * 0.5 - c, axis=axis))
    assert len(plans[-1].nodes) == (2 if name == "mean" else 1), labels(plans[-1])


def test_positions_of_expressions(plans: list[Plan]) -> None:
    a = normal(5, 33)
    mx.eval(mx.argmax(a.T * 2 + 1), mx.argmin(mx.abs(a), axis=1), (a > 0).any(axis=0), mx.where(a > 0, a, 0).prod())
    assert len(plans[-1].nodes) == 4


def test_a_group_that_others_read_is_not_only_reduced(plans: list[Plan]) -> None:
    a, c, d = normal(4, 9), normal(4, 9, seed=1), normal(4, 9, seed=2)
    mx.eval((lambda y: y - y.sum(axis=0, keepdims=True))(mx.exp(a) * c * d))
    assert len(plans[-1].nodes) == 3
    b = a * 2
    mx.eval(b.sum(), b)
    assert len(plans[-1].nodes) == 2


def test_cheap_groups_are_computed_by_each_reader(plans: list[Plan]) -> None:
    a, b = normal(9, 4), normal(1, 4, seed=1)
    mx.eval((lambda y: y - y.sum(axis=0, keepdims=True))(a * 2 + 1))
    assert labels(plans[-1]) == ["multiply+add+sum", "multiply+add+subtract"]
    short = a.astype(mx.float16)
    mx.eval(short)
    mx.eval((lambda y: y - mx.logsumexp(y, axis=0, keepdims=True))(short.astype(mx.float32) - b))
    assert labels(plans[-1]) == ["astype+subtract+logsumexp", "astype+subtract+subtract"]
    mx.eval((lambda y: y - y.sum(axis=0, keepdims=True))(a + normal(9, 4, seed=2)))  # reads more than it writes
    assert len(plans[-1].nodes) == 3
    mx.eval((lambda y: [y - y.sum(axis=0, keepdims=True), y @ normal(4, 4)])(a * 2 + 1))  # a product reads memory
    assert len(plans[-1].nodes) == 4


def test_rows_are_one_kernel(plans: list[Plan]) -> None:
    x, w = normal(4, 9), normal(9, seed=1)

    def norm(x: mx.array) -> mx.array:
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred * mx.rsqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5) * w

    def softmax(x: mx.array) -> mx.array:
        e = mx.exp(x - x.max(axis=-1)[..., None])
        return e / e.sum(axis=-1, keepdims=True)

    def chain(x: mx.array) -> mx.array:
        for i in range(24):
            x = mx.exp(-x * 0.5) + x.sum(axis=-1, keepdims=True) * 1e-3 if i % 4 == 0 else x * 1.01 - 0.1
        return x

    for f in (norm, softmax, chain, lambda x: norm(x).astype(mx.bfloat16).astype(mx.float32)):
        mx.eval(f(x))
        assert len(plans[-1].nodes) == 1, labels(plans[-1])
    mx.eval(softmax(x.reshape(2, 2, 9).transpose(1, 0, 2)), softmax(x.T))  # rows that are apart, and that are columns
    # What others read is written; what is not over the same rows is not part of it.
    e = mx.exp(x)
    total = e.sum(axis=-1, keepdims=True)
    mx.eval(e / total, e, total, total.T * 2)
    assert len(plans[-1].nodes) == 2 and len(plans[-1].nodes[0].outputs) == 3
    mx.eval((lambda y: y / y.sum(axis=-1, keepdims=True))(normal(2, 9000)))  # too long for registers
    assert len(plans[-1].nodes) > 1
    mx.eval((lambda y: y - y.sum(axis=-1, keepdims=True))(mx.arange(12).reshape(3, 4)))  # integers
    assert len(plans[-1].nodes) > 1
    mx.eval(mx.softmax(x, axis=-1) @ normal(9, 9) + x.sum(axis=-1, keepdims=True), x.sum(axis=-1))


def test_rows_of_repeated_values(plans: list[Plan]) -> None:
    column, x = normal(4, 1), normal(4, 9, seed=1)
    same = mx.broadcast_to(column, (4, 9))
    mx.eval(same / same.sum(axis=-1, keepdims=True))
    assert len(plans[-1].nodes) == 1
    mx.eval((lambda s: [mx.zeros((4, 9)) + s, x * s])(x.sum(axis=-1, keepdims=True)))
    mx.eval((lambda y: [mx.exp(y) / y.sum(axis=-1, keepdims=True), y * 2])(mx.broadcast_to(x[:, :1], (4, 9))))


def test_attention_by_a_library_and_its_gradient(plans: list[Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    """As where cuDNN takes every call. The result of an attention is the queries of the next: sums are not mixed up."""
    monkeypatch.setattr(sdpa, "can_be_used", lambda: True)
    monkeypatch.setattr(sdpa.Callback, "entry_for", lambda *call: None)
    q, k, v = (normal(2, heads, 8, 16, seed=s).astype(mx.bfloat16) for s, heads in enumerate((4, 2, 2)))
    mask = normal(1, 1, 8, seed=5).astype(mx.bfloat16)
    mx.eval(q, k, v, mask)

    def twice(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        first = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.25, mask="causal")
        return mx.fast.scaled_dot_product_attention(first, k, v, scale=0.5, mask=mask)

    mx.eval(mx.vjp(twice, [q, k, v], [q])[1])
    found = labels(plans[-1])
    assert found.count("sdpa+sdpa_lse") == found.count("sdpa_vjp") == 2 and "sdpa_lse" not in found, found


def test_row_programs_serve_rows_of_any_length(plans: list[Plan]) -> None:
    def program(x: mx.array) -> mx.array:
        x = x / mx.logsumexp(x, axis=-1, keepdims=True)
        return x * x.min(axis=-1, keepdims=True)

    for shape in ((3, 40), (5, 300), (2, 70), (1, 2)):
        mx.eval(program(normal(*shape)))
    found = {id(plan): plan for plan in plans}
    # One row is a case of its own, and so are lengths of which a thread holds more.
    assert len(found) == 4 and all(len(plan.nodes) == 1 for plan in found.values())


def test_row_programs_take_elements_that_are_apart(plans: list[Plan]) -> None:
    x = normal(2, 2 * 8192)[:, ::2]
    mx.eval(x / mx.logsumexp(x, axis=-1, keepdims=True))
    assert len(plans[-1].nodes) == 1


def test_kernels_are_chosen_for_ranges_of_sizes(plans: list[Plan]) -> None:
    def builds(*lengths: int, rows: int = 3) -> int:
        before = _graph.cache_info()["cpu"]["builds"]
        for n in lengths:
            mx.eval(mx.softmax(normal(rows, n), axis=-1))
        return _graph.cache_info()["cpu"]["builds"] - before

    assert builds(1000) == 1 and builds(1000, 1004, 996) == 0
    assert builds(40, 4000) == 2 and builds(40, 1000, 4000, 41) == 0
    assert builds(1000, rows=5000) == 1 and builds(1000, rows=7000) == 0
    few = _graph.cache_info()["cpu"]["builds"]
    for n in range(3, 60):  # no choice depends on the sizes of elementwise ops
        mx.eval(normal(n, 4) * 2)
    assert _graph.cache_info()["cpu"]["builds"] - few <= 2


def test_a_structure_has_16_plans_at_most(plans: list[Plan]) -> None:
    """Sizes for which there is none then take the nearest."""
    used = {}
    for shape in [*((3, 2**k) for k in range(3, 14)), *((2048, n) for n in (20, 40, 60, 90, 120, 200))]:
        mx.eval(mx.softmax(normal(*shape), axis=-1))
        used[shape] = plans[-1]
    assert len({id(plan) for plan in used.values()}) == 16
    mx.eval(mx.softmax(normal(2048, 300), axis=-1))
    assert plans[-1] is used[3, 512]  # made for up to 2047 rows of such a length


def test_ranges_of_choices() -> None:
    table = SymTable([6, 50, 1])
    a, b = table.size(0), table.size(1)
    assert table.choose(lambda kind, n: (kind, n > 32), "x", of=(b,)) == ("x", True)
    assert table.ranges == [(33, MOST, ((1, (1,)),))]
    assert table.choose(lambda n: 10 <= n < 100, of=(b,)) and table.ranges == [(33, 99, ((1, (1,)),))]
    assert not table.choose(lambda m, n: m >= 1000 or n >= 7, of=(a * b, a))
    assert table.ranges[1:] == [(0, 999, ((1, (0, 1)),)), (0, 6, ((1, (0,)),))]
    # Few rows of any length and long ones of any number, but not many short ones.
    table = SymTable([1000, 1000])
    a, b = table.size(0), table.size(1)
    assert not table.choose(lambda rows, n: rows >= 5000 and n <= 100, of=(a, b))
    (least, most, _), (shortest, longest, _) = table.ranges
    assert 1 <= least <= 1000 <= most and 1 <= shortest <= 1000 <= longest and (most < 5000 or shortest > 100)
    table = SymTable([6, 50, 1])
    assert table.choose(lambda n: n, of=(table.lift(4),)) == 4 and not table.ranges
    assert table.choose(lambda n: n > 2, of=(table.cdiv(table.size(1), 3),)) and not table.ranges  # no polynomial


def test_choices_are_made_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def choice(n: int) -> int:
        return n // target.multiprocessors

    def chosen() -> int:
        table = SymTable([1000])
        return table.choose(choice, of=(table.size(0),))

    monkeypatch.setattr(target, "multiprocessors", 100)
    assert chosen() == 10
    monkeypatch.setattr(target, "multiprocessors", 50)
    assert chosen() == 20


def test_steps_of_an_activation_are_computed_again_for_its_gradient(plans: list[Plan]) -> None:
    x, w = normal(6, 4), normal(4, 4, seed=1)

    def loss(x: mx.array) -> mx.array:
        h = x @ w
        return ((h * mx.sigmoid(1.5 * h)) @ w).sum()

    mx.eval(mx.grad(loss)(x))
    written = [node.label for node in plans[-1].nodes for v in node.outputs.values() if len(v.dims) == 2]
    # The products, the activation for the second of them, and the two gradients; no sigmoid.
    assert len(written) == 4, written
    # What costs more to read again, what a product reads, and what is asked for is in memory.
    a, b, c = (normal(6, 4, seed=s) for s in (2, 3, 4))
    e = mx.exp(a + b + c)
    mx.eval(e @ w, e * 2 + (e @ w).sum())
    assert labels(plans[-1])[0] == "add+add+exp"
    f = mx.exp(a) * 2
    mx.eval(f, (f @ w).sum() + f)
    assert len(plans[-1].nodes[0].outputs) == 1 and plans[-1].nodes[0].label == "exp+multiply"


def test_an_update_waits_for_who_computes_again_what_was_read(plans: list[Plan]) -> None:
    a, w = normal(6, 4) * 1, normal(4, 4, seed=1)
    mx.eval(a, w)
    before = np.array(a)

    def read(a: mx.array) -> tuple[mx.array, mx.array]:
        e = mx.exp(a)
        return (e * 2) @ w, e + a.sum() * 0.5

    product, again = read(a)
    a[1:2] = 5
    mx.eval(product, again, a)
    assert "copy" not in labels(plans[-1]) and labels(plans[-1])[-1] == "slice_update", labels(plans[-1])
    np.testing.assert_allclose(np.array(again), np.exp(before) + 0.5 * before.sum(), rtol=1e-5)
    assert a[1, 0].item() == 5


def test_a_cross_entropy_reads_16_bit_logits_and_writes_nothing_of_their_size(plans: list[Plan]) -> None:
    x, w, targets = normal(6, 4).astype(mx.bfloat16), normal(4, 40).astype(mx.bfloat16), mx.array([3, 0, 39, 7, 7, 1])
    mx.eval(x, w)

    def loss(x: mx.array) -> mx.array:
        return nn.losses.cross_entropy((x @ w).astype(mx.float32), targets, reduction="mean")

    mx.eval(mx.value_and_grad(loss)(x))
    plan = plans[-1]
    large = [v for node in plan.nodes for v in node.outputs.values() if plan.table.value(v.buffer.nbytes) >= 2 * 6 * 40]
    assert len(large) == 2 and {v.dtype for v in large} == {"bfloat16"}, labels(plan)  # the logits and their gradient


def test_expressions_of_numbers_are_reduced(plans: list[Plan]) -> None:
    mx.eval(mx.zeros((3, 4)).sum(axis=0), (mx.arange(5) * 2).sum())
    assert len(plans[-1].nodes) == 3


def test_reductions_before_an_update_in_place(plans: list[Plan]) -> None:
    a = normal(4, 6) * 1
    mx.eval(a)
    total = (a * a).sum(axis=0)
    a[1:2] = 5
    mx.eval(total, a)
    assert a[1, 0].item() == 5


def test_small_groups_are_computed_again_where_they_are_broadcast(plans: list[Plan]) -> None:
    a, row, column = normal(4, 9), normal(9, seed=1), normal(4, 1, seed=2)
    mx.eval(a * mx.exp(row * 2) + mx.sqrt(mx.abs(column)) - row.sum() * 0.5)
    assert sorted(len(node.covers) for node in plans[-1].nodes) == [1, 8], labels(plans[-1])


def test_groups_that_are_asked_for_or_read_twice_stay(plans: list[Plan]) -> None:
    a, row = normal(4, 9), normal(9, seed=1)
    e = mx.exp(row)
    mx.eval(a * e, e)
    assert len(plans[-1].nodes) == 2
    mx.eval((lambda e: [mx.softmax(e, axis=-1), a * e])(mx.exp(row)))
    assert len(plans[-1].nodes) == 3


def test_a_group_that_waits_for_a_sum_takes_what_does_not(plans: list[Plan]) -> None:
    a = normal(4, 9)
    mx.eval((lambda y: y - y.sum(axis=0, keepdims=True) * 0.01)(mx.exp(a)))
    assert labels(plans[-1]) == ["exp+sum", "exp+multiply+subtract"]
    mx.eval(mx.exp(a) * a.sum(axis=0, keepdims=True))
    assert len(plans[-1].nodes) == 2


def test_a_group_is_not_moved_behind_an_update_of_what_it_reads(plans: list[Plan]) -> None:
    a = normal(6) * 1
    mx.eval(a)
    before = mx.exp(a)
    a[1:3] = 7
    result = before + mx.softmax(a, axis=-1)
    del before
    mx.eval(result, a)
    assert a.tolist()[1:3] == [7, 7]


@pytest.mark.parametrize("shape, order", [((40, 33), (1, 0)), ((3, 20, 17), (2, 0, 1)), ((2, 18, 3, 40), (0, 3, 2, 1))])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "complex64"])
def test_transposes_go_through_shared_memory(plans: list[Plan], shape: Any, order: Any, dtype: str) -> None:
    a = mx.array(np.arange(np.prod(shape)).reshape(shape) % 200).astype(getattr(mx, dtype))
    mx.eval(a)
    mx.eval(mx.contiguous(a.transpose(order)), mx.contiguous(a.transpose(order)[..., ::2]))
    names = [n.source.name for n in plans[-1].nodes if isinstance(n, KernelNode) and n.source is not None]
    assert names[0].startswith("transpose"), names


def test_short_rows_are_copied_element_by_element(plans: list[Plan]) -> None:
    a = normal(40, 3)
    mx.eval(mx.contiguous(a.T), mx.contiguous(normal(40, 30)[:, ::3]))
    names = [n.source.name for n in plans[-1].nodes if isinstance(n, KernelNode) and n.source is not None]
    assert not any(name.startswith("transpose") for name in names), names


def test_decoding_a_text_that_grows_long_takes_another_plan(plans: list[Plan]) -> None:
    """One for short texts, one from 12,288 keys of 128 features on."""
    q, k = normal(1, 4, 1, 128).astype(mx.bfloat16), normal(1, 1, 1, 128).astype(mx.bfloat16)
    mx.eval(q, k)
    plans.clear()
    for n in (2000, 12_287, 12_288, 20_000):
        keys = mx.broadcast_to(k, (1, 1, n, 128))
        mx.eval(mx.fast.scaled_dot_product_attention(q, keys, keys, scale=1.0))
    assert [plans.index(plan) for plan in plans] == [0, 0, 2, 2]
    assert [plan.nodes[-1].source.launch.cluster for plan in plans] == [8, 8, 2, 2]


def test_long_columns_of_short_elements_have_more_in_flight(plans: list[Plan]) -> None:
    """Where every thread has enough of them, over however many dims."""
    x = mx.zeros((70_000, 64), dtype=mx.bfloat16)
    mx.eval(mx.sum(x, axis=0))
    mx.eval(mx.sum(mx.abs(x.reshape(70, 1000, 8, 8)), axis=(0, 1)))
    mx.eval(mx.sum(x[:2000], axis=0))
    mx.eval(mx.argmax(x, axis=0))
    mx.eval(mx.sum(x.astype(mx.float32) + x[0] * x[1], axis=0))
    names = [plan.nodes[-1].source.name for plan in plans if isinstance(plan.nodes[-1], KernelNode)]
    assert ["deep_columns" in name for name in names] == [True, True, False, False, False]


@pytest.mark.parametrize("name", ["cumsum", "cummax", "logcumsumexp"])
def test_a_scan_down_columns_leaves_them_where_they_are(plans: list[Plan], name: str) -> None:
    a, b = normal(3, 70, 40), normal(3, 40, 70)
    for reverse in (False, True):
        mx.eval(getattr(mx, name)(a, axis=1, reverse=reverse))
    mx.eval(getattr(mx, name)(b.transpose(0, 2, 1), axis=1))  # whose columns are rows in memory
    mx.eval(getattr(mx, name)(a[:, :, :3], axis=1))  # too few for a block
    assert [len(plan.nodes) for plan in plans] == [1, 1, 1, 2]


def test_a_long_scan_is_by_many_blocks(plans: list[Plan]) -> None:
    a = normal(2, 40_000)
    for x, axis in ((a, 1), (a.reshape(2000, 40), 0)):
        mx.eval(mx.cumsum(x, axis=axis))
        (scan,) = plans[-1].nodes
        assert isinstance(scan, KernelNode)
        kept = [buffer for buffer in scan.writes if buffer.kind == "kept"]
        assert len(kept) == 1 and plans[-1].table.value(kept[0].nbytes) > 128  # more than what tells launches apart
