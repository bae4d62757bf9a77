"""CPU rules of the indexing primitives."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._rules import Array, rule

_COMBINE: dict[str, Any] = {"add": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


@rule("gather")
def _(node: Any, a: Array, *indices: Array) -> Array:
    axes = node.static[0]
    others = tuple(d for d in range(a.ndim) if d not in axes)
    return a.transpose(*axes, *others)[tuple(i.astype(np.int64) for i in indices)]


@rule("scatter", donates=0)
def _(node: Any, a: Array, updates: Array, *indices: Array, inplace: bool) -> Array:
    axes, mode = node.static
    out = a if inplace else a.copy()
    others = tuple(d for d in range(a.ndim) if d not in axes)
    view = out.transpose(*axes, *others)
    where = tuple(i.astype(np.int64) for i in indices)
    if mode == "none":
        view[where] = updates
    else:
        _COMBINE[mode].at(view, where, updates)
    return out


@rule("take_along_axis")
def _(node: Any, a: Array, indices: Array) -> Array:
    return np.take_along_axis(a, indices.astype(np.int64), axis=node.static[0])


@rule("put_along_axis", donates=0)
def _(node: Any, a: Array, indices: Array, values: Array, *, inplace: bool) -> Array:
    axis, mode = node.static
    out = a if inplace else a.copy()
    if mode == "none":
        np.put_along_axis(out, indices.astype(np.int64), values, axis)
        return out
    grid = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[axis] = indices.astype(np.int64)
    _COMBINE[mode].at(out, tuple(grid), values)
    return out


def region(starts: tuple[int, ...], steps: tuple[int, ...], counts: tuple[int, ...]) -> tuple[slice, ...]:
    """The NumPy slices of a strided region."""
    result = []
    for start, step, count in zip(starts, steps, counts, strict=True):
        stop = start + step * count
        result.append(slice(start, None if stop < 0 else stop, step))
    return tuple(result)


@rule("slice_update", donates=0)
def _(node: Any, a: Array, update: Array, *, inplace: bool) -> Array:
    out = a if inplace else a.copy()
    ints = node.ints
    where = region(ints[: a.ndim], ints[a.ndim :], update.shape)
    if node.static[1] == "none":
        out[where] = update
    else:
        out[where] = _COMBINE[node.static[1]](out[where], update)
    return out
