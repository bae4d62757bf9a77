"""Who is told of evaluations. The graph module knows one observer; this one tells the others."""

from __future__ import annotations

from typing import Any

from .. import _graph

# The moments that `Observer.evaluated` is given, in ns of time.perf_counter_ns.
START, LISTED, MOVED, WALKED, FOUND, LOWERED, BOUND, RAN, DONE = range(9)


class Observer:
    """What can be told. An exception in one of these is reported, and changes no evaluation."""

    def lowered(self, device: str, plan: Any, tape: Any, start: int, end: int) -> None:
        """A plan was made of a tape."""

    def wants_tape(self, device: str, plan: Any) -> bool:
        """Whether to be told the tape of an evaluation that is about to run."""
        return False

    def tape(self, plan: Any, tape: Any) -> None:
        """That tape."""

    def evaluated(
        self, device: str, plan: Any, hit: bool, sizes: tuple[int, ...], evicted: int, times: tuple[int, ...]
    ) -> None:
        """An evaluation was started (and, on the CPU, done)."""

    def waited(self, start: int, end: int) -> None:
        """Somebody waited for the GPU."""

    def evicted(self, device: str, count: int) -> None:
        """Plans were dropped because the cache was made smaller."""


class _All(Observer):
    """Tells every observer."""

    def __init__(self) -> None:
        self.observers: list[Observer] = []
        self._wanting: list[Observer] = []

    def lowered(self, device: str, plan: Any, tape: Any, start: int, end: int) -> None:
        for o in self.observers:
            o.lowered(device, plan, tape, start, end)

    def wants_tape(self, device: str, plan: Any) -> bool:
        self._wanting = [o for o in self.observers if o.wants_tape(device, plan)]
        return bool(self._wanting)

    def tape(self, plan: Any, tape: Any) -> None:
        for o in self._wanting:
            o.tape(plan, tape)

    def evaluated(
        self, device: str, plan: Any, hit: bool, sizes: tuple[int, ...], evicted: int, times: tuple[int, ...]
    ) -> None:
        for o in self.observers:
            o.evaluated(device, plan, hit, sizes, evicted, times)

    def waited(self, start: int, end: int) -> None:
        for o in self.observers:
            o.waited(start, end)

    def evicted(self, device: str, count: int) -> None:
        for o in self.observers:
            o.evicted(device, count)


_all = _All()


def add(observer: Observer) -> None:
    """Tell `observer` of evaluations from now on."""
    _all.observers = [*_all.observers, observer]
    _graph.set_observer(_all)


def remove(observer: Observer) -> None:
    """Stop telling it. With nobody left, evaluations cost what they cost before."""
    _all.observers = [o for o in _all.observers if o is not observer]
    if not _all.observers:
        _graph.set_observer(None)
