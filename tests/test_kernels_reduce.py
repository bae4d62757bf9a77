"""Generated reductions, run by g++, against NumPy."""

from __future__ import annotations

import itertools

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels import evaluate_size, reduce
from backend_cuda.kernels.codegen import Operand
from backend_cuda.kernels.ops import DTYPES, INEXACT
from backend_cuda.kernels.reduce import OPS, generate, result_dtype

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUMPY = {d: np.dtype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for d in DTYPES}
TOLERANCE = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 2e-6, "float64": 1e-13, "complex64": 5e-6}


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


def simple(op, dtype, kinds, access="contiguous", **options):
    return generate(op, [("load", 0)], kinds, [Operand(dtype, access)], 0, result_dtype(op, dtype), **options)


def check(kernel, op, kinds, a, out, context=None, **options):
    axes = tuple(d for d, kind in enumerate(kinds) if kind == "r")
    want = np.asarray(expected(op, a, axes, out))
    (found,) = emulator.run(kernel, a.shape, [a], [(want.shape, NUMPY[out])], **options)
    assert_close(found, want, out, (op, a.dtype, a.shape, context), np.sqrt(max(1, a.size / max(1, want.size))))


def _dtype_cases():
    for op in OPS:
        for dtype in DTYPES:
            if op != "logsumexp" or dtype in INEXACT:
                yield from ((op, dtype, kinds, simple(op, dtype, kinds)) for kinds in ("kr", "rk"))


SHAPES = [(1,), (9,), (2, 3), (3, 37), (37, 3), (2, 300), (300, 2), (3, 5, 17), (5, 3, 33), (40, 2, 3), (2, 40, 9)]


def _kinds(n):
    return ["".join(k) for k in itertools.product("kr", repeat=n)]


def _layout_cases():
    """Every pattern of kept and reduced dims, over strided operands."""
    for op, dtype, ranks in (("sum", "float32", (1, 3)), ("argmax", "bfloat16", (2, 3)), ("any", "bool", (2,))):
        for n in ranks:
            for kinds in _kinds(n):
                for access in ((None,) * (n - 1) + (1,), (None,) * n):
                    yield op, dtype, kinds, access, simple(op, dtype, kinds, access)


# One lane to 32, a block and several; beside each length those around a multiple of a pack and of what a team has.
LENGTHS = (1, 2, 3, 7, 8, 15, 16, 17, 33, 60, 63, 64, 65, 100, 127, 129, 300, 513, 1000, 2047, 2049, 4100)
ROW_LENGTHS = [("sum", "float32"), ("sum", "bfloat16"), ("argmin", "float16"), ("all", "bool"), ("max", "int8")]
# (reduced, kept): few columns and many, with one to reduce and many.
COLUMNS = [(1, 5), (2, 3000), (4, 1025), (5, 700), (9, 300), (33, 3), (70, 64), (300, 1), (1025, 17), (4000, 40)]
SPECIAL_OPS = ("max", "min", "argmax", "argmin", "logsumexp", "any", "all")
SPECIAL_LENGTHS = (5, 37, 200, 700, 9000)
LONG = [("r", (70_011,)), ("kr", (3, 24_000)), ("kr", (3, 33_001)), ("rkr", (4, 2, 9_001))]
LONG += [("rk", (999, 9)), ("rkk", (700, 3, 50))]
EMPTY = ["kr", "r", "rk", "rkr"]
LOGSUMEXP_DTYPES = ("bfloat16", "float32", "float64")
EMPTY_OPS = ("sum", "prod", "any", "all", "logsumexp")


