"""What the CUDA backend lets others see: descriptions of plans, node times, counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlxlite import _graph
from mlxlite.observe import Measurement
from mlxlite.observe.description import Machine, Plan

from .explain import describe
from .machines import machine


class CudaProvider:
    """Registered as the provider of the device gpu."""

    def machine(self) -> Machine:
        """The GPU in use, or the one that is assumed where there is none."""
        if not _graph.is_registered("gpu"):
            return machine(None)
        from . import _runtime

        return machine(_runtime.device_info())

    def describe(self, tape: Any) -> Callable[[Sequence[int]], Plan]:
        """Lower a tape and describe the plan."""
        return describe(tape, self.machine())

    def measure(self, nodes: bool) -> Measurement:
        """Begin to measure."""
        raise NotImplementedError

    def counters(self) -> dict[str, int]:
        """The runtime's counters; empty while the GPU is not in use."""
        if not _graph.is_registered("gpu"):
            return {}
        from . import _runtime

        return _runtime.counters()
