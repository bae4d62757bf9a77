"""Attention: a kernel of our own for one query, cuDNN for many, and a general kernel where cuDNN declines."""

from __future__ import annotations

from .analysis import Analysis, Dims, dim_rule


@dim_rule("sdpa")
def _sdpa_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    q, k, v = (a.dims[j] for j in node.inputs[:3])
    a.table.equate(q[0], k[0])
    a.table.equate(q[0], v[0])
    a.table.equate(k[1], v[1])
    a.table.equate(k[2], v[2])
    a.table.equate(q[3], k[3])
    if node.static[4] == 1:
        a.table.equate(q[1], k[1])
    return (*q[:3], v[3])
