"""Normalisation and its gradients. 16-bit floats are computed in float32, as by the primitives.

The gradients are primitives of their own, `norm_vjp` and `norm_vjp_weight`: made of other operations, they would read
the rows five times. Those serve for float64, and for the gradients' own derivatives.
"""

from __future__ import annotations

import math

from ... import _graph
from ..._graph import TracedNode, array
from ...core import elementwise as ew
from ...core import fast
from ...core import reduce as reductions
from .._tables import vjp, vmap
from ..gradients import vjp as vjp_of
from ._common import again, align, spread, spread_all, unbroadcast, wide

MAX_FEATURES = 8192  # more are made of other operations: a row would not fit into the registers of a block


def _mean(a: array) -> array:
    return reductions.mean(a, -1, True)


def _normal(name: str, x: array, eps: float) -> tuple[array, array]:
    """The normalised x, and one over its deviation."""
    if name == "layer_norm":
        x = ew.subtract(x, _mean(x))
    inverse = ew.rsqrt(ew.add(_mean(ew.square(x)), _graph.scalar(eps, x.dtype)))
    return ew.multiply(x, inverse), inverse


def _composed_of_x(name: str, eps: float, x: array, weight: array | None, c: array) -> array:
    """The cotangent of x, made of other operations."""
    dtype = x.dtype
    x, c = wide(x), wide(c)
    normal, inverse = _normal(name, x, eps)
    inner = c if weight is None else ew.multiply(c, wide(weight))
    shift = ew.multiply(normal, _mean(ew.multiply(inner, normal)))
    if name == "layer_norm":
        shift = ew.add(_mean(inner), shift)
    return _graph.astype(ew.multiply(inverse, ew.subtract(inner, shift)), dtype)


def _composed_of_weight(name: str, eps: float, x: array, c: array) -> array:
    """The cotangent of the weight, made of other operations."""
    normal, _ = _normal(name, wide(x), eps)
    return _graph.astype(unbroadcast(ew.multiply(wide(c), normal), x.shape[-1:]), x.dtype)


def _cotangents(node: TracedNode, name: str, x: array, weight: array | None, c: array) -> list[array | None]:
    """The cotangents of x and, if there is one, of the weight, as far as they are wanted."""
    (eps,) = node.floats
    features = x.shape[-1]
    by_primitives = x.dtype.size <= 4 and 1 <= features <= MAX_FEATURES and math.isfinite(eps) and x.size > 0
    found: list[array | None] = [None] if weight is None else [None, None]
    if node.sources[0] >= 0:
        if by_primitives:
            inputs = (x, c) if weight is None else (x, weight, c)
            found[0] = fast._norm_vjp.record(inputs, x.shape, x.dtype, (name, weight is not None, features, float(eps)))
        else:
            found[0] = _composed_of_x(name, eps, x, weight, c)
    if weight is not None and node.sources[1] >= 0:
        if by_primitives:
            found[1] = fast._norm_vjp_weight.record((x, c), (features,), x.dtype, (name, features, float(eps)))
        else:
            found[1] = _composed_of_weight(name, eps, x, c)
    return found


@vjp("rms_norm")
def _rms_norm_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    x, *weight = node.inputs
    return _cotangents(node, "rms_norm", x, weight[0] if weight else None, cotangent)


@vmap("rms_norm")
def _rms_norm_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    x = spread(inputs[0], batched[0], size)
    if not any(batched[1:]):
        return again(node, [x, *inputs[1:]], x.shape)
    (eps,) = node.floats
    normal = fast.rms_norm(wide(x), None, eps)
    return _graph.astype(ew.multiply(normal, align(inputs[1], True, x.ndim - 1)), node.dtype)


@vjp("layer_norm")
def _layer_norm_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    has_weight, has_bias = node.static
    x, *rest = node.inputs
    found = _cotangents(node, "layer_norm", x, rest[0] if has_weight else None, cotangent)
    if has_bias:
        bias = rest[-1]
        found.append(_graph.astype(unbroadcast(wide(cotangent), bias.shape), bias.dtype))
    return found


@vmap("layer_norm")
def _layer_norm_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    has_weight, has_bias = node.static
    x = spread(inputs[0], batched[0], size)
    if not any(batched[1:]):
        return again(node, [x, *inputs[1:]], x.shape)
    (eps,) = node.floats
    out = fast.layer_norm(wide(x), None, None, eps)
    affine = [align(a, b, x.ndim - 1) for a, b in zip(inputs[1:], batched[1:], strict=True)]
    if has_weight:
        out = ew.multiply(out, affine[0])
    if has_bias:
        out = ew.add(out, affine[-1])
    return _graph.astype(out, node.dtype)


# ---- the gradients as primitives


def _split(inputs: list[array]) -> tuple[array, array | None, array]:
    """x, the weight and the cotangent."""
    return inputs[0], inputs[1] if len(inputs) == 3 else None, inputs[-1]


@vjp("norm_vjp")
def _of_x_vjp(node: TracedNode, cotangent: array) -> list[array]:
    name, _, _, eps = node.static
    return vjp_of(lambda *a: _composed_of_x(name, eps, *_split(list(a))), node.inputs, [cotangent])[1]


@vmap("norm_vjp")
def _of_x_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    name, _, features, eps = node.static
    x, c = spread(inputs[0], batched[0], size), spread(inputs[-1], batched[-1], size)
    if len(inputs) == 3 and batched[1]:  # another weight for each: a part of the cotangent
        c = _graph.astype(ew.multiply(c, align(inputs[1], True, c.ndim - 1)), c.dtype)
        return fast._norm_vjp.record((x, c), x.shape, x.dtype, (name, False, features, eps))
    return again(node, [x, *inputs[1:-1], c], x.shape)


@vjp("norm_vjp_weight")
def _of_weight_vjp(node: TracedNode, cotangent: array) -> list[array]:
    name, _, eps = node.static
    return vjp_of(lambda x, c: _composed_of_weight(name, eps, x, c), node.inputs, [cotangent])[1]


@vmap("norm_vjp_weight")
def _of_weight_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    name, _, eps = node.static
    x, c = [wide(a) for a in spread_all(inputs, batched, size)]
    rows = ew.multiply(c, _normal(name, x, eps)[0])
    return _graph.astype(reductions.sum(rows, list(range(1, rows.ndim - 1))) if rows.ndim > 2 else rows, node.dtype)
