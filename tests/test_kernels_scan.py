"""Generated scans, run by g++, against NumPy."""

from __future__ import annotations

import itertools

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.ops import DTYPES, INEXACT
from backend_cuda.kernels.scan import OPS, choose_variant, generate, generate_columns

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUMPY = {d: np.dtype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for d in DTYPES}
TOLERANCE = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 5e-6, "float64": 1e-13, "complex64": 2e-5}
VARIANTS = ("warp", "block", "long")
FLAGS = tuple(itertools.product((False, True), (False, True)))
SHAPES = [(1, 1), (9, 7), (3, 64), (2, 259), (2, 1031)]


def samples(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.3
    if dtype in INEXACT:
        a = rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype == "complex64" else 0)
        return a.astype(NUMPY[dtype])
    return rng.integers(-4 if dtype[0] == "i" else 0, 99, shape).astype(NUMPY[dtype])


def least(dtype):
    if dtype.kind == "c":
        return complex(-np.inf, -np.inf)
    return False if dtype.kind == "b" else np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def greatest(dtype):
    return True if dtype.kind == "b" else np.iinfo(dtype).max if dtype.kind in "iu" else -least(dtype)


def expected(op, a, out, reverse, inclusive):
    if a.dtype.kind not in "biu":
        a = a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
    elif op in ("cumsum", "cumprod"):
        a = a.astype(NUMPY[out])
    if reverse:
        a = a[:, ::-1]
    with np.errstate(all="ignore"):
        if op == "logcumsumexp":
            got, first = np.log(np.cumsum(np.exp(a), 1)), -np.inf
        else:
            function = {"cumsum": np.add, "cumprod": np.multiply, "cummax": np.maximum, "cummin": np.minimum}[op]
            got = function.accumulate(a, 1, dtype=a.dtype)
            first = {"cumsum": 0, "cumprod": 1}.get(op)
            first = first if first is not None else (least if op == "cummax" else greatest)(got.dtype)
    if not inclusive:
        got = np.concatenate([np.full_like(got[:, :1], first), got[:, :-1]], 1)
    return got[:, ::-1] if reverse else got


def _cases():
    choices = itertools.cycle(itertools.product(FLAGS, VARIANTS))
    for op in OPS:
        for dtype in DTYPES:
            if op == "logcumsumexp" and dtype not in INEXACT:
                continue
            (reverse, inclusive), variant = next(choices)
            out = "int32" if op == "cumsum" and dtype == "bool" else dtype
            kernel = generate(op, dtype, out, reverse=reverse, inclusive=inclusive, variant=variant)
            yield op, dtype, out, reverse, inclusive, kernel
    for (reverse, inclusive), variant in itertools.product(FLAGS, VARIANTS):
        kernel = generate("cumsum", "bfloat16", "bfloat16", reverse=reverse, inclusive=inclusive, variant=variant)
        yield "cumsum", "bfloat16", "bfloat16", reverse, inclusive, kernel


def _column_cases():
    choices = itertools.cycle(FLAGS)
    for op in OPS:
        for dtype in DTYPES:
            if op == "logcumsumexp" and dtype not in INEXACT:
                continue
            reverse, inclusive = next(choices)
            out = "int32" if op == "cumsum" and dtype == "bool" else dtype
            kernel = generate_columns(op, dtype, out, reverse=reverse, inclusive=inclusive)
            yield op, dtype, out, reverse, inclusive, kernel
    for reverse, inclusive in FLAGS:
        kernel = generate_columns("cumsum", "float32", "float32", reverse=reverse, inclusive=inclusive)
        yield "cumsum", "float32", "float32", reverse, inclusive, kernel


CASES = list(_cases())
COLUMN_CASES = list(_column_cases())
COLUMN_SHAPES = [(1, 1, 1), (2, 5, 33), (1, 300, 40), (3, 127, 7)]
SPECIAL = ("cummax", "cummin", "logcumsumexp")


