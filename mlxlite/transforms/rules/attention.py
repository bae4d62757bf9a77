"""Attention, of the family `fast`. Its gradient is made of products and a softmax: the scores are computed again.

`attention_cotangents` is all that a primitive of its own would have to replace.
"""

from __future__ import annotations

from ... import _graph
from ..._graph import TracedNode, array
from ...core import creation, fast
from ...core import elementwise as ew
from ...core import reduce as reductions
from ...core import shape as shapes
from ...core.dtypes import finfo
from ...core.matmul import matmul
from .._tables import vjp, vmap
from ._common import spread, unbroadcast


def _wide(a: array) -> array:
    return _graph.astype(a, _graph.float32) if a.dtype.size == 2 else a


def _grouped(a: array, kv_heads: int) -> array:
    """(B, H, T, D) as (B, KV, G * T, D): the queries that share a head of keys are one matrix."""
    batch, heads, length, features = a.shape
    return _graph.reshape(a, (batch, kv_heads, heads // kv_heads * length, features))


def _visible(node: TracedNode, n_queries: int, n_keys: int) -> array | None:
    """Which scores count, broadcasting to (B, H, Tq, Tk); None for all."""
    kind = node.static[0]
    if kind == "bool":
        return node.inputs[3]
    if kind != "causal":
        return None
    last = creation.arange(n_keys - n_queries, n_keys, dtype=_graph.int32)
    return ew.less_equal(creation.arange(n_keys, dtype=_graph.int32), _graph.reshape(last, (n_queries, 1)))


def _probabilities(node: TracedNode) -> tuple[array, array | None]:
    """The softmax of the scores, (B, H, Tq, Tk), and that of the sinks, (B, H, Tq, 1)."""
    kind, has_sinks = node.static[:2]
    q, k = _wide(node.inputs[0]), _wide(node.inputs[1])
    (scale,) = node.floats
    batch, heads, n_queries, _ = q.shape
    kv_heads, n_keys = k.shape[1:3]
    shape = (batch, heads, n_queries, n_keys)
    product = matmul(_grouped(q, kv_heads), shapes.swapaxes(k, -1, -2))
    scores = ew.multiply(_graph.reshape(product, shape), _graph.scalar(scale, q.dtype))
    visible = _visible(node, n_queries, n_keys)
    if visible is not None:
        # Finite: a query that sees no key gets the average of all.
        scores = ew.where(visible, scores, float(finfo(scores.dtype).min))
    elif kind == "additive":
        scores = ew.add(scores, _wide(node.inputs[3]))
    if not has_sinks:
        return reductions.softmax(scores, -1), None
    sinks = _graph.reshape(_wide(node.inputs[-1]), (1, heads, 1, 1))
    sinks = shapes.broadcast_to(sinks, (batch, heads, n_queries, 1))
    both = reductions.softmax(shapes.concatenate([scores, sinks], -1), -1)
    return shapes.slice_along(both, 3, 0, n_keys), shapes.slice_along(both, 3, n_keys, n_keys + 1)


def attention_cotangents(node: TracedNode, cotangent: array) -> list[array | None]:
    """The cotangents of q, k, v, mask and sinks, as far as they are wanted."""
    q, k, v = [_wide(a) for a in node.inputs[:3]]
    wanted = [source >= 0 for source in node.sources]
    (scale,) = node.floats
    batch, heads, n_queries, _ = q.shape
    kv_heads, n_keys = k.shape[1:3]
    shape = (batch, heads, n_queries, n_keys)
    p, of_sinks = _probabilities(node)
    c = _grouped(_wide(cotangent), kv_heads)
    of_v = matmul(shapes.swapaxes(_grouped(p, kv_heads), -1, -2), c) if wanted[2] else None
    found: list[array | None] = [None, None, of_v]
    if any(wanted[:2]) or any(wanted[3:]):
        dp = _graph.reshape(matmul(c, shapes.swapaxes(v, -1, -2)), shape)
        total = reductions.sum(ew.multiply(dp, p), -1, True)
        ds = ew.multiply(p, ew.subtract(dp, total))
        visible = _visible(node, n_queries, n_keys)
        if visible is not None:
            ds = ew.where(visible, ds, 0)
        scaled = _grouped(ew.multiply(ds, _graph.scalar(scale, ds.dtype)), kv_heads)
        if wanted[0]:
            found[0] = _graph.reshape(matmul(scaled, k), q.shape)
        if wanted[1]:
            found[1] = matmul(shapes.swapaxes(scaled, -1, -2), _grouped(q, kv_heads))
        if node.static[0] == "additive":
            found.append(unbroadcast(ds, node.inputs[3].shape) if wanted[3] else None)
        elif node.static[0] == "bool":
            found.append(None)
        if of_sinks is not None:
            by_sinks = ew.negative(reductions.sum(ew.multiply(of_sinks, total), (0, 2, 3)))
            found.append(by_sinks if wanted[-1] else None)
    found += [None] * (len(wanted) - len(found))
    return [None if x is None else _graph.astype(x, a.dtype) for x, a in zip(found, node.inputs, strict=True)]


vjp("sdpa")(attention_cotangents)


@vmap("sdpa")
def _sdpa_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    kind, has_sinks = node.static[:2]
    q, k, v = [spread(a, b, size) for a, b in zip(inputs[:3], batched[:3], strict=True)]
    more, of_more = inputs[3:], batched[3:]
    batch, heads = q.shape[1:3]
    # The mapped axis becomes a part of the batch; of the heads, where each element has sinks of its own.
    into_heads = has_sinks and of_more[-1]

    def fold(a: array) -> array:
        if into_heads:
            a = shapes.moveaxis(a, 0, 1)
            return _graph.reshape(a, (a.shape[0], size * a.shape[2], *a.shape[3:]))
        return _graph.reshape(a, (size * a.shape[1], *a.shape[2:]))

    rest = []
    if kind in ("bool", "additive"):
        mask = more[0]
        if of_more[0] or into_heads or mask.shape[0] != 1:
            mask = spread(mask, of_more[0], size)
            b, h = mask.shape[1:3]
            mask = shapes.broadcast_to(
                mask, (size, b if into_heads else batch, heads if into_heads else h, *mask.shape[3:])
            )
            mask = fold(mask)
        rest.append(mask)
    if has_sinks:
        rest.append(_graph.reshape(more[-1], (size * heads,)) if into_heads else more[-1])
    q, k, v = fold(q), fold(k), fold(v)
    shape = (*q.shape[:3], v.shape[3])
    out = fast._sdpa.record((q, k, v, *rest), shape, node.dtype, node.static, floats=node.floats)
    if into_heads:
        return shapes.moveaxis(_graph.reshape(out, (batch, size, heads, *out.shape[2:])), 1, 0)
    return _graph.reshape(out, (size, batch, *out.shape[1:]))
