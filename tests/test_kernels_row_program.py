"""Generated row programs, run by g++, against NumPy in double precision."""

from __future__ import annotations

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.codegen import Operand, Output
from backend_cuda.kernels.row_program import Reduction, Variant, _softmax, choose_variant, generate, holds
from backend_cuda.kernels.row_registers import Held, pack_width, registers_held

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

TOLERANCE = {"bfloat16": 2**-8, "float16": 2**-10, "float32": 3e-6, "float64": 1e-13}


def numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def chosen(program, reductions, operands, outputs, shape, rows=None):
    """The variant that such rows get; as if there were so many of them."""
    held = registers_held(program, operands, [o.register for o in outputs])
    width = pack_width(operands, outputs)
    return choose_variant(held, width, rows or int(np.prod(shape[:-1])), shape[-1])


@pytest.mark.parametrize(
    ("dtype", "shape", "variant"),
    [
        ("float32", (5, 200), None),
        ("bfloat16", (3, 70), None),
        ("float16", (2, 3, 700), None),
        ("float64", (1, 33), None),
        ("float32", (17, 1), None),
        ("float32", (4, 300), Variant(32, 2)),  # too long for its registers
        ("bfloat16", (2, 1000), Variant(128, 4)),
        ("bfloat16", (9, 20), Variant(4, 8)),
        ("float32", (3, 5, 20), Variant(8, 4)),
        ("float32", (3, 200), Variant(16, 8)),  # too long, and a warp has two rows
        ("bfloat16", (3, 576), Variant(32, 24)),
        ("bfloat16", (3, 1000), Variant(64, 16)),
    ],
)
def test_softmax_written_out(dtype, shape, variant):
    rng = np.random.default_rng(1)
    kind = numpy_dtype(dtype)
    x = (3 * rng.normal(size=(*shape[:-1], 2 * shape[-1]))).astype(kind)[..., ::2]  # elements are apart
    program, reductions = _softmax(dtype)
    n = len(shape)
    outer = (None,) * (n - 1)
    outputs = [Output(5, dtype, (*outer, 1)), Output(4, dtype, (*outer, 0))]
    operands = [Operand(dtype, (None,) * n)]
    variant = variant or chosen(program, reductions, operands, outputs, shape)
    kernel = generate(program, reductions, operands, outputs, n, variant)
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(-1, keepdims=True))
    rows = int(np.prod(shape[:-1]))
    strides = {1: [*np.cumprod([1, *shape[:-1][:0:-1]])[::-1].tolist(), 0]}
    found, totals = emulator.run(kernel, shape, [x], [(shape, kind), ((rows,), kind)], out_strides=strides)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(
        found.astype(np.float64), e / e.sum(-1, keepdims=True), rtol=4 * tolerance, atol=tolerance / 8
    )
    np.testing.assert_allclose(totals.astype(np.float64), e.sum(-1).ravel(), rtol=2 * tolerance)


