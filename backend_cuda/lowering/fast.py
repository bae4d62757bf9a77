"""Softmax and normalisation: kernels that take a row at a time."""

from __future__ import annotations

import functools

from ..kernels import normalize as kernels
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .elementwise import ProgramWriter
from .rows import Rows, read_rows, result_rows


@dim_rule("softmax", "rms_norm", "layer_norm")
def _same_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    dims = a.dims[node.inputs[0]]
    if node.name in ("rms_norm", "layer_norm"):
        for j in node.inputs[1:]:
            a.table.equate(dims[-1], a.dims[j][0])
    return dims


@functools.lru_cache(maxsize=256)
def _softmax_kernel(dtype: str, variant: kernels.Variant) -> KernelSource:
    return kernels.generate_softmax(dtype, variant)


@functools.lru_cache(maxsize=256)
def _norm_kernel(name: str, dtype: str, static: tuple[bool, ...], variant: kernels.Variant) -> KernelSource:
    if name == "rms_norm":
        return kernels.generate_rms_norm(dtype, dtype if static[0] else None, variant)
    return kernels.generate_layer_norm(dtype, dtype if static[0] else None, dtype if static[1] else None, variant)


def _variant(b: Builder, rows: Rows) -> kernels.Variant:
    return b.table.choose(kernels.choose_variant, rows.view.dtype, of=(rows.rows, rows.n))


@lowers("softmax")
def _softmax(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    axes = node.static[0]
    if not axes:
        _softmax_of_one(b, i)
        return
    if b.dtype(i) not in ("float16", "bfloat16", "float32", "float64", "complex64"):
        raise NotImplementedError(
            f"[softmax] of {b.dtype(i)} over axes {axes} is not implemented on the GPU: run it with stream=mx.cpu."
        )
    source = read_rows(b, node.inputs[0], axes)
    kernel = _softmax_kernel(b.dtype(i), _variant(b, source))
    out = result_rows(b, i, axes)
    b.kernel(kernel, [source.rows, source.n], [source.operand], [Operand(out, (source.n, 1))], covers=(i,))


def _softmax_of_one(b: Builder, i: int) -> None:
    """exp(x - x) of a 0-d array: 1, or NaN if x is not finite."""
    writer = ProgramWriter(b, b.dims(i))
    dtype = b.dtype(i)
    x = writer.operand(b.tape_nodes[i].inputs[0])
    zero = writer.instruction(("op", "subtract", (), (x, x), (dtype, dtype), dtype))
    one = writer.instruction(("op", "exp", (), (zero,), (dtype,), dtype))
    writer.emit([(b.result(i), one)], covers=(i,))


@lowers("rms_norm", "layer_norm")
def _norm(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    last = len(b.dims(i)) - 1
    source = read_rows(b, node.inputs[0], (last,))
    operands = [source.operand]
    operands += [Operand(b.read_contiguous(j), (0, 1)) for j in node.inputs[1:]]
    kernel = _norm_kernel(node.name, b.dtype(i), node.static, _variant(b, source))
    out = result_rows(b, i, (last,))
    b.kernel(
        kernel,
        [source.rows, source.n],
        operands,
        [Operand(out, (source.n, 1))],
        scalars=[node.scalar_slot],
        covers=(i,),
    )
