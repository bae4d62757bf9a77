"""Upsampling: the spatial dims made longer (or shorter), by repetition or interpolation. Channels come last."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import mlxlite.core as mx

from .base import Module

# For one dim: pairs of an index (M,) into its N elements and a weight (M, 1...), whose products add up to the result.
Taps = list[tuple[mx.array, mx.array]]


def _positions(n: int, scale: float, align_corners: bool) -> mx.array:
    """Where the int(scale * n) elements of the result lie among n: corners on corners, or the middle on the middle."""
    m = int(scale * n)
    places = mx.arange(m, dtype=mx.float32)
    if align_corners:
        return places * ((n - 1) / max(m - 1, 1))
    step = 1 / scale
    return places * step - ((m - 1) * step - n + 1) / 2


def _index(places: mx.array, n: int) -> mx.array:
    return mx.clip(places, 0, n - 1).astype(mx.uint32)


def _linear_taps(n: int, scale: float, align_corners: bool) -> Taps:
    places = mx.clip(_positions(n, scale, align_corners), 0, n - 1)
    left = mx.floor(places)
    weight = places - left
    return [(left.astype(mx.uint32), 1 - weight), (mx.ceil(places).astype(mx.uint32), weight)]


def _cubic_near(x: mx.array, a: float) -> mx.array:
    """Keys's cubic kernel at distances up to 1."""
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1


def _cubic_far(x: mx.array, a: float) -> mx.array:
    """Keys's cubic kernel at distances from 1 to 2."""
    return (((x - 5) * x + 8) * x - 4) * a


def _cubic_taps(n: int, scale: float, align_corners: bool) -> Taps:
    places = _positions(n, scale, align_corners)
    left, right = mx.floor(places), mx.floor(places + 1)
    taps = [(left, _cubic_near), (right, _cubic_near), (left - 1, _cubic_far), (right + 1, _cubic_far)]
    return [(_index(tap, n), kernel(mx.abs(places - tap), -0.75)) for tap, kernel in taps]


def _triangle(x: mx.array) -> mx.array:
    return mx.maximum(1.0 - x, 0.0)


def _cubic(x: mx.array) -> mx.array:
    return mx.where(x <= 1.0, _cubic_near(x, -0.5), mx.where(x <= 2.0, _cubic_far(x, -0.5), 0.0))


def _smoothed_taps(kernel: Callable[[mx.array], mx.array], radius: float) -> Callable[[int, float, bool], Taps]:
    """Taps of a kernel that is as wide as the result's elements are apart, so that shrinking leaves no element out."""

    def taps(n: int, scale: float, align_corners: bool) -> Taps:
        places = _positions(n, scale, align_corners)
        width = 1.0 / scale if scale < 1 else 1.0
        reach = math.ceil(radius * width) + 1
        found = []
        for k in range(1 - reach, reach):
            tap = mx.floor(places) + k
            weight = kernel(mx.abs(places - tap) / width)
            found.append((tap, mx.where((tap >= 0) & (tap < n), weight, 0.0)))
        total = sum((weight for _, weight in found[1:]), start=found[0][1])
        total = mx.where(total > 0, total, 1.0)
        return [(_index(tap, n), weight / total) for tap, weight in found]

    return taps


_TAPS: dict[tuple[str, bool], Callable[[int, float, bool], Taps]] = {
    ("linear", False): _linear_taps,
    ("cubic", False): _cubic_taps,
    ("linear", True): _smoothed_taps(_triangle, 1.0),
    ("cubic", True): _smoothed_taps(_cubic, 2.0),
}


def _check_scales(x: mx.array, scale_factor: tuple[float, ...]) -> None:
    if x.ndim - 2 != len(scale_factor):
        raise ValueError(f"[Upsample] {x.ndim - 2} spatial dims need as many scales, got {len(scale_factor)}.")


def _check_corners(align_corners: bool, antialias: bool) -> None:
    if antialias and align_corners:
        raise ValueError("[Upsample] antialias=True needs align_corners=False.")


def upsample_nearest(x: mx.array, scale_factor: tuple[float, ...]) -> mx.array:
    """x (N, *spatial, C), each element of the result the one of x that is nearest. One scale for each spatial dim."""
    _check_scales(x, scale_factor)
    if all(scale == int(scale) for scale in scale_factor):
        return _repeated(x, [int(scale) for scale in scale_factor])
    for axis, scale in enumerate(scale_factor, 1):
        n = x.shape[axis]
        m = int(scale * n)
        places = mx.arange(m, dtype=mx.float32)
        places = mx.round((places + 0.5) * (n / m) - 0.5) if m > n else places * (n / m)
        x = mx.take(x, places.astype(mx.uint32), axis)
    return x


