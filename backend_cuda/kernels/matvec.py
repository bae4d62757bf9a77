"""Products of a few rows with a weight: what decoding spends its time on. The weight is read once, at memory speed.

Loop dims: 0 batch, 1 m (rows of x and y), 2 n (columns of y), 3 k (summed over).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .codegen import (
    Access,
    Instruction,
    Operand,
    Output,
    Params,
    check,
    check_output_dtypes,
    define,
    describe,
    emit,
    offset,
    store_expression,
)
from .kernel import KernelSource, Launch, Size
from .ops import ITEMSIZE, compute, storage

DTYPES = ("bfloat16", "float16", "float32", "float64", "complex64")
MAX_ROWS = 8
# Blocks that a sum over k is split into, over the whole grid: two for each of an H100's 132 multiprocessors.
SPLIT_BLOCKS = 264
# Warps that have the memory of such a chip busy.
_BUSY_WARPS = 132 * 16

Layout = Literal["nk", "kn"]
LAYOUTS: tuple[Layout, ...] = ("nk", "kn")


@dataclass(frozen=True)
class RowVariant:
    """How layout "nk" is cut up: `team` threads (8 to 256, a power of two) take `weight_rows` rows of the weight, each
    thread with `stages` - 1 loads of each in flight."""

    team: int = 32
    stages: int = 6
    weight_rows: int = 1
    threads: int = 128

    def shared_bytes(self, rows: int) -> int:
        """Of a block, for the loads in flight; at most 48 KiB, less what the sums take."""
        return 16 * self.threads * self.stages * (self.weight_rows + (rows == 1))


@dataclass(frozen=True)
class ColumnVariant:
    """How layout "kn" is cut up: a block is `across` threads along n, 16 bytes each, by `down` along k, each thread
    with `stages` - 1 loads in flight."""

    across: int = 16
    down: int = 16
    stages: int = 8


Variant = RowVariant | ColumnVariant


def choose_variant(dtype: str, layout: Layout, m: int, n: int, k: int, batch: int = 1) -> Variant:
    """A fast variant for these sizes; any variant is correct for any.

    >>> choose_variant("bfloat16", "nk", 1, 576, 576)
    RowVariant(team=64, stages=3, weight_rows=1, threads=128)
    """
    size = ITEMSIZE[dtype]
    if layout == "kn":
        # A row of 128 bytes at least, so that whole sectors are read; wider where that leaves blocks enough.
        across = 16 if -(-n * size // 256) * batch >= SPLIT_BLOCKS // 8 else 8
        return ColumnVariant(across=across, down=256 // across, stages=8)
    chunks = max(1, -(-k * size // 16))  # loads of one row
    rows = n * batch
    weight_rows = 2 if m > 2 and rows >= 2 * _BUSY_WARPS else 1  # reading x then costs half
    teams = -(-rows // weight_rows)
    team = 32
    while team > 8 and chunks < 4 * team and teams * team // 2 >= 32 * _BUSY_WARPS:
        team //= 2
    while team < 256 and chunks > 2 * team and teams * team < 32 * _BUSY_WARPS:
        team *= 2
    # All loads of a short row at once; at most 32 KiB a block, of which six fit on a multiprocessor.
    threads = max(128, team)
    most = (32 << 10) // RowVariant(team, 1, weight_rows, threads).shared_bytes(m)
    stages = max(2, min(8, most, -(-chunks // team) + 1))
    return RowVariant(team, stages, weight_rows, threads)


def generate(
    dtype: str,
    layout: Layout,
    rows: int,
    *,
    batched: bool = False,
    variant: Variant | None = None,
    program: Sequence[Instruction] | None = None,
    operands: Sequence[Operand] = (),
    outputs: Sequence[Output] | None = None,
) -> KernelSource:
    """y[b, m, n] = sum over k of x[b, m, k] * w[b, n, k] ("nk"), or of x[b, m, k] * w[b, k, n] ("kn"); an epilogue.

    16-bit floats are multiplied and summed in float. Any sizes but 0, any alignment of pointers and rows; fast if they
    are multiples of 16 bytes.

    Parameters, in order: dims 0 (if batched), 1 (if rows > 1), 2 and 3; operand 0, which is x, with strides along dims
    0 and 1 under the same conditions (along k it is contiguous); operand 1, w, with strides along dim 0 if batched and
    dim 2 ("nk": contiguous along k) or dim 3 ("kn": contiguous along n); operands 2... of the epilogue and the outputs,
    with their runtime strides along dims 0, 1 and 2; the epilogue's scalars and integers; for "kn", workspace and
    counters.

    Args:
        dtype: of x and w: bfloat16, float16, float32, float64 or complex64.
        layout: of w.
        rows: rows of x that are taken at a time, 1 to 8. 1 means that m is 1; with 2 to 8, m is any number at run time,
            and w is read again for every `rows` of them.
        batched: whether there is a batch dim. A batch stride of 0 repeats an operand.
        variant: from `choose_variant`.
        program: the epilogue, in which `("value", 0, dtype)` is the sum; that alone if None. `("load", i)` loads
            `operands[i]`, which is operand 2 + i of the kernel.
        operands: what the epilogue reads, accesses over dims 0, 1 and 2.
        outputs: what is written; if None, the last register to a contiguous y of its dtype.

    Raises:
        TypeError: the dtype has no kernel.
        ValueError: rows, the variant or the epilogue makes no sense.

    >>> generate("bfloat16", "nk", 1).launch.grid
    (('cdiv', 'd2', 4), 1, 1)
    """
    if dtype not in DTYPES:
        raise TypeError(f"[matmul] no CUDA kernel for {dtype}; convert the operands with astype first.")
    if layout not in LAYOUTS:
        raise ValueError(f'layout is "nk" or "kn", not {layout!r}')
    if not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"a kernel takes 1 to {MAX_ROWS} rows at a time, not {rows}")
    if program is None:
        program = [("value", 0, dtype)]
    if outputs is None:
        outputs = [Output(len(program) - 1, str(program[-1][-1]))]
    check(program, operands, outputs, 3)
    check_output_dtypes(program, operands, outputs)
    for instruction in program:
        if instruction[0] == "value" and instruction[2] != dtype:
            raise ValueError(f"the product is {dtype}, the epilogue takes {instruction[2]}")
    epilogue = _Epilogue(
        program,
        [Operand(o.dtype, _without_unit_dims(o.access, rows, batched)) for o in operands],
        [Output(o.register, o.dtype, _without_unit_dims(o.access, rows, batched)) for o in outputs],
    )
    if layout == "nk":
        variant = variant or RowVariant()
        if not isinstance(variant, RowVariant):
            raise ValueError(f'layout "nk" takes a RowVariant, not {variant}')
        return _rows_kernel(dtype, rows, batched, variant, epilogue)
    variant = variant or ColumnVariant()
    if not isinstance(variant, ColumnVariant):
        raise ValueError(f'layout "kn" takes a ColumnVariant, not {variant}')
    return _columns_kernel(dtype, rows, batched, variant, epilogue)


@dataclass(frozen=True)
class _Epilogue:
    program: Sequence[Instruction]
    operands: Sequence[Operand]
    outputs: Sequence[Output]

    def loads(self) -> list[str]:
        """Statements that load the operands for one element, at (batch, row, column), if it is `inside`."""
        coordinates = ["batch", "row", "column"]
        lines = ["const i64 linear = (batch * m + row) * d2 + column;"]
        for i, operand in enumerate(self.operands, 2):
            place = f"p{i}[{offset(operand.access, coordinates, f't{i}_', 'linear')}]"
            lines.append(f"const {storage(operand.dtype)} e{i} = inside ? {place} : {storage(operand.dtype)}{{}};")
        return lines

    def stores(self, value: str) -> list[str]:
        """Statements that compute and store that element."""
        coordinates = ["batch", "row", "column"]

        def load(i: int) -> str:
            return f"e{i + 2}"

        def coordinate(axis: int | None) -> str:
            return "linear" if axis is None else coordinates[axis]

        lines = emit(self.program, self.operands, load, coordinate, value=[value])
        for j, output in enumerate(self.outputs):
            position = offset(output.access, coordinates, f"u{j}_", "linear")
            lines.append(f"q{j}[{position}] = {store_expression(output.register, self.program, output)};")
        return lines


def _without_unit_dims(access: Access, rows: int, batched: bool) -> Access:
    """The strides along dims that do not exist need no parameters."""
    if isinstance(access, str):
        return access
    batch, row, column = access
    return (batch if batched else 1, row if rows > 1 else 1, column)


def _params(dtype: str, rows: int, batched: bool, weight_dim: int, epilogue: _Epilogue) -> Params:
    params = Params()
    for d in ([0] if batched else []) + ([1] if rows > 1 else []) + [2, 3]:
        params.add(("dim", d), f"i64 d{d}")
    for i, inner in ((0, 1), (1, weight_dim)):
        params.add(("ptr", i), f"const {storage(dtype)}* p{i}")
        if batched:
            params.add(("stride", i, 0), f"i64 t{i}_0")
        if inner != 1 or rows > 1:
            params.add(("stride", i, inner), f"i64 t{i}_{inner}")
    params.operands(epilogue.operands, 2)
    params.outputs(epilogue.outputs)
    params.scalars(epilogue.program)
    return params


def _place(rows: int, batched: bool, columns: str) -> list[str]:
    """Statements that give a block its batch element, columns and rows; rows vary first: they share the weight."""
    first_row = f"take_coordinate(tile, ceil_div(m, {rows})) * {rows}" if rows > 1 else "0"
    column_tile = f"take_coordinate(tile, ceil_div(d2, {columns}))" if batched else "tile"
    return [
        f"const i64 m = {'d1' if rows > 1 else 1};",
        "i64 tile = blockIdx.x;",
        f"const i64 first_row = {first_row};",
        f"const i64 first_column = {column_tile} * {columns};",
        f"const i64 batch = {'tile' if batched else 0};",
        f"const {{T}}* x = p0{' + batch * t0_0' if batched else ''}{' + first_row * t0_1' if rows > 1 else ''};",
        f"const {{T}}* w = p1{' + batch * t1_0' if batched else ''};",
    ]


def _tiles(rows: int, batched: bool, columns: int) -> Size:
    tiles: Size = ("cdiv", "d2", columns)
    if rows > 1:
        tiles = ("mul", tiles, ("cdiv", "d1", rows))
    return ("mul", tiles, "d0") if batched else tiles


def _assemble(
    label: str, dtype: str, threads: int, params: Params, body: list[str], grid: tuple[Size, Size, Size]
) -> KernelSource:
    lines = [line.replace("{T}", storage(dtype)).replace("{C}", compute(dtype)) for line in body]
    return define(label, "matvec.cuh", params, lines, Launch((threads, 1, 1), grid))


def _label(layout: Layout, dtype: str, rows: int, epilogue: _Epilogue) -> str:
    after = describe(epilogue.program)
    return f"matvec_{layout}_{dtype}_{rows}" + ("" if after == "copy" else f"_{after}")


def _rows_kernel(dtype: str, rows: int, batched: bool, variant: RowVariant, epilogue: _Epilogue) -> KernelSource:
    team, threads, weight_rows = variant.team, variant.threads, variant.weight_rows
    powers = [8 << i for i in range(6)]
    if team not in powers or threads % max(team, 32) or threads > 1024 or variant.stages < 2 or weight_rows < 1:
        raise ValueError(f"teams of 8, 16, ... 256 threads divide a block, with 2 stages or more: {variant}")
    if variant.shared_bytes(rows) > 44 << 10:
        raise ValueError(f"too much shared memory, {variant.shared_bytes(rows)} bytes: {variant}")
    columns = threads // team * weight_rows
    params = _params(dtype, rows, batched, 2, epilogue)
    sums = rows * weight_rows
    body = [
        *_place(rows, batched, str(columns)),
        f"const int member = threadIdx.x % {team};",
        f"const i64 own_column = first_column + threadIdx.x / {team} * {weight_rows};",
        "// Teams beyond the last column go along with it, since whole warps meet in shuffles.",
        "const i64 from_column = min_i64(own_column, d2 - 1);",
    ]
    element = [
        f"const i64 row = first_row + i / {weight_rows}, column = own_column + i % {weight_rows};",
        f"const bool inside = i < {sums} && row < m && column < d2;",
        *epilogue.loads(),
    ]
    dot = [
        f"{{C}} sum[{sums}];",
        f"__shared__ uint4 ring[{variant.shared_bytes(rows) // 16}];",
        f"dot_rows<{{T}}, {rows}, {weight_rows}, {team}, {variant.stages}, {threads}>"
        f"(sum, ring, x, {'t0_1' if rows > 1 else 0}, "
        "m - first_row, w + from_column * t1_2, t1_2, d2 - from_column, d3, member);",
        f"__shared__ {{C}} memory[{threads // 32 * sums if team > 32 else 1}];",
        f"const TeamTotals<{{C}}, {sums}, {team}, {threads}> totals(sum, memory);",
    ]
    if sums <= team:
        # An element for each member: what its epilogue reads comes while the weight does.
        body += ["const int i = member;", *element, *dot, "if (inside) {"]
        body += ["    " + line for line in epilogue.stores("totals.total(i)")]
    else:
        body += [*dot, f"for (int i = member; i < {sums}; i += {team}) {{"]
        body += ["    " + line for line in (*element, "if (!inside) continue;", *epilogue.stores("totals.total(i)"))]
    body.append("}")
    grid = (_tiles(rows, batched, columns), 1, 1)
    return _assemble(_label("nk", dtype, rows, epilogue), dtype, threads, params, body, grid)


def _columns_kernel(dtype: str, rows: int, batched: bool, variant: ColumnVariant, epilogue: _Epilogue) -> KernelSource:
    across, down, stages = variant.across, variant.down, variant.stages
    threads = across * down
    if across < 1 or down < 1 or threads > 1024 or stages < 2:
        raise ValueError(f"a block has 1 to 1024 threads, with 2 stages or more: {variant}")
    if threads * stages > (32 << 10) // 16:
        raise ValueError(f"too much shared memory, {threads * stages * 16} bytes: {variant}")
    columns = across * (16 // ITEMSIZE[dtype])
    tiles = _tiles(rows, batched, columns)
    # A split is worth its partial sums if each thread has two loads to do.
    splits: Size = ("max", 1, ("min", ("div", SPLIT_BLOCKS, tiles), ("cdiv", "d3", 2 * down)))
    params = _params(dtype, rows, batched, 3, epilogue)
    total = rows * columns
    is_split: Size = ("min", 1, ("sub", splits, 1))
    itemsize = {"float64": 8, "complex64": 8}.get(dtype, 4)
    partial = ("mul", is_split, ("mul", ("mul", tiles, splits), total * itemsize))
    params.add(("workspace", ("max", 16, partial)), "{C}* workspace".replace("{C}", compute(dtype)))
    params.add(("counters", SPLIT_BLOCKS), "u32* counters")
    body = [
        *_place(rows, batched, str(columns)),
        "const i64 splits = gridDim.y;",
        "const i64 per_split = ceil_div(d3, splits);",
        "const i64 begin = min_i64(d3, blockIdx.y * per_split), end = min_i64(d3, begin + per_split);",
        f"__shared__ uint4 ring[{threads * stages}];",
        f"__shared__ {{C}} total[{total}];",
        f"sum_columns<{{T}}, {rows}, {across}, {down}, {stages}>(total, ring, x, {'t0_1' if rows > 1 else 0}, "
        "m - first_row, w + first_column, t1_3, d2 - first_column, begin, end);",
        "if (splits > 1) {",
        f"    {{C}}* parts = workspace + blockIdx.x * splits * {total};",
        f"    for (int i = threadIdx.x; i < {total}; i += {threads}) parts[blockIdx.y * {total} + i] = total[i];",
        "    if (!is_last_block(counters + blockIdx.x, u32(splits))) return;",
        f"    for (int i = threadIdx.x; i < {total}; i += {threads}) {{",
        "        {C} t = load_fresh(parts + i);",
        "#pragma unroll 4",
        f"        for (i64 s = 1; s < splits; ++s) t = t + load_fresh(parts + s * {total} + i);",
        "        total[i] = t;  // this thread alone reads it",
        "    }",
        "}",
        f"for (int i = threadIdx.x; i < {total}; i += {threads}) {{",
        f"    const i64 row = first_row + i / {columns}, column = first_column + i % {columns};",
        "    const bool inside = row < m && column < d2;",
        "    if (!inside) continue;",
        *("    " + line for line in (*epilogue.loads(), *epilogue.stores("total[i]"))),
        "}",
    ]
    return _assemble(_label("kn", dtype, rows, epilogue), dtype, threads, params, body, (tiles, splits, 1))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Decoding's shapes in both layouts, several rows, a batch, and an epilogue that adds a bias."""
    h = "bfloat16"
    for n, k in ((576, 576), (1536, 576), (576, 1536), (49152, 576), (14336, 4096)):
        for layout in LAYOUTS:
            yield generate(h, layout, 1, variant=choose_variant(h, layout, 1, n, k))
    for dtype in DTYPES if full else DTYPES[1:]:
        for layout in LAYOUTS:
            for rows in range(2, MAX_ROWS + 1, 1 if full else 3):
                yield generate(dtype, layout, rows, batched=rows % 2 == 1, variant=None)
    program = [("value", 0, h), ("load", 0), ("op", "add", (), (0, 1), (h, h), h)]
    yield generate(h, "nk", 1, program=program, operands=[Operand(h, (0, 0, 1))])
    yield generate(h, "kn", 4, program=program, operands=[Operand(h, (0, None, 1))], outputs=[Output(2, h)])
