"""Functions of every element, in all dtypes."""

from __future__ import annotations

import numpy as np

import mlxlite.core as mx

from .draw import FLOATS, INTEGERS, SIGNED, UNIT, Draw, Value, is_exact, is_float, is_inexact, is_integer

# name -> from, to, how fast it changes there, the largest result
FUNCTIONS: dict[str, tuple[float, float, float, float]] = {
    "exp": (-3, 3, 20.1, 20.1), "expm1": (-3, 3, 20.1, 19.1), "sin": (-3, 3, 1, 1), "cos": (-3, 3, 1, 1),
    "tan": (-1, 1, 3.5, 1.6), "sinh": (-2, 2, 3.8, 3.7), "cosh": (-2, 2, 3.7, 3.8), "tanh": (-3, 3, 1, 1),
    "arcsin": (-0.75, 0.75, 1.6, 0.9), "arccos": (-0.75, 0.75, 1.6, 2.5), "arctan": (-3, 3, 1, 1.3),
    "arcsinh": (-3, 3, 1, 1.9), "arccosh": (1.5, 4, 0.9, 2.1), "arctanh": (-0.75, 0.75, 2.3, 1),
    "log": (0.25, 4, 4, 1.4), "log2": (0.25, 4, 5.8, 2), "log10": (0.25, 4, 1.8, 0.7), "log1p": (-0.5, 4, 2, 1.7),
    "sqrt": (0.25, 4, 1, 2), "rsqrt": (0.25, 4, 4, 2), "reciprocal": (0.25, 4, 16, 4), "sigmoid": (-3, 3, 0.25, 1),
    "erf": (-3, 3, 1.13, 1), "erfinv": (-0.75, 0.75, 1.8, 0.82), "square": (-3, 3, 6, 9), "degrees": (-1, 1, 58, 58),
    "radians": (-3, 3, 0.02, 0.06),
}  # fmt: skip
JUMPS = ("floor", "ceil", "round", "sign", "isnan", "isinf", "isfinite", "logical_not")
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
OF_COMPLEX = ("square", "conjugate", "real", "imag", "abs", "negative", "sin", "exp")
CASTS = (*FLOATS, *INTEGERS, "bool", "float32", "bfloat16")


def function(draw: Draw) -> Value | None:
    name = draw.choose.choice(tuple(FUNCTIONS))
    low, high, slope, bound = FUNCTIONS[name]
    x = draw.within(draw.pick_float(), low, high)
    return draw.result(f"{name}({x.name})", getattr(mx, name)(x.array), x.dims, bound, slope * x.error)


def keeping(draw: Draw) -> Value | None:
    """What rounds nothing."""
    x = draw.pick_any(lambda v: v.dtype != "bool")
    name = draw.choose.choice(("abs", "negative"))
    return draw.result(
        f"{name}({x.name})", getattr(mx, name)(x.array), x.dims, x.bound, x.error, x.dtype != "complex64"
    )


def jump(draw: Draw) -> Value | None:
    x = draw.pick_any(is_exact, lambda v: v.dtype != "complex64")
    name = draw.choose.choice(JUMPS)
    if x.dtype not in FLOATS and draw.choose.random() < 0.5:
        return draw.result(f"bitwise_invert({x.name})", mx.bitwise_invert(x.array), x.dims)
    if x.dtype not in FLOATS and name in ("floor", "ceil", "round"):
        name = "sign"
    return draw.result(f"{name}({x.name})", getattr(mx, name)(x.array), x.dims, max(1, x.bound + 1), exact=True)


def complex_function(draw: Draw) -> Value | None:
    x = draw.pick(lambda v: v.dtype == "complex64" and v.bound <= 4) or draw.leaf("complex64")
    name = draw.choose.choice(OF_COMPLEX)
    bound, slope = {"square": (x.bound**2, 2 * x.bound), "exp": (55, 55), "sin": (28, 28)}.get(name, (x.bound, 1))
    return draw.result(f"{name}({x.name})", getattr(mx, name)(x.array), x.dims, bound, slope * x.error)


