"""Scans along an axis, as scans of packed rows."""

from __future__ import annotations

import functools

from ..kernels import scan as kernels
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .rows import read_rows, result_rows


@dim_rule(*kernels.OPS)
def _same_dims(a: Analysis, i: int) -> Dims:
    return a.dims[a.nodes[i].inputs[0]]


@functools.lru_cache(maxsize=512)
def _kernel(
    op: str, dtype: str, out_dtype: str, reverse: bool, inclusive: bool, variant: kernels.Variant
) -> KernelSource:
    return kernels.generate(op, dtype, out_dtype, reverse=reverse, inclusive=inclusive, variant=variant)


@lowers(*kernels.OPS)
def _scan(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    axis, reverse, inclusive = node.static
    source = read_rows(b, node.inputs[0], (axis,), packed=True)
    variant = kernels.choose_variant(b.table.value(source.rows), b.table.value(source.n))
    out = result_rows(b, i, (axis,))
    b.kernel(
        _kernel(node.name, source.view.dtype, b.dtype(i), reverse, inclusive, variant),
        [source.rows, source.n],
        [source.operand],
        [Operand(out, (source.n, 1))],
        covers=(i,),
    )
