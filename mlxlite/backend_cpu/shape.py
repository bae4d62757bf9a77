"""Rules that rearrange. Views stay views: a NumPy view holds its base, which is how the plan knows of sharing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._rules import Array, rule


@rule("reshape")
def _reshape(node: Any, a: Array) -> Array:
    return a.reshape(node.shape)


@rule("transpose")
def _transpose(node: Any, a: Array) -> Array:
    return a.transpose(node.static[0])


@rule("broadcast_to")
def _broadcast_to(node: Any, a: Array) -> Array:
    return np.broadcast_to(a, node.shape)


@rule("slice")
def _slice(node: Any, a: Array) -> Array:
    ints, shape = node.ints, node.shape
    rank = len(shape)
    return a[tuple(map(index_of_slice, ints[:rank], ints[rank:], shape))]


def index_of_slice(start: int, step: int, count: int) -> slice:
    """The Python slice of `count` elements from `start`."""
    if count == 0:
        return slice(0, 0)
    stop: int | None = start + count * step
    return slice(start, None if stop is not None and stop < 0 else stop, step)


@rule("concatenate")
def _concatenate(node: Any, *arrays: Array) -> Array:
    return np.concatenate(arrays, axis=node.static[0])


@rule("copy", "contiguous")
def _copy(node: Any, a: Array) -> Array:
    return a.copy(order="C")


@rule("view")
def _view(node: Any, a: Array) -> Array:
    return np.ascontiguousarray(a).view(node.np_dtype).reshape(node.shape)
