"""Attention, and the encoders and decoders made of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlxlite.core as mx

from .activations import relu
from .base import Module
from .dropout import Dropout
from .linear import Linear
from .normalization import LayerNorm
from .utils import checkpoint as checkpointed


class MultiHeadAttention(Module):
    """Attention of several heads, with a projection before and one after.

    Args:
        dims: the size of all heads' queries together.
        num_heads: how many heads; it divides `dims`.
        query_input_dims: the last dim of the queries; `dims` for None.
        key_input_dims: the last dim of the keys; `dims` for None.
        value_input_dims: the last dim of the values; `key_input_dims` for None.
        value_dims: the size of all heads' values together; `dims` for None.
        value_output_dims: the last dim of the output; `dims` for None.
        bias: whether the projections have biases.

    Modules: query_proj, key_proj, value_proj, out_proj, each a `Linear`.

    Raises:
        ValueError: `num_heads` does not divide `dims`.

    Source: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """

    def __init__(
        self,
        dims: int,
        num_heads: int,
        query_input_dims: int | None = None,
        key_input_dims: int | None = None,
        value_input_dims: int | None = None,
        value_dims: int | None = None,
        value_output_dims: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if dims % num_heads != 0:
            raise ValueError(f"{dims} dims cannot be divided into {num_heads} heads.")
        key_input_dims = key_input_dims or dims
        value_dims = value_dims or dims
        self.num_heads = num_heads
        self.query_proj = Linear(query_input_dims or dims, dims, bias=bias)
        self.key_proj = Linear(key_input_dims, dims, bias=bias)
        self.value_proj = Linear(value_input_dims or key_input_dims, value_dims, bias=bias)
        self.out_proj = Linear(value_dims, value_output_dims or dims, bias=bias)

    def _heads(self, x: mx.array) -> mx.array:
        """(N, L, dims) as (N, heads, L, dims / heads)."""
        return mx.unflatten(x, -1, (self.num_heads, -1)).swapaxes(1, 2)

    def __call__(self, queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None = None) -> mx.array:
        """(N, Lq, ...), (N, Lk, ...), (N, Lk, ...) to (N, Lq, value_output_dims).

        `mask` is added to the scores (N, heads, Lq, Lk), or says by True which of them count.
        """
        q, k, v = (self._heads(x) for x in (self.query_proj(queries), self.key_proj(keys), self.value_proj(values)))
        scale = math.sqrt(1 / q.shape[-1])
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
        return self.out_proj(out.swapaxes(1, 2).flatten(-2, -1))

    @staticmethod
    def create_additive_causal_mask(N: int, dtype: mx.Dtype = mx.float32) -> mx.array:
        """A mask (N, N) with the dtype's least number where the key comes after the query, and 0 elsewhere."""
        positions = mx.arange(N)
        return (positions[:, None] < positions[None]).astype(dtype) * mx.finfo(dtype).min


class TransformerEncoderLayer(Module):
    """Attention of a sequence to itself, then two linear layers; each with dropout, a sum with its input, and a norm.

    Args:
        dims: the last dim of input and output.
        num_heads: how many heads.
        mlp_dims: the size between the linear layers; 4 * dims for None.
        dropout: the probability that `Dropout` takes.
        activation: between the linear layers.
        norm_first: whether the norms come before attention and linear layers, or after the sums.
    """

    def __init__(
        self,
        dims: int,
        num_heads: int,
        mlp_dims: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[Any], Any] = relu,
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        mlp_dims = mlp_dims or dims * 4
        self.attention = MultiHeadAttention(dims, num_heads)
        self.ln1 = LayerNorm(dims)
        self.ln2 = LayerNorm(dims)
        self.linear1 = Linear(dims, mlp_dims)
        self.linear2 = Linear(mlp_dims, dims)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = activation
        self.norm_first = norm_first

    def _mlp(self, x: mx.array) -> mx.array:
        return self.linear2(self.dropout2(self.activation(self.linear1(x))))

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        """(N, L, dims) to the same."""
        if self.norm_first:
            y = self.ln1(x)
            x = x + self.dropout1(self.attention(y, y, y, mask))
            return x + self._mlp(self.ln2(x))
        x = self.ln1(x + self.dropout1(self.attention(x, x, x, mask)))
        return self.ln2(x + self._mlp(x))


