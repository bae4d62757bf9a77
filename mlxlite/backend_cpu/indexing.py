"""Indexing rules. As on CUDA, negative indices wrap and what is still outside is clamped into the array."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._rules import Array, is_half, narrow, rule, widen
from .shape import index_of_slice

_COMBINE: dict[str, Any] = {"add": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def _within(index: Array, n: int) -> Array:
    if index.dtype.kind == "i":
        if index.size and index.min() < 0:
            index = np.where(index < 0, index + n, index)
            np.clip(index, 0, n - 1, out=index)
            return index
    return np.minimum(index, n - 1) if index.size and index.max() >= n else index


def _bits(a: Array) -> Array:
    """The same memory as a dtype that NumPy moves fast."""
    return a.view(np.uint16) if is_half(a.dtype) else a


@rule("gather")
def _gather(node: Any, a: Array, *indices: Array) -> Array:
    axes = node.static[0]
    if 0 in node.shape:
        return np.empty(node.shape, node.np_dtype)
    a = _bits(a)
    if axes == (0,):
        return a.take(_within(indices[0], a.shape[0]), 0).view(node.np_dtype)
    moved = np.moveaxis(a, axes, range(len(axes)))
    found = moved[tuple(_within(i, n) for i, n in zip(indices, moved.shape, strict=False))]
    return np.ascontiguousarray(found).reshape(node.shape).view(node.np_dtype)


@rule("scatter", donates=0)
def _scatter(node: Any, a: Array, updates: Array, *indices: Array, inplace: bool) -> Array:
    axes, mode = node.static
    if updates.size == 0:
        return a
    if mode == "none":
        out = a if inplace else a.copy(order="C")
        moved = np.moveaxis(out, axes, range(len(axes)))
        moved[tuple(_within(i, n) for i, n in zip(indices, moved.shape, strict=False))] = updates
        return out
    wide = widen(a)
    out = wide if wide is not a or inplace else a.copy(order="C")
    moved = np.moveaxis(out, axes, range(len(axes)))
    where = tuple(_within(i, n) for i, n in zip(indices, moved.shape, strict=False))
    if out.dtype.kind == "b":
        combine = {"add": np.logical_or, "prod": np.logical_and, "max": np.logical_or, "min": np.logical_and}[mode]
    else:
        combine = _COMBINE[mode]
    combine.at(moved, where, widen(updates))
    return narrow(out, node.np_dtype)


@rule("take_along_axis")
def _take_along_axis(node: Any, a: Array, indices: Array) -> Array:
    axis = node.static[0]
    if 0 in node.shape:
        return np.empty(node.shape, node.np_dtype)
    index = _within(indices, a.shape[axis]).astype(np.int64, copy=False)
    return np.take_along_axis(_bits(a), index, axis).view(node.np_dtype)


@rule("put_along_axis", donates=0)
def _put_along_axis(node: Any, a: Array, indices: Array, values: Array, *, inplace: bool) -> Array:
    axis, mode = node.static
    if indices.size == 0:
        return a
    index = _within(indices, a.shape[axis]).astype(np.int64, copy=False)
    if mode == "none":
        out = a if inplace else a.copy(order="C")
        np.put_along_axis(out, index, values, axis)
        return out
    wide = widen(a)
    out = wide if wide is not a or inplace else a.copy(order="C")
    where = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    where[axis] = index
    np.add.at(out, tuple(where), widen(values))
    return narrow(out, node.np_dtype)


@rule("slice_update", donates=0)
def _slice_update(node: Any, a: Array, update: Array, *, inplace: bool) -> Array:
    mask, mode = node.static
    ints, rank = node.ints, len(mask)
    out = a if inplace else a.copy(order="C")
    where = tuple(map(index_of_slice, ints[:rank], ints[rank:], update.shape))
    if mode == "none":
        out[where] = update
    else:
        out[where] = narrow(_COMBINE[mode](widen(out[where]), widen(update)), node.np_dtype)
    return out
