"""Normalisation over groups of channels, over space, and over the batch."""

from __future__ import annotations

import math
from typing import Any

import mlxlite.core as mx

from .base import Module
from .normalization import _check_eps


def _scaled(layer: Module, x: mx.array) -> mx.array:
    return layer["weight"] * x + layer["bias"] if "weight" in layer else x


class InstanceNorm(Module):
    """Each channel of each example over its spatial dims: (x - mean) / sqrt(variance + eps).

    Args:
        dims: the channels, the last dim of the input.
        eps: added to the variance; positive.
        affine: whether there are a weight and a bias, (dims,) each.

    Source: Ulyanov, Vedaldi and Lempitsky, Instance normalization, 2016, arXiv:1607.08022.
    """

    def __init__(self, dims: int, eps: float = 1e-5, affine: bool = False) -> None:
        super().__init__()
        _check_eps("InstanceNorm", eps)
        if affine:
            self.weight = mx.ones((dims,))
            self.bias = mx.zeros((dims,))
        self.dims = dims
        self.eps = eps

    def _extra_repr(self) -> str:
        return f"{self.dims}, eps={self.eps}, affine={'weight' in self}"

    def __call__(self, x: mx.array) -> mx.array:
        """(N, *spatial, C) to the same; ValueError without a spatial dim."""
        if x.ndim < 3:
            raise ValueError(f"InstanceNorm takes (N, ..., C) of at least 3 dimensions, got {x.ndim}.")
        batch, *space, channels = x.shape
        rows = mx.moveaxis(x.reshape(batch, math.prod(space), channels), -1, 1)
        rows = mx.fast.layer_norm(rows, None, None, self.eps)
        return _scaled(self, mx.moveaxis(rows, 1, -1).reshape(x.shape))


class GroupNorm(Module):
    """Groups of channels of each example over their spatial dims and channels: (x - mean) / sqrt(variance + eps).

    Args:
        num_groups: into how many groups the channels are divided.
        dims: the channels, the last dim of the input.
        eps: added to the variance; positive.
        affine: whether there are a weight and a bias, (dims,) each.
        pytorch_compatible: whether a group's channels are neighbours, or else num_groups apart.

    Raises:
        ValueError: numbers that are not positive, or groups that do not divide the channels.

    Source: Wu and He, Group normalization, 2018, arXiv:1803.08494.
    """

    def __init__(
        self,
        num_groups: int,
        dims: int,
        eps: float = 1e-5,
        affine: bool = True,
        pytorch_compatible: bool = False,
    ) -> None:
        super().__init__()
        _check_eps("GroupNorm", eps)
        if num_groups <= 0 or dims <= 0:
            raise ValueError(f"GroupNorm takes positive numbers of groups and features, got {num_groups} and {dims}.")
        if dims % num_groups != 0:
            raise ValueError(f"{dims} features cannot be divided into {num_groups} groups.")
        if affine:
            self.bias = mx.zeros((dims,))
            self.weight = mx.ones((dims,))
        self.num_groups = num_groups
        self.dims = dims
        self.eps = eps
        self.pytorch_compatible = pytorch_compatible

    def _extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.dims}, eps={self.eps}, affine={'weight' in self}, "
            f"pytorch_compatible={self.pytorch_compatible}"
        )

    def __call__(self, x: mx.array) -> mx.array:
        """(N, ..., C) to the same."""
        batch, channels = x.shape[0], x.shape[-1]
        if self.pytorch_compatible:
            size = channels // self.num_groups
            groups = x.reshape(batch, -1, self.num_groups, size).swapaxes(1, 2)
            shape = groups.shape
            groups = mx.fast.layer_norm(groups.reshape(batch, self.num_groups, -1), None, None, self.eps)
            return _scaled(self, groups.reshape(shape).swapaxes(1, 2).reshape(x.shape))
        groups = x.reshape(batch, -1, self.num_groups)
        mean = mx.mean(groups, axis=1, keepdims=True)
        variance = mx.var(groups, axis=1, keepdims=True)
        return _scaled(self, ((groups - mean) * mx.rsqrt(variance + self.eps)).reshape(x.shape))


class BatchNorm(Module):
    """Each channel over the batch and its spatial dims: (x - mean) / sqrt(variance + eps).

    In training mean and variance are the batch's, and running means of both are kept; in evaluation these are used.

    Args:
        num_features: the channels, the last dim of the input.
        eps: added to the variance; positive.
        momentum: how much of a batch's mean and variance goes into the running ones.
        affine: whether there are a weight and a bias, (num_features,) each.
        track_running_stats: whether the running ones are kept. Without them the batch's are used in evaluation too.

    Parameters: besides weight and bias running_mean and running_var, which are saved but never trained.

    Source: Ioffe and Szegedy, Batch normalization, 2015, arXiv:1502.03167.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        _check_eps("BatchNorm", eps)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = mx.ones((num_features,))
            self.bias = mx.zeros((num_features,))
        if track_running_stats:
            self.running_mean = mx.zeros((num_features,))
            self.running_var = mx.ones((num_features,))
            self._freeze_running()

    def _freeze_running(self) -> None:
        self.freeze(keys=["running_mean", "running_var"], recurse=False)

    def unfreeze(self, *args: Any, **kwargs: Any) -> Module:
        """As of any module, but the running mean and variance stay frozen."""
        super().unfreeze(*args, **kwargs)
        self._freeze_running()
        return self

    def _extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={'weight' in self}, "
            f"track_running_stats={self.track_running_stats}"
        )

    def __call__(self, x: mx.array) -> mx.array:
        """(N, C), (N, L, C) or (N, H, W, C) to the same.

        Raises:
            ValueError: another number of dims, or (in training) one value for each channel.
        """
        if not 2 <= x.ndim <= 4:
            raise ValueError(f"BatchNorm takes 2, 3 or 4 dimensions, got {x.ndim}.")
        count = math.prod(x.shape[:-1])
        if self.training and count == 1:
            raise ValueError("BatchNorm cannot be trained on one value for each channel: its variance is 0.")
        if self.track_running_stats and not self.training:
            mean, variance = self.running_mean, self.running_var
        else:
            axes = tuple(range(x.ndim - 1))
            mean, variance = mx.mean(x, axis=axes), mx.var(x, axis=axes)
            if self.training and self.track_running_stats:
                self._track(mean, variance, count)
        return _scaled(self, (x - mean) * mx.rsqrt(variance + self.eps))

    def _track(self, mean: mx.array, variance: mx.array, count: int) -> None:
        kept, new = 1 - self.momentum, self.momentum
        self.running_mean = kept * self.running_mean + new * mean
        # A batch is a sample: the running variance is the unbiased one.
        self.running_var = kept * self.running_var + (new * count / max(1, count - 1)) * variance
