"""Positions told to attention."""

from __future__ import annotations

import math

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


class SinusoidalPositionalEncoding(Module):
    """Sines and cosines of a number at `dims` / 2 frequencies, from max_freq down to min_freq in equal ratios.

    Args:
        dims: the last dim of the result; positive and even.
        min_freq, max_freq: in radians for each unit of the number.
        scale: multiplies the result; sqrt(2 / dims) for None, which gives it length 1.
        cos_first: whether the cosines come before the sines.
        full_turns: whether frequencies are in turns, not radians.

    Raises:
        ValueError: `dims` is odd or not positive.

    Source: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """

    def __init__(
        self,
        dims: int,
        min_freq: float = 0.0001,
        max_freq: float = 1,
        scale: float | None = None,
        cos_first: bool = False,
        full_turns: bool = False,
    ) -> None:
        super().__init__()
        if dims <= 0 or dims % 2 != 0:
            raise ValueError(f"[SinusoidalPositionalEncoding] dims must be positive and even but got {dims}.")
        half = dims // 2
        from_one_to_zero = mx.array([1.0]) if half == 1 else 1 - mx.arange(0, half) / (half - 1)
        lowest, highest = math.log(min_freq), math.log(max_freq)
        # An underscore: it is no parameter.
        self._sigmas = mx.exp(from_one_to_zero * (highest - lowest) + lowest)
        if full_turns:
            self._sigmas = self._sigmas * (2 * math.pi)
        self.scale = (2 / dims) ** 0.5 if scale is None else scale
        self.cos_first = cos_first

    def __call__(self, x: mx.array) -> mx.array:
        """Numbers (...) to (..., dims)."""
        angles = x[..., None] * self._sigmas
        waves = [mx.sin(angles), mx.cos(angles)]
        y = mx.concatenate(waves[::-1] if self.cos_first else waves, axis=-1)
        return y if self.scale == 1 else y * self.scale


def _alibi_slopes(count: int) -> list[float]:
    """A geometric series that ends at 2**-8; for a number that is no power of two, with terms of the next one's."""
    power = math.floor(math.log2(count))
    if count == 2**power:
        ratio = 2.0 ** (-8 / count)
        return [ratio ** (i + 1) for i in range(count)]
    return _alibi_slopes(2**power) + _alibi_slopes(2 ** (power + 1))[::2][: count - 2**power]


class ALiBi(Module):
    """Attention with linear biases: scores fall with the distance of query and key, at a rate of each head's own.

    Source: Press, Smith and Lewis, Train short, test long, 2022, arXiv:2108.12409.
    """

    @staticmethod
    def create_alibi_matrix(
        q_sequence_length: int,
        k_sequence_length: int,
        num_heads: int,
        offset: int = 0,
        dtype: mx.Dtype = mx.float32,
    ) -> mx.array:
        """The biases (1, num_heads, queries, keys) of queries that stand at `offset` to q_sequence_length."""
        queries = mx.arange(offset, q_sequence_length)
        keys = mx.arange(0, k_sequence_length)
        distances = mx.abs(queries[:, None] - keys[None, :])[None, None]
        return (-distances * ALiBi.create_alibi_slope(num_heads, dtype)).astype(dtype)

    @staticmethod
    def create_alibi_slope(num_heads: int, dtype: mx.Dtype = mx.float32) -> mx.array:
        """The rates of the heads, (num_heads, 1, 1)."""
        return mx.array(_alibi_slopes(num_heads), dtype)[:, None, None]

    def __call__(self, attention_scores: mx.array, offset: int = 0, mask: mx.array | None = None) -> mx.array:
        """The scores (N, heads, queries, keys) with biases and mask added. Queries stand at `offset` and after."""
        _, heads, queries, keys = attention_scores.shape
        bias = self.create_alibi_matrix(queries + offset, keys, heads, offset, attention_scores.dtype)
        return attention_scores + (bias if mask is None else bias + mask)
