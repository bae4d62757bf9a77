"""Positions told to attention."""

from __future__ import annotations

import mlxlite.core as mx

from .base import Module


class RoPE(Module):
    """Rotates pairs of features by an angle that grows with the position.

    Args:
        dims: how many of the last dim's features are rotated.
        traditional: whether pairs are neighbours (2i, 2i + 1), or halves apart (i, i + dims / 2).
        base: pair i turns by base ** (-2i / dims) a position.
        scale: multiplies the positions.
    """

    def __init__(self, dims: int, traditional: bool = False, base: float = 10000, scale: float = 1.0) -> None:
        super().__init__()
        self.dims = dims
        self.traditional = traditional
        self.base = base
        self.scale = scale

    def _extra_repr(self) -> str:
        return f"{self.dims}, traditional={self.traditional}"

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """x (..., T, features), whose first row stands at position `offset`."""
        return mx.fast.rope(x, self.dims, traditional=self.traditional, base=self.base, scale=self.scale, offset=offset)
