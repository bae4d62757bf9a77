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


class Bilinear(Module):
    """sum over i and j of weight[:, j, i] * x1[..., i] * x2[..., j], plus bias.

    Args:
        input1_dims: the last dim of the first input.
        input2_dims: the last dim of the second input.
        output_dims: the last dim of the output.
        bias: whether to add a bias.

    Parameters: weight (output_dims, input2_dims, input1_dims), bias (output_dims,); both begin uniform in
    +-1/sqrt(input1_dims).
    """

    def __init__(self, input1_dims: int, input2_dims: int, output_dims: int, bias: bool = True) -> None:
        super().__init__()
        scale = math.sqrt(1.0 / input1_dims)
        self.weight = mx.random.uniform(low=-scale, high=scale, shape=(output_dims, input2_dims, input1_dims))
        if bias:
            self.bias = mx.random.uniform(low=-scale, high=scale, shape=(output_dims,))

    def _extra_repr(self) -> str:
        output_dims, input2_dims, input1_dims = self.weight.shape
        return f"input1_dims={input1_dims}, input2_dims={input2_dims}, output_dims={output_dims}, bias={'bias' in self}"

    def __call__(self, x1: mx.array, x2: mx.array) -> mx.array:
        """(..., input1_dims) and (..., input2_dims), of the same leading dims, to (..., output_dims)."""
        outputs, n2, n1 = self.weight.shape
        # One product with the first input makes a matrix for each row of the second.
        matrices = (x1.reshape(-1, n1) @ self.weight.reshape(outputs * n2, n1).T).reshape(-1, outputs, n2)
        y = (matrices @ x2.reshape(-1, n2, 1)).reshape(*x1.shape[:-1], outputs)
        return y + self["bias"] if "bias" in self else y
