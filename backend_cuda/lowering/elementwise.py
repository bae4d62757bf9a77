"""Fused elementwise groups, and copies: one kernel that loads every operand once and writes every result once."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..kernels import copy
from ..kernels import elementwise as kernels
from ..kernels.codegen import Access, Instruction
from ..kernels.codegen import Operand as KernelOperand
from ..kernels.codegen import Output as KernelOutput
from ..kernels.kernel import KernelSource
from ..kernels.ops import ITEMSIZE
from ..kernels.reduce import OPS as REDUCTIONS
from . import in_place
from .analysis import DONATING, MAX_GROUP_OPERANDS, MAX_GROUP_OPS
from .builder import Builder, Operand
from .plan import Dims, View, row_major
from .sym import Sym
from .units import Unit, can_merge, comes_after, dissolve, merge, wait

# Of a dim that is adjacent in memory: shorter ones leave a tile of shared memory mostly empty.
SHORTEST_TRANSPOSED = 16
MAX_REPEATED_OPS = 8  # of a group that is computed again for each element it is broadcast to, or by each reader
MAX_AGAIN_OPS = 16  # of a group that another computes again: more may take longer than reading their result
MAX_REDUCED_OPERANDS = 4  # of a group in front of a reduction: each is loaded several packs at a time
CHEAP = frozenset({"astype", "negative", "add", "subtract", "multiply"})


@functools.lru_cache(maxsize=4096)
def _generated(
    program: tuple[Instruction, ...],
    n_dims: int,
    operands: tuple[KernelOperand, ...],
    outputs: tuple[KernelOutput, ...],
) -> KernelSource:
    return kernels.generate(program, n_dims, operands, outputs)


def broadcast_strides(b: Builder, view: View, dims: Dims) -> list[Sym]:
    """The strides of a view over dims that it broadcasts to."""
    zero = b.lift(0)
    strides = [zero] * (len(dims) - len(view.dims))
    return strides + [zero if d.const == 1 else s for d, s in zip(view.dims, view.strides, strict=True)]


def collapse(b: Builder, dims: Sequence[Sym], arrays: Sequence[Sequence[Sym]]) -> tuple[list[Sym], list[list[Sym]]]:
    """Loop dims and strides without dims of 1, neighbours merged where every array steps through both as one."""
    kept = [d for d, n in enumerate(dims) if n.const != 1]
    out_dims: list[Sym] = []
    out: list[list[Sym]] = [[] for _ in arrays]
    for d in kept:
        if out_dims and all(s[-1] == strides[d] * dims[d] for s, strides in zip(out, arrays, strict=True)):
            out_dims[-1] = out_dims[-1] * dims[d]
            for s, strides in zip(out, arrays, strict=True):
                s[-1] = strides[d]
        else:
            out_dims.append(dims[d])
            for s, strides in zip(out, arrays, strict=True):
                s.append(strides[d])
    if not out_dims:
        return [b.lift(1)], [[b.lift(0)] for _ in arrays]
    return out_dims, out


def access_of(b: Builder, strides: Sequence[Sym], dims: Sequence[Sym]) -> Access:
    """How a kernel is told of these strides."""
    if all(s == 0 for s in strides):
        return "scalar"
    if tuple(strides) == row_major(b.table, dims):
        return "contiguous"
    return tuple(s.const if s.const in (0, 1) else None for s in strides)


def fuse(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Merge small elementwise groups into the one group that reads them, whatever the dims: they are computed again for
    each element that they are broadcast to, which costs less than a kernel and a round trip through memory."""
    nodes = b.tape_nodes
    for source, unit in enumerate(units):
        if not unit.elementwise or not 1 <= len(unit.members) <= MAX_REPEATED_OPS:
            continue
        inside = set(unit.members)
        readers = {c for m in unit.members for c in b.analysis.consumers[m]} - inside
        targets = {unit_of.get(c) for c in readers}
        if len(targets) != 1 or None in targets or any(nodes[m].is_output for m in unit.members):
            continue
        (target,) = targets
        assert target is not None
        into = units[target]
        # Positions are counted in the dims of a group.
        if not into.elementwise or any(nodes[m].name == "arange" for m in unit.members):
            continue
        members = sorted(inside | set(into.members))
        arrays = {j for m in members for j in nodes[m].inputs if nodes[j].role != "scalar"} - set(members)
        if len(members) > MAX_GROUP_OPS or len(arrays) > MAX_GROUP_OPERANDS:
            continue
        # Who waits for the group's reads, to overwrite what it reads, would wait for the other group as well.
        if unit.followers == {target} or can_merge(units, {source, target}):
            merge(units, unit_of, {source, target}, target)


