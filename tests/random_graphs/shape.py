"""Ops that move elements, of any dtype; and arrays that are made of nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlxlite.core as mx

from .draw import FLOATS, Dims, Draw, Value, is_exact


def moved(draw: Draw, text: str, array: Any, dims: Dims, x: Value) -> Value | None:
    """Elements of x elsewhere."""
    return draw.result(text, array, dims, x.bound, x.error, exact=True)


def has_dims(v: Value) -> bool:
    return len(v.dims) > 0


def transpose(draw: Draw) -> Value | None:
    x = draw.pick_any(lambda v: len(v.dims) > 1)
    order = draw.choose.sample(range(len(x.dims)), len(x.dims))
    dims = tuple(x.dims[i] for i in order)
    return moved(draw, f"transpose({x.name}, {order})", mx.transpose(x.array, order), dims, x)


def reshape(draw: Draw) -> Value | None:
    """Neighbours become one dim; or dims of 1 come and go."""
    x = draw.pick_any(has_dims)
    start = draw.choose.randrange(len(x.dims))
    stop = draw.choose.randint(start + 1, len(x.dims))
    dims = (*x.dims[:start], draw.merged(x.dims[start:stop]), *x.dims[stop:])
    if draw.choose.random() < 0.3:
        dims = tuple(d for d in x.dims if d != "1")
        dims = dims if draw.choose.random() < 0.5 else ("1", *dims)
    return moved(draw, f"reshape({x.name}, {draw.shape(dims)})", x.array.reshape(draw.shape(dims)), dims, x)


def broadcast(draw: Draw) -> Value | None:
    x = draw.pick_any()
    dims = tuple(draw.choose.choice("bc") if d == "1" else d for d in x.dims)
    dims = dims if draw.choose.random() < 0.5 else (draw.choose.choice("bcd1"), *dims)
    if not draw.fits(dims):
        return None
    return moved(draw, f"broadcast_to({x.name})", mx.broadcast_to(x.array, draw.shape(dims)), dims, x)


def index(draw: Draw, x: Value) -> tuple[tuple[Any, ...], Dims]:
    """Slices and integers, at places that are data; and the dims of what they name."""
    items: list[Any] = []
    dims: list[str] = []
    for d in x.dims:
        extent = draw.extents[d]
        n, kind = extent.size, draw.choose.randrange(6)
        first = int(draw.numbers.integers(0, 2))
        if kind == 0 and draw.choose.random() < 0.5:
            place = int(draw.numbers.integers(-n, n))
            items.append(place)
        elif kind == 1 and extent.least > 3:
            items.append(slice(first, first + n - 2))
            dims.append(draw.dim(n - 2, extent.least - 2, extent.most))
        elif kind == 2 and extent.least > 3:
            items.append(slice(first, None, 2))
            dims.append(draw.dim(len(range(first, n, 2)), extent.least // 2, extent.most))
        elif kind == 3:
            items.append(slice(None, None, -1))
            dims.append(d)
        else:
            items.append(slice(None))
            dims.append(d)
    # A dim that is 1 for some sizes and not for others would make other structures of this one.
    if any(draw.extents[d].least < 2 and d != "1" for d in dims):
        return (), x.dims
    return tuple(items), tuple(dims)


def strided(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims)
    items, dims = index(draw, x)
    return moved(draw, f"{x.name}[{_shown(items)}]", x.array[items], dims, x)


def _shown(items: tuple[Any, ...]) -> str:
    words = []
    for item in items:
        parts = (item.start, item.stop, item.step) if isinstance(item, slice) else (item,)
        words.append(":".join("" if p is None else str(p) for p in parts))
    return ", ".join(words)


def join(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims)
    y = draw.pick(lambda v: v.dims == x.dims and v.dtype == x.dtype) or x
    axis = draw.choose.randrange(len(x.dims))
    extent = draw.extents[x.dims[axis]]
    if draw.choose.random() < 0.3:
        dims = (*x.dims[:axis], draw.dim(2, 2, 2), *x.dims[axis:])
        array, text = mx.stack([x.array, y.array], axis), f"stack([{x.name}, {y.name}], {axis})"
    else:
        joined = draw.dim(3 * extent.size, 3 * extent.least, 3 * extent.most)
        dims = (*x.dims[:axis], joined, *x.dims[axis + 1 :])
        array = mx.concatenate([x.array, y.array, x.array], axis)
        text = f"concatenate([{x.name}, {y.name}, {x.name}], {axis})"
    if not draw.fits(dims):
        return None
    return draw.result(text, array, dims, max(x.bound, y.bound), max(x.error, y.error), exact=True)


def pad(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims)
    axis = draw.choose.randrange(len(x.dims))
    extent = draw.extents[x.dims[axis]]
    before, after = (int(k) for k in draw.numbers.integers(1, 4, 2))
    widths = [(before, after) if k == axis else (0, 0) for k in range(len(x.dims))]
    padded = draw.dim(extent.size + before + after, extent.least + 2, extent.most + 6)
    dims = (*x.dims[:axis], padded, *x.dims[axis + 1 :])
    return moved(draw, f"pad({x.name}, {widths})", mx.pad(x.array, widths), dims, x) if draw.fits(dims) else None


def roll(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims)
    axis, shift = draw.choose.randrange(len(x.dims)), int(draw.numbers.integers(1, 4))
    if draw.extents[x.dims[axis]].least < 4:
        return None
    return moved(draw, f"roll({x.name}, {shift}, {axis})", mx.roll(x.array, shift, axis), x.dims, x)


def triangle(draw: Draw) -> Value | None:
    x = draw.pick_any(lambda v: len(v.dims) > 1)
    name, k = draw.choose.choice(("tril", "triu")), draw.choose.choice((-1, 0, 1))
    return moved(draw, f"{name}({x.name}, {k})", getattr(mx, name)(x.array, k), x.dims, x)


def contiguous(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims)
    return moved(draw, f"contiguous({x.name}.T)", mx.contiguous(x.array.T), x.dims[::-1], x)


def bits(draw: Draw) -> Value | None:
    """The bytes of exact numbers as another dtype of the same size."""
    kinds = {"float32": "int32", "float16": "uint16", "bfloat16": "int16", "int32": "uint32", "float64": "int64"}
    x = draw.pick(is_exact, lambda v: v.dtype in kinds)
    if x is None or x.dtype in FLOATS:  # -0.0 and 0.0 are equal, but not their bytes
        return None
    return draw.result(f"view({x.name})", mx.view(x.array, getattr(mx, kinds[x.dtype])), x.dims)


def created(draw: Draw) -> Value | None:
    kind = draw.choose.randrange(5)
    s = int(draw.numbers.integers(-8, 9)) / 4
    if kind == 0:
        return draw.result(f"full({s})", mx.full(draw.shape(("b", "a")), s), ("b", "a"), 2, exact=True)
    if kind == 1:
        n = draw.extents["a"].size
        return draw.result(f"arange({n}) / 4", mx.arange(n) * 0.25, ("a",), 175, exact=True)
    if kind == 2:
        return draw.result("eye", mx.eye(draw.extents["b"].size, dtype=mx.bfloat16), ("b", "b"), 1, exact=True)
    key = mx.random.key(int(draw.numbers.integers(0, 1000)))
    dims: Dims = ("c", "a")
    if kind == 3:
        return draw.result("random.uniform()", mx.random.uniform(shape=draw.shape(dims), key=key), dims, 1)
    return draw.result("random.randint()", mx.random.randint(0, 100, draw.shape(dims), key=key), dims)


STEPS: tuple[Callable[[Draw], Value | None], ...]
STEPS = (transpose, transpose, reshape, reshape, broadcast, strided, strided, join, pad, roll, triangle, contiguous)
STEPS += (bits, created)
