"""Llama with random bfloat16 weights: a prompt of 2048 tokens, then 128 tokens one by one.

Model: decoding reads every weight and the KV cache once a token; a prompt is 2 operations a weight and token.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from typing import Any

PEERS = ("mlxlite", "mlx")
PROMPT, GENERATED, RUNS = 2048, 128, 3
MODELS: dict[str, dict[str, Any]] = {
    "135M": {
        "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152,
    },
    "1B": {
        "hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "head_dim": 64,
    },
    "8B": {
        "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256,
    },
}  # fmt: skip


def measure(peer: str) -> dict[str, tuple[float, str]]:
    """Tokens per second and peak memory; models from MLXLITE_BENCH_MODELS (comma-separated), all by default."""
    names = os.environ.get("MLXLITE_BENCH_MODELS", ",".join(MODELS)).split(",")
    mx = importlib.import_module(f"{peer}.core")
    out: dict[str, tuple[float, str]] = {}
    for name in names:
        runs = sorted((_mlx if peer == "mlx" else _mlxlite)(MODELS[name], mx), key=lambda run: run[1])
        prompt, generation = runs[len(runs) // 2]
        out[f"{name} prompt {PROMPT}"] = (prompt, "tok/s")
        out[f"{name} decode {GENERATED}"] = (generation, "tok/s")
        out[f"{name} peak memory"] = (mx.get_peak_memory() / 1e9, "GB")
        mx.clear_cache()
    return out


def _finish_loading(model: Any, mx: Any) -> None:
    """Make the weights; peak memory is counted from here, since making them takes more than having them."""
    mx.eval(model.parameters())
    mx.synchronize()
    mx.clear_cache()
    mx.reset_peak_memory()


def _mlx(config: dict[str, Any], mx: Any) -> list[tuple[float, float]]:
    from mlx.utils import tree_map
    from mlx_lm.generate import generate_step
    from mlx_lm.models.llama import Model, ModelArgs

    mx.random.seed(0)
    model = Model(ModelArgs(model_type="llama", rms_norm_eps=1e-5, rope_theta=500000.0, **config))
    model.update(tree_map(lambda p: p.astype(mx.bfloat16), model.parameters()))
    _finish_loading(model, mx)
    return _runs(
        lambda prompt: generate_step(prompt, model, max_tokens=GENERATED + 1, prefill_step_size=PROMPT), config, mx
    )


def _mlxlite(config: dict[str, Any], mx: Any) -> list[tuple[float, float]]:
    from examples.llama import Config, Llama
    from mlxlite.utils import tree_map

    heads = config["num_attention_heads"]
    mx.random.seed(0)
    model = Llama(
        Config(
            hidden_size=config["hidden_size"], intermediate_size=config["intermediate_size"],
            n_layers=config["num_hidden_layers"], n_heads=heads, n_kv_heads=config["num_key_value_heads"],
            head_dim=config.get("head_dim", config["hidden_size"] // heads), vocab_size=config["vocab_size"],
            rope_theta=500000.0, tied_embeddings=True,
        )
    )  # fmt: skip
    model.update(tree_map(lambda p: p.astype(mx.bfloat16), model.parameters()))
    _finish_loading(model, mx)

    def steps(prompt: Any) -> Iterator[int]:
        caches = model.make_caches()

        def following(tokens: Any) -> Any:
            return mx.argmax(model(tokens, caches, last_only=True)[:, -1], axis=-1)

        token = following(prompt[None])
        mx.async_eval(token)
        for _ in range(GENERATED + 1):
            after = following(token[None])
            mx.async_eval(after)
            yield token.item()
            token = after

    return _runs(steps, config, mx)


def _runs(steps: Any, config: dict[str, Any], mx: Any) -> list[tuple[float, float]]:
    """(prompt, generation) tokens per second, of runs after a first that is not counted."""
    prompt = mx.random.randint(0, config["vocab_size"], (PROMPT,))
    mx.eval(prompt)
    out = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        first = 0.0
        count = 0
        for _ in steps(prompt):
            if not first:
                first = time.perf_counter() - start
                start = time.perf_counter()
            else:
                count += 1
        out.append((PROMPT / first, count / (time.perf_counter() - start)))
    return out[1:]
