"""Random bits."""

from __future__ import annotations

import functools

from ..kernels import random as kernels
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers


@dim_rule("random_bits")
def _random_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    keys = a.dims[node.inputs[0]][:-1]
    return (*keys, *(a.fresh(i, d) for d in range(len(keys), len(node.shape))))


@functools.cache
def _kernel(width: int) -> KernelSource:
    return kernels.generate_random_bits(width)


@lowers("random_bits")
def _random_bits(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    keys = b.read_contiguous(node.inputs[0])
    n_keys = len(keys.dims) - 1
    dims = b.dims(i)
    out = b.result(i)
    b.kernel(
        _kernel(node.static[0]),
        [b.numel(dims[:n_keys]), b.numel(dims[n_keys:])],
        [Operand(keys, ())],
        [Operand(out, ())],
        covers=(i,),
    )
