"""Elementwise groups of one program over arrays of any sizes as one kernel: an optimizer's step for all parameters.

What runs together waits for the last of what any part reads, and the others' operands are kept until then. So only
groups that end a plan run together, and only those that read mostly leaves, which are there anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ..kernels import multi_tensor as kernels
from ..kernels.codegen import Instruction
from ..kernels.codegen import Operand as KernelOperand
from ..kernels.codegen import Output as KernelOutput
from ..kernels.kernel import KernelSource
from .analysis import MAX_GROUP_OPERANDS, MAX_GROUP_OPS, VIEWS, Analysis, Dims
from .builder import Builder
from .elementwise import Loops, ProgramWriter, write_group
from .matmul import is_stored_transposed
from .plan import KernelNode, View
from .sym import Sym
from .units import Unit, merge

MIN_ALIKE = 4  # fewer groups of one program are not worth a kernel that searches a table


@dataclass
class Alike:
    """Groups of one program: the members of each, in one order."""

    instances: list[list[int]]

    def lower(self, b: Builder) -> None:
        together: dict[Hashable, list[_Instance]] = {}
        for members in self.instances:
            b.begin_reads()
            writer, outputs = write_group(b, members)
            instance = _Instance(members, writer, outputs, writer.loops(outputs), dict(b.reads))
            together.setdefault(instance.kind, []).append(instance)
        for instances in together.values():
            _emit(b, instances)


def fuse(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Merge groups that nobody in the plan waits for: as one they cannot wait for themselves."""
    last = [
        u for u, unit in enumerate(units) if unit.elementwise and unit.members and not (unit.recipe or unit.followers)
    ]
    _join_siblings(b, units, unit_of, last)
    alike: dict[Hashable, list[int]] = {}
    for u in last:
        if units[u].members and obstacle(b.analysis, units[u].members) is None:
            alike.setdefault(signature(b.analysis, units[u].members), []).append(u)
    for group in alike.values():
        if len(group) >= MIN_ALIKE:
            instances = [list(units[u].members) for u in group]
            merge(units, unit_of, set(group), group[-1]).recipe = Alike(instances)


def _join_siblings(b: Builder, units: list[Unit], unit_of: dict[int, int], last: Sequence[int]) -> None:
    """Merge groups of equal dims, of which one reads nothing that the other does not: Lion's parameter and moment."""
    a = b.analysis
    readers: dict[tuple[int, Dims], int] = {}  # the last unit that reads an array, by its dims
    for u in last:
        members = units[u].members
        dims = a.dims[members[-1]]
        read = operands(a, members)
        for j in read:
            v = readers.get((j, dims))
            if v is None or a.dims[j] != dims:
                continue
            other = operands(a, units[v].members)
            fits = len(members) + len(units[v].members) <= MAX_GROUP_OPS
            fits = fits and len({*read, *other}) <= MAX_GROUP_OPERANDS
            if fits and (set(read) <= set(other) or set(other) <= set(read)):
                read = list(dict.fromkeys([*other, *read]))
                merge(units, unit_of, {v, u}, u)
                break
        for j in read:
            readers[j, dims] = u


def obstacle(a: Analysis, members: Sequence[int]) -> str | None:
    """Why an elementwise group that ends the plan cannot run beside others of its program, or None."""
    if a.is_empty(members[-1]):
        return "they are empty"
    if any(a.nodes[m].name == "arange" for m in members):
        return "arange counts in its own dims"
    leaves = 0
    arrays = [j for j in operands(a, members) if not _is_one_element(a, j)]
    for j in arrays:
        if not _is_row_major(a, j) or a.dims[j] != a.dims[members[-1]]:
            return f"{_name(a, j)} is not read in the order of memory"
        leaves += a.nodes[a.root(j)].role == "leaf"
    if 2 * leaves < len(arrays):
        return "most of what they read is intermediate, and would be kept until the last can be computed"
    return None


def signature(a: Analysis, members: Sequence[int]) -> Hashable:
    """Equal for groups of one program, whatever their sizes."""
    inside = {m: k for k, m in enumerate(members)}
    outside: dict[int, int] = {}

    def reference(j: int) -> Hashable:
        if j in inside:
            return inside[j]
        number = outside.setdefault(j, len(outside))
        role = "scalar" if a.nodes[j].role == "scalar" else "one" if _is_one_element(a, j) else "array"
        return number, role, a.nodes[j].dtype.name

    def step(m: int) -> Hashable:
        node = a.nodes[m]
        is_written = node.is_output or not inside.keys() >= set(a.consumers[m])
        return node.name, node.dtype.name, is_written, *map(reference, node.inputs)

    return _is_one_element(a, members[-1]), *map(step, members)


def operands(a: Analysis, members: Sequence[int]) -> list[int]:
    """The arrays that a group reads, each once."""
    inside = set(members)
    read = dict.fromkeys(j for m in members for j in a.nodes[m].inputs)
    return [j for j in read if j not in inside and a.nodes[j].role != "scalar"]


