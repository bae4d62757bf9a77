"""Layers that multiply by a matrix."""

from __future__ import annotations

import math
from typing import Any

import mlxlite.core as mx

from .base import Module


class Identity(Module):
    """Returns its input. Takes and ignores any arguments, to stand in for another layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, x: mx.array) -> mx.array:
        return x


class Linear(Module):
    """x @ weight.T + bias.

    Args:
        input_dims: the last dim of the input.
        output_dims: the last dim of the output.
        bias: whether to add a bias.

    Parameters: weight (output_dims, input_dims), bias (output_dims,); both begin uniform in +-1/sqrt(input_dims).
    """

    def __init__(self, input_dims: int, output_dims: int, bias: bool = True) -> None:
        super().__init__()
        scale = math.sqrt(1.0 / input_dims)
        self.weight = mx.random.uniform(low=-scale, high=scale, shape=(output_dims, input_dims))
        if bias:
            self.bias = mx.random.uniform(low=-scale, high=scale, shape=(output_dims,))

    def _extra_repr(self) -> str:
        output_dims, input_dims = self.weight.shape
        return f"input_dims={input_dims}, output_dims={output_dims}, bias={'bias' in self}"

    def __call__(self, x: mx.array) -> mx.array:
        if "bias" in self:
            return mx.addmm(self.bias, x, self.weight.T)
        return x @ self.weight.T
