"""Pooling layers: the maximum or the mean of every window of each channel. Channels come last."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import mlxlite.core as mx

from ..core.windows import sliding_windows
from .base import Module


class _Pool(Module):
    """What the six have in common."""

    _rank: ClassVar[int]
    _reduce: ClassVar[Callable[..., mx.array]]
    _padding_value: ClassVar[float]

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self._kernel_size = self._numbers("kernel_size", kernel_size)
        self._stride = self._kernel_size if stride is None else self._numbers("stride", stride)
        self._padding = self._numbers("padding", padding)
        name = type(self).__name__
        for what, values in (("kernel_size", self._kernel_size), ("stride", self._stride)):
            if min(values) <= 0:
                raise ValueError(f"[{name}] '{what}' must be positive but got {values}.")
        if min(self._padding) < 0:
            raise ValueError(f"[{name}] 'padding' must be non-negative but got {self._padding}.")

    def _numbers(self, what: str, value: int | Sequence[int]) -> tuple[int, ...]:
        values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * self._rank
        if len(values) != self._rank or not all(isinstance(v, int) for v in values):
            plural = "" if self._rank == 1 else "s"
            raise ValueError(
                f"[{type(self).__name__}] '{what}' must be an integer or a tuple containing "
                f"{self._rank} integer{plural}, got {value!r}."
            )
        return values  # type: ignore[return-value]

    def _extra_repr(self) -> str:
        return f"kernel_size={self._kernel_size}, stride={self._stride}, padding={self._padding}"

    def __call__(self, x: mx.array) -> mx.array:
        """(N, *spatial, C) to (N, *counts, C). ValueError for other dims or a window larger than the padded input."""
        name = type(self).__name__
        if x.ndim != self._rank + 2:
            raise ValueError(f"[{name}] takes (N, {self._rank} spatial dims, C), got shape {x.shape}.")
        if any(self._padding):
            widths = [(0, 0), *((p, p) for p in self._padding), (0, 0)]
            x = mx.pad(x, widths, constant_values=self._padding_value)
        if any(size > n for size, n in zip(self._kernel_size, x.shape[1:-1], strict=True)):
            raise ValueError(f"[{name}] A window of {self._kernel_size} is larger than the input, {x.shape[1:-1]}.")
        windows = sliding_windows(x, self._kernel_size, self._stride)
        windows = windows.reshape(*windows.shape[:-1], math.prod(self._kernel_size), x.shape[-1])
        return type(self)._reduce(windows, -2)


class _MaxPool(_Pool):
    _reduce = staticmethod(mx.max)
    _padding_value = -float("inf")


class _AvgPool(_Pool):
    _reduce = staticmethod(mx.mean)
    _padding_value = 0.0


class MaxPool1d(_MaxPool):
    """The maximum of windows of (N, L, C).

    Args:
        kernel_size: how long windows are.
        stride: how far they are apart; `kernel_size` for None.
        padding: how much is added before and after; it is never the maximum.

    Raises:
        ValueError: numbers that are no integers, not positive (padding: negative), or too many.

    >>> nn.MaxPool1d(2)(mx.array([3, 1, 4, 1]).reshape(1, 4, 1)).flatten()
    array([3, 4], dtype=int32)
    """

    _rank = 1


class MaxPool2d(_MaxPool):
    """The maximum of windows of (N, H, W, C); arguments as of `MaxPool1d`, one number or one for each of two dims.

    >>> nn.MaxPool2d(2, stride=1)(mx.zeros((1, 4, 4, 3))).shape
    (1, 3, 3, 3)
    """

    _rank = 2


class MaxPool3d(_MaxPool):
    """The maximum of windows of (N, D, H, W, C); arguments as of `MaxPool1d`, one number or one for each of three dims.

    >>> nn.MaxPool3d(2)(mx.zeros((1, 4, 4, 4, 3))).shape
    (1, 2, 2, 2, 3)
    """

    _rank = 3


class AvgPool1d(_AvgPool):
    """The mean of windows of (N, L, C); arguments as of `MaxPool1d`. Padding counts as zeros.

    >>> nn.AvgPool1d(2)(mx.array([3.0, 1.0, 4.0, 1.0]).reshape(1, 4, 1)).flatten()
    array([2, 2.5], dtype=float32)
    """

    _rank = 1


class AvgPool2d(_AvgPool):
    """The mean of windows of (N, H, W, C); arguments as of `MaxPool2d`. Padding counts as zeros.

    >>> nn.AvgPool2d((2, 4))(mx.zeros((1, 4, 4, 3))).shape
    (1, 2, 1, 3)
    """

    _rank = 2


class AvgPool3d(_AvgPool):
    """The mean of windows of (N, D, H, W, C); arguments as of `MaxPool3d`. Padding counts as zeros.

    >>> nn.AvgPool3d(2, padding=1)(mx.zeros((1, 4, 4, 4, 3))).shape
    (1, 3, 3, 3, 3)
    """

    _rank = 3
