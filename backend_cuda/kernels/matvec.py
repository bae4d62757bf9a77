"""Products of a row with a weight, which is read once, at memory speed.

Loop dims: 0 batch, 1 n (columns of y), 2 k (summed over).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .codegen import Params, define
from .kernel import KernelSource, Launch, Size
from .ops import ITEMSIZE, compute, storage

DTYPES = ("bfloat16", "float16", "float32", "float64", "complex64")
# Blocks that a sum over k is split into, over the whole grid: two for each of an H100's 132 multiprocessors.
SPLIT_BLOCKS = 264
# Warps that have the memory of such a chip busy.
_BUSY_WARPS = 132 * 16

Layout = Literal["nk", "kn"]
LAYOUTS: tuple[Layout, ...] = ("nk", "kn")


@dataclass(frozen=True)
class RowVariant:
    """How layout "nk" is cut up: `team` threads (8 to 256, a power of two) take a row of the weight, each thread with
    `stages` - 1 loads of it in flight."""

    team: int = 32
    stages: int = 6
    threads: int = 128

    @property
    def shared_bytes(self) -> int:
        """Of a block, for the loads in flight of weight and x; at most 48 KiB, less what the sums take."""
        return 2 * 16 * self.threads * self.stages


@dataclass(frozen=True)
class ColumnVariant:
    """How layout "kn" is cut up: a block is `across` threads along n, 16 bytes each, by `down` along k, each thread
    with `stages` - 1 loads in flight."""

    across: int = 16
    down: int = 16
    stages: int = 8


Variant = RowVariant | ColumnVariant


def choose_variant(dtype: str, layout: Layout, n: int, k: int, batch: int = 1) -> Variant:
    """A fast variant for these sizes; any variant is correct for any.

    >>> choose_variant("bfloat16", "nk", 576, 576)
    RowVariant(team=64, stages=3, threads=128)
    """
    size = ITEMSIZE[dtype]
    if layout == "kn":
        # A row of 128 bytes at least, so that whole sectors are read; wider where that leaves blocks enough.
        across = 16 if -(-n * size // 256) * batch >= SPLIT_BLOCKS // 8 else 8
        return ColumnVariant(across=across, down=256 // across, stages=8)
    chunks = max(1, -(-k * size // 16))  # loads of one row
    teams = n * batch
    team = 32
    while team > 8 and chunks < 4 * team and teams * team // 2 >= 32 * _BUSY_WARPS:
        team //= 2
    while team < 256 and chunks > 2 * team and teams * team < 32 * _BUSY_WARPS:
        team *= 2
    # All loads of a short row at once; at most 32 KiB a block, of which six fit on a multiprocessor.
    threads = max(128, team)
    most = (32 << 10) // RowVariant(team, 1, threads).shared_bytes
    stages = max(2, min(8, most, -(-chunks // team) + 1))
    return RowVariant(team, stages, threads)


def generate(dtype: str, layout: Layout, *, batched: bool = False, variant: Variant | None = None) -> KernelSource:
    """y[b, n] = sum over k of x[b, k] * w[b, n, k] ("nk"), or of x[b, k] * w[b, k, n] ("kn").

    16-bit floats are multiplied and summed in float. Any sizes but 0, any alignment of pointers and rows; fast if they
    are multiples of 16 bytes.

    Parameters, in order: dims 0 (if batched), 1 and 2; operand 0, which is x, with its stride along dim 0 if batched
    (along k it is contiguous); operand 1, w, with strides along dim 0 if batched and dim 1 ("nk": contiguous along k)
    or dim 2 ("kn": contiguous along n); the output, contiguous; for "kn", workspace and counters.

    Args:
        dtype: of x, w and y: bfloat16, float16, float32, float64 or complex64.
        layout: of w.
        batched: whether there is a batch dim. A batch stride of 0 repeats an operand.
        variant: from `choose_variant`.

    Raises:
        TypeError: the dtype has no kernel.
        ValueError: the layout or the variant makes no sense.

    >>> generate("bfloat16", "nk").launch.grid
    (('cdiv', 'd1', 4), 1, 1)
    """
    if dtype not in DTYPES:
        raise TypeError(f"[matmul] no CUDA kernel for {dtype}; convert the operands with astype first.")
    if layout not in LAYOUTS:
        raise ValueError(f'layout is "nk" or "kn", not {layout!r}')
    if layout == "nk":
        variant = variant or RowVariant()
        if not isinstance(variant, RowVariant):
            raise ValueError(f'layout "nk" takes a RowVariant, not {variant}')
        return _rows_kernel(dtype, batched, variant)
    variant = variant or ColumnVariant()
    if not isinstance(variant, ColumnVariant):
        raise ValueError(f'layout "kn" takes a ColumnVariant, not {variant}')
    return _columns_kernel(dtype, batched, variant)


def _params(dtype: str, batched: bool, weight_dim: int) -> Params:
    params = Params()
    for d in [0] * batched + [1, 2]:
        params.add(("dim", d), f"i64 d{d}")
    for i in (0, 1):
        params.add(("ptr", i), f"const {storage(dtype)}* p{i}")
        for d in [0] * batched + [weight_dim] * i:
            params.add(("stride", i, d), f"i64 t{i}_{d}")
    params.add(("out", 0), f"{storage(dtype)}* __restrict__ q0")
    return params


def _place(batched: bool, columns: int) -> list[str]:
    """Statements that give a block its batch element and its first column."""
    column_tile = f"take_coordinate(tile, ceil_div(d1, {columns}))" if batched else "tile"
    return [
        "i64 tile = blockIdx.x;",
        f"const i64 first_column = {column_tile} * {columns};",
        f"const i64 batch = {'tile' if batched else 0};",
        f"const {{T}}* x = p0{' + batch * t0_0' if batched else ''};",
        f"const {{T}}* w = p1{' + batch * t1_0' if batched else ''};",
    ]


def _tiles(batched: bool, columns: int) -> Size:
    tiles: Size = ("cdiv", "d1", columns)
    return ("mul", tiles, "d0") if batched else tiles


def _assemble(
    layout: Layout, dtype: str, threads: int, params: Params, body: list[str], grid: tuple[Size, Size, Size]
) -> KernelSource:
    lines = [line.replace("{T}", storage(dtype)).replace("{C}", compute(dtype)) for line in body]
    return define(f"matvec_{layout}_{dtype}", "matvec.cuh", params, lines, Launch((threads, 1, 1), grid))


def _rows_kernel(dtype: str, batched: bool, variant: RowVariant) -> KernelSource:
    team, stages, threads = variant.team, variant.stages, variant.threads
    if team not in [8 << i for i in range(6)] or threads % max(team, 32) or threads > 1024 or stages < 2:
        raise ValueError(f"teams of 8, 16, ... 256 threads divide a block, with 2 stages or more: {variant}")
    if variant.shared_bytes > 44 << 10:
        raise ValueError(f"too much shared memory, {variant.shared_bytes} bytes: {variant}")
    columns = threads // team
    body = [
        *_place(batched, columns),
        f"const int member = threadIdx.x % {team};",
        f"const i64 column = first_column + threadIdx.x / {team};",
        "// Teams beyond the last column go along with it, since whole warps meet in shuffles.",
        "const i64 from_column = min_i64(column, d1 - 1);",
        f"__shared__ uint4 ring[{variant.shared_bytes // 16}];",
        f"{{C}} sum[1] = {{dot_row<{{T}}, {team}, {stages}, {threads}>(ring, x, w + from_column * t1_1, d2, member)}};",
        f"__shared__ {{C}} memory[{threads // 32 if team > 32 else 1}];",
        f"const TeamTotals<{{C}}, 1, {team}, {threads}> totals(sum, memory);",
        "if (member == 0 && column < d1) q0[batch * d1 + column] = from_compute<{T}>(totals.total(0));",
    ]
    return _assemble("nk", dtype, threads, _params(dtype, batched, 1), body, (_tiles(batched, columns), 1, 1))


def _columns_kernel(dtype: str, batched: bool, variant: ColumnVariant) -> KernelSource:
    across, down, stages = variant.across, variant.down, variant.stages
    threads = across * down
    if across < 1 or down < 1 or threads > 1024 or stages < 2:
        raise ValueError(f"a block has 1 to 1024 threads, with 2 stages or more: {variant}")
    if threads * stages > (32 << 10) // 16:
        raise ValueError(f"too much shared memory, {threads * stages * 16} bytes: {variant}")
    columns = across * (16 // ITEMSIZE[dtype])
    tiles = _tiles(batched, columns)
    # A split is worth its partial sums if each thread has two loads to do.
    splits: Size = ("max", 1, ("min", ("div", SPLIT_BLOCKS, tiles), ("cdiv", "d2", 2 * down)))
    params = _params(dtype, batched, 2)
    is_split: Size = ("min", 1, ("sub", splits, 1))
    itemsize = {"float64": 8, "complex64": 8}.get(dtype, 4)
    partial = ("mul", is_split, ("mul", ("mul", tiles, splits), columns * itemsize))
    params.add(("workspace", ("max", 16, partial)), f"{compute(dtype)}* workspace")
    params.add(("counters", SPLIT_BLOCKS), "u32* counters")
    body = [
        *_place(batched, columns),
        "const i64 splits = gridDim.y;",
        "const i64 per_split = ceil_div(d2, splits);",
        "const i64 begin = min_i64(d2, blockIdx.y * per_split), end = min_i64(d2, begin + per_split);",
        f"__shared__ uint4 ring[{threads * stages}];",
        f"__shared__ {{C}} total[{columns}];",
        f"sum_columns<{{T}}, {across}, {down}, {stages}>",
        "    (total, ring, x, w + first_column, t1_2, d1 - first_column, begin, end);",
        "if (splits > 1) {",
        f"    {{C}}* parts = workspace + blockIdx.x * splits * {columns};",
        f"    for (int i = threadIdx.x; i < {columns}; i += {threads}) parts[blockIdx.y * {columns} + i] = total[i];",
        "    if (!is_last_block(counters + blockIdx.x, u32(splits))) return;",
        f"    for (int i = threadIdx.x; i < {columns}; i += {threads}) {{",
        "        {C} t = load_fresh(parts + i);",
        "#pragma unroll 4",
        f"        for (i64 s = 1; s < splits; ++s) t = t + load_fresh(parts + s * {columns} + i);",
        "        total[i] = t;  // this thread alone reads it",
        "    }",
        "}",
        f"for (int i = threadIdx.x; i < {columns}; i += {threads}) {{",
        "    const i64 column = first_column + i;",
        "    if (column < d1) q0[batch * d1 + column] = from_compute<{T}>(total[i]);",
        "}",
    ]
    return _assemble("kn", dtype, threads, params, body, (tiles, splits, 1))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Decoding's shapes in both layouts, and a batch in each dtype."""
    h = "bfloat16"
    for layout in LAYOUTS:
        for n, k in ((576, 576), (1536, 576), (576, 1536), (49152, 576), (14336, 4096)):
            yield generate(h, layout, variant=choose_variant(h, layout, n, k))
        for dtype in DTYPES if full else DTYPES[1:]:
            yield generate(dtype, layout, batched=True)
