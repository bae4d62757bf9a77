"""A plan as data: buffers, nodes, edges and outputs, with symbolic integers. `assemble` hands it to the runtime.

Every node says which tape nodes it computes and from which memory, so that a plan can be executed by other means than
a GPU, and compared.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..kernels.from_memory import from_memory, writer_for
from ..kernels.kernel import KernelSource
from ..kernels.ops import ITEMSIZE
from .sym import IntLike, Registers, Sym, SymTable

Dims = tuple[Sym, ...]
_log = logging.getLogger("mlxlite.plan")

# Whether a kernel may start while the one before it runs, if that is the only one it waits for.
PROGRAMMATIC = os.environ.get("MLXLITE_PROGRAMMATIC_LAUNCH", "1") != "0"
# Whether kernels whose arguments change on every launch may read them from memory, which one kernel writes.
ARGUMENTS_IN_MEMORY = os.environ.get("MLXLITE_ARGUMENTS_IN_MEMORY", "1") != "0"


@dataclass(eq=False)
class Buffer:
    """A block of memory. An "arena" buffer lives for one launch and shares its slot with others over time; a "kept" one
    begins with zeros and lives as long as the plan."""

    kind: Literal["leaf", "arena", "output", "kept"]
    nbytes: Sym
    leaf: int = -1
    slot: int = -1  # of the arena


@dataclass(frozen=True, eq=False)
class Slot:
    """Memory of `nbytes` for "arena" buffers: in the arena, or in that of an output, where it fits there, which is
    written when they are done with."""

    nbytes: Sym
    output: Buffer | None = None


@dataclass(frozen=True, eq=False)
class View:
    """Elements in memory: `offset` and `strides` in elements."""

    buffer: Buffer
    dtype: str
    offset: Sym
    dims: Dims
    strides: Dims

    @property
    def itemsize(self) -> int:
        return ITEMSIZE[self.dtype]

    def same_place(self, other: View) -> bool:
        """Whether both see the same elements in the same order."""
        return (
            self.buffer is other.buffer
            and self.dtype == other.dtype
            and self.offset == other.offset
            and self.dims == other.dims
            and self.strides == other.strides
        )


@dataclass(eq=False)
class Node:
    """What all nodes have.

    Attributes:
        label: names the ops, for errors and logs.
        covers: tape nodes that this one computes, in order.
        inputs: tape index -> memory that it is read from.
        outputs: tape index -> memory that it is written to; for `copy_of` the tape index is the one that is copied.
        reads, writes: all buffers touched.
    """

    label: str
    covers: tuple[int, ...] = ()
    inputs: dict[int, View] = field(default_factory=dict)
    outputs: dict[int, View] = field(default_factory=dict)
    copies: list[tuple[View, View]] = field(default_factory=list)
    reads: list[Buffer] = field(default_factory=list)
    writes: list[Buffer] = field(default_factory=list)


@dataclass(eq=False)
class KernelNode(Node):
    """A kernel; `arguments` are ("ptr", buffer, byte offset), ("i64", Sym), (f32 | f64 | s64 | c64, scalar slot), or
    ("table", [those]), which is one parameter. `instances` are the tape nodes of each row of a table, if there is one.
    """

    source: KernelSource | None = None
    grid: tuple[IntLike, IntLike, IntLike] = (1, 1, 1)
    shared: IntLike = 0
    arguments: list[tuple[Any, ...]] = field(default_factory=list)
    instances: list[tuple[int, ...]] = field(default_factory=list)


@dataclass(eq=False)
class MatmulNode(Node):
    """A product by cuBLASLt: `places` are a, b, d and maybe c; `sizes` its integers by name; `options` the rest."""

    places: dict[str, View] = field(default_factory=dict)
    sizes: dict[str, IntLike] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class LibraryNode(Node):
    """A graph made by a library: `callback(sizes, scalars, pointers)` returns the address of a CUgraph."""

    callback: Callable[[list[int], list[Any], list[int]], int] | None = None
    places: list[View] = field(default_factory=list)
    integers: list[IntLike] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Plan:
    """All of it. `outputs` has a view for each of the tape's outputs; `slots` is by number; `table` has the ranges of
    sizes that it is made for."""

    table: SymTable
    n_sizes: int
    n_scalars: int
    nodes: list[Node]
    edges: list[tuple[int, int]]
    outputs: list[View]
    slots: list[Slot]


FunctionOf = Callable[[list[KernelSource]], dict[str, Any]]


def assemble(
    plan: Plan, runtime: Any, function_of: FunctionOf, are_compiled: Callable[[list[KernelSource]], bool] | None = None
) -> Any:
    """The runtime's plan.

    Args:
        plan: the plan.
        runtime: the module `backend_cuda._runtime`.
        function_of: compiles kernels and returns their functions by name.
        are_compiled: whether it has nothing to compile, which it otherwise does in the meantime; if given, kernels that
            read their arguments from memory are waited for by nobody.
    """
    registers = Registers(plan.table, plan.n_sizes)
    reg = registers.register
    buffers: list[tuple[Any, ...]] = []
    numbers: dict[Any, int] = {}

    def number(buffer: Buffer) -> int:
        key = ("slot", buffer.slot) if buffer.kind == "arena" else id(buffer)
        if key not in numbers:
            numbers[key] = len(buffers)
            match buffer.kind:
                case "leaf":
                    buffers.append(("leaf", buffer.leaf))
                case "arena":
                    slot = plan.slots[buffer.slot]
                    buffers.append(("arena", reg(slot.nbytes)))
                    if slot.output is not None:
                        buffers[numbers[key]] += (number(slot.output),)
                case "output" | "kept":
                    buffers.append((buffer.kind, reg(buffer.nbytes)))
        return numbers[key]

    def place(view: View) -> tuple[int, int]:
        return number(view.buffer), reg(view.offset * view.itemsize)

    def argument(a: tuple[Any, ...]) -> tuple[Any, ...]:
        match a[0]:
            case "ptr":
                return "ptr", number(a[1]), reg(a[2])
            case "i64":
                return "i64", reg(a[1])
            case "table":
                return "table", [argument(word) for word in a[1]]
        return a

    sources = {n.source.name: n.source for n in plan.nodes if isinstance(n, KernelNode) and n.source is not None}
    functions = function_of(list(sources.values()))
    nodes: list[tuple[Any, ...]] = []
    for node in plan.nodes:
        if isinstance(node, KernelNode):
            assert node.source is not None
            arguments = [argument(a) for a in node.arguments]
            grid = tuple(reg(g) for g in node.grid)
            function = functions[node.source.name]
            block = node.source.launch.block
            flags = {"pdl": PROGRAMMATIC and "wait_for_producers();" in node.source.source}
            nodes.append(("kernel", function, grid, block, reg(node.shared), arguments, flags, node.label))
        elif isinstance(node, MatmulNode):
            spec: dict[str, Any] = {name: place(view) for name, view in node.places.items()}
            spec.update({name: reg(value) for name, value in node.sizes.items()})
            spec.update(node.options)
            nodes.append(("matmul", spec, node.label))
        else:
            assert isinstance(node, LibraryNode)
            places = [place(view) for view in node.places]
            integers = [reg(i) for i in node.integers]
            nodes.append(("library", node.callback, places, integers, node.slots, node.label))
    outputs = [(*place(view), [reg(s) for s in view.strides]) for view in plan.outputs]
    by_node = [node.source if isinstance(node, KernelNode) else None for node in plan.nodes]
    promote = _promotion(by_node, function_of, are_compiled) if ARGUMENTS_IN_MEMORY else None
    return runtime.Plan(plan.n_sizes, plan.n_scalars, registers.program, buffers, nodes, plan.edges, outputs, promote)


def _promotion(
    sources: list[KernelSource | None],
    function_of: FunctionOf,
    are_compiled: Callable[[list[KernelSource]], bool] | None,
) -> Callable[[list[int], int], Any]:
    """What the runtime calls when it wants the arguments of some nodes in memory: see `_runtime.Plan`."""

    def promote(nodes: list[int], n_words: int) -> Any:
        start = time.perf_counter()
        wanted = [source for source in (sources[i] for i in nodes) if source is not None]
        readers = {source.name: from_memory(source) for source in wanted}
        writer, words = writer_for(n_words)
        if are_compiled is not None and not are_compiled([*readers.values(), writer]):
            return None
        functions = function_of([*readers.values(), writer])
        _log.info(
            "the arguments of %d nodes (%d words) go to memory: %d kernels compiled or found in %.1f ms",
            len(nodes),
            n_words,
            len(readers) + 1,
            1e3 * (time.perf_counter() - start),
        )
        launch = writer.launch
        return (
            [functions[readers[source.name].name] for source in wanted],
            (functions[writer.name], words, launch.grid[0], launch.block[0]),
        )

    return promote


def row_major(table: SymTable, dims: Sequence[Sym]) -> Dims:
    """The strides of a contiguous array."""
    strides = []
    total = table.lift(1)
    for d in reversed(dims):
        strides.append(total)
        total = total * d
    return tuple(reversed(strides))
