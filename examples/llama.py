"""The Llama family of language models on mlxlite.nn, with a key-value cache.

Parameters have the names of Hugging Face's checkpoints. `llama_files.load_model` makes a model from files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import mlxlite.core as mx
import mlxlite.nn as nn


@dataclass(frozen=True)
class Config:
    """The sizes of a model.

    Attributes:
        rope_scaling: None, or the parameters of a scheme: {"type": "linear", "factor": 2.0},
            {"type": "llama3", "factor": ..., "low_freq_factor": ..., "high_freq_factor": ...,
            "original_max_position_embeddings": ...}, or {"type": "factors", "factors": [...]} (one for each pair of
            features, by which the length of its turn is multiplied).
    """

    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = True
    eos_token_ids: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.n_kv_heads <= 0 or self.n_heads % self.n_kv_heads:
            raise ValueError(f"{self.n_heads} heads can not share {self.n_kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, got {self.head_dim}")


class KVCache:
    """The keys and values of one layer for the positions so far.

    They lie in arrays that are longer than needed and are extended by STEP positions at a time. A new position is
    written by slice assignment, which reuses the memory: nothing is copied but the position itself.
    """

    STEP = 256

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.length = 0

    def append(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Adds keys (B, KV, T, D) and values (B, KV, T, D); returns those of all positions (B, KV, length, D)."""
        start = self.length
        end = self.length = start + keys.shape[2]
        if self.keys is None or self.keys.shape[2] < end:
            self.keys = _with_room(self.keys, keys, start, end)
            self.values = _with_room(self.values, values, start, end)
        self.keys[..., start:end, :] = keys
        self.values[..., start:end, :] = values
        return self.keys[..., :end, :], self.values[..., :end, :]

    @property
    def state(self) -> list[mx.array]:
        """The arrays, to be evaluated."""
        return [a for a in (self.keys, self.values) if a is not None]


def _with_room(held: mx.array | None, new: mx.array, start: int, end: int) -> mx.array:
    """What is held for the positions up to `start`, with room for those up to `end`."""
    batch, heads, _, features = new.shape
    capacity = math.ceil(end / KVCache.STEP) * KVCache.STEP
    if held is None:
        return mx.zeros((batch, heads, capacity, features), new.dtype)
    added = mx.zeros((batch, heads, capacity - start, features), new.dtype)
    return mx.concatenate([held[..., :start, :], added], axis=2)


class Rope:
    """Rotary positions, whose frequencies may be rescaled for contexts longer than those of the training."""

    def __init__(self, config: Config) -> None:
        self.dims = config.head_dim
        self.base: float | None = config.rope_theta
        self.scale = 1.0
        self.periods: mx.array | None = None
        scaling = config.rope_scaling
        if scaling is None:
            return
        kind = scaling["type"]
        if kind == "linear":
            self.scale = 1.0 / scaling["factor"]
            return
        if kind == "llama3":
            periods = _llama3_periods(config.rope_theta, self.dims, scaling)
        elif kind == "factors":
            factors = scaling["factors"]
            if len(factors) != self.dims // 2:
                raise ValueError(f"{len(factors)} rope factors do not fit {self.dims // 2} pairs of features")
            periods = [f * p for f, p in zip(factors, _periods(config.rope_theta, self.dims), strict=True)]
        else:
            raise ValueError(f"rope scaling {kind!r} is not supported; linear and llama3 are")
        self.base, self.periods = None, mx.array(periods, mx.float32)

    def __call__(self, x: mx.array, offset: int) -> mx.array:
        """x (B, H, T, D), whose first position is `offset`."""
        return mx.fast.rope(
            x, self.dims, traditional=False, base=self.base, scale=self.scale, offset=offset, freqs=self.periods
        )


def _periods(theta: float, dims: int) -> list[float]:
    """The number of positions in which each pair of features turns by one radian."""
    return [theta ** (2 * i / dims) for i in range(dims // 2)]


def _llama3_periods(theta: float, dims: int, scaling: dict[str, Any]) -> list[float]:
    """Slow pairs become slower by a factor, fast ones stay, and between the two the frequency is interpolated."""
    factor, trained = scaling["factor"], scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    periods = []
    for period in _periods(theta, dims):
        turns = trained / (2 * math.pi * period)  # in the context of the training
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        periods.append(period / (kept + (1 - kept) / factor))
    return periods


class Attention(nn.Module):
    """Self-attention in which groups of query heads share a key-value head."""

    def __init__(self, config: Config, rope: Rope) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.scale = config.head_dim**-0.5
        self.rope = rope
        queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=config.output_bias)

    def __call__(self, x: mx.array, cache: KVCache | None) -> mx.array:
        batch, length, _ = x.shape
        offset = 0 if cache is None else cache.length

        def heads(projected: mx.array, count: int) -> mx.array:
            return projected.reshape(batch, length, count, self.head_dim).transpose(0, 2, 1, 3)

        queries = self.rope(heads(self.q_proj(x), self.n_heads), offset)
        keys = self.rope(heads(self.k_proj(x), self.n_kv_heads), offset)
        values = heads(self.v_proj(x), self.n_kv_heads)
        if cache is not None:
            keys, values = cache.append(keys, values)
        mask = "causal" if length > 1 else None
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.scale, mask=mask)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(batch, length, self.n_heads * self.head_dim))


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(nn.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention and MLP, each on the normalised input and added to it."""

    def __init__(self, config: Config, rope: Rope) -> None:
        super().__init__()
        self.self_attn = Attention(config, rope)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.norm_eps)

    def __call__(self, x: mx.array, cache: KVCache | None) -> mx.array:
        x = x + self.self_attn(self.input_layernorm(x), cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """Token ids to the last layer's normalised output."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        rope = Rope(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [Block(config, rope) for _ in range(config.n_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, config.norm_eps)

    def __call__(self, tokens: mx.array, caches: list[KVCache] | None) -> mx.array:
        x = self.embed_tokens(tokens)
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            x = layer(x, cache)
        return self.norm(x)


class Llama(nn.Module):
    """A language model.

    >>> caches = model.make_caches()
    >>> logits = model(mx.array([[1, 2, 3]]), caches)
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        if not config.tied_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def make_caches(self) -> list[KVCache]:
        """An empty cache for each layer."""
        return [KVCache() for _ in range(self.config.n_layers)]

    def __call__(self, tokens: mx.array, caches: list[KVCache] | None = None, last_only: bool = False) -> mx.array:
        """The logits of the next token.

        Args:
            tokens: integers (B, T), the positions that follow those in the caches.
            caches: of `make_caches`; they are extended. None for a text from its beginning that will not go on, as in
                training.
            last_only: whether only the last position's logits are wanted.

        Returns:
            (B, T, vocabulary), or (B, 1, vocabulary) if `last_only`.
        """
        x = self.model(tokens, caches)
        if last_only:
            x = x[:, -1:]
        return self.model.embed_tokens.as_linear(x) if self.config.tied_embeddings else self.lm_head(x)
