"""What a profile gathers: evaluations with their host time, node times against their floors, counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from .. import _graph
from . import Measurement, observers, provider
from .description import Plan, Run, array_text
from .observers import BOUND, DONE, FOUND, LISTED, LOWERED, MOVED, RAN, START
from .text import node_title

# The parts of an evaluation on the host, in order.
HOST_PARTS = ("walk", "move", "lower", "bind", "launch", "rules", "finish", "wait", "profiler", "outside")


@dataclass(frozen=True)
class TimedNode:
    """A node of one evaluation. Seconds; `start` on the clock of `time.perf_counter`; `floor` None if not known."""

    label: str
    ops: str
    start: float
    seconds: float
    floor: float | None


@dataclass
class Evaluation:
    """One evaluation on one device. `host` has seconds by the names of HOST_PARTS.

    `device_time` is (start, length) of the whole on a device that runs by itself.
    """

    device: str
    plan: int
    hit: bool
    evicted: int
    start: float
    seconds: float
    host: dict[str, float]
    nodes: list[TimedNode] = field(default_factory=list)
    device_time: tuple[float, float] | None = None
    sizes: tuple[int, ...] = ()


@dataclass
class Row:
    """All calls of one node: what it computes, how often, how long, and the least that it could take."""

    device: str
    label: str
    ops: str
    calls: int = 0
    total: float = 0.0
    floor_total: float | None = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.calls

    @property
    def floor(self) -> float | None:
        """Of a call, on average; None if not known."""
        return None if self.floor_total is None else self.floor_total / self.calls

    @property
    def fraction(self) -> float | None:
        """The floor over the time: 1 is as fast as the machine can be."""
        return self.floor_total / self.total if self.floor_total and self.total else None


class Profile:
    """A context manager that measures the evaluations inside it.

    Attributes:
        evaluations: what was measured of each, in order.
        waits: (start, length) of each wait for the GPU.
        seconds: of the whole.
        counters: what caches counted meanwhile, by device.
    """

    def __init__(self, nodes: bool = True) -> None:
        self.measures_nodes = nodes
        self.evaluations: list[Evaluation] = []
        self.waits: list[tuple[float, float]] = []
        self.counters: dict[str, dict[str, int]] = {}
        self.start = self._end = 0.0
        self._measurements: dict[str, Measurement] = {}
        self._unmatched: dict[str, list[Evaluation]] = {}
        self._plans: dict[int, _KnownPlan] = {}
        self._observer = _Recorder(self)
        self._before: dict[str, dict[str, int]] = {}
        self._running = False

    def __enter__(self) -> Profile:
        global _active
        if _active is not None:
            raise RuntimeError("[profile] a profile is being taken already: profiles cannot be nested")
        if self.start:
            raise RuntimeError("[profile] this profile was taken already: make a new one")
        _active = self
        self._before = self._count()
        self._running = True
        self.start = time.perf_counter()
        # Backends begin to measure when the observer is told of their first evaluation: what they measure are then the
        # evaluations that it is told of, one for one, whatever other threads do.
        observers.add(self._observer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _active
        self._end = time.perf_counter()
        observers.remove(self._observer)
        self._running = False
        _active = None
        try:
            self._collect()
            self.counters = self._gained()
        finally:
            for measurement in self._measurements.values():
                measurement.stop()
            self._measurements = {}
            self._plans = {}

    @property
    def seconds(self) -> float:
        return (time.perf_counter() if self._running else self._end) - self.start

    # ---- results

    @property
    def rows(self) -> list[Row]:
        """Nodes that compute the same, together; those that took longest first."""
        self._collect()
        rows: dict[tuple[str, str, str], Row] = {}
        for evaluation in self.evaluations:
            for node in evaluation.nodes:
                key = (evaluation.device, node.label, node.ops)
                row = rows.setdefault(key, Row(*key))
                row.calls += 1
                row.total += node.seconds
                known = row.floor_total is not None and node.floor is not None
                row.floor_total = row.floor_total + node.floor if known else None  # type: ignore[operator]
        return sorted(rows.values(), key=lambda row: -row.total)

    @property
    def host(self) -> dict[str, float]:
        """Seconds of the host by what it did; "outside" is the program's own, recording included."""
        self._collect()
        parts = dict.fromkeys(HOST_PARTS, 0.0)
        for evaluation in self.evaluations:
            for name, seconds in evaluation.host.items():
                parts[name] += seconds
        parts["wait"] += sum(length for _, length in self.waits)
        parts["outside"] = max(self.seconds - sum(parts.values()), 0.0)
        return parts

    @property
    def summary(self) -> dict[str, Any]:
        """Numbers of the whole: seconds, evaluations, host parts, time in nodes, floors and counters."""
        rows = self.rows
        floors = [row.floor_total for row in rows]
        return {
            "seconds": self.seconds,
            "evaluations": len(self.evaluations),
            "host": self.host,
            "node_calls": sum(row.calls for row in rows),
            "node_seconds": sum(row.total for row in rows),
            "floor_seconds": None if None in floors else sum(f for f in floors if f is not None),
            "device_seconds": sum(e.device_time[1] for e in self.evaluations if e.device_time),
            "counters": self.counters if not self._running else self._gained(),
        }

    def table(self, limit: int = 30) -> str:
        """The profile as text, with at most `limit` rows of nodes."""
        from .table import profile_text

        return profile_text(self, limit)

    def __str__(self) -> str:
        return self.table()

    def to_html(self, path: Any) -> None:
        """Write one page that needs nothing else: a timeline, the host's time, counters and the table."""
        from .report import page

        with open(path, "w", encoding="utf-8") as file:
            file.write(page(self))

    def _repr_html_(self) -> str:
        from .report import frame

        return frame(self)

    # ---- gathering

    def _measure(self, device: str) -> None:
        if device not in self._measurements:
            self._measurements[device] = provider(device).measure(self.measures_nodes)

    def _count(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for device in ("cpu", "gpu"):
            if _graph.is_registered(device):
                info = _graph.cache_info()[device]
                counts[device] = {k: int(info[k]) for k in ("hits", "misses", "builds", "evictions")}
                counts[device] |= provider(device).counters()
        return counts

    def _gained(self) -> dict[str, dict[str, int]]:
        return {
            device: {k: n - self._before.get(device, {}).get(k, 0) for k, n in now.items()}
            for device, now in self._count().items()
        }

    def _collect(self) -> None:
        """Match what backends measured with the evaluations it belongs to."""
        for device, measurement in self._measurements.items():
            waiting = self._unmatched.pop(device, [])
            for evaluation, run in zip(waiting, measurement.take(), strict=True):
                self._add(evaluation, run)

    def _add(self, evaluation: Evaluation, run: Run) -> None:
        if evaluation.device == "gpu":
            evaluation.host["bind"], evaluation.host["launch"] = run.bind, run.launch
            rest = evaluation.host.pop("rules")
            evaluation.host["finish"] += max(rest - run.bind - run.launch, 0.0)
        evaluation.device_time = run.device
        plan = self._plans[evaluation.plan].at(evaluation.sizes) if evaluation.plan in self._plans else None
        nodes = plan.nodes if plan is not None and _fits(plan, run) else None
        machine = provider(evaluation.device).machine()
        for k, timed in enumerate(run.nodes):
            floor, ops = None, timed.ops
            if timed.nbytes > 0:
                floor, _ = machine.floor(timed.nbytes)
            elif nodes is not None:
                floor = nodes[k].floor
                if nodes[k].ops:
                    last = nodes[k].ops[-1]
                    ops = f"{node_title(nodes[k])} {array_text(last.dtype, last.shape)}"
            evaluation.nodes.append(TimedNode(timed.label, ops, timed.start, timed.seconds, floor))


_active: Profile | None = None


def _fits(plan: Plan, run: Run) -> bool:
    """Whether a plan lowered again is the one that ran: choices of speed may depend on the sizes of the first call."""
    return [n.label for n in plan.nodes] == [n.label for n in run.nodes]


class _KnownPlan:
    """A plan that ran while profiled, and its description for the sizes of each call."""

    def __init__(self, plan: Any, describe: Callable[[Sequence[int]], Plan] | None) -> None:
        self.plan = plan  # kept, so that its id stays its own
        self._describe = describe
        self._last: tuple[tuple[int, ...], Plan] | None = None

    def at(self, sizes: tuple[int, ...]) -> Plan | None:
        if self._describe is None:
            return None
        if self._last is None or self._last[0] != sizes:
            self._last = (sizes, self._describe(sizes))
        return self._last[1]


class _Recorder(observers.Observer):
    """Notes evaluations in a profile."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._numbers: dict[int, int] = {}

    def wants_tape(self, device: str, plan: Any) -> bool:
        self._profile._measure(device)
        if id(plan) in self._numbers:
            return False
        number = self._numbers[id(plan)] = len(self._numbers) + 1
        self._profile._plans[number] = _KnownPlan(plan, None)
        return device == "gpu" and self._profile.measures_nodes

    def tape(self, plan: Any, tape: Any) -> None:
        number = self._numbers[id(plan)]
        self._profile._plans[number] = _KnownPlan(plan, provider(tape.device).describe(tape))

    def evaluated(
        self, device: str, plan: Any, hit: bool, sizes: tuple[int, ...], evicted: int, times: tuple[int, ...]
    ) -> None:
        entered = time.perf_counter()
        self._profile._measurements[device].commit()
        seconds = [t / 1e9 for t in times]
        host = {
            "walk": seconds[LISTED] - seconds[START] + seconds[FOUND] - seconds[MOVED],
            "move": seconds[MOVED] - seconds[LISTED],
            "lower": seconds[LOWERED] - seconds[FOUND],
            "profiler": seconds[BOUND] - seconds[LOWERED],
            "rules": seconds[RAN] - seconds[BOUND],
            "finish": seconds[DONE] - seconds[RAN],
        }
        whole = seconds[DONE] - seconds[START]
        evaluation = Evaluation(device, self._numbers[id(plan)], hit, evicted, seconds[START], whole, host)
        evaluation.sizes = sizes
        self._profile.evaluations.append(evaluation)
        self._profile._unmatched.setdefault(device, []).append(evaluation)
        host["profiler"] += time.perf_counter() - entered

    def waited(self, start: int, end: int) -> None:
        if not self._profile._running:
            return  # a wait of another thread that outlived the profile
        self._profile.waits.append((start / 1e9, (end - start) / 1e9))


def spans(evaluation: Evaluation) -> Iterator[tuple[str, float, float]]:
    """The host parts of an evaluation one after the other: (name, start, seconds)."""
    at = evaluation.start
    for name in ("walk", "move", "lower", "profiler", "bind", "launch", "rules", "finish"):
        length = evaluation.host.get(name, 0.0)
        if length > 0:
            yield name, at, length
        at += length