class TransformerEncoder(Module):
    """Encoder layers one after another, and a last norm.

    Args:
        num_layers: how many.
        dims, num_heads, mlp_dims, dropout, activation, norm_first: as for `TransformerEncoderLayer`.
        checkpoint: whether layers are computed again for their gradients, which saves memory.
    """

    def __init__(
        self,
        num_layers: int,
        dims: int,
        num_heads: int,
        mlp_dims: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[Any], Any] = relu,
        norm_first: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.layers = [
            TransformerEncoderLayer(dims, num_heads, mlp_dims, dropout, activation, norm_first)
            for _ in range(num_layers)
        ]
        self.ln = LayerNorm(dims)
        self.checkpoint = checkpoint

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        """(N, L, dims) to the same."""
        for layer in self.layers:
            x = (checkpointed(layer) if self.checkpoint else layer)(x, mask)
        return self.ln(x)


class TransformerDecoderLayer(Module):
    """As `TransformerEncoderLayer`, with attention to another sequence (the memory) in between. Takes the same."""

    def __init__(
        self,
        dims: int,
        num_heads: int,
        mlp_dims: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[Any], Any] = relu,
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        mlp_dims = mlp_dims or dims * 4
        self.self_attention = MultiHeadAttention(dims, num_heads)
        self.cross_attention = MultiHeadAttention(dims, num_heads)
        self.ln1 = LayerNorm(dims)
        self.ln2 = LayerNorm(dims)
        self.ln3 = LayerNorm(dims)
        self.linear1 = Linear(dims, mlp_dims)
        self.linear2 = Linear(mlp_dims, dims)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = activation
        self.norm_first = norm_first

    def _mlp(self, x: mx.array) -> mx.array:
        return self.linear2(self.dropout3(self.activation(self.linear1(x))))

    def __call__(
        self, x: mx.array, memory: mx.array, x_mask: mx.array | None, memory_mask: mx.array | None
    ) -> mx.array:
        """(N, L, dims) and a memory (N, M, dims) to (N, L, dims)."""
        if self.norm_first:
            y = self.ln1(x)
            x = x + self.dropout1(self.self_attention(y, y, y, x_mask))
            x = x + self.dropout2(self.cross_attention(self.ln2(x), memory, memory, memory_mask))
            return x + self._mlp(self.ln3(x))
        x = self.ln1(x + self.dropout1(self.self_attention(x, x, x, x_mask)))
        x = self.ln2(x + self.dropout2(self.cross_attention(x, memory, memory, memory_mask)))
        return self.ln3(x + self._mlp(x))


class TransformerDecoder(Module):
    """Decoder layers one after another, and a last norm. Takes what `TransformerEncoder` takes."""

    def __init__(
        self,
        num_layers: int,
        dims: int,
        num_heads: int,
        mlp_dims: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[Any], Any] = relu,
        norm_first: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.layers = [
            TransformerDecoderLayer(dims, num_heads, mlp_dims, dropout, activation, norm_first)
            for _ in range(num_layers)
        ]
        self.ln = LayerNorm(dims)
        self.checkpoint = checkpoint

    def __call__(
        self, x: mx.array, memory: mx.array, x_mask: mx.array | None, memory_mask: mx.array | None
    ) -> mx.array:
        """(N, L, dims) and a memory (N, M, dims) to (N, L, dims)."""
        for layer in self.layers:
            x = (checkpointed(layer) if self.checkpoint else layer)(x, memory, x_mask, memory_mask)
        return self.ln(x)


class Transformer(Module):
    """An encoder whose output is the memory of a decoder.

    Args:
        dims, num_heads, mlp_dims, dropout, activation, norm_first: as for `TransformerEncoderLayer`.
        num_encoder_layers, num_decoder_layers: how many layers there are.
        custom_encoder: called as (src, src_mask) in the place of the encoder.
        custom_decoder: called as (tgt, memory, tgt_mask, memory_mask) in the place of the decoder.
        checkpoint: as for `TransformerEncoder`.

    Source: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """

    def __init__(
        self,
        dims: int = 512,
        num_heads: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        mlp_dims: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[Any], Any] = relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        norm_first: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        shared = (dims, num_heads, mlp_dims, dropout, activation, norm_first, checkpoint)
        self.encoder = TransformerEncoder(num_encoder_layers, *shared) if custom_encoder is None else custom_encoder
        self.decoder = TransformerDecoder(num_decoder_layers, *shared) if custom_decoder is None else custom_decoder

    def __call__(
        self,
        src: mx.array,
        tgt: mx.array,
        src_mask: mx.array | None,
        tgt_mask: mx.array | None,
        memory_mask: mx.array | None,
    ) -> mx.array:
        """(N, S, dims) and (N, T, dims) to (N, T, dims)."""
        return self.decoder(tgt, self.encoder(src, src_mask), tgt_mask, memory_mask)
