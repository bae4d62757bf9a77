"""Reductions of rows, and the elementwise groups around them, as one kernel: norms and softmaxes that are written out.

Rows are of the last dim. A group of nodes is one kernel if all of them are over the same rows, element by element or
one value a row, and a row fits into the registers of a block at the sizes of the call that is lowered.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..kernels import row_program as kernels
from ..kernels.codegen import Instruction
from ..kernels.codegen import Operand as KernelOperand
from ..kernels.codegen import Output as KernelOutput
from ..kernels.kernel import KernelSource
from ..kernels.ops import FLOATS
from ..kernels.row_registers import pack_width, registers_held
from .analysis import ELEMENTWISE
from .builder import Builder, Operand
from .elementwise import ProgramWriter, broadcast_strides, collapse
from .plan import Dims
from .reduce import Reduced
from .sym import Sym
from .units import Unit, can_merge, merge

MAX_OPS = 512
MAX_ARRAYS = 16


@dataclass
class RowProgram:
    """Nodes over the same rows, in the order of the tape."""

    members: list[int]
    dims: Dims

    def lower(self, b: Builder) -> None:
        writer = RowWriter(b, self.dims, set(self.members))
        for m in self.members:
            writer.add(m)
        writer.emit_rows(self.members)


def fuse(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Merge each reduction of rows with the groups that read its result, and with the group that makes its operand.

    A reduction that no group of its rows reads stays as it is: its own kernels are faster.
    """
    for i in range(len(b.tape_nodes)):
        if i not in unit_of or not _is_reduction(b, i):
            continue
        (source,) = b.tape_nodes[i].inputs
        dims = b.dims(source)
        for j in b.readers(i):
            if b.tape_nodes[j].name in ELEMENTWISE:
                _join(b, units, unit_of, i, j, dims)
        if isinstance(units[unit_of[i]].recipe, RowProgram):
            _join(b, units, unit_of, i, b.analysis.root(source), dims)


def _join(b: Builder, units: list[Unit], unit_of: dict[int, int], i: int, j: int, dims: Dims) -> None:
    """Merge the units of two nodes, if they can be one row program."""
    if j not in unit_of or unit_of[j] == unit_of[i]:
        return
    group = {unit_of[i], unit_of[j]}
    if any(not isinstance(units[u].recipe, RowProgram | Reduced | None) for u in group):
        return
    members = sorted(m for u in group for m in units[u].members)
    if _fits(b, members, dims) and can_merge(units, group):
        merge(units, unit_of, group, unit_of[j]).recipe = RowProgram(members, dims)


def _is_reduction(b: Builder, i: int) -> bool:
    """A reduction of rows of floating elements, of a length that registers hold."""
    node = b.tape_nodes[i]
    if node.name not in kernels.OPS or b.analysis.is_empty(node.inputs[0]):
        return False
    dims = b.dims(node.inputs[0])
    return (
        node.static[0] == (len(dims) - 1,)
        and b.dtype(i) == b.dtype(node.inputs[0])
        and b.dtype(i) in FLOATS
        and b.table.choose(kernels.fits, of=dims[-1:])
    )


def _is_over(b: Builder, m: int, dims: Dims) -> bool:
    """Whether a node has an element for each of the dims, or one for each row of them."""
    own = b.dims(m)
    return own == dims or (own[:-1] == dims[:-1] and len(own) == len(dims) and own[-1].const == 1)


def _fits(b: Builder, members: Sequence[int], dims: Dims) -> bool:
    if len(members) > MAX_OPS or any(d.const == 0 for d in dims):
        return False
    inside = set(members)
    for m in members:
        node = b.tape_nodes[m]
        if _is_reduction(b, m):
            if b.dims(node.inputs[0]) != dims:
                return False
        elif node.name not in ELEMENTWISE or node.name == "arange" or not _is_over(b, m, dims):
            return False
        if not all(_is_readable(b, j, inside, dims) for j in node.inputs):
            return False
    writer = RowWriter(b, dims, inside, dry=True)
    for m in members:
        writer.add(m)
    written = writer.written(members)
    if len(writer.loads) + len(written) > MAX_ARRAYS:
        return False
    return writer.fits(written)


def _is_readable(b: Builder, j: int, inside: set[int], dims: Dims) -> bool:
    """Whether an input is in memory, or what the group computes, in its place."""
    root = b.analysis.root(j)
    if root not in inside:
        return True
    if j == root:
        return True
    # A view of one value a row, with the dim of the row put back or broadcast.
    steps = j
    while steps != root:
        if b.tape_nodes[steps].name not in ("reshape", "broadcast_to"):
            return False
        steps = b.tape_nodes[steps].inputs[0]
    own = b.dims(j)
    if b.tape_nodes[root].name not in kernels.OPS or len(own) != len(dims):
        return False
    return own[:-1] == dims[:-1] and (own[-1].const == 1 or own[-1] == dims[-1])


