"""Runs generated kernels with g++ instead of a GPU: their logic, indexing and barriers, not their speed."""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backend_cuda.kernels import KernelSource, evaluate_size
from tests.compiler import available as available
from tests.compiler import compile_file, made_once

HERE = Path(__file__).parent
KERNELS = HERE.parent.parent / "backend_cuda" / "kernels"
GUARD = 64  # bytes before and after every output, to be found unchanged
# Without fortification, which takes a jump to another stack for an error.
_FLAGS = ["-std=c++20", "-O1", "-w", "-fPIC", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fno-strict-aliasing"]

_SCALAR_TYPES = {"f32": np.float32, "f64": np.float64, "s64": np.int64, "c64": np.complex64}
_libraries: dict[str, ctypes.CDLL] = {}


def build(kernels: Sequence[KernelSource]) -> None:
    """Compile kernels into one library, which is quicker than one each."""
    missing = [k for k in {k.name: k for k in kernels}.values() if k.name not in _libraries]
    if not missing:
        return
    text = '#include "cuda_emulation.h"\n'
    for k in missing:
        # A namespace each, since helpers of different kernels may have one name; headers stay outside.
        includes = "\n".join(line for line in k.source.splitlines() if line.startswith("#include"))
        body = "\n".join(line for line in k.source.splitlines() if not line.startswith("#include"))
        text += f"{includes}\nnamespace in_{k.name} {{\n{body}\nEMULATED({k.name})\n}}\n"

    def make(folder: Path) -> None:
        source = folder / "kernels.cpp"
        source.write_text(text)
        folders = [f"-I{directory}" for directory in (_precompiled(), HERE, KERNELS)]
        compile_file(source, folder / "kernels.so", [*_FLAGS, "-shared", *folders])

    loaded = ctypes.CDLL(str(made_once(text, _headers(), *_FLAGS, make=make) / "kernels.so"))
    for k in missing:
        _libraries[k.name] = loaded


@functools.cache
def _precompiled() -> Path:
    """A folder with the header that all kernels begin with, compiled: to read it takes as long as a kernel."""
    header = HERE / "cuda_emulation.h"

    def make(folder: Path) -> None:
        compile_file(header, folder / f"{header.name}.gch", [*_FLAGS, "-x", "c++-header"])

    return made_once(header.read_text(), *_FLAGS, make=make)


def _headers() -> str:
    return (HERE / "cuda_emulation.h").read_text() + "".join(p.read_text() for p in sorted(KERNELS.glob("*.cuh")))


def strides_of(a: np.ndarray) -> tuple[int, ...]:
    """Strides in elements."""
    return tuple(s // a.itemsize for s in a.strides)


def run(
    kernel: KernelSource,
    dims: Sequence[int],
    operands: Sequence[np.ndarray],
    outputs: Sequence[tuple[tuple[int, ...], Any]],
    *,
    scalars: Mapping[int, Any] | None = None,
    ints: Mapping[int, int] | None = None,
    misalign: int = 0,
    initial: Mapping[int, np.ndarray] | None = None,
    out_strides: Mapping[int, Sequence[int]] | None = None,
    kept: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Launch a kernel once.

    Args:
        kernel: what a generator returned.
        dims: sizes of the loop dims.
        operands: arrays; the strides of one with runtime strides are its own, along the loop dims.
        outputs: shape and dtype of each; written row-major.
        scalars: by index.
        ints: by index.
        misalign: elements by which outputs are off a 16-byte boundary.
        initial: what outputs hold before, by index: for those that are updated.
        out_strides: strides in elements of outputs along the loop dims, by index: of those whose dims are others.
        kept: bytes, as many as the memory that the kernel keeps has, or more: what a launch before left there, and
            then what this one does. Zeros, if there was none before.

    A read beyond the 16 bytes that hold an operand's last element, if it is contiguous, ends the process.

    Returns:
        The outputs. Raises AssertionError for a write outside an output, a counter that is left set or a stuck barrier.
    """
    operands = [_fenced(a) for a in operands]
    values = {f"d{d}": n for d, n in enumerate(dims)}
    guarded = [_Guarded(shape, dtype, misalign) for shape, dtype in outputs]
    results = [g.array for g in guarded]
    for j, before in (initial or {}).items():
        results[j][...] = before
    keep: list[Any] = []
    counters: list[np.ndarray] = []
    left: list[np.ndarray] = []

    def value_of(param: tuple[Any, ...]) -> Any:
        match param:
            case ("dim", d):
                return np.int64(dims[d])
            case ("ptr", i):
                return np.uint64(operands[i].ctypes.data)
            case ("stride", i, d):
                return np.int64(strides_of(operands[i])[d])
            case ("out", j):
                return np.uint64(results[j].ctypes.data)
            case ("out_stride", j, d):
                return np.int64((out_strides or {}).get(j, strides_of(results[j]))[d])
            case ("scalar", k, ctype):
                return _SCALAR_TYPES[ctype](scalars[k])
            case ("int", k):
                return np.int64(ints[k])
            case ("workspace", size):
                keep.append(np.full(evaluate_size(size, values) + 16, 0xFF, np.uint8))
                return np.uint64(keep[-1].ctypes.data + -keep[-1].ctypes.data % 16)
            case ("counters", n):
                counters.append(np.zeros(n, np.uint32))
                return np.uint64(counters[-1].ctypes.data)
            case ("kept", size):
                n = evaluate_size(size, values)
                guarded.append(_Guarded((n,), np.uint8, 0, np.zeros(n, np.uint8) if kept is None else kept[:n]))
                left.append(guarded[-1].array)
                return np.uint64(left[-1].ctypes.data)
        raise AssertionError(f"unknown parameter {param}")

    arguments = [np.asarray(value_of(p)) for p in kernel.params]
    if kernel.from_memory:
        in_memory = np.frombuffer(b"".join(a.tobytes().ljust(8, b"\xa5") for a in arguments), np.uint64)
        arguments = [np.asarray(np.uint64(in_memory.ctypes.data))]
    launch(kernel, [evaluate_size(g, values) for g in kernel.launch.grid], arguments)
    for g in guarded:
        g.check(kernel)
    for c in counters:
        assert not c.any(), f"{kernel.name} leaves a counter set"
    if kept is not None:
        (of_kernel,) = left
        kept[: len(of_kernel)] = of_kernel
    return [r.copy() for r in results]


@dataclass
class Row:
    """The arrays and scalars of one row of a table.

    Attributes:
        operands: arrays, contiguous.
        outputs: shape and dtype of each, or the number of the operand whose place it takes.
        scalars: by index.
    """

    operands: Sequence[np.ndarray]
    outputs: Sequence[tuple[tuple[int, ...], Any] | int]
    scalars: Mapping[int, Any] = field(default_factory=dict)


def run_table(kernel: KernelSource, rows: Sequence[Row], tile: int, misalign: int = 0) -> list[list[np.ndarray]]:
    """Launch a multi-tensor kernel once.

    Args:
        kernel: whose parameters are a table, and what its rows share.
        rows: at most as many as the table has; what is shared is taken from the first.
        tile: elements of a block.
        misalign: elements by which arrays are off a 16-byte boundary.

    Returns:
        The outputs of each row. Raises AssertionError for a write outside of them, or to an operand that none takes.
    """
    operands = [[_Guarded(a.shape, a.dtype, misalign, a) for a in row.operands] for row in rows]
    outputs = [
        [of[j] if isinstance(j, int) else _Guarded(*j, misalign) for j in row.outputs]
        for row, of in zip(rows, operands, strict=True)
    ]
    sizes = [out[0].array.size for out in outputs]
    first = np.cumsum([0, *(-(-n // tile) for n in sizes)])

    def value_of(param: tuple[Any, ...], r: int) -> Any:
        match param:
            case ("first",):
                return np.int64(first[min(r, len(rows))])
            case _ if r >= len(rows):
                return np.int64(0)
            case ("dim", 0):
                return np.int64(sizes[r])
            case ("ptr", i):
                return np.uint64(operands[r][i].array.ctypes.data)
            case ("out", j):
                return np.uint64(outputs[r][j].array.ctypes.data)
            case ("scalar", k, ctype):
                return _SCALAR_TYPES[ctype](rows[r].scalars[k])
        raise AssertionError(f"unknown parameter {param}")

    def argument(param: tuple[Any, ...]) -> np.ndarray:
        if param[0] != "table":
            return np.asarray(value_of(param, 0))
        _, n_rows, columns = param
        words = [value_of(column, r).tobytes().ljust(8, b"\xee") for column in columns for r in range(n_rows)]
        return np.frombuffer(b"".join(words), np.uint8)

    before = [[g.array.copy() for g in row] for row in operands]
    launch(kernel, (int(first[-1]), 1, 1), [argument(p) for p in kernel.params])
    for g in (g for row in (*operands, *outputs) for g in row):
        g.check(kernel)
    for row, found, saved in zip(rows, operands, before, strict=True):
        for i, (g, a) in enumerate(zip(found, saved, strict=True)):
            assert i in row.outputs or g.array.tobytes() == a.tobytes(), f"{kernel.name} writes to operand {i}"
    return [[g.array.copy() for g in row] for row in outputs]


class _Guarded:
    """An array between guard bytes."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, misalign: int, values: np.ndarray | None = None) -> None:
        dtype = np.dtype(dtype)
        n = int(np.prod(shape)) * dtype.itemsize
        raw = np.full(n + 2 * GUARD + 64, 0xA5, np.uint8)
        start = -raw.ctypes.data % 64 + GUARD - (0 if misalign == 0 else 16 - misalign * dtype.itemsize)
        self.array = raw[start : start + n].view(dtype).reshape(shape)
        self._around = raw[:start], raw[start + n :]
        if values is not None:
            self.array[...] = values

    def check(self, kernel: KernelSource) -> None:
        assert all((part == 0xA5).all() for part in self._around), f"{kernel.name} writes outside an output"


_libc = ctypes.CDLL(None)


def _fenced(a: np.ndarray) -> np.ndarray:
    """A copy of a contiguous array, as well aligned as it is, whose end is followed by memory that cannot be read."""
    if not a.flags.c_contiguous or a.nbytes == 0:
        return a
    past = a.ctypes.data % 16
    used = -(-(past + a.nbytes) // 16) * 16
    pages = -(-used // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, pages + mmap.PAGESIZE), np.uint8)
    fence = ctypes.c_void_p(memory.ctypes.data + pages)
    assert _libc.mprotect(fence, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    start = pages - used + past
    fenced = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    fenced[...] = a
    return fenced


def launch(kernel: KernelSource, grid: Sequence[int], arguments: Sequence[np.ndarray]) -> None:
    """Launch a kernel once; `arguments` hold the bytes of its parameters, pointers as addresses."""
    build([kernel])
    pointers = (ctypes.c_void_p * len(arguments))(*(a.ctypes.data for a in arguments))
    sizes = [*grid, kernel.launch.in_order], kernel.launch.block
    dims = [(ctypes.c_uint * len(n))(*n) for n in sizes]
    status = getattr(_libraries[kernel.name], f"run_{kernel.name}")(*dims, pointers)
    assert status == 0, f"{kernel.name}: threads wait for one another for ever"
