"""Which C expression computes an elementwise primitive. The functions themselves are in math.cuh, as op_<primitive>."""

from __future__ import annotations

from collections.abc import Sequence

STORAGE = {
    "bool": "boolean",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "float16": "f16",
    "float32": "f32",
    "float64": "f64",
    "bfloat16": "bf16",
    "complex64": "c64",
}
DTYPES = tuple(STORAGE)
ITEMSIZE = {
    dtype: 1 if dtype == "bool" else 8 if dtype == "complex64" else int(dtype.lstrip("abcdefghijklmnopqrstuvwxyz")) // 8
    for dtype in DTYPES
}
BOOL = frozenset({"bool"})
INTEGERS = frozenset(d for d in DTYPES if "int" in d)
FLOATS = frozenset(d for d in DTYPES if "float" in d)
COMPLEX = frozenset({"complex64"})
EVERY = frozenset(DTYPES)
INEXACT = FLOATS | COMPLEX


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _table(*rows: tuple[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    return {name: accepted for names, accepted in rows for name in names.split()}


# Primitive -> dtypes of its operands. 16-bit floats are computed in float.
UNARY = _table(
    ("abs sign rint square real imag conjugate", EVERY),
    ("ceil floor", EVERY - COMPLEX),
    ("negative", EVERY - BOOL),
    ("logical_not isnan isinf isfinite isneginf isposinf", EVERY),
    ("bitwise_invert", INTEGERS | BOOL),
    ("cube sqrt rsqrt reciprocal exp expm1 log log2 log10 log1p sigmoid", INEXACT),
    ("sin cos tan sinh cosh tanh arcsin arccos arctan arcsinh arccosh arctanh", INEXACT),
    ("erf erfinv degrees radians", FLOATS),
)
BINARY = _table(
    ("add subtract multiply floor_divide power maximum minimum", EVERY),
    ("remainder", EVERY - COMPLEX),
    ("divide logaddexp", INEXACT),
    ("arctan2", FLOATS),
    ("equal not_equal less less_equal greater greater_equal", EVERY),
    ("logical_and logical_or", BOOL),
    ("bitwise_and bitwise_or bitwise_xor left_shift right_shift", INTEGERS | BOOL),
)
# A 16-bit float that a fused program has not rounded yet is rounded before these, whose results jump, or widen, or
# would otherwise see that an array differs from its stored copy.
_BOOL_RESULT = _names(
    "logical_not isnan isinf isfinite isneginf isposinf equal not_equal less less_equal greater greater_equal "
    "logical_and logical_or"
)
NEEDS_ROUNDED = _BOOL_RESULT | _names("astype sign ceil floor rint floor_divide remainder")
# Rounded operands give rounded results.
KEEPS_ROUNDED = _names("abs negative sign ceil floor rint real imag conjugate maximum minimum where astype")
# Of 16-bit floats, which the hardware's approximations give as well as the functions that are exact to a float's last
# bit, and take some instructions instead of some tens with a slow path: near_<primitive> in math.cuh. For tanh the
# hardware's error is a quarter of that of rounding to bfloat16, but more than that of rounding to float16.
_NEAR = {
    "float16": _names("divide reciprocal sqrt rsqrt exp sigmoid"),
    "bfloat16": _names("divide reciprocal sqrt rsqrt exp sigmoid tanh"),
}
_REAL_RESULT = frozenset({"abs", "real", "imag"})


def storage(dtype: str) -> str:
    """The C type of an element in memory."""
    return STORAGE[dtype]


def compute(dtype: str) -> str:
    """The C type of an element in a register."""
    if dtype == "bool":
        return "bool"
    return "f32" if dtype in ("float16", "bfloat16") else STORAGE[dtype]


def result_dtype(name: str, input_dtypes: Sequence[str]) -> str:
    """The dtype of a primitive's result; TypeError if it takes no such operands. Not for astype, which is told.

    >>> result_dtype("abs", ("complex64",))
    'float32'
    """
    table = {1: UNARY, 2: BINARY}.get(len(input_dtypes))
    if name == "where" and len(input_dtypes) == 3:
        if input_dtypes[0] == "bool" and input_dtypes[1] == input_dtypes[2]:
            return input_dtypes[1]
    elif table is not None and name in table and len(set(input_dtypes)) == 1 and input_dtypes[0] in table[name]:
        if name in _BOOL_RESULT:
            return "bool"
        return "float32" if name in _REAL_RESULT and input_dtypes[0] == "complex64" else input_dtypes[0]
    raise TypeError(
        f"[{name}] no CUDA kernel for operands of {', '.join(input_dtypes)}; convert them with astype first."
    )


def expression(name: str, arguments: Sequence[str], input_dtypes: Sequence[str], output_dtype: str) -> str:
    """C for one primitive on registers.

    Args:
        name: the primitive; "astype" converts to `output_dtype`.
        arguments: C expressions, each of its dtype's compute type.
        input_dtypes: their dtypes.
        output_dtype: the dtype of the result.

    Raises:
        TypeError: the primitive takes no such operands, or gives another dtype.

    >>> expression("add", ("r0", "r1"), ("float16", "float16"), "float16")
    'op_add(r0, r1)'
    """
    if name == "astype":
        (argument,) = arguments
        return argument if input_dtypes[0] == output_dtype else f"cast<{storage(output_dtype)}>({argument})"
    found = result_dtype(name, input_dtypes)
    if found != output_dtype:
        raise TypeError(f"[{name}] of {', '.join(input_dtypes)} gives {found}, not {output_dtype}.")
    family = "near" if name in _NEAR.get(output_dtype, ()) else "op"
    return f"{family}_{name}({', '.join(arguments)})"
