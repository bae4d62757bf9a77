"""Reductions, softmax and scans."""

from __future__ import annotations

import math
from typing import Any

from ... import _graph
from ..._graph import TracedNode, array
from ...core import creation, positions
from ...core import elementwise as ew
from ...core import reduce as reductions
from ...core import shape as shapes
from ...core._registry import PRIMITIVES
from ...core.dtypes import finfo
from .._tables import HOLOMORPHIC, jvp, vjp, vmap, without_gradient
from ._common import again, keep_dims, linear

HOLOMORPHIC.update(["prod", "logsumexp", "softmax", "cumprod", "logcumsumexp"])

without_gradient("any all argmax argmin")


def _axes_of(node: TracedNode) -> tuple[int, ...]:
    return node.static[0]


def _spread_back(node: TracedNode, reduced: array) -> array:
    """A reduction's result, or one like it, for every element that was reduced: broadcasts to the input."""
    return keep_dims(reduced, _axes_of(node), node.inputs[0].shape)


def _reduce_like(node: TracedNode, a: array) -> array:
    """The sum over the axes that the node reduces."""
    axes, keepdims = node.static
    return reductions.sum(a, axes, keepdims) if axes else a


# ---- sums


@vjp("sum")
def _sum_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [shapes.broadcast_to(_spread_back(node, cotangent), node.inputs[0].shape)]


@linear("sum")
def _sum(node: TracedNode, a: array) -> array:
    return _reduce_like(node, a)


@vmap("sum", "prod", "max", "min", "any", "all", "logsumexp")
def _reduce_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    axes, keepdims = node.static
    return again(node, inputs, (size, *node.shape), (tuple([d + 1 for d in axes]), keepdims))


# ---- products


def _products_of_others(node: TracedNode) -> array:
    """For every element the product of the others that it is multiplied with; right with zeros among them too."""
    a, axes = node.inputs[0], _axes_of(node)
    kept = [d for d in range(a.ndim) if d not in axes]
    order = [*kept, *axes]
    moved = shapes.transpose(a, order)
    flat = _graph.reshape(moved, [*[a.shape[d] for d in kept], math.prod(a.shape[d] for d in axes)])
    before = reductions.cumprod(flat, -1, inclusive=False)
    after = reductions.cumprod(flat, -1, reverse=True, inclusive=False)
    others = _graph.reshape(ew.multiply(before, after), moved.shape)
    return shapes.transpose(others, sorted(range(a.ndim), key=order.__getitem__))


@vjp("prod")
def _prod_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [ew.multiply(_spread_back(node, cotangent), _products_of_others(node))]


@jvp("prod")
def _prod_jvp(node: TracedNode, tangents: list[Any]) -> array:
    return _reduce_like(node, ew.multiply(tangents[0], _products_of_others(node)))


# ---- extremes: those that are equal share the gradient


def _shares(node: TracedNode, dtype: Any) -> array:
    a, axes = node.inputs[0], _axes_of(node)
    chosen = _graph.astype(ew.equal(a, _spread_back(node, node.output)), dtype)
    return ew.divide(chosen, reductions.sum(chosen, axes, True) if axes else chosen)


@vjp("max", "min")
def _extreme_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [ew.multiply(_spread_back(node, cotangent), _shares(node, cotangent.dtype))]


@jvp("max", "min")
def _extreme_jvp(node: TracedNode, tangents: list[Any]) -> array:
    return _reduce_like(node, ew.multiply(tangents[0], _shares(node, tangents[0].dtype)))


# ---- logarithms of sums


def _weights(node: TracedNode) -> array:
    return ew.exp(ew.subtract(node.inputs[0], _spread_back(node, node.output)))


@vjp("logsumexp")
def _logsumexp_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [ew.multiply(_spread_back(node, cotangent), _weights(node))]


@jvp("logsumexp")
def _logsumexp_jvp(node: TracedNode, tangents: list[Any]) -> array:
    return _reduce_like(node, ew.multiply(tangents[0], _weights(node)))


