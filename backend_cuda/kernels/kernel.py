"""What a generator returns: a kernel's source, its parameters and how to launch it, for sizes not yet known."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
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
#   ("kept", bytes)       memory of that many bytes (a Size), this kernel's own, 256-byte aligned: as the launch before
#                         left it, or all zeros at first and when it has to be larger than ever before
#   ("words", n)          a struct of n 8-byte words: of the kernel that writes arguments (from_memory.py) only
Param = tuple[Any, ...]


def words_of(param: Param) -> int:
    """How many 8-byte words the argument for a parameter takes."""
    return int(param[1]) if param[0] == "words" else 1


_NAME = "KERNEL_NAME"
_SIGNATURE = "KERNEL_PARAMETERS"


@dataclass(frozen=True)
class Launch:
    """Threads of a block, blocks of the grid, bytes of dynamic shared memory, and blocks of a cluster, along y; whether
    blocks wait for those of lower numbers, which have to begin before them."""

    block: tuple[int, int, int]
    grid: tuple[Size, Size, Size]
    shared: Size = 0
    cluster: int = 1
    in_order: bool = False


@dataclass(frozen=True)
class KernelSource:
    """CUDA C++ of one kernel.

    Attributes:
        name: its entry point; equal sources have equal names and no others have.
        source: the text, whose definition begins with `name(declarations) {`.
        params: what its parameters stand for.
        launch: how it is launched.
        declarations: the C declarations of its parameters, one for each of `params`.
        from_memory: whether its one C parameter is the address of the arguments for `params` (`from_memory.py`).
    """

    name: str
    source: str
    params: tuple[Param, ...]
    launch: Launch
    declarations: tuple[str, ...]
    from_memory: bool = False


def kernel(
    label: str, source: str, params: Sequence[Param], launch: Launch, declarations: Sequence[str]
) -> KernelSource:
    """A KernelSource.

    Args:
        label: the beginning of its name.
        source: the text. KERNEL_NAME becomes `label` and a hash of the text, KERNEL_PARAMETERS the declarations.
        params, launch, declarations: see `KernelSource`.

    >>> text = 'extern "C" __global__ void KERNEL_NAME(KERNEL_PARAMETERS) {}'
    >>> kernel("copy", text, [("dim", 0)], Launch((1, 1, 1), (1, 1, 1)), ["i64 d0"]).source[27:32]
    'copy_'
    """
    if len(params) != len(declarations):
        raise ValueError(f"{label}: {len(params)} parameters with {len(declarations)} declarations")
    source = source.replace(_SIGNATURE, ", ".join(declarations))
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    name = f"{re.sub(r'[^0-9a-zA-Z_]+', '_', label)[:80]}_{digest}"
    return KernelSource(name, source.replace(_NAME, name), tuple(params), launch, tuple(declarations))


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
