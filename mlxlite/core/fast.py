"""`mx.fast`: normalisation, rotary positions and attention, each one primitive."""

from __future__ import annotations

import operator
from typing import Any

from .. import _graph
from ._registry import Dtype, array, general, is_inexact, remembered, require_array, to_dtype
from .shape import broadcast_shapes

__all__ = ["layer_norm", "rms_norm", "rope", "scaled_dot_product_attention"]

_rms_norm = general("rms_norm", "normalization")
_layer_norm = general("layer_norm", "normalization")
# Recorded by the gradients of the two alone: see transforms/rules/normalization.py.
_norm_vjp = general("norm_vjp", "normalization")
_norm_vjp_weight = general("norm_vjp_weight", "normalization")
_rope = general("rope", "normalization")
_sdpa = general("sdpa", "attention")
# Recorded by the gradient of sdpa alone: see transforms/rules/attention.py.
_sdpa_lse = general("sdpa_lse", "attention")
_sdpa_vjp = general("sdpa_vjp", "attention")

_FLOATING = frozenset((_graph.float16, _graph.bfloat16, _graph.float32, _graph.float64))
_WEIGHTED = (True,)


def _common(name: str, x: array, *others: array | None) -> Dtype:
    dtype = x.dtype
    for other in others:
        if other is not None:
            dtype = _graph.promote_types(dtype, other.dtype)
    if dtype.category != "floating":
        raise ValueError(f"[{name}] Received unsupported type {dtype.name}: cast with astype to a floating type.")
    return dtype


def _affine(name: str, what: str, x: array, values: array | None) -> None:
    if values is None:
        return
    require_array(values, name)
    if values.ndim != 1:
        raise ValueError(f"[{name}] {what} must have 1 dimension but has {values.ndim} dimensions.")
    if values.shape[0] != x.shape[-1]:
        raise ValueError(
            f"[{name}] {what} must have the same size as the last dimension of x but has "
            f"{values.shape[0]} elements for {x.shape[-1]}."
        )


def _input(name: str, x: Any) -> array:
    require_array(x, name)
    if x.ndim == 0:
        raise ValueError(f"[{name}] Input must have at least 1 dimension but got input with 0 dimensions.")
    return x


@remembered
def rms_norm(x: array, weight: array | None, eps: float, *, stream: Any = None) -> array:
    """x / sqrt(mean(x ** 2) + eps) over the last axis, times a weight (Zhang and Sennrich, arXiv:1910.07467).

    Args:
        x: (..., D), floating.
        weight: (D,), or None.
        eps: added to the mean square.
        stream: a stream or device.

    Returns:
        The shape of x, of the promoted dtype of x and weight; 16-bit floats are computed in float32.

    Raises:
        ValueError: a scalar x, a weight of another size, or a dtype that is not floating.

    >>> mx.fast.rms_norm(mx.array([3.0, 4.0]), None, 0.0)
    array([0.848528, 1.13137], dtype=float32)
    """
    if type(x) is array and type(weight) is array:  # as nearly always: without the cost of looking for mistakes
        shape, dtype = x.shape, x.dtype
        if dtype is weight.dtype and shape[-1:] == weight.shape and dtype in _FLOATING:
            return _rms_norm.record((x, weight), shape, dtype, _WEIGHTED, (), (eps,), stream)
    _input("rms_norm", x)
    _affine("rms_norm", "weight", x, weight)
    dtype = _common("rms_norm", x, weight)
    inputs = [to_dtype(a, dtype, stream) for a in (x, weight) if a is not None]
    return _rms_norm.record(inputs, x.shape, dtype, (weight is not None,), floats=(float(eps),), stream=stream)


