"""What the CUDA backend lets others see: descriptions of plans, node times, counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlxlite import _graph
from mlxlite.observe import Measurement
from mlxlite.observe.description import Machine, NodeTime, Plan, Run

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
        return _Measurement(nodes)

    def counters(self) -> dict[str, int]:
        """The runtime's counters; empty while the GPU is not in use."""
        if not _graph.is_registered("gpu"):
            return {}
        from . import _runtime

        return _runtime.counters()


class _Measurement:
    """The runtime's, while it lives."""

    def __init__(self, nodes: bool) -> None:
        from . import _runtime

        self._runtime = _runtime
        self._nodes = nodes
        self._committed = 0  # launches that evaluations were told of, and that were not taken
        self._launches: list[Any] = []
        _runtime.measure("nodes" if nodes else "whole")

    def stop(self) -> None:
        self._runtime.measure("off")

    def commit(self) -> None:
        self._committed += 1

    def take(self) -> list[Run]:
        # Beside those committed, the runtime may have launches of other threads: not yet committed, or after the end.
        self._launches += self._runtime.measured()
        count, self._committed = self._committed, 0
        taken, self._launches = self._launches[:count], self._launches[count:]
        return [self._run(*launch) for launch in taken]

    def _run(self, bind: int, launch: int, labels: list[str], times: list[tuple[int, int]]) -> Run:
        nodes = tuple(
            NodeTime(label, start / 1e9, length / 1e9) for label, (start, length) in zip(labels, times, strict=True)
        )
        whole = None
        if nodes:
            start = min(n.start for n in nodes)
            whole = (start, max(n.start + n.seconds for n in nodes) - start)
        return Run(nodes if self._nodes else (), bind / 1e9, launch / 1e9, whole)
