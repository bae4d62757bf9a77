"""Results of elementwise groups in the memory of leaves that nobody needs afterwards: parameters, moments, `x = x + 1`.

A result may lie on a leaf of its dims and dtype that the group reads element by element: a thread reads all it needs of
an element before it writes there. `choose` picks the leaf of each result, and lets the leaf's other readers come first
where they can; `result` takes it if, by then, they have.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from .plan import View
from .units import Unit, wait

if TYPE_CHECKING:
    from .builder import Builder

_UNRELATED = 1 << 30  # the distance of a result from a leaf that it does not depend on


def choose(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Fill `b.overwrites`, and order the readers of those leaves before the groups.

    Only a group that nobody waits for is made to wait, for readers that need not wait for it: no circle can close.
    """
    from .horizontal import Alike

    last = {u for u, unit in enumerate(units) if not unit.followers}
    for u, unit in enumerate(units):
        if isinstance(unit.recipe, Alike):
            groups = unit.recipe.instances
        elif unit.elementwise and unit.recipe is None and unit.members:
            groups = [unit.members]
        else:
            continue
        for members in groups:
            inside = set(members)
            for result, leaf in _pairs(b, members):
                readers = {unit_of[r] for r in b.readers(leaf) if r not in inside}
                if readers and all(d.const == 1 for d in b.dims(leaf)):
                    continue  # a counter of steps or positions: the bytes are not worth waiting for
                if u in last:
                    if any(_follows(units, r, u) for r in readers):
                        continue
                    wait(units, u, readers)
                b.overwrites[result] = leaf


def result(b: Builder, m: int, group: Set[int], operands: Sequence[View]) -> View:
    """Where the result of node m of an elementwise group lies, which reads `operands`: on a leaf, or in new memory."""
    leaf = b.overwrites.get(m)
    if leaf is not None:
        place = b.value(leaf)
        read = [v for v in operands if v.buffer is place.buffer]
        # Read twice, the memory is read in two orders: one thread's element is another's too.
        if len(read) == 1 and read[0].same_place(place):
            taken = b.take_leaf(leaf, group)
            if taken is not None:
                return b.define(m, taken)
    return b.result(m)


def _pairs(b: Builder, members: Sequence[int]) -> list[tuple[int, int]]:
    """(result, leaf) that could share memory, each in one pair, the nearest first: a parameter takes its own place."""
    nodes, dims = b.tape_nodes, b.analysis.dims
    loops = dims[members[-1]]
    results = [m for m in members if nodes[m].is_output and dims[m] == loops]
    if not results or b.analysis.is_empty(members[-1]):
        return []
    leaves = [
        j
        for j in dict.fromkeys(j for m in members for j in nodes[m].inputs)
        if nodes[j].role == "leaf" and nodes[j].donatable and nodes[j].strides is None and dims[j] == loops
    ]
    found = []
    for leaf in leaves:
        distance = {leaf: 0}
        for m in members:
            steps = [distance[j] for j in nodes[m].inputs if j in distance]
            if steps:
                distance[m] = min(steps) + 1
        found += [(distance.get(m, _UNRELATED), m, leaf) for m in results if b.dtype(m) == b.dtype(leaf)]
    chosen: dict[int, int] = {}
    for _, m, leaf in sorted(found):
        if m not in chosen and leaf not in chosen.values():
            chosen[m] = leaf
    return list(chosen.items())


def _follows(units: list[Unit], late: int, early: int) -> bool:
    """Whether a unit is another, or follows it; quick for those that came last, which few were made to follow."""
    seen, stack = set(), [early]
    while stack:
        u = stack.pop()
        if u == late:
            return True
        if u not in seen:
            seen.add(u)
            stack.extend(units[u].followers)
    return False
