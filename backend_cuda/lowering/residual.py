"""Residual sums: `x + a @ b` as one product, which adds x before it rounds. Saves a kernel that reads both."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernels.ops import FLOATS
from .builder import Builder
from .elementwise import lower_group
from .matmul import emit, emit_product, few_rows, plan_product
from .plan import View, row_major
from .units import Unit, can_merge, merge


@dataclass
class Residual:
    """Tape nodes: a matmul, the sum that is all that reads it, and what the sum adds to it."""

    product: int
    total: int
    addend: int

    def lower(self, b: Builder) -> None:
        """Emit one product if the addend lies row-major; it is known only now."""
        left, right = b.tape_nodes[self.product].inputs
        out = b.result(self.product)
        product = plan_product(b, left, right, out)
        # A one-row product is a kernel of our own, which adds nothing.
        if b.is_contiguous(b.value(self.addend)) and product.m.const != 1:
            b.forget(self.product)
            covers = (self.product, self.total)
            addend = _as(b, b.read(self.addend), self.product)
            place = b.result(self.total)
            out, label = _as(b, place, self.product), b.label(covers)
            if not few_rows(b, product, right, out, covers, label, addend):
                emit_product(b, product, out, covers, label, addend=addend, outputs={self.total: place})
            return
        emit(b, product, right, out, (self.product,), b.label((self.product,)))
        b.begin_reads()
        lower_group(b, [self.total])


def _as(b: Builder, view: View, i: int) -> View:
    """Row-major memory as of the dims of node i, which has as many elements."""
    dims = b.dims(i)
    return View(view.buffer, view.dtype, view.offset, dims, row_major(b.table, dims))


def fuse(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Merge sums of two arrays with the product that one of them is."""
    for u, unit in enumerate(units):
        if not unit.elementwise or unit.recipe is not None or len(unit.members) != 1:
            continue
        found = _residual(b, unit.members[0])
        if found is None:
            continue
        group = {u, unit_of[found.product]}
        if can_merge(units, group):
            merged = merge(units, unit_of, group, min(group))
            merged.elementwise, merged.recipe = False, found


def _residual(b: Builder, total: int) -> Residual | None:
    node = b.tape_nodes[total]
    if (
        node.name != "add"
        or b.dtype(total) not in FLOATS
        or b.analysis.is_empty(total)
        or node.inputs[0] == node.inputs[1]
    ):
        return None
    for j, addend in (node.inputs, node.inputs[::-1]):
        product = _product(b, j)
        if product is None or any(b.dims(k) != b.dims(total) for k in (j, addend)):
            continue
        other = b.analysis.root(addend)
        if b.tape_nodes[other].role != "scalar" and other not in b.repeated and other != product:
            return Residual(product, total, addend)
    return None


def _product(b: Builder, j: int) -> int | None:
    """The product of several rows that node j is, maybe reshaped, if nothing else reads it."""
    while True:
        node = b.tape_nodes[j]
        if node.role != "op" or node.is_output or len(b.analysis.consumers[j]) != 1:
            return None
        if node.name == "matmul":
            break
        if node.name != "reshape":
            return None
        j = node.inputs[0]
    is_row = all(d.const == 1 for d in b.dims(j)[:-1])
    return None if is_row or b.analysis.is_empty(node.inputs[0]) else j
