"""Fused elementwise kernels: read every operand once, run a program on registers, write every output once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .codegen import (
    Instruction,
    Operand,
    Output,
    Params,
    check,
    check_output_dtypes,
    decompose,
    define,
    describe,
    emit,
    last_stride,
    load_statement,
    offset,
    store_expression,
    vector_width,
)
from .kernel import KernelSource, Launch, Size, product
from .ops import BINARY, DTYPES, UNARY, result_dtype, storage

THREADS = 256


def generate(
    program: Sequence[Instruction], n_dims: int, operands: Sequence[Operand], outputs: Sequence[Output]
) -> KernelSource:
    """A kernel for a program over `n_dims` loop dims, outermost first, already collapsed as far as its arrays allow.

    Parameters, in order: the dims; for each operand its pointer and runtime strides; for each output the same; scalars
    and integers. Valid for any sizes; an output that is `in_place` may lie exactly on an operand of the same access.

    Args:
        program: the instructions, see `codegen`.
        n_dims: at least 1.
        operands: arrays read.
        outputs: arrays written.

    Raises:
        ValueError: the program or a pattern makes no sense.
        TypeError: a primitive takes no operands of these dtypes.

    >>> generate([("load", 0)], 1, [Operand("float32")], [Output(0, "float32")]).launch.grid
    (('cdiv', 'd0', 1024), 1, 1)
    """
    if n_dims < 1:
        raise ValueError("a loop has at least one dim")
    check(program, operands, outputs, n_dims)
    check_output_dtypes(program, operands, outputs)
    arrays: tuple[Operand | Output, ...] = (*operands, *outputs)
    linear = all(isinstance(x.access, str) for x in arrays)
    return (_flat if n_dims == 1 and linear else _strided)(program, n_dims, operands, outputs)


def _loop(
    program: Sequence[Instruction],
    n_dims: int,
    operands: Sequence[Operand],
    outputs: Sequence[Output],
    width: int,
    linear: str,
    column: str,
) -> list[str]:
    """The computation of `width` elements, from packs a{i} to packs o{j}."""

    def coordinate(axis: int | None) -> str:
        if axis is None:
            return f"({linear} + j)"
        return f"({column} + j)" if axis == n_dims - 1 else f"c{axis}"

    lines = [f"Pack<{storage(o.dtype)}, {width}> o{j};" for j, o in enumerate(outputs)]
    lines += ["#pragma unroll", f"for (int j = 0; j < {width}; ++j) {{"]
    lines += ["    " + line for line in emit(program, operands, lambda i: f"element(a{i}, j)", coordinate)]
    lines += [f"    o{j}.v[j] = {store_expression(o.register, program, o)};" for j, o in enumerate(outputs)]
    return [*lines, "}"]


def _assemble(label: str, params: Params, body: list[str], grid: Size) -> KernelSource:
    return define(label, "math.cuh", params, body, Launch((THREADS, 1, 1), (grid, 1, 1)))


def _params(
    program: Sequence[Instruction], n_dims: int, operands: Sequence[Operand], outputs: Sequence[Output]
) -> Params:
    params = Params()
    params.dims(n_dims)
    params.operands(operands)
    params.outputs(outputs)
    params.scalars(program)
    return params


def flat_width(operands: Sequence[Operand], outputs: Sequence[Output]) -> int:
    """Elements of a thread where everything is contiguous: 16 bytes of the widest array."""
    return vector_width([o.dtype for o in operands if o.access == "contiguous"] + [o.dtype for o in outputs])


def flat_body(
    program: Sequence[Instruction], operands: Sequence[Operand], outputs: Sequence[Output], block: str
) -> list[str]:
    """What a block does where everything is contiguous; `block` counts from the arrays' beginning.

    A thread loads all that it reads of its elements before it stores any.
    """
    width = flat_width(operands, outputs)
    body = [
        f"const i64 i = (({block}) * {THREADS} + threadIdx.x) * {width};",
        "if (i >= d0) return;",
        f"const int count = int(min_i64(d0 - i, {width}));",
    ]
    for i, operand in enumerate(operands):
        position = "i" if operand.access == "contiguous" else "0"
        body.append(load_statement(i, operand, position, width, 0, "count"))
    body += _loop(program, 1, operands, outputs, width, "i", "i")
    return body + [f"store_pack<{width}>(q{j} + i, o{j}, count);" for j in range(len(outputs))]


def _flat(
    program: Sequence[Instruction], n_dims: int, operands: Sequence[Operand], outputs: Sequence[Output]
) -> KernelSource:
    """Everything contiguous."""
    body = flat_body(program, operands, outputs, "i64(blockIdx.x)")
    params = _params(program, n_dims, operands, outputs)
    grid: Size = ("cdiv", "d0", THREADS * flat_width(operands, outputs))
    return _assemble(f"flat_{describe(program)}", params, body, grid)


def _strided(
    program: Sequence[Instruction], n_dims: int, operands: Sequence[Operand], outputs: Sequence[Output]
) -> KernelSource:
    """A thread takes a few consecutive elements of the last dim; rows (all other dims) are found by division."""
    last = n_dims - 1
    arrays: tuple[Operand | Output, ...] = (*operands, *outputs)
    moved = [x for x in arrays if last_stride(x.access) == 1]
    # What is broadcast is small, and in a cache: the others say how wide accesses are.
    whole = [x for x in moved if x.access == "contiguous" or 0 not in x.access]
    width = vector_width([x.dtype for x in whole or moved], 8)
    body = [
        f"const i64 groups = ceil_div(d{last}, {width});",
        f"i64 rest = i64(blockIdx.x) * {THREADS} + threadIdx.x;",
        f"const i64 column = take_coordinate(rest, groups) * {width};",
        "const i64 row = rest;",
        *decompose("rest", range(last)),
        "if (c0 >= d0) return;" if last else "if (row > 0) return;",
        f"const i64 linear = row * d{last} + column;",
        f"const int count = int(min_i64(d{last} - column, {width}));",
    ]
    coordinates = [*(f"c{d}" for d in range(last)), "column"]
    for i, operand in enumerate(operands):
        position = offset(operand.access, coordinates, f"t{i}_", "linear")
        body.append(load_statement(i, operand, position, width, last, "count"))
    body += _loop(program, n_dims, operands, outputs, width, "linear", "column")
    for j, output in enumerate(outputs):
        position = offset(output.access, coordinates, f"u{j}_", "linear")
        stride = last_stride(output.access)
        if stride == 1:
            body.append(f"store_pack<{width}>(q{j} + ({position}), o{j}, count);")
        else:
            body.append(f"store_strided<{width}>(q{j} + ({position}), {stride or f'u{j}_{last}'}, o{j}, count);")
    params = _params(program, n_dims, operands, outputs)
    rows = product([f"d{d}" for d in range(last)])
    groups: Size = ("cdiv", f"d{last}", width)
    grid: Size = ("cdiv", groups if rows == 1 else ("mul", rows, groups), THREADS)
    return _assemble(f"strided{n_dims}_{describe(program)}", params, body, grid)


def _unary_kernel(name: str, dtype: str) -> KernelSource:
    out = result_dtype(name, (dtype,))
    program = [("load", 0), ("op", name, (), (0,), (dtype,), out)]
    return generate(program, 1, [Operand(dtype)], [Output(1, out)])


def _binary_kernel(name: str, dtype: str) -> KernelSource:
    out = result_dtype(name, (dtype, dtype))
    program = [("load", 0), ("load", 1), ("op", name, (), (0, 1), (dtype, dtype), out)]
    return generate(program, 1, [Operand(dtype), Operand(dtype)], [Output(2, out)])


def _astype_kernel(source: str, target: str) -> KernelSource:
    program = [("load", 0), ("op", "astype", (), (0,), (source,), target)]
    return generate(program, 1, [Operand(source)], [Output(1, target)])


def _fused_kernels() -> Iterator[KernelSource]:
    f, h = "float32", "bfloat16"
    gelu = [
        ("load", 0),
        ("scalar", 0, f),
        ("op", "multiply", (), (0, 1), (f, f), f),
        ("op", "erf", (), (2,), (f,), f),
        ("op", "multiply", (), (0, 3), (f, f), f),
    ]
    yield generate(gelu, 1, [Operand(f)], [Output(4, f), Output(3, f)])
    bias = [
        ("load", 0),
        ("load", 1),
        ("op", "add", (), (0, 1), (h, h), h),
        ("op", "astype", (), (2,), (h,), f),
        ("scalar", 0, f),
        ("op", "greater", (), (3, 4), (f, f), "bool"),
        ("op", "where", (), (5, 3, 4), ("bool", f, f), f),
    ]
    operands = [Operand(h, (None, None, 1)), Operand(h, (0, None, 0))]
    yield generate(bias, 3, operands, [Output(6, f), Output(2, h, (None, None, 1))])
    yield generate([("load", 0)], 2, [Operand(f, (1, None))], [Output(0, f)])
    yield generate([("load", 0)], 2, [Operand("bool", (None, 1))], [Output(0, "bool", (None, None))])
    yield generate([("iota", None, ("scalar", 0), ("scalar", 1), f)], 1, [], [Output(0, f)])
    yield generate([("iota", 1, ("int", 0), ("int", 1), "int32")], 2, [], [Output(0, "int32")])


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Every fused form, and every primitive in one dtype of each sort (`full`: in all dtypes)."""
    yield from _fused_kernels()
    for table, make in ((UNARY, _unary_kernel), (BINARY, _binary_kernel)):
        for k, (name, accepted) in enumerate(table.items()):
            allowed = [d for d in DTYPES if d in accepted]
            for dtype in allowed if full else [allowed[k % len(allowed)]]:
                yield make(name, dtype)
    for k, source in enumerate(DTYPES):
        for target in DTYPES if full else [DTYPES[(k * 5 + 3) % len(DTYPES)]]:
            yield _astype_kernel(source, target)
