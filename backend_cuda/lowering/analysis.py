"""What a tape implies before anything is chosen: symbolic dims, who shares memory with whom, which ops fuse.

Levels make fusion safe. A node's level counts the kernel boundaries on the longest path to it; two elementwise nodes of
one level cannot have anything but elementwise nodes between them, so they may share a kernel.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any

from ..kernels.ops import BINARY, UNARY
from .sym import Sym, SymTable
from .units import Unit, comes_after, merge, wait

Dims = tuple[Sym, ...]

ELEMENTWISE = frozenset(UNARY) | frozenset(BINARY) | {"where", "astype", "full", "arange"}
VIEWS = frozenset({"reshape", "transpose", "broadcast_to", "slice"})
DONATING = frozenset({"slice_update", "scatter", "put_along_axis"})

MAX_GROUP_OPS = 64
MAX_GROUP_OPERANDS = 24

# name -> (analysis, tape index) -> dims; families register the ones that are not "fresh sizes".
DIM_RULES: dict[str, Callable[[Analysis, int], Dims]] = {}


def dim_rule(*names: str) -> Callable[[Callable[[Analysis, int], Dims]], Callable[[Analysis, int], Dims]]:
    """Declare how the dims of a primitive's result follow from its inputs', so that equal sizes are known to be."""

    def register(function: Callable[[Analysis, int], Dims]) -> Callable[[Analysis, int], Dims]:
        for name in names:
            DIM_RULES[name] = function
        return function

    return register


class Analysis:
    """Facts about one tape."""

    def __init__(self, tape: Any) -> None:
        self.tape = tape
        self.nodes: list[Any] = list(tape.nodes)
        self.table = SymTable(list(tape.sizes))
        self.dims: list[Dims] = []
        for _ in range(2):  # equalities found late in the first pass are used from the start of the second
            self.dims = []
            for i in range(len(self.nodes)):
                self.dims.append(self._dims_of(i))
        self.consumers: list[list[int]] = [[] for _ in self.nodes]
        for i, node in enumerate(self.nodes):
            for source in dict.fromkeys(node.inputs):
                self.consumers[source].append(i)

    # ---- dims

    def fresh(self, i: int, d: int) -> Sym:
        """Dim d of node i, as its own size."""
        n = self.nodes[i].shape[d]
        return self.table.lift(n) if n <= 1 else self.table.size(self.nodes[i].size_slot + d)

    def _dims_of(self, i: int) -> Dims:
        node = self.nodes[i]
        if node.role == "op":
            if node.name in ELEMENTWISE and node.name not in ("full", "arange"):
                return self.broadcast(i, [self.dims[j] for j in node.inputs])
            rule = DIM_RULES.get(node.name)
            if rule is not None:
                return tuple(self.table.resolve(d) for d in rule(self, i))
        return tuple(self.fresh(i, d) for d in range(len(node.shape)))

    def broadcast(self, i: int, shapes: Iterable[Dims]) -> Dims:
        """The broadcast of shapes, whose larger dims the op implies to be equal."""
        rank = len(self.nodes[i].shape)
        result: list[Sym] = [self.table.lift(1)] * rank
        for shape in shapes:
            for k, dim in enumerate(shape, rank - len(shape)):
                if dim.const == 1:
                    continue
                if result[k].const == 1:
                    result[k] = dim
                else:
                    self.table.equate(result[k], dim)
        return tuple(result)

    def numel(self, dims: Iterable[Sym]) -> Sym:
        total = self.table.lift(1)
        for d in dims:
            total = total * d
        return total

    def is_empty(self, i: int) -> bool:
        return 0 in self.nodes[i].shape

    # ---- units

    def units(
        self, fuse: bool = True, regroup: Callable[[list[Unit], dict[int, int]], None] | None = None
    ) -> list[Unit]:
        """All ops but views, in an order in which each can be lowered.

        Args:
            fuse: whether elementwise ops share units.
            regroup: called with the units and the unit of each node; it may merge units, leaving those that are gone
                without members.
        """
        levels = self._levels()
        units: list[Unit] = []
        unit_of: dict[int, int] = {}
        operands: dict[int, set[int]] = {}

        def producers(i: int) -> set[int]:
            """The units whose results node i reads, through views."""
            found = set()
            for j in self.nodes[i].inputs:
                while self.nodes[j].name in VIEWS and self.nodes[j].role == "op":
                    j = self.nodes[j].inputs[0]
                if j in unit_of:
                    found.add(unit_of[j])
            return found

        def reaches(source: int, target: int) -> bool:
            """Whether unit `source` must come after unit `target`."""
            seen, stack = set(), [source]
            while stack:
                u = stack.pop()
                if u == target:
                    return True
                if u not in seen:
                    seen.add(u)
                    # Kernel boundaries raise the level, so only units of the target's level can lie on a cycle.
                    stack.extend(
                        v for v in units[u].after if levels[units[v].members[0]] >= levels[units[target].members[0]]
                    )
            return False

        for i, node in enumerate(self.nodes):
            if node.role != "op" or node.name in VIEWS:
                continue
            needs = producers(i)
            elementwise = node.name in ELEMENTWISE
            joined = None
            if fuse and elementwise:
                for j in node.inputs:
                    u = unit_of.get(j)
                    if (
                        u is None
                        or self.nodes[j].name not in ELEMENTWISE
                        or levels[j] != levels[i]
                        or self.dims[j] != self.dims[i]
                    ):
                        continue
                    outside = {k for k in node.inputs if unit_of.get(k) != u and self.nodes[k].role != "scalar"}
                    if len(units[u].members) >= MAX_GROUP_OPS or len(operands[u] | outside) > MAX_GROUP_OPERANDS:
                        continue
                    if any(v != u and reaches(v, u) for v in needs):
                        continue
                    joined = u
                    operands[u] |= outside
                    break
            if joined is None:
                joined = len(units)
                units.append(Unit([], elementwise))
                operands[joined] = {k for k in node.inputs if self.nodes[k].role != "scalar"}
            units[joined].members.append(i)
            wait(units, joined, needs - {joined})
            unit_of[i] = joined
            if elementwise and fuse:
                for other in needs - {joined}:
                    self._try_merge(units, unit_of, operands, levels, joined, other, i, reaches)
        self._order_donations(units, unit_of)
        if regroup is not None:
            regroup(units, unit_of)
        return self._ordered([u for u in units if u.members], units)

    def _try_merge(
        self, units: Any, unit_of: Any, operands: Any, levels: Any, a: int, b: int, i: int, reaches: Any
    ) -> None:
        """Merge group b into group a when node i joined them and both have its shape and level."""
        if not units[b].elementwise or not units[b].members:
            return
        other = units[b].members[0]
        if levels[other] != levels[i] or self.dims[other] != self.dims[i]:
            return
        if len(units[a].members) + len(units[b].members) > MAX_GROUP_OPS:
            return
        inside = set(units[a].members) | set(units[b].members)
        outside = {k for k in operands[a] | operands[b] if k not in inside}
        if len(outside) > MAX_GROUP_OPERANDS:
            return
        if any(v != b and reaches(v, b) for v in units[a].after) or any(
            v != a and reaches(v, a) for v in units[b].after
        ):
            return
        merge(units, unit_of, {a, b}, a)
        operands[a] = outside

    def _levels(self) -> list[int]:
        levels: list[int] = []
        made = []  # whether a kernel of this plan writes the node's memory
        for node in self.nodes:
            if node.role != "op":
                levels.append(0)
                made.append(False)
                continue
            fusible = node.name in ELEMENTWISE
            level = 0
            for j in node.inputs:
                source = self.nodes[j]
                source_fusible = source.role == "op" and source.name in ELEMENTWISE
                step = 0 if (source_fusible and fusible) or not made[j] else 1
                if node.name in VIEWS and not source_fusible:
                    step = 0
                level = max(level, levels[j] + step)
            levels.append(level)
            made.append(made[node.inputs[0]] if node.name in VIEWS else True)
        return levels

    def root(self, i: int) -> int:
        """The node whose memory a view looks at."""
        while self.nodes[i].role == "op" and self.nodes[i].name in VIEWS:
            i = self.nodes[i].inputs[0]
        return i

    def _order_donations(self, units: list[Unit], unit_of: dict[int, int]) -> None:
        """Let the other readers of memory that an update may overwrite come before the update, where they can."""
        for i, node in enumerate(self.nodes):
            if node.role != "op" or node.name not in DONATING:
                continue
            target = unit_of[i]
            for reader in self.readers(self.root(node.inputs[0])):
                u = unit_of[reader]
                if u != target and not comes_after(units, u, target):
                    wait(units, target, (u,))

    def readers(self, root: int) -> list[int]:
        """The ops, other than views, that read a node's memory."""
        found, stack = [], [root]
        while stack:
            for c in self.consumers[stack.pop()]:
                if self.nodes[c].name in VIEWS:
                    stack.append(c)
                else:
                    found.append(c)
        return found

    def views_of(self, root: int) -> list[int]:
        """The views onto a node's memory."""
        found, stack = [], [root]
        while stack:
            for c in self.consumers[stack.pop()]:
                if self.nodes[c].name in VIEWS:
                    found.append(c)
                    stack.append(c)
        return found

    def _ordered(self, live: list[Unit], units: list[Unit]) -> list[Unit]:
        """Producers first; among what is ready, what was recorded first."""
        index = {id(u): k for k, u in enumerate(units)}
        waiting = {index[id(u)]: len(u.after) for u in live}
        followers: dict[int, list[int]] = {}
        for u in live:
            for v in u.after:
                followers.setdefault(v, []).append(index[id(u)])
        ready = [(units[k].members[-1], k) for k, n in waiting.items() if n == 0]
        heapq.heapify(ready)
        order = []
        while ready:
            _, k = heapq.heappop(ready)
            order.append(units[k])
            for f in followers.get(k, ()):
                waiting[f] -= 1
                if waiting[f] == 0:
                    heapq.heappush(ready, (units[f].members[-1], f))
        if len(order) != len(live):
            raise AssertionError("fused groups depend on one another in a circle")
        return order
