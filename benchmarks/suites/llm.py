"""Llama and Qwen with random bfloat16 weights: a prompt of 2048 tokens, then 128 tokens one by one; and how long it is
from the start of a process to a first token.

Model: decoding reads every weight and the KV cache once a token: `of floor` is the rate at which it did so, as a
fraction of that at which a copy moves bytes in the same process. A prompt is 2 operations a weight and token.
"""

from __future__ import annotations

import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers import copy_rate, peer_named
from benchmarks.suites import Figure, tell

PEERS = ("mlxlite", "mlx")
PROMPT, GENERATED, RUNS = 2048, 128, 3
WARMUPS, SETTLING_S = 3, 1.5
LLAMA: dict[str, Any] = {"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "qkv_bias": False, "tie_word_embeddings": True}
QWEN: dict[str, Any] = {"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "qkv_bias": True, "tie_word_embeddings": True}
MODELS: dict[str, dict[str, Any]] = {
    "135M": LLAMA | {
        "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152,
    },
    "1B": LLAMA | {
        "hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "head_dim": 64,
    },
    "8B": LLAMA | {
        "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "Qwen 0.5B": QWEN | {
        "hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": 151936,
    },
    "Qwen 1.5B": QWEN | {
        "hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936,
    },
    "Qwen 7B": QWEN | {
        "hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
    },
}  # fmt: skip
STARTED = ("1B", "tiny")  # of which the first token of a process is timed
TINY: dict[str, dict[str, Any]] = {
    "tiny": LLAMA | {
        "hidden_size": 12, "num_hidden_layers": 2, "intermediate_size": 16, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 20,
    },
    "Qwen tiny": QWEN | {
        "hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": 20, "head_dim": 8, "tie_word_embeddings": False,
    },
}  # fmt: skip


def measure(peer: str) -> dict[str, Figure]:
    """Tokens per second and peak memory; models from MLXLITE_BENCH_MODELS (comma-separated), all by default.

    MLX runs those of the Llama family.
    """
    names = os.environ.get("MLXLITE_BENCH_MODELS", ",".join(MODELS)).split(",")
    mx = importlib.import_module(f"{peer}.core")
    side = 8192 if any(name in MODELS for name in names) else 12
    bandwidth = copy_rate(peer_named(peer), side)
    out: dict[str, Figure] = {f"copy {side}^2 float32": (bandwidth / 1e12, "TB/s")}
    for name in names:
        config = (MODELS | TINY)[name]
        if peer == "mlx" and config["qkv_bias"]:
            continue
        runs = _runs(_steps_of(peer, config, mx), config, mx)
        prompt, generation = (statistics.median(rates) for rates in zip(*runs, strict=True))
        floor = bandwidth / bytes_per_token(config)
        out[f"{name} prompt {PROMPT}"] = (prompt, "tok/s")
        out[f"{name} decode {GENERATED}"] = (generation, "tok/s", {"of floor": generation / floor})
        out[f"{name} peak memory"] = (mx.get_peak_memory() / 1e9, "GB")
        mx.clear_cache()
        tell(out)
    for name in names:
        if name in STARTED:
            out[f"{name} start of a process to a first token"] = (_start(peer, name), "s")
    return out


def _start(peer: str, name: str) -> float:
    """Seconds from the start of a process to a first token, without those that the weights took; of the second of two
    processes, which finds the caches of the first."""
    code = f"from benchmarks.suites import llm; llm.print_first_token({peer!r}, {name!r})"
    # Python's own cache is one of them: an installed package has its bytecode.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command, folder = [sys.executable, "-c", code], Path(__file__).parents[2]
    for _ in range(2):
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_first_token(peer: str, name: str) -> None:
    """Print the seconds since this process was started, without those that making the weights took."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    start = ticks / os.sysconf("SC_CLK_TCK")
    mx = importlib.import_module(f"{peer}.core")
    config = (MODELS | TINY)[name]
    before = time.perf_counter()
    steps = _steps_of(peer, config, mx)
    weights_took = time.perf_counter() - before
    prompt = mx.random.randint(0, config["vocab_size"], (PROMPT,))
    next(iter(steps(prompt)))
    print(time.clock_gettime(time.CLOCK_BOOTTIME) - start - weights_took)


def _head_dim(config: dict[str, Any]) -> int:
    return config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])


def weights(config: dict[str, Any]) -> int:
    """How many numbers a decoded token reads of a model: all but an embedding that is not also the output's."""
    hidden, mlp, head = config["hidden_size"], config["intermediate_size"], _head_dim(config)
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    attention = hidden * (queries + 2 * keys) + queries * hidden + config["qkv_bias"] * (queries + 2 * keys)
    norms = 2 * hidden
    layers = config["num_hidden_layers"] * (attention + 3 * hidden * mlp + norms)
    return layers + hidden + config["vocab_size"] * hidden


def bytes_per_token(config: dict[str, Any]) -> float:
    """What a decoded token reads: the weights, and the keys and values of half of the generated text and the prompt."""
    cached = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * _head_dim(config)
    return 2 * (weights(config) + cached * (PROMPT + GENERATED / 2))


def _finish_loading(model: Any, mx: Any) -> None:
    """Make the weights; peak memory is counted from here, since making them takes more than having them."""
    mx.eval(model.parameters())
    mx.synchronize()
    mx.clear_cache()
    mx.reset_peak_memory()


Steps = Callable[[Any], Any]  # a prompt to an iterator of tokens


def _steps_of(peer: str, config: dict[str, Any], mx: Any) -> Steps:
    return (_mlx if peer == "mlx" else _mlxlite)(config, mx)


def _mlx(config: dict[str, Any], mx: Any) -> Steps:
    from mlx.utils import tree_map
    from mlx_lm.generate import generate_step
    from mlx_lm.models.llama import Model, ModelArgs

    mx.random.seed(0)
    known = {name: value for name, value in config.items() if name != "qkv_bias"}
    model = Model(ModelArgs(model_type="llama", **known))
    model.update(tree_map(lambda p: p.astype(mx.bfloat16), model.parameters()))
    _finish_loading(model, mx)
    return lambda prompt: generate_step(prompt, model, max_tokens=GENERATED + 1, prefill_step_size=PROMPT)


def _mlxlite(config: dict[str, Any], mx: Any) -> Steps:
    from examples.llama import Config, Llama
    from mlxlite.utils import tree_map

    mx.random.seed(0)
    model = Llama(
        Config(
            hidden_size=config["hidden_size"], intermediate_size=config["intermediate_size"],
            n_layers=config["num_hidden_layers"], n_heads=config["num_attention_heads"],
            n_kv_heads=config["num_key_value_heads"], head_dim=_head_dim(config), vocab_size=config["vocab_size"],
            norm_eps=config["rms_norm_eps"], rope_theta=config["rope_theta"], qkv_bias=config["qkv_bias"],
            tied_embeddings=config["tie_word_embeddings"],
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

    return steps


def _runs(steps: Steps, config: dict[str, Any], mx: Any) -> list[tuple[float, float]]:
    """(prompt, generation) tokens per second of `RUNS` runs, after `WARMUPS` that are not counted. After each of those
    there is some time, since kernels may still be compiled behind the scenes."""
    prompt = mx.random.randint(0, config["vocab_size"], (PROMPT,))
    mx.eval(prompt)
    for _ in range(WARMUPS):
        _run(steps, prompt)
        time.sleep(SETTLING_S if config in MODELS.values() else 0)
    return [_run(steps, prompt) for _ in range(RUNS)]


def _run(steps: Steps, prompt: Any) -> tuple[float, float]:
    start = time.perf_counter()
    first = 0.0
    count = 0
    for _ in steps(prompt):
        if not first:
            first = time.perf_counter() - start
            start = time.perf_counter()
        else:
            count += 1
    return PROMPT / first, count / (time.perf_counter() - start)
