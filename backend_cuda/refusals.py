"""Why neighbours on the tape, and groups of one program, are not one kernel.

Asked of a finished plan, not of the fusion that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from mlxlite.observe.description import Apart, Op, Refusal

from .lowering import horizontal
from .lowering import plan as lowered
from .lowering.analysis import ELEMENTWISE, MAX_GROUP_OPERANDS, MAX_GROUP_OPS, VIEWS, Analysis
from .lowering.elementwise import MAX_REPEATED_OPS


@dataclass(frozen=True)
class Found:
    """A refusal by tape index, whatever the sizes."""

    producer: int
    producer_node: int
    consumer: int
    consumer_node: int
    reason: str

    def described(self, op: Callable[[int], Op]) -> Refusal:
        return Refusal(op(self.producer), self.producer_node, op(self.consumer), self.consumer_node, self.reason)


def refusals(analysis: Analysis, plan: lowered.Plan, fuse: bool) -> list[Found]:
    """Pairs of a producer and a consumer, one of them elementwise, that different nodes compute."""
    return list(_Reasons(analysis, plan, fuse).all())


def apart(analysis: Analysis, plan: lowered.Plan, fuse: bool) -> tuple[Apart, ...]:
    """Elementwise kernels of one program, where there are enough of them to run as one, and what forbids it."""
    alike: dict[tuple[Hashable, str], list[int]] = {}
    for k, node in enumerate(plan.nodes):
        if isinstance(node, lowered.KernelNode) and node.covers and not node.instances:
            if all(analysis.nodes[m].name in ELEMENTWISE for m in node.covers):
                reason = _forbids(analysis, node.covers) if fuse else "fusion is off (MLXLITE_FUSE=0)"
                alike.setdefault((horizontal.signature(analysis, node.covers), reason), []).append(k)
    enough = [(reason, nodes) for (_, reason), nodes in alike.items() if len(nodes) >= horizontal.MIN_ALIKE]
    return tuple(Apart(tuple(nodes), reason) for reason, nodes in enough)


def _forbids(analysis: Analysis, members: Sequence[int]) -> str:
    inside = set(members)
    if any(r not in inside for m in members for r in analysis.readers(m)):
        return "other kernels read what they write"
    return horizontal.obstacle(analysis, members) or "other kernels wait for them, to overwrite what they read"


class _Reasons:
    def __init__(self, analysis: Analysis, plan: lowered.Plan, fuse: bool) -> None:
        self.analysis, self.nodes, self.fuse = analysis, analysis.nodes, fuse
        self.plan = plan
        self.node_of = {i: k for k, node in enumerate(plan.nodes) for i in node.covers if self.nodes[i].role == "op"}
        self.computing: dict[int, set[int]] = {}  # every node that computes an op: several may do so again
        for k, node in enumerate(plan.nodes):
            for i in node.covers:
                self.computing.setdefault(i, set()).add(k)
        self.levels = self._levels()

    def all(self) -> Iterator[Found]:
        seen = set()
        for c, consumer in enumerate(self.nodes):
            if c not in self.node_of:
                continue
            for j in dict.fromkeys(consumer.inputs):
                p, views = self._behind_views(j)
                if p not in self.node_of or self.computing[c] <= self.computing[p]:
                    continue
                if not (self._elementwise(p) or self._elementwise(c)) or (p, c) in seen:
                    continue
                seen.add((p, c))
                yield Found(p, self.node_of[p], c, self.node_of[c], self._reason(p, c, views))

    def _elementwise(self, i: int) -> bool:
        return self.nodes[i].name in ELEMENTWISE

    def _behind_views(self, i: int) -> tuple[int, list[str]]:
        views = []
        while self.nodes[i].role == "op" and self.nodes[i].name in VIEWS:
            views.append(self.nodes[i].name)
            i = self.nodes[i].inputs[0]
        return i, views

    def _reason(self, p: int, c: int, views: list[str]) -> str:
        for i in (p, c):
            if not self._elementwise(i):
                return f"kernel boundary: {self.nodes[i].name} is no elementwise op"
        if not self.fuse:
            return "fusion is off (MLXLITE_FUSE=0)"
        if views:
            return f"a view between them ({', '.join(reversed(views))}): elements are read in another order"
        first, second = self.analysis.dims[p], self.analysis.dims[c]
        if first != second:
            shapes = [tuple(self.nodes[i].shape) for i in (p, c)]
            if shapes[0] == shapes[1]:
                reason = f"dims that follow from different sizes, though both are {shapes[0]} in this call"
            else:
                reason = f"different dims: {shapes[0]} and {shapes[1]}"
            return f"{reason}; {self._not_repeated(p)}"
        if self.levels[p] != self.levels[c]:
            other = self._boundary_below(c, self.levels[p])
            return f"kernel boundary: {self.nodes[c].name} waits for {other} too; {self._not_repeated(p)}"
        members = [self._members(i) for i in (p, c)]
        if sum(map(len, members)) > MAX_GROUP_OPS:
            return f"op limit: {len(members[0])} and {len(members[1])} ops, a kernel has at most {MAX_GROUP_OPS}"
        inside = members[0] | members[1]
        operands = {k for m in inside for k in self.nodes[m].inputs if k not in inside}
        operands = {k for k in operands if self.nodes[k].role != "scalar"}
        if len(operands) > MAX_GROUP_OPERANDS:
            return f"operand limit: {len(operands)} arrays, a kernel reads at most {MAX_GROUP_OPERANDS}"
        return "one kernel of both would wait for itself"

    def _not_repeated(self, p: int) -> str:
        """Why the ops of p's kernel are not computed again where they are read, as those of small groups are."""
        members = self._members(p)
        held = next((m for m in sorted(members) if self.nodes[m].is_output), None)
        if held is not None:
            return f"{self.nodes[held].name} is held, so it is written once in its own dims"
        other = next((m for m in sorted(members) if not self._elementwise(m)), None)
        if other is not None:
            return f"its kernel computes {self.nodes[other].name} too"
        if any(self.nodes[m].name == "arange" for m in members):
            return "arange counts in its own dims"
        if len(members) > MAX_REPEATED_OPS:
            return f"{len(members)} ops are too many to compute again (at most {MAX_REPEATED_OPS})"
        readers = {self.node_of.get(c) for m in members for c in self.analysis.consumers[m] if c not in members}
        if len(readers) > 1:
            return "other kernels read it too, and not all of them can compute it again at no more cost"
        return "one kernel of both would be over a limit, or wait for itself"

    def _members(self, i: int) -> set[int]:
        node = self.plan.nodes[self.node_of[i]]
        instances = node.instances if isinstance(node, lowered.KernelNode) else []
        covers = next((members for members in instances if i in members), node.covers)
        return {m for m in covers if self.nodes[m].role == "op"}

    def _levels(self) -> list[int]:
        """Kernel boundaries on the longest path to each tape node."""
        levels: list[int] = []
        for i, node in enumerate(self.nodes):
            level = 0
            for j in node.inputs:
                source, views = self._behind_views(j)
                made = source in self.node_of
                together = self._elementwise(source) and self._elementwise(i) and not views
                level = max(level, levels[source] + int(made and not together))
            levels.append(level)
        return levels

    def _boundary_below(self, c: int, level: int) -> str:
        """The op that raises the level of `c` above that of its neighbour."""
        stack, seen = [c], set()
        while stack:
            i = stack.pop()
            for j in self.nodes[i].inputs:
                source, views = self._behind_views(j)
                if source in seen or source not in self.node_of:
                    continue
                seen.add(source)
                if not (self._elementwise(source) and not views):
                    if self.levels[source] + 1 > level:
                        return f"{self.nodes[source].name} (node {self.node_of[source]})"
                else:
                    stack.append(source)
        return "another kernel"
