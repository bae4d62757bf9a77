"""Arrays made of numbers."""

from __future__ import annotations

from ..._graph import TracedNode, array
from ...core import creation
from .._tables import vjp, vmap
from ._common import again, align, linear, unbroadcast


@vjp("full")
def _full_vjp(node: TracedNode, cotangent: array) -> list[array]:
    return [unbroadcast(cotangent, node.inputs[0].shape)]


@linear("full")
def _full(node: TracedNode, value: array) -> array:
    return creation.full(node.shape, value)


@vmap("full")
def _full_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return again(node, [align(inputs[0], True, len(node.shape))], (size, *node.shape))