@remembered
def layer_norm(x: array, weight: array | None, bias: array | None, eps: float, *, stream: Any = None) -> array:
    """(x - mean) / sqrt(variance + eps) over the last axis, times a weight, plus a bias (Ba et al., arXiv:1607.06450).

    Args:
        x: (..., D), floating.
        weight: (D,), or None.
        bias: (D,), or None.
        eps: added to the variance.
        stream: a stream or device.

    Returns:
        The shape of x, of the promoted dtype; 16-bit floats are computed in float32.

    Raises:
        ValueError: a scalar x, a weight or bias of another size, or a dtype that is not floating.

    >>> mx.fast.layer_norm(mx.array([1.0, 3.0]), None, None, 0.0)
    array([-1, 1], dtype=float32)
    """
    _input("layer_norm", x)
    _affine("layer_norm", "weight", x, weight)
    _affine("layer_norm", "bias", x, bias)
    dtype = _common("layer_norm", x, weight, bias)
    inputs = [to_dtype(a, dtype, stream) for a in (x, weight, bias) if a is not None]
    static = (weight is not None, bias is not None)
    return _layer_norm.record(inputs, x.shape, dtype, static, floats=(float(eps),), stream=stream)


@remembered
def rope(
    a: array,
    dims: int,
    *,
    traditional: bool,
    base: float | None,
    scale: float,
    offset: int | array,
    freqs: array | None = None,
    stream: Any = None,
) -> array:
    """Rotary positional encoding (Su et al., arXiv:2104.09864).

    Pair i of the features at position p turns by the angle p * scale * base ** (-2 i / dims), or p * scale / freqs[i].

    Args:
        a: (B, ..., T, D), floating, at least 3-d.
        dims: how many of the D features turn, an even number.
        traditional: pairs are neighbours (2 i, 2 i + 1) if True, else halves (i, i + dims / 2).
        base: of the angles; None if and only if `freqs` is given.
        scale: of the positions.
        offset: the position of the first of T, an integer, or an integer array of shape () or (B,).
        freqs: (dims / 2,), or None.
        stream: a stream or device.

    Returns:
        The shape and dtype of a.

    Raises:
        ValueError: a shape or dtype that does not fit, or both or neither of base and freqs.
    """
    require_array(a, "rope")
    shape, dtype = a.shape, a.dtype
    if len(shape) < 3:
        raise ValueError(f"[rope] Input must have at least 3 dimensions but got input with {len(shape)} dimensions.")
    if dtype not in _FLOATING:
        raise ValueError(f"[rope] Input must be a floating type but got {dtype.name}.")
    dims = operator.index(dims)
    if dims % 2 or not 0 < dims <= shape[-1]:
        raise ValueError(f"[rope] dims must be even, positive and at most {shape[-1]}, got {dims}.")
    if (base is None) == (freqs is None):
        raise ValueError("[rope] Exactly one of base or freqs must be None.")
    inputs: tuple[array, ...] = (a,)
    has_offset = isinstance(offset, array)
    if isinstance(offset, array):
        if offset.dtype.category not in ("signed", "unsigned"):
            raise ValueError(f"[rope] offset must be an integer but got {offset.dtype.name}.")
        if offset.shape not in ((), (1,), (shape[0],)):
            raise ValueError(f"[rope] offset must be a scalar or have shape ({shape[0]},), got {offset.shape}.")
        inputs += (_graph.reshape(to_dtype(offset, _graph.int32, stream), (offset.size,), stream),)
        position = 0
    else:
        position = operator.index(offset)
    if freqs is not None:
        require_array(freqs, "rope")
        if freqs.shape != (dims // 2,):
            raise ValueError(f"[rope] freqs must have shape ({dims // 2},), got {freqs.shape}.")
        inputs += (to_dtype(freqs, _graph.float32, stream),)
    static = (dims, bool(traditional), has_offset, freqs is not None)
    floats = (1.0 if base is None else base, scale)
    return _rope.record(inputs, shape, dtype, static, (position,), floats, stream)


@remembered
def scaled_dot_product_attention(
    q: array,
    k: array,
    v: array,
    *,
    scale: float,
    mask: str | array | None = None,
    sinks: array | None = None,
    force_fused: bool = False,
    stream: Any = None,
) -> array:
    """Attention: softmax(scale * q @ k.T + mask) @ v, the softmax in float32 (Vaswani et al., arXiv:1706.03762).

    Args:
        q: (B, H, Tq, D), floating.
        k: (B, KV, Tk, D); H is a multiple of KV, and consecutive heads of q share one of k and v.
        v: (B, KV, Tk, Dv).
        scale: of the scores, usually 1 / sqrt(D).
        mask: None; "causal" (query i sees keys up to i + Tk - Tq); a bool array (True is seen) or a floating one (added
            to the scores) that broadcasts to (B, H, Tq, Tk).
        sinks: (H,), scores that take part in the softmax and have no value.
        force_fused: taken for MLX's sake; attention is always one primitive here.
        stream: a stream or device.

    Returns:
        (B, H, Tq, Dv), of the promoted dtype of q, k and v.

    Raises:
        ValueError: shapes, dtypes or a mask that do not fit.
    """
    name = "scaled_dot_product_attention"
    for tensor in (q, k, v):
        require_array(tensor, name)
    scores, shape, sizes = _attention_shapes(q.shape, k.shape, v.shape)
    dtype, inputs = q.dtype, [q, k, v]
    if not (dtype is k.dtype and dtype is v.dtype and dtype in _FLOATING):
        dtype = _common(name, q, k, v)
        inputs = [to_dtype(a, dtype, stream) for a in inputs]
    kind = "none"
    if isinstance(mask, str):
        if mask != "causal":
            raise ValueError(f"[{name}] mask invalid: the only supported mask type is 'causal', got {mask!r}.")
        kind = "causal"
    elif mask is not None:
        require_array(mask, name)
        inputs.append(_mask(mask, scores, dtype, stream))
        kind = "bool" if mask.dtype == _graph.bool_ else "additive"
    if sinks is not None:
        require_array(sinks, name)
        if sinks.shape != scores[1:2]:
            raise ValueError(f"[{name}] sinks must have shape {scores[1:2]}, got {sinks.shape}.")
        if _graph.promote_types(sinks.dtype, dtype) != dtype:
            raise ValueError(f"[{name}] Type of sinks must promote to {dtype.name}, got {sinks.dtype.name}.")
        inputs.append(to_dtype(sinks, dtype, stream))
    # Head sizes are static: kernels are made for them, and libraries take some and decline others.
    return _sdpa.record(inputs, shape, dtype, (kind, sinks is not None, *sizes), (), (scale,), stream)


_Shape = tuple[int, ...]


def _attention_shapes(q: _Shape, k: _Shape, v: _Shape) -> tuple[_Shape, _Shape, _Shape]:
    """The shape of the scores; of the result; the sizes of heads of q and v, and how many share a key.

    Raises:
        ValueError: shapes that do not fit.
    """
    name = "scaled_dot_product_attention"
    for shape in (q, k, v):
        if len(shape) != 4:
            raise ValueError(f"[{name}] input with shape {shape} expected to be rank 4")
    batch, heads, n_queries, features = q
    _, kv_heads, n_keys, value_features = v
    if not batch == k[0] == v[0]:
        raise ValueError(f"[{name}] mismatching batch dimension for input shapes {q}, {k}, {v}.")
    if k[3] != features:
        raise ValueError(f"[{name}] query, keys expected to have matching last dimension; found {q}, {k}.")
    if k[1:3] != v[1:3]:
        raise ValueError(f"[{name}] keys, values expected to have the same heads and length: {k}, {v}.")
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(f"[{name}] n_heads must be a multiple of n_kv_heads, found {heads} for {kv_heads}.")
    result = (batch, heads, n_queries, value_features)
    return (batch, heads, n_queries, n_keys), result, (features, value_features, heads // kv_heads)


def _mask(mask: array, shape: tuple[int, ...], dtype: Dtype, stream: Any) -> array:
    """The mask with four dims, each of them 1 or that of `shape`."""
    name = "scaled_dot_product_attention"
    if mask.ndim > 4:
        raise ValueError(f"[{name}] the mask with shape {mask.shape} expected to have at most rank 4.")
    if broadcast_shapes(mask.shape, shape) != shape:
        raise ValueError(f"[{name}] the mask with shape {mask.shape} does not broadcast to {shape}.")
    if mask.dtype != _graph.bool_:
        if not is_inexact(mask.dtype) or _graph.promote_types(mask.dtype, dtype) != dtype:
            raise ValueError(f"[{name}] Mask type must promote to output type {dtype.name}, got {mask.dtype.name}.")
        mask = to_dtype(mask, dtype, stream)
    return _graph.reshape(mask, (1,) * (4 - mask.ndim) + mask.shape, stream)
