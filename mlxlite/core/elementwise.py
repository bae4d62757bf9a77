"""Elementwise functions: arithmetic, comparison, logic, bits."""

from __future__ import annotations

import math
from typing import Any

from .. import _graph
from ._registry import (
    alias,
    array,
    as_array,
    binary,
    is_inexact,
    remembered,
    require_array,
    select,
    to_dtype,
    to_inexact,
    unary,
)


def _doc(summary: str, names: str = "a", result: str = "An array of the broadcast shape.") -> str:
    arguments = f"    {names}: arrays or numbers.\n    stream: a stream or device."
    return f"{summary}\n\nArgs:\n{arguments}\n\nReturns:\n    {result}"


# ---- one array
abs = unary("abs", dtype="real", doc=_doc("Absolute value; the modulus of a complex number."))
negative = unary("negative", accepts="numeric", doc=_doc("-a. ValueError for bool."))
sign = unary("sign", doc=_doc("-1, 0 or 1; z / |z| for complex z."))
ceil = unary("ceil", accepts="real", doc=_doc("The least integer not below a."))
floor = unary("floor", accepts="real", doc=_doc("The greatest integer not above a."))
rint = unary("rint", doc=_doc("The nearest integer, halves to even."))
square = unary("square", doc=_doc("a * a."))
_cube = unary("cube", dtype="inexact", doc=_doc("a * a * a."))
sqrt = unary("sqrt", dtype="inexact", doc=_doc("Square root."))
rsqrt = unary("rsqrt", dtype="inexact", doc=_doc("1 / sqrt(a)."))
reciprocal = unary("reciprocal", dtype="inexact", doc=_doc("1 / a."))
exp = unary("exp", dtype="inexact", doc=_doc("e to the power a."))
expm1 = unary("expm1", dtype="inexact", accepts="real", doc=_doc("exp(a) - 1, exact near 0."))
log = unary("log", dtype="inexact", doc=_doc("Natural logarithm."))
log2 = unary("log2", dtype="inexact", doc=_doc("Logarithm to base 2."))
log10 = unary("log10", dtype="inexact", doc=_doc("Logarithm to base 10."))
log1p = unary("log1p", dtype="inexact", doc=_doc("log(1 + a), exact near 0."))
sin = unary("sin", dtype="inexact", doc=_doc("Sine, a in radians."))
cos = unary("cos", dtype="inexact", doc=_doc("Cosine, a in radians."))
tan = unary("tan", dtype="inexact", doc=_doc("Tangent, a in radians."))
sinh = unary("sinh", dtype="inexact", doc=_doc("Hyperbolic sine."))
cosh = unary("cosh", dtype="inexact", doc=_doc("Hyperbolic cosine."))
tanh = unary("tanh", dtype="inexact", doc=_doc("Hyperbolic tangent."))
arcsin = unary("arcsin", dtype="inexact", doc=_doc("Inverse sine."))
arccos = unary("arccos", dtype="inexact", doc=_doc("Inverse cosine."))
arctan = unary("arctan", dtype="inexact", doc=_doc("Inverse tangent."))
arcsinh = unary("arcsinh", dtype="inexact", doc=_doc("Inverse hyperbolic sine."))
arccosh = unary("arccosh", dtype="inexact", doc=_doc("Inverse hyperbolic cosine."))
arctanh = unary("arctanh", dtype="inexact", doc=_doc("Inverse hyperbolic tangent."))
erf = unary("erf", dtype="inexact", accepts="real", doc=_doc("The error function."))
erfinv = unary("erfinv", dtype="inexact", accepts="real", doc=_doc("The inverse of erf."))
sigmoid = unary("sigmoid", dtype="inexact", accepts="real", doc=_doc("1 / (1 + exp(-a))."))
logical_not = unary("logical_not", dtype="bool", doc=_doc("True where a is zero."))
bitwise_invert = unary("bitwise_invert", accepts="integer", doc=_doc("All bits flipped."))
isnan = unary("isnan", dtype="bool", doc=_doc("True where a is not a number."))
isinf = unary("isinf", dtype="bool", doc=_doc("True where a is infinite."))
isfinite = unary("isfinite", dtype="bool", doc=_doc("True where a is neither infinite nor NaN."))
isneginf = unary("isneginf", dtype="bool", doc=_doc("True where a is minus infinity."))
isposinf = unary("isposinf", dtype="bool", doc=_doc("True where a is plus infinity."))
real = unary("real", dtype="real", doc=_doc("Real part."))
imag = unary("imag", dtype="real", doc=_doc("Imaginary part."))
conjugate = unary("conjugate", doc=_doc("Complex conjugate."))

