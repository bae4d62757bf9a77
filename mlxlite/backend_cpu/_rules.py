"""The table of CPU rules, and how 16-bit floats are computed with.

A rule is a function `rule(node, *inputs) -> ndarray`. It never writes into its inputs, unless it is declared with
`donates=k`: then it takes a keyword `inplace`, and may write into input k and return it when that is true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT16 = np.dtype(np.float16)
FLOAT32 = np.dtype(np.float32)


class Rule(NamedTuple):
    function: Callable[..., Any]
    donates: int | None  # the input that may be overwritten


RULES: dict[str, Rule] = {}


def rule(*names: str, donates: int | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function the CPU rule of the primitives called `names`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            if name in RULES:
                raise ValueError(f"two CPU rules for {name!r}")
            RULES[name] = Rule(function, donates)
        return function

    return register


def is_half(dtype: np.dtype[Any]) -> bool:
    return dtype in (BFLOAT16, FLOAT16)


def widen(a: Array) -> Array:
    """`a` to compute with: 16-bit floats become float32, anything else is returned as it is."""
    if a.dtype == BFLOAT16:
        # A bfloat16 is the upper half of a float32. The shift keeps strides, and is faster than a cast on large arrays.
        bits = a.view(np.uint16).astype(np.uint32)
        bits <<= 16
        return bits.view(FLOAT32)
    return a.astype(FLOAT32) if a.dtype == FLOAT16 else a


def narrow(a: Array, dtype: np.dtype[Any]) -> Array:
    """The result of a computation, rounded to the node's dtype."""
    return a if a.dtype == dtype else a.astype(dtype)
