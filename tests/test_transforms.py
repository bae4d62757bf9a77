"""What transforms take, return and refuse, how they nest, and rules of one's own."""

from __future__ import annotations

import gc
import itertools
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

from .differential import assert_close, same_as_mlx, to_numpy
from .module_under_test import mx

X = np.array([1.0, 2.0, 3.0], np.float32)
Y = np.array([3.0, 4.0, 5.0], np.float32)
M = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)


def flat(value: Any) -> Any:
    """Dicts as lists of pairs: what `same_as_mlx` compares."""
    if isinstance(value, dict):
        return [(key, flat(v)) for key, v in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value)([flat(v) for v in value])
    return value


def square_sum(x: Any) -> Any:
    return (x * x).sum()


def product_sum(x: Any, y: Any) -> Any:
    return (x * y).sum()


def of_tree(p: Any) -> Any:
    return (p["a"] * p["b"][0]).sum()


GRADIENTS = {
    "one argument": lambda m, x, y: m.grad(square_sum)(x),
    "value and gradient": lambda m, x, y: m.value_and_grad(square_sum)(x),
    "a sequence of one": lambda m, x, y: m.value_and_grad(product_sum, argnums=[1])(x, y),
    "two, out of order": lambda m, x, y: m.grad(product_sum, argnums=(1, 0))(x, y),
    "one twice": lambda m, x, y: m.grad(product_sum, argnums=(0, 0)),
    "a negative one": lambda m, x, y: m.grad(product_sum, argnums=-1),
    "a negative one in a tuple": lambda m, x, y: m.grad(product_sum, argnums=(-1,)),
    "none": lambda m, x, y: m.grad(product_sum, argnums=()),
    "one too many": lambda m, x, y: m.grad(product_sum, argnums=2)(x, y),
    "a string": lambda m, x, y: m.grad(product_sum, argnums="a"),
    "a fraction": lambda m, x, y: m.grad(product_sum, argnums=1.5),
    "True": lambda m, x, y: m.grad(product_sum, argnums=True)(x, y),
    "by name": lambda m, x, y: m.grad(product_sum, argnames="y")(x, y=y),
    "by names": lambda m, x, y: m.value_and_grad(product_sum, argnames=["y", "x"])(x=x, y=y),
    "by number and name": lambda m, x, y: m.grad(product_sum, argnums=0, argnames="y")(x, y=y),
    "by numbers and name": lambda m, x, y: m.grad(lambda a, b, c: (a * b * c).sum(), (0, 1), "c")(x, y, c=y),
    "a name twice": lambda m, x, y: m.grad(product_sum, argnames=["y", "y"])(x, y=y),
    "a name that is not there": lambda m, x, y: m.grad(product_sum, argnames="z")(x, y=y),
    "no names": lambda m, x, y: m.grad(product_sum, argnames=[])(x, y=y),
    "no arguments": lambda m, x, y: m.grad(square_sum)(),
    "no function": lambda m, x, y: m.grad(3),
    "a number": lambda m, x, y: m.grad(product_sum)(2.0, y),
    "a number beside": lambda m, x, y: m.grad(product_sum)(x, 2.0),
    "a tree": lambda m, x, y: m.grad(of_tree)({"a": x, "b": [y]}),
    "a tuple": lambda m, x, y: m.grad(lambda p: (p[0] * p[1]).sum())((x, y)),
    "an empty tree": lambda m, x, y: m.grad(lambda p, x: x.sum(), argnums=(0, 1))({}, x),
    "a tree with a number": lambda m, x, y: m.grad(of_tree)({"a": x, "b": [2.0]}),
    "a tree with None": lambda m, x, y: m.grad(lambda p: p["a"].sum())({"a": x, "b": None}),
    "not a scalar": lambda m, x, y: m.grad(lambda x: x * 2)(x),
    "one element": lambda m, x, y: m.grad(lambda x: x.sum(keepdims=True))(x),
    "a number returned": lambda m, x, y: m.grad(lambda x: 2.0)(x),
    "None returned": lambda m, x, y: m.grad(lambda x: None)(x),
    "a tuple returned": lambda m, x, y: m.value_and_grad(lambda x: (x.sum(), x * 2, "a", {"b": 3}))(x),
    "a tuple returned to grad": lambda m, x, y: m.grad(lambda x: (x.sum(), x * 2))(x),
    "a list returned": lambda m, x, y: m.value_and_grad(lambda x: [x.sum(), x])(x),
    "an empty tuple": lambda m, x, y: m.value_and_grad(lambda x: ())(x),
    "a number first": lambda m, x, y: m.value_and_grad(lambda x: (1.0, x.sum()))(x),
    "integers": lambda m, x, y: m.grad(square_sum)(x.astype(m.int32)),
    "bool": lambda m, x, y: m.grad(lambda x: x.sum().astype(m.float32))(x > 1),
    "an integer returned": lambda m, x, y: m.grad(lambda x: (x * 2).sum().astype(m.int32))(x),
    "float16": lambda m, x, y: m.grad(square_sum)(x.astype(m.float16)),
    "two dtypes": lambda m, x, y: m.grad(product_sum, argnums=(0, 1))(x.astype(m.float16), y),
    "an integer among them": lambda m, x, y: m.grad(product_sum, argnums=(0, 1))(x.astype(m.bfloat16), m.array(2)),
    "a constant": lambda m, x, y: m.grad(lambda x: m.array(3.0))(x),
    "an unused argument": lambda m, x, y: m.grad(lambda x, y: x.sum(), argnums=(0, 1))(x, y),
    "the argument itself": lambda m, x, y: m.value_and_grad(lambda x: x)(m.array(3.0)),
    "an argument used twice": lambda m, x, y: m.grad(lambda x: (x + x * x + x).sum())(x),
    "one array twice": lambda m, x, y: m.grad(product_sum, argnums=(0, 1))(x, x),
    "changed in place": lambda m, x, y: (m.grad(lambda x: in_place(x).sum())(x), x),
    "stop_gradient": lambda m, x, y: m.grad(lambda x: (x * m.stop_gradient(x)).sum())(x),
    "stop_gradient of a number": lambda m, x, y: m.stop_gradient(2.0),
}
PRODUCTS = {
    "vjp": lambda m, x, y: m.vjp(lambda x: x * 2, [x], [y]),
    "vjp of two": lambda m, x, y: m.vjp(lambda x, z: [x * z, z], (x, y), (y, x)),
    "vjp, too many": lambda m, x, y: m.vjp(lambda x: x * 2, [x], [y, y]),
    "vjp, too few": lambda m, x, y: m.vjp(lambda x: (x * 2, x), [x], [y]),
    "vjp, another shape": lambda m, x, y: m.vjp(lambda x: x * 2, [x], [m.array(1.0)]),
    "vjp, another dtype": lambda m, x, y: m.vjp(lambda x: x * 2, [x], [y.astype(m.float16)]),
    "vjp, unused": lambda m, x, y: m.vjp(lambda x, z: x * 2, [x, y], [y]),
    "vjp, constant": lambda m, x, y: m.vjp(lambda x: (m.ones(3), x * 2), [x], [y, y]),
    "vjp, stopped": lambda m, x, y: m.vjp(lambda x: (x * 2, m.stop_gradient(x)), [x], [y]),
    "vjp, integers": lambda m, x, y: m.vjp(lambda x: (x * 2, (x * 2).astype(m.int32)), [x], [y, y]),
    "vjp, no list": lambda m, x, y: m.vjp(lambda x: x * 2, x, y),
    "jvp": lambda m, x, y: m.jvp(lambda x: x * 2, [x], [y]),
    "jvp of two": lambda m, x, y: m.jvp(lambda x, z: (x * z, x), (x, y), (y, x)),
    "jvp, too few": lambda m, x, y: m.jvp(lambda x, z: x * z, [x, y], [y]),
    "jvp, another shape": lambda m, x, y: m.jvp(lambda x: x, [x], [m.array(1.0)]),
    "jvp, constant": lambda m, x, y: m.jvp(lambda x: (m.ones(3), x.astype(m.int32)), [x], [y]),
    "jvp, stopped": lambda m, x, y: m.jvp(lambda x: x * m.stop_gradient(x), [x], [y]),
    "jvp, no list": lambda m, x, y: m.jvp(lambda x: x, x, y),
}
MAPS = {
    "rows": lambda m, a, x: m.vmap(lambda r: r.sum())(a),
    "columns": lambda m, a, x: m.vmap(lambda r: r.sum(), in_axes=1)(a),
    "the last axis": lambda m, a, x: m.vmap(lambda r: r * 2, in_axes=-1, out_axes=-1)(a),
    "no such axis": lambda m, a, x: m.vmap(lambda r: r, in_axes=5)(a),
    "no such axis of the result": lambda m, a, x: m.vmap(lambda r: r, out_axes=5)(a),
    "a scalar": lambda m, a, x: m.vmap(lambda r: r)(m.array(1.0)),
    "one mapped": lambda m, a, x: m.vmap(lambda r, s: r * s, in_axes=(0, None))(a, x),
    "other sizes": lambda m, a, x: m.vmap(lambda r, s: r * s)(a, x),
    "None": lambda m, a, x: m.vmap(lambda r: r, in_axes=None),
    "all None": lambda m, a, x: m.vmap(lambda r, s: r * s, in_axes=(None, None))(a, x),
    "a tree": lambda m, a, x: m.vmap(lambda p: p["a"] * p["b"], in_axes={"a": 0, "b": None})({"a": a, "b": x}),
    "a tree and an array": lambda m, a, x: m.vmap(
        lambda p, q: p["a"] * p["b"] + q, in_axes=({"a": 0, "b": None}, None)
    )({"a": a, "b": x}, x),
    "a prefix": lambda m, a, x: m.vmap(lambda p, q: p["a"] + p["b"][0] + q, in_axes=(0, None))({"a": a, "b": [a]}, x),
    "too few axes": lambda m, a, x: m.vmap(lambda r, s: r * s, in_axes=(0,))(a, x),
    "a string": lambda m, a, x: m.vmap(lambda r, s: r * s, in_axes="a")(a, x),
    "a number": lambda m, a, x: m.vmap(lambda r, s: r * s, in_axes=(0, None))(a, 2.0),
    "keywords": lambda m, a, x: m.vmap(lambda r, s: r * s)(a, s=x),
    "several results": lambda m, a, x: m.vmap(lambda r: (r, r * 2), out_axes=(0, 1))(a),
    "one axis for several results": lambda m, a, x: m.vmap(lambda r: [r, r * 2], out_axes=1)(a),
    "too few axes of results": lambda m, a, x: m.vmap(lambda r: (r, r), out_axes=(0,))(a),
    "a dict of results": lambda m, a, x: flat(m.vmap(lambda r: {"q": r}, out_axes={"q": 1})(a)),
    "None for results": lambda m, a, x: m.vmap(lambda r: r, out_axes=None),
    "a constant result": lambda m, a, x: m.vmap(lambda r: x, out_axes=1)(a),
    "a number returned": lambda m, a, x: m.vmap(lambda r: 2.0)(a),
    "item": lambda m, a, x: m.vmap(lambda r: r.sum().item())(a),
    "eval": lambda m, a, x: m.vmap(lambda r: m.eval(r) or r)(a),
    "no arguments": lambda m, a, x: m.vmap(lambda: x)(),
    "no function": lambda m, a, x: m.vmap(3),
    "of nothing": lambda m, a, x: m.vmap(lambda r: r * 2)(a[:0]),
    "keys": lambda m, a, x: m.vmap(lambda k: m.random.uniform(shape=(3,), key=k))(m.random.split(m.random.key(0), 3)),
}


