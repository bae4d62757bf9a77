"""Plans of one-row products: what they are fused with, and what keeps them apart. Every plan is simulated."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mlxlite.core as mx
from backend_cuda.lowering.plan import Plan
from tests.checked_backend import checked

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import llama


@pytest.fixture
def plans() -> Iterator[list[Plan]]:
    """The plans that were lowered and checked."""
    with checked() as found:
        yield found


def normal(*shape: int, seed: int = 0) -> mx.array:
    a = mx.array(np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32))
    mx.eval(a)
    return a


def labels(plan: Plan) -> list[str]:
    return [node.label for node in plan.nodes]


def ops(plan: Plan, number: int) -> list[str]:
    return plan.nodes[number].label.split("+")


def last(plans: list[Plan]) -> Plan:
    return plans[-1]


def model(**changes: object) -> llama.Llama:
    options = {
        "hidden_size": 24, "intermediate_size": 40, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8,
        "vocab_size": 50,
    } | changes  # fmt: skip
    made = llama.Llama(llama.Config(**options))  # type: ignore[arg-type]
    mx.eval(made.parameters())
    return made


@pytest.mark.parametrize(
    "changes",
    [{}, {"qkv_bias": True}, {"rope_scaling": {"type": "factors", "factors": [1.0, 2.0, 3.0, 4.0]}}, {"n_kv_heads": 1}],
    ids=["plain", "bias", "frequencies", "one head"],
)
def test_a_layer_of_decoding_is_five_kernels(plans: list[Plan], changes: dict) -> None:
    network = model(**changes)
    caches = network.make_caches()
    token = mx.argmax(network(mx.array([[3, 1, 4, 1, 5]]), caches, last_only=True)[:, -1], axis=-1)
    mx.eval(token)
    for _ in range(3):
        token = mx.argmax(network(token[None], caches, last_only=True)[:, -1], axis=-1)
        mx.eval(token)
    plan = last(plans)
    found = labels(plan)
    # The embedding, five kernels a layer, the logits with the last norm, the likeliest token.
    assert len(found) == 1 + 2 * 5 + 2, found
    first = set(ops(plan, 1))
    assert {"rms_norm", "rope"} <= first
    assert len(plan.nodes[1].covers) == 8  # a norm, three products, two ropes and two updates
    assert "sdpa" in found[2]
    assert set(ops(plan, 3)) == {"matmul", "add"} and set(ops(plan, 5)) == {"matmul", "add"}
    assert {"rms_norm", "matmul", "sigmoid", "multiply"} == set(ops(plan, 4))
    assert set(ops(plan, 11)) == {"rms_norm", "matmul"}


def test_decoding_step_by_step_is_the_prompt_at_once(plans: list[Plan]) -> None:
    network = model(qkv_bias=True)
    tokens = mx.array([[3, 1, 4, 1, 5, 9]])
    whole = network(tokens)
    caches = network.make_caches()
    steps = [network(tokens[:, t : t + 1], caches) for t in range(6)]
    np.testing.assert_allclose(np.array(mx.concatenate(steps, axis=1)), np.array(whole), rtol=2e-4, atol=2e-4)


def test_a_norm_that_others_read_stays(plans: list[Plan]) -> None:
    x, scale, w = normal(1, 12), normal(12), normal(5, 12)
    y = mx.fast.rms_norm(x, scale, 1e-5)
    mx.eval(y @ w.T, y * 2)
    assert len(last(plans).nodes) == 3
    z = mx.fast.rms_norm(x, scale, 1e-5)
    mx.eval(z @ w.T + 1, z)
    assert sorted(labels(last(plans))) == ["matmul+add", "rms_norm"]


def test_a_norm_and_all_its_products_are_one_kernel(plans: list[Plan]) -> None:
    x, scale = normal(1, 12), normal(12)
    weights = [normal(4 + i, 12, seed=i) for i in range(3)]
    y = mx.fast.rms_norm(x, scale, 1e-5)
    products = [y @ w.T for w in weights]
    del y
    mx.eval(products)
    assert [sorted(n.split("+")) for n in labels(last(plans))] == [["matmul"] * 3 + ["rms_norm"]]


@pytest.mark.parametrize("shape", [(12,), (1, 12), (1, 1, 12)])
def test_epilogues(plans: list[Plan], shape: tuple[int, ...]) -> None:
    x, w, r = normal(*shape), normal(7, 12), normal(*shape[:-1], 7, seed=1)
    mx.eval(mx.tanh(x @ w.T * 0.5 + r) - r)
    assert len(last(plans).nodes) == (1 if len(shape) > 1 else 2), labels(last(plans))


def test_an_epilogue_that_needs_the_product_twice(plans: list[Plan]) -> None:
    """The sum of the product comes between: the elementwise op cannot be in the product's kernel."""
    x, w = normal(1, 12), normal(7, 12)
    p = x @ w.T
    mx.eval(p * p.sum())
    assert len(last(plans).nodes) == 3


