"""Reductions, softmax, scans and sorts."""

from __future__ import annotations

import mlxlite.core as mx

from .draw import FLOATS, INTEGERS, UNIT, Dims, Draw, Value, is_exact
from .shape import has_dims

SUM = 32  # how many roundings of float32 a long sum is apart at most, relative to the sum of absolute values


def reduction(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims, lambda v: v.dtype != "complex64")
    count = len(x.dims) if draw.choose.random() < 0.2 else draw.choose.randint(1, len(x.dims))
    axes = tuple(sorted(draw.choose.sample(range(len(x.dims)), count)))
    keepdims = draw.choose.random() < 0.4
    dims: Dims = tuple("1" if k in axes else d for k, d in enumerate(x.dims))
    if not keepdims:
        dims = tuple(d for k, d in enumerate(x.dims) if k not in axes)
    n = draw.most(tuple(x.dims[k] for k in axes))
    names = ["max", "min", "sum", "sum"]
    names += ["mean", "logsumexp", "var"] if x.dtype in FLOATS else ["prod", "any", "all"]
    if x.dtype in FLOATS and n <= 90:
        names.append("prod")
    name = draw.choose.choice(names)
    unit = UNIT["float64" if x.dtype == "float64" else "float32"]
    bound, error = x.bound, x.error
    if name == "sum":
        bound, error = n * bound, n * error + SUM * unit * n * bound
    elif name == "mean":
        error += SUM * unit * bound
    elif name == "logsumexp":
        x = draw.within(x, -4, 4)
        bound, error = 16, x.error + SUM * unit * 16
    elif name == "var":
        x = draw.within(x, -4, 4)
        bound, error = 32, 16 * x.error + 4 * UNIT.get(x.dtype, 0) * 16 + SUM * unit * 32
    elif name == "prod" and x.dtype in FLOATS:
        x = draw.within(x, 0.9375, 1.0625)
        bound, error = 1.0625**n, n * 1.0625**n * (x.error + unit)
    exact = name in ("max", "min")
    array = getattr(mx, name)(x.array, axis=axes, keepdims=keepdims)
    return draw.result(f"{name}({x.name}, {axes}, keepdims={keepdims})", array, dims, bound, error, exact)


def complex_sum(draw: Draw) -> Value | None:
    x = draw.pick(lambda v: v.dtype == "complex64" and len(v.dims) > 0) or draw.leaf("complex64", ("a", "b"))
    axis = draw.choose.randrange(len(x.dims))
    n = draw.most((x.dims[axis],))
    dims = (*x.dims[:axis], *x.dims[axis + 1 :])
    error = n * x.error + SUM * UNIT["complex64"] * n * x.bound
    return draw.result(f"sum({x.name}, {axis})", mx.sum(x.array, axis=axis), dims, n * x.bound, error)


def position(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims, is_exact, lambda v: v.dtype != "complex64")
    axis, name = draw.choose.randrange(len(x.dims)), draw.choose.choice(("argmax", "argmin"))
    dims = (*x.dims[:axis], *x.dims[axis + 1 :])
    return draw.result(f"{name}({x.name}, {axis})", getattr(mx, name)(x.array, axis=axis), dims)


def softmax(draw: Draw) -> Value | None:
    x = draw.within(draw.pick_float(has_dims), -4, 4)
    axis = draw.choose.randrange(len(x.dims))
    unit = SUM * UNIT["float64" if x.dtype == "float64" else "float32"]
    return draw.result(f"softmax({x.name}, {axis})", mx.softmax(x.array, axis=axis), x.dims, 1, 2 * x.error + unit)


def scan(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims, lambda v: v.dtype not in ("complex64", "bool"))
    axis = draw.choose.randrange(len(x.dims))
    n = draw.most((x.dims[axis],))
    names = ["cumsum", "cumsum", "cummax", "cummin"]
    names += ["cumprod"] if x.dtype in INTEGERS else ["logcumsumexp"]
    name = draw.choose.choice(names)
    reverse, inclusive = (draw.choose.random() < 0.4 for _ in range(2))
    unit = UNIT["float64" if x.dtype == "float64" else "float32"]
    bound, error = x.bound, x.error
    if name == "logcumsumexp":
        x, inclusive = draw.within(x, -4, 4), True
        # One step after another: each rounds what is so far.
        bound, error = 16, x.error + (n + SUM) * unit * 2
    elif name == "cumsum":
        bound, error = n * bound, n * error + SUM * unit * n * bound
    elif name in ("cummax", "cummin"):
        inclusive = True
    array = getattr(mx, name)(x.array, axis=axis, reverse=reverse, inclusive=inclusive)
    text = f"{name}({x.name}, {axis}, reverse={reverse}, inclusive={inclusive})"
    return draw.result(text, array, x.dims, bound, error, name in ("cummax", "cummin"))


def sort(draw: Draw) -> Value | None:
    """Sorted numbers are as far apart as the numbers were."""
    x = draw.pick_any(has_dims, lambda v: v.dtype != "complex64")
    axis = draw.choose.randrange(len(x.dims))
    if is_exact(x) and draw.choose.random() < 0.4:
        return draw.result(f"argsort({x.name}, {axis})", mx.argsort(x.array, axis=axis), x.dims)
    return draw.result(f"sort({x.name}, {axis})", mx.sort(x.array, axis=axis), x.dims, x.bound, x.error, True)


def largest(draw: Draw) -> Value | None:
    x = draw.pick_any(has_dims, lambda v: v.dtype != "complex64" and draw.extents[v.dims[-1]].least > 3)
    if draw.extents[x.dims[-1]].least <= 3:
        return None
    array = mx.sort(mx.topk(x.array, 3, axis=-1), axis=-1)
    return draw.result(f"sort(topk({x.name}, 3))", array, (*x.dims[:-1], "3"), x.bound, x.error, True)


STEPS = (reduction, reduction, reduction, complex_sum, position, softmax, scan, scan, sort, largest)