def in_place(x: Any) -> Any:
    x[0] = x[1] * x[2]
    x += 1
    return x * x


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_taken_and_returned_as_by_mlx(name):
    same_as_mlx(lambda m, x, y: flat(GRADIENTS[name](m, x, y)), X, Y, case=name)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_taken_and_returned_as_by_mlx(name):
    same_as_mlx(PRODUCTS[name], X, Y, case=name)


@pytest.mark.parametrize("name", MAPS)
def test_vmap_takes_and_returns_as_by_mlx(name):
    same_as_mlx(MAPS[name], M, X, case=name)


# ---- nesting


def _derivative(kind: str, f: Any) -> Any:
    if kind == "grad":
        return mx.grad(f)
    if kind == "jvp":
        return lambda x: mx.jvp(f, [x], [mx.ones_like(x)])[1][0]
    if kind == "vjp":
        return lambda x: mx.vjp(f, [x], [mx.ones_like(x)])[1][0]
    return mx.vmap(f)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_transforms_nest_in_any_order(depth):
    for kinds in itertools.product(["grad", "jvp", "vjp", "vmap"], repeat=depth):
        maps = kinds.count("vmap")
        # A gradient is of a scalar: it is taken inside of the maps, or of the sum of what they give.
        function, rank = (lambda x: mx.exp(2 * x) * 0.5), 0
        for kind in kinds:
            if kind == "vmap":
                rank += 1
            if kind == "grad" and rank:
                function = mx.grad(lambda x, f=function: f(x).sum())
            else:
                function = _derivative(kind, function)
        x = np.linspace(-1, 1, 2**maps).reshape((2,) * maps).astype(np.float32)
        order = depth - maps
        found = function(mx.array(x))
        assert found.shape == x.shape, kinds
        np.testing.assert_allclose(to_numpy(found), 0.5 * 2.0**order * np.exp(2 * x), rtol=2e-6, err_msg=str(kinds))