def backwards(a: mx.array) -> mx.array:
    return a[..., ::-1]


def turned(a: mx.array) -> mx.array:
    heads = mx.fast.rope(a.reshape(1, 2, 1, 6), 6, traditional=False, base=1e4, scale=1.0, offset=3)
    return heads.reshape(1, 12)


@pytest.mark.parametrize(
    "combine",
    [
        lambda a, b, c: a * mx.sigmoid(b) + c,
        lambda a, b, c: a * mx.sigmoid(backwards(b)) + c,
        lambda a, b, c: a * mx.sigmoid(turned(b)) * backwards(c),
        lambda a, b, c: (a + mx.exp(backwards(b)), backwards(c) * a, b),
        lambda a, b, c: (backwards(a) + b, backwards(b) + c),
    ],
)
def test_a_product_waits_for_others_of_the_same_row(plans: list[Plan], combine: object) -> None:
    """What an epilogue reads of another product must have been written by another kernel."""
    x, scale, weights = normal(1, 12), normal(12), [normal(12, 12, seed=i) for i in range(3)]
    for row in (x, mx.fast.rms_norm(x, scale, 1e-5)):
        mx.eval(combine(*(row @ w.T for w in weights)))  # type: ignore[operator]
        assert len(last(plans).nodes) > 1


def test_products_of_the_same_row_may_wait_in_a_chain(plans: list[Plan]) -> None:
    """The second reads the first, whose last step reads the third."""
    x, a, b, c = normal(1, 12), *(normal(12, 12, seed=i) for i in range(3))
    first = mx.tanh(x @ a.T)
    second = x @ b.T + backwards(first)
    mx.eval(second, first * backwards(x @ c.T))
    assert len(last(plans).nodes) == 3


def test_a_cast_of_a_product_is_computed_where_it_is_read(plans: list[Plan]) -> None:
    """By the epilogue of another product of the same row, too, which so reads the one that was cast."""
    x, weights = normal(1, 12).astype(mx.bfloat16), [normal(12, 12, seed=i).astype(mx.bfloat16) for i in range(4)]
    mx.eval(x, weights)

    def program() -> list[mx.array]:
        a, b, c, d = (x @ w.T for w in weights)
        cast = b.astype(mx.float32)
        return [cast + backwards(mx.tanh(c)) + a, cast * backwards(mx.tanh(d))]

    mx.eval(program())
    assert [label.count("matmul") for label in labels(last(plans))] == [3, 1, 0]
    assert all("astype" in label for label in labels(last(plans))[1:])


def test_a_bias_may_be_another_product_of_the_same_row(plans: list[Plan]) -> None:
    x, a, b = normal(1, 12), normal(12, 12, seed=1), normal(12, 12, seed=2)
    mx.eval(mx.addmm(backwards(x @ a.T), x, b.T))
    assert len(last(plans).nodes) == 2
    mx.eval(mx.addmm(mx.exp(x @ a.T), x, b.T))
    assert len(last(plans).nodes) == 2


def test_a_circle_through_another_product_is_avoided(plans: list[Plan]) -> None:
    """p + f(p) @ v: the sum reads p and what follows from it."""
    x, w, v = normal(1, 12), normal(7, 12), normal(7, 7, seed=3)
    p = x @ w.T
    mx.eval(p + mx.softmax(p, axis=-1) @ v.T)
    found = [sorted(n.split("+")) for n in labels(last(plans))]
    assert found == [["matmul"], ["softmax"], ["add", "matmul"]]


def test_a_circle_through_an_update_is_avoided(plans: list[Plan]) -> None:
    """Each update overwrites one product's bias, after it was read, and is read by the other product's epilogue: either
    epilogue may be fused, both at once would wait for one another."""
    x, w, v = normal(1, 12), normal(7, 12), normal(7, 12, seed=2)
    biases = [mx.exp(normal(1, 7, seed=s)) for s in (3, 4)]
    products = [mx.addmm(c, x, m.T) for c, m in zip(biases, (w, v), strict=True)]
    for c in biases:
        c[:, 2:4] = 0.5
    y, z = products[0] * biases[1], products[1] * biases[0]
    del products, biases
    mx.eval(y, z)
    assert "addmm+multiply" in labels(last(plans))
    expected = []
    for s, m, t in ((3, w, 4), (4, v, 3)):
        c, other = np.exp(np.array(normal(1, 7, seed=s))), np.exp(np.array(normal(1, 7, seed=t)))
        other[:, 2:4] = 0.5
        expected.append((np.array(x) @ np.array(m).T + c) * other)
    np.testing.assert_allclose(np.array(y), expected[0], rtol=1e-5)
    np.testing.assert_allclose(np.array(z), expected[1], rtol=1e-5)


