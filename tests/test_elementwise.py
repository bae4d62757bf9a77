"""Functions of every element: every dtype against MLX, floats and int32 against NumPy, all layouts, broadcasting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .differential import (
    DTYPES,
    INTEGERS,
    SOME_DTYPES,
    TOLERANCE,
    layouts,
    same_as_mlx,
    same_as_numpy,
    samples,
    to_module,
)
from .module_under_test import IS_MLX, mx

SHAPES = [(), (0,), (1,), (7,), (33,), (3, 4), (2, 0, 3), (2, 3, 5)]

_erf = np.vectorize(math.erf, otypes=[np.float64])

# By name: the domain, and NumPy's function for it.
UNARY = {
    "abs": ("any", np.abs),
    "arccos": ("unit", np.arccos),
    "arccosh": ("above_one", np.arccosh),
    "arcsin": ("unit", np.arcsin),
    "arcsinh": ("any", np.arcsinh),
    "arctan": ("any", np.arctan),
    "arctanh": ("unit", np.arctanh),
    "bitwise_invert": ("any", np.invert),
    "ceil": ("any", np.ceil),
    "conjugate": ("any", np.conjugate),
    "cos": ("small", np.cos),
    "cosh": ("small", np.cosh),
    "degrees": ("any", np.degrees),
    "erf": ("any", _erf),
    "erfinv": ("unit", None),
    "exp": ("small", np.exp),
    "expm1": ("small", np.expm1),
    "floor": ("any", np.floor),
    "imag": ("any", None),
    "isfinite": ("any", np.isfinite),
    "isinf": ("any", np.isinf),
    "isnan": ("any", np.isnan),
    "isneginf": ("any", None),
    "isposinf": ("any", None),
    "log": ("positive", np.log),
    "log10": ("positive", np.log10),
    "log1p": ("positive", np.log1p),
    "log2": ("positive", np.log2),
    "logical_not": ("any", np.logical_not),
    "nan_to_num": ("any", None),
    "negative": ("any", np.negative),
    "positive": ("any", np.positive),
    "radians": ("any", np.radians),
    "real": ("any", np.real),
    "reciprocal": ("nonzero", lambda x: 1 / x),
    "round": ("any", np.round),
    "rsqrt": ("positive", lambda x: 1 / np.sqrt(x)),
    "sigmoid": ("any", lambda x: 1 / (1 + np.exp(-x.astype(np.float64)))),
    "sign": ("small", np.sign),
    "sin": ("small", np.sin),
    "sinh": ("small", np.sinh),
    "sqrt": ("positive", np.sqrt),
    "square": ("small", np.square),
    "stop_gradient": ("any", lambda x: x),
    "tan": ("unit", np.tan),
    "tanh": ("any", np.tanh),
    "trunc": ("any", np.trunc),
}

# MLX computes these in float32 even for float64 (it says so nowhere: its SIMD versions are written for floats).
FLOAT32_IN_MLX = {"cos", "erf", "erfinv", "exp", "sigmoid", "sin", "logaddexp"}

# Functions that NumPy gives another dtype or meaning for integers.
FLOATS_ONLY = {"isneginf", "isposinf", "sign", "trunc", "floor", "ceil", "round"}

ALIASES = {
    "acos": "arccos",
    "acosh": "arccosh",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atanh": "arctanh",
    "conj": "conjugate",
    "atan2": "arctan2",
    "pow": "power",
    "bitwise_left_shift": "left_shift",
    "bitwise_right_shift": "right_shift",
}

BINARY = {
    "add": ("any", np.add),
    "arctan2": ("nonzero", np.arctan2),
    "bitwise_and": ("any", np.bitwise_and),
    "bitwise_or": ("any", np.bitwise_or),
    "bitwise_xor": ("any", np.bitwise_xor),
    "divide": ("nonzero", np.divide),
    "divmod": ("nonzero", np.divmod),
    "equal": ("any", np.equal),
    "floor_divide": ("nonzero", np.floor_divide),
    "greater": ("any", np.greater),
    "greater_equal": ("any", np.greater_equal),
    "left_shift": ("positive", np.left_shift),
    "less": ("any", np.less),
    "less_equal": ("any", np.less_equal),
    "logaddexp": ("small", np.logaddexp),
    "logical_and": ("any", np.logical_and),
    "logical_or": ("any", np.logical_or),
    "logical_xor": ("any", np.logical_xor),
    "maximum": ("any", np.maximum),
    "minimum": ("any", np.minimum),
    "multiply": ("any", np.multiply),
    "not_equal": ("any", np.not_equal),
    "power": ("positive", np.power),
    "remainder": ("nonzero", np.remainder),
    "right_shift": ("positive", np.right_shift),
    "subtract": ("any", np.subtract),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_of_every_dtype_is_mlx(name):
    domain, _ = UNARY[name]
    for dtype in DTYPES:
        if (name, dtype) == ("nan_to_num", "float64"):
            continue  # MLX has no such; test_nan_to_num has
        for shape in [(), (0,), (40,), (3, 5)]:
            a = samples(dtype, shape, domain=domain)
            same_as_mlx(
                lambda m, a: getattr(m, name)(a),
                a,
                case=(name, dtype, shape),
                scale=0.1,
                tolerance=_tolerance(name, dtype),
            )


def _tolerance(name: str, dtype: str) -> float | None:
    return TOLERANCE["float32"] if dtype == "float64" and name in FLOAT32_IN_MLX else None


@pytest.mark.parametrize("name", [n for n, (_, reference) in UNARY.items() if reference])
def test_unary_is_numpy(name):
    domain, reference = UNARY[name]
    dtypes = ["float32"] if name in FLOAT32_IN_MLX else ["float32", "float64"]
    if name == "bitwise_invert":
        dtypes = list(INTEGERS)
    elif name not in FLOATS_ONLY:
        dtypes.append("int32")
    for dtype in dtypes:
        a = samples(dtype, (3, 14), seed=1, domain=domain)
        with np.errstate(all="ignore"):
            expected = reference(a.astype(np.float64) if a.dtype.kind == "f" else a)
        same_as_numpy(getattr(mx, name)(to_module(mx, a)), expected, case=(name, dtype), scale=0.1)


@pytest.mark.parametrize("name", sorted(FLOAT32_IN_MLX - {"erfinv"}))
def test_float64_has_all_its_digits(name):
    domain, reference = (BINARY if name in BINARY else UNARY)[name]
    inputs = [
        samples("float64", (50,), seed=k, domain=domain if domain != "any" else "small")
        for k in range(2 if name in BINARY else 1)
    ]
    same_as_numpy(getattr(mx, name)(*(to_module(mx, a) for a in inputs)), reference(*inputs), case=name)


@pytest.mark.parametrize("name", ["exp", "negative", "isnan", "round"])
def test_unary_of_every_layout(name):
    for dtype in SOME_DTYPES:
        for shape in SHAPES:
            for layout, base, view in layouts(shape):
                a = samples(dtype, base, domain="small")
                same_as_mlx(lambda m, a, view=view: getattr(m, name)(view(a)), a, case=(name, dtype, shape, layout))


@pytest.mark.parametrize("name", BINARY)
def test_binary_of_every_dtype_is_mlx(name):
    domain, _ = BINARY[name]
    for dtype in DTYPES:
        for left, right in [((), ()), ((0,), (0,)), ((40,), (40,)), ((3, 1), (4,)), ((2, 3, 4), (3, 4)), ((5, 4), ())]:
            a, b = samples(dtype, left, seed=1, domain=domain), samples(dtype, right, seed=2, domain=domain)
            case = (name, dtype, left, right)
            same_as_mlx(lambda m, a, b: getattr(m, name)(a, b), a, b, case=case, tolerance=_tolerance(name, dtype))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, -1, 2.0, 3.0, True])
def test_powers_by_a_number_are_mlx(exponent):
    for dtype in DTYPES:
        if (dtype == "bool" and exponent is True) or (dtype[0] == "u" and exponent == -1):
            continue  # the first is tested among binary functions; -1 does not fit the others
        a = samples(dtype, (3, 14), domain="small" if exponent in (2, 3) else "positive")
        same_as_mlx(lambda m, a: a**exponent, a, case=(dtype, exponent))
        same_as_mlx(lambda m, a: m.power(a, exponent), a, case=(dtype, exponent))


def test_squares_and_cubes_are_recorded_as_products():
    if IS_MLX:
        pytest.skip("asks what is recorded")
    a = to_module(mx, samples("float32", (3,)))

    def recorded(x):
        (plan,) = mx.explain(x).plans
        return [op.name for node in plan.nodes for op in node.ops]

    assert [recorded(a**k) for k in (2, 3, 3.0, 4)] == [["square"], ["cube"], ["cube"], ["power"]]
    assert "power" in recorded(a.astype(mx.int32) ** 2)


@pytest.mark.parametrize("name", [n for n in BINARY if n != "divmod"])
def test_binary_is_numpy(name):
    domain, reference = BINARY[name]
    integers_only = name.startswith("bitwise") or name.endswith("shift")
    for dtype in ["int32"] if integers_only else ["float32", "int32"]:
        a, b = samples(dtype, (5, 8), seed=1, domain=domain), samples(dtype, (5, 8), seed=2, domain=domain)
        with np.errstate(all="ignore"):
            expected = reference(a, b)
        same_as_numpy(getattr(mx, name)(to_module(mx, a), to_module(mx, b)), expected, case=(name, dtype))


@pytest.mark.parametrize("name", ["add", "less", "maximum", "logical_or", "divide"])
def test_binary_of_every_pair_of_layouts(name):
    for shape in [(4,), (3, 4), (2, 3, 4)]:
        for left, left_base, left_view in layouts(shape):
            for right, right_base, right_view in layouts(shape):
                a, b = samples("float32", left_base, seed=1), samples("float32", right_base, seed=2)
                with np.errstate(all="ignore"):
                    expected = getattr(np, name)(left_view(a), right_view(b))
                result = getattr(mx, name)(left_view(to_module(mx, a)), right_view(to_module(mx, b)))
                same_as_numpy(result, expected, case=(name, shape, left, right))


dims = st.integers(0, 4)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(dims, max_size=4), st.lists(dims, max_size=4), st.data())
def test_shapes_broadcast_as_numpys(left, right, data):
    for k in range(1, min(len(left), len(right)) + 1):
        kind = data.draw(st.integers(0, 3))
        if kind == 0:
            left[-k] = 1
        elif kind == 1:
            right[-k] = 1
        elif kind == 2:
            right[-k] = left[-k]
    a, b = samples("int32", left, seed=1, domain="small"), samples("int32", right, seed=2, domain="small")
    try:
        expected = a - b
    except ValueError:
        with pytest.raises(ValueError):
            mx.eval(to_module(mx, a) - to_module(mx, b))
        return
    same_as_numpy(to_module(mx, a) - to_module(mx, b), expected, case=(left, right))


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias):
    name = ALIASES[alias]
    domain = BINARY[name][0] if name in BINARY else UNARY[name][0]
    dtype = "int32" if "shift" in name else "float32"
    inputs = [to_module(mx, samples(dtype, (9,), seed=k, domain=domain)) for k in range(2 if name in BINARY else 1)]
    assert mx.array_equal(getattr(mx, alias)(*inputs), getattr(mx, name)(*inputs), equal_nan=True).item()


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
}


@pytest.mark.parametrize("symbol", OPERATORS)
def test_operators_with_arrays_and_numbers(symbol):
    operator = OPERATORS[symbol]
    for dtype in SOME_DTYPES:
        a, b = samples(dtype, (3, 4), seed=1, domain="positive"), samples(dtype, (4,), seed=2, domain="positive")
        same_as_mlx(lambda m, a, b: operator(a, b), a, b, case=(symbol, dtype))
        for number in (True, 2, 2.5):
            same_as_mlx(lambda m, a, number=number: operator(a, number), a, case=(symbol, dtype, number))
            if symbol not in ("&", "|", "^", "<<", ">>"):  # MLX has no reflected forms of these
                same_as_mlx(lambda m, a, number=number: operator(number, a), a, case=(number, symbol, dtype))


@pytest.mark.parametrize("symbol", ["-", "~", "abs"])
def test_unary_operators(symbol):
    operator = {"-": lambda a: -a, "~": lambda a: ~a, "abs": abs}[symbol]
    for dtype in DTYPES:
        same_as_mlx(lambda m, a: operator(a), samples(dtype, (10,)), case=(symbol, dtype))


def _in_place(symbol):
    scope: dict = {}
    exec(f"def update(a, b):\n    before = a\n    a {symbol}= b\n    return a, before is a", scope)
    return scope["update"]


@pytest.mark.parametrize("symbol", ["+", "-", "*", "/", "//", "%", "**", "&", "|", "^", "<<", ">>"])
def test_in_place_operators(symbol):
    update = _in_place(symbol)
    for dtype in ("int32", "float32"):
        a, b = samples(dtype, (3, 4), seed=1, domain="positive"), samples(dtype, (4,), seed=2, domain="positive")
        same_as_mlx(lambda m, a, b: update(a, b)[0], a, b, case=(symbol, dtype))


def test_in_place_on_a_result_leaves_its_operand_alone():
    a = mx.array([1.0, 2.0])
    for same in (mx.stop_gradient(a), a.astype(mx.float32), mx.contiguous(a), mx.reshape(a, (2,)), mx.real(a), +a):
        same += 1
        assert same.tolist() == [2.0, 3.0]
        assert a.tolist() == [1.0, 2.0]


def test_where():
    for dtype in SOME_DTYPES:
        condition = samples("bool", (3, 4))
        x, y = samples(dtype, (4,), seed=1), samples(dtype, (3, 1), seed=2)
        same_as_mlx(lambda m, *a: m.where(*a), condition, x, y, case=dtype)
        same_as_numpy(mx.where(*(to_module(mx, v) for v in (condition, x, y))), np.where(condition, x, y), case=dtype)
        same_as_mlx(lambda m, c, x: m.where(c, x, 2), condition, x, case=(dtype, "number"))
        same_as_mlx(
            lambda m, c, x: m.where(c, 1.5, x),
            samples("int32", (3, 4), domain="small"),
            x,
            case=(dtype, "number first"),
        )
    same_as_mlx(lambda m, c: m.where(c, 1, 0), samples("bool", (5,)), case="two integers")
    same_as_mlx(lambda m, c: m.where(c, 1.0, 0), samples("bool", (5,)), case="two numbers")


def test_clip():
    for dtype in ("int32", "uint8", "float16", "bfloat16", "float32"):
        a = samples(dtype, (4, 6))
        for low, high in [(0, 3), (None, 2), (1, None), (-1.5, 2.5)]:
            same_as_mlx(lambda m, a, low=low, high=high: m.clip(a, low, high), a, case=(dtype, low, high))
        same_as_mlx(lambda m, a, b: m.clip(a, b, 3), a, samples(dtype, (6,), seed=3), case=(dtype, "array"))
    same_as_mlx(lambda m, a: m.clip(a, None, None), samples("int32", (3,)), case="nothing to clip to")


def test_round_to_decimals():
    for dtype in ("int32", "float16", "float32", "complex64"):
        for decimals in (-1, 0, 1, 2):
            a = samples(dtype, (20,), domain="positive")
            same_as_mlx(lambda m, a, d=decimals: m.round(a, d), a, case=(dtype, decimals))
    same_as_mlx(lambda m, a: m.round(a), np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), case="to even")


def test_isclose():
    a = np.array([0, 1, 1.00001, np.nan, np.inf, -np.inf, 5], np.float32)
    b = np.array([1e-9, 1.1, 1, np.nan, np.inf, np.inf, 5], np.float32)
    for options in ({}, {"equal_nan": True}, {"rtol": 0.2}, {"atol": 0.5}):
        result = mx.isclose(to_module(mx, a), to_module(mx, b), **options)
        same_as_numpy(result, np.isclose(a, b, **options), case=options)
        same_as_mlx(lambda m, a, b, o=options: m.allclose(a, b, **o), a, b, case=options)


def test_nan_to_num():
    a = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    for options in ({}, {"nan": 3.0}, {"posinf": 7.0, "neginf": -7.0}):
        result = mx.nan_to_num(to_module(mx, a), **options)
        same_as_numpy(result, np.nan_to_num(a, **options), case=options)
        same_as_mlx(lambda m, a, o=options: m.nan_to_num(a, **o), a.astype(np.float16), case=options)


def test_divmod_is_floor_divide_and_remainder():
    for dtype in ("int32", "uint8", "float32"):
        a, b = samples(dtype, (30,), seed=1, domain="nonzero"), samples(dtype, (30,), seed=2, domain="nonzero")
        quotient, remainder = mx.divmod(to_module(mx, a), to_module(mx, b))
        same_as_numpy(quotient, np.floor_divide(a, b), case=dtype)
        same_as_numpy(remainder, np.remainder(a, b), case=dtype)


@pytest.mark.parametrize("name", ["floor_divide", "remainder", "divmod"])
def test_integers_by_zero(name):
    a, zero = mx.array([1, -5, 0], dtype=mx.int32), mx.array(0, dtype=mx.int32)
    mx.eval(getattr(mx, name)(a, zero))
    assert mx.add(a, 1).tolist() == [2, -4, 1]


def test_integers_wrap_around():
    for dtype in INTEGERS:
        info = np.iinfo(dtype)
        a, one = np.array([info.max, info.min], dtype), np.array(1, dtype)
        with np.errstate(over="ignore"):
            same_as_numpy(to_module(mx, a) + to_module(mx, one), a + one, case=dtype)
            same_as_numpy(to_module(mx, a) * to_module(mx, a), a * a, case=dtype)
            same_as_numpy(-to_module(mx, a), -a, case=dtype)
            same_as_numpy(mx.abs(to_module(mx, a)), np.abs(a), case=dtype)


@pytest.mark.parametrize("name", ["expm1", "log1p", "sin", "tanh", "arcsinh", "erf"])
def test_small_results_keep_their_digits(name):
    tiny = np.array([1e-8, -3e-7, 2e-6], np.float32)
    expected = (_erf if name == "erf" else getattr(np, name))(tiny.astype(np.float64))
    same_as_numpy(getattr(mx, name)(to_module(mx, tiny)), expected, case=name, scale=0, tolerance=1e-4)


def test_astype_between_every_pair():
    for source in DTYPES:
        a = samples(source, (12,), domain="positive")
        for target in DTYPES:
            same_as_mlx(
                lambda m, a, t=target: a.astype(getattr(m, "bool_" if t == "bool" else t)), a, case=(source, target)
            )


def test_astype_of_signed_and_wide_integers():
    for source in ("int8", "int32", "int64"):
        for target in INTEGERS:
            a = samples(source, (12,))
            same_as_numpy(to_module(mx, a).astype(getattr(mx, target)), a.astype(target), case=(source, target))


def test_results_are_rounded_once_to_16_bits():
    for dtype in ("float16", "bfloat16"):
        a, b = samples(dtype, (200,), seed=1, domain="small"), samples(dtype, (200,), seed=2, domain="small")
        wide = a.astype(np.float32) * b.astype(np.float32)
        same_as_numpy(to_module(mx, a) * to_module(mx, b), wide.astype(a.dtype), case=dtype, tolerance=0)
