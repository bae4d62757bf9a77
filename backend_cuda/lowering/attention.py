"""Attention: a kernel of our own for one query, cuDNN for many, and a general kernel where cuDNN declines.

Results lie as (B, T, H, D) in memory: the heads of a position side by side, as the product that follows takes them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from .. import sdpa
from ..kernels import attention as kernels
from ..kernels.kernel import KernelSource
from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, Operand, lowers
from .elementwise import ProgramWriter, broadcast_strides
from .plan import LibraryNode, View
from .rows import permuted
from .sym import IntLike, Sym


@dim_rule("sdpa")
def _sdpa_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    q, k, v = (a.dims[j] for j in node.inputs[:3])
    equal = [(q[0], k[0]), (q[0], v[0]), (k[1], v[1]), (k[2], v[2]), (q[3], k[3])]
    if node.static[4] == 1:
        equal.append((q[1], k[1]))
    for x, y in equal:
        a.table.equate(x, y)
    return (*q[:3], v[3])


def features_adjacent(b: Builder, j: int) -> View:
    """Operand j with its last stride 1."""
    view = b.read(j)
    adjacent = view.strides[-1] == 1 or view.dims[-1].const == 1
    forwards = all(b.table.value(s) >= 0 for s in view.strides)
    return view if adjacent and forwards else b.read_contiguous(j)


def _like_queries(b: Builder, i: int, q: View) -> View:
    """New memory for the result, in the order of the queries' dims, so that a chain of layers has one layout.

    Row-major queries give a row-major result. Any other, as from a projection, give one with a position's heads side by
    side: the reshape that follows in a model moves nothing.
    """
    batch, heads, queries, features = b.dims(i)
    if queries.const != 1 and b.is_contiguous(q):
        return b.new((batch, heads, queries, features), b.dtype(i))
    memory = b.new((batch, queries, heads, features), b.dtype(i))
    return permuted(memory, (0, 2, 1, 3))


@lowers("sdpa")
def _sdpa(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    require_keys(b, node.inputs[1])
    one_query = b.dims(i)[2].const == 1
    if one_query and b.dtype(i) in kernels.DECODE_DTYPES:
        _own_kernel(b, i, one_query=True)
    elif not _cudnn(b, i):
        _own_kernel(b, i, one_query=False)


def require_keys(b: Builder, k: int) -> None:
    if b.analysis.is_empty(k):
        raise NotImplementedError(
            "[scaled_dot_product_attention] over no keys is not implemented on the GPU: run it with stream=mx.cpu."
        )


# ---- kernels of our own


@functools.lru_cache(maxsize=512)
def _decode_kernel(dtype: str, static: tuple[Any, ...], variant: kernels.DecodeVariant) -> KernelSource:
    mask, has_sinks, head_dim, value_dim, group = static
    return kernels.generate_decode(dtype, head_dim, value_dim, group, mask, has_sinks, variant=variant)


@functools.lru_cache(maxsize=512)
def _rows_kernel(dtype: str, static: tuple[Any, ...]) -> KernelSource:
    mask, has_sinks, head_dim, value_dim, group = static
    return kernels.generate_rows(dtype, head_dim, value_dim, group, mask, has_sinks)


def _own_kernel(b: Builder, i: int, one_query: bool) -> None:
    node = b.tape_nodes[i]
    static = node.static
    mask, has_sinks = static[:2]
    if one_query and mask == "causal":  # the last query sees every key
        static = ("none", *static[1:])
    q, k, v = (features_adjacent(b, j) for j in node.inputs[:3])
    if one_query:
        sizes = (k.dims[0] * k.dims[1], k.dims[2])
        variant = b.table.choose(kernels.choose_decode_variant, b.dtype(i), *static[2:], 1, of=sizes)
        kernel = _decode_kernel(b.dtype(i), static, variant)
    else:
        kernel = _rows_kernel(b.dtype(i), static)
    zero = b.lift(0)
    operands = [
        Operand(q, (q.strides[0], q.strides[1], q.strides[2], zero)),
        *(Operand(x, (x.strides[0], x.strides[1], zero, x.strides[2])) for x in (k, v)),
    ]
    dims = (*b.dims(i)[:3], k.dims[2])
    if mask in ("bool", "additive"):
        view = b.read(node.inputs[3])
        operands.append(Operand(view, broadcast_strides(b, view, dims)))
    if has_sinks:
        operands.append(Operand(b.read_contiguous(node.inputs[-1]), (zero,) * 4))
    out = b.define(i, _like_queries(b, i, q))
    b.kernel(kernel, dims, operands, [Operand(out, out.strides)], scalars=[node.scalar_slot], covers=(i,))


# ---- cuDNN


def _cudnn(b: Builder, i: int) -> bool:
    """A node of cuDNN's, if it takes this attention at the sizes of the call that is lowered.

    Where a gradient will be asked for, it writes the logarithms of the softmax's sums too.
    """
    node = b.tape_nodes[i]
    mask, has_sinks = node.static[:2]
    if b.dtype(i) not in sdpa.DTYPES or not sdpa.can_be_used():
        return False
    views = [features_adjacent(b, j) for j in node.inputs[:3]]
    out = _like_queries(b, i, views[0])
    bias = bias_memory(b, node.inputs[3], views[0], views[1]) if mask in ("bool", "additive") else None
    tensors = [*views, out, *([] if bias is None else [bias])]
    of_sums = sums_of(b, i)
    callback = sdpa.Attention(b.dtype(i), mask == "causal", bias is not None, has_sinks, bool(of_sums))
    library = cudnn_node(b, (i, *of_sums), callback, tensors, node.scalar_slot)
    if library is None:
        return False
    b.define(i, out)
    places = [*views]
    if bias is not None:
        places.append(written_bias(b, node.inputs[3], mask == "bool", bias))
    if has_sinks:
        places.append(_sinks_as_float(b, node.inputs[-1]))
    places.append(out)
    library.outputs = {i: out}
    if of_sums:
        sums = b.result(of_sums[0])
        places.append(sums)
        library.outputs |= {j: b.define(j, sums) for j in of_sums}
    library.places = places
    library.reads = [p.buffer for p in places if p not in library.outputs.values()]
    b.emit(library)
    return True


def sums_of(b: Builder, i: int) -> list[int]:
    """The nodes that want the sums of this attention's softmax, and not those that read its result as their queries."""
    nodes = b.tape_nodes
    return [j for j in b.analysis.consumers[i] if nodes[j].name == "sdpa_lse" and nodes[j].inputs[0] == i]


