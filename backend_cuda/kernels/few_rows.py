"""Products of 2 to 16 rows with a weight, which is read once, at memory speed: decoding several texts at a time.

y = x @ w.T for 16-bit floats, by tensor cores. Loop dims: 0 m (rows of x), 1 n (rows of w), 2 k (summed over).

Model: the bytes of w at memory bandwidth, whatever the number of rows: a tensor core takes 16. Blocks stay and copy
ahead as those of `row_product` do. Each group of w's rows reads x again, from the caches, which have little more to
give than memory: so groups have as many rows as leave work for every block. Measured in chains of 16, 8 rows of 8192 x
2048 and back run at 0.75 of a copy's rate, of 14336 x 4096 at 0.97, 16 rows of 2048 x 2048 at 0.40 (H200).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .codegen import Params, define
from .kernel import KernelSource, Launch
from .ops import storage
from .target import target

DTYPES = ("bfloat16", "float16")
MAX_ROWS = 16
# Bytes of a multiprocessor's blocks: with these no further one finds room, so that blocks are spread evenly, as those
# of `row_product` are. Of w for 9 rows of x or more: to read x again for each group of a larger one takes too long.
_SHARED, _LARGE = 208 << 10, 12 << 20


@dataclass(frozen=True)
class Variant:
    """A block of `warps` (4, 8 or 16) takes 8 * `tiles` (1, 2, 4 or 8) rows of w at a time, for 8 or 16 `rows` of x.

    Each thread has `stages` - 1 chunks of each of its rows in flight; there are `blocks` at most, `together` of them (1
    or 2) on a multiprocessor.
    """

    rows: int = 16
    tiles: int = 4
    warps: int = 8
    stages: int = 4
    blocks: int = 264
    together: int = 2

    @property
    def stage_bytes(self) -> int:
        """Of a block."""
        return 16 * 32 * self.warps * self.tiles

    @property
    def sums_bytes(self) -> int:
        """Of a block, for what its warps add up."""
        return 4 * self.warps * self.tiles * self.rows * 8

    @property
    def shared_bytes(self) -> int:
        """Of a block."""
        return self.stages * self.stage_bytes + self.sums_bytes


def choose_variant(m: int, n: int, k: int) -> Variant | None:
    """A fast variant for these sizes, right for any with as many rows or fewer; None where a library is faster.

    >>> choose_variant(4, 8192, 2048)
    Variant(rows=8, tiles=4, warps=8, stages=6, blocks=264, together=2)
    >>> choose_variant(4, 2048, 8192)
    Variant(rows=8, tiles=2, warps=16, stages=12, blocks=132, together=1)
    >>> choose_variant(16, 576, 576)
    Variant(rows=16, tiles=1, warps=8, stages=24, blocks=264, together=2)
    >>> choose_variant(16, 2048, 8192) is choose_variant(17, 8, 8) is None
    True
    """
    if m > MAX_ROWS or (m > 8 and 2 * n * k > _LARGE):
        return None
    # As many rows of w for each load of x as leave work for every multiprocessor. Where that is one group, one block
    # has all of the multiprocessor, and reads x once.
    rows = 8 if m <= 8 else 16
    for tiles in (8, 4, 2, 1):
        groups = -(-n // (8 * tiles))
        variant = Variant(rows, tiles, warps=4 if tiles == 8 else 8)
        if tiles in (2, 4) and 7 * target.multiprocessors <= 10 * groups <= 10 * target.multiprocessors:
            variant = Variant(rows, tiles, warps=16, together=1)
        elif tiles > 1 and groups <= target.multiprocessors:
            continue
        shared = min(_SHARED // variant.together, target.shared)
        stages = min(24, (shared - variant.sums_bytes) // variant.stage_bytes)
        if stages >= 3 or tiles == 1:
            break
    blocks = max(1, min(variant.together * target.multiprocessors, target.places(shared)))
    return replace(variant, stages=max(2, stages), blocks=blocks)


def generate(dtype: str, *, adds: bool = False, early: bool = True, variant: Variant | None = None) -> KernelSource:
    """y[m, n] = sum over k of x[m, k] * w[n, k] (+ c[m, n]), multiplied exactly and summed in float.

    Any sizes but 0, any alignment of pointers and rows; fast if rows begin on multiples of 16 bytes.

    Parameters, in order: the dims; operand 0, x, and operand 1, w, each with its stride along dim 0 or 1 (along k it is
    contiguous); operand 2, c, if `adds`, and the output, with strides along dim 0 (along dim 1 they are contiguous).

    Args:
        dtype: of x, w, c and y: bfloat16 or float16.
        adds: whether there is a c.
        early: whether w may be read before the kernels in front are done: nothing in the plan has written it.
        variant: from `choose_variant`.

    Raises:
        TypeError: the dtype has no kernel.
        ValueError: the variant makes no sense.

    >>> generate("bfloat16").launch.grid
    (('min', ('cdiv', 'd1', 32), 264), 1, 1)
    """
    if dtype not in DTYPES:
        raise TypeError(f"[matmul] no CUDA kernel of a few rows for {dtype}; convert the operands with astype first.")
    v = variant or Variant()
    if v.rows not in (8, 16) or v.tiles not in (1, 2, 4, 8) or v.warps not in (4, 8, 16) or v.stages < 2:
        raise ValueError(f"8 or 16 rows, 1, 2, 4 or 8 tiles, 4, 8 or 16 warps, and 2 stages or more: {v}")
    if v.together not in (1, 2) or v.shared_bytes > _SHARED // v.together:
        raise ValueError(f"too much shared memory, {v.shared_bytes} bytes: {v}")
    element = storage(dtype)
    # As much as no further block finds room with.
    shared = max(v.shared_bytes, min(_SHARED // v.together, target.shared))
    params = Params()
    for d in range(3):
        params.add(("dim", d), f"i64 d{d}")
    for i in (0, 1):
        params.add(("ptr", i), f"const {element}* p{i}")
        params.add(("stride", i, i), f"i64 t{i}_{i}")
    if adds:
        params.add(("ptr", 2), f"const {element}* p2")
        params.add(("stride", 2, 0), "i64 t2_0")
    params.add(("out", 0), f"{element}* __restrict__ q0")
    params.add(("out_stride", 0, 0), "i64 u0_0")
    before = [
        f"using Product = FewRows<{element}, {v.rows}, {v.tiles}, {v.warps}, {v.stages}>;",
        f"DYNAMIC_SHARED(ring, {shared});",
        "Product product(ring, p0, p1, d0, d1, d2, t0_0, t1_1, blockIdx.x, gridDim.x);",
        *["product.prefetch();"] * early,
    ]
    added = "to_compute(p2[row * t2_0 + column])"
    body = [
        *["product.prefetch();"] * (not early),
        "float* const memory = reinterpret_cast<float*>(ring + Product::kRing);",
        "for (i64 group = blockIdx.x; group < product.groups; group += gridDim.x) {",
        f"    float sum[{v.tiles}][4];",
        "    product.run(sum);",
        "    product.combine(sum, memory, [&](int row, int across, float value) {",
        f"        const i64 column = group * {8 * v.tiles} + across;",
        "        if (row >= d0 || column >= d1) return;",
        *[f"        value = value + {added};"] * adds,
        f"        q0[row * u0_0 + column] = from_compute<{element}>(value);",
        "    });",
        "    if (group + gridDim.x < product.groups) __syncthreads();",
        "}",
        "wait_copy_groups<0>();",
    ]
    grid = (("min", ("cdiv", "d1", 8 * v.tiles), v.blocks), 1, 1)
    launch = Launch((32 * v.warps, 1, 1), grid, shared)
    return define(f"few_rows_{dtype}" + "_add" * adds, "few_rows.cuh", params, body, launch, before, v.together)


def catalogue(full: bool) -> Iterator[KernelSource]:
    """For models of several sizes."""
    for dtype in DTYPES if full else DTYPES[:1]:
        for m, n, k in ((2, 576, 576), (16, 576, 576), (2, 2048, 8192), (8, 4096, 4096), (8, 28672, 4096)):
            yield generate(dtype, adds=n == k, variant=choose_variant(m, n, k))
