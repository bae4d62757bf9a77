"""Rules that make arrays out of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._rules import Array, rule


@rule("full")
def _full(node: Any, value: Array) -> Array:
    out = np.empty(node.shape, node.np_dtype)
    out[...] = value
    return out


@rule("arange")
def _arange(node: Any) -> Array:
    (count,) = node.shape
    start, step = node.ints or node.floats
    counting = np.arange(count, dtype=np.int64 if node.ints else np.float64)
    return (start + counting * step).astype(node.np_dtype)
