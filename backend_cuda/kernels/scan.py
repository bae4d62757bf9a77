"""Running sums, products, extremes and logsumexps along the last axis, or down columns.

Rows have a team of threads each, or are short and share a warp; columns have a thread or a block. Where that would be
too few threads, rows and columns are in tiles, which blocks scan side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from .codegen import Params, define
from .kernel import KernelSource, Launch, Size
from .ops import DTYPES, INEXACT, INTEGERS, ITEMSIZE, compute, storage
from .target import target

Variant = Literal["short", "warp", "block", "long"]
TileVariant = Literal["tiles", "large_tiles", "largest_tiles"]
TILE_VARIANTS: tuple[TileVariant, ...] = ("tiles", "large_tiles", "largest_tiles")
ColumnVariant = Literal["thread", "block"]
ColumnTileVariant = Literal["tiles", "tiles_of_few_columns"]

_TEAMS = {"warp": (32, 2), "block": (128, 4), "long": (512, 2)}  # threads of a row, and packs of each at a time
_THREADS = 256
_SHORT_PACKS = 4  # of a lane at a time, where rows share a warp
_TOGETHER = {"short": 4, "warp": 4}  # blocks that a multiprocessor is to have registers for
_ROWS = 4  # of a thread at a time, where it goes down columns
_LONG_PACKS = 4096  # of a row, up to which one block of it is faster than tiles
_BLOCK_PACKS = 8192  # of a block's columns, likewise
_WARP_PACKS = 384  # of a row, up to which a warp is faster than a block where rows are enough to fill the GPU
_LARGE_PACKS = (1 << 15, 1 << 21)  # of a row, and in all, from which large tiles of rows are faster
_FEW_ROWS = 2  # up to which most tiles wait for all before them, and larger ones wait less
_ADDERS = 4  # blocks at most that add up groups of tiles of rows
_BAND = 4  # rows whose tiles take turns: memory gives less of more at a time, and of one alone most tiles wait
_COLUMN_GROUP = 32  # tiles of columns of a group
_FEW_STRIPS = 4  # of a block's columns, up to which most tiles wait for all before them
_ACROSS = 8  # packs of a block's columns
_COUNTER_WORDS = 16  # kCounterWords of scan_tiles.cuh
_CLASSES = {"cumsum": "Sum", "cumprod": "Prod", "cummax": "Max", "cummin": "Min", "logcumsumexp": "LogSumExp"}
OPS = tuple(_CLASSES)


@dataclass(frozen=True)
class Shape:
    """Of tiles: a block's threads, packs of each, and blocks that a multiprocessor is to have registers for."""

    threads: int
    packs: int
    together: int


def choose_variant(dtype: str, rows: int, n: int) -> Variant | TileVariant:
    """A fast variant of `generate`, or `generate_tiles`, for `rows` rows of n elements; any is correct for any.

    >>> [choose_variant("float32", rows, n) for rows, n in ((10_000, 100), (10_000, 1000), (1, 1_000_000))]
    ['short', 'warp', 'tiles']
    """
    if n <= 768:
        return "short"
    if rows >= 64 * target.multiprocessors and n <= _WARP_PACKS * _width(dtype):
        return "warp"
    if rows >= 4 * target.multiprocessors:
        return "block"
    if n <= _LONG_PACKS * _width(dtype):
        return "long"
    of_row, in_all = (packs * _width(dtype) for packs in _LARGE_PACKS)
    if n < of_row or rows * n < in_all:
        return "tiles"
    return "largest_tiles" if rows <= _FEW_ROWS else "large_tiles"


