"""Attention and its gradient, computed in float32 (float64 for float64)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ._rules import Array, narrow, rule, widen

# Scores of at most this many elements are held at a time.
_SCORES = 1 << 22


@rule("sdpa")
def _sdpa(node: Any, q: Array, k: Array, v: Array, *more: Array) -> Array:
    has_sinks = node.static[1]
    batch, heads, n_queries, _ = q.shape
    n_keys = k.shape[2]
    v = widen(v)
    out = np.empty((batch, heads, n_queries, v.shape[-1]), v.dtype)
    sinks = widen(more[-1]).reshape(heads, 1, 1) if has_sinks else None
    for b, head, chosen, rows, scores in _scores(node, q, k, more):
        greatest = scores.max(axis=-1, keepdims=True) if n_keys else np.full((*scores.shape[:2], 1), -np.inf)
        if sinks is not None:
            greatest = np.maximum(greatest, sinks[chosen])
        np.subtract(scores, greatest, out=scores)
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        if sinks is not None:
            total += np.exp(sinks[chosen] - greatest)
        product = scores.reshape(-1, n_keys) @ v[b, head]
        out[b, chosen, rows] = product.reshape(*scores.shape[:2], v.shape[-1]) / total
    return narrow(out, node.np_dtype)


def _scores(node: Any, q: Array, k: Array, more: Sequence[Array]) -> Iterator[tuple[int, int, slice, slice, Array]]:
    """Batch, head of the keys, its heads and rows of the queries, and their scores with the mask, (heads, rows, Tk)."""
    kind = node.static[0]
    (scale,) = node.floats
    batch, heads, n_queries, _ = q.shape
    kv_heads, n_keys = k.shape[1:3]
    group = heads // kv_heads
    q, k = widen(q), widen(k)
    mask = np.broadcast_to(more[0], (batch, heads, n_queries, n_keys)) if kind in ("bool", "additive") else None
    step = max(1, _SCORES // max(1, group * n_keys))
    for b, head, start in itertools.product(range(batch), range(kv_heads), range(0, n_queries, step)):
        chosen = slice(head * group, (head + 1) * group)
        rows = slice(start, min(start + step, n_queries))
        part = q[b, chosen, rows]
        scores = (part.reshape(-1, part.shape[-1]) @ k[b, head].T).reshape(*part.shape[:2], n_keys)
        scores *= scores.dtype.type(scale)
        hidden = np.finfo(scores.dtype).min  # finite: a query that sees no key gets the average of all
        if kind == "causal":
            last = np.arange(rows.start, rows.stop)[:, None] + (n_keys - n_queries)
            scores[:, np.arange(n_keys) > last] = hidden
        elif kind == "bool":
            assert mask is not None
            scores[~mask[b, chosen, rows]] = hidden
        elif mask is not None:
            scores += widen(mask[b, chosen, rows])
        yield b, head, chosen, rows, scores


@rule("sdpa_lse")
def _sdpa_lse(node: Any, out: Array, q: Array, k: Array, *mask: Array) -> Array:
    found = np.empty((*q.shape[:3], 1), node.np_dtype)
    for b, _, chosen, rows, scores in _scores(node, q, k, mask):
        greatest = scores.max(axis=-1, keepdims=True)
        found[b, chosen, rows] = greatest + np.log(np.exp(scores - greatest).sum(axis=-1, keepdims=True))
    return found


@rule("sdpa_vjp")
def _sdpa_vjp(node: Any, q: Array, k: Array, v: Array, *more: Array) -> Array:
    *mask, out, lse, cotangent = more
    (scale,) = node.floats
    wide_q, wide_k, wide_v, wide_c = widen(q), widen(k), widen(v), widen(cotangent)
    total = (wide_c * widen(out)).sum(axis=-1, keepdims=True)
    dq, dk, dv = np.zeros(q.shape, wide_q.dtype), np.zeros(k.shape, wide_k.dtype), np.zeros(v.shape, wide_v.dtype)
    for b, head, chosen, rows, scores in _scores(node, q, k, mask):
        n_keys = scores.shape[-1]
        p = np.exp(scores - lse[b, chosen, rows])
        c, queries = (a[b, chosen, rows].reshape(-1, a.shape[-1]) for a in (wide_c, wide_q))
        dv[b, head] += p.reshape(-1, n_keys).T @ c
        ds = p * ((c @ wide_v[b, head].T).reshape(p.shape) - total[b, chosen, rows])
        ds *= ds.dtype.type(scale)
        rows_of_ds = ds.reshape(-1, n_keys)
        dq[b, chosen, rows] = (rows_of_ds @ wide_k[b, head]).reshape(*p.shape[:2], -1)
        dk[b, head] += rows_of_ds.T @ queries
    turned = [a.transpose(0, 2, 1, 3) for a in (dq, dk, dv)]
    packed = node.static[5]
    found = np.concatenate(turned, axis=2) if packed else np.concatenate([a.reshape(-1) for a in turned])
    return narrow(found, node.np_dtype)