# ---- two arrays
add = binary("add", doc=_doc("a + b.", "a, b"))
subtract = binary("subtract", doc=_doc("a - b.", "a, b"))
multiply = binary("multiply", doc=_doc("a * b.", "a, b"))
divide = binary("divide", dtype="inexact", doc=_doc("a / b, of a floating type.", "a, b"))
floor_divide = binary("floor_divide", doc=_doc("floor(a / b).", "a, b"))
remainder = binary("remainder", accepts="real", doc=_doc("a - b * floor(a / b): the sign is b's.", "a, b"))
_power = binary("power", doc=_doc("a to the power b.", "a, b"))
maximum = binary("maximum", doc=_doc("The greater; NaN if either is NaN.", "a, b"))
minimum = binary("minimum", doc=_doc("The lesser; NaN if either is NaN.", "a, b"))
arctan2 = binary("arctan2", dtype="inexact", accepts="real", doc=_doc("The angle of the point (b, a).", "a, b"))
logaddexp = binary("logaddexp", dtype="inexact", doc=_doc("log(exp(a) + exp(b)).", "a, b"))
equal = binary("equal", dtype="compare", doc=_doc("a == b.", "a, b"))
not_equal = binary("not_equal", dtype="compare", doc=_doc("a != b.", "a, b"))
less = binary("less", dtype="compare", doc=_doc("a < b.", "a, b"))
less_equal = binary("less_equal", dtype="compare", doc=_doc("a <= b.", "a, b"))
greater = binary("greater", dtype="compare", doc=_doc("a > b.", "a, b"))
greater_equal = binary("greater_equal", dtype="compare", doc=_doc("a >= b.", "a, b"))
logical_and = binary("logical_and", dtype="logical", doc=_doc("True where both are non-zero.", "a, b"))
logical_or = binary("logical_or", dtype="logical", doc=_doc("True where either is non-zero.", "a, b"))
bitwise_and = binary("bitwise_and", accepts="integer", doc=_doc("a & b.", "a, b"))
bitwise_or = binary("bitwise_or", accepts="integer", doc=_doc("a | b.", "a, b"))
bitwise_xor = binary("bitwise_xor", accepts="integer", doc=_doc("a ^ b.", "a, b"))
_left_shift = binary("left_shift", accepts="integer", doc=_doc("a << b.", "a, b"))
_right_shift = binary("right_shift", accepts="integer", doc=_doc("a >> b.", "a, b"))

# ---- three
where = select("where", doc=_doc("x where the condition holds, else y.", "condition, x, y"))

# ---- other names
conj = conjugate
acos, acosh, asin, asinh = arccos, arccosh, arcsin, arcsinh
atan, atan2, atanh = arctan, arctan2, arctanh


def pair(a: Any, b: Any) -> tuple[array, array]:
    """Two operands as arrays; a number takes the dtype that an array beside it gives it."""
    if isinstance(a, array):
        return a, b if isinstance(b, array) else _graph.weak_operand(b, a)
    if isinstance(b, array):
        return _graph.weak_operand(a, b), b
    return _graph.as_array(a), _graph.as_array(b)


@remembered
def power(a: Any, b: Any, /, *, stream: Any = None) -> array:
    """a to the power b.

    Polynomials are written with powers: squares and cubes of a floating or complex array, by a Python number, are
    recorded as products.

    Args:
        a, b: arrays or numbers.
        stream: a stream or device.

    Returns:
        An array of the broadcast shape, of the promoted dtype.

    >>> mx.power(mx.array(2.0), 3).item()
    8.0
    """
    if type(b) in (int, float) and b in (2, 3) and isinstance(a, array) and is_inexact(a.dtype):
        return (square if b == 2 else _cube)(a, stream=stream)
    return _power(a, b, stream=stream)


pow = power


def _shift(primitive: _graph.Primitive, a: Any, b: Any, stream: Any) -> array:
    a, b = pair(a, b)
    if a.dtype == b.dtype == _graph.bool_:
        a = _graph.astype(a, _graph.uint8, stream)
    return primitive(a, b, stream=stream)


@remembered
def left_shift(a: Any, b: Any, /, *, stream: Any = None) -> array:
    """a << b; the count is taken modulo the width (at least 32 bits). Two bools give uint8."""
    return _shift(_left_shift, a, b, stream)


@remembered
def right_shift(a: Any, b: Any, /, *, stream: Any = None) -> array:
    """a >> b; the count is taken modulo the width (at least 32 bits). Two bools give uint8."""
    return _shift(_right_shift, a, b, stream)


bitwise_left_shift, bitwise_right_shift = left_shift, right_shift


@remembered
def logical_xor(a: Any, b: Any, /, *, stream: Any = None) -> array:
    """True where one of a and b is non-zero and the other is not."""
    a, b = pair(a, b)
    return not_equal(to_dtype(a, _graph.bool_, stream), to_dtype(b, _graph.bool_, stream), stream=stream)


def positive(a: Any, /, *, stream: Any = None) -> array:
    """+a: the same values."""
    return alias(as_array(a))


@remembered
def trunc(a: Any, /, *, stream: Any = None) -> array:
    """The integer part of a real number, rounded towards 0. ValueError for complex64."""
    a = as_array(a)
    if a.dtype == _graph.complex64:
        raise ValueError("[trunc] Not supported for complex64.")
    if not is_inexact(a.dtype):
        return alias(a)
    return where(less(a, 0, stream=stream), ceil(a, stream=stream), floor(a, stream=stream), stream=stream)


