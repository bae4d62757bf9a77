"""Convolution layers. Channels come last."""

from __future__ import annotations

import math
from typing import Any

import mlxlite.core as mx

from .base import Module


def per_dim(value: int | tuple[int, ...], rank: int) -> Any:
    """A tuple with one number for each of `rank` spatial dims."""
    return (value,) * rank if isinstance(value, int) else value


def uniform_weight(outputs: int, kernel_size: tuple[int, ...], channels: int) -> mx.array:
    """(outputs, *kernel_size, channels), uniform in +-1/sqrt(inputs of one output)."""
    scale = math.sqrt(1 / (channels * math.prod(kernel_size)))
    return mx.random.uniform(low=-scale, high=scale, shape=(outputs, *kernel_size, channels))


def _check_groups(in_channels: int, groups: int) -> None:
    if in_channels % groups != 0:
        raise ValueError(f"{in_channels} input channels cannot be divided into {groups} groups.")


class Conv1d(Module):
    """A convolution over (N, L, in_channels).

    Args:
        in_channels: the channels of the input.
        out_channels: the channels of the output.
        kernel_size: how long the filters are.
        stride: how far the filters move.
        padding: how many zeros go before and after the input.
        dilation: how far the elements of a filter are apart.
        groups: channels are cut into so many parts, each convolved by itself.
        bias: whether to add a bias to every output channel.

    Parameters: weight (out_channels, kernel_size, in_channels / groups), uniform in +-1/sqrt(kernel_size * in_channels
    / groups) at first; bias (out_channels,), zeros at first.

    Raises:
        ValueError: `groups` does not divide `in_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_groups(in_channels, groups)
        self.weight = uniform_weight(out_channels, (kernel_size,), in_channels // groups)
        if bias:
            self.bias = mx.zeros((out_channels,))
        self.padding = padding
        self.dilation = dilation
        self.stride = stride
        self.groups = groups

    def _extra_repr(self) -> str:
        outputs, size, channels = self.weight.shape
        return (
            f"{channels * self.groups}, {outputs}, kernel_size={size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, groups={self.groups}, bias={'bias' in self}"
        )

    def __call__(self, x: mx.array) -> mx.array:
        y = mx.conv1d(x, self.weight, self.stride, self.padding, self.dilation, self.groups)
        return y + self["bias"] if "bias" in self else y


class Conv2d(Module):
    """A convolution over (N, H, W, in_channels).

    Args:
        in_channels, out_channels, groups, bias: as for `Conv1d`.
        kernel_size, stride, padding, dilation: as for `Conv1d`; one number, or one for each of two dims.

    Parameters: weight (out_channels, KH, KW, in_channels / groups) and bias (out_channels,), as for `Conv1d`.

    Raises:
        ValueError: `groups` does not divide `in_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_groups(in_channels, groups)
        self.weight = uniform_weight(out_channels, per_dim(kernel_size, 2), in_channels // groups)
        if bias:
            self.bias = mx.zeros((out_channels,))
        self.padding = per_dim(padding, 2)
        self.stride = per_dim(stride, 2)
        self.dilation = dilation
        self.groups = groups

    def _extra_repr(self) -> str:
        outputs, *size, channels = self.weight.shape
        return (
            f"{channels * self.groups}, {outputs}, kernel_size={tuple(size)}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={'bias' in self}"
        )

    def __call__(self, x: mx.array) -> mx.array:
        y = mx.conv2d(x, self.weight, self.stride, self.padding, self.dilation, self.groups)
        return y + self["bias"] if "bias" in self else y


class Conv3d(Module):
    """A convolution over (N, D, H, W, in_channels).

    Args:
        in_channels, out_channels, bias: as for `Conv1d`.
        kernel_size, stride, padding, dilation: as for `Conv1d`; one number, or one for each of three dims.

    Parameters: weight (out_channels, KD, KH, KW, in_channels) and bias (out_channels,), as for `Conv1d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
        dilation: int | tuple[int, int, int] = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = uniform_weight(out_channels, per_dim(kernel_size, 3), in_channels)
        if bias:
            self.bias = mx.zeros((out_channels,))
        self.padding = per_dim(padding, 3)
        self.stride = per_dim(stride, 3)
        self.dilation = dilation

    def _extra_repr(self) -> str:
        outputs, *size, channels = self.weight.shape
        return (
            f"{channels}, {outputs}, kernel_size={tuple(size)}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, bias={'bias' in self}"
        )

    def __call__(self, x: mx.array) -> mx.array:
        y = mx.conv3d(x, self.weight, self.stride, self.padding, self.dilation)
        return y + self["bias"] if "bias" in self else y
