"""Attention, of the family `fast`, and its gradient.

In 16-bit floats the gradient is a primitive, `sdpa_vjp`, which never has all scores in memory; it is given the
logarithms of the softmax's sums, `sdpa_lse`. A backend may compute those along with the attention itself. Other dtypes,
boolean masks, and cotangents of masks and sinks are made of products and a softmax: the scores are computed again.
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
from ..gradients import vjp as vjp_of
from ._common import spread, unbroadcast, wide


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


def _scores(node: TracedNode) -> array:
    """scale * q @ k.T with the mask, (B, H, Tq, Tk)."""
    kind = node.static[0]
    q, k = wide(node.inputs[0]), wide(node.inputs[1])
    (scale,) = node.floats
    batch, heads, n_queries, _ = q.shape
    kv_heads, n_keys = k.shape[1:3]
    shape = (batch, heads, n_queries, n_keys)
    product = matmul(_grouped(q, kv_heads), shapes.swapaxes(k, -1, -2))
    scores = ew.multiply(_graph.reshape(product, shape), _graph.scalar(scale, q.dtype))
    visible = _visible(node, n_queries, n_keys)
    if visible is not None:
        # Finite: a query that sees no key gets the average of all.
        return ew.where(visible, scores, float(finfo(scores.dtype).min))
    return ew.add(scores, wide(node.inputs[3])) if kind == "additive" else scores


def _probabilities(node: TracedNode) -> tuple[array, array | None]:
    """The softmax of the scores, (B, H, Tq, Tk), and that of the sinks, (B, H, Tq, 1)."""
    scores = _scores(node)
    batch, heads, n_queries, n_keys = scores.shape
    if not node.static[1]:
        return reductions.softmax(scores, -1), None
    sinks = _graph.reshape(wide(node.inputs[-1]), (1, heads, 1, 1))
    sinks = shapes.broadcast_to(sinks, (batch, heads, n_queries, 1))
    both = reductions.softmax(shapes.concatenate([scores, sinks], -1), -1)
    return shapes.slice_along(both, 3, 0, n_keys), shapes.slice_along(both, 3, n_keys, n_keys + 1)


def _composed_cotangents(node: TracedNode, cotangent: array) -> list[array | None]:
    """The cotangents of q, k, v, mask and sinks, as far as they are wanted, made of products and a softmax."""
    q, k, v = [wide(a) for a in node.inputs[:3]]
    wanted = [source >= 0 for source in node.sources]
    (scale,) = node.floats
    batch, heads, n_queries, _ = q.shape
    kv_heads, n_keys = k.shape[1:3]
    shape = (batch, heads, n_queries, n_keys)
    p, of_sinks = _probabilities(node)
    c = _grouped(wide(cotangent), kv_heads)
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


# ---- the gradient as a primitive


def _is_primitive(node: TracedNode) -> bool:
    """Whether `sdpa_vjp` does what is wanted."""
    kind, has_sinks = node.static[:2]
    n_queries, n_keys = node.inputs[0].shape[2], node.inputs[1].shape[2]
    if node.dtype.size != 2 or has_sinks or any(source >= 0 for source in node.sources[3:]):
        return False
    # A query that sees no key would take part in gradients, which its place in the average of all does not.
    return kind in ("none", "additive") or (kind == "causal" and n_keys >= n_queries > 0)


def _is_packed(q: array, k: array, v: array) -> bool:
    """Whether the cotangents of q, k and v are heads of one array."""
    return q.shape[2:] == k.shape[2:] == v.shape[2:]


def _packed(parts: list[array], packed: bool) -> array:
    """Arrays (B, H, T, D) as one: (B, T, sum of H, D), or (sum of B * T * H * D,) if they do not fit together."""
    turned = [shapes.transpose(a, (0, 2, 1, 3)) for a in parts]
    if packed:
        return shapes.concatenate(turned, 2)
    return shapes.concatenate([_graph.reshape(a, (a.size,)) for a in turned], 0)


def _unpacked(a: array, like: list[array], packed: bool) -> list[array]:
    """What was packed, with the shapes of `like`."""
    found, start = [], 0
    for b in like:
        batch, heads, length, features = b.shape
        stop = start + (heads if packed else b.size)
        if packed and a.shape[2] == len(like) * heads:
            part = shapes.part_of(a, 2, start // heads, len(like))
        else:
            part = shapes.slice_along(a, 2 if packed else 0, start, stop)
        found.append(shapes.transpose(_graph.reshape(part, (batch, length, heads, features)), (0, 2, 1, 3)))
        start = stop
    return found


@vjp("sdpa")
def attention_cotangents(node: TracedNode, cotangent: array) -> list[array | None]:
    """The cotangents of q, k, v, mask and sinks, as far as they are wanted."""
    if not _is_primitive(node):
        return _composed_cotangents(node, cotangent)
    q, k, v, *mask = node.inputs
    batch, heads, n_queries, _ = q.shape
    lse = fast._sdpa_lse.record(
        (node.output, q, k, *mask), (batch, heads, n_queries, 1), _graph.float32, node.static, floats=node.floats
    )
    packed = _is_packed(q, k, v)
    total = sum(a.shape[1] if packed else a.size for a in (q, k, v))
    shape = (batch, n_queries, total, q.shape[3]) if packed else (total,)
    found = fast._sdpa_vjp.record(
        (q, k, v, *mask, node.output, lse, cotangent), shape, node.dtype, (*node.static, packed), floats=node.floats
    )
    return [*_unpacked(found, [q, k, v], packed), *[None] * len(mask)]


class _Stand:
    """An attention node that is no part of a trace, for rules that look at one."""

    def __init__(self, node: TracedNode, inputs: list[array]) -> None:
        self.static, self.floats, self.inputs = node.static[:5], node.floats, inputs
        self.sources = [0, 0, 0, *[-1] * (len(inputs) - 3)]


def _split_inputs(node: TracedNode) -> tuple[list[array], array]:
    """Of `sdpa_vjp`: q, k, v and the mask, and the cotangent. The result of the attention and its sums follow from q, k
    and v, and so have no derivative of their own."""
    *attention, _, _, cotangent = node.inputs
    return attention, cotangent


def _gradient(node: TracedNode, inputs: list[array]) -> array:
    """What `sdpa_vjp` computes, as a function of q, k, v, the mask and the cotangent."""
    *attention, cotangent = inputs
    found = _composed_cotangents(_Stand(node, attention), cotangent)[:3]  # type: ignore[arg-type]
    return _packed([a for a in found if a is not None], node.static[5])


@vjp("sdpa_vjp")
def _gradient_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    attention, given = _split_inputs(node)
    _, found = vjp_of(lambda *inputs: _gradient(node, list(inputs)), [*attention, given], [cotangent])
    return [*found[:-1], None, None, found[-1]]


def _log_sum(node: TracedNode, inputs: list[array]) -> array:
    """What `sdpa_lse` computes, as a function of q, k and the mask."""
    q, k, *mask = inputs
    return reductions.logsumexp(_scores(_Stand(node, [q, k, k, *mask])), -1, True)  # type: ignore[arg-type]


@vjp("sdpa_lse")
def _log_sum_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    _, found = vjp_of(lambda *inputs: _log_sum(node, list(inputs)), node.inputs[1:], [cotangent])
    return [None, *found]


def _fold(a: array) -> array:
    """The mapped axis as a part of the batch."""
    return _graph.reshape(a, (a.shape[0] * a.shape[1], *a.shape[2:]))


def _folded(inputs: list[array], batched: list[bool], size: int, mask_at: int | None) -> list[array]:
    found = []
    for k, (a, b) in enumerate(zip(inputs, batched, strict=True)):
        if k == mask_at and not b and a.shape[0] == 1:
            found.append(a)
            continue
        a = spread(a, b, size)
        if k == mask_at:  # broadcasts over the batch, which is another one now
            a = shapes.broadcast_to(a, (size, inputs[0].shape[1] if batched[0] else inputs[0].shape[0], *a.shape[2:]))
        found.append(_fold(a))
    return found


@vmap("sdpa_lse")
def _log_sum_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    folded = _folded(inputs, batched, size, 3 if len(inputs) > 3 else None)
    shape = (*folded[0].shape[:3], 1)
    found = fast._sdpa_lse.record(folded, shape, node.dtype, node.static, floats=node.floats)
    return _graph.reshape(found, (size, -1, *shape[1:]))


@vmap("sdpa_vjp")
def _gradient_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    folded = _folded(inputs, batched, size, 3 if len(inputs) > 6 else None)
    packed = node.static[5]
    shape = (size * node.shape[0], *node.shape[1:])
    found = fast._sdpa_vjp.record(folded, shape, node.dtype, node.static, floats=node.floats)
    if packed:
        return _graph.reshape(found, (size, *node.shape))
    parts = _unpacked(found, folded[:3], packed)
    rows = [_graph.reshape(shapes.transpose(a, (0, 2, 1, 3)), (size, a.size // size)) for a in parts]
    return shapes.concatenate(rows, 1)


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
