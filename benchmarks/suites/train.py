"""A training step of a GPT of GPT-2 small's size: bfloat16, AdamW, 8 texts of 1024 tokens, in plain code and compiled.

Model: 6 operations a weight and token (the last layer's among them), and attention's; all weights, gradients and
moments of the optimizer are read and written once.
"""

from __future__ import annotations

import functools
import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PEERS = ("mlxlite", "mlx", "torch")


@dataclass(frozen=True)
class Size:
    """Of the model and of a step's texts."""

    vocabulary: int
    features: int
    heads: int
    layers: int
    length: int
    texts: int


SIZES = {"small": Size(50304, 768, 12, 12, 1024, 8), "tiny": Size(64, 16, 2, 2, 12, 2)}


def measure(peer: str) -> dict[str, tuple[float, str]]:
    """Tokens per second and peak memory; the size from MLXLITE_BENCH_TRAIN, small by default."""
    size = SIZES[os.environ.get("MLXLITE_BENCH_TRAIN", "small")]
    return _torch(size) if peer == "torch" else _arrays(peer, size)


def _rate(step: Callable[[], Any], size: Size, warmups: int = 3, steps: int = 10) -> float:
    """Tokens per second of a step that waits for its end."""
    for _ in range(warmups):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return size.texts * size.length * steps / (time.perf_counter() - start)


def model_of(package: str, size: Size) -> Any:
    """The model on mlxlite or MLX."""
    mx, nn = (importlib.import_module(f"{package}.{name}") for name in ("core", "nn"))
    head_size = size.features // size.heads

    class Block(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.RMSNorm(size.features), nn.RMSNorm(size.features)
            self.qkv = nn.Linear(size.features, 3 * size.features, bias=False)
            self.out = nn.Linear(size.features, size.features, bias=False)
            self.up = nn.Linear(size.features, 4 * size.features, bias=False)
            self.down = nn.Linear(4 * size.features, size.features, bias=False)

        def __call__(self, x: Any) -> Any:
            texts, length, _ = x.shape

            def heads(a: Any) -> Any:
                return a.reshape(texts, length, size.heads, head_size).transpose(0, 2, 1, 3)

            q, k, v = (heads(a) for a in mx.split(self.qkv(self.attention_norm(x)), 3, axis=-1))
            y = mx.fast.scaled_dot_product_attention(q, k, v, scale=head_size**-0.5, mask="causal")
            x = x + self.out(y.transpose(0, 2, 1, 3).reshape(texts, length, size.features))
            return x + self.down(nn.gelu_approx(self.up(self.mlp_norm(x))))

    class Model(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = (nn.Embedding(n, size.features) for n in (size.vocabulary, size.length))
            self.blocks = [Block() for _ in range(size.layers)]
            self.norm = nn.RMSNorm(size.features)

        def __call__(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.positions(mx.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.tokens.as_linear(self.norm(x))

    mx.random.seed(0)
    return Model()


def _arrays(package: str, size: Size) -> dict[str, tuple[float, str]]:
    mx, nn, optimizers, utils = (
        importlib.import_module(f"{package}.{name}") for name in ("core", "nn", "optimizers", "utils")
    )
    model = model_of(package, size)
    model.update(utils.tree_map(lambda p: p.astype(mx.bfloat16), model.parameters()))
    optimizer = optimizers.AdamW(learning_rate=3e-4)
    optimizer.init(model.trainable_parameters())
    tokens, following = (mx.random.randint(0, size.vocabulary, (size.texts, size.length)) for _ in range(2))
    mx.eval(model.parameters(), optimizer.state, tokens, following)
    mx.synchronize()
    mx.clear_cache()
    mx.reset_peak_memory()

    def loss_of(model: Any, tokens: Any, following: Any) -> Any:
        return nn.losses.cross_entropy(model(tokens).astype(mx.float32), following, reduction="mean")

    differentiated = nn.value_and_grad(model, loss_of)
    state = [model.state, optimizer.state]

    def step() -> Any:
        loss, gradients = differentiated(model, tokens, following)
        optimizer.update(model, gradients)
        return loss

    out = {"GPT training step, plain": (_rate(lambda: mx.eval(step(), state), size), "tok/s")}
    out["GPT training step, plain: peak memory"] = (mx.get_peak_memory() / 1e9, "GB")
    compiled = functools.partial(mx.compile, inputs=state, outputs=state)(step)
    out["GPT training step, compiled"] = (_rate(lambda: mx.eval(compiled(), state), size), "tok/s")
    return out


def _torch(size: Size) -> dict[str, tuple[float, str]]:
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.RMSNorm(size.features), nn.RMSNorm(size.features)
            self.qkv = nn.Linear(size.features, 3 * size.features, bias=False)
            self.out = nn.Linear(size.features, size.features, bias=False)
            self.up = nn.Linear(size.features, 4 * size.features, bias=False)
            self.down = nn.Linear(4 * size.features, size.features, bias=False)

        def forward(self, x: Any) -> Any:
            heads = (*x.shape[:2], size.heads, -1)
            q, k, v = (a.view(heads).transpose(1, 2) for a in self.qkv(self.attention_norm(x)).chunk(3, -1))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(x.shape))
            return x + self.down(functional.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = (nn.Embedding(n, size.features) for n in (size.vocabulary, size.length))
            self.blocks = nn.Sequential(*(Block() for _ in range(size.layers)))
            self.norm = nn.RMSNorm(size.features)

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device="cuda"))
            return self.norm(self.blocks(x)) @ self.tokens.weight.T

    torch.set_float32_matmul_precision("high")
    tokens, following = (torch.randint(0, size.vocabulary, (size.texts, size.length), device="cuda") for _ in range(2))
    out = {}
    for name, wrap in (("plain", lambda f: f), ("compiled", torch.compile)):
        model = Model().cuda().bfloat16()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
        torch.cuda.reset_peak_memory_stats()

        def loss_of(tokens: Any, following: Any, model: Any = model) -> Any:
            return functional.cross_entropy(model(tokens).float().flatten(0, 1), following.flatten())

        differentiated = wrap(loss_of)

        def step(differentiated: Any = differentiated, optimizer: Any = optimizer) -> None:
            differentiated(tokens, following).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.synchronize()

        out[f"GPT training step, {name}"] = (_rate(step, size), "tok/s")
        out[f"GPT training step, {name}: peak memory"] = (torch.cuda.max_memory_allocated() / 1e9, "GB")
    return out
