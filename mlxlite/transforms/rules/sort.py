"""Sorting."""

from __future__ import annotations

from typing import Any

from ..._graph import TracedNode, array
from ...core import creation, positions
from ...core._registry import PRIMITIVES
from ...core.sort import argsort, argtopk
from .._tables import jvp, vjp, vmap, without_gradient
from ._common import again

without_gradient("argsort argtopk")


def _order(node: TracedNode) -> array:
    """Where along the axis what is at each place of the result comes from."""
    (axis,) = node.static
    return argtopk(node.inputs[0], node.shape[axis], axis) if node.name == "topk" else argsort(node.inputs[0], axis)


@vjp("sort", "topk")
def _sort_vjp(node: TracedNode, cotangent: array) -> list[array]:
    (axis,) = node.static
    source = node.inputs[0]
    inputs = (creation.zeros_like(source), _order(node), cotangent)
    return [PRIMITIVES["put_along_axis"].record(inputs, source.shape, cotangent.dtype, (axis, "none"))]


@jvp("sort", "topk")
def _sort_jvp(node: TracedNode, tangents: list[Any]) -> array:
    return positions.take_along_axis(tangents[0], _order(node), node.static[0])


@vmap("sort", "argsort", "topk", "argtopk")
def _sort_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return again(node, inputs, (size, *node.shape), (node.static[0] + 1,))