def arithmetic(draw: Draw) -> Value | None:
    x = draw.pick_any(is_inexact)
    if x.dtype not in UNIT:
        return None
    y = draw.operand(x)
    dims = draw.broadcast(x.dims, y.dims)
    name = draw.choose.choice(("add", "subtract", "multiply"))
    if dims is None:
        return None
    bound, error = x.bound + y.bound, x.error + y.error
    if name == "multiply":
        bound, error = x.bound * y.bound, x.error * y.bound + y.error * x.bound + x.error * y.error
    if draw.choose.random() < 0.5:
        x, y = y, x
    return draw.result(f"{name}({x.name}, {y.name})", getattr(mx, name)(x.array, y.array), dims, bound, error)


def extreme(draw: Draw) -> Value | None:
    x = draw.pick_any(lambda v: v.dtype != "complex64")
    y = draw.operand(x)
    dims = draw.broadcast(x.dims, y.dims)
    if dims is None:
        return None
    name = draw.choose.choice(("maximum", "minimum"))
    bound, error = max(x.bound, y.bound), max(x.error, y.error)
    return draw.result(f"{name}({x.name}, {y.name})", getattr(mx, name)(x.array, y.array), dims, bound, error, True)


def two_floats(draw: Draw) -> Value | None:
    """Functions of two numbers where they change slowly."""
    x = draw.within(draw.pick_float(), -3, 3)
    y = draw.operand(x)
    dims = draw.broadcast(x.dims, y.dims)
    if dims is None:
        return None
    name = draw.choose.choice(("divide", "logaddexp", "arctan2", "power"))
    if name == "logaddexp":
        y = draw.within(y, -3, 3)
        bound, error = 3.7, x.error + y.error
    elif name == "power":
        x, y = draw.within(x, 0.5, 3), draw.within(y, -2, 2)
        bound, error = 9, 16 * x.error + 10 * y.error
    else:
        y = draw.within(y, 0.5, 4)
        bound, error = 6, 2 * x.error + 12 * y.error
    return draw.result(f"{name}({x.name}, {y.name})", getattr(mx, name)(x.array, y.array), dims, bound, error)


def integers(draw: Draw) -> Value | None:
    """Arithmetic that wraps around, bits, and division by what is not 0."""
    x = draw.pick(is_integer) or draw.leaf(draw.choose.choice(INTEGERS), low=-100, high=100)
    kind = draw.choose.randrange(4)
    if kind == 0:
        names, y = ("add", "subtract", "multiply"), draw.operand(x)
    elif kind == 1:
        names, y = ("bitwise_and", "bitwise_or", "bitwise_xor"), draw.operand(x)
    elif kind == 2:
        names, y = ("floor_divide", "remainder"), draw.leaf(x.dtype, x.dims, 1, 5)
    else:
        names, y = ("left_shift", "right_shift", "power"), draw.leaf(x.dtype, x.dims, 0, 5)
    dims = draw.broadcast(x.dims, y.dims)
    if dims is None:
        return None
    name = draw.choose.choice(names)
    return draw.result(f"{name}({x.name}, {y.name})", getattr(mx, name)(x.array, y.array), dims)


def comparison(draw: Draw) -> Value | None:
    x = draw.pick_any(is_exact, lambda v: v.dtype != "complex64")
    y = draw.operand(x)
    dims = draw.broadcast(x.dims, y.dims)
    if dims is None or not is_exact(y):
        return None
    name = draw.choose.choice(COMPARISONS)
    return draw.result(f"{name}({x.name}, {y.name})", getattr(mx, name)(x.array, y.array), dims)


def logic(draw: Draw) -> Value | None:
    x = draw.pick(lambda v: v.dtype == "bool") or draw.leaf("bool")
    y = draw.operand(x)
    dims = draw.broadcast(x.dims, y.dims)
    if dims is None:
        return None
    name = draw.choose.choice(("logical_and", "logical_or", "bitwise_xor"))
    return draw.result(f"{name}({x.name}, {y.name})", getattr(mx, name)(x.array, y.array), dims)