def invert(a: array) -> array:
    """~a: logical not for bool, bits flipped for integers."""
    return logical_not(a) if a.dtype == _graph.bool_ else bitwise_invert(a)


@remembered
def degrees(a: Any, /, *, stream: Any = None) -> array:
    """Radians to degrees."""
    return multiply(to_inexact(as_array(a), stream), 180.0 / math.pi, stream=stream)


@remembered
def radians(a: Any, /, *, stream: Any = None) -> array:
    """Degrees to radians."""
    return multiply(to_inexact(as_array(a), stream), math.pi / 180.0, stream=stream)


@remembered
def divmod(a: Any, b: Any, /, *, stream: Any = None) -> list[array]:
    """[a // b, a % b]."""
    return [floor_divide(a, b, stream=stream), remainder(a, b, stream=stream)]


@remembered
def round(a: Any, /, decimals: int = 0, *, stream: Any = None) -> array:
    """The nearest multiple of 10 ** -decimals, halves to even."""
    a = as_array(a)
    if not isinstance(decimals, int):
        raise TypeError(f"[round] decimals must be an integer, got {type(decimals).__name__}")
    if decimals == 0:
        return rint(a, stream=stream)
    integral = not is_inexact(a.dtype)
    if integral and decimals > 0:
        return alias(a)
    scale = 10.0**decimals
    wide = _graph.astype(a, _graph.float32, stream) if integral else a
    rounded = divide(rint(multiply(wide, scale, stream=stream), stream=stream), scale, stream=stream)
    return _graph.astype(rounded, a.dtype, stream) if integral else rounded


@remembered
def clip(a: Any, /, a_min: Any, a_max: Any, *, stream: Any = None) -> array:
    """a held between a_min and a_max, either of which may be None but not both."""
    if a_min is None and a_max is None:
        raise ValueError("At most one of a_min and a_max may be None")
    if a_min is not None:
        a = maximum(a, a_min, stream=stream)
    return a if a_max is None else minimum(a, a_max, stream=stream)


@remembered
def isclose(
    a: Any, b: Any, /, rtol: float = 1e-5, atol: float = 1e-8, *, equal_nan: bool = False, stream: Any = None
) -> array:
    """|a - b| <= atol + rtol * |b|, elementwise; infinities of one sign are close."""
    require_array(a, "isclose")
    require_array(b, "isclose")
    s = stream
    bound = add(atol, multiply(rtol, abs(b, stream=s), stream=s), stream=s)
    close = less_equal(abs(subtract(a, b, stream=s), stream=s), bound, stream=s)
    finite = logical_and(isfinite(a, stream=s), isfinite(b, stream=s), stream=s)
    result = logical_or(logical_and(finite, close, stream=s), equal(a, b, stream=s), stream=s)
    if equal_nan:
        result = logical_or(result, logical_and(isnan(a, stream=s), isnan(b, stream=s), stream=s), stream=s)
    return result


@remembered
def nan_to_num(
    a: Any, /, nan: float = 0, posinf: float | None = None, neginf: float | None = None, *, stream: Any = None
) -> array:
    """NaN and infinities replaced by numbers (infinities by the type's extremes unless given).

    Raises:
        ValueError: the dtype is complex64.
    """
    a = as_array(a)
    if a.dtype.category == "complex":
        raise ValueError("[nan_to_num] Does not support complex64: replace in mx.real(a) and mx.imag(a) instead.")
    if a.dtype.category != "floating":
        return alias(a)
    largest = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38, "float32": 3.4028234663852886e38}
    top = largest.get(a.dtype.name, 1.7976931348623157e308)
    high = top if posinf is None else posinf
    low = -top if neginf is None else neginf
    s = stream
    result = where(isnan(a, stream=s), nan, a, stream=s)
    result = where(isposinf(a, stream=s), high, result, stream=s)
    return where(isneginf(a, stream=s), low, result, stream=s)


def astype(a: array, dtype: _graph.Dtype, /, *, stream: Any = None) -> array:
    """Every element converted to `dtype`."""
    return _graph.astype(a, dtype, stream)


# The operators of `array`; matmul.py adds its own.
OPERATORS: dict[str, Any] = {
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "divide": divide,
    "floor_divide": floor_divide,
    "remainder": remainder,
    "power": power,
    "bitwise_and": bitwise_and,
    "bitwise_or": bitwise_or,
    "bitwise_xor": bitwise_xor,
    "left_shift": left_shift,
    "right_shift": right_shift,
    "less": less,
    "less_equal": less_equal,
    "equal": equal,
    "not_equal": not_equal,
    "greater": greater,
    "greater_equal": greater_equal,
    "negative": negative,
    "abs": abs,
    "invert": invert,
}
_graph.set_hooks(operators=OPERATORS)
