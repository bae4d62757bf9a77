"""Windows that overlap, put together from slices and gathers: differentiable and lowered like any other op."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from .. import _graph
from . import shape as shapes
from ._registry import array, normalize_shape, remembered, require_array
from .creation import arange
from .positions import take

# Up to this many places in a window each is a slice of its own: slices are views and joining them is one copy. A slice
# is a node of the graph, though, and a window of hundreds of places is better fetched by one gather.
_MOST_SLICES = 32


def window_counts(dims: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> list[int]:
    """How many windows of these sizes, these strides apart, lie inside dims: none if a window is larger."""
    return [max(0, (n - size) // stride + 1) for n, size, stride in zip(dims, sizes, strides, strict=True)]


def _places(x: array, axis: int, size: int, stride: int, dilation: int, count: int, stream: Any) -> array:
    """x (..., n, ..., C) as (..., count, ..., size * C): beside each other what the places of a window hold."""
    last = x.ndim - 1
    if size <= _MOST_SLICES:
        reach = (count - 1) * stride + 1 if count else 0
        parts = [
            shapes.slice_along(x, axis, i * dilation, i * dilation + reach, stride, stream=stream) for i in range(size)
        ]
        return shapes.concatenate(parts, last, stream=stream)
    first = arange(0, count * stride, stride, stream=stream)
    index = shapes.expand_dims(first, 1, stream=stream) + arange(0, size * dilation, dilation, stream=stream)
    dims = x.shape
    x = take(x, index, axis, stream=stream)  # (..., count, size, ..., C)
    x = shapes.moveaxis(x, axis + 1, last, stream=stream)
    return _graph.reshape(x, [*dims[:axis], count, *dims[axis + 1 : last], size * dims[last]], stream)


@remembered
def sliding_windows(
    x: array,
    sizes: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int] | None = None,
    *,
    stream: Any = None,
) -> array:
    """The windows over the dims before the last, each made one vector.

    Args:
        x: (..., *spatial, C), with as many spatial dims as `sizes`.
        sizes: how many places a window has along each spatial dim.
        strides: how far windows are apart.
        dilations: how far the places of a window are apart; 1 for None.
        stream: a stream or device.

    Returns:
        (..., *counts, size * C), size being the product of `sizes`: row-major over the places of a window, then C.

    >>> sliding_windows(mx.arange(4).reshape(4, 1), [2], [1])
    array([[0, 1],
           [1, 2],
           [2, 3]], dtype=int32)
    """
    dilations = dilations or [1] * len(sizes)
    first = x.ndim - 1 - len(sizes)
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    counts = window_counts(x.shape[first:-1], spans, strides)
    if list(sizes) == list(strides) and all(d == 1 for d in dilations):
        return _apart(x, first, sizes, counts, stream)
    # One dim after another, the last first: k + l slices for a window of k * l places, and ever longer runs to copy.
    for d in reversed(range(len(sizes))):
        x = _places(x, first + d, sizes[d], strides[d], dilations[d], counts[d], stream)
    return x


def _apart(x: array, first: int, sizes: Sequence[int], counts: Sequence[int], stream: Any) -> array:
    """Windows that touch and do not overlap: the elements in another order."""
    dims = x.shape
    for d, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        x = shapes.slice_along(x, first + d, 0, size * count, stream=stream)
    split = [n for pair in zip(counts, sizes, strict=True) for n in pair]
    x = _graph.reshape(x, [*dims[:first], *split, dims[-1]], stream)
    rank = len(sizes)
    order = [*range(first), *(first + 2 * d for d in range(rank)), *(first + 2 * d + 1 for d in range(rank))]
    x = shapes.transpose(x, [*order, first + 2 * rank], stream=stream)
    return _graph.reshape(x, [*dims[:first], *counts, math.prod(sizes) * dims[-1]], stream)


@remembered
def as_strided(
    a: array,
    /,
    shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    offset: int = 0,
    *,
    stream: Any = None,
) -> array:
    """An array whose element [i, j, ...] is element offset + i * strides[0] + j * strides[1] + ... of a, row-major.

    Unlike MLX's it never looks outside `a`, and it is a gather, not a view.

    Args:
        a: an array.
        shape: the dims of the result; those of `a` for None.
        strides: one for each dim, in elements, of any sign; for None those of `a` in row-major order.
        offset: the element of `a` that comes first.
        stream: a stream or device.

    Raises:
        ValueError: there is not one stride for each dim, or an element would lie outside `a`.

    >>> mx.as_strided(mx.arange(5), (3, 3), (1, 1))
    array([[0, 1, 2],
           [1, 2, 3],
           [2, 3, 4]], dtype=int32)
    """
    require_array(a, "as_strided")
    dims = a.shape if shape is None else normalize_shape(shape, "as_strided")
    if strides is None:
        steps = [math.prod(a.shape[d + 1 :]) for d in range(a.ndim)]
    else:
        steps = [operator.index(s) for s in strides]
    offset = operator.index(offset)
    if len(dims) != len(steps):
        raise ValueError(f"[as_strided] {len(dims)} dims need as many strides, got {len(steps)}.")
    reach = [(n - 1) * s for n, s in zip(dims, steps, strict=True)]
    lowest, highest = offset + sum(r for r in reach if r < 0), offset + sum(r for r in reach if r > 0)
    flat = shapes.flatten(a, stream=stream)
    if 0 in dims:
        return _graph.reshape(shapes.slice_along(flat, 0, 0, 0, stream=stream), dims, stream)
    if lowest < 0 or highest >= a.size:
        raise ValueError(
            f"[as_strided] Elements {lowest} to {highest} are asked of an array that has {a.size}: "
            f"shape {tuple(dims)}, strides {tuple(steps)}, offset {offset}."
        )
    if steps == [math.prod(dims[d + 1 :]) for d in range(len(dims))]:
        part = shapes.slice_along(flat, 0, offset, offset + math.prod(dims), stream=stream)
        return _graph.reshape(part, dims, stream)
    dtype = _graph.int32 if a.size <= 2**31 - 1 else _graph.int64
    index = _graph.astype(_graph.as_array(offset), dtype, stream)
    for n, step in zip(dims, steps, strict=True):
        along = arange(0, n, dtype=dtype, stream=stream) * step
        index = shapes.expand_dims(index, index.ndim, stream=stream) + along
    return take(flat, index, 0, stream=stream)
