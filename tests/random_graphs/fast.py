"""Norms, rotary positions and attention."""

from __future__ import annotations

import mlxlite.core as mx

from .draw import UNIT, Draw, Value
from .reduce import SUM
from .shape import has_dims

DTYPES = ("float16", "bfloat16", "float32")


def rms_norm(draw: Draw) -> Value | None:
    """Of numbers from 1 to 5, so that no row is small."""
    x = draw.within(draw.pick_float(has_dims, dtypes=DTYPES), -2, 2)
    w = draw.leaf(x.dtype, x.dims[-1:], 1, 2) if draw.choose.random() < 0.7 else None
    array = mx.fast.rms_norm(x.array + 3, None if w is None else w.array, 1e-5)
    error = 12 * (x.error + 5 * UNIT[x.dtype]) + SUM * UNIT["float32"] * 10
    return draw.result(f"rms_norm({x.name} + 3, {w.name if w else None})", array, x.dims, 10, error)


def layer_norm(draw: Draw) -> Value | None:
    """With an eps that keeps rows of nearly equal numbers from being blown up."""
    x = draw.within(draw.pick_float(has_dims, dtypes=DTYPES), -2, 2)
    w, b = draw.leaf(x.dtype, x.dims[-1:], 1, 1), draw.leaf(x.dtype, x.dims[-1:])
    array = mx.fast.layer_norm(x.array, w.array, b.array, 4.0)
    error = 4 * x.error + SUM * UNIT["float32"] * 4 + UNIT[x.dtype]
    return draw.result(f"layer_norm({x.name}, {w.name}, {b.name}, 4)", array, x.dims, 4, error)


def rope(draw: Draw) -> Value | None:
    x = draw.leaf(draw.choose.choice(DTYPES), ("1", draw.choose.choice("bc"), draw.choose.choice(("a", "1")), "16"))
    turned, traditional = draw.choose.choice((8, 16)), draw.choose.random() < 0.5
    offset = int(draw.numbers.integers(1, 50))
    array = mx.fast.rope(x.array, turned, traditional=traditional, base=100.0, scale=1.0, offset=offset)
    text = f"rope({x.name}, {turned}, traditional={traditional}, offset={offset})"
    return draw.result(text, array, x.dims, 4, 4 * 750 * 2.0**-22)


def attention(draw: Draw) -> Value | None:
    """Heads that share keys, or not; of one query or of many; with each kind of mask."""
    dtype, size = draw.choose.choice(DTYPES), draw.choose.choice(("16", "64"))
    batch, heads = draw.choose.choice("1b"), draw.choose.choice((("8", "8"), ("8", "1")))
    queries, keys = draw.choose.choice((("1", "a"), ("a", "a"), ("3", "a"), ("c", "c")))
    q = draw.leaf(dtype, (batch, heads[0], queries, size), -1, 1)
    k, v = (draw.leaf(dtype, (batch, heads[1], keys, size), -1, 1) for _ in range(2))
    if not (draw.fits((*q.dims[:2], queries, keys)) or queries == "1") or draw.most(k.dims) > 10**6:
        return None
    kind = draw.choose.choice((None, "causal", "bool", "additive")) if queries != "1" else None
    mask = kind
    if kind == "bool":  # of the diagonal and what is drawn, so that no query sees nothing
        drawn = draw.leaf("bool", (queries, keys))
        mask = drawn.array | (mx.arange(draw.extents[keys].size) < 1)
    elif kind == "additive":
        mask = draw.leaf(dtype, (queries, keys)).array
    scale = draw.extents[size].size ** -0.5
    array = mx.fast.scaled_dot_product_attention(q.array, k.array, v.array, scale=scale, mask=mask)
    text = f"attention({q.name}, {k.name}, {v.name}, {kind})"
    return draw.result(text, array, q.dims, 1, 4 * UNIT[dtype] + SUM * UNIT["float32"])


STEPS = (rms_norm, layer_norm, rope, attention)
