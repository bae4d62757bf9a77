"""A lowered plan as plain data: bytes, floors, buffers, and why neighbours are not one kernel."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlxlite.observe.description import Access, Apart, Buffer, Machine, Node, Op, Plan, array_text

from .lowering import Builder
from .lowering import plan as lowered
from .lowering.analysis import VIEWS
from .lowering.sym import IntLike
from .refusals import apart, refusals

# Ops that touch a part of operand 0, as large as the operand at this position.
_UPDATES = {"slice_update": 1, "scatter": 1, "put_along_axis": 2}
# Ops that read as many elements of operand 0 as they write.
_GATHERS = frozenset({"gather", "take_along_axis"})


def describe(tape: Any, machine: Machine, fuse: bool | None = None) -> Callable[[Sequence[int]], Plan]:
    """Lower a tape; returns what describes the plan for the sizes of a call."""
    fuse = os.environ.get("MLXLITE_FUSE", "1") != "0" if fuse is None else fuse
    builder = Builder(tape, fuse)
    plan = builder.build()
    reasons = refusals(builder.analysis, plan, fuse)
    separate = apart(builder.analysis, plan, fuse)

    def at(sizes: Sequence[int]) -> Plan:
        return _Describer(tape, plan, machine, sizes).plan(reasons, separate)

    return at


def _words(param: Any, argument: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(kind, argument) of a kernel parameter, of each used word of a table."""
    if param[0] != "table":
        yield param[0], argument
        return
    _, rows, columns = param
    for k, word in enumerate(argument[1]):
        if word[0] == "ptr":  # in a row that is not used, it is a number
            yield columns[k // rows][0], word


class _Describer:
    """One plan with the sizes of one call."""

    def __init__(self, tape: Any, plan: lowered.Plan, machine: Machine, sizes: Sequence[int]) -> None:
        self.tape, self.low, self.machine, self.sizes = tape, plan, machine, list(sizes)
        self.names: dict[int, str] = {}
        self.readers: dict[int, list[int]] = {}  # tape index -> nodes
        for k, node in enumerate(plan.nodes):
            for i in self._read_indices(node):
                for j in dict.fromkeys((i, self._root(i))):
                    self.readers.setdefault(j, []).append(k)

    def value(self, size: IntLike) -> int:
        return self.low.table.value(size, self.sizes)

    def shape(self, i: int) -> tuple[int, ...]:
        node = self.tape.nodes[i]
        return tuple(self.sizes[node.size_slot : node.size_slot + len(node.shape)])

    def _root(self, i: int) -> int:
        """The tape node whose memory a view looks at."""
        while self.tape.nodes[i].role == "op" and self.tape.nodes[i].name in VIEWS:
            i = self.tape.nodes[i].inputs[0]
        return i

    def op(self, i: int) -> Op:
        node = self.tape.nodes[i]
        return Op(i, node.name, node.dtype.name, self.shape(i))

    def is_op(self, i: int) -> bool:
        return self.tape.nodes[i].role == "op"

    def plan(self, reasons: Any, separate: tuple[Apart, ...]) -> Plan:
        before: dict[int, list[int]] = {}
        for first, second in self.low.edges:
            before.setdefault(second, []).append(first)
        self._name_buffers()
        nodes = tuple(self.node(k, tuple(sorted(before.get(k, ())))) for k in range(len(self.low.nodes)))
        covered = {i for node in self.low.nodes for i in node.covers}
        views = tuple(
            self.op(i) for i, n in enumerate(self.tape.nodes) if n.role == "op" and n.name in VIEWS and i not in covered
        )
        return Plan(
            "gpu",
            self.machine,
            nodes,
            tuple(self.buffers()),
            views,
            tuple(r.described(self.op) for r in reasons),
            separate,
            sum((self.value(s.nbytes) + 255) // 256 * 256 for s in self.low.slots if self.output_of(s) is None),
            self.tape.in_cache,
        )

    # ---- buffers

    def _name_buffers(self) -> None:
        for k, view in enumerate(self.low.outputs):
            if view.buffer.kind != "leaf":
                self.names.setdefault(id(view.buffer), f"out {k}")
        kept = 0
        for node in self.low.nodes:
            for buffer in (*node.reads, *node.writes):
                if id(buffer) not in self.names and buffer.kind == "kept":
                    self.names[id(buffer)] = f"kept {kept}"
                    kept += 1

    def name(self, buffer: lowered.Buffer) -> str:
        if buffer.kind == "leaf":
            return f"leaf {buffer.leaf}"
        if buffer.kind == "arena":
            return f"slot {buffer.slot}"
        return self.names[id(buffer)]

    def buffers(self) -> Iterator[Buffer]:
        overwritten = {b.leaf for node in self.low.nodes for b in node.writes if b.kind == "leaf"}
        for k, i in enumerate(self.tape.leaves):
            node = self.tape.nodes[i]
            layout = "" if node.strides is None else f", strides {self._leaf_strides(i)}"
            kind = "donated" if k in overwritten else "leaf"
            nbytes = math.prod(self.shape(i)) * node.dtype.size
            yield Buffer(f"leaf {k}", kind, nbytes, array_text(node.dtype.name, self.shape(i)) + layout)
        seen: set[int] = set()
        for k, view in enumerate(self.low.outputs):
            text = array_text(view.dtype, [self.value(d) for d in view.dims])
            if view.buffer.kind == "leaf" or id(view.buffer) in seen:
                yield Buffer(f"out {k}", "output", 0, f"{text} in {self.name(view.buffer)}")
            else:
                seen.add(id(view.buffer))
                yield Buffer(f"out {k}", "output", self.value(view.buffer.nbytes), text)
        for number, slot in enumerate(self.low.slots):
            writers = [
                k
                for k, node in enumerate(self.low.nodes)
                if any(b.kind == "arena" and b.slot == number for b in node.writes)
            ]
            text = "written by " + ", ".join(f"node {k}" for k in writers)
            output = self.output_of(slot)
            if output is None:
                yield Buffer(f"slot {number}", "arena", self.value(slot.nbytes), text)
            else:
                yield Buffer(f"slot {number}", "arena", 0, f"in {self.name(output)}, {text}")
        kept = {id(b): b for n in self.low.nodes for b in (*n.reads, *n.writes) if b.kind == "kept"}
        for key, buffer in kept.items():
            yield Buffer(self.names[key], "kept", self.value(buffer.nbytes), "from launch to launch")

    def output_of(self, slot: lowered.Slot) -> lowered.Buffer | None:
        """The output in whose memory a slot lies, if it fits there."""
        if slot.output is None or self.value(slot.nbytes) > self.value(slot.output.nbytes):
            return None
        return slot.output

    def _leaf_strides(self, i: int) -> tuple[int, ...]:
        node = self.tape.nodes[i]
        first = node.size_slot + len(node.shape)
        return tuple(self.sizes[first : first + len(node.shape)])

    # ---- nodes

    def node(self, k: int, after: tuple[int, ...]) -> Node:
        node = self.low.nodes[k]
        ops = tuple(self.op(i) for i in node.covers if self.is_op(i))
        reads, writes = tuple(self.reads(node)), tuple(self.writes(node))
        operations, dtype = self.operations(node)
        nbytes = sum(a.nbytes for a in (*reads, *writes))
        floor, limit = self.machine.floor(nbytes, operations, dtype)
        kind, detail = self._how(node)
        instances = len(node.instances) if isinstance(node, lowered.KernelNode) and node.instances else 1
        return Node(k, kind, node.label, ops, reads, writes, operations, floor, limit, after, detail, instances)

    def _how(self, node: lowered.Node) -> tuple[str, str]:
        if isinstance(node, lowered.KernelNode):
            assert node.source is not None
            grid = " x ".join(str(self.value(g)) for g in node.grid)
            threads = math.prod(node.source.launch.block)
            return "kernel", f"{node.source.name}, grid {grid}, {threads} threads"
        if isinstance(node, lowered.MatmulNode):
            m, n, k, batch = (self.value(node.sizes[s]) for s in ("m", "n", "k", "batch"))
            detail = f"cuBLASLt, m {m}, n {n}, k {k}" + (f", batch {batch}" if batch != 1 else "")
            return "matmul", detail + (", adds an array" if "c" in node.places else "")
        return "library", "cuDNN"

    def touched(self, view: lowered.View) -> int:
        """Bytes of the distinct elements that a view shows."""
        dims = [self.value(d) for d, s in zip(view.dims, view.strides, strict=True) if self.value(s) != 0]
        return min(math.prod(dims) * view.itemsize, self.value(view.buffer.nbytes))

    def _elements(self, view: lowered.View) -> tuple[Any, ...]:
        """Equal for views that show the same elements, broadcast or not."""
        steps = [(self.value(d), self.value(s)) for d, s in zip(view.dims, view.strides, strict=True)]
        return id(view.buffer), self.value(view.offset), tuple((d, s) for d, s in steps if d != 1 and s != 0)

    def _pointers(self, node: lowered.Node) -> tuple[list[lowered.Buffer], list[lowered.Buffer]] | None:
        """The buffers that a kernel is given to read and to write, its scratch memory left out."""
        if not isinstance(node, lowered.KernelNode) or node.source is None:
            return None
        if len(node.source.params) != len(node.arguments):
            return None
        pairs = [pair for p, a in zip(node.source.params, node.arguments, strict=True) for pair in _words(p, a)]
        return [a[1] for kind, a in pairs if kind == "ptr"], [a[1] for kind, a in pairs if kind == "out"]

    def _read_indices(self, node: lowered.Node) -> list[int]:
        """Tape nodes whose memory a node really reads."""
        pointers = self._pointers(node)
        if pointers is None:
            return list(node.inputs)
        return [i for i, view in node.inputs.items() if any(view.buffer is b for b in pointers[0])]

    def reads(self, node: lowered.Node) -> Iterator[Access]:
        name = self.tape.nodes[node.covers[-1]].name if node.covers else ""
        if name in _UPDATES and len(node.covers) == 1:
            yield from self._update_reads(node, node.covers[0], name)
            return
        known: list[lowered.View] = []
        seen = set()
        for source, _ in node.copies:
            known.append(source)
            seen.add(self._elements(source))
            yield Access(self.name(source.buffer), self.touched(source), source.dtype, self._dims(source))
        if isinstance(node, lowered.MatmulNode):
            views = [view for place, view in node.places.items() if place != "d"]
        elif isinstance(node, lowered.LibraryNode):
            views = node.places[:-1]
        else:
            views = [node.inputs[i] for i in self._read_indices(node)]
        for view in views:
            if self._elements(view) in seen:
                continue
            known.append(view)
            seen.add(self._elements(view))
            nbytes = self.touched(view)
            if name in _GATHERS and view.buffer is node.inputs[self.tape.nodes[node.covers[0]].inputs[0]].buffer:
                nbytes = min(nbytes, math.prod(self.shape(node.covers[-1])) * view.itemsize)
            yield Access(self.name(view.buffer), nbytes, view.dtype, self._dims(view))
        for buffer in dict.fromkeys((self._pointers(node) or ([], []))[0]):
            if not any(view.buffer is buffer for view in known):
                yield Access(self.name(buffer), self.value(buffer.nbytes))

    def _update_reads(self, node: lowered.Node, i: int, name: str) -> Iterator[Access]:
        tape_node = self.tape.nodes[i]
        position = _UPDATES[name]
        for j in dict.fromkeys(tape_node.inputs[1:]):
            if self.tape.nodes[j].role != "scalar" and j in node.inputs:
                view = node.inputs[j]
                yield Access(self.name(view.buffer), self.touched(view), view.dtype, self._dims(view))
        if tape_node.static[-1] != "none":  # combined with what is there
            view = node.outputs[i]
            shape = self.shape(tape_node.inputs[position])
            yield Access(self.name(view.buffer), math.prod(shape) * view.itemsize, view.dtype, shape)

    def writes(self, node: lowered.Node) -> Iterator[Access]:
        known = []
        for _, target in node.copies:
            known.append(target)
            yield Access(self.name(target.buffer), self.touched(target), target.dtype, self._dims(target), "a copy")
        for i, view in node.outputs.items():
            if any(view.buffer is k.buffer for k in known):
                continue
            known.append(view)
            shape, name = self.shape(i), self.tape.nodes[i].name
            if name in _UPDATES:
                shape = self.shape(self.tape.nodes[i].inputs[_UPDATES[name]])
            nbytes = math.prod(shape) * view.itemsize
            yield Access(self.name(view.buffer), nbytes, view.dtype, shape, self._why(i))
        if not known:
            written = (self._pointers(node) or ([], node.writes))[1]
            for buffer in dict.fromkeys(written):
                yield Access(self.name(buffer), self.value(buffer.nbytes), why="a part of an op")

    def _why(self, i: int) -> str:
        """Who needs a value in memory."""
        readers = self.readers.get(i, [])
        held = ["held"] if self.tape.nodes[i].is_output else []
        if any(n.is_output and n.name in VIEWS and self._root(j) == i for j, n in enumerate(self.tape.nodes)):
            held.append("a view of it held")
        return ", ".join(held + [f"node {k}" for k in readers])

    def _dims(self, view: lowered.View) -> tuple[int, ...]:
        return tuple(self.value(d) for d in view.dims)

    def operations(self, node: lowered.Node) -> tuple[int, str]:
        """Multiplications and additions of the products of a node, and their dtype."""
        if isinstance(node, lowered.MatmulNode):
            m, n, k, batch = (self.value(node.sizes[s]) for s in ("m", "n", "k", "batch"))
            dtype = node.options["dtype"]
            return 2 * m * n * k * batch * (4 if dtype == "complex64" else 1), dtype
        total, dtype = 0, ""
        read = set(self._read_indices(node))
        for i in node.covers:
            found = self.tape.nodes[i]
            if found.name in ("matmul", "addmm") and found.inputs[-1] in read:
                shape = self.shape(i)
                total += 2 * math.prod(shape) * self.shape(found.inputs[-2])[-1]
                total *= 4 if found.dtype.name == "complex64" else 1
                dtype = found.dtype.name
            elif found.name in ("sdpa", "sdpa_vjp"):
                # The gradient makes five such products where attention makes two.
                total += self._attention(i) * (5 if found.name == "sdpa_vjp" else 2) // 2
                dtype = found.dtype.name
        return total, dtype

    def _attention(self, i: int) -> int:
        """Two products over the pairs of queries and keys that see one another."""
        found = self.tape.nodes[i]
        batch, heads, queries, _ = self.shape(found.inputs[0])
        keys = self.shape(found.inputs[1])[2]
        pairs = queries * keys
        if found.static[0] == "causal":
            pairs = sum(min(max(keys - queries + q + 1, 0), keys) for q in range(queries))
        features = self.shape(found.inputs[0])[3] + self.shape(found.inputs[2])[3]
        return 2 * batch * heads * pairs * features