def special(op):
    return generate(op, "float32", "float32", reverse=False, inclusive=True, variant="block")


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build([case[-1] for case in CASES + COLUMN_CASES] + [special(op) for op in SPECIAL])


def to_scan(op, dtype, shape, seed):
    """Samples whose products neither overflow nor vanish."""
    a = samples(dtype, shape, seed)
    if op == "cumprod" and dtype in INEXACT:
        a = (a / np.maximum(np.abs(a), 0.5)).astype(a.dtype)
        a = np.where(np.abs(a) < 0.9, a.dtype.type(1), a)
    return a


def assert_scanned(found, want, op, out):
    if out not in INEXACT:
        np.testing.assert_array_equal(found, want)
        return
    found = found.astype(np.complex128 if out == "complex64" else np.float64)
    if op == "logcumsumexp" and out == "complex64":
        found, want = np.exp(found), np.exp(want)  # an angle and the same one turned around are equal
    scale = np.abs(want[np.isfinite(want)]).max(initial=1)
    np.testing.assert_allclose(found, want, rtol=TOLERANCE[out], atol=TOLERANCE[out] * scale)


@pytest.mark.parametrize("op,dtype,out,reverse,inclusive,kernel", CASES, ids=[case[-1].name for case in CASES])
def test_scan(op, dtype, out, reverse, inclusive, kernel):
    for k, (rows, n) in enumerate([*SHAPES, (1, 5000)] if dtype == "bfloat16" and op == "cumsum" else SHAPES):
        for misalign in (0, 1):
            a = to_scan(op, dtype, (rows, n + misalign), k).reshape(-1)[misalign * rows :].reshape(rows, n)
            want = expected(op, a, out, reverse, inclusive)
            (found,) = emulator.run(kernel, (rows, n), [a], [((rows, n), NUMPY[out])], misalign=misalign)
            assert_scanned(found, want, op, out)


@pytest.mark.parametrize(
    "op,dtype,out,reverse,inclusive,kernel", COLUMN_CASES, ids=[case[-1].name for case in COLUMN_CASES]
)
def test_scan_of_columns(op, dtype, out, reverse, inclusive, kernel):
    for k, shape in enumerate(COLUMN_SHAPES):
        outer, n, inner = shape
        a = to_scan(op, dtype, shape, k)
        rows = expected(op, a.transpose(0, 2, 1).reshape(outer * inner, n), out, reverse, inclusive)
        want = rows.reshape(outer, inner, n).transpose(0, 2, 1)
        (found,) = emulator.run(kernel, shape, [a], [(shape, NUMPY[out])], misalign=k % 2)
        assert_scanned(found, want, op, out)


def test_special_values():
    inf, nan = np.inf, np.nan
    a = np.array([[1, nan, 2, 0], [-inf, -inf, 0, 1], [1, inf, 2, inf], [-0.0, 0, -inf, nan]], np.float32)
    for op in SPECIAL:
        (found,) = emulator.run(special(op), a.shape, [a], [(a.shape, np.float32)])
        np.testing.assert_allclose(found, expected(op, a, "float32", False, True), rtol=1e-6, err_msg=op)


def test_the_chosen_variant_is_one_of_those():
    for rows, n in itertools.product((1, 300, 5000), (1, 100, 1000, 5000, 100_000)):
        assert choose_variant(rows, n) in VARIANTS


def test_bad_scans_are_refused():
    with pytest.raises(ValueError, match="unknown scan 'cummedian'"):
        generate("cummedian", "float32", "float32", reverse=False, inclusive=True, variant="warp")
    with pytest.raises(TypeError, match=r"\[logcumsumexp\].*int32"):
        generate("logcumsumexp", "int32", "int32", reverse=False, inclusive=True, variant="warp")
    with pytest.raises(ValueError, match=r"\[cummax\] of int8 cannot give int32"):
        generate("cummax", "int8", "int32", reverse=False, inclusive=True, variant="warp")