def generate(op: str, dtype: str, out_dtype: str, *, reverse: bool, inclusive: bool, variant: Variant) -> KernelSource:
    """out[i] = the reduction of x[0]...x[i] along each row of contiguous (rows, n).

    16-bit floats accumulate in float; sums and products of integers wrap; a NaN stays from where it is. Any rows and n,
    any alignment. The order of the sums does not depend on timing. Parameters, in order: dim 0, the rows; dim 1, n;
    operand 0; the output; both contiguous.

    Args:
        op: one of `OPS`.
        dtype: of the operand; floating or complex for logcumsumexp.
        out_dtype: the operand's, or an integer dtype for cumsum and cumprod of integers or bool.
        reverse: from the end of the row to its start.
        inclusive: whether out[i] has x[i]; if not, the first is the identity: 0, 1, the least (-inf), the greatest
            (inf) or -inf.
        variant: from `choose_variant`.

    Raises:
        ValueError: an argument makes no sense.
        TypeError: the op takes no such dtype.

    >>> generate("cumsum", "bool", "int32", reverse=False, inclusive=True, variant="warp").launch.grid
    (('cdiv', 'd0', 8), 1, 1)
    """
    if variant != "short" and variant not in _TEAMS:
        raise ValueError(f"unknown variant {variant!r}")
    element, first = _check(op, dtype, out_dtype)
    types = f"Op, {storage(element)}"
    flags = f"{_text(reverse)}, {_text(inclusive)}"
    threads = _THREADS
    grid: Size = "d0"
    if variant == "short":
        grid, body = _by_warps(dtype)
        call = f"scan_short_rows<{types}, {_SHORT_PACKS}, {flags}>"
        body.append(f"{call}(p0 + row * d1, q0 + row * d1, min_i64(rows, d0 - row), d1, {first});")
    else:
        team, packs = _TEAMS[variant]
        threads = max(team, _THREADS) if team == 32 else team
        per_block = threads // team
        grid = ("cdiv", "d0", per_block) if per_block > 1 else "d0"
        body = [
            f"const i64 row = i64(blockIdx.x) * {per_block} + threadIdx.x / {team};",
            "if (row >= d0) return;  // a whole warp's or block's threads",
            f"scan_row<{types}, {team}, {packs}, {flags}>(p0 + row * d1, q0 + row * d1, d1, {first});",
        ]
    body.insert(0, _using(op, element))
    params = _params(2, dtype, out_dtype)
    launch = Launch((threads, 1, 1), (grid, 1, 1))
    label = _label(op, dtype, reverse, inclusive, variant)
    return define(label, "scan.cuh", params, body, launch, together=_TOGETHER.get(variant, 1))