def test_high_derivatives():
    f: Any = lambda x: x**7  # noqa: E731
    for _ in range(5):
        f = mx.grad(f)
    assert f(mx.array(2.0)).item() == pytest.approx(7 * 6 * 5 * 4 * 3 * 4)


def test_hessians():
    a = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    matrix, x = mx.array(a), mx.array(np.arange(4, dtype=np.float32))

    def f(x: Any) -> Any:
        return (x @ matrix @ x) * 0.5 + mx.sin(x).sum()

    expected = (a + a.T) / 2 - np.diag(np.sin(np.arange(4)))
    basis = mx.eye(4)
    forward = mx.vmap(lambda v: mx.jvp(mx.grad(f), [x], [v])[1][0])(basis)
    reverse = mx.vmap(lambda v: mx.vjp(mx.grad(f), [x], [v])[1][0])(basis)
    outside = mx.grad(lambda x: (mx.grad(f)(x) * basis[1]).sum())(x)
    assert_close(to_numpy(forward), expected, tolerance=1e-5)
    assert_close(to_numpy(reverse), expected, tolerance=1e-5)
    assert_close(to_numpy(outside), expected[1], tolerance=1e-5)


def test_an_inner_transform_sees_the_outer_argument_as_constant():
    found = mx.grad(lambda x: x * mx.grad(lambda y: x * y * y)(x))(mx.array(3.0))  # x * 2 x x
    assert found.item() == 54
    inner = mx.vmap(lambda x: mx.vmap(lambda y: x * y)(mx.array([1.0, 2.0])))(mx.array([3.0, 4.0]))
    assert inner.tolist() == [[3, 6], [4, 8]]


