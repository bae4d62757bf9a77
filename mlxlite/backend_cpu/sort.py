"""Sorting rules: stable, NaN last. The greatest elements are given in the order in which they are."""

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


def _greatest(node: Any, a: Array) -> Array:
    (axis,) = node.static
    n = a.shape[axis]
    order = np.argsort(widen(a), axis=axis, kind="stable").take(range(n - node.shape[axis], n), axis)
    return np.sort(order, axis=axis)


@rule("topk")
def _topk(node: Any, a: Array) -> Array:
    return np.take_along_axis(a, _greatest(node, a), node.static[0])


@rule("argtopk")
def _argtopk(node: Any, a: Array) -> Array:
    return _greatest(node, a).astype(node.np_dtype)
