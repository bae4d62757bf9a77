"""The dtype of a result: every pair of dtypes, and every dtype with a Python number, as in MLX."""

from __future__ import annotations

import numpy as np
import pytest

from .differential import DTYPES, dtype_name, dtype_of, oracle, same_as_mlx, samples
from .module_under_test import IS_MLX, mx

NUMBERS = {"bool": True, "int": 2, "float": 2.5, "complex": 1 + 2j}


def _pair(left: str, right: str) -> tuple[np.ndarray, np.ndarray]:
    return samples(left, (3,), seed=1, domain="positive"), samples(right, (3,), seed=2, domain="positive")


@pytest.mark.parametrize("name", ["add", "multiply", "divide", "maximum", "power", "equal", "logical_and", "arctan2"])
@pytest.mark.parametrize("left", DTYPES)
def test_every_pair(left, name):
    for right in DTYPES:
        same_as_mlx(lambda m, a, b: getattr(m, name)(a, b), *_pair(left, right), case=(left, right), tolerance=2e-2)


@pytest.mark.parametrize("left", DTYPES)
def test_every_pair_of_functions_that_take_many(left):
    for right in DTYPES:
        a, b = _pair(left, right)
        c = np.array([True, False, True])
        same_as_mlx(lambda m, a, b: m.concatenate([a, b]), a, b, case=("concatenate", left, right))
        same_as_mlx(lambda m, a, b: m.stack([a, b]), a, b, case=("stack", left, right))
        same_as_mlx(lambda m, c, a, b: m.where(c, a, b), c, a, b, case=("where", left, right))
        same_as_mlx(lambda m, a, b: m.clip(a, b, b), a, b, case=("clip", left, right))


@pytest.mark.parametrize("name", ["add", "divide", "maximum", "power", "less", "floor_divide"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_python_numbers_are_weak(dtype, name):
    a = samples(dtype, (3,), domain="positive")
    for kind, number in NUMBERS.items():
        if dtype == "bool" and kind == "bool" and name == "floor_divide":
            continue  # covered by nobody: MLX divides bools in a way of its own
        for case, call in {
            "right": lambda m, a, n=number: getattr(m, name)(a, n),
            "left": lambda m, a, n=number: getattr(m, name)(n, a),
        }.items():
            same_as_mlx(call, a, case=(dtype, name, kind, case), tolerance=2e-2)


def test_result_type():
    for left in DTYPES:
        for right in DTYPES:
            ours = mx.result_type(dtype_of(mx, left), dtype_of(mx, right))
            theirs = oracle.result_type(dtype_of(oracle, left), dtype_of(oracle, right))
            assert dtype_name(ours) == dtype_name(theirs), (left, right)
            mixed = mx.result_type(mx.zeros((2,), dtype=dtype_of(mx, left)), dtype_of(mx, right))
            assert mixed == ours, (left, right)


def test_promotion_is_symmetric_and_idempotent():
    for left in DTYPES:
        a = dtype_of(mx, left)
        assert mx.result_type(a, a) == a
        for right in DTYPES:
            b = dtype_of(mx, right)
            assert mx.result_type(a, b) == mx.result_type(b, a)


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place_takes_the_promoted_dtype(dtype):
    for kind, number in NUMBERS.items():

        def call(m, a, number=number):
            a += number
            return a

        same_as_mlx(call, samples(dtype, (3,), domain="positive"), case=(dtype, kind))


def test_numbers_keep_their_value_in_wide_dtypes():
    big = 2**40 + 1
    assert (mx.array([0], dtype=mx.int64) + big).tolist() == [big]
    with mx.stream(mx.cpu):
        assert (mx.array([0.0], dtype=mx.float64) + 0.1).tolist() == [0.1]


def test_categories():
    categories = ["generic", "number", "integer", "signedinteger", "unsignedinteger", "inexact", "floating"]
    for dtype in DTYPES:
        for category in [*categories, "complexfloating"]:
            ours = mx.issubdtype(dtype_of(mx, dtype), getattr(mx, category))
            assert ours == oracle.issubdtype(dtype_of(oracle, dtype), getattr(oracle, category)), (dtype, category)


def test_finfo_and_iinfo():
    for dtype in ("float16", "bfloat16", "float32"):
        ours, theirs = (m.finfo(getattr(m, dtype)) for m in (mx, oracle))
        assert (ours.min, ours.max, ours.eps) == (theirs.min, theirs.max, theirs.eps), dtype
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        ours, theirs = (m.iinfo(getattr(m, dtype)) for m in (mx, oracle))
        assert (ours.min, ours.max) == (theirs.min, theirs.max), dtype


def test_dtypes_are_values():
    assert mx.float32 == mx.float32 and mx.float32 != mx.float16
    assert len({mx.float32, mx.float32, mx.int32}) == 2
    assert mx.float16.size == 2 and mx.complex64.size == 8
    assert repr(mx.float32) == f"{'mlx.core' if IS_MLX else 'mlxlite.core'}.float32"


@pytest.mark.parametrize("left", DTYPES)
def test_can_cast(left):
    for right in DTYPES:
        same_as_mlx(lambda m, r=right: m.can_cast(dtype_of(m, left), dtype_of(m, r)), case=(left, right))
        same_as_mlx(lambda m, a, r=right: m.can_cast(a, dtype_of(m, r)), samples(left, (2,)), case=(left, right))


def test_can_cast_errors():
    for call in (
        lambda m: m.can_cast(1, m.int8),
        lambda m: m.can_cast("int8", m.int8),
        lambda m: m.can_cast(m.int8, m.array(1)),
        lambda m: m.can_cast(m.int8, m.floating),
    ):
        assert same_as_mlx(call) is None