def _other_cases():
    for op in ("sum", "argmin"):
        yield from (simple(op, "float16", kinds) for kinds, _ in LONG)
    yield from (simple(op, dtype, kinds) for op, dtype in ROW_LENGTHS for kinds in ("kr", "rk"))
    yield from (simple(op, "float32", "kr") for op in SPECIAL_OPS)
    yield from (simple(op, "float32", kinds) for op in EMPTY_OPS for kinds in EMPTY)
    yield from (simple("logsumexp", dtype, "kr") for dtype in LOGSUMEXP_DTYPES)
    yield simple("sum", "int64", "kr")
    yield simple("sum", "int32", "kr")
    yield simple("sum", "float32", "kr", (None, 1))
    yield simple("max", "float32", "k")
    yield NARROWING
    yield MIXED
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
    for kinds in ("kr", "rk"):
        yield kinds, generate("sum", program, kinds, [Operand(h), Operand(f, (None, 0))], 6, f)


NARROWING = generate("sum", [("load", 0)], "kr", [Operand("int32")], 0, "int8")
# A sum of products of rows that are aligned otherwise, in dtypes of two widths.
MIXED = generate(
    "sum",
    [
        ("load", 0),
        ("load", 1),
        ("op", "astype", (), (1,), ("float16",), "float32"),
        ("op", "multiply", (), (0, 2), ("float32", "float32"), "float32"),
    ],
    "kr",
    [Operand("float32", (None, 1)), Operand("float16", (None, 1))],
    3,
    "float32",
)
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
    for k, (op, dtype, kinds, access, kernel) in enumerate(LAYOUT_CASES):
        for shape in SHAPES:
            if len(shape) != len(kinds):
                continue
            wide = samples(dtype, tuple(2 * n + 3 for n in shape), k)
            if access[-1] == 1:
                a = wide[tuple(slice(1, n + 1) for n in shape)]
            else:
                a = wide[tuple(slice(2 * n, None, -2) for n in shape)][tuple(slice(0, n) for n in shape)]
            assert a.shape == shape
            check(kernel, op, kinds, a, result_dtype(op, dtype), kinds)


