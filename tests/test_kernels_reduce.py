"""Generated reductions, run by g++, against NumPy."""

from __future__ import annotations

import itertools

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.codegen import Operand
from backend_cuda.kernels.ops import DTYPES, INEXACT
from backend_cuda.kernels.reduce import OPS, choose_variant, generate, result_dtype

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUMPY = {d: np.dtype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for d in DTYPES}
TOLERANCE = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 2e-6, "float64": 1e-13, "complex64": 5e-6}
ROW_VARIANTS = ("thread", "team", "warp", "block", "split")
COLUMN_VARIANTS = ("column", "narrow_column")


def samples(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.7
    if dtype in INEXACT:
        a = rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype == "complex64" else 0)
        return a.astype(NUMPY[dtype])
    low = -4 if dtype[0] == "i" else 0
    return rng.integers(low, 99, shape).astype(NUMPY[dtype])


def expected(op: str, a: np.ndarray, axes: tuple[int, ...], out: str) -> np.ndarray:
    if a.dtype.kind not in "biu":
        a = a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
    with np.errstate(all="ignore"):
        if op in ("sum", "prod"):
            return getattr(np, op)(a, axes, dtype=a.dtype if a.dtype.kind in "fc" else NUMPY[out])
        if op in ("max", "min"):
            return getattr(np, op)(a, axes)
        if op in ("any", "all"):
            return getattr(np, op)(a != 0, axes)
        if op == "logsumexp":
            return np.log(np.sum(np.exp(a), axes))
        kept = [d for d in range(a.ndim) if d not in axes]
        flat = a.transpose(*kept, *axes).reshape([a.shape[d] for d in kept] + [-1])
        return getattr(np, op)(flat, -1)


def assert_close(found, want, dtype, context, scale=1.0):
    if dtype in TOLERANCE:
        wide = np.complex128 if dtype == "complex64" else np.float64
        tolerance = TOLERANCE[dtype]
        found = found.astype(wide)
        np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance * scale, err_msg=str(context))
    else:
        np.testing.assert_array_equal(found, want, err_msg=str(context))


def simple(op, dtype, variant, kinds, access="contiguous"):
    operand = Operand(dtype, access)
    return generate(op, [("load", 0)], kinds, [operand], 0, result_dtype(op, dtype), variant=variant)


def check(kernel, op, kinds, a, out, context=None, **options):
    axes = tuple(d for d, kind in enumerate(kinds) if kind == "r")
    want = np.asarray(expected(op, a, axes, out))
    (found,) = emulator.run(kernel, a.shape, [a], [(want.shape, NUMPY[out])], **options)
    assert_close(found, want, out, (op, a.dtype, a.shape, context), np.sqrt(max(1, a.size / max(1, want.size))))


def _dtype_cases():
    variants = itertools.cycle([(v, "kr") for v in ROW_VARIANTS] + [(v, "rk") for v in COLUMN_VARIANTS])
    for op in OPS:
        for dtype in DTYPES:
            if op != "logsumexp" or dtype in INEXACT:
                variant, kinds = next(variants)
                yield op, dtype, kinds, simple(op, dtype, variant, kinds)


SHAPES = [(1,), (9,), (2, 3), (3, 37), (37, 3), (2, 300), (300, 2), (3, 5, 17), (5, 3, 33)]


def _kinds(n):
    return ["".join(k) for k in itertools.product("kr", repeat=n)]


def _layout_cases():
    """Every pattern of kept and reduced dims in every variant that takes it, over strided operands."""
    for op, dtype, ranks in (("sum", "float32", (1, 3)), ("argmax", "bfloat16", (2,))):
        for n in ranks:
            for kinds in _kinds(n):
                for variant in ROW_VARIANTS + (COLUMN_VARIANTS if kinds[-1] == "k" else ()):
                    access = [(None,) * (n - 1) + (1,), (None,) * n][len(variant) % 2]
                    yield op, dtype, kinds, variant, access, simple(op, dtype, variant, kinds, access)