@pytest.mark.parametrize("length", [40, 300])
def test_operands_of_one_element_a_row_and_of_all_rows(length):
    """(x - mean) * w + b_row, and the greatest of it."""
    rng = np.random.default_rng(2)
    x, w, b = (rng.normal(size=s).astype(np.float32) for s in ((6, length), (length,), (6, 1)))
    pair = ("float32", "float32")
    program = [
        ("load", 0),
        ("value", 0, "float32"),
        ("scalar", 0, "float32"),
        ("op", "multiply", (), (1, 2), pair, "float32"),
        ("op", "subtract", (), (0, 3), pair, "float32"),
        ("load", 1),
        ("op", "multiply", (), (4, 5), pair, "float32"),
        ("load", 2),
        ("op", "add", (), (6, 7), pair, "float32"),
        ("value", 1, "float32"),
    ]
    operands = [Operand("float32", (None, 1)), Operand("float32", (0, 1)), Operand("float32", (None, 0))]
    outputs = [Output(8, "float32", (None, 1)), Output(9, "float32", (1, 0))]
    reductions = [Reduction("sum", 0), Reduction("max", 8)]
    kernel = generate(program, reductions, operands, outputs, 2, Variant(32, 2))
    arrays = [x, np.broadcast_to(w, x.shape), np.broadcast_to(b, x.shape)]
    found, top = emulator.run(
        kernel, x.shape, arrays, [(x.shape, np.float32), ((6,), np.float32)], scalars={0: 1 / length},
        out_strides={1: [1, 0]},
    )  # fmt: skip
    expected = (x - x.mean(-1, keepdims=True)) * w + b
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(top, expected.max(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [7, 90])
def test_values_that_are_the_same_along_a_row(length):
    """Are summed as often as there are elements, and written to each."""
    b = np.random.default_rng(2).normal(size=(6, 1)).astype(np.float32)
    share = ("op", "divide", (), (0, 1), ("float32", "float32"), "float32")
    program = [("load", 0), ("value", 0, "float32"), share]
    rows = (None, 1)
    kernel = generate(
        program, [Reduction("sum", 0)], [Operand("float32", (None, 0))], [Output(2, "float32", rows)], 2, Variant(32, 2)
    )
    (found,) = emulator.run(kernel, (6, length), [np.broadcast_to(b, (6, length))], [((6, length), np.float32)])
    np.testing.assert_allclose(found, np.full((6, length), 1 / length), rtol=1e-5)


def test_variants():
    """Few threads take one of many rows, as many as there are packs one of few; some rows take too many registers."""

    def variant(in_packs, apart, width, rows, length):
        return choose_variant(Held(in_packs, apart), width, rows, length)

    assert variant(1.5, 1.5, 8, 5000, 576) == Variant(32, 24) and variant(1.5, 1.5, 8, 100, 576) == Variant(128, 8)
    assert variant(1.5, 1.5, 8, 5000, 1024) == Variant(64, 16) and variant(1, 1.5, 1, 5000, 1024) == Variant(128, 8)
    assert variant(1, 1.5, 8, 5000, 1024) == variant(1, 1.5, 8, 5000, 1023) == Variant(32, 32)
    assert variant(1, 1, 4, 5000, 8192) == Variant(512, 16)
    assert variant(4, 4, 4, 1, 10**6) == variant(4, 4, 4, 1, 8192) == Variant(1024, 8)
    assert holds(Held(4, 4), 4, 8192) and not holds(Held(5, 5), 4, 8192) and holds(Held(5, 5), 4, 4096)
    assert not holds(Held(1, 5), 4, 8192)  # elements may turn out to be apart


def test_registers_that_a_program_holds():
    """What a reduction separates from its use, and packs that are not used yet unless caches have them."""
    h, f = "bfloat16", "float32"
    softmax, _ = _softmax(f)
    assert registers_held(softmax, [Operand(f, (None, 1))], [5]) == Held(1, 1)
    widened, rows = ("op", "astype", (), (0,), (h,), f), (None, 1)
    scaled = [("op", "multiply", (), (1, 2), (f, f), f), ("load", 1), ("op", "multiply", (), (3, 4), (f, h), f)]
    program = [("load", 0), widened, ("value", 0, f), *scaled]
    operands = [Operand(h, rows), Operand(h, (0, 1))]
    assert registers_held(program, operands, [5]) == Held(0.5, 1.5)
    assert registers_held(program, [operands[0], operands[0]], [5]) == Held(1, 1.5)
    assert registers_held(program, operands, [0, 1, 3, 5]) == Held(0.5, 2.5)
    by_row = [operands[0], Operand(h, (None, 0))]
    assert registers_held(program, by_row, [5]) == Held(0.5, 1)
    centred = [*program[:3], ("op", "subtract", (), (1, 2), (f, f), f), ("value", 1, f)]
    divided = ("op", "divide", (), (3, 4), (f, f), f)
    assert registers_held([*centred, divided], operands, [5]) == Held(0.5, 1)  # made again of x
    exp = ("op", "exp", (), (3,), (f,), f)
    assert registers_held([*centred[:4], exp, centred[4], divided], operands, [6]) == Held(1.5, 2)
    kept = ("op", "divide", (), (4, 5), (f, f), f)
    assert registers_held([*centred[:4], exp, centred[4], kept], operands, [6]) == Held(1, 1)


def test_what_makes_no_sense_is_refused():
    program, reductions = _softmax("float32")
    operands, outputs = [Operand("float32", (None, 1))], [Output(5, "float32", (None, 1))]
    variant = Variant(32, 1)
    with pytest.raises(ValueError, match="one element a row"):
        generate(program, reductions, operands, [Output(5, "float32", (None, 0))], 2, variant)
    with pytest.raises(ValueError, match="does not reduce by 'argmax'"):
        generate(program, [Reduction("argmax", 0), reductions[1]], operands, outputs, 2, variant)
    with pytest.raises(ValueError, match="has no 'iota'"):
        generate([("iota", 0, ("int", 0), ("int", 1), "float32")], [], [], [], 1, variant)
    with pytest.raises(TypeError, match="no row program for int32"):
        generate([("load", 0), ("value", 0, "int32")], [Reduction("sum", 0)], [Operand("int32", (1,))], [], 1, variant)


@pytest.mark.parametrize(
    ("dtypes", "shape"),
    [
        (("bfloat16", "bfloat16"), (5, 1000)),
        (("bfloat16", "float32"), (3, 72)),
        (("float32", "float32"), (4, 300)),
        (("float32", "float16"), (2, 2, 256)),
        (("float64", "float64"), (3, 34)),
        (("float16", "float16"), (4, 1001)),  # not of whole packs
        (("bfloat16", "bfloat16"), (3, 1023)),  # in some rows one pack more than threads have
        (("bfloat16", "bfloat16"), (37, 63)),
        (("float32", "float32"), (9, 31)),
    ],
)
@pytest.mark.parametrize(
    ("misalign", "rows", "padding"), [(0, 5, 0), (1, 5, 0), (0, 5000, 0), (1, 5000, 0), (0, 5000, 3)]
)
def test_rows_of_packs(dtypes, shape, misalign, rows, padding):
    """x * w - the row's sum, in two dtypes; and operands that are rows, one row for all, and one element a row."""
    rng = np.random.default_rng(3)
    first, second = dtypes
    x = rng.normal(size=(*shape[:-1], shape[-1] + padding)).astype(numpy_dtype(first))[..., padding:]
    w, b = rng.normal(size=shape[-1:]).astype(numpy_dtype(second)), rng.normal(size=(*shape[:-1], 1)).astype(x.dtype)
    wide = "float64" if "float64" in dtypes else "float32"
    program = [
        ("load", 0),
        ("op", "astype", (), (0,), (first,), wide),
        ("load", 1),
        ("op", "astype", (), (2,), (second,), wide),
        ("op", "multiply", (), (1, 3), (wide, wide), wide),
        ("value", 0, wide),
        ("op", "subtract", (), (4, 5), (wide, wide), wide),
        ("load", 2),
        ("op", "astype", (), (7,), (first,), wide),
        ("op", "add", (), (6, 8), (wide, wide), wide),
        ("op", "astype", (), (9,), (wide,), second),
    ]
    n = len(shape)
    outer = (None,) * (n - 1)
    operands = [Operand(first, (*outer, 1)), Operand(second, (*(0,) * (n - 1), 1)), Operand(first, (*outer, 0))]
    outputs = [Output(9, wide, (*outer, 1)), Output(10, second, (*outer, 1))]
    reductions = [Reduction("sum", 4)]
    variant = chosen(program, reductions, operands, outputs, shape, rows)
    kernel = generate(program, reductions, operands, outputs, n, variant)
    arrays = [x, np.broadcast_to(w, shape), np.broadcast_to(b, shape)]
    kinds = [(shape, numpy_dtype(wide)), (shape, numpy_dtype(second))]
    found = emulator.run(kernel, shape, arrays, kinds, misalign=misalign)
    product = x.astype(np.float64) * w.astype(np.float64)
    expected = product - product.sum(-1, keepdims=True) + b.astype(np.float64)
    for a, dtype in zip(found, (wide, second), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(a.astype(np.float64), expected, rtol=0, atol=8 * TOLERANCE[dtype] * scale)


@pytest.mark.parametrize(
    ("dtype", "shape", "variant"),
    [
        ("bfloat16", (5, 304), Variant(8, 40)),  # five packs: vectors are loaded late
        ("bfloat16", (3, 2, 317), Variant(8, 40)),  # and are not of whole packs
        ("float16", (6, 64), Variant(8, 8)),  # there are registers for vectors, too
        ("float32", (5, 80), Variant(4, 20)),
        ("float32", (5, 77), Variant(4, 20)),
        ("float64", (4, 37), Variant(4, 10)),
    ],
)
@pytest.mark.parametrize("misalign", [0, 1])
def test_layer_norm_written_out(dtype, shape, variant, misalign):
    """(x - mean) / deviation * w + b; the deviation, and x - mean apart, in every other place."""
    rng = np.random.default_rng(4)
    x, w, b = (rng.normal(size=s).astype(numpy_dtype(dtype)) for s in (shape, shape[-1:], shape[-1:]))
    pair = (dtype, dtype)
    program = [
        ("load", 0),
        ("value", 0, dtype),
        ("scalar", 0, dtype),
        ("op", "multiply", (), (1, 2), pair, dtype),
        ("op", "subtract", (), (0, 3), pair, dtype),
        ("op", "multiply", (), (4, 4), pair, dtype),
        ("value", 1, dtype),
        ("op", "multiply", (), (6, 2), pair, dtype),
        ("op", "rsqrt", (), (7,), (dtype,), dtype),
        ("op", "multiply", (), (4, 8), pair, dtype),
        ("load", 1),
        ("op", "multiply", (), (9, 10), pair, dtype),
        ("load", 2),
        ("op", "add", (), (11, 12), pair, dtype),
    ]
    n = len(shape)
    rows, vector = (*(None,) * (n - 1), 1), (*(0,) * (n - 1), 1)
    operands = [Operand(dtype, rows), Operand(dtype, vector), Operand(dtype, vector)]
    apart = Output(4, dtype, (None,) * n)
    outputs = [Output(13, dtype, rows), Output(8, dtype, (*(None,) * (n - 1), 0)), apart]
    kernel = generate(program, [Reduction("sum", 0), Reduction("sum", 5)], operands, outputs, n, variant)
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    found, inverse, centred = emulator.run(
        kernel, shape, [x, np.broadcast_to(w, shape), np.broadcast_to(b, shape)],
        [(shape, x.dtype), (shape[:-1], x.dtype), ((*shape[:-1], 2 * shape[-1]), x.dtype)],
        scalars={0: 1 / shape[-1]}, misalign=misalign,
        out_strides={1: [*np.cumprod([1, *shape[:-1][:0:-1]])[::-1].tolist(), 0], 2: (2 * strides).tolist()},
    )  # fmt: skip
    exact = x.astype(np.float64)
    c = exact - exact.mean(-1, keepdims=True)
    scale = 1 / np.sqrt((c * c).mean(-1))
    tolerance = 4 * TOLERANCE[dtype]
    wanted = c * scale[..., None] * w.astype(np.float64) + b.astype(np.float64)
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    np.testing.assert_allclose(inverse.astype(np.float64), scale, rtol=tolerance)
    np.testing.assert_allclose(centred[..., ::2].astype(np.float64), c, rtol=0, atol=tolerance * np.abs(c).max())