class RowWriter(ProgramWriter):
    """Turns nodes over rows into a program with reductions. `dry`: only to see what it would be."""

    def __init__(self, b: Builder, dims: Dims, inside: set[int], dry: bool = False) -> None:
        super().__init__(b, dims)
        self.reductions: list[kernels.Reduction] = []
        self._inside, self._dry = inside, dry
        self.loads: dict[int, bool] = {}  # arrays from memory; whether they have one element a row

    def operand(self, j: int) -> int:
        if j not in self.registers:
            root = self.b.analysis.root(j)
            if root in self._inside and root != j:
                self.registers[j] = self.operand(root)
            elif self._dry and self.b.tape_nodes[j].role != "scalar" and j not in self.b.repeated:
                own = self.b.dims(j)
                self.loads[j] = not own or own[-1].const == 1
                self.registers[j] = self.instruction(("load", len(self.loads) - 1))
        return super().operand(j)

    def add(self, m: int) -> None:
        node = self.b.tape_nodes[m]
        if node.name not in kernels.OPS:
            super().add(m)
            return
        self.reductions.append(kernels.Reduction(node.name, self.operand(node.inputs[0])))
        self.registers[m] = self.instruction(("value", len(self.reductions) - 1, node.dtype.name))

    def written(self, members: Sequence[int]) -> list[int]:
        """The members that others read."""
        b = self.b
        return [
            m
            for m in members
            if b.tape_nodes[m].is_output
            or (m not in b.repeated and set(b.readers(m)) - self._inside)
            or _has_kept_view(b, m)
        ]

    def fits(self, written: Sequence[int]) -> bool:
        """Whether a thread's part of a row fits into registers."""
        loads = [(j, by_row) for j, by_row in self.loads.items()]
        operands = [KernelOperand(self.b.dtype(j), (0 if by_row else 1,)) for j, by_row in loads]
        program, registers = tuple(self.program), [self.registers[m] for m in written]
        along = [int(self.b.dims(m) == self.dims) for m in written]
        outputs = [KernelOutput(r, self.b.dtype(m), (k,)) for r, m, k in zip(registers, written, along, strict=True)]
        held = registers_held(program, operands, registers)
        width = pack_width(operands, outputs)
        return bool(self.b.table.choose(kernels.holds, held, width, of=self.dims[-1:]))

    def emit_rows(self, members: Sequence[int]) -> None:
        """The kernel."""
        b = self.b
        written = self.written(members)
        outputs = [(b.result(m), self.registers[m]) for m in written]
        strides = [broadcast_strides(b, v, self.dims) for v in self.operands]
        for m, (view, _) in zip(written, outputs, strict=True):
            own = list(view.strides)
            strides.append([*own, b.lift(0)] if len(own) < len(self.dims) else broadcast_strides(b, view, self.dims))
            if b.dims(m) != self.dims:
                strides[-1][-1] = b.lift(0)
        n = len(self.operands)
        if len(self.dims) > 1:
            rows, outer = collapse(b, self.dims[:-1], [s[:-1] for s in strides])
        else:
            rows, outer = [], [[] for _ in strides]
        dims = [*rows, self.dims[-1]]
        strides = [[*o, s[-1]] for o, s in zip(outer, strides, strict=True)]
        operands = tuple(KernelOperand(v.dtype, _access(s)) for v, s in zip(self.operands, strides[:n], strict=True))
        results = tuple(
            KernelOutput(register, view.dtype, _access(s))
            for (view, register), s in zip(outputs, strides[n:], strict=True)
        )
        held = registers_held(self.program, operands, [o.register for o in results])
        width = pack_width(operands, results)
        of = (math.prod(rows, start=b.lift(1)), dims[-1])
        variant = b.table.choose(kernels.choose_variant, held, width, of=of)
        source = _generated(tuple(self.program), tuple(self.reductions), operands, results, len(dims), variant)
        b.kernel(
            source,
            dims,
            [Operand(v, s) for v, s in zip(self.operands, strides[:n], strict=True)],
            [Operand(v, s) for (v, _), s in zip(outputs, strides[n:], strict=True)],
            scalars=self.scalars,
            ints=self.ints,
            covers=self.covered(members),
        )


def _has_kept_view(b: Builder, m: int) -> bool:
    return any(b.tape_nodes[v].is_output for v in b.analysis.views_of(m))


def _access(strides: Sequence[Sym]) -> tuple[int | None, ...]:
    return tuple(s.const if s.const in (0, 1) else None for s in strides)


@functools.lru_cache(maxsize=512)
def _generated(
    program: tuple[Instruction, ...],
    reductions: tuple[kernels.Reduction, ...],
    operands: tuple[KernelOperand, ...],
    outputs: tuple[KernelOutput, ...],
    n_dims: int,
    variant: kernels.Variant,
) -> KernelSource:
    return kernels.generate(program, reductions, operands, outputs, n_dims, variant)
