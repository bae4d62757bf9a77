"""Reductions: kept and reduced dims are each merged as far as strides allow; one kernel whatever the sizes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..kernels import reduce as kernels
from ..kernels.codegen import Instruction
from ..kernels.codegen import Operand as KernelOperand
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .elementwise import MAX_REDUCED_OPERANDS, ProgramWriter, access_of, broadcast_strides, collapse
from .plan import View
from .sym import Sym
from .units import Unit, merge


@dim_rule(*kernels.OPS)
def _reduced_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    source = a.dims[node.inputs[0]]
    axes, keepdims = node.static
    reduced = set(axes) if axes or node.name not in ("argmax", "argmin") else set(range(len(source)))
    one = a.table.lift(1)
    if keepdims:
        return tuple(one if d in reduced else n for d, n in enumerate(source))
    return tuple(n for d, n in enumerate(source) if d not in reduced)


@functools.lru_cache(maxsize=1024)
def _generated(
    op: str,
    program: tuple[Instruction, ...],
    kinds: str,
    operands: tuple[KernelOperand, ...],
    register: int,
    out_dtype: str,
    deep: bool,
) -> KernelSource:
    return kernels.generate(op, program, kinds, operands, register, out_dtype, deep=deep)


# ---- elementwise groups in front


@dataclass
class Reduced:
    """An elementwise group that only a reduction reads, and the reduction."""

    elementwise: list[int]
    value: int
    reduction: int

    def lower(self, b: Builder) -> None:
        writer = ProgramWriter(b, b.dims(self.value))
        for m in self.elementwise:
            writer.add(m)
        i = self.reduction
        covers = (*self.elementwise, i)
        emit_reduction(b, i, writer, writer.registers[self.value], b.result(i), covers)


def fuse(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Merge elementwise groups into the reductions that alone read them, so that their results are never in memory."""
    for i, node in enumerate(b.tape_nodes):
        if node.role != "op" or node.name not in kernels.OPS or b.analysis.is_empty(i):
            continue
        (value,) = node.inputs
        if value not in unit_of or not units[unit_of[value]].elementwise or b.analysis.is_empty(value):
            continue
        unit = units[unit_of[value]]
        if unit.recipe is not None or units[unit_of[i]].recipe is not None:
            continue
        inside = set(unit.members)
        read_outside = {m for m in unit.members if set(b.analysis.consumers[m]) - inside}
        if read_outside != {value} or set(b.analysis.consumers[value]) - inside != {i}:
            continue
        if any(b.tape_nodes[m].is_output or b.tape_nodes[m].name == "arange" for m in unit.members):
            continue
        arrays = {j for m in unit.members for j in b.tape_nodes[m].inputs if b.tape_nodes[j].role != "scalar"} - inside
        if not 1 <= len(arrays) <= MAX_REDUCED_OPERANDS:
            continue
        target, source = unit_of[i], unit_of[value]
        recipe = Reduced(sorted(unit.members), value, i)
        # A reduction waits for nothing but its value, so no other unit can come between.
        merge(units, unit_of, {source, target}, target).recipe = recipe


# ---- lowering


@lowers(*kernels.OPS)
def _reduce(b: Builder, i: int) -> None:
    (source,) = b.tape_nodes[i].inputs
    writer = ProgramWriter(b, b.dims(source))
    emit_reduction(b, i, writer, writer.operand(source), b.result(i), (i,))


def emit_reduction(b: Builder, i: int, writer: ProgramWriter, register: int, out: View, covers: Sequence[int]) -> None:
    """A kernel that runs a program and reduces what is in a register, as node i says, into contiguous `out`."""
    node = b.tape_nodes[i]
    covers = writer.covered(covers)
    op, axes = node.name, node.static[0]
    sizes = writer.dims
    if op in ("argmax", "argmin") and not axes:
        axes = tuple(range(len(sizes)))
    arrays = [broadcast_strides(b, view, sizes) for view in writer.operands]
    # The largest operand decides the order of the loops.
    largest = max(range(len(arrays)), key=lambda k: _spread(b, sizes, arrays[k]), default=None)
    steps = [b.table.value(s) for s in arrays[largest]] if largest is not None else [0] * len(sizes)
    kept = [d for d in range(len(sizes)) if d not in axes]
    reduced = [d for d in axes if sizes[d].const != 1]
    if op not in ("argmax", "argmin"):  # those count in the order of the dims
        reduced.sort(key=lambda d: -steps[d])

    def merged(chosen: Sequence[int]) -> tuple[list[Sym], list[list[Sym]]]:
        return collapse(b, [sizes[d] for d in chosen], [[strides[d] for d in chosen] for strides in arrays])

    reduced_dims, reduced_strides = merged(reduced)
    kept_dims, kept_strides = merged(kept)
    if len(kept_dims) == 1 and kept_dims[0].const == 1:
        kept_dims, kept_strides = [], [[] for _ in arrays]
    inner_kept = False
    if kept_dims and largest is not None:
        inner_kept = kept_strides[largest][-1] == 1 and reduced_strides[largest][-1] != 1
    if inner_kept:
        dims = reduced_dims + kept_dims
        strides = [r + k for r, k in zip(reduced_strides, kept_strides, strict=True)]
        kinds = "r" * len(reduced_dims) + "k" * len(kept_dims)
    else:
        dims = kept_dims + reduced_dims
        strides = [k + r for k, r in zip(kept_strides, reduced_strides, strict=True)]
        kinds = "k" * len(kept_dims) + "r" * len(reduced_dims)
    accesses = [access_of(b, s, dims) for s in strides]
    if any(d.const == 0 for d in dims):
        accesses = [tuple(None for _ in dims) for _ in accesses]
    operands = tuple(KernelOperand(v.dtype, a) for v, a in zip(writer.operands, accesses, strict=True))
    deep = False
    if inner_kept and kernels.has_deep(op, [v.dtype for v in writer.operands]):
        lengths = math.prod(reduced_dims, start=b.table.lift(1)), math.prod(kept_dims[:-1], start=b.table.lift(1))
        deep = b.table.choose(kernels.is_deep, of=(*lengths, kept_dims[-1]))
    kernel = _generated(op, tuple(writer.program), kinds, operands, register, out.dtype, deep)
    b.kernel(
        kernel,
        dims,
        [Operand(v, s) for v, s in zip(writer.operands, strides, strict=True)],
        [Operand(out, out.strides)],
        scalars=writer.scalars,
        ints=writer.ints,
        covers=covers,
    )


def _spread(b: Builder, dims: Sequence[Sym], strides: Sequence[Sym]) -> int:
    """How many elements an operand has."""
    count = 1
    for d, s in zip(dims, strides, strict=True):
        count *= b.table.value(d) if s != 0 else 1
    return count
