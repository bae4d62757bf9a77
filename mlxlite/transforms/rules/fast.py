"""Rotary positions. 16-bit floats are computed in float32, as by the primitive."""

from __future__ import annotations

from ... import _graph
from ..._graph import TracedNode, array
from ...core import creation, fast
from ...core import elementwise as ew
from ...core import shape as shapes
from .._tables import jvp, vjp, vmap
from ..forward import transposed_twice
from . import attention, normalization  # noqa: F401  their rules register
from ._common import spread, unbroadcast, wide

# ---- rotary positions: a rotation, so its transpose turns the other way


def _rope(node: TracedNode, x: array, scale_sign: float = 1.0) -> array:
    base, scale = node.floats
    return _rope_record([x, *node.inputs[1:]], node, (base, scale_sign * scale))


def _rope_record(inputs: list[array], node: TracedNode, floats: tuple[float, float]) -> array:
    return fast._rope.record(inputs, inputs[0].shape, inputs[0].dtype, node.static, node.ints, floats)


def _pairs(a: array, dims: int, traditional: bool) -> tuple[array, array]:
    """The two members of the pairs of features that turn, each (..., dims / 2)."""
    if traditional:
        return a[..., 0:dims:2], a[..., 1:dims:2]
    return a[..., : dims // 2], a[..., dims // 2 : dims]


def _cotangent_of_frequencies(node: TracedNode, cotangent: array) -> array:
    dims, traditional, has_offset, _ = node.static
    x, freqs = node.inputs[0], node.inputs[-1]
    _, scale = node.floats
    length = x.shape[-2]
    positions = creation.arange(length, dtype=_graph.float32)
    if has_offset:
        start = _graph.reshape(_graph.astype(node.inputs[1], _graph.float32), (-1, 1))
        positions = ew.add(start, positions)  # (1 or B, T)
        positions = _graph.reshape(positions, (positions.shape[0], *[1] * (x.ndim - 3), length))
    else:
        positions = ew.add(positions, node.ints[0])
    change = ew.multiply(ew.multiply(shapes.expand_dims(positions, -1), -scale), ew.reciprocal(ew.square(freqs)))
    (c1, c2), (y1, y2) = [_pairs(wide(a), dims, traditional) for a in (cotangent, node.output)]
    by_angle = ew.subtract(ew.multiply(c2, y1), ew.multiply(c1, y2))
    return unbroadcast(_graph.astype(ew.multiply(by_angle, change), freqs.dtype), freqs.shape)


@vjp("rope")
def _rope_vjp(node: TracedNode, cotangent: array) -> list[array | None]:
    _, _, has_offset, has_freqs = node.static
    found: list[array | None] = [_rope(node, cotangent, -1.0) if node.sources[0] >= 0 else None]
    if has_offset:
        found.append(None)
    if has_freqs:
        found.append(_cotangent_of_frequencies(node, cotangent) if node.sources[-1] >= 0 else None)
    return found


@jvp("rope")
def _rope_jvp(node: TracedNode, tangents: list[array | None]) -> array | None:
    if any(t is not None for t in tangents[1:]):
        return transposed_twice(node, tangents)
    return None if tangents[0] is None else _rope(node, tangents[0])


@vmap("rope")
def _rope_vmap(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    _, _, has_offset, has_freqs = node.static
    if has_freqs and batched[-1]:
        raise NotImplementedError(
            "[vmap] rope takes one freqs for all elements: apply the rotation with sin and cos instead."
        )
    x = spread(inputs[0], batched[0], size)
    if not has_offset or (not batched[1] and inputs[1].size == 1):
        return _rope_record([x, *inputs[1:]], node, node.floats)  # type: ignore[arg-type]
    # The offsets are of the first axis: the mapped one becomes a part of it.
    batch = x.shape[1]
    offset = shapes.broadcast_to(spread(inputs[1], batched[1], size), (size, batch))
    folded = _graph.reshape(x, (size * batch, *x.shape[2:]))
    offset = _graph.reshape(offset, (size * batch,))
    out = _rope_record([folded, offset, *inputs[2:]], node, node.floats)  # type: ignore[arg-type]
    return _graph.reshape(out, x.shape)
