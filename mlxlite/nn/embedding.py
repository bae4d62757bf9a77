"""Vectors by token id."""

from __future__ import annotations

import math

import mlxlite.core as mx

from .base import Module


class Embedding(Module):
    """weight[x]: a vector for each integer.

    Args:
        num_embeddings: how many vectors.
        dims: the size of each.

    Parameters: weight (num_embeddings, dims), normal with standard deviation 1/sqrt(dims) at first.
    """

    def __init__(self, num_embeddings: int, dims: int) -> None:
        super().__init__()
        self.weight = mx.random.normal(shape=(num_embeddings, dims), scale=math.sqrt(1 / dims))

    def _extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"

    def __call__(self, x: mx.array) -> mx.array:
        """Integers (...) to vectors (..., dims)."""
        return self["weight"][x]

    def as_linear(self, x: mx.array) -> mx.array:
        """(..., dims) to logits (..., num_embeddings): the same weight used as the output layer."""
        return x @ self["weight"].T
