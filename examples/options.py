"""What the training examples' command lines have in common: checked numbers, and the device."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import mlxlite.core as mx


def number(
    kind: type, at_least: float | None = None, above: float | None = None, below: float | None = None
) -> Callable:
    """A converter for argparse: text to an int or float within bounds. The error says which bound was passed.

    >>> number(int, at_least=1)("3")
    3
    """

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not {'an integer' if kind is int else 'a number'}"
            ) from error
        # Written so that NaN fails every one of them.
        if at_least is not None and not value >= at_least:
            raise argparse.ArgumentTypeError(f"must be at least {at_least}, got {text}")
        if above is not None and not value > above:
            raise argparse.ArgumentTypeError(f"must be above {above}, got {text}")
        if below is not None and not value < below:
            raise argparse.ArgumentTypeError(f"must be below {below}, got {text}")
        return value

    return convert


COUNT = number(int, at_least=1)
POSITIVE = number(float, above=0, below=float("inf"))
SEED = number(int, at_least=0)
FRACTION = number(float, at_least=0, below=1)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument(
        "--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto takes a GPU if there is one (default)"
    )


def use_device(choice: str) -> str:
    """Makes the chosen device the default; returns "cpu" or "gpu". ValueError says why there is no GPU."""
    if choice == "auto":
        choice = "gpu" if mx.is_available(mx.gpu) else "cpu"
    mx.set_default_device(mx.gpu if choice == "gpu" else mx.cpu)
    return choice