@pytest.mark.parametrize("op,dtype", ROW_LENGTHS)
def test_one_kernel_takes_rows_of_any_length(op, dtype):
    kernel = simple(op, dtype, "kr")
    for k, n in enumerate(LENGTHS):
        a = samples(dtype, (3 + 7000 // (n + 60), n), k)
        if dtype == "bool":
            a |= np.random.default_rng(k).random(a.shape) < 1 - 1 / n  # some rows are all true
        check(kernel, op, "kr", a, result_dtype(op, dtype), misalign=k % 2)


@pytest.mark.parametrize("op,dtype", ROW_LENGTHS)
def test_one_kernel_takes_columns_of_any_number_and_length(op, dtype):
    kernel = simple(op, dtype, "rk")
    for k, shape in enumerate(COLUMNS):
        check(kernel, op, "rk", samples(dtype, shape, k), result_dtype(op, dtype), misalign=k % 2)


@pytest.mark.parametrize("op,dtype", [("sum", "bfloat16"), ("max", "float16"), ("sum", "int16")])
def test_long_columns_of_short_elements(op, dtype, monkeypatch):
    """As on a device of two multiprocessors: a thread has 16 packs in flight, then 4, then those that are left."""
    monkeypatch.setattr(reduce, "DEEP_SPLIT_BLOCKS", 2)
    kernel = simple(op, dtype, "rk", deep=True)
    n_deep = 0
    for k, shape in enumerate([(4096, 8), (5003, 40), (400, 256), (1001, 264), (128, 2048), (159, 2048), (260, 512)]):
        n_deep += reduce.is_deep(shape[0], 1, shape[1])
        check(kernel, op, "rk", samples(dtype, shape, k), result_dtype(op, dtype), misalign=k == 1)
    assert n_deep >= 5


def test_which_columns_are_deep():
    """Those of which every thread has 16 packs or more."""
    assert reduce.has_deep("sum", ["bfloat16"]) and not reduce.has_deep("argmax", ["bfloat16"])
    assert not reduce.has_deep("sum", ["float32"]) and not reduce.has_deep("sum", ["bfloat16", "bfloat16"])
    assert reduce.is_deep(8192, 1, 8192) and reduce.is_deep(1_000_000, 1, 128) and reduce.is_deep(8192, 64, 128)
    assert reduce.is_deep(67_584, 1, 64) and not reduce.is_deep(67_583, 1, 64)
    for op, dtype, kinds in (("sum", "bfloat16", "kr"), ("sum", "float32", "rk"), ("argmax", "bfloat16", "rk")):
        with pytest.raises(ValueError, match="packs in flight"):
            simple(op, dtype, kinds, deep=True)
    assert not reduce.is_deep(64, 1, 2_000_000) and not reduce.is_deep(0, 1, 8192) and not reduce.is_deep(8192, 1, 0)


def test_rows_that_are_not_aligned():
    """Rows that begin anywhere, next to what must not be added."""
    kernel = simple("sum", "float32", "kr", (None, 1))
    for n in LENGTHS:
        for pitch in (n + 1, n + 4):
            for first in range(4):
                wide = np.full(9 * pitch + 8, np.nan, np.float32)
                aligned = wide[-wide.ctypes.data % 16 // 4 :]
                a = aligned[first : first + 9 * pitch].reshape(9, pitch)[:, :n]
                a[...] = samples("float32", (9, n), n)
                check(kernel, "sum", "kr", a, "float32", (n, pitch, first))


def test_operands_that_are_aligned_otherwise():
    for n in LENGTHS:
        for first in range(4):
            x = samples("float32", (5, n + 3), n)[:, first : first + n]
            y = samples("float16", (5, n + 5), n + 1)[:, 3 : 3 + n]
            (found,) = emulator.run(MIXED, x.shape, [x, y], [((5,), np.float32)])
            want = (x.astype(np.float64) * y).sum(1)
            np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5 * np.sqrt(n))


def test_threads_follow_from_the_sizes():
    """Blocks of 256 threads: lanes for a row by its length, several blocks where there are few rows."""

    def blocks(kinds, *sizes, dtype="float32"):
        grid = simple("sum", dtype, kinds).launch.grid
        return [evaluate_size(g, {f"d{d}": n for d, n in enumerate(sizes)}) for g in grid[:2]]

    assert blocks("kr", 1 << 20, 4) == [1024, 1]  # a lane takes four rows
    assert blocks("kr", 1 << 20, 8) == [2048, 1]  # two
    assert blocks("kr", 1 << 20, 16) == [4096, 1]  # one
    assert blocks("kr", 1 << 20, 64) == [16384, 1]  # four
    assert blocks("kr", 1 << 20, 512) == [1 << 17, 1]  # a warp
    assert blocks("kr", 8192, 8192) == [8192, 1]
    assert blocks("kr", 64, 1_000_000) == [64, 8]
    assert blocks("r", 1 << 26) == [1, 528]
    assert blocks("rk", 4, 1 << 20) == [1024, 1]  # a thread takes four columns
    assert blocks("rk", 1_000_000, 64) == [1, 528]
    assert blocks("rk", 1_000_000, 64, dtype="bfloat16") == [1, 264]
    assert blocks("rk", 8192, 8192) == [64, 8]
    assert blocks("krk", 1 << 16, 4, 16) == [1024, 1]
    assert blocks("kr", 0, 64)[0] == blocks("rk", 64, 0)[0] == 0


def test_long_reductions_are_split():
    """Several blocks for an output, several passes of each, and the counters left at zero."""
    for op in ("sum", "argmin"):
        for kinds, shape in LONG:
            kernel = simple(op, "float16", kinds)
            assert evaluate_size(kernel.launch.grid[1], {f"d{d}": n for d, n in enumerate(shape)}) > 1, kinds
            check(kernel, op, kinds, samples("float16", shape, 3), result_dtype(op, "float16"), kinds)


def test_nothing_is_reduced():
    a = samples("float32", (1030,), 0)
    check(simple("max", "float32", "k"), "max", "k", a, "float32")


@pytest.mark.parametrize("length", SPECIAL_LENGTHS)
def test_special_values(length):
    """Where the special values are at the end of rows of the least number, or of zeros."""
    nan, inf = np.nan, np.inf
    rows = [[1, nan, 3, nan, 0], [-inf] * 5, [inf, 1, inf, 0, 1], [-inf, 0, 1, -inf, 2], [0, -0.0, 0, -0.0, 0]]
    a = np.full((5, length), -inf, np.float32)
    a[4] = 0
    a[:, -5:] = rows
    for op in SPECIAL_OPS:
        out = result_dtype(op, "float32")
        want = expected(op, a, (1,), out)
        (found,) = emulator.run(simple(op, "float32", "kr"), a.shape, [a], [((5,), NUMPY[out])])
        assert_close(found, want, out, (op, length))


def test_logsumexp_of_extremes_wherever_they_are():
    """A NaN anywhere gives NaN, else an infinity gives infinity; the rest is as in double precision."""
    rng = np.random.default_rng(0)
    for dtype, n in itertools.product(LOGSUMEXP_DTYPES, (100, 700)):
        most = np.float64(np.finfo(np.float32).max if dtype != "float64" else np.finfo(np.float64).max)
        a = rng.normal(size=(9, n)) * 30
        a[1:, rng.integers(0, n, n // 14)] = -np.inf
        for row, value in ((2, np.inf), (3, np.nan), (4, -most), (5, most / 2), (8, np.inf)):
            a[row, rng.integers(0, n)] = value
        a[6], a[7], a[8, 17] = -np.inf, -most, np.nan
        a = a.astype(NUMPY[dtype])
        wide = a.astype(np.longdouble)
        with np.errstate(all="ignore"):
            greatest = np.where(np.isfinite(wide.max(1)), wide.max(1), 0)
            want = np.log(np.sum(np.exp(wide - greatest[:, None]), 1)) + greatest
        kernel = simple("logsumexp", dtype, "kr")
        (found,) = emulator.run(kernel, a.shape, [a], [((9,), NUMPY[dtype])], misalign=1)
        assert_close(found, want.astype(np.float64), dtype, (dtype, n))


@pytest.mark.parametrize("kinds", EMPTY)
def test_nothing_to_reduce(kinds):
    a = np.zeros(tuple(0 if kind == "r" else 3 for kind in kinds), np.float32)
    for op in EMPTY_OPS:
        check(simple(op, "float32", kinds), op, kinds, a, result_dtype(op, "float32"))


def test_sums_of_integers_wrap():
    a = np.full((2, 40), np.iinfo(np.int64).max, np.int64)
    check(simple("sum", "int64", "kr"), "sum", "kr", a, "int64")
    b = np.full((1, 300), 2**31 - 1, np.int32)
    check(simple("sum", "int32", "kr"), "sum", "kr", b, "int32")
    check(NARROWING, "sum", "kr", b, "int8")


def test_a_program_in_front():
    x, m = samples("bfloat16", (7, 83), 1), samples("float32", (7, 1), 2)
    weighted = (x.astype(np.float64) - m) ** 2 * (0.5 + 0.25 * np.arange(83))
    for kinds, kernel in PROGRAM_CASES:
        want = weighted.sum(kinds.index("r"))
        operands = [x, np.broadcast_to(m, x.shape)]
        (found,) = emulator.run(kernel, x.shape, operands, [(want.shape, np.float32)], scalars={0: 0.5, 1: 0.25})
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_bad_reductions_are_refused():
    load, operands = [("load", 0)], [Operand("int32")]
    with pytest.raises(ValueError, match="unknown reduction 'median'"):
        generate("median", load, "r", operands, 0, "int32")
    with pytest.raises(TypeError, match=r"\[logsumexp\].*int32.*convert"):
        generate("logsumexp", load, "r", operands, 0, "int32")
    with pytest.raises(ValueError, match=r"\[argmax\] of int32 cannot give int32"):
        generate("argmax", load, "r", operands, 0, "int32")
    with pytest.raises(ValueError, match="kept or reduced"):
        generate("sum", load, "kx", operands, 0, "int32")
