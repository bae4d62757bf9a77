"""Random bits: a key for every element gives what the keys give one by one."""

from __future__ import annotations

from ..._graph import TracedNode, array
from .._tables import vmap, without_gradient
from ._common import again

without_gradient("random_bits")


@vmap("random_bits")
def _random_bits_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    return again(node, inputs, (size, *node.shape))
