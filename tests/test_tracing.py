"""While a function is traced values are asked for, gradients are replayed, and in the end nothing is left behind."""

from __future__ import annotations

import functools
import gc
import weakref
from typing import Any

import numpy as np
import pytest

from .differential import to_numpy
from .module_under_test import IS_MLX, mx

if not IS_MLX:
    from mlxlite import _graph

X = np.array([1.0, 2.0, 3.0], np.float32)
Y = np.array([3.0, 4.0, 5.0], np.float32)


def square_sum(x: Any) -> Any:
    return (x * x).sum()


def of_tree_squared(p: Any) -> Any:
    return (p["w"] * p["w"] * p["b"][0]).sum()


# ---- evaluation while tracing


def test_values_can_be_used_inside_a_gradient():
    seen = []

    def f(x: Any) -> Any:
        y = x * x
        seen.append(y.sum().item())
        mx.eval(y)
        if y[0] < 2:
            y = y * np.array(x).sum().item()
        if not IS_MLX:
            mx.async_eval(y)
        assert "array" in repr(y)
        return (y * y).sum()

    found = mx.grad(f)(mx.array(X))
    assert seen == [14]
    np.testing.assert_allclose(to_numpy(found), 4 * X**3 * 36, rtol=1e-6)


def test_values_inside_nested_gradients():
    def f(x: Any) -> Any:
        y = x**3
        mx.eval(y)
        return y * y.item()

    # The value is a constant: (8 x^3)'' at 2
    assert mx.grad(mx.grad(f))(mx.array(2.0)).item() == pytest.approx(8 * 6 * 2)


@pytest.mark.mlxlite_only
def test_a_constant_evaluated_inside_is_not_overwritten():
    def f(x: Any) -> Any:
        constant = mx.zeros((3,)) + 2
        mx.eval(constant)
        y = constant * x
        y = y.at[mx.array([0])].add(1)
        z = y * y
        del constant, y
        mx.eval(z)
        return z.sum()

    np.testing.assert_allclose(to_numpy(mx.grad(f)(mx.array(X))), 2 * (2 * X + [1, 0, 0]) * 2)


