"""Trains a small GPT on the bytes of Python's standard library, on the CPU or a GPU, and lets it write some code.

    python examples/train_lm.py

Ctrl-C (or SIGTERM) saves and stops; `--resume` goes on as if nothing had been: every loss is the same, bit for bit, on
the same CPU (a GPU adds up an embedding's gradient in no fixed order). mlxlite must be installed, or its folder be in
PYTHONPATH; `make train-lm` does everything.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import CheckpointError, read_checkpoint, save_checkpoint
from gpt import GPT, GPTConfig
from options import COUNT, FRACTION, POSITIVE, SEED, add_device, number, use_device
from progress import ProgressBar
from text_data import END_OF_FILE, Windows, fingerprint, read_text
from training import DTYPES, StopSignals, Trainer, warmup_and_cosine

import mlxlite.core as mx
import mlxlite.optimizers as optim

# What must be the same in a run that is resumed: other values would give other losses.
KEPT = [
    *(
        "steps",
        "batch_size",
        "accumulate",
        "context",
        "learning_rate",
        "warmup",
        "weight_decay",
        "clip",
        "dtype",
        "seed",
    ),
    *("layers", "heads", "width", "dropout"),
]


@dataclass
class Record:
    """What a run measured: the losses of its steps, and (step, loss) on the text that is not trained on."""

    first_step: int = 0
    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)


def train(options: argparse.Namespace) -> tuple[GPT, Record]:
    """Trains from the beginning or (options.resume) from the checkpoint on, until the last step or a signal."""
    training, evaluation = read_text(options.text, options.text_bytes)
    windows = Windows(training, options.context + 1, options.seed)
    # The same ones each time.
    evaluated = Windows(evaluation, options.context + 1, 0).take(0, options.evaluate_windows)
    settings = {name: getattr(options, name) for name in KEPT} | {"text": fingerprint(training)}
    file = options.out / "checkpoint.safetensors"
    if file.exists() and not options.resume:
        raise FileExistsError(f"{file} is there: go on with --resume, or begin anew with another --out")

    mx.random.seed(options.seed)
    model = GPT(GPTConfig(256, options.layers, options.heads, options.width, options.dropout))
    optimizer = optim.AdamW(
        warmup_and_cosine(options.learning_rate, options.warmup, options.steps),
        betas=(0.9, 0.95),
        weight_decay=options.weight_decay,
        bias_correction=True,
    )
    step = position = 0
    if options.resume:
        step, position = resume(file, model, optimizer, settings)
    trainer = Trainer(model, optimizer, options.accumulate, options.clip, DTYPES[options.dtype], options.compile)

    record = Record(step)
    with StopSignals() as stop, ProgressBar("training", options.steps, step) as bar:
        while step < options.steps and not stop.asked:
            loss, norm = trainer.step(windows.take(position, options.batch_size))
            if not math.isfinite(loss):
                raise ValueError(f"the loss of step {step + 1} is {loss}: lower --learning-rate, or --clip")
            step, position = step + 1, position + options.batch_size
            record.losses.append(loss)
            bar.advance(f"loss {loss:.4f}  gradient {norm:.2f}")
            last = step == options.steps
            if step % options.evaluate_every == 0 or last:
                record.evaluations.append((step, trainer.evaluate(evaluated, options.batch_size)))
                bar.say(f"step {step}: loss {loss:.4f}, on other text {record.evaluations[-1][1]:.4f}")
            if step % options.save_every == 0 or last or stop.asked:
                values = {"step": step, "position": position, "settings": settings}
                save_checkpoint(file, model, optimizer, values)
    if step < options.steps:
        print(f"stopped after step {step}; go on with --resume", file=sys.stderr)
    return model, record


def resume(file: Path, model: GPT, optimizer: optim.Optimizer, settings: dict[str, Any]) -> tuple[int, int]:
    """Restores model, optimizer and random state; returns how many steps and windows were taken."""
    checkpoint = read_checkpoint(file)
    there = checkpoint.values.get("settings")
    if there is None:
        raise CheckpointError(f"{file} is no checkpoint of train_lm.py")
    for name, here in settings.items():
        if there.get(name) != here:
            what = "another text" if name == "text" else f"--{name.replace('_', '-')} {there.get(name)}, not {here}"
            raise CheckpointError(
                f"{file} belongs to a run with {what}: resume with the options that it was started with"
            )
    checkpoint.restore(model, optimizer)
    return checkpoint.values["step"], checkpoint.values["position"]


def write(model: GPT, context: int, prompt: bytes, length: int, temperature: float, seed: int) -> bytes:
    """`length` bytes that follow a prompt of at least one byte."""
    model.eval()
    text = bytearray(prompt)
    key = mx.random.key(seed)
    for _ in range(length):
        seen = text[-context:]
        # Filled up to one length, so that one plan serves every step; no position sees what comes after it.
        tokens = mx.array(np.frombuffer(seen.ljust(context, END_OF_FILE), np.uint8).astype(np.int32))
        logits = model(tokens[None])[0, len(seen) - 1]
        key, used = mx.random.split(key)
        text.append(mx.random.categorical(logits / temperature, key=used).item())
    model.train()
    return bytes(text)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a GPT on the standard library's sources.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--text", type=Path, help="a file or folder to train on; default: the sources of Python's standard library")
    add("--text-bytes", type=COUNT, default=20_000_000, help="at most so much of it")
    add("--out", type=Path, default=Path("runs/lm"), help="folder of the checkpoint")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--save-every", type=COUNT, default=100, metavar="STEPS")
    add("--steps", type=COUNT, default=600)
    add("--batch-size", type=COUNT, default=16, help="windows of text in each step")
    add("--accumulate", type=COUNT, default=1, help="take each batch in so many parts, to save memory")
    add("--context", type=COUNT, default=128, help="bytes that the model sees")
    add("--learning-rate", type=POSITIVE, default=3e-3, help="the highest; it rises first and falls to a tenth")
    add("--warmup", type=number(int, at_least=0), default=50, metavar="STEPS")
    add("--weight-decay", type=number(float, at_least=0), default=0.1)
    add("--clip", type=POSITIVE, default=1.0, help="the greatest length of the gradients")
    add("--layers", type=COUNT, default=4)
    add("--heads", type=COUNT, default=4)
    add("--width", type=COUNT, default=128)
    add("--dropout", type=FRACTION, default=0.0)
    add("--dtype", choices=list(DTYPES), default="float32", help="of the computation; parameters stay float32")
    add("--compile", action="store_true", help="trace the graph of a step once")
    add("--evaluate-every", type=COUNT, default=100, metavar="STEPS")
    add("--evaluate-windows", type=COUNT, default=64, help="windows of other text to measure the loss on")
    add("--prompt", default="def ", help="what the text written at the end begins with")
    add("--sample", type=number(int, at_least=0), default=300, metavar="BYTES", help="how much to write; 0: nothing")
    add("--temperature", type=POSITIVE, default=0.7)
    add("--seed", type=SEED, default=0)
    add("--json", type=Path, help="write losses and text to this file")
    add_device(parser)
    options = parser.parse_args(arguments)
    if options.batch_size % options.accumulate:
        parser.error(f"--batch-size {options.batch_size} can not be divided by --accumulate {options.accumulate}")
    if options.warmup >= options.steps:
        parser.error(f"--warmup {options.warmup} must be less than --steps {options.steps}")
    if not options.prompt:
        parser.error("--prompt must not be empty")
    return options


def run(options: argparse.Namespace) -> None:
    device = use_device(options.device)
    begin = time.perf_counter()
    model, record = train(options)
    seconds = time.perf_counter() - begin
    text = ""
    if record.losses:
        speed = len(record.losses) * options.batch_size * options.context / seconds
        print(
            f"{device}, {options.dtype}: {len(record.losses)} steps in {seconds:.1f} s, {speed:.0f} bytes/s",
            file=sys.stderr,
        )
    if record.first_step + len(record.losses) == options.steps:
        if record.evaluations:
            loss = record.evaluations[-1][1]
            print(f"loss on other text: {loss:.4f}, {loss / math.log(2):.3f} bits a byte")
        if options.sample:
            prompt = options.prompt.encode()
            text = write(model, options.context, prompt, options.sample, options.temperature, options.seed).decode(
                "utf-8", "replace"
            )
            print(text)
    if options.json:
        options.json.write_text(json.dumps(asdict(record) | {"device": device, "text": text}) + "\n", "utf-8")


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        run(options)
    except (OSError, ValueError) as error:
        print(f"train_lm.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
