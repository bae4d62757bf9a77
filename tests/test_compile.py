"""compile: when it traces, what it captures, what it gives back and refuses."""

from __future__ import annotations

import gc
import weakref
from collections import namedtuple
from functools import partial
from typing import Any

import numpy as np
import pytest

from .differential import same_as_mlx, to_numpy
from .module_under_test import IS_MLX, mx

if not IS_MLX:
    from mlxlite import _graph

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
Y = np.array([3.0, 4.0, 5.0], np.float32)


def flat(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, flat(v)) for key, v in value.items()]
    return type(value)([flat(v) for v in value]) if isinstance(value, (list, tuple)) else value


CALLS = {
    "an array": lambda m, x, y: m.compile(lambda a: a * 2)(x),
    "two results": lambda m, x, y: m.compile(lambda a, b: (a * b, [a + b]))(x, y),
    "trees": lambda m, x, y: flat(m.compile(lambda p: {"r": p[0]["k"] * 2, "s": 3, "t": None})([{"k": x}])),
    "a string": lambda m, x, y: m.compile(lambda a, s: a if s == "s" else -a)(x, "s"),
    "True": lambda m, x, y: m.compile(lambda a, b: a if b else -a)(x, True),
    "None": lambda m, x, y: m.compile(lambda a, *, k=None: a)(x, k=None),
    "a keyword": lambda m, x, y: m.compile(lambda a, *, k: a * k)(x, k=y),
    "no arguments": lambda m, x, y: m.compile(lambda: m.ones(2))(),
    "the argument": lambda m, x, y: m.compile(lambda a: a)(x),
    "a constant": lambda m, x, y: m.compile(lambda a: y)(x),
    "constants beside": lambda m, x, y: m.compile(lambda a: (a, 2.0, "z", None))(x),
    "indices": lambda m, x, y: m.compile(lambda a: a[1:, ::2] + a[0, 1])(x),
    "a method": lambda m, x, y: m.compile(lambda a: a.sum(axis=0).astype(m.float16))(x),
    "changed in place": lambda m, x, y: (m.compile(changed)(x), x),
    "shapeless": lambda m, x, y: [m.compile(lambda a: m.exp(a) * 2, shapeless=True)(a) for a in (x, x[:1])],
    "gradients inside": lambda m, x, y: m.compile(m.value_and_grad(lambda a: (a * a).sum()))(x),
    "vmap inside": lambda m, x, y: m.compile(m.vmap(lambda a: a.sum() * a))(x),
    "a gradient outside": lambda m, x, y: m.grad(lambda a: m.compile(lambda b: b * b * y)(a).sum())(x),
    "vmap outside": lambda m, x, y: m.vmap(m.compile(lambda a: a.sum() * a))(x),
    "compile inside": lambda m, x, y: m.compile(lambda a: m.compile(lambda b: b + 1)(a) * 2)(x),
    "an object": lambda m, x, y: m.compile(lambda a, b: a)(x, object()),
    "a set": lambda m, x, y: m.compile(lambda a, b: a)(x, {1}),
    "a complex number": lambda m, x, y: m.compile(lambda a, b: a * b)(x, 1j),
    "a NumPy array": lambda m, x, y: m.compile(lambda a, b: a)(x, X),
    "no function": lambda m, x, y: m.compile(3),
    "item": lambda m, x, y: m.compile(lambda a: a * a.sum().item())(x),
    "eval": lambda m, x, y: m.compile(lambda a: m.eval(a * 2) or a)(x),
    "async_eval": lambda m, x, y: m.compile(lambda a: m.async_eval(a * 2) or a)(x),
    "print": lambda m, x, y: m.compile(lambda a: str(a * 2) and a)(x),
    "a branch": lambda m, x, y: m.compile(lambda a: a if a.sum() > 0 else -a)(x),
    "a conversion": lambda m, x, y: m.compile(lambda a: a * float(a.sum()))(x),
    "an array as inputs": lambda m, x, y: m.compile(lambda a: a + y, inputs=y)(x),
}


def changed(a: Any) -> Any:
    a[0] = 7
    a += 1
    return a * 2


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_as_by_mlx(name):
    same_as_mlx(CALLS[name], X, Y, case=name)


def traced(m: Any = mx) -> tuple[Any, list[int]]:
    calls: list[int] = []

    @m.compile
    def f(a: Any, b: Any) -> Any:
        calls.append(1)
        return a * b

    return f, calls


def test_it_traces_once_for_arguments_of_a_kind():
    f, calls = traced()
    x = mx.array(X)
    kinds = [
        (x, 2),
        (x, 3),
        (x, 2.0),
        (x, -0.0),
        (x, 0.0),
        (x, mx.array(2.0)),
        (x[:1], 2),
        (x.astype(mx.float16), 2),
    ]
    for n, (a, b) in enumerate(kinds, 1):
        for _ in range(2):
            np.testing.assert_allclose(to_numpy(f(a, b)), to_numpy(a * b))
        if not IS_MLX:
            assert len(calls) == n
    f(x + 1, 2)
    f(mx.zeros((2, 3)), mx.array(5.0))
    if not IS_MLX:
        assert len(calls) == len(kinds)


