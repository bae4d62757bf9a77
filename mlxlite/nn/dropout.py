"""Random zeros in training."""

from __future__ import annotations

import mlxlite.core as mx

from .base import Module


class Dropout(Module):
    """In training zeroes each element with probability p and scales the others by 1 / (1 - p); else the identity.

    Args:
        p: in [0, 1); ValueError otherwise.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"The dropout probability {p} is not in [0, 1)")
        self._p_1 = 1 - p

    def _extra_repr(self) -> str:
        return f"p={1 - self._p_1}"

    def __call__(self, x: mx.array) -> mx.array:
        if self._p_1 == 1 or not self.training:
            return x
        return mx.random.bernoulli(self._p_1, x.shape) * x * (1 / self._p_1)
