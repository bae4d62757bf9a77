"""Looking at what evaluations do: descriptions, measurements, logs. Backends register how they are looked at."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .description import Machine, Plan, Run

__all__ = ["Measurement", "Provider", "provider", "register"]


class Measurement(Protocol):
    """A backend's part in a profile: started, asked after each evaluation, stopped."""

    def stop(self) -> None:
        """Run as usual again."""

    def commit(self) -> None:
        """Count the run that just ended; one that raised an exception is never committed."""

    def take(self) -> list[Run]:
        """What was measured of each evaluation since the last call, in order; waits for those that still run."""


class Provider(Protocol):
    """What a backend lets others see."""

    def machine(self) -> Machine:
        """What floors are computed from."""

    def describe(self, tape: Any) -> Callable[[Sequence[int]], Plan]:
        """Lower a tape; returns what describes the plan for given sizes (the tape's own or another call's)."""

    def measure(self, nodes: bool) -> Measurement:
        """Begin to measure every evaluation, and every node of it if `nodes`."""

    def counters(self) -> dict[str, int]:
        """Counters of the backend's own caches."""


_providers: dict[str, Provider] = {}


def register(device: str, how: Provider) -> None:
    """Make `how` the provider of a device."""
    _providers[device] = how


def provider(device: str) -> Provider:
    """The provider of a device; needs no such device. RuntimeError if its backend is not installed."""
    if device not in _providers:
        if device == "cpu":
            importlib.import_module("mlxlite.backend_cpu")
        elif importlib.util.find_spec("backend_cuda") is None:
            raise RuntimeError("the module backend_cuda is not installed; reinstall with: pip install 'mlxlite[cuda]'")
        else:
            importlib.import_module("backend_cuda").register_provider()
    return _providers[device]