def test_results_follow_the_arguments():
    f = mx.compile(lambda a, p: (mx.sin(a) * p["k"], mx.argmax(a, axis=-1)))
    rng = np.random.default_rng(0)
    for _ in range(4):
        a, k = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
        out, index = f(mx.array(a), {"k": mx.array(k)})
        np.testing.assert_allclose(to_numpy(out), np.sin(a) * k, rtol=1e-5)
        assert index.tolist() == a.argmax(-1).tolist()


@pytest.mark.mlxlite_only
def test_lists_and_tuples_and_keys_are_told_apart():
    f = mx.compile(lambda p: sum(p.values()) if isinstance(p, dict) else (p[0] - p[1]) * (2 if type(p) is list else 1))
    a, b = mx.array(3.0), mx.array(1.0)
    assert [f([a, b]).item(), f((a, b)).item(), f([b, a]).item()] == [4, 2, -4]
    assert f({"x": a, "y": b}).item() == 4 and f({"x": a}).item() == 3


def test_state_goes_in_and_out():
    def call(m: Any, x: Any) -> Any:
        state = [m.array(1.0), {"k": m.array(2.0), "name": "s"}]

        @partial(m.compile, inputs=state, outputs=state)
        def step(x: Any) -> Any:
            state[0] = state[0] + x.sum()
            state[1]["k"] = state[1]["k"] * 2
            return x * state[0]

        first, second = step(x), step(x)
        state[0] = m.array(100.0)
        return first, second, step(x), state[0], state[1]["k"], state[1]["name"]

    same_as_mlx(call, X)


def test_state_that_is_only_read():
    def call(m: Any, x: Any) -> Any:
        state = {"w": m.array(1.0)}
        captured = m.compile(lambda x: x * state["w"], inputs=state)
        constant = m.compile(lambda x: x * state["w"])
        results = [captured(x), constant(x)]
        state["w"] = m.array(2.0)
        return [*results, captured(x), constant(x), state["w"]]

    same_as_mlx(call, X)


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("read", [True, False])
def test_state_is_restored_after_an_error(read):
    state = [mx.array(1.0), {"k": mx.array(2.0)}]

    def step(x: Any) -> Any:
        state[0] = state[0] + x
        state[1]["k"] = x
        raise KeyError("inside")

    with pytest.raises(KeyError):
        mx.compile(step, inputs=state if read else None, outputs=state)(mx.array(2.0))
    assert state[0].item() == 1 and state[1]["k"].item() == 2


@pytest.mark.mlxlite_only
def test_state_in_tuples_and_state_that_is_changed_in_place():
    counter = mx.array([1.0, 2.0])
    state = (counter,)

    @partial(mx.compile, inputs=state, outputs=state)
    def step(x: Any) -> Any:
        counter[0] = counter[0] + x
        return counter * 2

    assert step(mx.array(1.0)).tolist() == [4, 4]
    assert step(mx.array(1.0)).tolist() == [6, 4]
    assert counter.tolist() == [3, 2]


@pytest.mark.mlxlite_only
def test_state_that_is_made_inside():
    state: dict[str, Any] = {}

    def step(x: Any) -> Any:
        state["n"] = state.get("n", mx.array(0)) + 1
        return x

    compiled = mx.compile(step, inputs=state, outputs=state)
    for n in (1, 2, 3):
        compiled(mx.array(0.0))
        assert state["n"].item() == n


def test_the_random_state_is_captured_when_asked():
    def call(m: Any) -> Any:
        m.random.seed(3)
        draw = m.compile(lambda: m.random.uniform(shape=(3,)), inputs=m.random.state, outputs=m.random.state)
        first, second = draw(), draw()
        return first, second, m.random.uniform(shape=(2,))

    first, second, _ = same_as_mlx(call)
    assert first.tolist() != second.tolist()


def test_a_model_trains():
    from mlx import nn as their_nn

    import mlxlite.nn as our_nn

    def call(m: Any, x: Any, y: Any) -> Any:
        nn = their_nn if m is not mx or IS_MLX else our_nn
        model = nn.Linear(3, 2)
        model.update({"weight": m.array(X) * 0.1, "bias": m.zeros((2,))})
        state = [model.state]

        def loss(x: Any, y: Any) -> Any:
            return ((model(x) - y) ** 2).mean()

        @partial(m.compile, inputs=state, outputs=state)
        def step(x: Any, y: Any) -> Any:
            value, gradients = nn.value_and_grad(model, loss)(x, y)
            parameters = model.trainable_parameters()
            model.update({k: parameters[k] - 0.005 * gradients[k] for k in parameters})
            return value

        values = [step(x, y) for _ in range(5)]
        return values, model.weight, model.bias

    values, _, _ = same_as_mlx(call, X, X[:, :2], tolerance=1e-5)
    assert values[-1].item() < values[0].item()


def test_it_can_be_switched_off():
    f, calls = traced()
    x = mx.array(X)
    mx.disable_compile()
    try:
        f(x, 2)
        f(x, 2)
        assert len(calls) == 2
        assert mx.compile(lambda a: a * a.sum().item())(x).shape == (2, 3)
    finally:
        mx.enable_compile()
    f(x, 2)
    f(x, 2)
    assert len(calls) == 3


