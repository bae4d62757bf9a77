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

    def _mask_shape(self, x: mx.array) -> tuple[int, ...]:
        """One element of the mask is for all that is kept or zeroed together."""
        return x.shape

    def __call__(self, x: mx.array) -> mx.array:
        shape = self._mask_shape(x)
        if self._p_1 == 1 or not self.training:
            return x
        return mx.random.bernoulli(self._p_1, shape) * x * (1 / self._p_1)


class Dropout2d(Dropout):
    """`Dropout` of whole channels of (N, H, W, C) or (H, W, C). ValueError for another number of dims.

    Neighbours in an image are alike: zeroing single elements would hide little.

    Source: Tompson et al., Efficient object localization using convolutional networks, 2015, arXiv:1411.4280.
    """

    def _mask_shape(self, x: mx.array) -> tuple[int, ...]:
        if x.ndim not in (3, 4):
            raise ValueError(f"Dropout2d takes 3 or 4 dimensions, got {x.ndim}.")
        return (*x.shape[:-3], 1, 1, x.shape[-1])


class Dropout3d(Dropout):
    """`Dropout` of whole channels of (N, D, H, W, C) or (D, H, W, C). ValueError for another number of dims."""

    def _mask_shape(self, x: mx.array) -> tuple[int, ...]:
        if x.ndim not in (4, 5):
            raise ValueError(f"Dropout3d takes 4 or 5 dimensions, got {x.ndim}.")
        return (*x.shape[:-4], 1, 1, 1, x.shape[-1])
