"""Transposed convolution layers: the way back from the output of a convolution to the shape of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlxlite.core as mx

from .base import Module
from .convolution import per_dim, uniform_weight


class _ConvTranspose(Module):
    """What the three have in common; sizes are kept as they are printed."""

    _function: Callable[..., mx.array]

    def __init__(
        self,
        channels: tuple[int, int],
        kernel_size: tuple[int, ...],
        stride: Any,
        padding: Any,
        dilation: Any,
        output_padding: Any,
        bias: bool,
    ) -> None:
        super().__init__()
        in_channels, out_channels = channels
        self.weight = uniform_weight(out_channels, kernel_size, in_channels)
        if bias:
            self.bias = mx.zeros((out_channels,))
        self.padding = padding
        self.dilation = dilation
        self.stride = stride
        self.output_padding = output_padding

    def _extra_repr(self) -> str:
        outputs, *size, channels = self.weight.shape
        return (
            f"{channels}, {outputs}, kernel_size={size[0] if len(size) == 1 else tuple(size)}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, output_padding={self.output_padding}, "
            f"bias={'bias' in self}"
        )

    def __call__(self, x: mx.array) -> mx.array:
        transposed = type(self)._function
        y = transposed(x, self.weight, self.stride, self.padding, self.dilation, self.output_padding)
        return y + self["bias"] if "bias" in self else y


class ConvTranspose1d(_ConvTranspose):
    """A transposed convolution over (N, L, in_channels).

    Args:
        in_channels: the channels of the input.
        out_channels: the channels of the output.
        kernel_size: how long the filters are.
        stride: how far neighbours of the input are apart in the output.
        padding: how many elements of the output are left out at both ends.
        dilation: how far the elements of a filter are apart.
        output_padding: how many elements are added at the end.
        bias: whether to add a bias to every output channel.

    Parameters: weight (out_channels, kernel_size, in_channels), first uniform in +-1/sqrt(kernel_size * in_channels);
    bias (out_channels,), zeros at first.
    """

    _function = staticmethod(mx.conv_transpose1d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        output_padding: int = 0,
        bias: bool = True,
    ) -> None:
        channels = (in_channels, out_channels)
        super().__init__(channels, (kernel_size,), stride, padding, dilation, output_padding, bias)


class ConvTranspose2d(_ConvTranspose):
    """A transposed convolution over (N, H, W, in_channels).

    Args and parameters as for `ConvTranspose1d`; sizes are one number, or one for each of two dims.
    """

    _function = staticmethod(mx.conv_transpose2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        output_padding: int | tuple[int, int] = 0,
        bias: bool = True,
    ) -> None:
        size, stride, padding, output_padding = (per_dim(v, 2) for v in (kernel_size, stride, padding, output_padding))
        super().__init__((in_channels, out_channels), size, stride, padding, dilation, output_padding, bias)


class ConvTranspose3d(_ConvTranspose):
    """A transposed convolution over (N, D, H, W, in_channels).

    Args and parameters as for `ConvTranspose1d`; sizes are one number, or one for each of three dims.
    """

    _function = staticmethod(mx.conv_transpose3d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
        dilation: int | tuple[int, int, int] = 1,
        output_padding: int | tuple[int, int, int] = 0,
        bias: bool = True,
    ) -> None:
        size, stride, padding, output_padding = (per_dim(v, 3) for v in (kernel_size, stride, padding, output_padding))
        super().__init__((in_channels, out_channels), size, stride, padding, dilation, output_padding, bias)