@vmap("argmax", "argmin")
def _arg_reduce_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    axes, keepdims = node.static
    if axes:
        return again(node, inputs, (size, *node.shape), ((axes[0] + 1,), keepdims))
    flat = _graph.reshape(inputs[0], (size, -1))
    return _graph.reshape(again(node, [flat], (size,), ((1,), False)), (size, *node.shape))


def _softmax_change(node: TracedNode, change: array) -> array:
    """The Jacobian of softmax is symmetric: this is its product with a tangent and with a cotangent."""
    weighted = ew.multiply(node.output, change)
    total = reductions.sum(weighted, _axes_of(node), True) if _axes_of(node) else weighted
    return ew.subtract(weighted, ew.multiply(node.output, total))


@vjp("softmax")
def _softmax_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [_softmax_change(node, cotangent)]


@jvp("softmax")
def _softmax_jvp(node: TracedNode, tangents: list[Any]) -> array:
    return _softmax_change(node, tangents[0])


@vmap("softmax")
def _softmax_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    axes, precise = node.static
    return again(node, inputs, (size, *node.shape), (tuple([d + 1 for d in axes]), precise))


# ---- scans. The transpose of a running sum is the running sum from the other end.


@vmap("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
def _scan_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    axis, reverse, inclusive = node.static
    return again(node, inputs, (size, *node.shape), (axis + 1, reverse, inclusive))


def _running(node: TracedNode, a: array) -> array:
    axis, reverse, inclusive = node.static
    return reductions.cumsum(a, axis, reverse=reverse, inclusive=inclusive)


def _running_back(node: TracedNode, a: array) -> array:
    axis, reverse, inclusive = node.static
    return reductions.cumsum(a, axis, reverse=not reverse, inclusive=inclusive)


@vjp("cumsum")
def _cumsum_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [_running_back(node, cotangent)]


@linear("cumsum")
def _cumsum(node: TracedNode, a: array) -> array:
    return _running(node, a)


def _zeros_in_product(node: TracedNode) -> tuple[array, array, array, array]:
    """Where the factors are 0; where they are the first 0; the factors with 1 for 0; the products without the first 0.

    A product with a 0 in it changes with that factor alone, if it is the only one. (The derivative of this derivative
    is not followed from a first 0 to a second.)
    """
    a = node.inputs[0]
    axis, reverse, inclusive = node.static
    zero = ew.equal(a, 0)
    count = reductions.cumsum(_graph.astype(zero, _graph.int32), axis, reverse=reverse)
    first = ew.logical_and(zero, ew.equal(count, 1))
    safe = ew.where(zero, 1, a)
    without = reductions.cumprod(ew.where(first, 1, a), axis, reverse=reverse, inclusive=inclusive)
    return zero, first, safe, without


@vjp("cumprod")
def _cumprod_vjp(node: TracedNode, cotangent: array) -> list[array]:
    zero, first, safe, without = _zeros_in_product(node)
    usual = ew.divide(_running_back(node, ew.multiply(cotangent, node.output)), safe)
    of_first = _running_back(node, ew.multiply(cotangent, without))
    return [ew.where(zero, ew.where(first, of_first, 0), usual)]


@jvp("cumprod")
def _cumprod_jvp(node: TracedNode, tangents: list[Any]) -> array:
    zero, first, safe, without = _zeros_in_product(node)
    usual = ew.multiply(node.output, _running(node, ew.where(zero, 0, ew.divide(tangents[0], safe))))
    of_first = ew.multiply(without, _running(node, ew.where(first, tangents[0], 0)))
    return ew.add(usual, of_first)


def _shifted(a: array, axis: int, forward: bool, fill: Any) -> array:
    """`a` moved by one along an axis, towards its end if `forward`; `fill` comes in."""
    n = a.shape[axis]
    edge = creation.full([1 if d == axis else m for d, m in enumerate(a.shape)], fill, a.dtype)
    if forward:
        return shapes.concatenate([edge, shapes.slice_along(a, axis, 0, n - 1)], axis)
    return shapes.concatenate([shapes.slice_along(a, axis, 1, n), edge], axis)


def _chosen(node: TracedNode) -> array:
    """For each output of an inclusive running extreme the position that it was last met at."""
    a = node.inputs[0]
    axis, reverse, _ = node.static
    best = PRIMITIVES[node.name].record((a,), a.shape, a.dtype, (axis, reverse, True))
    n = a.shape[axis]
    line = creation.arange(n, dtype=_graph.int32)
    positions = _graph.reshape(line, [n if d == axis else 1 for d in range(a.ndim)])
    # Of equal elements the one met last counts.
    if reverse:
        return reductions.cummin(ew.where(ew.equal(a, best), positions, n - 1), axis, reverse=True)
    return reductions.cummax(ew.where(ew.equal(a, best), positions, 0), axis)


@vjp("cummax", "cummin")
def _running_extreme_vjp(node: TracedNode, cotangent: array) -> list[array]:
    axis, reverse, inclusive = node.static
    if node.inputs[0].size == 0:
        return [cotangent]
    if not inclusive:
        cotangent = _shifted(cotangent, axis, reverse, 0)
    zeros = creation.zeros_like(cotangent)
    put = PRIMITIVES["put_along_axis"]
    return [put.record((zeros, _chosen(node), cotangent), zeros.shape, zeros.dtype, (axis, "add"))]


@jvp("cummax", "cummin")
def _running_extreme_jvp(node: TracedNode, tangents: list[Any]) -> array:
    axis, reverse, inclusive = node.static
    if node.inputs[0].size == 0:
        return tangents[0]
    moved = positions.take_along_axis(tangents[0], _chosen(node), axis)
    return moved if inclusive else _shifted(moved, axis, not reverse, 0)


# exp(x_i) * sum of c_j exp(-y_j): in logarithms, because either factor may overflow; one sum for each sign of c.


def _wide(a: array) -> array:
    return _graph.astype(a, _graph.float32) if a.dtype.size == 2 else a


def _signed_logs(a: array) -> list[tuple[float, array]]:
    # A finite floor: the difference of two infinities would be NaN.
    floor = float(finfo(a.dtype).min) / 4
    return [
        (sign, ew.where(ew.greater(part, 0), ew.log(ew.where(ew.greater(part, 0), part, 1)), floor))
        for sign, part in ((1.0, a), (-1.0, ew.negative(a)))
    ]


def _exclusive_parts(node: TracedNode) -> tuple[array, array]:
    """The input, and the inclusive result."""
    a = _wide(node.inputs[0])
    axis, reverse, _ = node.static
    return a, reductions.logcumsumexp(a, axis, reverse=reverse)


@vjp("logcumsumexp")
def _logcumsumexp_vjp(node: TracedNode, cotangent: array) -> list[array]:
    axis, reverse, inclusive = node.static
    dtype = cotangent.dtype
    if node.inputs[0].size == 0:
        return [cotangent]
    if not inclusive:
        cotangent = _shifted(cotangent, axis, reverse, 0)
    a, out = _exclusive_parts(node)
    total = None
    for sign, log in _signed_logs(_wide(cotangent)):
        behind = reductions.logcumsumexp(ew.subtract(log, out), axis, reverse=not reverse)
        part = ew.multiply(sign, ew.exp(ew.add(a, behind)))
        total = part if total is None else ew.add(total, part)
    assert total is not None
    return [_graph.astype(total, dtype)]


@jvp("logcumsumexp")
def _logcumsumexp_jvp(node: TracedNode, tangents: list[Any]) -> array:
    axis, reverse, inclusive = node.static
    (tangent,) = tangents
    if tangent.size == 0:
        return tangent
    a, out = _exclusive_parts(node)
    total = None
    for sign, log in _signed_logs(_wide(tangent)):
        before = reductions.logcumsumexp(ew.add(a, log), axis, reverse=reverse)
        part = ew.multiply(sign, ew.exp(ew.subtract(before, out)))
        total = part if total is None else ew.add(total, part)
    assert total is not None
    total = _graph.astype(total, tangent.dtype)
    return total if inclusive else _shifted(total, axis, not reverse, 0)
