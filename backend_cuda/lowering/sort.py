"""Sorts along an axis, and the greatest elements along it, as those of packed rows."""

from __future__ import annotations

import functools

from ..kernels import select, sort
from ..kernels.kernel import KernelSource
from ..kernels.pipeline import Pipeline
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .pipeline import emit_pipeline
from .rows import read_rows, result_rows


@dim_rule("sort", "argsort")
def _same_dims(a: Analysis, i: int) -> Dims:
    return a.dims[a.nodes[i].inputs[0]]


@dim_rule("topk", "argtopk")
def _fewer_along_axis(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    (axis,) = node.static
    return tuple(a.fresh(i, d) if d == axis else n for d, n in enumerate(a.dims[node.inputs[0]]))


@functools.lru_cache(maxsize=256)
def _kernel(dtype: str, indices: bool, capacity: int) -> KernelSource:
    return sort.generate_sort(dtype, indices, capacity)


@functools.lru_cache(maxsize=64)
def _pipeline(dtype: str, indices: bool, few_tiles: bool) -> Pipeline:
    return sort.generate_device_sort(dtype, indices, few_tiles)


@lowers("sort", "argsort")
def _sort(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    (axis,) = node.static
    source = read_rows(b, node.inputs[0], (axis,), packed=True)
    dtype, indices = source.view.dtype, node.name == "argsort"
    out = Operand(result_rows(b, i, (axis,)), (source.n, 1))
    dims = [source.rows, source.n]
    capacity = b.table.choose(sort.choose_capacity, dtype, of=(source.n,))
    if capacity is None:
        pipeline = _pipeline(dtype, indices, b.table.choose(sort.has_few_tiles, dtype, of=(source.n,)))
        emit_pipeline(b, pipeline, dims, source.operand, out, i)
    else:
        b.kernel(_kernel(dtype, indices, capacity), dims, [source.operand], [out], covers=(i,))


@functools.lru_cache(maxsize=256)
def _top_kernel(dtype: str, indices: bool, variant: select.Variant) -> KernelSource:
    return select.generate_top(dtype, indices, variant)


@functools.lru_cache(maxsize=64)
def _top_pipeline(dtype: str, indices: bool) -> Pipeline:
    return select.generate_device_top(dtype, indices)


@lowers("topk", "argtopk")
def _top(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    (axis,) = node.static
    source = read_rows(b, node.inputs[0], (axis,), packed=True)
    dtype, indices = source.view.dtype, node.name == "argtopk"
    k = b.dims(i)[axis]
    out = Operand(result_rows(b, i, (axis,)), (k, 1))
    dims = [source.rows, source.n, k]
    variant = b.table.choose(select.choose_variant, of=(source.rows, source.n))
    if variant == "device":
        emit_pipeline(b, _top_pipeline(dtype, indices), dims, source.operand, out, i)
    else:
        b.kernel(_top_kernel(dtype, indices, variant), dims, [source.operand], [out], covers=(i,))
