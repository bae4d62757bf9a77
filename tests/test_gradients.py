"""Derivatives and vectorised forms of every primitive.

A row of the table is a function of arrays and the arrays' domains. In float64 its vjp must agree with finite
differences and its jvp with its vjp; in float32 both must agree with MLX's; and vmap with a loop, for many choices of
mapped inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .differential import assert_close, oracle, same_as_mlx, samples, to_module, to_numpy
from .gradient_cases import CASES, Case, put
from .module_under_test import mx

STEP = 1e-5


def weights(case: Case, inputs: list[np.ndarray], dtype: str) -> tuple[list[Any], np.ndarray]:
    arrays = [to_module(mx, x) for x in inputs + case.constants]
    shape = case.call(mx, *arrays).shape
    return arrays, np.random.default_rng(7).normal(size=shape).astype(dtype)


def function_of(case: Case, module: Any, constants: list[Any]) -> Callable[..., Any]:
    return lambda *arrays: case.call(module, *[+a for a in arrays] if module is mx else arrays, *constants)


def numbers(a: Any) -> np.ndarray:
    return to_numpy(a).astype(np.float64)


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("name", CASES)
def test_vjp_agrees_with_finite_differences(name):
    case = CASES[name]
    inputs = case.inputs(case.dtype)
    arrays, cotangent = weights(case, inputs, case.dtype)
    n = len(inputs)
    _, found = mx.vjp(function_of(case, mx, arrays[n:]), arrays[:n], [to_module(mx, cotangent)])
    step, tolerance = (STEP, 2e-8) if case.dtype == "float64" else (1e-2, 2e-2)
    wide = cotangent.astype(np.float64)

    def value(changed: list[np.ndarray]) -> float:
        result = numbers(case.call(mx, *[to_module(mx, x) for x in changed + case.constants]))
        return float((np.where(np.isfinite(result), result, 0) * wide).sum())

    for i, gradient in enumerate(found):
        assert gradient.shape == inputs[i].shape and str(gradient.dtype).endswith(case.dtype)
        expected = np.zeros(inputs[i].shape)
        for at in np.ndindex(*inputs[i].shape):
            sides = []
            for sign in (1, -1):
                changed = [x.copy() for x in inputs]
                changed[i][at] += sign * step
                sides.append(value(changed))
            expected[at] = (sides[0] - sides[1]) / (2 * step)
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(numbers(gradient), expected, rtol=0, atol=tolerance * scale, err_msg=f"input {i}")


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("name", CASES)
def test_jvp_agrees_with_vjp(name):
    case = CASES[name]
    inputs = case.inputs(case.dtype)
    arrays, cotangent = weights(case, inputs, case.dtype)
    n = len(inputs)
    function = function_of(case, mx, arrays[n:])
    rng = np.random.default_rng(3)
    _, cotangents = mx.vjp(function, arrays[:n], [to_module(mx, cotangent)])
    # Every input alone, then all together: rules have a case for each that is still.
    for moving in [*[{i} for i in range(n)], set(range(n))]:
        tangents = [rng.normal(size=x.shape) * (i in moving) for i, x in enumerate(inputs)]
        given = [to_module(mx, t.astype(case.dtype)) for t in tangents]
        still = [i for i in range(n) if i not in moving]
        chosen = sorted(moving)

        def partial(*some: Any, still: Any = still, chosen: Any = chosen) -> Any:
            whole = dict(zip(chosen, some, strict=True)) | {i: arrays[i] for i in still}
            return function(*[whole[i] for i in range(n)])

        _, (forward,) = mx.jvp(partial, [arrays[i] for i in chosen], [given[i] for i in chosen])
        left = float((np.nan_to_num(numbers(forward)) * cotangent.astype(np.float64)).sum())
        right = sum(float((numbers(c) * t).sum()) for c, t in zip(cotangents, tangents, strict=True))
        tolerance = 1e-11 if case.dtype == "float64" else 1e-4
        assert abs(left - right) <= tolerance * max(1.0, abs(right)), f"{left} {right} for {chosen}"


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.mlx_lacks != "vjp"])
def test_derivatives_agree_with_mlx(name):
    case = CASES[name]
    inputs = case.inputs("float32")
    arrays, cotangent = weights(case, inputs, "float32")
    n = len(inputs)
    theirs = [to_module(oracle, x) for x in inputs + case.constants]
    weight = [to_module(mx, cotangent)], [to_module(oracle, cotangent)]
    ours_out, ours = mx.vjp(function_of(case, mx, arrays[n:]), arrays[:n], weight[0])
    their_out, expected = oracle.vjp(function_of(case, oracle, theirs[n:]), theirs[:n], weight[1])
    compare(ours + ours_out, expected + their_out, case)
    if case.mlx_lacks == "jvp":
        return
    _, ours = mx.jvp(function_of(case, mx, arrays[n:]), arrays[:n], arrays[:n])
    _, expected = oracle.jvp(function_of(case, oracle, theirs[n:]), theirs[:n], theirs[:n])
    compare(ours, expected, case)


def compare(ours: list[Any], theirs: list[Any], case: Case) -> None:
    for a, b in zip(ours, theirs, strict=True):
        expected = to_numpy(b)
        assert a.shape == expected.shape and to_numpy(a).dtype == expected.dtype
        scale = max(1.0, float(np.abs(np.nan_to_num(expected)).max(initial=0)))
        assert_close(to_numpy(a), expected, tolerance=2e-5, scale=scale)


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("name", CASES)
def test_vmap_agrees_with_a_loop(name):
    case = CASES[name]
    n, total = len(case.shapes), len(case.shapes) + len(case.constants)
    sets = [case.inputs("float32", seed=10 * k) for k in range(3)]
    varied = [[c, np.roll(c, 1, axis=-1), np.roll(c, 1, axis=0)] for c in case.constants]
    choices: list[tuple[int, ...]] = [tuple(range(n)), *[(i,) for i in range(n if n > 1 else 0)]]
    if case.constants and case.vmap_constants:
        choices += [tuple(range(total)), tuple(range(n, total)), (0, *range(n, total))]
    if not case.vmap_constants:
        choices = [(0,)]
    for mapped in choices:
        values = [
            [(sets[k][i] if i < n else varied[i - n][k]) for k in range(3)] if i in mapped else None
            for i in range(total)
        ]
        fixed = [sets[0][i] if i < n else case.constants[i - n] for i in range(total)]
        axes = tuple(((i + 1) % (fixed[i].ndim + 1) if i in mapped else None) for i in range(total))
        arrays = []
        for i in range(total):
            column = values[i]
            stacked = fixed[i] if column is None else np.stack(column, axis=axes[i])
            arrays.append(to_module(mx, np.ascontiguousarray(stacked)))
        found = mx.vmap(function_of(case, mx, []), in_axes=axes)(*arrays)
        for k in range(3):
            row = [to_module(mx, fixed[i] if (column := values[i]) is None else column[k]) for i in range(total)]
            expected = to_numpy(case.call(mx, *row))
            assert_close(to_numpy(found[k]), expected, case=(name, mapped, k), tolerance=2e-5, scale=4.0)


ELSEWHERE = {
    "norm_vjp",
    "norm_vjp_weight",
    "sdpa_lse",
    "sdpa_vjp",
    "argtopk",
}  # test_normalization_gradient.py, test_attention_gradient.py, test_sort.py


@pytest.mark.mlxlite_only
def test_every_primitive_that_has_derivatives_is_tested():
    from mlxlite.transforms._tables import VJP, WITHOUT_GRADIENT

    named = {case.primitive for case in CASES.values()}
    assert set(VJP) - WITHOUT_GRADIENT <= named | ELSEWHERE


@pytest.mark.mlxlite_only
@pytest.mark.parametrize(
    "name",
    [n for n, case in CASES.items() if case.dtype == "float64"],
)
def test_second_derivatives_agree_with_finite_differences(name):
    """Of the gradient, along one direction."""
    case = CASES[name]
    inputs = case.inputs("float64")
    arrays, cotangent = weights(case, inputs, "float64")
    n = len(inputs)
    function = function_of(case, mx, arrays[n:])
    c = to_module(mx, cotangent)

    def loss(*a: Any) -> Any:
        out = function(*a)
        # Not linear in the outputs: a linear function has second derivatives too.
        out = mx.where(mx.isfinite(out), out, 0)
        return (mx.sin(out) * c).sum()

    gradient = mx.grad(loss, argnums=tuple(range(n)))
    rng = np.random.default_rng(5)
    directions = [rng.normal(size=x.shape) for x in inputs]

    def along(*a: Any) -> Any:
        found = gradient(*a) if n > 1 else (gradient(*a),)
        return sum((g * to_module(mx, d)).sum() for g, d in zip(found, directions, strict=True))

    second = mx.grad(along, argnums=tuple(range(n)))(*arrays[:n])
    found = sum(float((numbers(s) * d).sum()) for s, d in zip(second if n > 1 else [second], directions, strict=True))

    def at(step: float) -> float:
        moved = [to_module(mx, x + step * d) for x, d in zip(inputs, directions, strict=True)]
        return float(numbers(along(*moved)))

    expected = (at(STEP) - at(-STEP)) / (2 * STEP)
    assert abs(found - expected) <= 1e-6 * max(1.0, abs(expected)), (found, expected)
    _, (forward,) = mx.jvp(along, arrays[:n], [to_module(mx, d) for d in directions])
    assert abs(float(numbers(forward)) - expected) <= 1e-6 * max(1.0, abs(expected)), "forward over reverse"


# Primitives without derivatives: what they are called with.
NUMBERS = np.array([[[1.5, -2.0, 0.0, np.nan], [np.inf, -np.inf, 3.0, -0.5]], [[0.0, 1.0, 1.0, 2.0]] * 2], np.float32)
INTEGERS = np.array([[[1, 2, 0, 7], [5, -3, 3, 4]], [[9, 8, 1, 1], [0, 0, 2, 6]]], np.int32)
OF_ONE = "sign ceil floor isnan isinf isfinite isneginf isposinf logical_not"
OF_TWO = (
    "floor_divide equal not_equal less less_equal greater greater_equal logical_and logical_or "
    "bitwise_and bitwise_or bitwise_xor left_shift right_shift"
)
WITHOUT: dict[str, tuple[np.ndarray, Callable[..., Any]]] = {}
for _name in OF_ONE.split():
    WITHOUT[_name] = (NUMBERS, lambda m, a, name=_name: getattr(m, name)(a))
for _name in OF_TWO.split():
    WITHOUT[_name] = (INTEGERS, lambda m, a, name=_name: getattr(m, name)(a, a[:1] % 3))
WITHOUT |= {
    "rint": (NUMBERS, lambda m, a: m.round(a)),
    "bitwise_invert": (INTEGERS, lambda m, a: m.bitwise_invert(a)),
    "any": (INTEGERS, lambda m, a: m.any(a, axis=0)),
    "all": (INTEGERS, lambda m, a: m.all(a, axis=(0, 1), keepdims=True)),
    "argmax": (INTEGERS, lambda m, a: m.argmax(a, axis=-1)),
    "argmax, all": (INTEGERS, lambda m, a: m.argmax(a)),
    "argmin": (INTEGERS, lambda m, a: m.argmin(a, axis=0, keepdims=True)),
    "argmin, all": (INTEGERS, lambda m, a: m.argmin(a, keepdims=True)),
    "argsort": (INTEGERS, lambda m, a: m.argsort(a, axis=0)),
    "random_bits": (np.arange(4, dtype=np.uint32).reshape(2, 2), lambda m, k: m.random.randint(0, 99, (3,), key=k)),
    "stop_gradient": (NUMBERS, lambda m, a: m.stop_gradient(a) * 2),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_vmap_of_what_has_no_derivatives(name):
    values, call = WITHOUT[name]
    a = to_module(mx, values)
    found = mx.vmap(lambda a: call(mx, a))(a)
    nested = mx.vmap(mx.vmap(lambda a: call(mx, a)))(a[None])
    for k in range(2):
        expected = to_numpy(call(mx, a[k]))
        np.testing.assert_array_equal(to_numpy(found[k]), expected)
        np.testing.assert_array_equal(to_numpy(nested[0][k]), expected)
        assert found.dtype == call(mx, a[k]).dtype


@pytest.mark.mlxlite_only
def test_every_rule_of_vmap_is_tested():
    from mlxlite.transforms._tables import VMAP

    assert set(VMAP) <= {case.primitive for case in CASES.values()} | WITHOUT.keys() | ELSEWHERE


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("name", [n for n in WITHOUT if n not in ("random_bits", "stop_gradient")])
def test_nothing_flows_through_what_has_no_derivatives(name):
    values, call = WITHOUT[name]
    a = to_module(mx, values)
    out, (cotangent,) = mx.vjp(lambda a: call(mx, a), [a], [mx.ones(call(mx, a).shape)])
    assert cotangent.shape == a.shape and not to_numpy(cotangent).any()
    _, (tangent,) = mx.jvp(lambda a: call(mx, a), [a], [mx.ones_like(a)])
    assert tangent.shape == out[0].shape and not to_numpy(tangent).any()


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("name", CASES)
def test_a_gradient_that_is_replayed_is_that_of_the_rules(name, monkeypatch):
    case = CASES[name]
    from mlxlite.transforms import replay

    replay.clear()
    for seed in (0, 50):
        inputs = case.inputs("float32", seed=seed)
        arrays, cotangent = weights(case, inputs, "float32")
        n = len(inputs)
        before = dict(replay.counters)
        arguments = (function_of(case, mx, arrays[n:]), arrays[:n], [to_module(mx, cotangent * (1 + seed))])
        _, replayed = mx.vjp(*arguments)
        assert replay.counters["hits"] - before["hits"] == (1 if seed else 0)
        with monkeypatch.context() as patch:
            patch.setattr(replay, "recall", lambda *_: None)
            _, walked = mx.vjp(*arguments)
        for a, b in zip(replayed, walked, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("name", CASES)
def test_derivatives_lower_for_the_gpu(name):
    """Plans of the derivatives and the vectorised function, simulated."""
    from .checked_backend import checked

    case = CASES[name]
    inputs = case.inputs("float32")
    arrays, cotangent = weights(case, inputs, "float32")
    n = len(inputs)
    function = function_of(case, mx, arrays[n:])
    with checked() as plans:
        mx.eval(mx.vjp(function, arrays[:n], [to_module(mx, cotangent)]))
        mx.eval(mx.jvp(function, arrays[:n], arrays[:n]))
        if case.vmap_constants:
            axes = (0,) * n + (None,) * len(case.constants)
            stacked = [to_module(mx, np.stack([x, x * 0.9])) for x in inputs]
            mx.eval(mx.vmap(function_of(case, mx, []), in_axes=axes)(*stacked, *arrays[n:]))
    assert plans


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["multiply", "matmul", "softmax", "rms_norm", "layer_norm", "rope", "sdpa", "cumprod"])
def test_gradients_of_16_bit_floats(name, dtype):
    """They are of the dtype of the argument, and near those of float32."""
    case = CASES[name]
    inputs = [x.astype(np.float16).astype(np.float32) / 2 for x in case.inputs("float32")]
    exact = [to_module(mx, x) for x in inputs]
    out = case.call(mx, *[+x for x in exact])
    _, expected = mx.vjp(function_of(case, mx, []), exact, [mx.ones(out.shape)])
    short = [x.astype(getattr(mx, dtype)) for x in exact]
    _, found = mx.vjp(function_of(case, mx, []), short, [mx.ones(out.shape, dtype=getattr(mx, dtype))])
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == getattr(mx, dtype)
        scale = float(np.abs(numbers(b)).max()) + 1
        np.testing.assert_allclose(numbers(a), numbers(b), atol=scale * (1e-2 if dtype == "float16" else 8e-2))


def gradient(call: Callable[..., Any], *values: Any) -> Callable[[Any], Any]:
    """The gradients of the sum of a call's result by all arguments."""

    def of_module(m: Any) -> Any:
        function = m.grad(lambda *a: call(m, *a).sum(), argnums=tuple(range(len(values))))
        return function(*[m.array(v) for v in values])

    return of_module


