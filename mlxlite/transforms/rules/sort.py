"""Sorting."""

from __future__ import annotations

from typing import Any

from ..._graph import TracedNode, array
from ...core import creation, indexing
from ...core._registry import PRIMITIVES
from ...core.sort import argsort
from .._tables import jvp, vjp, vmap, without_gradient
from ._common import again

without_gradient("argsort")


@vjp("sort")
def _sort_vjp(node: TracedNode, cotangent: array) -> list[array]:
    (axis,) = node.static
    order = argsort(node.inputs[0], axis)
    inputs = (creation.zeros_like(cotangent), order, cotangent)
    return [PRIMITIVES["put_along_axis"].record(inputs, cotangent.shape, cotangent.dtype, (axis, "none"))]


@jvp("sort")
def _sort_jvp(node: TracedNode, tangents: list[Any]) -> array:
    (axis,) = node.static
    return indexing.take_along_axis(tangents[0], argsort(node.inputs[0], axis), axis)


@vmap("sort", "argsort")
def _sort_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return again(node, inputs, (size, *node.shape), (node.static[0] + 1,))
