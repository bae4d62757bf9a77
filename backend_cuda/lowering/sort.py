"""Sorts along an axis, as sorts of packed rows."""

from __future__ import annotations

import functools

from ..kernels import sort as kernels
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .rows import read_rows, result_rows


@dim_rule("sort", "argsort")
def _same_dims(a: Analysis, i: int) -> Dims:
    return a.dims[a.nodes[i].inputs[0]]


@functools.lru_cache(maxsize=64)
def _kernel(dtype: str, indices: bool) -> KernelSource:
    return kernels.generate_sort(dtype, indices)


@lowers("sort", "argsort")
def _sort(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    (axis,) = node.static
    source = read_rows(b, node.inputs[0], (axis,), packed=True)
    out = result_rows(b, i, (axis,))
    b.kernel(
        _kernel(source.view.dtype, node.name == "argsort"),
        [source.rows, source.n],
        [source.operand],
        [Operand(out, (source.n, 1))],
        covers=(i,),
    )