def _by_warps(dtype: str) -> tuple[Size, list[str]]:
    """The grid of blocks whose warps have some rows each; statements that define `row`, a warp's first, and `rows`.

    These are as many as it goes over at a time, or a pack's width at least: then no pack is of two warps.
    """
    width = _width(dtype)
    packs = 32 * _SHORT_PACKS
    rows: Size = ("mul", width, ("max", 1, ("div", packs, ("max", 1, "d1"))))
    body = [
        f"const i64 rows = {width} * (d1 > {packs} ? 1 : {packs} / int(d1));",
        f"const i64 row = (i64(blockIdx.x) * {_THREADS // 32} + threadIdx.x / 32) * rows;",
        "if (row >= d0) return;  // a whole warp",
    ]
    return ("cdiv", "d0", ("mul", _THREADS // 32, rows)), body


def generate_tiles(
    op: str, dtype: str, out_dtype: str, *, reverse: bool, inclusive: bool, variant: TileVariant = "tiles"
) -> KernelSource:
    """The scan of `generate` by blocks that take tiles of rows, one after the other, until there are none.

    Other arguments and errors are those of `generate`. Model: it reads and writes its elements once. A block waits for
    the totals of the tiles before its own in a group, and for the state at the end of the group before, and by then it
    has published the total of its next tile. Where, is memory that it keeps: what a launch publishes has its number, so
    nothing has to be cleared before. Of long rows some blocks do nothing but add up groups. What counts is how many
    bytes are in registers, and that few threads meet. On an H200 64 rows of a million float32 run at 0.94 of a copy's
    rate, one row of 64 million at 0.92, where CUB's scan, whose sums depend on timing, runs at 0.74.

    Args:
        variant: from `choose_variant`; larger tiles are faster for longer rows.

    >>> kernel = generate_tiles("cumsum", "float32", "float32", reverse=False, inclusive=True)
    >>> from backend_cuda.kernels import evaluate_size
    >>> evaluate_size(kernel.launch.grid[0], {"d0": 1, "d1": 1_500_000})  # tiles of 4096 elements, and a block more
    368
    """
    if variant not in TILE_VARIANTS:
        raise ValueError(f"unknown variant {variant!r}")
    element, first = _check(op, dtype, out_dtype)
    shape = _row_shape(op, dtype, element, variant)
    tile, group = shape.threads * shape.packs * _width(dtype), shape.threads
    # The packs of a row lie on boundaries of memory, so the first may begin before it.
    tiles: Size = ("cdiv", ("add", "d1", _width(dtype) - 1), tile)
    slots: Size = ("add", tiles, ("cdiv", tiles, group))
    # None, if a row has one group.
    warps = shape.threads // 32
    adders: Size = ("mul", ("min", _ADDERS, ("cdiv", "d0", warps)), ("min", 1, ("div", ("sub", tiles, 1), group)))
    types = f"Op, {storage(element)}, {shape.threads}, {shape.packs}, {_BAND}"
    body = [
        _using(op, element),
        f"const i64 tiles = ceil_div(d1 + {_width(dtype) - 1}, {tile});",
        f"const u32 adders = tiles > {group} ? u32(min_i64({_ADDERS}, ceil_div(d0, {warps}))) : 0;",
        f"scan_tiles_of_rows<{types}, {_text(reverse)}, {_text(inclusive)}>",
        f"    (p0, q0, d0, d1, tiles, kept, adders, {first});",
    ]
    # A shape of 1 leaves registers to the compiler, and four blocks at most find room.
    together = shape.together if shape.together > 1 else 4
    blocks = _places(("add", ("mul", "d0", tiles), adders), together, _ADDERS)
    label = _label(op, dtype, reverse, inclusive, variant)
    params = _tile_params(2, dtype, out_dtype, ("mul", ("mul", "d0", slots), _state_words(op, element)))
    return _define_tiles(label, "scan_row_tiles.cuh", params, body, blocks, shape)


def _places(blocks: Size, together: int, most_adders: int) -> Size:
    """These blocks, or as many as have places side by side; one at least that does not add up groups."""
    return ("min", blocks, max(together * target.multiprocessors, most_adders + 1))


def _define_tiles(
    label: str, header: str, params: Params, body: list[str], blocks: Size, shape: Shape, in_order: bool = False
) -> KernelSource:
    launch = Launch((shape.threads, 1, 1), (blocks, 1, 1), in_order=in_order)
    return define(label, header, params, body, launch, together=shape.together)


def _row_shape(op: str, dtype: str, element: str, variant: TileVariant) -> Shape:
    """Of tiles of rows. Several words of state take registers, and those of a logsumexp take time to add up."""
    words = _state_words(op, element)
    if op == "logcumsumexp":
        return Shape(128, 4, 6 if words == 2 else 1)
    if variant == "tiles":
        return Shape(256, 4, 4 if words == 1 else 1)
    if words == 2:
        return Shape(128, 10, 3)
    if ITEMSIZE[dtype] == 1:
        return Shape(128, 16, 4)
    return Shape(128, 10, 4) if variant == "large_tiles" else Shape(128, 14, 3)


def _column_shape(op: str, dtype: str, element: str, few: bool) -> Shape:
    """Of tiles of columns. Where a thread has two, of eight columns, there are registers for fewer rows."""
    together = 2 if _state_words(op, element) == 1 else 1
    packs_of_two = 9 if ITEMSIZE[dtype] == 2 else 10
    return Shape(256, packs_of_two if few else 16, together)


def columns_of(dtype: str) -> int:
    """Columns of a block: 128 bytes of a row, or 64 where an element is a byte."""
    return _ACROSS * _width(dtype)


def choose_columns(op: str, dtype: str, outer: int, n: int, inner: int) -> ColumnVariant | ColumnTileVariant | None:
    """A fast variant of `generate_columns`, or `generate_column_tiles`; None if columns had better be made rows.

    >>> [choose_columns("cumsum", "float32", 1, 8192, inner) for inner in (3, 64, 8192, 65536)]
    [None, 'tiles_of_few_columns', 'tiles', 'block']
    """
    columns = columns_of(dtype)
    strips = outer * -(-inner // columns)
    is_few = op != "logcumsumexp" and strips <= _FEW_STRIPS
    tiles: ColumnTileVariant = "tiles_of_few_columns" if is_few else "tiles"
    if inner < min(columns, 32):  # too few for a block of them
        narrow = tile_columns(dtype, inner)
        return tiles if inner >= _width(dtype) and n * narrow > _BLOCK_PACKS * _width(dtype) else None
    if n <= 1024 and outer * -(-inner // _width(dtype)) >= 512 * target.multiprocessors:
        return "thread"
    if n * columns <= _BLOCK_PACKS * _width(dtype) or strips >= 4 * target.multiprocessors:
        return "block"
    return tiles


def generate_columns(
    op: str, dtype: str, out_dtype: str, *, reverse: bool, inclusive: bool, variant: ColumnVariant
) -> KernelSource:
    """The scan of `generate` along the middle axis of contiguous (outer, n, inner), in any alignment.

    Parameters, in order: dims 0 to 2, those three; operand 0; the output; both contiguous. Arguments and errors are
    those of `generate`; the variant is from `choose_columns`.

    >>> generate_columns("cumsum", "float32", "float32", reverse=False, inclusive=True, variant="block").launch.grid
    (('mul', 'd0', ('cdiv', 'd2', 32)), 1, 1)
    """
    if variant not in ("thread", "block"):
        raise ValueError(f"unknown variant {variant!r}")
    element, first = _check(op, dtype, out_dtype)
    types = f"Op, {storage(element)}"
    flags = f"{_text(reverse)}, {_text(inclusive)}"
    if variant == "thread":
        width = _width(dtype)
        blocks: Size = ("cdiv", ("mul", "d0", ("cdiv", "d2", width)), _THREADS)
        body = [
            f"i64 outer = i64(blockIdx.x) * {_THREADS} + threadIdx.x;",
            f"const i64 column = take_coordinate(outer, ceil_div(d2, {width})) * {width};",
            "if (outer >= d0) return;",
            "const i64 start = outer * d1 * d2 + column;",
            f"scan_own_columns<{types}, {_ROWS}, {flags}>",
            f"    (p0 + start, q0 + start, d1, d2, int(min_i64({width}, d2 - column)), {first});",
        ]
    else:
        columns = columns_of(dtype)
        blocks = ("mul", "d0", ("cdiv", "d2", columns))
        body = [
            "i64 outer = blockIdx.x;",
            f"const i64 column = take_coordinate(outer, ceil_div(d2, {columns})) * {columns};",
            "const i64 start = outer * d1 * d2 + column;",
            f"scan_columns<{types}, {_THREADS}, {_ACROSS}, {_ROWS}, {flags}>",
            f"    (p0 + start, q0 + start, d1, d2, d2 - column, {first});",
        ]
    body.insert(0, _using(op, element))
    label = _label(op, dtype, reverse, inclusive, f"columns_{variant}")
    launch = Launch((_THREADS, 1, 1), (blocks, 1, 1))
    return define(label, "scan.cuh", _params(3, dtype, out_dtype), body, launch)


def tile_columns(dtype: str, inner: int) -> int:
    """Columns of a tile, where there are `inner`: those of a block, or fewer, in whole packs.

    >>> tile_columns("float32", 1000), tile_columns("float32", 6)
    (32, 8)
    """
    packs = -(-inner // _width(dtype))
    return _width(dtype) * min(_ACROSS, 1 << (packs - 1).bit_length())


def generate_column_tiles(
    op: str,
    dtype: str,
    out_dtype: str,
    *,
    reverse: bool,
    inclusive: bool,
    columns: int,
    few: bool = False,
) -> KernelSource:
    """The scan of `generate_columns` by tiles of some rows of some columns, as many as `tile_columns` says.

    Other arguments and errors are the same. Model: it reads and writes its elements once; a tile waits for the totals
    of those before it in a group of 32, or of 2 MB, and for the end of the group before. A block has one tile.

    Args:
        few: whether columns are few, so that most tiles wait for all before them: then blocks have two at a time, as
            those of `generate_tiles`.

    >>> flags = {"reverse": False, "inclusive": True}
    >>> generate_column_tiles("cumsum", "float32", "float32", **flags, columns=32).launch.grid
    (('mul', ('mul', 'd0', ('cdiv', 'd2', 32)), ('cdiv', 'd1', 512)), 1, 1)
    """
    element, first = _check(op, dtype, out_dtype)
    if columns != tile_columns(dtype, columns):
        raise ValueError(f"a tile of {dtype} cannot have {columns} columns")
    shape = _column_shape(op, dtype, element, few)
    rows = shape.threads * _width(dtype) // columns * shape.packs
    group = max(_COLUMN_GROUP, shape.threads // columns)
    strips: Size = ("mul", "d0", ("cdiv", "d2", columns))
    tiles: Size = ("cdiv", "d1", rows)
    slots: Size = ("add", tiles, ("cdiv", tiles, group))
    words = columns * _state_words(op, element)
    types = f"Op, {storage(element)}, {shape.threads}, {columns // _width(dtype)}, {shape.packs}, {group}"
    types += f", {_text(reverse)}, {_text(inclusive)}"
    arguments = "p0, q0, d0, d1, d2, kept"
    body = [_using(op, element)]
    blocks: Size = ("mul", strips, tiles)
    if few:
        # None, if columns have one group.
        adders: Size = ("mul", ("min", strips, _FEW_STRIPS), ("min", 1, ("div", ("sub", tiles, 1), group)))
        blocks = _places(("add", blocks, adders), 2, _FEW_STRIPS)
        body += [
            f"const i64 strips = min_i64({_FEW_STRIPS}, d0 * ceil_div(d2, {columns}));",
            f"const u32 adders = ceil_div(d1, {rows}) > {group} ? u32(strips) : 0;",
            f"scan_tiles_of_few_columns<{types}>({arguments}, adders, {first});",
        ]
    else:
        body.append(f"scan_tiles_of_columns<{types}>({arguments}, {first});")
    label = _label(op, dtype, reverse, inclusive, f"columns_tiles{'_of_few' * few}_{columns}")
    params = _tile_params(3, dtype, out_dtype, ("mul", ("mul", strips, slots), words))
    return _define_tiles(label, "scan_column_tiles.cuh", params, body, blocks, shape, in_order=not few)


def _using(op: str, element: str) -> str:
    return f"using Op = {_CLASSES[op]}<{compute(element)}>;"


def _text(flag: bool) -> str:
    return str(flag).lower()


def _label(op: str, dtype: str, reverse: bool, inclusive: bool, variant: str) -> str:
    return f"{op}_{dtype}{'_reverse' if reverse else ''}{'' if inclusive else '_exclusive'}_{variant}"


def _state_words(op: str, element: str) -> int:
    """Words of 4 bytes of a state, kSlotWords of scan_tiles.cuh: a logsumexp has two numbers."""
    return ITEMSIZE[element] // 4 * (2 if op == "logcumsumexp" else 1)


def _width(dtype: str) -> int:
    """Elements of a pack."""
    return min(8, 16 // ITEMSIZE[dtype])


def _check(op: str, dtype: str, out_dtype: str) -> tuple[str, str]:
    """The dtype in which elements are combined, and in C what is before the first. Errors are those of `generate`."""
    if op not in _CLASSES:
        raise ValueError(f"unknown scan {op!r}")
    if op == "logcumsumexp" and dtype not in INEXACT:
        raise TypeError(f"[logcumsumexp] no CUDA kernel for {dtype}; convert it to a floating dtype first.")
    sums_integers = op in ("cumsum", "cumprod") and dtype not in INEXACT
    if out_dtype != dtype and not (sums_integers and out_dtype in INTEGERS):
        raise ValueError(f"[{op}] of {dtype} cannot give {out_dtype}")
    # The least and greatest are those of the dtype, which may be narrower than the states.
    bound = {"cummax": "lowest", "cummin": "highest"}.get(op)
    first = f"{bound}<{compute(dtype)}>()" if bound else "Op::identity()"
    return _element(dtype, out_dtype, sums_integers), first


def _params(n_dims: int, dtype: str, out_dtype: str) -> Params:
    params = Params()
    params.dims(n_dims)
    params.add(("ptr", 0), f"const {storage(dtype)}* p0")
    params.add(("out", 0), f"{storage(out_dtype)}* __restrict__ q0")
    return params


def _tile_params(n_dims: int, dtype: str, out_dtype: str, words: Size) -> Params:
    """With memory for a counter and for `words` of 8 bytes, in which blocks tell one another their totals."""
    params = _params(n_dims, dtype, out_dtype)
    params.add(("kept", ("mul", 8, ("add", _COUNTER_WORDS, words))), "u64* kept")
    return params


def _element(dtype: str, out_dtype: str, sums_integers: bool) -> str:
    """The dtype in which elements are combined, of 4 bytes or more: states move between lanes as words."""
    if dtype in INEXACT:
        return "float32" if dtype in ("float16", "bfloat16") else dtype
    if sums_integers:
        return "uint64" if ITEMSIZE[out_dtype] == 8 else "uint32"
    if ITEMSIZE[dtype] == 8:
        return dtype
    return "int32" if dtype[0] == "i" else "uint32"


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Each op in each variant, in one dtype and direction of each (`full`: in all)."""
    flags = [(False, True), (True, True), (False, False), (True, False)]
    makers: list[Callable[..., KernelSource]] = [
        *(functools.partial(generate, variant=v) for v in ("short", "warp", "block", "long")),
        *(functools.partial(generate_columns, variant=v) for v in ("thread", "block")),
        *(functools.partial(generate_tiles, variant=v) for v in TILE_VARIANTS),
        *(
            lambda op, dtype, out, few=few, **flags: generate_column_tiles(
                op, dtype, out, **flags, columns=columns_of(dtype), few=few
            )
            for few in (False, True)
        ),
    ]
    for k, op in enumerate(OPS):
        dtypes = [d for d in DTYPES if op != "logcumsumexp" or d in INEXACT]
        for m, make in enumerate(makers):
            for i, dtype in enumerate(dtypes if full else [dtypes[(5 * k + 4 * m) % len(dtypes)]]):
                out = "int32" if op == "cumsum" and dtype == "bool" else dtype
                for reverse, inclusive in flags if full and i % 4 == 0 else [flags[(k + m + i) % 4]]:
                    yield make(op, dtype, out, reverse=reverse, inclusive=inclusive)
