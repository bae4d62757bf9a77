"""The model and the training step of examples/train_lm.py, written a second time with MLX."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        batch, length, width = x.shape
        size = width // self.heads

        def heads(part: mx.array) -> mx.array:
            return part.reshape(batch, length, self.heads, size).transpose(0, 2, 1, 3)

        queries, keys, values = (heads(part) for part in mx.split(self.queries_keys_values(x), 3, axis=-1))
        queries, keys = (
            mx.fast.rope(part, size, traditional=False, base=10000.0, scale=1.0, offset=0) for part in (queries, keys)
        )
        scores = (queries * size**-0.5) @ keys.transpose(0, 1, 3, 2)
        future = mx.triu(mx.full((length, length), -mx.inf), k=1)
        mixed = mx.softmax(scores + future, axis=-1) @ values
        return self.out(mixed.transpose(0, 2, 1, 3).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = Attention(width, heads)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(mx.square(mx.maximum(self.up(self.mlp_norm(x)), 0)))


class GPT(nn.Module):
    def __init__(self, vocabulary: int, layers: int, heads: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = [Block(width, heads) for _ in range(layers)]
        self.norm = nn.RMSNorm(width)

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.weight.T


def losses(
    weights: dict[str, Any], heads: int, batches: list[Any], rate: float, warmup: int, steps: int, clip: float
) -> list[float]:
    """The losses of a training from these weights (names to ndarrays) on these batches (B, T + 1)."""
    vocabulary, width = weights["embed.weight"].shape
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    model = GPT(vocabulary, layers, heads, width)
    model.load_weights([(name, mx.array(value)) for name, value in weights.items()], strict=True)
    schedule = optim.join_schedules(
        [
            optim.linear_schedule(rate / (warmup + 1), rate, warmup),
            optim.cosine_decay(rate, steps - warmup, end=rate / 10),
        ],
        [warmup],
    )
    optimizer = optim.AdamW(schedule, betas=[0.9, 0.95], weight_decay=0.1, bias_correction=True)

    def loss_of(tokens: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], reduction="mean")

    loss_and_gradients = nn.value_and_grad(model, loss_of)
    found = []
    for batch in batches:
        loss, gradients = loss_and_gradients(mx.array(batch))
        gradients, _ = optim.clip_grad_norm(gradients, clip)
        optimizer.update(model, gradients)
        mx.eval(loss, model.parameters(), optimizer.state)
        found.append(loss.item())
    return found