def test_gradients_of_a_gradient_step():
    """Differentiating through an update that is made of a gradient."""

    def loss(w: Any, x: Any) -> Any:
        return ((w * x - 1) ** 2).sum()

    def after(rate: Any) -> Any:
        w, x = mx.array([1.0, 2.0]), mx.array([0.5, 3.0])
        for _ in range(3):
            w = w - rate * mx.grad(loss)(w, x)
        return loss(w, x)

    rate, step = 0.01, 1e-3
    expected = (after(mx.array(rate + step)).item() - after(mx.array(rate - step)).item()) / (2 * step)
    assert mx.grad(after)(mx.array(rate)).item() == pytest.approx(expected, rel=1e-2)


@pytest.mark.mlxlite_only
def test_an_operation_without_a_rule_is_named():
    from mlxlite.transforms import _tables

    rule, vectorised = _tables.VJP.pop("tanh"), _tables.VMAP.pop("tanh")
    try:
        with pytest.raises(NotImplementedError, match=r"\[vjp\].*tanh"):
            mx.grad(lambda x: mx.tanh(x).sum())(mx.array(X))
        with pytest.raises(NotImplementedError, match=r"\[vmap\].*tanh"):
            mx.vmap(mx.tanh)(mx.array(X))
    finally:
        _tables.VJP["tanh"], _tables.VMAP["tanh"] = rule, vectorised


