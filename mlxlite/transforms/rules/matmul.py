"""Matrix products."""

from __future__ import annotations

from ... import _graph
from ..._graph import TracedNode, array
from ...core import elementwise as ew
from ...core import shape as shapes
from ...core._registry import to_dtype
from ...core.matmul import addmm, matmul
from .._tables import HOLOMORPHIC, jvp, vjp, vmap
from ._common import align, unbroadcast

HOLOMORPHIC.update(["matmul", "addmm"])


def _transposed(a: array) -> array:
    return a.T if a.ndim == 2 else shapes.swapaxes(a, -1, -2)


def _cotangent_of_left(a: array, b: array, cotangent: array) -> array:
    return unbroadcast(cotangent @ _transposed(b), a.shape)


def _cotangent_of_right(a: array, b: array, cotangent: array) -> array:
    if b.ndim == 2 and a.ndim > 2:
        # One matrix for the whole batch: one product instead of a batch of them and a sum.
        rows = a.size // a.shape[-1] if a.shape[-1] else 0
        a = _graph.reshape(a, (rows, a.shape[-1]))
        cotangent = _graph.reshape(cotangent, (rows, cotangent.shape[-1]))
    return unbroadcast(_transposed(a) @ cotangent, b.shape)


@vjp("matmul")
def _matmul_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    a, b = node.inputs
    of_a, of_b = node.sources
    return [
        _cotangent_of_left(a, b, cotangent) if of_a >= 0 else None,
        _cotangent_of_right(a, b, cotangent) if of_b >= 0 else None,
    ]


def _product_tangent(a: array, b: array, ta: array | None, tb: array | None) -> array | None:
    left = None if ta is None else ta @ b
    right = None if tb is None else a @ tb
    return left if right is None else right if left is None else ew.add(left, right)


@jvp("matmul")
def _matmul_jvp(node: TracedNode, tangents: list[array | None]) -> array | None:
    return _product_tangent(*node.inputs, *tangents)


@vmap("matmul")
def _matmul_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return matmul(*[align(a, b, len(node.shape)) for a, b in zip(inputs, batched, strict=True)])


@vjp("addmm")
def _addmm_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    c, a, b = node.inputs
    alpha, beta = node.floats
    of_c, of_a, of_b = node.sources
    scaled = ew.multiply(alpha, cotangent)
    return [
        unbroadcast(ew.multiply(beta, cotangent), c.shape) if of_c >= 0 else None,
        _cotangent_of_left(a, b, scaled) if of_a >= 0 else None,
        _cotangent_of_right(a, b, scaled) if of_b >= 0 else None,
    ]


@jvp("addmm")
def _addmm_jvp(node: TracedNode, tangents: list[array | None]) -> array | None:
    _, a, b = node.inputs
    alpha, beta = node.floats
    tc, ta, tb = tangents
    product = _product_tangent(a, b, ta, tb)
    total = None if product is None else ew.multiply(alpha, product)
    if tc is not None:
        scaled = ew.multiply(beta, tc)
        total = scaled if total is None else ew.add(total, scaled)
    return None if total is None else shapes.broadcast_to(to_dtype(total, node.dtype), node.shape)


@vmap("addmm")
def _addmm_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    rank = len(node.shape)
    c, a, b = [align(x, has_axis, rank) for x, has_axis in zip(inputs, batched, strict=True)]
    if not (batched[1] or batched[2]):
        a = shapes.broadcast_to(a, (size, *[1] * (rank - a.ndim), *a.shape))
    return addmm(c, a, b, *node.floats)
