"""Scans along an axis, as scans of packed rows, or down the columns of an array that lies row-major."""

from __future__ import annotations

import functools
import math

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


@functools.lru_cache(maxsize=512)
def _columns_kernel(op: str, dtype: str, out_dtype: str, reverse: bool, inclusive: bool) -> KernelSource:
    return kernels.generate_columns(op, dtype, out_dtype, reverse=reverse, inclusive=inclusive)


def _emit_columns(b: Builder, i: int) -> bool:
    """A scan that leaves all where it is, if the operand is row-major and there are columns enough."""
    node = b.tape_nodes[i]
    axis, reverse, inclusive = node.static
    view = b.read(node.inputs[0])
    outer, inner = (math.prod(dims, start=b.lift(1)) for dims in (view.dims[:axis], view.dims[axis + 1 :]))
    n = view.dims[axis]
    if not b.is_contiguous(view) or not kernels.has_columns(view.dtype, *map(b.table.value, (outer, n, inner))):
        return False
    strides = (n * inner, inner, 1)
    b.kernel(
        _columns_kernel(node.name, view.dtype, b.dtype(i), reverse, inclusive),
        [outer, n, inner],
        [Operand(view, strides)],
        [Operand(b.result(i), strides)],
        covers=(i,),
    )
    return True


@lowers(*kernels.OPS)
def _scan(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    axis, reverse, inclusive = node.static
    if _emit_columns(b, i):
        return
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
