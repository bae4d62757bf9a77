"""Elementwise functions. Derivatives are compositions of elementwise primitives, so they fuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ... import _graph
from ..._graph import TracedNode, array
from ...core import elementwise as ew
from ...core import shape as shapes
from ...core._registry import PRIMITIVES
from .._tables import HOLOMORPHIC, jvp, vjp, vmap, without_gradient
from ._common import align, unbroadcast

# The change of the output when an input changes by `t`: a function of t, the inputs, and the output. It is linear in t,
# and its own transpose but for broadcasting.
Part = Callable[..., array]


def _derivative(name: str, *parts: Part | None) -> None:
    """The rules of an elementwise function from its partial derivatives, one an input; None for no derivative."""

    HOLOMORPHIC.add(name)

    @vjp(name)
    def _(node: TracedNode, cotangent: array) -> list[array | None]:
        inputs, output, sources = node.inputs, node.output, node.sources
        return [
            None if part is None or source < 0 else unbroadcast(part(cotangent, *inputs, output), a.shape)
            for part, source, a in zip(parts, sources, inputs, strict=True)
        ]

    @jvp(name)
    def _(node: TracedNode, tangents: list[array | None]) -> array | None:
        inputs, output = node.inputs, node.output
        total = None
        for part, t in zip(parts, tangents, strict=True):
            if part is not None and t is not None:
                change = part(t, *inputs, output)
                total = change if total is None else ew.add(total, change)
        return None if total is None else shapes.broadcast_to(total, node.shape)


def _times(function: Callable[[array], array]) -> Part:
    return lambda t, x, out: ew.multiply(t, function(x))


def _over(function: Callable[[array], array]) -> Part:
    return lambda t, x, out: ew.divide(t, function(x))


add, subtract, multiply, divide, square, negative = (
    ew.add,
    ew.subtract,
    ew.multiply,
    ew.divide,
    ew.square,
    ew.negative,
)

without_gradient("sign ceil floor rint floor_divide equal not_equal less less_equal greater greater_equal")
without_gradient("logical_not logical_and logical_or bitwise_and bitwise_or bitwise_xor bitwise_invert")
without_gradient("left_shift right_shift isnan isinf isfinite isneginf isposinf")


# ---- one array


@vjp("abs")
def _abs_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [multiply(cotangent, ew.sign(node.inputs[0]))]


@jvp("abs")
def _abs_jvp(node: TracedNode, tangents: list[Any]) -> array:
    change = multiply(tangents[0], ew.conjugate(ew.sign(node.inputs[0])))
    return ew.real(change) if change.dtype.category == "complex" else change


_derivative("negative", lambda t, x, out: negative(t))
_derivative("square", lambda t, x, out: multiply(t, multiply(2, x)))
_derivative("cube", lambda t, x, out: multiply(t, multiply(3, square(x))))
_derivative("sqrt", lambda t, x, out: divide(t, multiply(2, out)))
_derivative("rsqrt", lambda t, x, out: multiply(t, multiply(-0.5, divide(out, x))))
_derivative("reciprocal", lambda t, x, out: negative(multiply(t, square(out))))
_derivative("exp", lambda t, x, out: multiply(t, out))
_derivative("expm1", lambda t, x, out: multiply(t, add(out, 1)))
_derivative("log", lambda t, x, out: divide(t, x))
_derivative("log2", _over(lambda x: multiply(math.log(2), x)))
_derivative("log10", _over(lambda x: multiply(math.log(10), x)))
_derivative("log1p", _over(lambda x: add(1, x)))
_derivative("sin", _times(ew.cos))
_derivative("cos", lambda t, x, out: negative(multiply(t, ew.sin(x))))
_derivative("tan", lambda t, x, out: multiply(t, add(1, square(out))))
_derivative("sinh", _times(ew.cosh))
_derivative("cosh", _times(ew.sinh))
_derivative("tanh", lambda t, x, out: multiply(t, subtract(1, square(out))))
_derivative("arcsin", _times(lambda x: ew.rsqrt(subtract(1, square(x)))))
_derivative("arccos", lambda t, x, out: negative(multiply(t, ew.rsqrt(subtract(1, square(x))))))
_derivative("arctan", _over(lambda x: add(1, square(x))))
_derivative("arcsinh", _times(lambda x: ew.rsqrt(add(square(x), 1))))
_derivative("arccosh", _times(lambda x: ew.rsqrt(subtract(square(x), 1))))
_derivative("arctanh", _over(lambda x: subtract(1, square(x))))
_derivative("erf", _times(lambda x: multiply(2 / math.sqrt(math.pi), ew.exp(negative(square(x))))))
_derivative("erfinv", lambda t, x, out: multiply(t, multiply(math.sqrt(math.pi) / 2, ew.exp(square(out)))))
_derivative("sigmoid", lambda t, x, out: multiply(t, multiply(out, subtract(1, out))))
_derivative("conjugate", lambda t, x, out: ew.conjugate(t))


@vjp("real")
def _real_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [_graph.astype(cotangent, node.inputs[0].dtype)]


@vjp("imag")
def _imag_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    if node.inputs[0].dtype.category != "complex":
        return [None]
    return [multiply(_graph.astype(cotangent, _graph.complex64), 1j)]


jvp("real")(lambda node, tangents: ew.real(tangents[0]))
jvp("imag")(lambda node, tangents: ew.imag(tangents[0]))


@vjp("astype")
def _astype_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [_graph.astype(cotangent, node.inputs[0].dtype)]


@jvp("astype")
def _astype_jvp(node: TracedNode, tangents: list[Any]) -> array:
    return _graph.astype(tangents[0], node.dtype)


# ---- two arrays


def _power_by_exponent(t: array, a: array, b: array, out: array) -> array:
    # Where the result is 0 so is the derivative, though log(0) is infinite.
    return ew.where(out, multiply(t, multiply(ew.log(a), out)), 0)


def _masked(compare: Callable[..., array]) -> Part:
    return lambda t, a, b, out: multiply(t, _graph.astype(compare(a, b), t.dtype))


_derivative("add", lambda t, a, b, out: t, lambda t, a, b, out: t)
_derivative("subtract", lambda t, a, b, out: t, lambda t, a, b, out: negative(t))
_derivative("multiply", lambda t, a, b, out: multiply(t, b), lambda t, a, b, out: multiply(t, a))
_derivative(
    "divide",
    lambda t, a, b, out: divide(t, b),
    lambda t, a, b, out: negative(divide(multiply(t, a), square(b))),
)
_derivative("remainder", lambda t, a, b, out: t, lambda t, a, b, out: negative(multiply(t, ew.floor_divide(a, b))))
_derivative("power", lambda t, a, b, out: multiply(t, multiply(b, ew.power(a, subtract(b, 1)))), _power_by_exponent)
_derivative("maximum", _masked(ew.greater), _masked(ew.less_equal))  # a tie goes to the second
_derivative("minimum", _masked(ew.less), _masked(ew.greater_equal))
_derivative(
    "arctan2",
    lambda t, a, b, out: multiply(t, divide(b, add(square(a), square(b)))),
    lambda t, a, b, out: multiply(t, divide(negative(a), add(square(a), square(b)))),
)
_derivative(
    "logaddexp",
    lambda t, a, b, out: multiply(t, ew.exp(subtract(a, out))),
    lambda t, a, b, out: multiply(t, ew.exp(subtract(b, out))),
)

# ---- three
_derivative("where", None, lambda t, c, x, y, out: ew.where(c, t, 0), lambda t, c, x, y, out: ew.where(c, 0, t))


# ---- vectorisation: operands broadcast, so the mapped axis goes before all others


def _elementwise_names() -> list[str]:
    return [name for name, p in PRIMITIVES.items() if p.kind in ("unary", "binary", "select")]


@vmap(*_elementwise_names())
def _vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    rank = len(node.shape)
    return PRIMITIVES[node.name](*[align(a, b, rank) for a, b in zip(inputs, batched, strict=True)])


@vmap("astype")
def _astype_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return _graph.astype(inputs[0], node.dtype)


@vmap("stop_gradient")
def _stop_gradient_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return _graph.stop_gradient(inputs[0])
