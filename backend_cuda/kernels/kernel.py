"""What a generator returns: a kernel's source, its parameters and how to launch it, for sizes not yet known."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

# A size is an integer, a name ("d0" is loop dim 0), or (op, a, b) with op one of a size program's: add, sub, mul, cdiv,
# div, mod, max, min.
Size = Union[int, str, tuple[str, "Size", "Size"]]

# Parameters, in the order of the C parameters:
#   ("dim", d)            long long: loop dim d
#   ("ptr", i)            operand i
#   ("stride", i, d)      long long: the stride of operand i along loop dim d, in elements
#   ("out", j)            output j
#   ("out_stride", j, d)  long long
#   ("scalar", k, type)   scalar k of the program; type f32, f64, s64 or c64 as in a plan's kernel arguments
#   ("int", k)            long long: integer k of the program (a start or step of an iota)
#   ("workspace", bytes)  scratch memory of that many bytes (a Size), contents unspecified, 16-byte aligned
#   ("table", rows, columns)  one parameter of rows x columns 8-byte words, column after column; a column is ("first",),
#                         long long: the row's first block, or any of the above, of a row's own arrays and sizes
#   ("counters", n)       n 32-bit words that are zero before the kernel and are left at zero, this kernel's own
Param = tuple[Any, ...]

_NAME = "KERNEL_NAME"


@dataclass(frozen=True)
class Launch:
    """Threads of a block, blocks of the grid, bytes of dynamic shared memory, and blocks of a cluster, along y."""

    block: tuple[int, int, int]
    grid: tuple[Size, Size, Size]
    shared: Size = 0
    cluster: int = 1


@dataclass(frozen=True)
class KernelSource:
    """CUDA C++ of one kernel. `name` is its entry point; equal sources have equal names and no others have."""

    name: str
    source: str
    params: tuple[Param, ...]
    launch: Launch


def kernel(label: str, source: str, params: list[Param] | tuple[Param, ...], launch: Launch) -> KernelSource:
    """A KernelSource; KERNEL_NAME in `source` becomes `label` and a hash of the source.

    >>> kernel("copy", 'extern "C" __global__ void KERNEL_NAME() {}', [], Launch((1, 1, 1), (1, 1, 1))).name[:5]
    'copy_'
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    name = f"{re.sub(r'[^0-9a-zA-Z_]+', '_', label)[:80]}_{digest}"
    return KernelSource(name, source.replace(_NAME, name), tuple(params), launch)


def evaluate_size(size: Size, values: Mapping[str, int]) -> int:
    """The integer a Size stands for, given the named ones.

    >>> evaluate_size(("cdiv", "d0", 1024), {"d0": 1025})
    2
    """
    if isinstance(size, int):
        return size
    if isinstance(size, str):
        return values[size]
    op, left, right = size
    a, b = evaluate_size(left, values), evaluate_size(right, values)
    match op:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "cdiv":
            return -(-a // b)
        case "div":
            return a // b
        case "mod":
            return a % b
        case "max":
            return max(a, b)
        case "min":
            return min(a, b)
    raise ValueError(f"unknown size operation {op!r}")


def product(sizes: list[Size]) -> Size:
    """The product of sizes; 1 of none."""
    total: Size = 1
    for size in sizes:
        total = size if total == 1 else ("mul", total, size)
    return total