def _repeated(x: mx.array, counts: list[int]) -> mx.array:
    """Every element `counts` times along the spatial dims."""
    batch, *space, channels = x.shape
    ones, wide = [], []
    for n, count in zip(space, counts, strict=True):
        ones += [n, 1]
        wide += [n, count]
    x = mx.broadcast_to(x.reshape(batch, *ones, channels), (batch, *wide, channels))
    return x.reshape(batch, *(n * count for n, count in zip(space, counts, strict=True)), channels)


def _interpolated(
    x: mx.array, scale_factor: tuple[float, ...], kind: str, align_corners: bool, antialias: bool
) -> mx.array:
    """One spatial dim after another: the weights of a point are products of each dim's."""
    _check_corners(align_corners, antialias)
    _check_scales(x, scale_factor)
    for axis, scale in enumerate(scale_factor, 1):
        along = [-1 if d == axis else 1 for d in range(x.ndim)]
        taps = _TAPS[kind, antialias](x.shape[axis], scale, align_corners)
        parts = [mx.take(x, index, axis) * weight.reshape(along) for index, weight in taps]
        x = sum(parts[1:], start=parts[0])
    return x


def upsample_linear(
    x: mx.array, scale_factor: tuple[float, ...], align_corners: bool = False, antialias: bool = False
) -> mx.array:
    """x (N, *spatial, C), interpolated between the 2 nearest elements along each dim. See `Upsample`."""
    return _interpolated(x, scale_factor, "linear", align_corners, antialias)


def upsample_cubic(
    x: mx.array, scale_factor: tuple[float, ...], align_corners: bool = False, antialias: bool = False
) -> mx.array:
    """x (N, *spatial, C), interpolated between the 4 nearest elements along each dim. See `Upsample`."""
    return _interpolated(x, scale_factor, "cubic", align_corners, antialias)


class Upsample(Module):
    """Makes the spatial dims of (N, *spatial, C) int(scale * n) long.

    Args:
        scale_factor: one number, or one for each spatial dim.
        mode: "nearest", "linear" (in two dims bilinear) or "cubic" (Keys's kernel, a = -0.75).
        align_corners: whether the outermost elements stay where they are, or else the middle does.
        antialias: whether the kernel widens when dims are made shorter ("linear", and "cubic" with a = -0.5).

    Raises:
        ValueError: another mode, `antialias` with "nearest" or `align_corners`; and when called, no spatial dim or
            another number of scales.

    Source: Keys, Cubic convolution interpolation for digital image processing, 1981.

    >>> nn.Upsample(2)(mx.array([1, 2]).reshape(1, 2, 1)).flatten()
    array([1, 1, 2, 2], dtype=int32)
    """

    def __init__(
        self,
        scale_factor: float | tuple[float, ...],
        mode: Literal["nearest", "linear", "cubic"] = "nearest",
        align_corners: bool = False,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        if mode not in ("nearest", "linear", "cubic"):
            raise ValueError(f"[Upsample] There is no mode {mode!r}: use 'nearest', 'linear' or 'cubic'.")
        if antialias and mode == "nearest":
            raise ValueError("[Upsample] antialias=True needs mode 'linear' or 'cubic'.")
        _check_corners(align_corners, antialias)
        self.scale_factor: Any = (
            tuple(map(float, scale_factor)) if isinstance(scale_factor, (list, tuple)) else float(scale_factor)
        )
        self.mode = mode
        self.align_corners = align_corners
        self.antialias = antialias

    def _extra_repr(self) -> str:
        shown = f"scale_factor={self.scale_factor}, mode={self.mode!r}, align_corners={self.align_corners}"
        return shown + ", antialias=True" if self.antialias else shown

    def __call__(self, x: mx.array) -> mx.array:
        rank = x.ndim - 2
        if rank < 1:
            raise ValueError(f"[Upsample] The input must have a spatial dim, (N, ..., C), got shape {x.shape}.")
        scales = self.scale_factor if isinstance(self.scale_factor, tuple) else (self.scale_factor,) * rank
        if self.mode == "nearest":
            return upsample_nearest(x, scales)
        return _interpolated(x, scales, self.mode, self.align_corners, self.antialias)
