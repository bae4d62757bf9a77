"""Sorting rules: stable, NaN last."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._rules import Array, narrow, rule, widen


@rule("sort")
def _sort(node: Any, a: Array) -> Array:
    return narrow(np.sort(widen(a), axis=node.static[0], kind="stable"), node.np_dtype)


@rule("argsort")
def _argsort(node: Any, a: Array) -> Array:
    return np.argsort(widen(a), axis=node.static[0], kind="stable").astype(node.np_dtype)
