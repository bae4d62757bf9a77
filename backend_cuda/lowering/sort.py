"""Sorts along an axis, as sorts of packed rows."""

from __future__ import annotations

import functools

from ..kernels import sort as kernels
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .pipeline import emit_pipeline
from .rows import read_rows, result_rows


@dim_rule("sort", "argsort")
def _same_dims(a: Analysis, i: int) -> Dims:
    return a.dims[a.nodes[i].inputs[0]]


@functools.lru_cache(maxsize=256)
def _kernel(dtype: str, indices: bool, capacity: int) -> KernelSource:
    return kernels.generate_sort(dtype, indices, capacity)


@functools.lru_cache(maxsize=64)
def _pipeline(dtype: str, indices: bool, few_tiles: bool) -> kernels.Pipeline:
    return kernels.generate_device_sort(dtype, indices, few_tiles)


@lowers("sort", "argsort")
def _sort(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    (axis,) = node.static
    source = read_rows(b, node.inputs[0], (axis,), packed=True)
    dtype, indices = source.view.dtype, node.name == "argsort"
    out = Operand(result_rows(b, i, (axis,)), (source.n, 1))
    dims = [source.rows, source.n]
    n = b.table.value(source.n)
    capacity = kernels.choose_capacity(b.table.value(source.rows), n, dtype)
    if capacity is None:
        pipeline = _pipeline(dtype, indices, kernels.has_few_tiles(n, dtype))
        emit_pipeline(b, pipeline, dims, source.operand, out, i)
    else:
        b.kernel(_kernel(dtype, indices, capacity), dims, [source.operand], [out], covers=(i,))