INDEX = [0, 0, 1]
EDGES = {
    "abs at 0": gradient(lambda m, a: m.abs(a), [0.0, -1.0, 2.0]),
    "equal operands of maximum": gradient(lambda m, a, b: m.maximum(a, b), [0.0, 1.0], [0.0, 2.0]),
    "equal operands of minimum": gradient(lambda m, a, b: m.minimum(a, b), [0.0, 1.0], [0.0, 2.0]),
    "equal elements of max": gradient(lambda m, a: m.max(a), [1.0, 3.0, 3.0]),
    "equal elements of min": gradient(lambda m, a: m.min(a), [1.0, 1.0, 3.0]),
    "equal elements of cummax": gradient(lambda m, a: m.cummax(a), [1.0, 2.0, 2.0, 1.0]),
    "equal elements of sort": gradient(lambda m, a: m.sort(a) * m.array([1.0, 2.0, 3.0]), [1.0, 3.0, 3.0]),
    "powers of 0 and of negatives": gradient(lambda m, a, b: a**b, [0.0, 2.0, 0.0, -1.0], [2.0, 0.0, 0.0, 2.0]),
    "remainder": gradient(lambda m, a, b: a % b, [5.0, -5.0], [3.0, 3.0]),
    "clip at its bounds": gradient(lambda m, a: m.clip(a, 0, 1), [0.0, -1.0, 1.0, 0.5]),
    "sqrt at 0": gradient(lambda m, a: m.sqrt(a), [0.0]),
    "logaddexp of infinities": gradient(lambda m, a, b: m.logaddexp(a, b), [-np.inf, 1.0], [-np.inf, 2.0]),
    "product with a 0": gradient(lambda m, a: m.prod(a), [0.0, 2.0, 3.0]),
    "product with two 0": gradient(lambda m, a: m.prod(a), [0.0, 2.0, 0.0]),
    "argmax": gradient(lambda m, a: m.argmax(a).astype(m.float32), [0.0, 1.0]),
    "where": gradient(lambda m, a, b: m.where(a > 0, a, b), [0.0, 1.0], [3.0, 2.0]),
    "assignment to one element twice": gradient(lambda m, a, u: put(a, m.array(INDEX), u), [2.0, 3.0], [2.0, 3.0, 5.0]),
    "at.maximum, equal": gradient(lambda m, a, u: a.at[m.array(INDEX)].maximum(u), [2.0, 3.0], [2.0, 3.0, 5.0]),
    "at.minimum, equal": gradient(lambda m, a, u: a.at[m.array(INDEX)].minimum(u), [2.0, 3.0], [2.0, 3.0, 5.0]),
}
COMPLEX = {
    "multiply": lambda m, a: a * a,
    "divide": lambda m, a: 1 / a,
    "exp": lambda m, a: m.exp(a),
    "conjugate": lambda m, a: m.conj(a),
    "matmul": lambda m, a: m.reshape(a, (1, 1)) @ m.reshape(a * 1j, (1, 1)),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_as_mlx_has_them(name):
    same_as_mlx(EDGES[name], case=name)


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_cotangents_are_as_mlx_has_them(name):
    def call(m: Any) -> Any:
        a = m.array(1 + 2j)
        function = lambda a: COMPLEX[name](m, a)  # noqa: E731
        return m.vjp(function, [a], [m.full(function(a).shape, 1 + 1j)])

    same_as_mlx(call, case=name)


def test_parts_and_modulus_of_complex_numbers():
    for name in ("abs", "real", "imag"):

        def call(m: Any, name: str = name) -> Any:
            a = m.array(1 + 2j)
            function = getattr(m, name)
            return [m.vjp(function, [a], [m.array(2.0)]), m.jvp(function, [a], [m.array(1 + 1j)])]

        same_as_mlx(call, case=name)


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("values", [[2.0, 0.0, 3.0, 4.0], [0.0, 2.0, 0.0, 3.0], [0.0, 0.0, 1.0, 2.0]])
@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_running_products_with_zeros(values, inclusive, reverse):
    a = mx.array(values, dtype=mx.float64)
    weight = mx.array([1.0, 2.0, 3.0, 4.0], dtype=mx.float64)

    def loss(a: Any) -> Any:
        return (mx.cumprod(a, inclusive=inclusive, reverse=reverse) * weight).sum()

    found = numbers(mx.grad(loss)(a))
    for i in range(4):
        step = np.zeros(4)
        step[i] = STEP
        sides = [float(numbers(loss(a + mx.array(sign * step, dtype=mx.float64)))) for sign in (1, -1)]
        assert abs(found[i] - (sides[0] - sides[1]) / (2 * STEP)) < 1e-7
        tangent = mx.array(step / STEP, dtype=mx.float64)
        assert abs(float(numbers(mx.jvp(loss, [a], [tangent])[1][0])) - found[i]) < 1e-9


@pytest.mark.mlxlite_only
def test_logcumsumexp_of_far_apart_numbers():
    a = mx.array([-2000.0, 0.0, 3000.0, 1000.0], dtype=mx.float64)  # neither exp(a) nor its inverse is a number
    weight = mx.array([1.0, -2.0, 3.0, -4.0], dtype=mx.float64)
    found = mx.grad(lambda a: (mx.logcumsumexp(a) * weight).sum())(a)
    np.testing.assert_allclose(to_numpy(found), [1.0, -2.0, -1.0, 0.0], rtol=1e-11)


@pytest.mark.mlxlite_only
def test_queries_that_see_no_key_send_nothing_to_scores():
    q, k, v = (to_module(mx, samples("float32", (1, 2, 3, 4), seed=i, domain="small")) for i in range(3))
    mask = mx.array([[True, False, True], [False, False, False], [True, True, True]])

    def loss(q: Any, k: Any, v: Any) -> Any:
        return (mx.fast.scaled_dot_product_attention(q, k, v, scale=0.5, mask=mask) ** 2).sum()

    of_q, of_k, of_v = mx.grad(loss, argnums=(0, 1, 2))(q, k, v)
    assert np.all(numbers(of_q)[:, :, 1] == 0)
    assert np.isfinite(numbers(of_k)).all() and np.abs(numbers(of_v)).max() > 0
