"""Edges and the arena: what must wait for what, and which buffers share memory over time.

Both follow from one rule on memory: a node waits for the last writers of everything it touches, and for the readers
since then of everything it writes. A slot is given to another buffer when its last user is placed; the rule then orders
the new owner's writer behind the old one's readers. A slot of a short plan may also lie in the memory of an output that
is yet to be written: so a chain of products needs two blocks, not three, and more of it stays in the L2 cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .plan import Buffer, Node, Slot
from .sym import Sym, SymTable

# An output's address changes more often than the arena's, and with it the arguments of all that use a slot in it.
# Chains of six large products gained by it; a prompt of 112 products gained nothing, and took 12 to 15 ms instead of 8
# where addresses were new. So slots lie in outputs if they are large and the plan is short.
LEAST_IN_OUTPUT = 1 << 20  # bytes
MOST_NODES = 32  # of a plan whose slots may lie in outputs


@dataclass(eq=False)
class _Place:
    """A slot in the making: in the arena, or in an output's memory, which is of use before the output is written."""

    output: Buffer | None = None
    buffers: list[Buffer] = field(default_factory=list)  # the latest first
    sizes: list[Sym] = field(default_factory=list)  # of the output, too
    example: int = 0  # the largest of them, for the example's sizes

    def add(self, buffer: Buffer, example: int) -> None:
        if buffer is not self.output:
            self.buffers.append(buffer)
        if buffer.nbytes not in self.sizes:
            self.sizes.append(buffer.nbytes)
        self.example = max(self.example, example)

    def slot(self, table: SymTable) -> Slot:
        total = self.buffers[0].nbytes
        for size in dict.fromkeys(b.nbytes for b in self.buffers[1:]):
            total = table.maximum(total, size)
        return Slot(total, self.output)


def assign_slots(nodes: list[Node], table: SymTable) -> list[Slot]:
    """Give every arena buffer a slot, and return the slots.

    From the last node to the first, so that outputs, which are needed to the end, are met before what comes before
    them.

    Args:
        nodes: in the order in which they were emitted.
        table: makes maxima.
    """
    first_use: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for buffer in (*node.reads, *node.writes):
            first_use.setdefault(id(buffer), i)
    kinds = ("arena", "output") if len(nodes) <= MOST_NODES else ("arena",)
    used: list[_Place] = []
    free: list[_Place] = []
    ending: dict[int, list[_Place]] = {}  # by the node before which a place is free
    placed: set[int] = set()
    for i in reversed(range(len(nodes))):
        for buffer in (*nodes[i].reads, *nodes[i].writes):
            if id(buffer) in placed or buffer.kind not in kinds:
                continue
            placed.add(id(buffer))
            need = table.value(buffer.nbytes)
            place = _best_fit(free, need, buffer.nbytes) if buffer.kind == "arena" else _Place(buffer)
            if place is None:
                place = _Place()
            else:
                free = [p for p in free if p is not place]
            place.add(buffer, need)
            if len(place.buffers) == 1 and buffer.kind == "arena":
                used.append(place)
            ending.setdefault(first_use[id(buffer)], []).append(place)
        free += ending.pop(i, ())
    used.sort(key=lambda p: first_use[id(p.buffers[-1])])
    for number, place in enumerate(used):
        for buffer in place.buffers:
            buffer.slot = number
    return [place.slot(table) for place in used]


def _best_fit(free: list[_Place], need: int, size: Sym) -> _Place | None:
    """A free place: one of just this size, else the smallest that is large enough, else the arena's largest.

    The arena's come first, and outputs grow for nobody.
    """
    arena = [p for p in free if p.output is None]
    outputs = [p for p in free if p.output is not None and need >= LEAST_IN_OUTPUT]
    for places in (arena, outputs):
        for place in places:
            if size in place.sizes:
                return place
    for places in (arena, outputs):
        enough = [p for p in places if p.example >= need]
        if enough:
            return min(enough, key=lambda p: p.example)
    return max(arena, key=lambda p: p.example, default=None)


def edges_of(nodes: list[Node], slots: Sequence[Slot]) -> list[tuple[int, int]]:
    """The edges (before, after), without those that others imply."""
    writer: dict[object, int] = {}
    readers: dict[object, list[int]] = {}
    ancestors: list[int] = []  # as bits
    edges: list[tuple[int, int]] = []
    for i, node in enumerate(nodes):
        needed: set[int] = set()
        for buffer in node.reads:
            key = _memory(buffer, slots)
            if key in writer:
                needed.add(writer[key])
        for buffer in node.writes:
            key = _memory(buffer, slots)
            if key in writer:
                needed.add(writer[key])
            needed.update(readers.get(key, ()))
        needed.discard(i)
        seen = 0
        for before in sorted(needed, reverse=True):
            if not seen >> before & 1:
                edges.append((before, i))
                seen |= ancestors[before] | 1 << before
        ancestors.append(seen)
        for buffer in node.writes:
            writer[_memory(buffer, slots)] = i
            readers[_memory(buffer, slots)] = []
        for buffer in node.reads:
            readers.setdefault(_memory(buffer, slots), []).append(i)
    return edges


def _memory(buffer: Buffer, slots: Sequence[Slot]) -> object:
    """What stands for the memory of a buffer: an output that has a slot in it is one with the slot."""
    if buffer.kind != "arena":
        return id(buffer)
    output = slots[buffer.slot].output
    return ("slot", buffer.slot) if output is None else id(output)
