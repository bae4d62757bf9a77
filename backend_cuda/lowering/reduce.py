"""Reductions: kept and reduced dims are each merged as far as strides allow; one kernel whatever the sizes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ..kernels import reduce as kernels
from ..kernels.codegen import Operand as KernelOperand
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .elementwise import access_of, collapse
from .plan import View
from .sym import Sym


@dim_rule(*kernels.OPS)
def _reduced_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    source = a.dims[node.inputs[0]]
    axes, keepdims = node.static
    reduced = set(axes) if axes or node.name not in ("argmax", "argmin") else set(range(len(source)))
    one = a.table.lift(1)
    if keepdims:
        return tuple(one if d in reduced else n for d, n in enumerate(source))
    return tuple(n for d, n in enumerate(source) if d not in reduced)


@functools.lru_cache(maxsize=1024)
def _generated(op: str, kinds: str, operand: KernelOperand, out_dtype: str, variant: kernels.Variant) -> KernelSource:
    return kernels.generate(op, [("load", 0)], kinds, [operand], 0, out_dtype, variant=variant)


@lowers(*kernels.OPS)
def _reduce(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    source = b.read(node.inputs[0])
    axes = node.static[0]
    if node.name in ("argmax", "argmin") and not axes:
        axes = tuple(range(len(source.dims)))
    emit_reduction(b, node.name, source, axes, b.result(i), (i,))


def emit_reduction(b: Builder, op: str, source: View, axes: Sequence[int], out: View, covers: Sequence[int]) -> None:
    """A kernel that reduces `axes` of `source` into contiguous `out`."""
    kept = [d for d in range(len(source.dims)) if d not in axes]
    reduced = [d for d in axes if source.dims[d].const != 1]
    if op not in ("argmax", "argmin"):  # those count in the order of the dims
        reduced.sort(key=lambda d: -b.table.value(source.strides[d]))

    def merged(chosen: Sequence[int]) -> tuple[list[Sym], list[Sym]]:
        dims, (strides,) = collapse(b, [source.dims[d] for d in chosen], [[source.strides[d] for d in chosen]])
        return dims, strides

    reduced_dims, reduced_strides = merged(reduced)
    kept_dims, kept_strides = merged(kept)
    if len(kept_dims) == 1 and kept_dims[0].const == 1:
        kept_dims, kept_strides = [], []
    inner_kept = bool(kept_dims) and kept_strides[-1] == 1 and reduced_strides[-1] != 1
    if inner_kept:
        dims, strides = reduced_dims + kept_dims, reduced_strides + kept_strides
        kinds = "r" * len(reduced_dims) + "k" * len(kept_dims)
    else:
        dims, strides = kept_dims + reduced_dims, kept_strides + reduced_strides
        kinds = "k" * len(kept_dims) + "r" * len(reduced_dims)
    access = access_of(b, strides, dims)
    if isinstance(access, str) and any(d.const == 0 for d in dims):
        access = tuple(None for _ in dims)
    variant = kernels.choose_variant(kinds, [b.table.value(d) for d in dims])
    kernel = _generated(op, kinds, KernelOperand(source.dtype, access), out.dtype, variant)
    b.kernel(kernel, dims, [Operand(source, strides)], [Operand(out, out.strides)], covers=covers, label=op)
