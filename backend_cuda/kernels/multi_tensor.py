"""One elementwise program over many sets of arrays in one kernel ("multi-tensor"): the steps of an optimizer.

Each set of arrays is a row of a table, which is a parameter of the kernel. A block finds its row by the number of its
first block, and does there what a block of an elementwise kernel does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .codegen import Instruction, Operand, Output, Params, check, check_output_dtypes, define, describe, scalar_type
from .elementwise import THREADS, flat_body, flat_width
from .kernel import KernelSource, Launch, Param
from .ops import storage

MAX_PARAMETER_WORDS = 512  # 4 KB, 8 bytes each
_SCALARS = {"f32": "f32", "f64": "f64", "s64": "i64", "c64": "c64"}


def scalars_of(program: Sequence[Instruction]) -> list[tuple[int, str]]:
    """(scalar number, kernel argument type) of the scalars that a program reads, each once."""
    return list(dict.fromkeys((i[1], scalar_type(i[2])) for i in program if i[0] == "scalar"))


def tile(operands: Sequence[Operand], outputs: Sequence[Output]) -> int:
    """Elements of a block."""
    return THREADS * flat_width(operands, outputs)


def columns(
    program: Sequence[Instruction],
    operands: Sequence[Operand],
    outputs: Sequence[Output],
    shared_operands: frozenset[int] = frozenset(),
    shared_scalars: frozenset[int] = frozenset(),
) -> tuple[Param, ...]:
    """What a row of the table holds: its first block, its number of elements, its pointers and its scalars."""
    return (
        ("first",),
        ("dim", 0),
        *(("ptr", i) for i in range(len(operands)) if i not in shared_operands),
        *(("out", j) for j in range(len(outputs))),
        *(("scalar", k, ctype) for k, ctype in scalars_of(program) if k not in shared_scalars),
    )


def most_rows(
    program: Sequence[Instruction],
    operands: Sequence[Operand],
    outputs: Sequence[Output],
    shared_operands: frozenset[int] = frozenset(),
    shared_scalars: frozenset[int] = frozenset(),
) -> int:
    """How many rows the parameters of a kernel have room for."""
    shared = len(shared_operands) + sum(k in shared_scalars for k, _ in scalars_of(program))
    return (MAX_PARAMETER_WORDS - shared) // len(columns(program, operands, outputs, shared_operands, shared_scalars))


def generate(
    program: Sequence[Instruction],
    operands: Sequence[Operand],
    outputs: Sequence[Output],
    rows: int,
    shared_operands: frozenset[int] = frozenset(),
    shared_scalars: frozenset[int] = frozenset(),
) -> KernelSource:
    """A kernel for a program over one loop dim, of arrays that are contiguous or one element.

    Parameters, in order: the table, `("table", rows, columns)`; pointers of the shared operands; the shared scalars. A
    row that is not used has the number of all blocks as its first; loop dim 0 of the grid is that number. An output may
    lie exactly on a contiguous operand of its row (in place), and on no array of another row.

    Args:
        program: the instructions, see `codegen`; no iota.
        operands: arrays read, access "contiguous" or "scalar".
        outputs: arrays written, contiguous.
        rows: at least 1, at most `most_rows`.
        shared_operands: operands of one element that all rows read, by number.
        shared_scalars: scalars that are the same in all rows, by number.

    Raises:
        ValueError: the program or a pattern makes no sense, or the table is too large.
        TypeError: a primitive takes no operands of these dtypes.

    >>> generate([("load", 0)], [Operand("float32")], [Output(0, "float32")], 8).params
    (('table', 8, (('first',), ('dim', 0), ('ptr', 0), ('out', 0))),)
    """
    check(program, operands, outputs, 1)
    check_output_dtypes(program, operands, outputs)
    arrays: tuple[Operand | Output, ...] = (*operands, *outputs)
    if not all(isinstance(x.access, str) for x in arrays):
        raise ValueError("the arrays of a table are contiguous or one element")
    if any(i[0] == "iota" for i in program):
        raise ValueError("an iota counts in the dims of one array, not of a table's rows")
    if any(operands[i].access != "scalar" for i in shared_operands):
        raise ValueError("an operand that all rows share is one element")
    most = most_rows(program, operands, outputs, shared_operands, shared_scalars)
    if not 1 <= rows <= most:
        raise ValueError(f"a table of {rows} rows, of which at most {most} fit")
    cells = columns(program, operands, outputs, shared_operands, shared_scalars)
    params, before, types = Params(), [], []
    for k, column in enumerate(cells):
        ctype, name = _cell(column, operands, outputs)
        types.append(ctype)
        before.append(f"const auto {name} = t.get<{k}>(row);")
    params.add(("table", rows, cells), f"__grid_constant__ const Table<{rows}, {', '.join(types)}> t")
    for i in sorted(shared_operands):
        params.add(("ptr", i), f"const {storage(operands[i].dtype)}* p{i}")
    for k, ctype in scalars_of(program):
        if k in shared_scalars:
            params.scalar(k, ctype)
    launch = Launch((THREADS, 1, 1), ("d0", 1, 1))
    body = flat_body(program, operands, outputs, "i64(blockIdx.x) - first")
    before = ["const int row = row_of(t, blockIdx.x);", *before]
    return define(f"multi_tensor_{describe(program)}", "multi_tensor.cuh", params, body, launch, before)


def _cell(column: Param, operands: Sequence[Operand], outputs: Sequence[Output]) -> tuple[str, str]:
    """The C type of a column and the name of a row's cell."""
    match column[0]:
        case "first":
            return "i64", "first"
        case "dim":
            return "i64", f"d{column[1]}"
        case "ptr":
            return f"const {storage(operands[column[1]].dtype)}*", f"p{column[1]}"
        case "out":
            return f"{storage(outputs[column[1]].dtype)}*", f"q{column[1]}"
        case "scalar":
            return _SCALARS[column[2]], f"s{column[1]}_{column[2]}"
    raise AssertionError(f"unknown column {column!r}")


def catalogue(full: bool) -> Iterator[KernelSource]:
    """A momentum step in float32, and one whose moment is wider than the parameter (`full`: in each float dtype)."""
    for dtype in ("float32", "float16", "bfloat16", "float64") if full else ("float32", "bfloat16"):
        program: list[Instruction] = [
            ("load", 0),
            ("load", 1),
            ("op", "astype", (), (1,), (dtype,), "float32"),
            ("load", 2),
            ("scalar", 0, "float32"),
            ("op", "multiply", (), (3, 4), ("float32", "float32"), "float32"),
            ("op", "add", (), (2, 5), ("float32", "float32"), "float32"),
            ("load", 3),
            ("scalar", 1, "float32"),
            ("op", "multiply", (), (7, 8), ("float32", "float32"), "float32"),
            ("op", "multiply", (), (6, 9), ("float32", "float32"), "float32"),
            ("op", "astype", (), (10,), ("float32",), dtype),
            ("op", "subtract", (), (0, 11), (dtype, dtype), dtype),
        ]
        operands = [Operand(dtype), Operand(dtype), Operand("float32"), Operand("float32", "scalar")]
        outputs = [Output(6, "float32"), Output(12, dtype)]
        yield generate(program, operands, outputs, 20, frozenset({3}), frozenset({1}))
        yield generate(program, operands, outputs, most_rows(program, operands, outputs))