def test_functions_keep_their_names():
    def some_function(a: Any) -> Any:
        """Says something."""
        return a

    assert mx.compile(some_function).__name__ == "some_function"
    assert mx.compile(some_function).__doc__ == "Says something."


# ---- what a template holds


@pytest.mark.mlxlite_only
def test_later_calls_record_what_the_first_did_and_build_no_plan(device):
    f = mx.compile(lambda a: mx.softmax(a * mx.arange(3) + mx.zeros((3,)), axis=-1).sum(axis=0) * 2)
    gc.collect()
    before = _graph.pending()["ops"]
    results = [f(mx.array(X)) for _ in range(2)]
    recorded = _graph.pending()["ops"] - before
    mx.eval(results[0])
    plans = _graph.cache_info()[device]["misses"]
    mx.eval(results[1])
    mx.eval(f(mx.array(X) + 0))
    mx.eval(f(results[0] * mx.ones((2, 1))))
    assert recorded > 0
    first = f(mx.array(X))
    misses = _graph.cache_info()[device]["misses"]
    mx.eval(first)
    assert _graph.cache_info()[device]["misses"] == misses and plans <= misses


@pytest.mark.mlxlite_only
def test_a_captured_array_is_evaluated_once_and_made_ones_are_not_kept():
    outside = mx.exp(mx.array(Y))
    f = mx.compile(lambda a: a * outside + mx.full((3,), 2.0))
    mx.eval(f(mx.array(X)))
    assert _graph.is_evaluated(outside)
    np.testing.assert_allclose(to_numpy(f(mx.array(X))), X * np.exp(Y) + 2, rtol=1e-6)


@pytest.mark.mlxlite_only
def test_nothing_is_kept_of_arguments_and_results():
    memory = X.copy().view(type("Memory", (np.ndarray,), {}))
    x = _graph.from_numpy(memory, mx.float32)
    reference = weakref.ref(memory)
    f = mx.compile(lambda a: mx.sin(a) * 2)
    mx.eval(f(x))
    memory = x = None
    gc.collect()
    assert reference() is None
    gc.collect()
    before = _graph.pending()["ops"]
    g = mx.compile(lambda a: mx.cos(a) * 2 + mx.zeros((3,)))
    mx.eval(g(mx.array(X)))
    assert _graph.pending()["ops"] == before


@pytest.mark.mlxlite_only
def test_the_cache_is_bounded():
    from mlxlite.transforms import compiled

    f, calls = traced()
    x = mx.array(1.0)
    for n in range(compiled.CAPACITY + 1):
        f(x, n)
    f(x, compiled.CAPACITY)
    assert len(calls) == compiled.CAPACITY + 1
    f(x, 0)  # the one that was dropped
    assert len(calls) == compiled.CAPACITY + 2


@pytest.mark.mlxlite_only
def test_a_template_refuses_other_shapes():
    argument = _graph.abstract_argument((2,), mx.float32)
    template = _graph.Template([argument * 2], [argument])
    assert template([mx.array([1.0, 2.0])])[0].tolist() == [2, 4]
    for wrong in ([], [mx.array(1.0)], [mx.array([1, 2])]):
        with pytest.raises(ValueError, match="compile"):
            template(wrong)


@pytest.mark.mlxlite_only
def test_results_that_depend_on_an_argument_of_another_function():
    kept: list[Any] = []
    mx.vmap(lambda a: kept.append(a) or a)(mx.array(X))
    with pytest.raises(ValueError, match="compile"):
        mx.compile(lambda b: b + kept[0])(mx.array(Y))


@pytest.mark.mlxlite_only
def test_deep_functions():
    def f(x: Any) -> Any:
        for _ in range(25_000):
            x = x * 1.00001 + 0.5
        return x

    compiled = mx.compile(f)
    x = mx.ones((2,))
    np.testing.assert_allclose(to_numpy(compiled(x)), to_numpy(compiled(x)))
    np.testing.assert_allclose(to_numpy(compiled(x)), to_numpy(f(x)), rtol=1e-5)


@pytest.mark.mlxlite_only
def test_structures_that_differ_are_traced_apart() -> None:
    x, row = mx.zeros((2, 3)), mx.zeros(6)
    pair = namedtuple("pair", "a b")
    structures: list[Any] = [
        x, row, x.astype(mx.float16), x.reshape(3, 2), [x], (x,), [[x]], [x, x], [[x], x], [x, [x]], (x, x), pair(x, x),
        {"a": x}, {"b": x}, {"a": x, "b": row}, {"b": row, "a": x}, {1: x}, {"1": x}, {"a": {"b": x}}, {"": x},
        [], {}, (), None, 1, 1.0, True, "1", [1, x], {"\ud800": x}, [0.0, x], [-0.0, x],
    ]  # fmt: skip
    traced = []
    f = mx.compile(lambda tree: (traced.append(tree), x * 2)[1])
    for _ in range(2):
        for tree in structures:
            f(tree)
    assert len(traced) == len(structures)
