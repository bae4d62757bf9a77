"""Elementwise rules. Operands come in one dtype and may need broadcasting, which NumPy does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._rules import Array, is_half, narrow, rule, widen
from .error_function import erf


def _unary(name: str, function: Callable[[Array], Any], keeps: str = "") -> None:
    """A rule from a NumPy function. Dtypes whose NumPy kind is in `keeps` are returned unchanged."""

    @rule(name)
    def _(node: Any, a: Array) -> Any:
        dtype = a.dtype
        if is_half(dtype):
            return function(widen(a)).astype(node.np_dtype)
        return a if dtype.kind in keeps else function(a)


def _binary(name: str, function: Callable[[Array, Array], Any], boolean: Callable[..., Any] | None = None) -> None:
    """A rule from a NumPy function; `boolean` computes it for bool operands where NumPy refuses or differs."""

    @rule(name)
    def _(node: Any, a: Array, b: Array) -> Any:
        dtype = a.dtype
        if is_half(dtype):
            return function(widen(a), widen(b)).astype(node.np_dtype)
        if boolean is not None and dtype.kind == "b":
            return boolean(a, b)
        return function(a, b)


def _sign(a: Array) -> Any:
    if a.dtype.kind == "c":
        return np.where(a == 0, a, a / np.abs(a))
    if a.dtype.kind == "u":
        return (a != 0).astype(a.dtype)
    return (a > 0).astype(a.dtype) - (a < 0).astype(a.dtype)  # 0 for NaN


def _erfinv(a: Array) -> Array:
    """A closed-form guess (Winitzki), then Halley steps on erf in float64."""
    x = a.astype(np.float64)
    inside = np.where(np.abs(x) < 1, x, 0.0)
    log = np.log1p(-inside * inside)
    term = 2 / (math.pi * 0.147) + log / 2
    y = np.copysign(np.sqrt(np.sqrt(term * term - log / 0.147) - term), inside)
    for _ in range(3):
        error = (erf(y) - inside) * (math.sqrt(math.pi) / 2) * np.exp(y * y)
        y = y - error / (1 + y * error)
    edge = np.where(np.abs(x) == 1, np.copysign(np.inf, x), np.nan)
    return np.where(np.abs(x) < 1, y, edge).astype(a.dtype)


def _imaginary(a: Array) -> Array:
    return a.imag if a.dtype.kind == "c" else np.zeros_like(a)


def _infinite(sign: int) -> Callable[[Array], Any]:
    def function(a: Array) -> Any:
        return np.zeros(a.shape, np.bool_) if a.dtype.kind in "biu" else a == sign * np.inf

    return function


_unary("abs", np.abs)
_unary("negative", np.negative)
_unary("sign", _sign, keeps="b")
_unary("ceil", np.ceil, keeps="biu")
_unary("floor", np.floor, keeps="biu")
_unary("rint", np.rint, keeps="biu")
_unary("square", np.square, keeps="b")
_unary("cube", lambda a: a * a * a)
_unary("sqrt", np.sqrt)
_unary("rsqrt", lambda a: 1 / np.sqrt(a))
_unary("reciprocal", np.reciprocal)
_unary("exp", np.exp)
_unary("expm1", np.expm1)
_unary("log", np.log)
_unary("log2", np.log2)
_unary("log10", np.log10)
_unary("log1p", np.log1p)
_unary("sin", np.sin)
_unary("cos", np.cos)
_unary("tan", np.tan)
_unary("sinh", np.sinh)
_unary("cosh", np.cosh)
_unary("tanh", np.tanh)
_unary("arcsin", np.arcsin)
_unary("arccos", np.arccos)
_unary("arctan", np.arctan)
_unary("arcsinh", np.arcsinh)
_unary("arccosh", np.arccosh)
_unary("arctanh", np.arctanh)
_unary("erf", erf)
_unary("erfinv", _erfinv)
_unary("sigmoid", lambda a: 1 / (1 + np.exp(-a)))
_unary("logical_not", lambda a: a == 0)
_unary("bitwise_invert", np.invert)
_unary("isnan", np.isnan)
_unary("isinf", np.isinf)
_unary("isfinite", np.isfinite)
_unary("isneginf", _infinite(-1))
_unary("isposinf", _infinite(1))
_unary("real", np.real, keeps="biuf")
_unary("imag", _imaginary)
_unary("conjugate", np.conjugate, keeps="biuf")


def _floor_divide(a: Array, b: Array) -> Any:
    if a.dtype.kind in "iu":
        return np.floor_divide(a, b)  # 0 where b is 0
    quotient = np.divide(a, b)
    return quotient if quotient.dtype.kind == "c" else np.floor(quotient)


def _remainder(a: Array, b: Array) -> Any:
    if a.dtype.kind in "iu":
        return np.where(b == 0, a, np.remainder(a, b))  # not a trap: a - b * (a // b) with a // b == 0
    return np.remainder(a, b)


def _power(a: Array, b: Array) -> Any:
    if a.dtype.kind == "f" and b.ndim == 0 and b in (3, 4):
        # NumPy knows squares; other powers of negative numbers take two hundred times as long as products.
        square = a * a
        return square * (a if b == 3 else square)
    if a.dtype.kind != "i":
        return np.power(a, b)
    negative = b < 0  # NumPy refuses these; 0 as MLX
    return np.where(negative, 0, np.power(a, np.where(negative, 0, b))).astype(a.dtype)


def _logaddexp(a: Array, b: Array) -> Any:
    if a.dtype.kind != "c":
        return np.logaddexp(a, b)
    greater = np.maximum(a, b)
    return greater + np.log1p(np.exp(np.minimum(a, b) - greater))


def _shift(function: Callable[..., Any]) -> Callable[[Array, Array], Any]:
    """Counts are taken modulo the width of the machine's operation, 32 bits for narrow types, as compiled C does."""

    def shift(a: Array, b: Array) -> Any:
        if a.dtype.itemsize >= 4:
            return function(a, b & (a.dtype.itemsize * 8 - 1))
        return function(a.astype(np.int32), b.astype(np.int32) & 31).astype(a.dtype)

    return shift


