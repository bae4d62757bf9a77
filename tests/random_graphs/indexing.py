"""Gathers, scatters and updates; updates in place, of memory that may be donated."""

from __future__ import annotations

from typing import Any

import numpy as np

import mlxlite.core as mx

from .draw import Dims, Draw, Value, is_exact, is_inexact
from .shape import has_dims, index, moved

INDEX_DTYPES = ("int32", "uint32", "int64")


def places(draw: Draw, d: str, dims: Dims, distinct: bool = False) -> Any:
    """Indices of a dim, of dims; some of them from the end, if their dtype is signed."""
    n, shape = draw.extents[d].size, draw.shape(dims)
    if distinct:
        values = draw.numbers.permutation(n)[: int(np.prod(shape))].reshape(shape)
    else:
        values = draw.numbers.integers(0, n, shape)
    dtype = draw.choose.choice(INDEX_DTYPES)
    if dtype != "uint32":
        values = np.where(draw.numbers.random(shape) < 0.3, values - n, values)
    return mx.array(values.astype(dtype))


def take(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims)
    axis = draw.choose.randrange(len(x.dims))
    wanted: Dims = draw.choose.choice((("3",), ("b", "c"), (), ("a",)))
    dims = (*x.dims[:axis], *wanted, *x.dims[axis + 1 :])
    if not draw.fits(dims):
        return None
    rows = places(draw, x.dims[axis], wanted)
    return moved(draw, f"take({x.name}, {draw.shape(wanted)} of {axis})", mx.take(x.array, rows, axis=axis), dims, x)


def gather(draw: Draw) -> Value | None:
    """At places along two axes, beside slices."""
    x = draw.pick_any(lambda v: len(v.dims) > 1)
    first, second = places(draw, x.dims[0], ("3",)), places(draw, x.dims[1], ("8", "1"))
    dims = ("8", "3", *x.dims[2:])
    return moved(draw, f"{x.name}[i, j]", x.array[first, second], dims, x) if draw.fits(dims) else None


def along(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims)
    axis = draw.choose.randrange(len(x.dims))
    wanted = (*x.dims[:axis], "3", *x.dims[axis + 1 :])
    if not draw.fits(wanted):
        return None
    rows = places(draw, x.dims[axis], wanted)
    array = mx.take_along_axis(x.array, rows, axis=axis)
    return moved(draw, f"take_along_axis({x.name}, {axis})", array, wanted, x)


def put_along(draw: Draw) -> Value | None:
    """Each row gets a value at one place."""
    x = draw.pick_any(has_dims)
    axis = draw.choose.randrange(len(x.dims))
    wanted = (*x.dims[:axis], "1", *x.dims[axis + 1 :])
    rows, y = places(draw, x.dims[axis], wanted), draw.leaf(x.dtype, wanted)
    array = mx.put_along_axis(x.array, rows, y.array, axis=axis)
    bound = max(x.bound, y.bound)
    return draw.result(f"put_along_axis({x.name}, {axis}, {y.name})", array, x.dims, bound, x.error, exact=True)


def scatter(draw: Draw) -> Value | None:
    """Rows are added, or compared with those that are there; several may meet at one place."""
    x = draw.pick_any(has_dims, lambda v: v.dtype not in ("bool", "complex64"))
    if not x.dims:
        return None
    name = draw.choose.choice(("add", "add", "subtract", "multiply", "maximum", "minimum"))
    if name == "multiply" and is_inexact(x):
        name = "add"
    rows, y = places(draw, x.dims[0], ("8",)), draw.leaf(x.dtype, ("8", *x.dims[1:]))
    if not draw.fits(y.dims):
        return None
    array = getattr(x.array.at[rows], name)(y.array)
    text = f"{x.name}.at[8 rows].{name}({y.name})"
    if name in ("add", "subtract"):
        bound = x.bound + 8 * y.bound
        return draw.result(text, array, x.dims, bound, x.error + 8 * bound * draw_unit(x))
    return draw.result(text, array, x.dims, max(x.bound, y.bound), x.error, exact=True)


def draw_unit(x: Value) -> float:
    """The rounding of one addition in the dtype of x; 0 for integers."""
    return {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}.get(x.dtype, 0.0)


def assign(draw: Draw) -> Value | None:
    """An update in place: of a value that nobody else reads any more, or of one that is still read."""
    x = draw.pick_any(has_dims)
    alone = draw.choose.random() < 0.6
    if alone and x in draw.values:
        draw.values.remove(x)
    if draw.choose.random() < 0.5:
        mx.eval(x.array)
    target = x.array if alone else mx.array(x.array)
    kind = draw.choose.randrange(4)
    y = None
    if kind == 0 and draw.extents[x.dims[0]].least >= 4:
        rows, y = places(draw, x.dims[0], ("3",), distinct=True), draw.leaf(x.dtype, x.dims[1:])
        target[rows] = y.array
        text = "3 rows"
    elif kind == 1 and is_exact(x) and x.dtype not in ("bool", "complex64"):
        target[target > 1] = 1
        text = "> 1"
    elif kind == 2:
        items, _ = index(draw, x)
        target[items] = 1
        text = "a slice"
    else:
        items, dims = index(draw, x)
        y = draw.leaf(x.dtype, dims)
        target[items] = y.array
        text = "a slice"
    bound = max(x.bound, 2, y.bound if y else 0)
    what = f"{x.name}{'' if alone else ' copied'}[{text}] = {y.name if y else 1}"
    return draw.result(what, target, x.dims, bound, x.error, exact=True)


def dynamic(draw: Draw) -> Value | None:
    """A slice whose start is an array."""
    x = draw.pick_any(has_dims)
    axis = draw.choose.randrange(len(x.dims))
    extent = draw.extents[x.dims[axis]]
    if extent.least < 4:
        return None
    start = mx.array([int(draw.numbers.integers(0, extent.size - 2))], dtype=mx.int32)
    dims = (*x.dims[:axis], "3", *x.dims[axis + 1 :])
    if draw.choose.random() < 0.5:
        array = mx.slice(x.array, start, (axis,), draw.shape(dims))
        return moved(draw, f"slice({x.name}, start, {axis})", array, dims, x)
    y = draw.leaf(x.dtype, dims)
    array = mx.slice_update(x.array, y.array, start, (axis,))
    text = f"slice_update({x.name}, {y.name}, start, {axis})"
    return draw.result(text, array, x.dims, max(x.bound, y.bound), x.error, exact=True)


STEPS = (take, take, gather, along, put_along, scatter, scatter, assign, assign, assign, dynamic)
