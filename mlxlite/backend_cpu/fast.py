"""Normalisation and rotary positions. Everything is computed in float32 (float64 for float64)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._rules import Array, narrow, rule, widen


@rule("rms_norm")
def _rms_norm(node: Any, x: Array, weight: Array | None = None) -> Array:
    (eps,) = node.floats
    x = widen(x)
    square = np.einsum("...i,...i->...", x, x)[..., None]
    square *= x.dtype.type(1 / x.shape[-1]) if x.shape[-1] else 0
    square += x.dtype.type(eps)
    np.sqrt(square, out=square)
    out = x / square
    if weight is not None:
        out *= widen(weight)
    return narrow(out, node.np_dtype)


@rule("layer_norm")
def _layer_norm(node: Any, x: Array, *affine: Array) -> Array:
    (eps,) = node.floats
    has_weight, has_bias = node.static
    x = widen(x)
    if x.size == 0:
        return narrow(x, node.np_dtype)
    out = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(out * out, axis=-1, keepdims=True)
    out /= np.sqrt(variance + x.dtype.type(eps))
    if has_weight:
        out *= widen(affine[0])
    if has_bias:
        out += widen(affine[-1])
    return narrow(out, node.np_dtype)


def _normal(name: str, x: Array, eps: float) -> tuple[Array, Array]:
    """The normalised rows, and one over their deviation."""
    if name == "layer_norm":
        x = x - np.mean(x, axis=-1, keepdims=True)
    inverse = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps))
    return x * inverse, inverse


@rule("norm_vjp")
def _norm_vjp(node: Any, x: Array, *more: Array) -> Array:
    name, has_weight, _, eps = node.static
    normal, inverse = _normal(name, widen(x), eps)
    inner = widen(more[-1]) * widen(more[0]) if has_weight else widen(more[-1])
    found = inner - normal * np.mean(inner * normal, axis=-1, keepdims=True)
    if name == "layer_norm":
        found -= np.mean(inner, axis=-1, keepdims=True)
    return narrow(found * inverse, node.np_dtype)


@rule("norm_vjp_weight")
def _norm_vjp_weight(node: Any, x: Array, c: Array) -> Array:
    name, features, eps = node.static
    normal, _ = _normal(name, widen(x), eps)
    return narrow((widen(c) * normal).reshape(-1, features).sum(axis=0), node.np_dtype)


@rule("rope")
def _rope(node: Any, x: Array, *more: Array) -> Array:
    dims, traditional, has_offset, has_freqs = node.static
    base, scale = node.floats
    batch, length = x.shape[0], x.shape[-2]
    start = more[0].astype(np.int64) if has_offset else np.array([node.ints[0]])
    positions = (start[:, None] + np.arange(length)).astype(np.float32) * np.float32(scale)
    if has_freqs:
        frequency = 1 / more[-1].astype(np.float32)
    else:
        frequency = np.exp(np.arange(dims // 2, dtype=np.float32) * np.float32(-np.log(base) / (dims // 2)))
    angle = positions[:, :, None] * frequency  # (1 or B, T, dims / 2)
    angle = angle.reshape(angle.shape[0], *(1,) * (x.ndim - 3), *angle.shape[1:])
    wide = widen(x)
    cosine, sine = np.cos(angle).astype(wide.dtype), np.sin(angle).astype(wide.dtype)
    out = np.empty(x.shape, wide.dtype)
    half = dims // 2
    first, second = (slice(0, dims, 2), slice(1, dims, 2)) if traditional else (slice(0, half), slice(half, dims))
    left, right = wide[..., first], wide[..., second]
    if batch:
        np.subtract(left * cosine, right * sine, out=out[..., first])
        np.add(left * sine, right * cosine, out=out[..., second])
        out[..., dims:] = wide[..., dims:]
    return narrow(out, node.np_dtype)