def _is_one_element(a: Analysis, j: int) -> bool:
    return all(d.const == 1 for d in a.dims[j])


def _is_row_major(a: Analysis, j: int) -> bool:
    """Whether an array will lie in memory in the order of its elements."""
    node = a.nodes[j]
    if node.role != "op":
        return node.strides is None
    if node.name not in VIEWS:
        return not is_stored_transposed(a, j)
    source = node.inputs[0]
    if node.name == "transpose":
        moved = [p for p in node.static[0] if a.dims[source][p].const != 1]
        return is_stored_transposed(a, source) or (moved == sorted(moved) and _is_row_major(a, source))
    return node.name == "reshape" and _is_row_major(a, source)


def _name(a: Analysis, j: int) -> str:
    node = a.nodes[j]
    return node.name if node.role == "op" else "a leaf"


@dataclass
class _Instance:
    """One group, written: what it computes, reads and writes."""

    members: list[int]
    writer: ProgramWriter
    outputs: list[tuple[View, int]]
    loops: Loops
    reads: dict[int, View]

    @property
    def kind(self) -> Hashable:
        """Equal for instances that one kernel can compute; for none but this one, if it must be a kernel of its own."""
        loops = self.loops
        arrays: tuple[KernelOperand | KernelOutput, ...] = (*loops.operands, *loops.outputs)
        if len(loops.dims) != 1 or not all(isinstance(x.access, str) for x in arrays):
            return id(self)
        return tuple(self.writer.program), loops.operands, tuple(o.access for o in loops.outputs)


@functools.lru_cache(maxsize=256)
def _generated(
    program: tuple[Instruction, ...],
    operands: tuple[KernelOperand, ...],
    outputs: tuple[KernelOutput, ...],
    rows: int,
    shared_operands: frozenset[int],
    shared_scalars: frozenset[int],
) -> KernelSource:
    return kernels.generate(program, operands, outputs, rows, shared_operands, shared_scalars)


def _emit(b: Builder, instances: list[_Instance]) -> None:
    """Kernels for instances of one kind, as few as their tables allow, of equal numbers of rows."""
    first = instances[0]
    if len(instances) == 1:
        b.begin_reads()
        b.reads.update(first.reads)
        first.writer.emit(first.outputs, covers=first.members)
        return
    program, operands, outputs = tuple(first.writer.program), first.loops.operands, first.loops.outputs
    shared_operands = frozenset(
        k
        for k, operand in enumerate(operands)
        if operand.access == "scalar"
        and all(i.writer.operands[k].same_place(first.writer.operands[k]) for i in instances)
    )
    shared_scalars = frozenset(
        k for k, slot in enumerate(first.writer.scalars) if all(i.writer.scalars[k] == slot for i in instances)
    )
    most = kernels.most_rows(program, operands, outputs, shared_operands, shared_scalars)
    n_kernels = -(-len(instances) // most)
    rows = -(-len(instances) // n_kernels)
    source = _generated(program, operands, outputs, rows, shared_operands, shared_scalars)
    for at in range(0, len(instances), rows):
        _emit_one(b, source, instances[at : at + rows])


def _emit_one(b: Builder, source: KernelSource, instances: list[_Instance]) -> None:
    loops = instances[0].loops
    tile = kernels.tile(loops.operands, loops.outputs)
    first_blocks = [b.lift(0)]
    for i in instances:
        first_blocks.append(first_blocks[-1] + b.table.cdiv(i.loops.dims[0], tile))
    blocks = first_blocks.pop()

    def word(param: tuple[Any, ...], row: int) -> tuple[Any, ...]:
        if row >= len(instances):
            return "i64", blocks if param[0] == "first" else b.lift(0)
        instance = instances[row]
        match param[0]:
            case "first":
                return "i64", first_blocks[row]
            case "dim":
                return "i64", instance.loops.dims[0]
            case "ptr":
                return _pointer(instance.writer.operands[param[1]])
            case "out":
                return _pointer(instance.outputs[param[1]][0])
            case "scalar":
                return param[2], instance.writer.scalars[param[1]]
        raise AssertionError(f"unknown kernel parameter {param!r}")

    def argument(param: tuple[Any, ...]) -> tuple[Any, ...]:
        if param[0] != "table":
            return word(param, 0)
        _, rows, columns = param
        return "table", [word(column, row) for column in columns for row in range(rows)]

    members = sorted({m for i in instances for m in i.writer.covered(i.members)})
    node = KernelNode(f"{len(instances)} times {b.label(instances[0].members)}", tuple(members))
    node.source = source
    node.grid = (blocks, b.lift(1), b.lift(1))
    node.shared = b.lift(0)
    node.arguments = [argument(p) for p in source.params]
    node.instances = [tuple(i.members) for i in instances]
    node.inputs = {j: view for i in instances for j, view in i.reads.items()}
    node.outputs = {m: b.value(m) for i in instances for m in i.members if b.is_defined(m)}
    b.emit(node)


def _pointer(view: View) -> tuple[str, Any, Sym]:
    return "ptr", view.buffer, view.offset * view.itemsize
