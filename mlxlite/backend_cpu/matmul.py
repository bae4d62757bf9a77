"""Matrix products, by BLAS. 16-bit floats are multiplied as float32 and rounded once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._rules import BFLOAT16, Array, is_half, narrow, rule, widen


def product(a: Array, b: Array) -> Array:
    """a @ b, batch dims broadcast. A transposed view reaches BLAS as it is, without a copy."""
    if a.ndim > 2 and math.prod(b.shape[:-2]) == 1:
        # One matrix for the whole batch: one large product instead of many small ones.
        rows = math.prod(a.shape[:-1])
        out = np.matmul(a.reshape(rows, a.shape[-1]), b.reshape(b.shape[-2:]))
        extra = (1,) * (b.ndim - a.ndim)
        return out.reshape(extra + a.shape[:-1] + b.shape[-1:])
    return np.matmul(a, b)


# A few rows times a 16-bit weight: converting the weight costs more than the product, and least in blocks that stay in
# cache. Beyond this many rows the product dominates.
_FEW_ROWS = 16
_BLOCK = 1 << 18  # elements of the weight converted at a time


def _few_rows_product(a: Array, b: Array) -> Array:
    """a @ b as float32, for a (rows, K) float32 and a transposed 16-bit weight b (K, N)."""
    weight = b.T
    out = np.empty((a.shape[0], weight.shape[0]), np.float32)
    step = max(1, _BLOCK // weight.shape[1])
    block = np.empty((min(step, weight.shape[0]), weight.shape[1]), np.float32)
    bits = weight.view(np.uint16) if weight.dtype == BFLOAT16 else None
    for start in range(0, weight.shape[0], step):
        stop = min(start + step, weight.shape[0])
        part = block[: stop - start]
        if bits is not None:
            np.left_shift(bits[start:stop], 16, out=part.view(np.uint32), dtype=np.uint32, casting="unsafe")
        else:
            part[...] = weight[start:stop]
        np.matmul(a, part.T, out=out[:, start:stop])
    return out


@rule("matmul")
def _matmul(node: Any, a: Array, b: Array) -> Array:
    if is_half(b.dtype):
        rows = math.prod(a.shape[:-1])
        if b.ndim == 2 and b.flags.f_contiguous and 0 < rows <= _FEW_ROWS and b.size >= _BLOCK:
            out = _few_rows_product(widen(a.reshape(rows, a.shape[-1])), b)
            return out.reshape(node.shape).astype(node.np_dtype)
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