def cudnn_node(
    b: Builder, covers: Sequence[int], callback: sdpa.Callback, tensors: Sequence[View], slot: int
) -> LibraryNode | None:
    """A node that calls for a graph of cuDNN's, its places still to be named; None if cuDNN declines the call."""
    integers: list[Sym] = [x for view in tensors for x in (*view.dims, *view.strides)]
    try:
        callback.entry_for([b.table.value(x) for x in integers], b.tape.scalars[slot])
    except sdpa.DeclinedError:
        return None
    library = LibraryNode(b.label(covers), tuple(covers))
    library.callback = callback
    library.integers = list[IntLike](integers)
    library.slots = [slot]
    # Calls of one key have one workspace: they follow one another.
    library.writes = [b.token("cuDNN's workspace")]
    return library


def bias_memory(b: Builder, j: int, q: View, k: View) -> View:
    """Memory for mask j as cuDNN takes it, its last two dims written out."""
    given = b.dims(j)
    return b.new((given[0], given[1], q.dims[2], k.dims[2]), q.dtype)


def written_bias(b: Builder, j: int, is_bool: bool, bias: View) -> View:
    """The mask as cuDNN takes it: added to the scores."""
    view = b.read(j)
    writer = ProgramWriter(b, bias.dims)
    dtype = bias.dtype
    value = writer.load(view)
    if is_bool:
        # Finite, so that a query that sees no key gets the average of all, as from the other kernels.
        writer.ints = [b.lift(0), b.lift(-65504 if dtype == "float16" else -(1 << 62))]
        seen, hidden = (writer.instruction(("iota", None, ("int", k), ("int", 0), dtype)) for k in (0, 1))
        value = writer.instruction(("op", "where", (), (value, seen, hidden), ("bool", dtype, dtype), dtype))
    writer.emit([(bias, value)], label="mask")
    return bias


def _sinks_as_float(b: Builder, j: int) -> View:
    view = b.read(j)
    target = b.new(view.dims, "float32")
    writer = ProgramWriter(b, target.dims)
    value = writer.load(view)
    wide = writer.instruction(("op", "astype", (), (value,), (view.dtype,), "float32"))
    writer.emit([(target, wide)], label="sinks")
    return target