# ---- rules of one's own


def scaled(m: Any) -> Any:
    @m.custom_function
    def f(x: Any, y: Any) -> Any:
        return m.sin(x) * y

    return f


def test_a_custom_vjp():
    def call(m: Any, x: Any, y: Any) -> Any:
        f = scaled(m)

        @f.vjp
        def rule(primals: Any, cotangent: Any, output: Any) -> Any:
            assert type(primals) is tuple and output.shape == primals[0].shape
            return primals[0] * cotangent, output

        return m.value_and_grad(lambda x, y: f(x, y).sum(), argnums=(0, 1))(x, y), m.jvp(f, [x, y], [y, x])

    same_as_mlx(call, X, Y)


def test_a_custom_jvp_and_vmap():
    def call(m: Any, x: Any, y: Any) -> Any:
        f = scaled(m)

        @f.jvp
        def rule(primals: Any, tangents: Any) -> Any:
            return primals[0] * tangents[0] + 10 * tangents[1]

        @f.vmap
        def mapped(inputs: Any, axes: Any) -> Any:
            assert axes == (0, None)
            return inputs[0] * 100 + inputs[1], 0

        gradient = m.grad(lambda x: f(x, y).sum())(x)  # of the function itself
        return m.jvp(f, [x, y], [y, x]), m.vmap(f, in_axes=(0, None))(x, y[0]), gradient

    same_as_mlx(call, X, Y)


def test_custom_rules_of_trees():
    def call(m: Any, x: Any, y: Any) -> Any:
        @m.custom_function
        def f(p: Any) -> Any:
            return {"s": p["a"] * p["b"][0], "t": p["a"]}

        @f.vjp
        def rule(primals: Any, cotangents: Any, outputs: Any) -> Any:
            return {"a": cotangents["s"] * outputs["t"], "b": [cotangents["t"] + primals["a"]]}

        return flat(m.grad(lambda p: f(p)["s"].sum())({"a": x, "b": [y]}))

    same_as_mlx(call, X, Y)


def test_a_custom_rule_of_one_argument_with_a_number_beside():
    def call(m: Any, x: Any) -> Any:
        f = scaled(m)
        f.vjp(lambda primals, cotangent, output: (cotangent * primals[1], cotangent))
        return m.grad(lambda x: f(x, 3.0).sum())(x)

    same_as_mlx(call, X)


def test_custom_rules_nest():
    @mx.custom_function
    def cube(x: Any) -> Any:
        return x**3

    @cube.vjp
    def rule(x: Any, cotangent: Any, output: Any) -> Any:
        return cotangent * 5 * x**2  # not 3

    x = mx.array(2.0)
    assert mx.grad(cube)(x).item() == 20
    assert mx.grad(mx.grad(cube))(x).item() == 20  # (5 x^2)'
    assert mx.grad(mx.grad(lambda x: cube(x) * x))(x).item() == pytest.approx(20 + 20 + 2 * 20)
    assert mx.vmap(mx.grad(cube))(mx.array([1.0, 2.0])).tolist() == [5, 20]


def test_custom_derivatives_survive_vmap():
    f = scaled(mx)
    f.vjp(lambda primals, cotangent, output: (cotangent * 7, cotangent * primals[0]))
    x, y = mx.array(M), mx.array(Y)
    of_x, of_y = mx.grad(lambda x, y: mx.vmap(f, in_axes=(0, None))(x, y).sum(), argnums=(0, 1))(x, y)
    assert of_x.tolist() == [[7, 7, 7], [7, 7, 7]]
    assert of_y.tolist() == [5, 7, 9]


