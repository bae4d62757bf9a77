"""Trains a small convolutional network to read handwritten digits, on the CPU or a GPU.

    python examples/train_digits.py

The 1,797 images of 8 x 8 pixels come with scikit-learn (pip install scikit-learn matplotlib). After
fifteen epochs more than 98% of the images that it has never seen are read rightly. The folder of --out gets the model
(model.safetensors) and the curve of the loss (loss.png). mlxlite must be installed, or its folder be in PYTHONPATH;
`make digits` does everything.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from checkpoints import read_checkpoint, save_checkpoint
from options import COUNT, FRACTION, POSITIVE, SEED, add_device, use_device
from progress import ProgressBar

import mlxlite.core as mx
import mlxlite.nn as nn
import mlxlite.optimizers as optim

TESTED = 5  # one of so many images is kept for the test


class DigitNet(nn.Module):
    """Images (N, 8, 8, 1) to scores (N, 10) for the ten digits."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, padding=1, bias=False),  # the normalisation after it has a bias
            nn.BatchNorm(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(2 * 2 * 64, 10)

    def __call__(self, images: mx.array) -> mx.array:
        features = self.features(images)
        return self.classify(self.dropout(features.reshape(len(images), -1)))


@dataclass
class Digits:
    """Images (N, 8, 8, 1) with values from 0 to 1, and what they show (N,)."""

    images: np.ndarray
    labels: np.ndarray


def load_digits() -> tuple[Digits, Digits]:
    """The images to train with and those to test with. ModuleNotFoundError tells what to install."""
    for package in ("sklearn", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"The package {package} is missing:\n    {sys.executable} -m pip install scikit-learn matplotlib"
            )
    from sklearn.datasets import load_digits as load

    data = load()
    images = (data.images / 16).astype(np.float32)[..., None]
    labels = data.target.astype(np.int32)
    # The same split whatever the seed, so that runs can be compared; mixed, since the digits stand in a pattern.
    tested = np.random.default_rng(0).permutation(len(labels)) % TESTED == 0
    return Digits(images[~tested], labels[~tested]), Digits(images[tested], labels[tested])


def batches(data: Digits, size: int, random: np.random.Generator) -> Iterator[tuple[mx.array, mx.array]]:
    """One epoch in random order. The images that do not fill a last batch are left out: another epoch has them."""
    order = random.permutation(len(data.labels))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield mx.array(data.images[chosen]), mx.array(data.labels[chosen])


def accuracy(model: DigitNet, data: Digits) -> float:
    """The share of images that the model reads rightly."""
    model.eval()
    found = mx.argmax(model(mx.array(data.images)), axis=1)
    right = mx.mean(found == mx.array(data.labels)).item()
    model.train()
    return right


@dataclass
class Result:
    """A trained model and how it went.

    Attributes:
        losses: of every step.
        accuracies: on the test images, after every epoch.
    """

    model: DigitNet
    optimizer: optim.Optimizer
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


def train(options: argparse.Namespace, training: Digits, test: Digits) -> Result:
    """Trains a new model. The same options give the same result on the same machine."""
    mx.random.seed(options.seed)
    random = np.random.default_rng(options.seed)
    model = DigitNet(options.dropout)
    steps = options.epochs * (len(training.labels) // options.batch_size)
    optimizer = optim.Adam(optim.cosine_decay(options.learning_rate, steps), bias_correction=True)
    result = Result(model, optimizer)

    def loss_of(images: mx.array, labels: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(images), labels, reduction="mean")

    loss_and_gradients = nn.value_and_grad(model, loss_of)
    with ProgressBar("training", steps) as bar:
        for epoch in range(options.epochs):
            for images, labels in batches(training, options.batch_size, random):
                loss, gradients = loss_and_gradients(images, labels)
                optimizer.update(model, gradients)
                mx.eval(loss, model.parameters(), optimizer.state)
                result.losses.append(loss.item())
                bar.advance(f"loss {result.losses[-1]:.4f}")
            result.accuracies.append(accuracy(model, test))
            bar.say(f"epoch {epoch + 1:2}: loss {loss.item():.4f}, test accuracy {result.accuracies[-1]:.2%}")
    return result


def draw(result: Result, path: Path) -> None:
    """The curves of loss and accuracy, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")  # draws to files, wherever there is no display
    from matplotlib import pyplot

    steps = len(result.losses)
    epochs = np.arange(1, len(result.accuracies) + 1) * steps / len(result.accuracies)
    figure, left = pyplot.subplots(figsize=(7, 4), layout="constrained")
    left.semilogy(range(1, steps + 1), result.losses, color="tab:blue", linewidth=0.8)
    left.set_xlabel("step")
    left.set_ylabel("loss of the batch", color="tab:blue")
    right = left.twinx()
    right.plot(epochs, [100 * a for a in result.accuracies], color="tab:orange", marker=".")
    right.set_ylabel("test accuracy, %", color="tab:orange")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a convolutional network on handwritten digits.")
    parser.add_argument("--epochs", type=COUNT, default=15)
    parser.add_argument("--batch-size", type=COUNT, default=64)
    parser.add_argument("--learning-rate", type=POSITIVE, default=3e-3, help="the first one; it falls to 0")
    parser.add_argument("--dropout", type=FRACTION, default=0.3)
    parser.add_argument("--seed", type=SEED, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder for model.safetensors, loss.png")
    parser.add_argument("--evaluate", type=Path, metavar="FILE", help="only test the model in a model.safetensors")
    add_device(parser)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    device = use_device(options.device)
    training, test = load_digits()
    if options.evaluate:
        model = DigitNet()
        read_checkpoint(options.evaluate).restore(model)
        print(f"test accuracy: {accuracy(model, test):.2%}")
        return
    if options.batch_size > len(training.labels):
        raise ValueError(f"--batch-size can be {len(training.labels)} at most, the number of images to train with")
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    result = train(options, training, test)
    seconds = time.perf_counter() - begin
    save_checkpoint(
        options.out / "model.safetensors",
        result.model,
        result.optimizer,
        {"epochs": options.epochs, "seed": options.seed, "test_accuracy": result.accuracies[-1]},
    )
    draw(result, options.out / "loss.png")
    print(
        f"test accuracy: {result.accuracies[-1]:.2%} ({len(test.labels)} images), {device}, {seconds:.1f} s\n"
        f"saved: {options.out / 'model.safetensors'}, {options.out / 'loss.png'}"
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        run(options)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"train_digits.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