def number(draw: Draw) -> Value | None:
    """With a number of Python, which is data of the plan."""
    x = draw.pick_any(lambda v: v.dtype != "bool")
    if x.dtype in INTEGERS:
        s = int(draw.numbers.integers(1, 9))
        return draw.result(f"{x.name} * {s} + 1", x.array * s + 1, x.dims)
    s = int(draw.numbers.integers(-8, 9)) / 4
    bound, error = 2 * x.bound + 1, 2 * x.error + UNIT[x.dtype] * 2 * x.bound
    return draw.result(f"{x.name} * {s} + 0.75", x.array * s + 0.75, x.dims, bound, error)


def select(draw: Draw) -> Value | None:
    x = draw.pick_any()
    y = draw.operand(x)
    dims = draw.broadcast(x.dims, y.dims)
    if dims is None:
        return None
    wanted = lambda v: v.dtype == "bool" and draw.broadcast(v.dims, dims) == dims  # noqa: E731
    mask = draw.pick(wanted) or draw.leaf("bool", dims)
    text = f"where({mask.name}, {x.name}, {y.name})"
    array = mx.where(mask.array, x.array, y.array)
    return draw.result(text, array, dims, max(x.bound, y.bound), max(x.error, y.error), True)


def cast(draw: Draw) -> Value | None:
    x = draw.pick_any(lambda v: v.dtype != "complex64")
    dtype = draw.choose.choice([d for d in CASTS if d != x.dtype])
    array, text, bound, error = x.array, x.name, max(x.bound, 1), x.error
    if dtype not in FLOATS and x.dtype in FLOATS:
        if not is_exact(x):
            return None
        if dtype not in SIGNED:  # a negative number has no value in unsigned dtypes
            array, text = mx.abs(array), f"abs({text})"
        array, text = mx.clip(array, -100, 100), f"clip({text}, -100, 100)"
    elif is_integer(x) and dtype in FLOATS:
        low = 0 if x.dtype not in SIGNED else -4
        array, text, bound = mx.clip(array, low, 4), f"clip({text}, {low}, 4)", 4
    array = array.astype(getattr(mx, "bool_" if dtype == "bool" else dtype))
    # Quarters below 32 are exact in every dtype.
    exact = dtype not in FLOATS or (error == 0 and not is_float(x)) or FLOATS.index(dtype) > 1
    if exact and dtype == "float32" and x.dtype == "float64":
        exact = False
    return draw.result(f"{text}.astype({dtype})", array, x.dims, bound, error, exact)


def special(draw: Draw) -> Value | None:
    """Infinities and NaN through what compares and orders, and then numbers again."""
    dtype = draw.choose.choice(FLOATS)
    dims = ("b", "a")
    values = draw.numpy(dtype, draw.shape(dims))
    places = draw.numbers.random(values.shape)
    for k, number in enumerate((np.nan, np.inf, -np.inf, -0.0)):
        values[(places > 0.1 * k) & (places < 0.1 * k + 0.1)] = number
    x = draw.array(values)
    name = draw.choose.choice(
        ("isnan", "isinf", "isposinf", "isfinite", "sort", "cummax", "cummin", "maximum", "max", "abs")
    )
    if name.startswith("is"):
        return draw.result(f"{name}(special)", getattr(mx, name)(x), dims)
    if name == "maximum":
        made = mx.maximum(x, draw.leaf(dtype, dims).array)
    elif name == "max":
        made, dims = mx.max(x, axis=0), ("a",)
    else:
        made = getattr(mx, name)(x, axis=-1) if name != "abs" else mx.abs(x)
    array = mx.nan_to_num(made, nan=1.5, posinf=1.25, neginf=-1.75)
    return draw.result(f"nan_to_num({name}(special))", array, dims, 2, exact=True)


STEPS = (function, function, function, keeping, jump, complex_function, arithmetic, arithmetic, arithmetic, extreme)
STEPS += (two_floats, integers, integers, comparison, logic, number, number, select, cast, cast, special)
