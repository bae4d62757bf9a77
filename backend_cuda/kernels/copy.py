"""Copies between arrays whose unit strides lie along different dims: transposes, by way of shared memory.

Any other copy is an elementwise program of one load.
"""

from __future__ import annotations

from collections.abc import Iterator

from .codegen import Params, decompose, define
from .kernel import KernelSource, Launch, Size, product

THREADS = 256
_WARPS = THREADS // 32
_STORAGE = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
# Elements that a thread moves at once, along either array's unit stride: words of 4 or 8 bytes.
_WIDTH = {1: 4, 2: 2, 4: 2, 8: 1}

# A tile is WIDTH * 32 elements square. A thread loads blocks of WIDTH x WIDTH elements, turns them in registers and
# keeps them as words of a row of the output: row k + WIDTH * l of the tile is words[k][l], so that the lanes of a warp,
# which hold neighbouring l, are 33 words apart and on different banks.
_BODY = """\
constexpr int kTile = 32 * {width}, kBlocks = {blocks};
using Part = Pack<{storage}, {width}>;
using Bits = typename Word<sizeof(Part)>::type;
__shared__ Bits words[{width}][32][33];
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
i64 rest = blockIdx.x;
const i64 column = take_coordinate(rest, ceil_div(d{last}, kTile)) * kTile;
const i64 row = take_coordinate(rest, ceil_div(d{rows}, kTile)) * kTile;
{batch}
const {storage}* from = p0{offset_in} + row + lane * {width};
const i64 n_rows = d{rows} - row - lane * {width}, n_columns = d{last} - column;
{storage}* to = q0{offset_out} + column + lane * {width};
const i64 left = n_columns - lane * {width};
// One question for all of a block's accesses: asked at each of them, it keeps the next from being under way.
const bool whole = row + kTile <= d{rows} && column + kTile <= d{last} && are_aligned<{width}>(from, t{last}) &&
                   are_aligned<{width}>(to, u{rows});
Part parts[kBlocks][{width}];
if (whole) {{
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {{
#pragma unroll
        for (int k = 0; k < {width}; ++k) {{
            const int c = (warp + i * {warps}) * {width} + k;
            parts[i][k] = load_aligned<{width}>(from + (column + c) * t{last});
        }}
    }}
}} else {{
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {{
#pragma unroll
        for (int k = 0; k < {width}; ++k) {{
            const int c = (warp + i * {warps}) * {width} + k;
            parts[i][k] = load_pack<{width}>(from + (column + c) * t{last}, c < n_columns ? n_rows : 0);
        }}
    }}
}}
#pragma unroll
for (int i = 0; i < kBlocks; ++i) {{
#pragma unroll
    for (int k = 0; k < {width}; ++k) {{
        Part turned;
#pragma unroll
        for (int j = 0; j < {width}; ++j) turned.v[j] = parts[i][j].v[k];
        words[k][lane][warp + i * {warps}] = bits_as<Bits>(turned);
    }}
}}
__syncthreads();
#pragma unroll
for (int i = 0; i < kBlocks; ++i) {{
#pragma unroll
    for (int k = 0; k < {width}; ++k) {{
        const int l = warp + i * {warps};
        const i64 r = row + l * {width} + k;
        const Part part = bits_as<Part>(words[k][l][lane]);
        if (whole) {{
            store_aligned<{width}>(to + r * u{rows}, part);
        }} else if (r < d{rows}) {{
            store_pack<{width}>(to + r * u{rows}, part, left);
        }}
    }}
}}
"""


def generate_transpose(itemsize: int, n_batch_dims: int) -> KernelSource:
    """out[b..., r, c] = a[b..., r, c], where a's elements are adjacent along r and the output's along c.

    Loop dims: any batch dims, outermost first, then r and c. Any permutation of an array is such a copy: the caller
    orders loop dims so that the dim along which a is contiguous comes before the output's last dim. Neither array need
    be aligned. Strides may be any, also 0 or negative along a's dims; the arrays must not overlap.

    Parameters, in order: the dims; operand 0, a, with its strides along the batch dims and c; the output with its
    strides along the batch dims and r.

    Args:
        itemsize: bytes of an element: 1, 2, 4 or 8.
        n_batch_dims: how many dims come before r and c.

    Raises:
        ValueError: another itemsize, or a negative number of dims.

    >>> generate_transpose(4, 0).launch.grid[0]
    ('mul', ('cdiv', 'd0', 64), ('cdiv', 'd1', 64))
    """
    if itemsize not in _STORAGE:
        raise ValueError(f"an element has {', '.join(map(str, _STORAGE))} bytes, not {itemsize}")
    if n_batch_dims < 0:
        raise ValueError(f"a transpose cannot have {n_batch_dims} batch dims")
    storage, width = _STORAGE[itemsize], _WIDTH[itemsize]
    rows, last = n_batch_dims, n_batch_dims + 1
    params = Params()
    params.dims(last + 1)
    params.add(("ptr", 0), f"const {storage}* p0")
    for d in (*range(n_batch_dims), last):
        params.add(("stride", 0, d), f"i64 t{d}")
    params.add(("out", 0), f"{storage}* __restrict__ q0")
    for d in range(rows + 1):
        params.add(("out_stride", 0, d), f"i64 u{d}")
    batch = [*decompose("rest", range(n_batch_dims)), f"if ({'c0 >= d0' if n_batch_dims else 'rest > 0'}) return;"]
    body = _BODY.format(
        storage=storage,
        width=width,
        blocks=32 // _WARPS,
        warps=_WARPS,
        rows=rows,
        last=last,
        batch="\n".join(batch),
        offset_in="".join(f" + c{d} * t{d}" for d in range(n_batch_dims)),
        offset_out="".join(f" + c{d} * u{d}" for d in range(n_batch_dims)),
    )
    tile = 32 * width
    tiles: Size = ("mul", ("cdiv", f"d{rows}", tile), ("cdiv", f"d{last}", tile))
    grid: Size = ("mul", product([f"d{d}" for d in range(n_batch_dims)]), tiles) if n_batch_dims else tiles
    launch = Launch((THREADS, 1, 1), (grid, 1, 1))
    return define(f"transpose_{8 * itemsize}", "prelude.cuh", params, body.splitlines(), launch)


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Every size of element; with up to three batch dims."""
    for k, itemsize in enumerate(_STORAGE):
        for n_batch_dims in range(4) if full else (k,):
            yield generate_transpose(itemsize, n_batch_dims)
