"""Gradients of normalisations: one kernel for that of the input and of the weight, where both are wanted.

Where a model adds what follows the norm to what went into it, the input's is added to another: in that kernel, too.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from ..kernels import normalize_vjp as kernels
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .rows import read_rows, result_rows
from .units import Unit, can_merge, merge


@dim_rule("norm_vjp")
def _dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    x, c = a.dims[node.inputs[0]], a.dims[node.inputs[-1]]
    for p, q in zip(x, c, strict=True):
        a.table.equate(p, q)
    return x


@dim_rule("norm_vjp_weight")
def _weight_dims(a: Analysis, i: int) -> Dims:
    return (a.dims[a.nodes[i].inputs[0]][-1],)


@functools.lru_cache(maxsize=256)
def _kernel(
    name: str, dtype: str, features: int, eps: float, has_weight: bool, of_x: bool, of_weight: bool, adds: bool
) -> KernelSource:
    return kernels.generate(
        name, dtype, features, eps, has_weight=has_weight, of_x=of_x, of_weight=of_weight, adds=adds
    )


@dataclass
class Sum:
    """Tape nodes: the gradient of a normalisation's input, its weight's if that is wanted, and the sum of the former
    and an addend, which is all that reads it."""

    of_x: int
    of_weight: int | None
    total: int
    addend: int

    def lower(self, b: Builder) -> None:
        _emit(b, self.of_x, self.of_weight, self)


def fuse(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Merge sums of two arrays with the gradient of a normalisation that one of them is."""
    for unit in units:
        if not unit.elementwise or unit.recipe is not None or len(unit.members) != 1:
            continue
        found = _sum(b, unit.members[0])
        if found is None:
            continue
        group = {unit_of[j] for j in (found.of_x, found.of_weight, found.total) if j is not None}
        if can_merge(units, group):
            merged = merge(units, unit_of, group, min(group))
            merged.elementwise, merged.recipe = False, found


def _sum(b: Builder, total: int) -> Sum | None:
    node = b.tape_nodes[total]
    if node.name != "add" or b.analysis.is_empty(total):
        return None
    for of_x, addend in (node.inputs, node.inputs[::-1]):
        norm = b.tape_nodes[of_x]
        if norm.role != "op" or norm.name != "norm_vjp" or norm.is_output or b.analysis.consumers[of_x] != [total]:
            continue
        if any(b.dims(j) != b.dims(total) or b.dtype(j) != b.dtype(total) for j in (of_x, addend)):
            continue
        other = b.analysis.root(addend)
        if b.tape_nodes[other].role == "scalar" or other in b.repeated or other == of_x:
            continue
        name, _, *rest = norm.static
        return Sum(of_x, _sibling(b, "norm_vjp_weight", norm.inputs[0], norm.inputs[-1], (name, *rest)), total, addend)
    return None


@lowers("norm_vjp")
def _norm_vjp(b: Builder, i: int) -> None:
    if not b.is_defined(i):
        x, c = b.tape_nodes[i].inputs[0], b.tape_nodes[i].inputs[-1]
        name, _, *rest = b.tape_nodes[i].static
        _emit(b, i, _sibling(b, "norm_vjp_weight", x, c, (name, *rest)))


@lowers("norm_vjp_weight")
def _norm_vjp_weight(b: Builder, i: int) -> None:
    if not b.is_defined(i):
        x, c = b.tape_nodes[i].inputs
        name, *rest = b.tape_nodes[i].static
        other = _sibling(b, "norm_vjp", x, c, (name, True, *rest))
        # Its weight must be there by now.
        if other is not None and b.tape_nodes[b.analysis.root(b.tape_nodes[other].inputs[1])].role != "leaf":
            other = None
        _emit(b, other, i)


def _sibling(b: Builder, name: str, x: int, c: int, static: tuple[object, ...]) -> int | None:
    """The gradient of the same normalisation with regard to its other input, if nobody has computed it yet."""
    for j in b.analysis.consumers[x]:
        node = b.tape_nodes[j]
        if node.name == name and node.static == static and (node.inputs[0], node.inputs[-1]) == (x, c):
            return None if b.is_defined(j) else j
    return None


def _emit(b: Builder, of_x: int | None, of_weight: int | None, added: Sum | None = None) -> None:
    total = None if added is None else added.total
    covers = tuple(sorted(j for j in (of_x, of_weight, total) if j is not None))
    node = b.tape_nodes[covers[0] if of_x is None else of_x]
    name = node.static[0]
    features, eps = node.static[-2:]
    dtype = b.dtype(covers[0])
    last = len(b.dims(node.inputs[0])) - 1
    x, c = (read_rows(b, j, (last,)) for j in (node.inputs[0], node.inputs[-1]))
    operands = [x.operand, c.operand]
    has_weight = of_x is not None and node.static[1]
    if has_weight:
        operands.insert(1, Operand(b.read_contiguous(node.inputs[1]), (0, 1)))
    if added is not None:
        operands.append(read_rows(b, added.addend, (last,)).operand)
    outputs = []
    written = of_x if total is None else total
    if written is not None:
        outputs.append(Operand(result_rows(b, written, (last,)), (x.n, 1)))
    wanted = (of_x is not None, of_weight is not None, added is not None)
    kernel = _kernel(name, dtype, features, eps, has_weight, *wanted)
    done = tuple(j for j in covers if j != of_weight)
    if of_weight is None:
        b.kernel(kernel, [x.rows], operands, outputs, covers=done)
        return
    blocks = b.size(kernels.blocks_of("d0", features), {"d0": x.rows})
    sums = b.new((blocks, x.n), "float32")
    b.kernel(kernel, [x.rows], operands, [*outputs, Operand(sums, (x.n, 1))], covers=done, label=b.label(covers))
    weight = b.result(of_weight)
    source = kernels.generate_column_sums(dtype)
    b.kernel(
        source, [blocks, x.n], [Operand(sums, ())], [Operand(weight, ())], covers=(of_weight,), label="column sums"
    )
