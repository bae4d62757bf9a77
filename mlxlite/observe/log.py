"""`MLXLITE_LOG=plan,cache,kernel`: what is lowered, hit, missed, dropped and compiled, through the module `logging`.

The loggers are `mlxlite.plan`, `mlxlite.cache` and `mlxlite.kernel`. Hits, and kernels found in memory, are of the
level DEBUG, the rest is of INFO. Where the program has set up no handlers, records go to stderr.
"""

from __future__ import annotations

import itertools
import logging
import os
from typing import Any

from . import observers
from .description import fusion_text, time_text

TOPICS = ("plan", "cache", "kernel")
_MAX_LABELS = 8


class _Fallback(logging.StreamHandler[Any]):
    """To stderr, unless the program has handlers of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            super().emit(record)


_observer: observers.Observer | None = None
_handler = _Fallback()
_handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))


def configure(topics: str) -> None:
    """Log these topics, separated by commas, and no others. ValueError for one that there is not."""
    global _observer
    wanted = {t.strip() for t in topics.split(",")} - {""}
    if unknown := sorted(wanted - set(TOPICS)):
        raise ValueError(f"MLXLITE_LOG: there is no topic {unknown[0]!r}; the topics are {', '.join(TOPICS)}")
    top = logging.getLogger("mlxlite")
    top.removeHandler(_handler)
    if wanted:
        top.addHandler(_handler)
    for topic in TOPICS:
        top.getChild(topic).setLevel(logging.DEBUG if topic in wanted else logging.NOTSET)
    if _observer is not None:
        observers.remove(_observer)
        _observer = None
    if wanted & {"plan", "cache"}:
        _observer = _Log("plan" in wanted, "cache" in wanted)
        observers.add(_observer)


class _Log(observers.Observer):
    """Writes about plans and their cache."""

    def __init__(self, plans: bool, cache: bool) -> None:
        self._plan = logging.getLogger("mlxlite.plan") if plans else None
        self._cache = logging.getLogger("mlxlite.cache") if cache else None
        self._numbers: dict[int, int] = {}  # of plans, by id
        self._next = itertools.count(1)
        self._structures = Structures()

    def _number(self, plan: Any) -> int:
        if id(plan) not in self._numbers:
            self._numbers[id(plan)] = next(self._next)
        return self._numbers[id(plan)]

    def lowered(self, device: str, plan: Any, tape: Any, start: int, end: int) -> None:
        self._numbers.pop(id(plan), None)  # the id of a plan that is gone, perhaps
        number = self._number(plan)
        if self._cache:
            self._cache.info("%s miss, plan %d: %s", device, number, self._structures.why_new(tape))
        if self._plan:
            ops = sum(n.role == "op" for n in tape.nodes)
            labels = list(plan.labels)
            shown = " | ".join(labels[:_MAX_LABELS])
            rest = f" | {len(labels) - _MAX_LABELS} more" if len(labels) > _MAX_LABELS else ""
            took = time_text((end - start) / 1e9)
            self._plan.info(
                "%s plan %d: %d ops in %d nodes, %s: %s", device, number, ops, len(labels), took, shown + rest
            )

    def evaluated(
        self, device: str, plan: Any, hit: bool, sizes: tuple[int, ...], evicted: int, times: tuple[int, ...]
    ) -> None:
        if self._cache and hit:
            self._cache.debug("%s hit, plan %d", device, self._number(plan))
        if self._cache and evicted:
            self._cache.info("%s evicted %d: the cache is full (set_plan_capacity)", device, evicted)

    def evicted(self, device: str, count: int) -> None:
        if self._cache:
            self._cache.info("%s evicted %d: the capacity was lowered", device, count)


class Structures:
    """What was lowered before, to say what is new about the next. Bounded; kept only while the cache is logged."""

    _MOST = 512

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], dict[Any, None]] = {}

    def why_new(self, tape: Any) -> str:
        """Why a tape has no plan yet."""
        names = tuple(n.name for n in tape.nodes)
        structure = tuple(map(_facts, tape.nodes))
        alike = self._seen.setdefault(names, {})
        reason = _reason(names, structure, alike)
        alike.pop(structure, None)
        alike[structure] = None
        while len(alike) > 8:
            alike.pop(next(iter(alike)))
        while len(self._seen) > self._MOST:
            self._seen.pop(next(iter(self._seen)))
        return reason


def _facts(node: Any) -> tuple[tuple[str, Any], ...]:
    """What the key has of a node, by names that a reader understands."""
    return (
        ("kind", node.role),
        ("dtype", node.dtype.name),
        ("dims", tuple("n" if n > 1 else str(n) for n in node.shape)),
        ("strides", None if node.strides is None else tuple("n" if s > 1 else str(min(s, 1)) for s in node.strides)),
        ("attributes", repr(node.static)),
        ("held by others", node.is_output),
        ("donated", node.donatable),
        ("inputs", tuple(node.inputs)),
        ("numbers", (len(node.ints), len(node.floats))),
    )


def _reason(names: tuple[str, ...], structure: Any, alike: dict[Any, None]) -> str:
    if not alike:
        ops = [n for n in names if n]
        return f"new ops {fusion_text(ops)}"
    if structure in alike:
        return "its plan was dropped"
    best: tuple[int, str] | None = None
    for other in reversed(alike):
        found = [
            (k, name, new, old)
            for k, (a, b) in enumerate(zip(structure, other, strict=True))
            for (name, new), (_, old) in zip(a, b, strict=True)
            if new != old
        ]
        k, name, new, old = found[0]
        text = f"#{k} {names[k] or 'array'}: {name} {_text(new)}, before {_text(old)}"
        if best is None or len(found) < best[0]:
            best = (len(found), text + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""))
    assert best is not None
    return best[1]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return f"({', '.join(map(str, value))})"
    return "row-major" if value is None else str(value)


configure(os.environ.get("MLXLITE_LOG", ""))
