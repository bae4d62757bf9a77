"""Products of matrices, in every layout; of a few rows; and what models do before and after them."""

from __future__ import annotations

import mlxlite.core as mx

from .draw import UNIT, Draw, Value
from .reduce import SUM

DTYPES = ("float16", "bfloat16", "float32", "float32", "float64")


def _errors(x: Value, y: Value, n: int) -> tuple[float, float]:
    """The bound and the error of sums of n products."""
    unit = UNIT["float64" if x.dtype == "float64" else "float32"]
    bound = n * x.bound * y.bound
    return bound, n * (x.error * y.bound + y.error * x.bound + x.error * y.error) + SUM * unit * bound


def product(draw: Draw) -> Value | None:
    x = draw.pick_float(lambda v: len(v.dims) > 0, dtypes=DTYPES)
    x = draw.within(x, -2, 2)
    inner = x.dims[-1]
    n = draw.most((inner,))
    last = draw.choose.choice(("c", "8", "64", "1", "d"))
    batch = x.dims[:-2] if draw.choose.random() < 0.4 else ()
    transposed = draw.choose.random() < 0.5
    sides = (last, inner) if transposed else (inner, last)
    y = draw.leaf(x.dtype, (*batch, *sides), -0.25, 0.25)
    matrix = mx.swapaxes(y.array, -1, -2) if transposed else y.array
    dims = (*x.dims[:-1], last)
    if not draw.fits(dims) or (len(x.dims) == 1 and batch):
        return None
    bound, error = _errors(x, y, n)
    text = f"{x.name} @ {y.name}{'.T' if transposed else ''}"
    return draw.result(text, x.array @ matrix, dims, bound, error)


def outer(draw: Draw) -> Value | None:
    """The left operand transposed."""
    x = draw.within(draw.pick_float(lambda v: len(v.dims) > 1, dtypes=DTYPES), -2, 2)
    if len(x.dims) < 2:
        return None
    y = draw.leaf(x.dtype, (*x.dims[:-1], "8"), -0.25, 0.25)
    dims = (*x.dims[:-2], x.dims[-1], "8")
    bound, error = _errors(x, y, draw.most((x.dims[-2],)))
    if not draw.fits(dims):
        return None
    return draw.result(f"{x.name}.T @ {y.name}", mx.swapaxes(x.array, -1, -2) @ y.array, dims, bound, error)


def affine(draw: Draw) -> Value | None:
    x = draw.within(draw.pick_float(lambda v: len(v.dims) > 1, dtypes=DTYPES), -2, 2)
    if len(x.dims) < 2:
        return None
    y = draw.leaf(x.dtype, (x.dims[-1], "8"), -0.25, 0.25)
    c = draw.leaf(x.dtype, draw.choose.choice((("8",), (x.dims[-2], "8"), ("1", "8"))))
    dims = (*x.dims[:-1], "8")
    bound, error = _errors(x, y, draw.most((x.dims[-1],)))
    if not draw.fits(dims):
        return None
    beta = draw.choose.choice((1.0, 0.5))
    array = mx.addmm(c.array, x.array, y.array, 0.5, beta)
    return draw.result(f"addmm({c.name}, {x.name}, {y.name}, 0.5, {beta})", array, dims, bound / 2 + c.bound, error)


def complex_product(draw: Draw) -> Value | None:
    x, y = draw.leaf("complex64", ("b", "a")), draw.leaf("complex64", ("a", "8"), -0.25, 0.25)
    bound = 700 * x.bound * y.bound
    array = x.array @ y.array
    return draw.result(f"{x.name} @ {y.name}", array, ("b", "8"), bound, SUM * UNIT["complex64"] * bound)


def rows(draw: Draw) -> Value | None:
    """A few rows, normalised or not, times weights; gated, or added to what was there."""
    dtype, n = draw.choose.choice(("bfloat16", "float16", "float32")), draw.choose.choice(("64", "16", "a"))
    count = draw.choose.choice(("1", "1", "3", "8"))
    x = draw.leaf(dtype, ("1", count, n))
    error, bound = 0.0, 2.0
    array, text = x.array, x.name
    if draw.choose.random() < 0.5:
        w = draw.leaf(dtype, (n,), 1, 1)
        array, text = mx.fast.rms_norm(x.array + 4, w.array, 1e-5), f"rms_norm({x.name} + 4, {w.name})"
        bound = 3.0
        error = 8 * UNIT[dtype]
    most = draw.most((n,))
    scale = 0.25
    weight = draw.leaf(dtype, ("8", n), -scale, scale)
    y = array @ weight.array.T
    text = f"{text} @ {weight.name}.T"
    limit = most * bound * scale
    spread = most * error * scale + (SUM * UNIT["float32"] + UNIT[dtype]) * limit
    kind = draw.choose.randrange(3)
    if kind == 0:
        other = draw.leaf(dtype, ("8", n), -scale, scale)
        gate = mx.tanh(y)
        y, text = mx.sigmoid(gate) * mx.tanh(array @ other.array.T), f"sigmoid(tanh({text})) * tanh(@ {other.name}.T)"
        limit, spread = 1.0, 2 * spread + 4 * UNIT[dtype]
    elif kind == 1:
        c = draw.leaf(dtype, ("8",))
        y, text, limit = c.array * 0.5 + y, f"{c.name} * 0.5 + {text}", limit + 1
    return draw.result(text, y, ("1", count, "8"), limit, spread)


def siblings(draw: Draw) -> Value | None:
    """Products of the same row or rows, as they are or turned round, combined in some order."""
    dtype, n = draw.choose.choice(("bfloat16", "float16", "float32")), draw.choose.choice(("64", "16", "a"))
    count = draw.choose.choice(("1", "1", "1", "3"))
    x = draw.leaf(dtype, ("1", count, n))
    scale, most = 0.25, draw.most((n,))
    array, error, text = x.array, 0.0, x.name
    if draw.choose.random() < 0.3:
        w = draw.leaf(dtype, (n,), 1, 1)
        array, error, text = mx.fast.rms_norm(x.array + 4, w.array, 1e-5), 8 * UNIT[dtype], f"rms_norm({x.name} + 4)"
    terms = []
    for _ in range(draw.choose.randrange(2, 6)):
        weight = draw.leaf(dtype, ("8", n), -scale, scale)
        y, name = mx.tanh(array @ weight.array.T), f"tanh({text} @ {weight.name}.T)"
        kind = draw.choose.randrange(4)
        if kind == 0:
            y, name = y[..., ::-1], f"{name}[..., ::-1]"
        elif kind == 1:
            y, name = mx.swapaxes(y, 1, 2).reshape(y.shape), f"{name}.swapaxes(1, 2).reshape"
        terms.append((y, name))
    limit = most * 3.0 * scale
    spread = most * error * scale + (SUM * UNIT["float32"] + UNIT[dtype]) * limit + 2 * UNIT[dtype]
    total, text = terms[0]
    bound, far = 1.0, spread
    for y, name in terms[1:]:
        if draw.choose.random() < 0.5:
            total, text = total * y, f"({text}) * {name}"
            far = far + bound * spread + UNIT[dtype] * bound
        else:
            total, text = total + y, f"({text}) + {name}"
            bound, far = bound + 1, far + spread + UNIT[dtype] * (bound + 1)
    return draw.result(text, total, ("1", count, "8"), bound, far)


STEPS = (product, product, outer, affine, complex_product, rows, rows, siblings)
