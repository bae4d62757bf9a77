"""A profile as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .description import time_text
from .text import counted

if TYPE_CHECKING:
    from .profile import Profile, Row

_WIDEST = 60
_WIDTH = 110
# Counters that say most, in order; the others are in `summary`.
_COUNTERS = (
    "hits", "misses", "builds", "evictions", "signature_hits", "execs_built", "nodes_patched", "captures",
    "uploads", "downloads",
)  # fmt: skip


def profile_text(profile: Profile, limit: int) -> str:
    """Host time, counters, and the nodes that took longest."""
    return "\n".join(_lines(profile, limit))


def percent(part: float, whole: float) -> str:
    """`37%` of a whole; `-` of nothing."""
    return f"{100 * part / whole:.0f}%" if whole > 0 else "-"


def row_title(row: Row) -> str:
    """What the node computes, or its label where that is not known."""
    return row.ops or row.label


def _wrapped(title: str, items: list[str]) -> list[str]:
    return textwrap.wrap(
        ", ".join(items), _WIDTH, initial_indent=f"{title:<10}", subsequent_indent=" " * 10, break_on_hyphens=False
    )


def _lines(profile: Profile, limit: int) -> Iterator[str]:
    summary = profile.summary
    whole = summary["seconds"]
    yield f"{counted(summary['evaluations'], 'evaluation')} in {time_text(whole)}"
    parts = [(name, t) for name, t in summary["host"].items() if t > 0]
    yield from _wrapped("host", [f"{name} {time_text(t)} ({percent(t, whole)})" for name, t in parts])
    if summary["device_seconds"]:
        busy = summary["device_seconds"]
        yield f"device    busy {time_text(busy)} ({percent(busy, whole)})"
    for device, counts in summary["counters"].items():
        shown = [f"{name.replace('_', ' ')} {counts[name]}" for name in _COUNTERS if counts.get(name)]
        if shown:
            yield from _wrapped(device, shown)
    rows = profile.rows
    if not rows:
        return
    yield ""
    width = min(max(len("node"), *(len(row_title(r)) for r in rows[:limit])), _WIDEST)
    yield f"{'node':<{width}}  on   {'calls':>6}  {'total':>8}  {'mean':>8}  {'floor':>8}  of floor"
    for row in rows[:limit]:
        title = row_title(row)
        title = title if len(title) <= width else title[: width - 3] + "..."
        fraction = "-" if row.fraction is None else f"{100 * row.fraction:.0f}%"
        yield (
            f"{title:<{width}}  {row.device}  {row.calls:>6}  {time_text(row.total):>8}  {time_text(row.mean):>8}"
            f"  {time_text(row.floor):>8}  {fraction:>8}"
        )
    if len(rows) > limit:
        rest = rows[limit:]
        yield f"{counted(len(rest), 'more node')}, {time_text(sum(r.total for r in rest))}"
