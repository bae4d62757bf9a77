"""A GPT of the present kind: RMSNorm before each part, rotary positions, squared ReLU, tied embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import mlxlite.core as mx
import mlxlite.nn as nn


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a model. ValueError where they do not fit one another."""

    vocabulary: int = 256
    layers: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"the width {self.width} can not be divided into {self.heads} heads of an even size")


class Attention(nn.Module):
    """Each position looks at itself and those before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.queries_keys_values = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.rope = nn.RoPE(config.width // config.heads)

    def __call__(self, x: mx.array) -> mx.array:
        batch, length, width = x.shape
        joined = self.queries_keys_values(x).reshape(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = joined.transpose(2, 0, 3, 1, 4)  # each (batch, heads, length, width / heads)
        scale = (width // self.heads) ** -0.5
        mixed = mx.fast.scaled_dot_product_attention(
            self.rope(queries), self.rope(keys), values, scale=scale, mask="causal"
        )
        return self.out(mixed.transpose(0, 2, 1, 3).reshape(x.shape))


class Block(nn.Module):
    """Attention, then two linear layers at each position; each part's result is added to its input."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.down(nn.relu2(self.up(self.mlp_norm(x)))))


class GPT(nn.Module):
    """Tokens (B, T) to the logits of the token after each, (B, T, vocabulary).

    >>> model = GPT(GPTConfig(layers=2))
    >>> logits = model(mx.array([[1, 2, 3]]))
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.width)
        # The embedding is the last layer too: with these values the first logits are of size 1. Much smaller ones, such
        # as 0.02, learn more slowly.
        self.embed.weight = mx.random.normal(self.embed.weight.shape, scale=config.width**-0.5)
        self.blocks = [Block(config) for _ in range(config.layers)]
        self.norm = nn.RMSNorm(config.width)

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.embed.as_linear(self.norm(x))