def test_gated_products_of_two_inputs_are_not_combined(plans: list[Plan]) -> None:
    x, y, w, v = normal(1, 12), normal(1, 12, seed=1), normal(7, 12), normal(7, 12, seed=2)
    mx.eval(x @ w.T * (y @ v.T))
    assert sorted(len(n.covers) for n in last(plans).nodes) == [1, 2]


def test_products_that_are_asked_for_are_written(plans: list[Plan]) -> None:
    x, w, v = normal(1, 12), normal(7, 12), normal(7, 12, seed=2)
    g, u = x @ w.T, x @ v.T
    mx.eval(mx.sigmoid(g) * u, g)
    assert len(last(plans).nodes) == 1


@pytest.mark.parametrize("bias", [(7,), (1,), (1, 7), ()], ids=str)
def test_biases(plans: list[Plan], bias: tuple[int, ...]) -> None:
    x, w = normal(1, 12), normal(7, 12)
    c = normal(*bias, seed=5)
    mx.eval(mx.addmm(c, x, w.T, alpha=0.5, beta=2.0))
    assert len(last(plans).nodes) == 1
    mx.eval(mx.maximum(mx.addmm(c, x, w.T), 0))
    assert len(last(plans).nodes) == 1
    mx.eval(mx.addmm(normal(14, seed=6)[::2], x, w.T))
    assert len(last(plans).nodes) == 1


def test_other_sizes_of_the_same_structure(plans: list[Plan]) -> None:
    for k, n in ((12, 7), (8, 3), (33, 20), (64, 2)):
        x, scale, w, r = normal(1, k), normal(k), normal(n, k), normal(1, n)
        mx.eval(mx.fast.rms_norm(x, scale, 1e-5) @ w.T + r)
    for heads, features, turned in ((2, 8, 8), (3, 10, 8), (4, 13, 8)):
        x, w = normal(1, 1, 12), normal(heads * features, 12)
        cache = normal(1, heads, 9, features)
        q = (x @ w.T).reshape(1, 1, heads, features).transpose(0, 2, 1, 3)
        q = mx.fast.rope(q, turned, traditional=False, base=100.0, scale=1.0, offset=heads)
        cache[:, :, 4:5] = q
        del q
        mx.eval(cache)
        assert len(last(plans).nodes) <= 2  # the cache may have to be copied


def test_time_is_not_taken_for_heads(plans: list[Plan]) -> None:
    """Positions that are folded out of a row: each is turned by its own angle."""
    x, w = normal(1, 12), normal(24, 12)
    y = (x @ w.T).reshape(1, 3, 8)
    mx.eval(mx.fast.rope(y, 8, traditional=True, base=100.0, scale=1.0, offset=2))
    assert len(last(plans).nodes) == 2


def test_a_row_in_another_order_is_not_taken_for_heads(plans: list[Plan]) -> None:
    x, w = normal(1, 12), normal(24, 12)
    y = (x @ w.T).reshape(1, 8, 3).transpose(0, 2, 1)[:, :, None]
    mx.eval(mx.fast.rope(y, 8, traditional=False, base=100.0, scale=1.0, offset=2))
    assert len(last(plans).nodes) >= 2
    z = (x @ w.T).reshape(4, 6).T.reshape(1, 24)
    mx.eval(z @ normal(5, 24).T)
    assert len(last(plans).nodes) >= 2


def test_a_cache_that_is_read_before_the_update(plans: list[Plan]) -> None:
    x, w = normal(1, 12), normal(8, 12)
    cache = normal(5, 8) * 1
    mx.eval(cache)
    before = cache.sum(axis=0)
    cache[2:3] = x @ w.T
    mx.eval(before, cache)
    np.testing.assert_allclose(np.array(cache)[2:3], np.array(x) @ np.array(w).T, rtol=1e-5)


def test_16_bits(plans: list[Plan]) -> None:
    network = model()
    network.update({k: v for k, v in network.parameters().items()})
    from mlxlite.utils import tree_map

    network.update(tree_map(lambda p: p.astype(mx.bfloat16), network.parameters()))
    caches = network.make_caches()
    for t in (1, 2, 3):
        logits = network(mx.array([[t]]), caches)
        mx.eval(logits)
    assert logits.dtype == mx.bfloat16


def test_unfused_plans_are_separate_kernels(plans: list[Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    from backend_cuda.lowering import lower
    from mlxlite import _graph

    found = []
    _graph.register_backend("cpu", lambda tape: found.append(lower(tape, fuse=False)) or _cpu(tape))
    x, w = normal(1, 12), normal(7, 12)
    mx.eval(x @ w.T + 1)
    assert len(found[-1].nodes) == 2


def _cpu(tape: object) -> object:
    from mlxlite.backend_cpu import lower

    return lower(tape)
