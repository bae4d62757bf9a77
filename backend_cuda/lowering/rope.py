"""Rotary positions."""

from __future__ import annotations

import functools

from ..kernels import rope
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .elementwise import collapse
from .plan import View
from .rows import permuted


@dim_rule("rope")
def _same_dims(a: Analysis, i: int) -> Dims:
    return a.dims[a.nodes[i].inputs[0]]


def rope_result(b: Builder, i: int) -> View:
    """Memory for the result, heads of a position side by side, as in the product that x comes from."""
    dims = b.dims(i)
    batch, *middle, length, features = range(len(dims))
    memory = b.new([dims[d] for d in (batch, length, *middle, features)], b.dtype(i))
    return b.define(i, permuted(memory, (0, *range(2, 2 + len(middle)), 1, len(dims) - 1)))


@functools.lru_cache(maxsize=256)
def _rope_kernel(dtype: str, dims: int, traditional: bool, offset: str, has_freqs: bool) -> KernelSource:
    return rope.generate_rope(dtype, dims, traditional, offset=offset, has_freqs=has_freqs)


@lowers("rope")
def _rope(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    dims, traditional, has_offset, has_freqs = node.static
    source = b.read(node.inputs[0])
    batch, *middle, length, features = range(len(source.dims))
    heads, (head_strides,) = collapse(b, [source.dims[d] for d in middle], [[source.strides[d] for d in middle]])
    if source.strides[-1] != 1 or len(heads) != 1:
        source = b.read_contiguous(node.inputs[0])
        heads, (head_strides,) = collapse(b, [source.dims[d] for d in middle], [[source.strides[d] for d in middle]])
    strides = (source.strides[batch], head_strides[0], source.strides[length], b.lift(1))
    out = rope_result(b, i)
    _, (out_heads,) = collapse(b, [out.dims[d] for d in middle], [[out.strides[d] for d in middle]])
    operands = [Operand(source, strides)]
    kind = "number"
    if has_offset:
        offsets = b.read_contiguous(node.inputs[1])
        kind = "array" if offsets.dims[0].const == 1 else "batch"
        operands.append(Operand(offsets, (0,) * 4))
    if has_freqs:
        operands.append(Operand(b.read_contiguous(node.inputs[-1]), (0,) * 4))
    kernel = _rope_kernel(b.dtype(i), dims, traditional, kind, has_freqs)
    b.kernel(
        kernel,
        [source.dims[batch], heads[0], source.dims[length], source.dims[features]],
        operands,
        [Operand(out, (out.strides[batch], out_heads[0], out.strides[length], b.lift(1)))],
        scalars=[node.scalar_slot, node.scalar_slot + 1],
        ints=b.ints(i),
        covers=(i,),
    )
