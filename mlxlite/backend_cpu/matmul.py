"""Matrix products, by BLAS. 16-bit floats are multiplied as float32 and rounded once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._rules import Array, narrow, rule, widen


def product(a: Array, b: Array) -> Array:
    """a @ b, batch dims broadcast. A transposed view reaches BLAS as it is, without a copy."""
    if a.ndim > 2 and math.prod(b.shape[:-2]) == 1:
        # One matrix for the whole batch: one large product instead of many small ones.
        rows = math.prod(a.shape[:-1])
        out = np.matmul(a.reshape(rows, a.shape[-1]), b.reshape(b.shape[-2:]))
        extra = (1,) * (b.ndim - a.ndim)
        return out.reshape(extra + a.shape[:-1] + b.shape[-1:])
    return np.matmul(a, b)


@rule("matmul")
def _matmul(node: Any, a: Array, b: Array) -> Array:
    return narrow(product(widen(a), widen(b)), node.np_dtype)


@rule("addmm")
def _addmm(node: Any, c: Array, a: Array, b: Array) -> Array:
    alpha, beta = node.floats
    out = product(widen(a), widen(b))
    if alpha != 1:
        out *= out.dtype.type(alpha)
    if beta != 0:
        c = widen(c)
        out += c if beta == 1 else c * out.dtype.type(beta)
    return narrow(out, node.np_dtype)
