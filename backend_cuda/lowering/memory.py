"""Edges and the arena: what must wait for what, and which buffers share memory over time.

Both follow from one rule on slots: a node waits for the last writers of everything it touches, and for the readers
since then of everything it writes. A slot is given to another buffer when its last user is placed; the rule then orders
the new owner's writer behind the old one's readers.
"""

from __future__ import annotations

from .plan import Buffer, Node
from .sym import Sym, SymTable


def assign_slots(nodes: list[Node], kept: set[int], table: SymTable) -> list[Sym]:
    """Give every arena buffer a slot; returns the slots' sizes in bytes.

    Args:
        nodes: in the order in which they were emitted.
        kept: ids of buffers that outlive the plan's nodes (none of the arena's usually do).
        table: makes maxima.
    """
    last_use: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for buffer in (*node.reads, *node.writes):
            last_use[id(buffer)] = i
    members: list[list[Sym]] = []
    example: list[int] = []
    free: list[int] = []
    leaving: dict[int, list[Buffer]] = {}
    placed: set[int] = set()
    for i, node in enumerate(nodes):
        for buffer in (*node.writes, *node.reads):
            if buffer.kind != "arena" or id(buffer) in placed:
                continue
            placed.add(id(buffer))
            need = table.value(buffer.nbytes)
            slot = _best_fit(free, example, members, need, buffer.nbytes)
            if slot < 0:
                slot = len(members)
                members.append([])
                example.append(0)
            else:
                free.remove(slot)
            buffer.slot = slot
            if buffer.nbytes not in members[slot]:
                members[slot].append(buffer.nbytes)
            example[slot] = max(example[slot], need)
            if id(buffer) not in kept:
                leaving.setdefault(last_use[id(buffer)], []).append(buffer)
        for buffer in leaving.pop(i, ()):
            free.append(buffer.slot)
    sizes = []
    for sizes_of_slot in members:
        total = sizes_of_slot[0]
        for other in sizes_of_slot[1:]:
            total = table.maximum(total, other)
        sizes.append(total)
    return sizes


def _best_fit(free: list[int], example: list[int], members: list[list[Sym]], need: int, size: Sym) -> int:
    """A free slot: one of just this size, else the smallest that is large enough, else the largest; else -1."""
    for slot in free:
        if size in members[slot]:
            return slot
    enough = [s for s in free if example[s] >= need]
    if enough:
        return min(enough, key=lambda s: example[s])
    return max(free, key=lambda s: example[s]) if free else -1


def edges_of(nodes: list[Node]) -> list[tuple[int, int]]:
    """The edges (before, after), without those that others imply."""
    writer: dict[object, int] = {}
    readers: dict[object, list[int]] = {}
    ancestors: list[int] = []  # as bits
    edges: list[tuple[int, int]] = []
    for i, node in enumerate(nodes):
        needed: set[int] = set()
        for buffer in node.reads:
            key = _memory(buffer)
            if key in writer:
                needed.add(writer[key])
        for buffer in node.writes:
            key = _memory(buffer)
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
            writer[_memory(buffer)] = i
            readers[_memory(buffer)] = []
        for buffer in node.reads:
            readers.setdefault(_memory(buffer), []).append(i)
    return edges


def _memory(buffer: Buffer) -> object:
    return ("slot", buffer.slot) if buffer.kind == "arena" else id(buffer)