@pytest.mark.mlxlite_only
def test_long_graphs_are_not_cut_inside_a_gradient():
    before = _graph.budget()
    _graph.set_budget(50, before["bytes"])
    try:

        def f(x: Any) -> Any:
            for _ in range(300):
                x = x * 1.01
            return x.sum()

        found = mx.grad(f)(mx.ones((3,)))
        np.testing.assert_allclose(to_numpy(found), 1.01**300, rtol=1e-4)
    finally:
        _graph.set_budget(before["ops"], before["bytes"])


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("transform", ["grad", "jvp", "vmap"])
def test_deep_graphs(transform):
    depth = 50_000 if transform == "grad" else 15_000

    def f(x: Any) -> Any:
        for _ in range(depth // 2):
            x = x * 1.00001 + 0.5
        return x

    x = mx.ones((2,))
    if transform == "grad":
        found = mx.grad(lambda x: f(x).sum())(x)
    elif transform == "jvp":
        found = mx.jvp(f, [x], [x])[1][0]
    else:
        found = mx.vmap(f)(x) - f(x) + 1.00001 ** (depth // 2)
    np.testing.assert_allclose(to_numpy(found), 1.00001 ** (depth // 2), rtol=1e-2)


# ---- gradients that are replayed


@pytest.fixture
def replay():
    from mlxlite.transforms import replay

    replay.clear()
    return replay


def spent(replay: Any, call: Any) -> tuple[int, int]:
    before = dict(replay.counters)
    call()
    return tuple(replay.counters[key] - before[key] for key in ("hits", "misses"))  # type: ignore[return-value]


@pytest.mark.mlxlite_only
def test_rules_run_once_for_graphs_that_are_alike(replay):
    x, y = mx.array(X), mx.array(Y)

    def gradient(x: Any, scale: float, low: int, eps: float, other: Any) -> Any:
        def f(x: Any) -> Any:
            part = mx.fast.rms_norm(x * scale + other, None, eps)[low : low + 2]
            return (part * part * part).sum()

        return to_numpy(mx.grad(f)(x))

    first = gradient(x, 2.0, 0, 0.5, y)
    assert spent(replay, lambda: gradient(x, 2.0, 0, 0.5, y)) == (1, 0)
    # Values, numbers and constants may differ.
    assert spent(replay, lambda: gradient(y, 3.0, 0, 0.5, x)) == (1, 0)
    # What rules look at may not: each of these is another graph.
    others = [(x, 2.0, 1, 0.5, y), (x, 2.0, 0, 0.25, y), (x[:2], 2.0, 0, 0.5, y[:2]), (x, 2.0, 0, 0.5, y[:1])]
    others.append((x.astype(mx.float16), 2.0, 0, 0.5, y))
    for k, arguments in enumerate(others):
        assert spent(replay, lambda arguments=arguments: gradient(*arguments)) == (0, 1), k
    again = [gradient(*arguments) for arguments in others]
    replay.clear()
    for found, arguments in zip(again, others, strict=True):
        np.testing.assert_array_equal(found, gradient(*arguments))
    np.testing.assert_array_equal(first, gradient(x, 2.0, 0, 0.5, y))


@pytest.mark.mlxlite_only
def test_one_constant_twice_is_not_two_constants(replay):
    x, y, z = mx.array(X), mx.array(Y), mx.array(Y + 1)
    f = lambda a, b: mx.grad(lambda x: (x * a * mx.sin(x * b)).sum())(x).tolist()  # noqa: E731
    one, two = f(y, y), f(y, z)
    replay.clear()
    assert (f(y, z), f(y, y)) == (two, one)


@pytest.mark.mlxlite_only
def test_outputs_that_depend_on_nothing_may_change_their_shape(replay):
    x = mx.array(X)
    for n in (3, 4):
        _, (found,) = mx.vjp(lambda x, n=n: (mx.ones((n,)), x * 2), [x], [mx.ones((n,)), x])
        assert found.tolist() == [2, 4, 6]


@pytest.mark.mlxlite_only
def test_templates_are_bounded_and_hold_no_pending_ops(replay, monkeypatch):
    gc.collect()  # what other tests have left
    ops = _graph.pending()["ops"]
    monkeypatch.setattr(replay, "CAPACITY", 10)
    for n in range(1, 6):
        mx.eval(mx.grad(lambda x, n=n: functools.reduce(lambda a, _: a * x, range(n), x).sum())(mx.array(X)))
    assert 0 < replay.counters["nodes"] <= 10
    assert _graph.pending()["ops"] == ops


# ---- what is left behind


def held(values: np.ndarray) -> tuple[Any, Any]:
    """An array, and a weak reference to its memory."""
    memory = values.copy().view(type("Memory", (np.ndarray,), {}))
    return _graph.from_numpy(memory, mx.float32), weakref.ref(memory)


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("evaluate", [False, True])
def test_nothing_is_kept_after_a_gradient(evaluate):
    gc.collect()
    ops = _graph.pending()["ops"]
    constant, memory = held(X)

    def f(x: Any) -> Any:
        y = x * constant
        if evaluate:
            mx.eval(y)
        z = mx.checkpoint(lambda a: mx.sin(a) * a)(y)
        return mx.stop_gradient(z).sum() * z.sum()

    value, gradient = mx.value_and_grad(f)(mx.array(Y))
    mx.eval(value, gradient)
    constant = f = None
    gc.collect()
    assert memory() is None
    assert _graph.pending()["ops"] == ops and not _graph.is_tracing()


@pytest.mark.mlxlite_only
def test_nothing_waits_for_the_garbage_collector():
    model = {"w": mx.array(X), "b": [mx.array(Y)]}
    state = [mx.array(1.0)]
    calls = [
        mx.value_and_grad(of_tree_squared),
        mx.compile(of_tree_squared, inputs=state, outputs=state),
        mx.vmap(of_tree_squared),
        mx.grad(mx.checkpoint(of_tree_squared)),
        mx.compile(mx.grad(lambda p: mx.checkpoint(of_tree_squared)(p))),
    ]
    gc.collect()
    gc.disable()
    try:
        for k, call in enumerate(calls):
            gc.collect()
            before = _graph.pending()["ops"]
            memory: Any = X.copy().view(type("Memory", (np.ndarray,), {}))
            reference = weakref.ref(memory)
            model["w"] = _graph.from_numpy(memory, mx.float32)
            mx.eval(call(model))
            model["w"] = memory = None
            assert reference() is None, k
            assert _graph.pending()["ops"] == before, k
    finally:
        gc.enable()


@pytest.mark.mlxlite_only
def test_nothing_is_kept_after_an_error():
    constant, memory = held(X)

    def f(x: Any) -> Any:
        y = x * constant
        mx.eval(y)
        raise KeyError("inside")

    for call in (mx.grad(f), mx.vmap(f), mx.compile(f), lambda x: mx.jvp(f, [x], [x])):
        with pytest.raises((KeyError, ValueError)):
            call(mx.array(Y))
        assert not _graph.is_tracing()
    constant = f = call = None
    gc.collect()
    assert memory() is None
    assert mx.grad(square_sum)(mx.array(X)).tolist() == [2, 4, 6]


@pytest.mark.mlxlite_only
def test_arguments_that_a_function_keeps_are_themselves_afterwards():
    kept = {}

    def f(x: Any) -> Any:
        kept["x"] = x
        return square_sum(x)

    x = mx.array(X)
    for _ in range(3):
        mx.eval(mx.grad(f)(x))
        x = kept["x"]
    assert _graph.is_evaluated(x) and x.tolist() == [1, 2, 3]


@pytest.mark.mlxlite_only
def test_arrays_that_vmap_left_behind_say_so():
    kept = []
    mx.vmap(lambda x: kept.append(x * 2) or x)(mx.array(X))
    with pytest.raises(ValueError, match="no value"):
        mx.eval(kept)