SPECIAL_OPS = ("max", "min", "argmax", "argmin", "logsumexp", "any", "all")
LONG = [("r", "split", (30_011,)), ("kr", "split", (2, 9_001)), ("rk", "column", (999, 9))]
EMPTY = [("kr", "warp"), ("kr", "block"), ("r", "split"), ("rk", "column")]
LOGSUMEXP_OF_PACKS = list(itertools.product(("team", "block"), ("bfloat16", "float32", "float64")))
EMPTY_OPS = ("sum", "prod", "any", "all", "logsumexp")


def _other_cases():
    for op in ("sum", "argmin"):
        yield from (simple(op, "float16", variant, kinds) for kinds, variant, _ in LONG)
    yield from (simple(op, "float32", variant, "kr") for op in SPECIAL_OPS for variant in ROW_VARIANTS)
    yield from (simple(op, "float32", variant, kinds) for op in EMPTY_OPS for kinds, variant in EMPTY)
    yield from (simple("logsumexp", dtype, variant, "kr") for variant, dtype in LOGSUMEXP_OF_PACKS)
    yield simple("sum", "int64", "warp", "kr")
    yield simple("sum", "int32", "block", "kr")
    yield NARROWING
    yield from (kernel for _, kernel in PROGRAM_CASES)


def _program_cases():
    """sum((x - m)^2 w) of bfloat16 x and a float32 m for each row, in float32; w is an iota."""
    h, f = "bfloat16", "float32"
    program = [
        ("load", 0),
        ("op", "astype", (), (0,), (h,), f),
        ("load", 1),
        ("op", "subtract", (), (1, 2), (f, f), f),
        ("op", "square", (), (3,), (f,), f),
        ("iota", 1, ("scalar", 0), ("scalar", 1), f),
        ("op", "multiply", (), (4, 5), (f, f), f),
    ]
    for kinds, variants in (("kr", ("block", "split", "team")), ("rk", COLUMN_VARIANTS)):
        for variant in variants:
            operands = [Operand(h), Operand(f, (None, 0))]
            yield kinds, generate("sum", program, kinds, operands, 6, f, variant=variant)


NARROWING = generate("sum", [("load", 0)], "kr", [Operand("int32")], 0, "int8", variant="block")
PROGRAM_CASES = list(_program_cases())
DTYPE_CASES = list(_dtype_cases())
LAYOUT_CASES = list(_layout_cases())


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build([case[-1] for case in DTYPE_CASES + LAYOUT_CASES] + list(_other_cases()))


def test_every_op_of_every_dtype():
    for k, (op, dtype, kinds, kernel) in enumerate(DTYPE_CASES):
        shape = ((5, 70), (9, 33))[k % 2]
        a = samples(dtype, shape, k)
        if op == "prod" and dtype in INEXACT:
            a = (a / np.maximum(np.abs(a), 0.5)).astype(NUMPY[dtype])  # neither overflows nor vanishes
        check(kernel, op, kinds, a, result_dtype(op, dtype), kernel.name, misalign=k % 2)


def test_every_layout():
    for k, (op, dtype, kinds, variant, access, kernel) in enumerate(LAYOUT_CASES):
        for shape in SHAPES:
            if len(shape) != len(kinds):
                continue
            wide = samples(dtype, tuple(2 * n + 3 for n in shape), k)
            if access[-1] == 1:
                a = wide[tuple(slice(1, n + 1) for n in shape)]
            else:
                a = wide[tuple(slice(2 * n, None, -2) for n in shape)][tuple(slice(0, n) for n in shape)]
            assert a.shape == shape
            check(kernel, op, kinds, a, result_dtype(op, dtype), (kinds, variant))


def test_long_reductions_are_split():
    """Several blocks for an output, several passes of each, and the counters left at zero."""
    for op in ("sum", "argmin"):
        for kinds, variant, shape in LONG:
            kernel = simple(op, "float16", variant, kinds)
            check(kernel, op, kinds, samples("float16", shape, 3), result_dtype(op, "float16"), variant)


@pytest.mark.parametrize("variant", ROW_VARIANTS)
def test_special_values(variant):
    nan, inf = np.nan, np.inf
    rows = [[1, nan, 3, nan, 0], [-inf] * 5, [inf, 1, inf, 0, 1], [-inf, 0, 1, -inf, 2], [0, -0.0, 0, -0.0, 0]]
    a = np.array(rows, np.float32)
    for op in SPECIAL_OPS:
        out = result_dtype(op, "float32")
        want = expected(op, a, (1,), out)
        (found,) = emulator.run(simple(op, "float32", variant, "kr"), a.shape, [a], [((5,), NUMPY[out])])
        assert_close(found, want, out, (op, variant))


