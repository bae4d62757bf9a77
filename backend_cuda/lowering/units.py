"""What is lowered together: units of tape nodes, the order they need, and how several become one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class Unit:
    """Tape nodes that are lowered together: one op, or a fused group. A unit that was merged into another has none."""

    members: list[int]
    elementwise: bool
    after: set[int] = field(default_factory=set)  # units that must come first
    followers: set[int] = field(default_factory=set)  # units that must come later: `after`, read the other way
    recipe: Recipe | None = None  # of nodes of several kinds: how they are lowered together


class Recipe(Protocol):
    """What lowers a unit whose nodes no single rule covers."""

    def lower(self, b: Any) -> None: ...


def wait(units: list[Unit], late: int, early: Iterable[int]) -> None:
    """Let a unit come after others."""
    for u in early:
        units[late].after.add(u)
        units[u].followers.add(late)


def comes_after(units: list[Unit], late: int, early: int) -> bool:
    """Whether a unit is another, or must come after it."""
    return _reaches(units, [late], {early})


def can_merge(units: list[Unit], group: set[int]) -> bool:
    """Whether no other unit comes both after and before units of the group: as one they would wait for themselves."""
    return not _reaches(units, {v for u in group for v in units[u].after} - group, group)


def merge(units: list[Unit], unit_of: dict[int, int], group: set[int], into: int) -> Unit:
    """Make a group of units one, in the place of one of them; the others keep their places, without members."""
    merged = units[into]
    members = sorted(m for u in group for m in units[u].members)
    after = {v for u in group for v in units[u].after} - group
    followers = {v for u in group for v in units[u].followers} - group
    for u in group:
        units[u].members, units[u].after, units[u].followers = [], set(), set()
    merged.members, merged.after, merged.followers = members, after, followers
    for m in members:
        unit_of[m] = into
    for v in after:
        units[v].followers = (units[v].followers - group) | {into}
    for v in followers:
        units[v].after = (units[v].after - group) | {into}
    return merged


def dissolve(units: list[Unit], unit_of: dict[int, int], u: int, readers: set[int]) -> None:
    """Take a unit away whose members are computed by its readers instead. Others that follow it, to overwrite what it
    reads, follow those."""
    unit = units[u]
    after, followers = unit.after, unit.followers
    for m in unit.members:
        del unit_of[m]
    unit.members, unit.after, unit.followers = [], set(), set()
    for v in after:
        units[v].followers.discard(u)
    for w in followers:
        units[w].after.discard(u)
    for r in readers:
        wait(units, r, after)
    for w in followers - readers:
        wait(units, w, readers)


def _reaches(units: list[Unit], late: Iterable[int], early: set[int]) -> bool:
    seen: set[int] = set()
    stack = list(late)
    while stack:
        u = stack.pop()
        if u in early:
            return True
        if u not in seen:
            seen.add(u)
            stack.extend(units[u].after)
    return False
