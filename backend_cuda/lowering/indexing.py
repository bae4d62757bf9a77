"""Gathers, scatters, and updates of a slice in place."""

from __future__ import annotations

from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, lowers
from .elementwise import ProgramWriter, broadcast_strides
from .plan import View
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
    update = b.read(node.inputs[1])
    # The slice is as large as the update, but for dims that the update is broadcast over: whole ones.
    missing = len(mask) - len(update.dims)
    given = (b.lift(1),) * missing + update.dims
    dims = tuple(target.dims[d] if how == 0 else given[d] for d, how in enumerate(mask))
    place = sliced(b, target, mask, b.ints(i), dims)
    spread = View(update.buffer, update.dtype, update.offset, dims, tuple(broadcast_strides(b, update, dims)))
    if any(d.const == 0 for d in dims):
        return
    writer = ProgramWriter(b, dims)
    value = writer.load(spread)
    if mode != "none":
        before = writer.load(place)
        dtype = target.dtype
        value = writer.instruction(("op", _COMBINE[mode], (), (before, value), (dtype, dtype), dtype))
    writer.emit([(place, value)], covers=(i,), label=node.name)