@pytest.mark.mlxlite_only
def test_custom_rules_that_return_something_else():
    f = scaled(mx)
    x = mx.array(X)
    for wrong in (lambda p, c, o: c, lambda p, c, o: (c,), lambda p, c, o: (c.sum(), c), lambda p, c, o: (2.0, c)):
        f.vjp(wrong)
        with pytest.raises(ValueError, match="custom_function"):
            mx.grad(lambda x: f(x, x).sum())(x)
    f.vjp(lambda p, c, o: (None, c))
    assert mx.grad(lambda x, y: f(x, y).sum(), argnums=(0, 1))(x, x)[0].tolist() == [0, 0, 0]


def test_checkpoint():
    def call(m: Any, x: Any, y: Any) -> Any:
        f = m.checkpoint(lambda p, y, scale=1.0: (m.sin(p["a"]) * y).sum() * scale)
        return m.value_and_grad(lambda x, y: f({"a": x}, y, scale=2.0), argnums=(0, 1))(x, y)

    same_as_mlx(call, X, Y)


@pytest.mark.mlxlite_only
def test_checkpoint_computes_again_and_nests():
    calls: list[int] = []
    f = mx.checkpoint(lambda x: calls.append(1) or mx.sin(x) * x)
    x = mx.array(X)
    assert_close(to_numpy(mx.grad(lambda x: f(x).sum())(x)), np.sin(X) + X * np.cos(X))
    assert len(calls) == 2
    second = mx.grad(lambda x: mx.grad(lambda x: f(x).sum())(x).sum())(x)
    assert_close(to_numpy(second), 2 * np.cos(X) - X * np.sin(X))
    assert_close(to_numpy(mx.vmap(mx.grad(f))(x)), np.sin(X) + X * np.cos(X))
    assert_close(to_numpy(mx.grad(lambda x: mx.vmap(f)(x).sum())(x)), np.sin(X) + X * np.cos(X))


@pytest.mark.mlxlite_only
def test_checkpoint_needs_less_memory(is_fused):
    if is_fused:
        pytest.skip("counts the memory of NumPy arrays")

    def block(x: Any) -> Any:
        for _ in range(8):
            x = mx.sin(x) * mx.cos(x) + x
        return x

    def peak(wrap: Any) -> int:
        def model(x: Any) -> Any:
            for _ in range(8):
                x = wrap(block)(x)
            return x.sum()

        x = mx.ones((1 << 14,))
        mx.eval(x)
        gc.collect()
        tracemalloc.start()
        mx.eval(mx.value_and_grad(model)(x))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(mx.checkpoint) < 0.5 * peak(lambda f: f)


def test_stop_gradient_in_nested_transforms():
    f = lambda x: x * x * mx.stop_gradient(x)  # noqa: E731
    x = mx.array(3.0)
    assert mx.grad(f)(x).item() == 18
    assert mx.grad(mx.grad(f))(x).item() == 6
    assert mx.grad(lambda x: mx.vmap(f)(x).sum())(mx.array([3.0])).tolist() == [18]
    assert mx.vmap(mx.grad(f))(mx.array([3.0])).tolist() == [18]


# ---- the rest


@pytest.mark.mlxlite_only
def test_examples_of_docstrings():
    import doctest

    from mlxlite.transforms import _trace, compiled, forward, functions, gradients, vectorize

    found = 0
    for module in (_trace, compiled, forward, functions, gradients, vectorize):
        results = doctest.testmod(module, extraglobs={"mx": mx})
        assert results.failed == 0
        found += results.attempted
    assert found >= 10


