"""A plan as plain data, whatever backend made it: what `mx.explain` shows and `mx.profile` measures against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Machine:
    """What floors are computed from: the bytes and operations that a device can do in a second at most."""

    name: str
    bandwidth: float | None  # bytes a second to and from memory
    operations: dict[str, float] = field(default_factory=dict)  # a second, by the dtype of a product
    assumed: bool = False  # there is no such device here

    def floor(self, nbytes: int, operations: int = 0, dtype: str = "") -> tuple[float | None, str]:
        """The least seconds for this work, and which of "memory" and "operations" sets them."""
        moving = nbytes / self.bandwidth if self.bandwidth else None
        rate = self.operations.get(dtype)
        computing = operations / rate if operations and rate else None
        if computing is not None and (moving is None or computing > moving):
            return computing, "operations"
        return moving, "memory"


@dataclass(frozen=True)
class Op:
    """An operation as it was recorded; `index` is its place on the tape."""

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"#{self.index} {self.name} {array_text(self.dtype, self.shape)}"


@dataclass(frozen=True)
class Access:
    """An array that a node reads or writes; `why` says who needs what is written."""

    buffer: str
    nbytes: int
    dtype: str = ""
    shape: tuple[int, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Node:
    """One step of a plan.

    Attributes:
        kind: "kernel", "matmul", "library", "numpy", or "view" for a step that moves nothing.
        label: the backend's name for it, which errors carry.
        ops: what it computes; empty for a copy, or a part of an op that another node finishes.
        operations: multiplications and additions of its products.
        floor: the least seconds it can take on this machine; None if that is not known.
        limit: what sets the floor, "memory" or "operations".
        after: nodes that must be done before.
        detail: how it is run.
        instances: how many times it computes the same, over arrays of other sizes; `ops` has one after the other.
    """

    index: int
    kind: str
    label: str
    ops: tuple[Op, ...]
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    operations: int
    floor: float | None
    limit: str
    after: tuple[int, ...] = ()
    detail: str = ""
    instances: int = 1

    @property
    def bytes_read(self) -> int:
        return sum(a.nbytes for a in self.reads)

    @property
    def bytes_written(self) -> int:
        return sum(a.nbytes for a in self.writes)


@dataclass(frozen=True)
class Buffer:
    """Memory of a plan. `kind`: leaf, donated (a leaf that is overwritten), arena, output, kept, value."""

    name: str
    kind: str
    nbytes: int
    content: str


@dataclass(frozen=True)
class Refusal:
    """Why two neighbours are not one kernel, when one of them is elementwise."""

    producer: Op
    producer_node: int
    consumer: Op
    consumer_node: int
    reason: str


@dataclass(frozen=True)
class Apart:
    """Why nodes that compute the same, over different arrays, are not one kernel."""

    nodes: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Plan:
    """What evaluating runs on one device."""

    device: str
    machine: Machine
    nodes: tuple[Node, ...]
    buffers: tuple[Buffer, ...]
    views: tuple[Op, ...] = ()  # ops that no node computes: they only say how memory is read
    refusals: tuple[Refusal, ...] = ()
    apart: tuple[Apart, ...] = ()
    arena_bytes: int = 0
    in_cache: bool = False

    @property
    def floor(self) -> float | None:
        """The sum of the nodes' floors; None if one is not known."""
        floors = [n.floor for n in self.nodes]
        return None if None in floors else sum(f for f in floors if f is not None)

    @property
    def n_ops(self) -> int:
        """Recorded ops, views included."""
        return len({op.index for n in self.nodes for op in n.ops}) + len(self.views)

    def sources(self) -> list[tuple[int | str, int, str]]:
        """Data flow: (node or buffer name, node that reads it, buffer)."""
        writers: dict[str, list[int]] = {}
        edges: dict[tuple[int | str, int, str], None] = {}
        for node in self.nodes:
            for read in node.reads:
                for origin in writers.get(read.buffer, [read.buffer]):
                    if origin != node.index:
                        edges[origin, node.index, read.buffer] = None
            written = {w.buffer for w in node.writes}
            read_too = {r.buffer for r in node.reads}
            for name in written:
                # Who fills a buffer in parts is one of several; who overwrites what nobody reads later starts anew.
                before = writers.get(name, [])
                keep = before if name not in read_too and any(self._shares(name, b, node.index) for b in before) else []
                writers[name] = [*keep, node.index]
        return list(edges)

    def _shares(self, buffer: str, first: int, second: int) -> bool:
        """Whether nobody between two writers of a buffer reads it: then they fill parts of one array."""
        return not any(r.buffer == buffer for n in self.nodes[first + 1 : second] for r in n.reads)


@dataclass(frozen=True)
class NodeTime:
    """How long a node took in one evaluation. Seconds; `start` is on the clock of `time.perf_counter`.

    `nbytes` and `ops` are given by backends that know them when they run; else -1 and "", and the plan says.
    """

    label: str
    start: float
    seconds: float
    nbytes: int = -1
    ops: str = ""


@dataclass(frozen=True)
class Run:
    """What a backend measured of one evaluation; seconds.

    Attributes:
        nodes: times of the plan's nodes, in order; empty if nodes were not measured.
        bind, launch: the host's work to make the plan ready, and to start it.
        device: (start, length) of the whole on a device that runs by itself; None if nothing ran there.
    """

    nodes: tuple[NodeTime, ...] = ()
    bind: float = 0.0
    launch: float = 0.0
    device: tuple[float, float] | None = None


def array_text(dtype: str, shape: Sequence[int]) -> str:
    """A dtype and a shape, such as `float32 (3, 4)`."""
    return f"{dtype} ({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def bytes_text(n: float) -> str:
    """Bytes for people.

    >>> bytes_text(1536)
    '1.54 kB'
    """
    if n < 1000:
        return f"{n:.0f} B"
    for unit in ("kB", "MB", "GB"):
        n /= 1000
        if n < 999.5:
            return f"{n:.3g} {unit}"
    return f"{n / 1000:.3g} TB"


def quantity_text(n: float) -> str:
    """A large number for people.

    >>> quantity_text(2097152)
    '2.1 million'
    """
    for name, scale in (("thousand", 1e3), ("million", 1e6), ("billion", 1e9)):
        if n < 999.5 * scale:
            return f"{n:.0f}" if n < 1000 else f"{n / scale:.3g} {name}"
    return f"{n / 1e12:.3g} trillion"


def time_text(seconds: float | None) -> str:
    """Seconds for people; "-" for None.

    >>> time_text(0.00123)
    '1.23 ms'
    """
    if seconds is None:
        return "-"
    if seconds == 0:
        return "0 us"
    if seconds < 1e-9:
        return "<1 ns"
    for unit, scale in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 999.5:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def fusion_text(names: Sequence[str], limit: int = 6) -> str:
    """Names joined by +, runs of one name counted.

    >>> fusion_text(["add", "add", "exp"])
    'add x2+exp'
    """
    runs: list[tuple[str, int]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    shown = [name if n == 1 else f"{name} x{n}" for name, n in runs[:limit]]
    rest = sum(n for _, n in runs[limit:])
    return "+".join([*shown, f"{rest} more"] if rest else shown)
