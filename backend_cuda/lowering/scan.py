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
def _columns_kernel(
    op: str, dtype: str, out_dtype: str, reverse: bool, inclusive: bool, variant: kernels.ColumnVariant
) -> KernelSource:
    return kernels.generate_columns(op, dtype, out_dtype, reverse=reverse, inclusive=inclusive, variant=variant)


@functools.lru_cache(maxsize=512)
def _tiles_kernel(
    op: str, dtype: str, out_dtype: str, reverse: bool, inclusive: bool, variant: kernels.TileVariant
) -> KernelSource:
    return kernels.generate_tiles(op, dtype, out_dtype, reverse=reverse, inclusive=inclusive, variant=variant)


@functools.lru_cache(maxsize=512)
def _column_tiles_kernel(
    op: str, dtype: str, out_dtype: str, reverse: bool, inclusive: bool, columns: int, few: bool
) -> KernelSource:
    flags = {"reverse": reverse, "inclusive": inclusive, "few": few}
    return kernels.generate_column_tiles(op, dtype, out_dtype, columns=columns, **flags)


def _emit_columns(b: Builder, i: int) -> bool:
    """A scan that leaves all where it is, if the operand is row-major and there are columns enough."""
    node = b.tape_nodes[i]
    axis, reverse, inclusive = node.static
    view = b.read(node.inputs[0])
    outer, inner = (math.prod(dims, start=b.lift(1)) for dims in (view.dims[:axis], view.dims[axis + 1 :]))
    n = view.dims[axis]
    if not b.is_contiguous(view):
        return False
    variant = b.table.choose(kernels.choose_columns, node.name, view.dtype, of=(outer, n, inner))
    if variant is None:
        return False
    strides = (n * inner, inner, 1)
    dims, source, out = [outer, n, inner], Operand(view, strides), Operand(b.result(i), strides)
    what = (node.name, view.dtype, b.dtype(i), reverse, inclusive)
    if variant in ("tiles", "tiles_of_few_columns"):
        columns = b.table.choose(kernels.tile_columns, view.dtype, of=(inner,))
        kernel = _column_tiles_kernel(*what, columns, variant == "tiles_of_few_columns")
    else:
        kernel = _columns_kernel(*what, variant)
    b.kernel(kernel, dims, [source], [out], covers=(i,))
    return True


@lowers(*kernels.OPS)
def _scan(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    axis, reverse, inclusive = node.static
    if _emit_columns(b, i):
        return
    source = read_rows(b, node.inputs[0], (axis,), packed=True)
    dtype = source.view.dtype
    variant = b.table.choose(kernels.choose_variant, dtype, of=(source.rows, source.n))
    out = Operand(result_rows(b, i, (axis,)), (source.n, 1))
    dims = [source.rows, source.n]
    what = (node.name, dtype, b.dtype(i), reverse, inclusive)
    if variant in kernels.TILE_VARIANTS:
        kernel = _tiles_kernel(*what, variant)
    else:
        kernel = _kernel(*what, variant)
    b.kernel(kernel, dims, [source.operand], [out], covers=(i,))
