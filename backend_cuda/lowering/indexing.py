"""Gathers, scatters, and updates of a slice in place."""

from __future__ import annotations

import functools

from ..kernels import indexing as kernels
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .elementwise import ProgramWriter, broadcast_strides, collapse
from .plan import View
from .shape import sliced
from .sym import Sym

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


@dim_rule("gather")
def _gather_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    source, index = a.dims[node.inputs[0]], a.dims[node.inputs[1]]
    for j in node.inputs[2:]:
        for x, y in zip(index, a.dims[j], strict=True):
            a.table.equate(x, y)
    return (*index, *(n for d, n in enumerate(source) if d not in node.static[0]))


@functools.lru_cache(maxsize=512)
def _gather_kernel(dtype: str, index_dtype: str, n_axes: int, access: tuple[int | None, ...]) -> KernelSource:
    return kernels.generate_gather(dtype, index_dtype, n_axes, access)


@lowers("gather")
def _gather(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    (axes,) = node.static
    source = b.read(node.inputs[0])
    indices = [b.read_contiguous(j) for j in node.inputs[1:]]
    rest = [d for d in range(len(source.dims)) if d not in axes]
    dims, (strides,) = collapse(b, [source.dims[d] for d in rest], [[source.strides[d] for d in rest]])
    if len(dims) == 1 and dims[0].const == 1:
        dims, strides = [], []
    access = tuple(s.const if s.const in (0, 1) else None for s in strides)
    kernel = _gather_kernel(source.dtype, indices[0].dtype, len(axes), access)
    zero = b.lift(0)
    b.kernel(
        kernel,
        [b.numel(indices[0].dims), *dims],
        [Operand(source, (zero, *strides)), *(Operand(x, (1,)) for x in indices)],
        [Operand(b.result(i), ())],
        ints=[x for axis in axes for x in (source.dims[axis], source.strides[axis])],
        covers=(i,),
    )


@functools.lru_cache(maxsize=512)
def _scatter_kernel(dtype: str, index_dtype: str, n_axes: int, n_rest: int, mode: str) -> KernelSource:
    return kernels.generate_scatter(dtype, index_dtype, n_axes, n_rest, mode)


@lowers("scatter")
def _scatter(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    axes, mode = node.static
    target = b.define(i, b.updatable(i))
    if b.analysis.is_empty(node.inputs[1]):
        return
    updates = b.read_contiguous(node.inputs[1])
    indices = [b.read_contiguous(j) for j in node.inputs[2:]]
    rest = [d for d in range(len(target.dims)) if d not in axes and target.dims[d].const != 1]
    zero = b.lift(0)
    b.kernel(
        _scatter_kernel(target.dtype, indices[0].dtype, len(axes), len(rest), mode),
        [b.numel(indices[0].dims), *(target.dims[d] for d in rest)],
        [Operand(updates, ()), *(Operand(x, ()) for x in indices)],
        [Operand(target, (zero, *(target.strides[d] for d in rest)))],
        ints=[x for axis in axes for x in (target.dims[axis], target.strides[axis])],
        covers=(i,),
    )


@dim_rule("take_along_axis")
def _take_along_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    source, index = (a.dims[j] for j in node.inputs)
    for d, (x, y) in enumerate(zip(source, index, strict=True)):
        if d != node.static[0]:
            a.table.equate(x, y)
    return index


@functools.lru_cache(maxsize=512)
def _take_along_kernel(dtype: str, index_dtype: str, n_dims: int) -> KernelSource:
    return kernels.generate_take_along_axis(dtype, index_dtype, n_dims)


@functools.lru_cache(maxsize=512)
def _put_along_kernel(dtype: str, index_dtype: str, n_dims: int, mode: str) -> KernelSource:
    return kernels.generate_put_along_axis(dtype, index_dtype, n_dims, mode)


def _without_axis(b: Builder, view: View, axis: int) -> list[Sym]:
    """The strides along the dims, 0 along the axis."""
    return [b.lift(0) if d == axis else s for d, s in enumerate(view.strides)]


@lowers("take_along_axis")
def _take_along_axis(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    (axis,) = node.static
    a, index = node.inputs[0], b.read(node.inputs[1])
    cast = a if a in b.repeated else None  # of what was picked, and not of all there is to pick from
    source = b.read(a if cast is None else b.tape_nodes[a].inputs[0])
    dims, (of_source, of_index) = collapse(b, b.dims(i), [_without_axis(b, source, axis), list(index.strides)])
    picked = b.result(i) if cast is None else b.new(b.dims(i), source.dtype)
    b.kernel(
        _take_along_kernel(source.dtype, index.dtype, len(dims)),
        dims,
        [Operand(source, of_source), Operand(index, of_index)],
        [Operand(picked, ())],
        ints=[source.dims[axis], source.strides[axis]],
        covers=(i,) if cast is None else (),
        label="take_along_axis",
    )
    if cast is not None:
        writer = ProgramWriter(b, picked.dims)
        wide = ("op", "astype", (), (writer.load(picked),), (picked.dtype,), b.dtype(cast))
        writer.emit([(b.result(i), writer.instruction(wide))], covers=(cast, i))


@lowers("put_along_axis")
def _put_along_axis(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    axis, mode = node.static
    target = b.define(i, b.updatable(i))
    if b.analysis.is_empty(node.inputs[1]):
        return
    index, values = (b.read(j) for j in node.inputs[1:])
    strides = [_without_axis(b, target, axis), list(index.strides), broadcast_strides(b, values, index.dims)]
    dims, (of_target, of_index, of_values) = collapse(b, index.dims, strides)
    b.kernel(
        _put_along_kernel(target.dtype, index.dtype, len(dims), mode),
        dims,
        [Operand(values, of_values), Operand(index, of_index)],
        [Operand(target, of_target)],
        ints=[target.dims[axis], target.strides[axis]],
        covers=(i,),
    )
