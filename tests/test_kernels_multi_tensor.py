"""One program over the rows of a table, run by g++, against the elementwise kernel of each row and NumPy."""

from __future__ import annotations

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest
from kernel_emulator import Row

from backend_cuda.kernels import elementwise, multi_tensor
from backend_cuda.kernels.codegen import Operand, Output

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUMPY = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32, "float64": np.float64}
F = "float32"


def momentum(dtype):
    """m = s0 * m + g; p = p - lr * m, with m in float32. Operands p, g, m, lr (one element)."""
    program = [
        ("load", 0),
        ("load", 1),
        ("op", "astype", (), (1,), (dtype,), F),
        ("load", 2),
        ("scalar", 0, F),
        ("op", "multiply", (), (3, 4), (F, F), F),
        ("op", "add", (), (2, 5), (F, F), F),
        ("load", 3),
        ("op", "multiply", (), (6, 7), (F, F), F),
        ("op", "astype", (), (8,), (F,), dtype),
        ("op", "subtract", (), (0, 9), (dtype, dtype), dtype),
    ]
    operands = (Operand(dtype), Operand(dtype), Operand(F), Operand(F, "scalar"))
    return program, operands, (Output(6, F), Output(10, dtype))


def rows_of(sizes, dtype, in_place):
    rng = np.random.default_rng(len(sizes))
    rows = []
    rate = np.array([0.25], np.float32)
    for k, n in enumerate(sizes):
        p, g = (rng.normal(size=n).astype(NUMPY[dtype]) for _ in range(2))
        m = rng.normal(size=n).astype(np.float32)
        outputs = [2, 0] if in_place else [((n,), np.float32), ((n,), NUMPY[dtype])]
        rows.append(Row([p, g, m, rate], outputs, {0: 0.5 + k / 16}))
    return rows


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("misalign", [0, 1])
@pytest.mark.parametrize("dtype", sorted(NUMPY))
@pytest.mark.parametrize("sizes", [(1,), (5, 2048, 1, 3000, 1025), tuple(range(1, 34)), (1024,) * 7])
def test_every_row_is_as_its_own_kernel_computes_it(sizes, dtype, misalign, in_place):
    program, operands, outputs = momentum(dtype)
    most = multi_tensor.most_rows(program, operands, outputs, frozenset({3}))
    kernel = multi_tensor.generate(program, operands, outputs, min(len(sizes) + 3, most), frozenset({3}))
    rows = rows_of(sizes, dtype, in_place)
    found = emulator.run_table(kernel, rows, multi_tensor.tile(operands, outputs), misalign)
    alone = elementwise.generate(program, 1, operands, outputs)
    for row, results in zip(rows, found, strict=True):
        shape = row.operands[0].shape
        kinds = [(shape, np.float32), (shape, NUMPY[dtype])]
        expected = emulator.run(alone, shape, row.operands, kinds, scalars=row.scalars)
        for a, e in zip(results, expected, strict=True):
            assert a.tobytes() == e.tobytes()


def test_rows_with_scalars_and_operands_of_their_own():
    program = [
        ("load", 0),
        ("load", 1),
        ("scalar", 0, "float16"),
        ("scalar", 1, "int32"),
        ("op", "astype", (), (3,), ("int32",), "float16"),
        ("op", "multiply", (), (0, 2), ("float16",) * 2, "float16"),
        ("op", "add", (), (5, 1), ("float16",) * 2, "float16"),
        ("op", "subtract", (), (6, 4), ("float16",) * 2, "float16"),
    ]
    operands, outputs = [Operand("float16"), Operand("float16", "scalar")], [Output(7, "float16")]
    kernel = multi_tensor.generate(program, operands, outputs, 3, shared_scalars=frozenset({1}))
    rows = [
        Row(
            [(np.arange(n) % 64).astype(np.float16), np.array([k], np.float16)], [((n,), np.float16)], {0: k / 2, 1: -3}
        )
        for k, n in enumerate((9, 4100, 2))
    ]
    found = emulator.run_table(kernel, rows, multi_tensor.tile(operands, outputs))
    for row, (a,) in zip(rows, found, strict=True):
        x, one = (o.astype(np.float32) for o in row.operands)
        np.testing.assert_array_equal(a.astype(np.float32), x * np.float32(row.scalars[0]) + one + 3)


def test_all_rows_that_fit_are_found():
    program, operands, outputs = [("load", 0)], [Operand("uint8")], [Output(0, "uint8")]
    most = multi_tensor.most_rows(program, operands, outputs)
    assert most == 128
    kernel = multi_tensor.generate(program, operands, outputs, most)
    rows = [Row([np.full(1 + k % 5, k, np.uint8)], [((1 + k % 5,), np.uint8)]) for k in range(most)]
    for row, (a,) in zip(rows, emulator.run_table(kernel, rows, multi_tensor.tile(operands, outputs)), strict=True):
        np.testing.assert_array_equal(a, row.operands[0])


@pytest.mark.parametrize("rows", [0, 129])
def test_a_table_that_is_too_large_is_refused(rows):
    with pytest.raises(ValueError, match="at most 128"):
        multi_tensor.generate([("load", 0)], [Operand("uint8")], [Output(0, "uint8")], rows)


@pytest.mark.parametrize(
    ("program", "operands", "shared", "match"),
    [
        ([("load", 0)], [Operand(F, (None,))], frozenset(), "contiguous or one element"),
        ([("iota", None, ("scalar", 0), ("scalar", 1), F)], [], frozenset(), "iota"),
        ([("load", 0)], [Operand(F)], frozenset({0}), "share"),
    ],
)
def test_what_no_table_holds_is_refused(program, operands, shared, match):
    with pytest.raises(ValueError, match=match):
        multi_tensor.generate(program, operands, [Output(0, F)], 4, shared)
