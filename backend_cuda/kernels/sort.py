"""Stable sorts of rows, NaN last: in shared memory if a row fits, else by radix, one block a row."""

from __future__ import annotations

from collections.abc import Iterator

from .kernel import KernelSource, Launch, Size, kernel
from .ops import DTYPES, ITEMSIZE, storage

THREADS = 256
CAPACITY = 2048  # elements that are sorted in shared memory
_ITEMS = 8


def generate_sort(dtype: str, indices: bool) -> KernelSource:
    """Each row of (rows, n) in ascending order, or the uint32 indices that put it in order.

    Any rows and n but 0. Parameters, in order: dim 0, the rows; dim 1, n; operand 0, contiguous; the output,
    contiguous; a workspace for rows of more than `CAPACITY` elements. Model: such a row is read and written once for
    each byte of an element, by one multiprocessor: rows side by side are fast, a single long one is not.

    Args:
        dtype: of the operand, not complex.
        indices: whether the output is the indices.

    Raises:
        TypeError: complex64, which has no order.

    >>> generate_sort("float32", False).launch.grid
    ('d0', 1, 1)
    """
    name = "argsort" if indices else "sort"
    if dtype == "complex64" or dtype not in DTYPES:
        raise TypeError(f"[{name}] no CUDA kernel for {dtype}: sort a real number of it, such as abs(a).")
    stored = storage(dtype)
    out = "u32" if indices else stored
    flag = str(indices).lower()
    source = "\n".join(
        [
            '#include "sort.cuh"',
            f'extern "C" __global__ void __launch_bounds__({THREADS}) KERNEL_NAME(i64 d0, i64 d1, '
            f"const {stored}* __restrict__ p0, {out}* __restrict__ q0, u8* workspace) {{",
            "    const i64 row = blockIdx.x;",
            "    if (row >= d0) return;",
            f"    const {stored}* from = p0 + row * d1;",
            f"    if (d1 <= {CAPACITY}) {{",
            f"        sort_in_block<{flag}, {THREADS}, {CAPACITY}>(from, q0 + row * d1, int(d1));",
            "        return;",
            "    }",
            f"    using Key = SortKey<{stored}>;",
            "    Key* keys = reinterpret_cast<Key*>(workspace);",
            "    u32* indices = reinterpret_cast<u32*>(keys + d0 * 2 * d1);",
            f"    radix_sort_row<{flag}, {_ITEMS}>(from, q0 + row * d1, keys + row * 2 * d1,",
            "        indices + row * 2 * d1, d1);",
            "}",
            "",
        ]
    )
    is_long: Size = ("min", 1, ("div", "d1", CAPACITY + 1))
    bytes_: Size = ("mul", ("mul", "d0", "d1"), 2 * (ITEMSIZE[dtype] + 4))
    params = [("dim", 0), ("dim", 1), ("ptr", 0), ("out", 0), ("workspace", ("max", 16, ("mul", is_long, bytes_)))]
    return kernel(f"{name}_{dtype}", source, params, Launch((THREADS, 1, 1), ("d0", 1, 1)))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Every size of element, and floats, whose order is not that of their bits."""
    for k, dtype in enumerate(d for d in DTYPES if d != "complex64"):
        for indices in (False, True) if full else (bool(k % 2),):
            yield generate_sort(dtype, indices)