@pytest.mark.mlxlite_only
def test_gradients_lower_for_the_gpu():
    """Plans of gradients, simulated. What a stand-in leaves behind is a view that lowering takes."""
    from .checked_backend import checked

    rng = np.random.default_rng(0)
    x, w, b = (mx.array(rng.normal(size=s).astype(np.float32)) for s in ((4, 6), (6, 5), (5,)))
    q = mx.array(rng.normal(size=(1, 2, 3, 8)).astype(np.float32))
    index = mx.array([0, 2, 2])

    def network(w: Any, b: Any) -> Any:
        h = mx.tanh(x @ w + b)
        h = mx.fast.rms_norm(h, None, 1e-5) + mx.softmax(h, axis=-1)
        return mx.logsumexp(h[index] * mx.max(h, axis=0), axis=-1).sum() * b.sum().item()

    def attention(q: Any) -> Any:
        return mx.fast.scaled_dot_product_attention(q, q, q, scale=0.3, mask="causal").sum()

    with checked() as plans:
        mx.eval(mx.value_and_grad(network, argnums=(0, 1))(w, b))
        mx.eval(mx.grad(attention)(q))
        mx.eval(mx.vmap(mx.grad(lambda a: (mx.sort(a) * mx.cumsum(a)).sum()))(x))
        mx.eval(mx.grad(lambda s: (s * x).sum())(mx.array(2.0)))
    assert len(plans) >= 4


def test_value_is_lazy_and_right():
    value, gradient = mx.value_and_grad(lambda x: mx.sin(x).sum())(mx.array(X))
    assert value.item() == pytest.approx(math.fsum(np.sin(X.astype(np.float64))), rel=1e-6)
    assert_close(to_numpy(gradient), np.cos(X))


def test_parts_of_one_array_meet_in_one_array():
    """Slices, gathered rows and chosen elements: one array for the gradient, and not one for each."""
    a = mx.arange(24, dtype=mx.float32).reshape(4, 6)
    rows, columns = mx.array([0, 2, 0]), mx.array([[-1], [0], [5], [2]])

    def f(a):
        left, middle, right = mx.split(a, 3, axis=1)
        parts = (left * 2).sum() + (middle * 3).sum() + (right * 5).sum()
        return parts + (a[rows] * 7).sum() + (mx.take_along_axis(a, columns, axis=1) * 11).sum() + (a * a).sum()

    expected = np.tile(np.repeat([2.0, 3.0, 5.0], 2), (4, 1)) + 2 * np.arange(24).reshape(4, 6)
    np.add.at(expected, [0, 2, 0], 7.0)
    expected[np.arange(4), [5, 0, 5, 2]] += 11
    for _ in range(2):  # by the rules, and replayed
        np.testing.assert_allclose(np.array(mx.grad(f)(a)), expected)


@pytest.mark.mlxlite_only
def test_the_gradient_of_a_split_is_put_together():
    a = mx.ones((4, 6))

    def labels_of(first):
        def f(a):
            return sum((k * part).sum() for k, part in enumerate(mx.split(a, 3, axis=1)[first:], 2))

        gradient = mx.grad(f)(a)
        expected = np.tile(np.repeat([0.0, 2.0, 3.0] if first else [2.0, 3.0, 4.0], 2), (4, 1))
        np.testing.assert_array_equal(to_numpy(gradient), expected)
        return [(n.label, str(n.ops)) for n in mx.explain(mx.grad(f)(a), device=mx.cpu).nodes]

    whole, part = labels_of(0), labels_of(1)
    assert [label for label, _ in whole].count("concatenate") == 1
    assert not {"slice_update", "add"} & {label for label, _ in whole}
    # What does not cover all goes into one array of zeros.
    assert [label for label, _ in part].count("slice_update") == 2
    assert len([ops for label, ops in part if label == "full" and "(4, 6)" in ops]) == 1


@pytest.mark.mlxlite_only
def test_a_cross_entropy_has_no_zeros_of_the_size_of_the_logits():
    logits, targets = mx.random.normal((5, 40)), mx.array([3, 0, 39, 7, 7])

    def loss(logits):
        return (mx.logsumexp(logits, axis=-1) - mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]).sum()

    labels = [node.label for node in mx.explain(mx.grad(loss)(logits), device=mx.cpu).nodes]
    assert "put_along_axis" not in labels