_binary("add", np.add)
_binary("subtract", np.subtract, boolean=np.logical_xor)
_binary("multiply", np.multiply)
_binary("divide", np.divide)
_binary("floor_divide", _floor_divide, boolean=np.logical_and)
_binary("remainder", _remainder, boolean=np.greater)
_binary("power", _power, boolean=np.greater_equal)
_binary("maximum", np.maximum)
_binary("minimum", np.minimum)
_binary("arctan2", np.arctan2)
_binary("logaddexp", _logaddexp)
_binary("equal", np.equal)
_binary("not_equal", np.not_equal)
_binary("less", np.less)
_binary("less_equal", np.less_equal)
_binary("greater", np.greater)
_binary("greater_equal", np.greater_equal)
_binary("logical_and", np.logical_and)
_binary("logical_or", np.logical_or)
_binary("bitwise_and", np.bitwise_and)
_binary("bitwise_or", np.bitwise_or)
_binary("bitwise_xor", np.bitwise_xor)
_binary("left_shift", _shift(np.left_shift))
_binary("right_shift", _shift(np.right_shift))


@rule("where")
def _where(node: Any, condition: Array, x: Array, y: Array) -> Array:
    return np.where(condition, x, y)


@rule("astype")
def _astype(node: Any, a: Array) -> Array:
    dtype = node.np_dtype
    if dtype.kind == "b":
        return widen(a) != 0
    if a.dtype.kind == "c" and dtype.kind != "c":
        a = a.real
    a = widen(a)
    if dtype.kind in "iu" and a.dtype.kind == "f" and dtype.itemsize < 8:
        a = a.astype(np.int64 if dtype.kind == "u" and dtype.itemsize == 4 else np.int32)  # then wraps around
    return narrow(a, dtype)
