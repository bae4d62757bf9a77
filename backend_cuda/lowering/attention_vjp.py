"""The gradient of attention: by cuDNN, or by kernels of our own where it declines."""

from __future__ import annotations

from collections.abc import Sequence

from .. import sdpa
from ..kernels import attention_vjp as kernels
from ..sdpa_gradient import Gradient
from .analysis import Analysis, Dims, dim_rule
from .attention import bias_memory, cudnn_node, features_adjacent, require_keys, written_bias
from .builder import Builder, Operand, lowers
from .elementwise import broadcast_strides
from .plan import View
from .sym import Sym


@dim_rule("sdpa_lse")
def _lse_dims(a: Analysis, i: int) -> Dims:
    q = a.dims[a.nodes[i].inputs[1]]
    return (*q[:3], a.table.lift(1))


@dim_rule("sdpa_vjp")
def _gradient_dims(a: Analysis, i: int) -> Dims:
    q, k, v = (a.dims[j] for j in a.nodes[i].inputs[:3])
    if a.nodes[i].static[5]:
        a.table.equate(q[2], k[2])
        return (q[0], q[2], q[1] + k[1] + v[1], q[3])
    return (a.numel(q) + a.numel(k) + a.numel(v),)


@lowers("sdpa_lse")
def _lse(b: Builder, i: int) -> None:
    """By a kernel of our own, unless the node of the attention computed it on the way."""
    if b.is_defined(i):
        return
    node = b.tape_nodes[i]
    _, qi, ki, *mask = node.inputs
    require_keys(b, ki)
    q, k = (features_adjacent(b, j) for j in (qi, ki))
    b.read(node.inputs[0])
    source = kernels.generate_lse(b.dtype(qi), node.static[2], node.static[4], node.static[0])
    dims = (*q.dims[:3], k.dims[2])
    operands = [_by_query(b, q), _by_key(b, k), *_masks(b, mask, dims)]
    out = b.result(i)
    b.kernel(source, dims, operands, [Operand(out, ())], scalars=[node.scalar_slot], covers=(i,))


@lowers("sdpa_vjp")
def _gradient(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    require_keys(b, node.inputs[1])
    q, k, v, o, c = (features_adjacent(b, j) for j in (*node.inputs[:3], node.inputs[-3], node.inputs[-1]))
    lse = b.read_contiguous(node.inputs[-2])
    results = _parts(b, b.new(b.dims(i), b.dtype(i)), [q, k, v], node.static[5])
    if not _cudnn(b, i, [q, k, v, o, c], lse, results):
        _own_kernels(b, i, [q, k, v, o, c], lse, results)


def _parts(b: Builder, out: View, like: Sequence[View], packed: bool) -> list[View]:
    """The cotangents of q, k and v in their common memory, (B, H, T, D) each."""
    found = []
    offset = b.lift(0)
    for view in like:
        batch, heads, length, features = view.dims
        position = out.strides[1] if packed else heads * features
        strides = (length * position, features, position, b.lift(1))
        found.append(View(out.buffer, out.dtype, offset, view.dims, strides))
        offset = offset + (heads * features if packed else b.numel((batch, heads, length, features)))
    return found


def _cudnn(b: Builder, i: int, views: list[View], lse: View, results: list[View]) -> bool:
    node = b.tape_nodes[i]
    mask = node.static[0]
    if b.dtype(i) not in sdpa.DTYPES or not sdpa.can_be_used():
        return False
    bias = bias_memory(b, node.inputs[3], views[0], views[1]) if mask == "additive" else None
    callback = Gradient(b.dtype(i), mask == "causal", bias is not None)
    tensors = [*views, *results, *([] if bias is None else [bias])]
    library = cudnn_node(b, (i,), callback, tensors, node.scalar_slot)
    if library is None:
        return False
    places = [*views, lse]
    if bias is not None:
        places.append(written_bias(b, node.inputs[3], False, bias))
    library.reads = [p.buffer for p in places]
    library.places = [*places, *results]
    library.outputs = {i: _defined(b, i, results)}
    b.emit(library)
    return True


def _defined(b: Builder, i: int, results: list[View]) -> View:
    """The node's result: the memory that the cotangents share."""
    whole = b.new(b.dims(i), b.dtype(i))
    return b.define(i, View(results[0].buffer, whole.dtype, whole.offset, whole.dims, whole.strides))


def _own_kernels(b: Builder, i: int, views: list[View], lse: View, results: list[View]) -> None:
    node = b.tape_nodes[i]
    mask, _, head_dim, value_dim, group, _ = node.static
    q, k, v, o, c = views
    dims = (*q.dims[:3], k.dims[2])
    delta = b.new(q.dims[:3], "float32")
    sums, masks = Operand(lse, ()), _masks(b, node.inputs[3:-3], dims)
    by_key = [_by_key(b, a) for a in (k, v)]
    of_queries = kernels.generate_dq(b.dtype(i), head_dim, value_dim, group, mask)
    b.kernel(
        of_queries, dims, [_by_query(b, q), *by_key, _by_query(b, o), _by_query(b, c), sums, *masks],
        [_by_query(b, results[0]), Operand(delta, ())], scalars=[node.scalar_slot], label="sdpa_vjp of the queries",
    )  # fmt: skip
    of_keys = kernels.generate_dkv(b.dtype(i), head_dim, value_dim, group, mask)
    _defined(b, i, results)
    b.kernel(
        of_keys, dims, [_by_query(b, q), *by_key, _by_query(b, c), sums, Operand(delta, ()), *masks],
        [_by_key(b, a) for a in results[1:]], scalars=[node.scalar_slot], covers=(i,),
    )  # fmt: skip


def _by_query(b: Builder, view: View) -> Operand:
    return Operand(view, (*view.strides[:3], b.lift(0)))


def _by_key(b: Builder, view: View) -> Operand:
    return Operand(view, (view.strides[0], view.strides[1], b.lift(0), view.strides[2]))


def _masks(b: Builder, mask: Sequence[int], dims: tuple[Sym, ...]) -> list[Operand]:
    views = [b.read(j) for j in mask]
    return [Operand(view, broadcast_strides(b, view, dims)) for view in views]
