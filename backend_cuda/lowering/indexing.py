"""Gathers, scatters, and updates of a slice in place."""

from __future__ import annotations

from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, lowers
from .elementwise import ProgramWriter
from .shape import sliced

_COMBINE = {"add": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}


@dim_rule("slice_update", "scatter", "put_along_axis")
def _same_dims(a: Analysis, i: int) -> Dims:
    return a.dims[a.nodes[i].inputs[0]]


@lowers("slice_update")
def _slice_update(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    mask, mode = node.static
    target = b.define(i, b.updatable(i))
    dims = b.dims(node.inputs[1])  # the slice is as large as the update
    if any(d.const == 0 for d in dims):
        return
    place = sliced(b, target, mask, b.ints(i), dims)
    writer = ProgramWriter(b, dims)
    number = b.analysis.root(node.inputs[1])
    is_number = b.tape_nodes[number].role == "scalar"
    value = writer.operand(number) if is_number else writer.load(b.read(node.inputs[1]))
    if mode != "none":
        before = writer.load(place)
        dtype = target.dtype
        value = writer.instruction(("op", _COMBINE[mode], (), (before, value), (dtype, dtype), dtype))
    writer.emit([(place, value)], covers=(i,), label=node.name)
