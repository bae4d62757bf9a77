"""Convolutions: windows of the input, as the rows of one matrix, times the weight.

Channels come last: inputs are (N, *spatial, C), weights (outputs, *spatial, C / groups). As in all of machine learning
it is a correlation: the weight is not turned round, unless `flip` says so.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from .. import _graph
from . import shape as shapes
from ._registry import array, remembered, require_array, to_dtype
from .matmul import matmul
from .windows import sliding_windows

_FLOATING = ("float16", "bfloat16", "float32", "float64")


@remembered
def conv_general(
    input: array,
    weight: array,
    /,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | tuple[Sequence[int], Sequence[int]] = 0,
    kernel_dilation: int | Sequence[int] = 1,
    input_dilation: int | Sequence[int] = 1,
    groups: int = 1,
    flip: bool = False,
    *,
    stream: Any = None,
) -> array:
    """A convolution of one to three spatial dims.

    Args:
        input: (N, *spatial, C), floating.
        weight: (outputs, *spatial, C / groups).
        stride: how far windows are apart; as the other numbers, one for all spatial dims or one for each.
        padding: how many zeros go before and after each dim, or a pair of sequences, (before, after). A negative number
            takes as many elements away.
        kernel_dilation: how far the places of a window are apart.
        input_dilation: how far elements of the input are spread, zeros in between.
        groups: input and output channels are cut into so many parts, each convolved by itself.
        flip: whether the weight is turned round along its spatial dims.
        stream: a stream or device.

    Returns:
        (N, *counts, outputs) in the promoted dtype.

    Raises:
        ValueError: shapes that do not fit, a window larger than the padded input, strides or dilations below 1, or
            an input that is not floating.

    >>> mx.conv_general(mx.arange(4.0).reshape(1, 4, 1), mx.ones((1, 2, 1)), padding=([1], [0])).flatten()
    array([0, 1, 3, 5], dtype=float32)
    """
    rank = _check_operands(require_array(input, "conv"), require_array(weight, "conv"), groups)
    strides = _per_dim("strides", stride, rank, least=1)
    dilations = _per_dim("kernel dilation", kernel_dilation, rank, least=1)
    spreads = _per_dim("input dilation", input_dilation, rank, least=1)
    before, after = _paddings(padding, rank)
    sizes = weight.shape[1:-1]
    _check_sizes(input.shape, weight.shape, before, after, dilations, spreads)
    dtype = _graph.promote_types(input.dtype, weight.dtype)
    x, w = to_dtype(input, dtype, stream), to_dtype(weight, dtype, stream)
    if flip:
        w = shapes.flip(w, tuple(range(1, rank + 1)), stream=stream)
    for d in range(rank):
        x = _spread(x, d + 1, spreads[d], stream)
    x = _padded(x, before, after, stream)
    return _windows_times_weight(x, w, sizes, strides, dilations, groups, stream)


def _windows_times_weight(
    x: array,
    w: array,
    sizes: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    stream: Any,
) -> array:
    outputs, channels = w.shape[0], w.shape[-1]
    depth = math.prod(sizes) * channels
    if groups == 1:
        rows = sliding_windows(x, sizes, strides, dilations, stream=stream)
        counts = rows.shape[:-1]
        product = matmul(
            _graph.reshape(rows, [math.prod(counts), depth], stream),
            shapes.transpose(_graph.reshape(w, [outputs, depth], stream), stream=stream),
            stream=stream,
        )
        return _graph.reshape(product, [*counts, outputs], stream)
    # A dim of groups before the channels: it stays where it is, and each window of each group is one run of memory.
    grouped = _graph.reshape(x, [*x.shape[:-1], groups, channels], stream)
    grouped = shapes.moveaxis(grouped, -2, 1, stream=stream)
    rows = sliding_windows(grouped, sizes, strides, dilations, stream=stream)  # (N, groups, *counts, depth)
    batch, counts = rows.shape[0], rows.shape[2:-1]
    product = matmul(
        _graph.reshape(rows, [batch, groups, math.prod(counts), depth], stream),
        shapes.matrix_transpose(_graph.reshape(w, [groups, outputs // groups, depth], stream), stream=stream),
        stream=stream,
    )
    product = shapes.moveaxis(product, 1, 2, stream=stream)
    return _graph.reshape(product, [batch, *counts, outputs], stream)


def _spread(x: array, axis: int, dilation: int, stream: Any) -> array:
    """x with dilation - 1 zeros between neighbours along an axis."""
    n = x.shape[axis]
    if dilation == 1 or n <= 1:
        return x
    dims = x.shape
    x = shapes.expand_dims(x, axis + 1, stream=stream)
    x = shapes.pad(x, [(0, dilation - 1) if d == axis + 1 else (0, 0) for d in range(x.ndim)], stream=stream)
    x = _graph.reshape(x, [*dims[:axis], n * dilation, *dims[axis + 1 :]], stream)
    return shapes.slice_along(x, axis, 0, (n - 1) * dilation + 1, stream=stream)


def _padded(x: array, before: Sequence[int], after: Sequence[int], stream: Any) -> array:
    widths = [(max(0, low), max(0, high)) for low, high in zip(before, after, strict=True)]
    x = shapes.pad(x, [(0, 0), *widths, (0, 0)], stream=stream)
    for d, (low, high) in enumerate(zip(before, after, strict=True)):
        if low < 0 or high < 0:
            x = shapes.slice_along(x, d + 1, max(0, -low), x.shape[d + 1] - max(0, -high), stream=stream)
    return x


# ---- arguments


def _per_dim(what: str, value: int | Sequence[int], rank: int, least: int | None = None) -> list[int]:
    values = [operator.index(v) for v in value] if isinstance(value, (tuple, list)) else [operator.index(value)]  # type: ignore[arg-type]
    if len(values) == 1:
        values *= rank
    if len(values) != rank:
        raise ValueError(f"[conv] Invalid {what} {tuple(values)} for {rank}D convolution.")
    if least is not None and min(values) < least:
        raise ValueError(f"[conv] The {what} must be positive, got {tuple(values)}.")
    return values


def _paddings(padding: Any, rank: int) -> tuple[list[int], list[int]]:
    if isinstance(padding, (tuple, list)) and len(padding) == 2 and all(isinstance(p, (tuple, list)) for p in padding):
        return _per_dim("padding", padding[0], rank), _per_dim("padding", padding[1], rank)
    both = _per_dim("padding", padding, rank)
    return both, both


def _check_operands(x: array, w: array, groups: int) -> int:
    """The number of spatial dims."""
    if x.dtype.name not in _FLOATING:
        raise ValueError(f"[conv] Only floating point inputs can be convolved, got {x.dtype.name}: use astype.")
    rank = x.ndim - 2
    if not 1 <= rank <= 3:
        raise ValueError(f"[conv] The input must be (N, 1 to 3 spatial dims, C), got shape {x.shape}.")
    if w.ndim != x.ndim:
        raise ValueError(f"[conv] A weight for this input has {x.ndim} dims, (C_out, ..., C_in), got shape {w.shape}.")
    if groups < 1:
        raise ValueError(f"[conv] The number of groups must be positive, got {groups}.")
    if x.shape[-1] % groups or w.shape[0] % groups:
        raise ValueError(f"[conv] {groups} groups do not divide the channels of {x.shape} and {w.shape}.")
    if x.shape[-1] != w.shape[-1] * groups:
        raise ValueError(
            f"[conv] A weight of shape {w.shape} and {groups} groups take {w.shape[-1] * groups} channels, "
            f"the input of shape {x.shape} has {x.shape[-1]}."
        )
    return rank


def _check_sizes(
    x: Sequence[int],
    w: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    dilations: Sequence[int],
    spreads: Sequence[int],
) -> None:
    for d in range(len(before)):
        n = max(0, (x[d + 1] - 1) * spreads[d] + 1) + before[d] + after[d]
        span = (w[d + 1] - 1) * dilations[d] + 1
        if w[d + 1] < 1:
            raise ValueError(f"[conv] The weight of shape {tuple(w)} has no places along axis {d + 1}.")
        if span > n:
            raise ValueError(
                f"[conv] A window may not be larger than the padded input: along axis {d + 1} it spans {span} of {n}, "
                f"for an input of shape {tuple(x)} and a weight of shape {tuple(w)}."
            )


def _numbers(name: str, rank: int, **arguments: Any) -> list[Any]:
    """Each argument as an integer (rank 1) or `rank` of them. TypeError for what is neither that nor one integer."""
    results: list[Any] = []
    for argument, value in arguments.items():
        try:
            if rank == 1:
                # One number is for however many dims the input has, as in MLX.
                results.append(operator.index(value))
                continue
            values = tuple(map(operator.index, value if isinstance(value, (tuple, list)) else (value,) * rank))
        except TypeError:
            values = ()
        if len(values) != rank:
            expected = "an integer" if rank == 1 else f"an integer or {rank} of them"
            raise TypeError(f"[{name}] {argument} must be {expected}, got {value!r}.")
        results.append(values)
    return results


# ---- by the number of spatial dims


@remembered
def conv1d(
    input: array,
    weight: array,
    /,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    *,
    stream: Any = None,
) -> array:
    """`conv_general` of one spatial dim.

    Args:
        input: (N, L, C).
        weight: (outputs, K, C / groups).
        stride, padding, dilation, groups: integers.
        stream: a stream or device.

    Returns:
        (N, (L + 2 padding - dilation (K - 1) - 1) // stride + 1, outputs).

    >>> mx.conv1d(mx.arange(4.0).reshape(1, 4, 1), mx.ones((1, 2, 1))).flatten()
    array([1, 3, 5], dtype=float32)
    """
    stride, padding, dilation = _numbers("conv1d", 1, stride=stride, padding=padding, dilation=dilation)
    return conv_general(input, weight, stride, padding, dilation, 1, groups, stream=stream)


@remembered
def conv2d(
    input: array,
    weight: array,
    /,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    stream: Any = None,
) -> array:
    """`conv_general` of two spatial dims: input (N, H, W, C), weight (outputs, KH, KW, C / groups).

    >>> mx.conv2d(mx.ones((1, 4, 4, 1)), mx.ones((1, 2, 2, 1)), stride=(2, 1)).shape
    (1, 2, 3, 1)
    """
    steps, pads, dilations = _numbers("conv2d", 2, stride=stride, padding=padding, dilation=dilation)
    return conv_general(input, weight, steps, pads, dilations, 1, groups, stream=stream)


@remembered
def conv3d(
    input: array,
    weight: array,
    /,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    dilation: int | tuple[int, int, int] = 1,
    groups: int = 1,
    *,
    stream: Any = None,
) -> array:
    """`conv_general` of three spatial dims: input (N, D, H, W, C), weight (outputs, KD, KH, KW, C / groups).

    >>> mx.conv3d(mx.ones((1, 4, 4, 4, 1)), mx.ones((1, 2, 2, 2, 1)), stride=2).shape
    (1, 2, 2, 2, 1)
    """
    steps, pads, dilations = _numbers("conv3d", 3, stride=stride, padding=padding, dilation=dilation)
    return conv_general(input, weight, steps, pads, dilations, 1, groups, stream=stream)


def _transposed(
    name: str,
    rank: int,
    input: array,
    weight: array,
    stride: Any,
    padding: Any,
    dilation: Any,
    output_padding: Any,
    groups: int,
    stream: Any,
) -> array:
    """The gradient of a convolution with respect to its input: the weight turned round over the spread out input."""
    numbers = _numbers(name, rank, stride=stride, padding=padding, dilation=dilation, output_padding=output_padding)
    require_array(input, name)
    dims = _check_operands(input, require_array(weight, name), groups)
    pads = _per_dim("padding", numbers[1], dims)
    dilations = _per_dim("kernel dilation", numbers[2], dims, least=1)
    more = _per_dim("output padding", numbers[3], dims)
    spans = [(k - 1) * d for k, d in zip(weight.shape[1:-1], dilations, strict=True)]
    before = [span - pad for span, pad in zip(spans, pads, strict=True)]
    after = [low + extra for low, extra in zip(before, more, strict=True)]
    return conv_general(input, weight, 1, (before, after), dilations, numbers[0], groups, True, stream=stream)


@remembered
def conv_transpose1d(
    input: array,
    weight: array,
    /,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    output_padding: int = 0,
    groups: int = 1,
    *,
    stream: Any = None,
) -> array:
    """The transpose of `conv1d`: each element of the input adds a multiple of the weight to the output.

    Args:
        input: (N, L, C).
        weight: (outputs, K, C / groups).
        stride: how far neighbours of the input are apart in the output.
        padding: how many elements of the output are left out at both ends.
        dilation: how far the places of the weight are apart.
        output_padding: how many elements are added at the end.
        groups: as for `conv_general`.
        stream: a stream or device.

    Returns:
        (N, (L - 1) stride - 2 padding + dilation (K - 1) + 1 + output_padding, outputs).

    >>> mx.conv_transpose1d(mx.array([1.0, 2.0]).reshape(1, 2, 1), mx.ones((1, 2, 1)), stride=2).flatten()
    array([1, 1, 2, 2], dtype=float32)
    """
    return _transposed("conv_transpose1d", 1, input, weight, stride, padding, dilation, output_padding, groups, stream)


@remembered
def conv_transpose2d(
    input: array,
    weight: array,
    /,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    output_padding: int | tuple[int, int] = 0,
    groups: int = 1,
    *,
    stream: Any = None,
) -> array:
    """The transpose of `conv2d`, as `conv_transpose1d` in two spatial dims.

    >>> mx.conv_transpose2d(mx.ones((1, 2, 2, 1)), mx.ones((1, 2, 2, 1)), stride=2).shape
    (1, 4, 4, 1)
    """
    return _transposed("conv_transpose2d", 2, input, weight, stride, padding, dilation, output_padding, groups, stream)


@remembered
def conv_transpose3d(
    input: array,
    weight: array,
    /,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    dilation: int | tuple[int, int, int] = 1,
    output_padding: int | tuple[int, int, int] = 0,
    groups: int = 1,
    *,
    stream: Any = None,
) -> array:
    """The transpose of `conv3d`, as `conv_transpose1d` in three spatial dims.

    >>> mx.conv_transpose3d(mx.ones((1, 2, 2, 2, 1)), mx.ones((1, 2, 2, 2, 1)), stride=2).shape
    (1, 4, 4, 4, 1)
    """
    return _transposed("conv_transpose3d", 3, input, weight, stride, padding, dilation, output_padding, groups, stream)


@remembered
def convolve(a: array, v: array, /, mode: str = "full", *, stream: Any = None) -> array:
    """The convolution of two vectors, as in signal processing: the shorter is turned round and moved along the longer.

    Args:
        a, v: (n,) and (m,), floating and not empty.
        mode: "full" (n + m - 1 elements), "same" (the max(n, m) in the middle), or "valid" (where they overlap wholly).
        stream: a stream or device.

    Raises:
        ValueError: an array that is no vector, is empty or not floating, or another mode.

    >>> mx.convolve(mx.array([1.0, 2.0, 3.0]), mx.array([0.0, 1.0]))
    array([0, 1, 2, 3], dtype=float32)
    """
    if require_array(a, "convolve").ndim != 1 or require_array(v, "convolve").ndim != 1:
        raise ValueError("[convolve] Inputs must be 1D.")
    if a.size == 0 or v.size == 0:
        raise ValueError("[convolve] Inputs cannot be empty.")
    if a.size < v.size:
        a, v = v, a
    both = v.size - 1
    pads = {"full": (both, both), "same": (both - both // 2, both // 2), "valid": (0, 0)}
    if mode not in pads:
        raise ValueError(f"[convolve] The mode must be one of {list(pads)}, got {mode!r}.")
    before, after = pads[mode]
    x, w = _graph.reshape(a, [1, a.size, 1], stream), _graph.reshape(v, [1, v.size, 1], stream)
    out = conv_general(x, w, padding=([before], [after]), flip=True, stream=stream)
    return _graph.reshape(out, [out.size], stream)