def test_logsumexp_of_extremes_wherever_they_are():
    """A NaN anywhere gives NaN, else an infinity gives infinity; the rest is as in double precision."""
    rng = np.random.default_rng(0)
    for variant, dtype in LOGSUMEXP_OF_PACKS:
        most = np.float64(np.finfo(np.float32).max if dtype != "float64" else np.finfo(np.float64).max)
        a = rng.normal(size=(9, 700)) * 30
        a[1:, rng.integers(0, 700, 50)] = -np.inf
        for row, value in ((2, np.inf), (3, np.nan), (4, -most), (5, most / 2), (8, np.inf)):
            a[row, rng.integers(0, 700)] = value
        a[6], a[7], a[8, 17] = -np.inf, -most, np.nan
        a = a.astype(NUMPY[dtype])
        wide = a.astype(np.longdouble)
        with np.errstate(all="ignore"):
            greatest = np.where(np.isfinite(wide.max(1)), wide.max(1), 0)
            want = np.log(np.sum(np.exp(wide - greatest[:, None]), 1)) + greatest
        kernel = simple("logsumexp", dtype, variant, "kr")
        (found,) = emulator.run(kernel, a.shape, [a], [((9,), NUMPY[dtype])], misalign=1)
        assert_close(found, want.astype(np.float64), dtype, (variant, dtype))


@pytest.mark.parametrize("kinds,variant", EMPTY)
def test_nothing_to_reduce(kinds, variant):
    a = np.zeros(tuple(0 if kind == "r" else 3 for kind in kinds), np.float32)
    for op in EMPTY_OPS:
        check(simple(op, "float32", variant, kinds), op, kinds, a, result_dtype(op, "float32"))


def test_sums_of_integers_wrap():
    a = np.full((2, 40), np.iinfo(np.int64).max, np.int64)
    check(simple("sum", "int64", "warp", "kr"), "sum", "kr", a, "int64")
    b = np.full((1, 300), 2**31 - 1, np.int32)
    check(simple("sum", "int32", "block", "kr"), "sum", "kr", b, "int32")
    check(NARROWING, "sum", "kr", b, "int8")


def test_a_program_in_front():
    x, m = samples("bfloat16", (7, 83), 1), samples("float32", (7, 1), 2)
    weighted = (x.astype(np.float64) - m) ** 2 * (0.5 + 0.25 * np.arange(83))
    for kinds, kernel in PROGRAM_CASES:
        want = weighted.sum(kinds.index("r"))
        operands = [x, np.broadcast_to(m, x.shape)]
        (found,) = emulator.run(kernel, x.shape, operands, [(want.shape, np.float32)], scalars={0: 0.5, 1: 0.25})
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_the_chosen_variant_takes_its_kinds():
    for n in (1, 2, 3):
        for kinds in _kinds(n):
            for size in (1, 10, 300, 5000):
                variant = choose_variant(kinds, (size,) * n)
                assert simple("sum", "float32", variant, kinds).launch.block == (256, 1, 1)


def test_bad_reductions_are_refused():
    load, operands = [("load", 0)], [Operand("int32")]
    with pytest.raises(ValueError, match="unknown reduction 'median'"):
        generate("median", load, "r", operands, 0, "int32", variant="block")
    with pytest.raises(TypeError, match=r"\[logsumexp\].*int32.*convert"):
        generate("logsumexp", load, "r", operands, 0, "int32", variant="block")
    with pytest.raises(ValueError, match=r"\[argmax\] of int32 cannot give int32"):
        generate("argmax", load, "r", operands, 0, "int32", variant="block")
    with pytest.raises(ValueError, match="kept or reduced"):
        generate("sum", load, "kx", operands, 0, "int32", variant="block")
    with pytest.raises(ValueError, match="last dim that is kept"):
        generate("sum", load, "kr", operands, 0, "int32", variant="column")