def compute_where_read(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Dissolve small groups of cheap ops whose operands are no larger than their result: every reader computes it for
    itself, and nobody writes it. So logits of 16 bits that a loss wants in float32 are never in memory as that."""
    nodes = b.tape_nodes
    for u, unit in enumerate(units):
        if not unit.elementwise or not 1 <= len(unit.members) <= MAX_REPEATED_OPS or unit.recipe is not None:
            continue
        inside, i = set(unit.members), unit.members[-1]
        if not all(nodes[m].name in CHEAP and not nodes[m].is_output for m in inside) or b.analysis.is_empty(i):
            continue
        readers = b.analysis.consumers[i]
        if len(readers) < 2 or any(set(b.analysis.consumers[m]) - inside for m in inside - {i}):
            continue
        arrays = _read_by(b, inside)
        if sum(_nbytes(b, j) for j in arrays) > 1.25 * _nbytes(b, i):
            continue
        if not all(_can_compute(b, units, unit_of, unit, arrays, r) for r in readers):
            continue
        reading = {unit_of[r] for r in readers}
        if not any(comes_after(units, r, w) for r in reading for w in unit.followers - reading):
            dissolve(units, unit_of, u, reading)
            b.repeated |= inside


def compute_again(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Let other groups compute again what they read of a group, where they would not read more for that: the steps of
    an activation for its gradient, from the one array that all of them follow from. Nobody writes them then."""
    for u, unit in enumerate(units):
        if not unit.elementwise or not unit.members or unit.recipe is not None:
            continue
        if b.analysis.is_empty(unit.members[-1]) or any(b.tape_nodes[m].name == "arange" for m in unit.members):
            continue
        group = _Shared(b, units, unit_of, u)
        if group.repeated and all(_reads_no_more(b, units[v], v_reads, group) for v, v_reads in group.read_by.items()):
            group.compute_again()


class _Shared:
    """An elementwise group whose readers may compute again what they read of it."""

    def __init__(self, b: Builder, units: list[Unit], unit_of: dict[int, int], u: int) -> None:
        self._b, self._units, self._unit_of, self._u = b, units, unit_of, u
        self._inside = set(units[u].members)
        readers = {m: [r for r in b.analysis.consumers[m] if r not in self._inside] for m in self._inside}
        computing = {r for rs in readers.values() for r in rs if self._is_computing(r)}
        # Members that are in memory whatever their readers do, and those that only other programs read.
        self.stored = {m for m, rs in readers.items() if b.tape_nodes[m].is_output or not computing.issuperset(rs)}
        self.repeated = {m for m, rs in readers.items() if rs} - self.stored
        self.read_by: dict[int, set[int]] = {}  # unit -> what it would compute again, unless that is for itself
        for m in self.repeated:
            for r in readers[m]:
                self.read_by.setdefault(unit_of[r], set()).add(m)

    def _is_computing(self, reader: int) -> bool:
        """Whether a reader is a program, into which more ops can be put."""
        unit = self._units[self._unit_of[reader]] if reader in self._unit_of else None
        if unit is None or unit.recipe is not None:
            return False
        return unit.elementwise or self._b.tape_nodes[reader].name in REDUCTIONS

    def needed(self, wanted: Iterable[int]) -> tuple[set[int], set[int]]:
        """The members that are computed for some of them, and the arrays that are read for that."""
        computed: set[int] = set()
        read: set[int] = set()
        stack = list(wanted)
        while stack:
            m = stack.pop()
            if m in computed:
                continue
            computed.add(m)
            for j in self._b.tape_nodes[m].inputs:
                if j in self._inside and j not in self.stored:
                    stack.append(j)
                elif j in self._b.repeated:
                    read |= _read_by(self._b, {j})
                elif self._b.tape_nodes[j].role != "scalar":
                    read.add(j)
        return computed, read

    def compute_again(self) -> None:
        """Leave the group what is stored, if anything, and the rest to the readers."""
        b, units, unit_of, u = self._b, self._units, self._unit_of, self._u
        unit, readers = units[u], set(self.read_by)
        computed, read = self.needed(self.repeated)
        roots = {b.analysis.root(j) for j in read}
        # Who overwrites what the group reads waits for the readers then, and none of them may wait for it.
        overwriting = {w for w in unit.followers - readers if not self.stored or self._overwrites(w, roots)}
        if any(comes_after(units, v, w) for v in readers for w in overwriting):
            return
        if not self.stored:
            dissolve(units, unit_of, u, readers)
            b.repeated |= self._inside
            return
        left, stack = set(), list(self.stored)
        while stack:
            m = stack.pop()
            if m not in left:
                left.add(m)
                stack += [j for j in b.tape_nodes[m].inputs if j in self._inside]
        if b.dims(max(left)) != b.dims(unit.members[-1]):
            return
        sources = {unit_of[j] for j in roots if j in unit_of}
        for v in readers:
            wait(units, v, sources - {v})
        for w in overwriting:
            wait(units, w, readers)
        for m in self._inside - left:
            del unit_of[m]
        unit.members = sorted(left)
        b.repeated |= computed

    def _overwrites(self, w: int, roots: set[int]) -> bool:
        nodes, root = self._b.tape_nodes, self._b.analysis.root
        return any(nodes[m].name in DONATING and root(nodes[m].inputs[0]) in roots for m in self._units[w].members)


def _reads_no_more(b: Builder, unit: Unit, wanted: set[int], group: _Shared) -> bool:
    """Whether a unit reads no more, and computes little more, if it computes what it wants of a group."""
    computed, read = group.needed(wanted)
    if unit.elementwise:
        known, most, n_ops = _read_by(b, set(unit.members)), MAX_GROUP_OPERANDS, len(unit.members)
    else:
        known, most, n_ops = set(wanted), MAX_REDUCED_OPERANDS, 0
    if len((known - wanted) | read) > most or n_ops + len(computed) > MAX_GROUP_OPS:
        return False
    is_broadcast = unit.elementwise and any(b.dims(m) != b.dims(unit.members[-1]) for m in wanted)
    if len(computed) > (MAX_REPEATED_OPS if is_broadcast else MAX_AGAIN_OPS):
        return False
    return sum(_nbytes(b, j) for j in read - known) <= 1.25 * sum(_nbytes(b, m) for m in wanted)


def _read_by(b: Builder, members: set[int]) -> set[int]:
    """The arrays that a group reads, if it computes what every reader computes for itself."""
    found: set[int] = set()
    stack = list(members)
    while stack:
        for j in b.tape_nodes[stack.pop()].inputs:
            if j in b.repeated:
                stack.append(j)
            elif b.tape_nodes[j].role != "scalar" and j not in members:
                found.add(j)
    return found


def _nbytes(b: Builder, i: int) -> int:
    return math.prod(b.example(i)) * ITEMSIZE[b.dtype(i)]


def _can_compute(
    b: Builder, units: list[Unit], unit_of: dict[int, int], group: Unit, arrays: set[int], reader: int
) -> bool:
    """Whether a reader of a group's last node can be given what the group reads."""
    unit = units[unit_of[reader]] if reader in unit_of else None
    if unit is None or unit.recipe is not None or unit is group:
        return False
    node, i = b.tape_nodes[reader], group.members[-1]
    if node.name == "take_along_axis":  # it casts what it has picked
        return node.inputs[1] != i and [b.tape_nodes[m].name for m in group.members] == ["astype"]
    if not unit.elementwise:
        return node.name in REDUCTIONS and len(arrays) <= MAX_REDUCED_OPERANDS
    return len((_read_by(b, set(unit.members)) | arrays) - {i}) <= MAX_GROUP_OPERANDS


def lower_group(b: Builder, members: Sequence[int]) -> None:
    """Emit one kernel for elementwise nodes; the last has the dims of the loops, others may be broadcast to them."""
    if b.analysis.is_empty(members[-1]):
        for m in members:
            b.result(m)
        return
    writer, outputs = write_group(b, members)
    writer.emit(outputs, covers=members)


def write_group(b: Builder, members: Sequence[int]) -> tuple[ProgramWriter, list[tuple[View, int]]]:
    """The program of a group that is not empty, and (memory, register) of what it writes."""
    inside = set(members)
    writer = ProgramWriter(b, b.dims(members[-1]))
    for m in members:
        writer.add(m)
    written = [
        m
        for m in members
        if b.tape_nodes[m].is_output or (m not in b.repeated and set(b.analysis.consumers[m]) - inside)
    ]
    return writer, [(in_place.result(b, m, inside, writer.operands), writer.registers[m]) for m in written]


@dataclass
class Loops:
    """Collapsed dims; the strides of operands, then of outputs; and the arrays as the kernel generators see them."""

    dims: list[Sym]
    strides: list[list[Sym]]
    operands: tuple[KernelOperand, ...]
    outputs: tuple[KernelOutput, ...]


class ProgramWriter:
    """Turns tape nodes over common dims into a program of the kernel generator."""

    def __init__(self, b: Builder, dims: Dims, beside: ProgramWriter | None = None) -> None:
        """`beside`: another program of the same kernel, which has the same scalars and integers."""
        self.b = b
        self.dims = dims
        self.program: list[Instruction] = []
        self.registers: dict[int, int] = {}
        self.operands: list[View] = []
        self.scalars: list[int] = beside.scalars if beside else []
        self.ints: list[Sym] = beside.ints if beside else []
        self._scalar_numbers: dict[int, int] = beside._scalar_numbers if beside else {}
        self.repeated: list[int] = []  # computed here, as by every reader

    def instruction(self, instruction: Instruction) -> int:
        self.program.append(instruction)
        return len(self.program) - 1

    def scalar_number(self, slot: int) -> int:
        if slot not in self._scalar_numbers:
            self._scalar_numbers[slot] = len(self.scalars)
            self.scalars.append(slot)
        return self._scalar_numbers[slot]

    def operand(self, j: int) -> int:
        """The register of an input."""
        if j not in self.registers:
            node = self.b.tape_nodes[j]
            if node.role == "scalar":
                number = self.scalar_number(node.scalar_slot)
                self.registers[j] = self.instruction(("scalar", number, node.dtype.name))
            elif j in self.b.repeated:
                self.repeated.append(j)
                self.add(j)
            else:
                self.registers[j] = self.load(self.b.read(j))
        return self.registers[j]

    def load(self, view: View) -> int:
        for k, known in enumerate(self.operands):
            if known.same_place(view):
                return self.instruction(("load", k))
        self.operands.append(view)
        return self.instruction(("load", len(self.operands) - 1))

    def add(self, m: int) -> None:
        """One elementwise node."""
        node = self.b.tape_nodes[m]
        if node.name == "full":
            self.registers[m] = self.operand(node.inputs[0])
            return
        if node.name == "arange":
            self.registers[m] = self._arange(m)
            return
        inputs = tuple(self.operand(j) for j in node.inputs)
        dtypes = tuple(self.b.dtype(j) for j in node.inputs)
        self.registers[m] = self.instruction(("op", node.name, (), inputs, dtypes, node.dtype.name))

    def _arange(self, m: int) -> int:
        node = self.b.tape_nodes[m]
        if node.floats:
            start, step = (self.scalar_number(node.scalar_slot + k) for k in range(2))
            return self.instruction(("iota", None, ("scalar", start), ("scalar", step), node.dtype.name))
        first = len(self.ints)
        self.ints += self.b.ints(m)
        return self.instruction(("iota", None, ("int", first), ("int", first + 1), node.dtype.name))

    def emit(
        self,
        outputs: Sequence[tuple[View, int]],
        covers: Sequence[int] = (),
        label: str = "",
        copies: Sequence[tuple[View, View]] = (),
    ) -> None:
        """The kernel, with (memory, register) to write."""
        b, n = self.b, len(self.operands)
        covers = self.covered(covers)
        loops = self.loops(outputs)
        source = _generated(tuple(self.program), len(loops.dims), loops.operands, loops.outputs)
        b.kernel(
            source,
            loops.dims,
            [Operand(v, s) for v, s in zip(self.operands, loops.strides[:n], strict=True)],
            [Operand(v, s) for (v, _), s in zip(outputs, loops.strides[n:], strict=True)],
            scalars=self.scalars,
            ints=self.ints,
            covers=covers,
            label=label,
            copies=copies,
        )

    def covered(self, members: Sequence[int]) -> tuple[int, ...]:
        """What the kernel computes, in order."""
        return tuple(sorted({*members, *self.repeated})) if members else ()

    def loops(self, outputs: Sequence[tuple[View, int]]) -> Loops:
        """The loops over the dims as the arrays allow, with (memory, register) to write."""
        b, n = self.b, len(self.operands)
        strides = [broadcast_strides(b, v, self.dims) for v in self.operands] + [list(v.strides) for v, _ in outputs]
        dims, strides = collapse(b, self.dims, strides)
        operands = tuple(
            KernelOperand(v.dtype, access_of(b, s, dims)) for v, s in zip(self.operands, strides[:n], strict=True)
        )
        read = {id(v.buffer) for v in self.operands}
        results = tuple(
            KernelOutput(register, view.dtype, self._output_access(s, dims), id(view.buffer) in read)
            for (view, register), s in zip(outputs, strides[n:], strict=True)
        )
        return Loops(dims, strides, operands, results)

    def _output_access(self, strides: Sequence[Sym], dims: Sequence[Sym]) -> Access:
        access = access_of(self.b, strides, dims)
        return "contiguous" if access == "scalar" else access  # one element


@functools.lru_cache(maxsize=64)
def _transpose(itemsize: int, n_batch_dims: int) -> KernelSource:
    return copy.generate_transpose(itemsize, n_batch_dims)


def _emit_transpose(b: Builder, source: View, target: View) -> bool:
    """A copy through shared memory, if the two are adjacent along different dims that are long enough for it."""
    dims, (reads, writes) = collapse(b, target.dims, [broadcast_strides(b, source, target.dims), list(target.strides)])
    row = next((d for d, s in enumerate(reads) if s == 1), None)
    column = next((d for d, s in enumerate(writes) if s == 1), None)
    if row is None or column is None or row == column:
        return False
    if any(b.table.value(dims[d]) < SHORTEST_TRANSPOSED for d in (row, column)):
        return False
    order = [d for d in range(len(dims)) if d not in (row, column)] + [row, column]
    b.kernel(
        _transpose(target.itemsize, len(order) - 2),
        [dims[d] for d in order],
        [Operand(source, [reads[d] for d in order])],
        [Operand(target, [writes[d] for d in order])],
        label="copy",
        copies=[(source, target)],
    )
    return True


def emit_copy(b: Builder, source: View, target: View) -> None:
    """A kernel that copies, of equal dims or broadcasting."""
    if _emit_transpose(b, source, target):
        return
    writer = ProgramWriter(b, target.dims)
    register = writer.load(_as_bits(source))
    writer.emit([(_as_bits(target), register)], label="copy", copies=[(source, target)])


def _as_bits(view: View) -> View:
    """The view for a copy, which leaves bits as they are: computing with a 16-bit float would quiet a NaN."""
    return replace(view, dtype="uint16") if view.dtype in ("float16", "bfloat16") else view


def write_scalar(b: Builder, i: int) -> View:
    """A Python number in memory, for ops that read memory."""
    view = b.new((), b.dtype(i))
    writer = ProgramWriter(b, ())
    register = writer.operand(i)
    b.define(i, view)
    writer.emit([(view, register)], covers=(i,), label="scalar")
    return view


__all__ = ["ProgramWriter", "access_of", "broadcast_strides", "collapse", "emit_copy", "lower_group", "write_scalar"]
