"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Module


class Sequential(Module):
    """Calls its modules (or functions) one after another, each on what the one before returned."""

    def __init__(self, *modules: Callable[[Any], Any]) -> None:
        super().__init__()
        self.layers = list(modules)

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x
