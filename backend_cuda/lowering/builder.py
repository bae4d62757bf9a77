"""From a tape to a plan: walks the units, keeps where every value lies, and emits nodes for the families' lowerings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from ..kernels.kernel import KernelSource, Size
from ..kernels.ops import ITEMSIZE
from . import memory
from .analysis import DONATING, ELEMENTWISE, VIEWS, Analysis
from .plan import Buffer, Dims, KernelNode, Node, Plan, View, row_major
from .sym import IntLike, Sym
from .units import Unit

LOWERINGS: dict[str, Callable[[Builder, int], None]] = {}
VIEW_RULES: dict[str, Callable[[Builder, int], View]] = {}


def lowers(*names: str) -> Callable[[Callable[[Builder, int], None]], Callable[[Builder, int], None]]:
    """Declare how primitives become nodes. The function emits them, and says with `define` where the result lies."""

    def register(function: Callable[[Builder, int], None]) -> Callable[[Builder, int], None]:
        for name in names:
            if name in LOWERINGS:
                raise ValueError(f"two lowerings for {name!r}")
            LOWERINGS[name] = function
        return function

    return register


def view_rule(name: str) -> Callable[[Callable[[Builder, int], View]], Callable[[Builder, int], View]]:
    """Declare how a view's strides follow from its operand's."""

    def register(function: Callable[[Builder, int], View]) -> Callable[[Builder, int], View]:
        VIEW_RULES[name] = function
        return function

    return register


class Operand:
    """An array as a kernel sees it: a view with a stride for each of the kernel's loop dims."""

    def __init__(self, view: View, strides: Sequence[IntLike]) -> None:
        self.view = view
        self.strides = tuple(strides)


class Builder:
    """The state of one lowering. `fuse` off gives every op a kernel of its own, for comparison."""

    def __init__(self, tape: Any, fuse: bool = True) -> None:
        self.analysis = Analysis(tape)
        self.tape = tape
        self.tape_nodes = self.analysis.nodes
        self.table = self.analysis.table
        self.nodes: list[Node] = []
        self._values: dict[int, View] = {}
        self._copies: dict[tuple[int, str], View] = {}
        self._done: set[int] = set()
        self._reads: dict[int, View] = {}  # of the unit being lowered
        self.computed_inside: set[int] = set()  # nodes of that unit whose results may never be in memory
        self.repeated: set[int] = set()  # nodes that every reader computes for itself
        self._tokens: dict[str, Buffer] = {}
        self.overwrites: dict[int, int] = {}  # results that may take the place of a leaf: see `in_place`
        self._overwritten: set[int] = set()  # ids of the buffers of leaves of which that was done, or an update
        self._leaf_numbers = {i: k for k, i in enumerate(tape.leaves)}
        self._fuse = fuse

    # ---- the whole

    def build(self) -> Plan:
        """Lower every unit, then place buffers."""
        for unit in self.analysis.units(self._fuse, self._regroup):
            self.begin_reads()
            self._lower(unit)
            self._done.update(unit.members)
        outputs = [self._output(i) for i in self.tape.outputs]
        for view in outputs:
            if view.buffer.kind == "arena":
                view.buffer.kind = "output"
        slots = memory.assign_slots(self.nodes, self.table)
        edges = memory.edges_of(self.nodes, slots)
        return Plan(self.table, self.tape.n_sizes, self.tape.n_scalars, self.nodes, edges, outputs, slots)

    def _regroup(self, units: list[Unit], unit_of: dict[int, int]) -> None:
        from . import elementwise, horizontal, in_place, normalize_vjp, reduce, residual, row_product, row_program

        if self._fuse:
            elementwise.compute_where_read(self, units, unit_of)
            elementwise.fuse(self, units, unit_of)
            row_product.fuse(self, units, unit_of)
            reduce.fuse(self, units, unit_of)
            residual.fuse(self, units, unit_of)
            normalize_vjp.fuse(self, units, unit_of)
            row_program.fuse(self, units, unit_of)
            elementwise.compute_again(self, units, unit_of)
            horizontal.fuse(self, units, unit_of)
        in_place.choose(self, units, unit_of)

    def _lower(self, unit: Unit) -> None:
        from .elementwise import lower_group

        if unit.recipe is not None:
            unit.recipe.lower(self)
            return
        if unit.elementwise:
            lower_group(self, unit.members)
            return
        (i,) = unit.members
        node = self.tape_nodes[i]
        if self.analysis.is_empty(i):
            self.define(i, self.new(self.dims(i), self.dtype(i)))
            return
        function = LOWERINGS.get(node.name)
        if function is None:
            raise NotImplementedError(
                f"[{node.name}] is not implemented on the GPU for {node.dtype.name}: run it with stream=mx.cpu."
            )
        function(self, i)

    def _output(self, i: int) -> View:
        """Where output i lies when the plan is done. A part of an intermediate is copied, so as not to keep it all."""
        self._reads = {}
        view = self.value(i)
        root = self.analysis.root(i)
        partial = root != i and self.tape_nodes[root].role == "op" and view.buffer.kind == "arena"
        if partial and not self.tape_nodes[root].is_output and self._has_slice(i):
            return self.contiguous(i, always=True)
        return view

    def _has_slice(self, i: int) -> bool:
        while self.tape_nodes[i].role == "op" and self.tape_nodes[i].name in VIEWS:
            if self.tape_nodes[i].name in ("slice", "broadcast_to"):
                return True
            i = self.tape_nodes[i].inputs[0]
        return False

    # ---- values

    def dims(self, i: int) -> Dims:
        return self.analysis.dims[i]

    def dtype(self, i: int) -> str:
        return self.tape_nodes[i].dtype.name

    def example(self, i: int) -> tuple[int, ...]:
        """The shape in the call that is lowered: for choices of speed, never of meaning."""
        return tuple(self.tape_nodes[i].shape)

    def lift(self, value: IntLike) -> Sym:
        return self.table.lift(value)

    def ints(self, i: int) -> list[Sym]:
        """The integer attributes of a node, as sizes."""
        node = self.tape_nodes[i]
        first = node.size_slot + len(node.shape)
        return [self.table.size(first + k) for k in range(len(node.ints))]

    def numel(self, dims: Iterable[Sym]) -> Sym:
        return self.analysis.numel(dims)

    def value(self, i: int) -> View:
        """Where node i's elements lie; a scalar is written to memory first, a view is derived."""
        found = self._values.get(i)
        if found is None:
            found = self._values[i] = self._make(i)
        return found

    def _make(self, i: int) -> View:
        node = self.tape_nodes[i]
        if node.role == "leaf":
            return self._leaf(i)
        if node.role == "scalar":
            from .elementwise import write_scalar

            return write_scalar(self, i)
        if node.name in VIEWS:
            if self.analysis.is_empty(i):
                return self.new(self.dims(i), self.dtype(i))
            return VIEW_RULES[node.name](self, i)
        raise AssertionError(f"[{node.name}] is read before it was lowered")

    def _leaf(self, i: int) -> View:
        node = self.tape_nodes[i]
        dims = self.dims(i)
        strides = row_major(self.table, dims)
        if node.strides is not None:
            first = node.size_slot + len(dims)
            strides = tuple(
                self.lift(s) if s in (0, 1) else self.table.size(first + d) for d, s in enumerate(node.strides)
            )
        buffer = Buffer("leaf", self.numel(dims) * ITEMSIZE[self.dtype(i)], leaf=self._leaf_numbers[i])
        return View(buffer, self.dtype(i), self.lift(0), dims, strides)

    def new(self, dims: Sequence[Sym], dtype: str) -> View:
        """Contiguous memory for an intermediate or an output."""
        buffer = Buffer("arena", self.numel(dims) * ITEMSIZE[dtype])
        return View(buffer, dtype, self.lift(0), tuple(dims), row_major(self.table, dims))

    def define(self, i: int, view: View) -> View:
        """Say where the result of node i lies."""
        self._values[i] = view
        return view

    def is_defined(self, i: int) -> bool:
        """Whether it has been said where the result of node i lies."""
        return i in self._values

    def forget(self, i: int) -> None:
        """Take back where the result of node i, and views of it, were said to lie."""
        for j in (i, *self.analysis.views_of(i)):
            self._values.pop(j, None)

    def result(self, i: int) -> View:
        """New contiguous memory for the result of node i."""
        return self.define(i, self.new(self.dims(i), self.dtype(i)))

    def begin_reads(self) -> None:
        """Forget what was read so far: the next kernel is of another unit, or of another part of this one."""
        self._reads = {}

    @property
    def reads(self) -> dict[int, View]:
        """What the unit being lowered has read so far: tape index -> memory."""
        return self._reads

    def read(self, i: int) -> View:
        """Where operand i of the unit being lowered lies."""
        view = self.value(i)
        self._reads[i] = view
        return view

    def read_contiguous(self, i: int) -> View:
        """Operand i, row-major; copied if it is not."""
        view = self.contiguous(i)
        self._reads[i] = view
        return view

    def reads_as(self, i: int, view: View) -> None:
        """Say that the unit reads operand i from a copy."""
        self._reads[i] = view

    def is_contiguous(self, view: View) -> bool:
        wanted = row_major(self.table, view.dims)
        return all(d.const == 1 or s == w for d, s, w in zip(view.dims, view.strides, wanted, strict=True))

    def contiguous(self, i: int, always: bool = False) -> View:
        """Node i in row-major memory of its own or, unless `always`, where it is if it is row-major."""
        view = self.value(i)
        if not always and self.is_contiguous(view):
            return view
        return self.copied(i, "row-major", view)

    def copied(self, i: int, layout: str, view: View | None = None) -> View:
        """A row-major copy of node i, made once for each `layout` name; `view` reorders its dims."""
        key = (i, layout)
        if key not in self._copies:
            source = self.value(i) if view is None else view
            target = self.new(source.dims, source.dtype)
            self.copy(source, target)
            self._copies[key] = target
        return self._copies[key]

    def copy(self, source: View, target: View) -> None:
        """Emit a copy of equal dims."""
        from .elementwise import emit_copy

        emit_copy(self, source, target)

    def readers(self, root: int) -> list[int]:
        """The ops whose kernels read a node's memory."""
        found: list[int] = []
        stack = [root]
        while stack:
            for r in self.analysis.readers(stack.pop()):
                (stack if r in self.repeated else found).append(r)
        return found

    # ---- donation

    def updatable(self, i: int) -> View:
        """Memory with operand 0 of node i that may be overwritten: its own if nobody reads it later, else a copy."""
        source = self.tape_nodes[i].inputs[0]
        view = self.value(source)
        if self._may_overwrite(i, source, view):
            self._overwritten.add(id(view.buffer))
            self._reads[source] = view
            return view
        target = self.new(self.dims(source), self.dtype(source))
        self.copy(view, target)
        self._reads[source] = target
        return target

    def _may_overwrite(self, i: int, source: int, view: View) -> bool:
        if any(s == 0 and d.const != 1 for d, s in zip(view.dims, view.strides, strict=True)):
            return False
        root = self.analysis.root(source)
        node = self.tape_nodes[root]
        if node.is_output or (node.role == "leaf" and not node.donatable) or node.role == "scalar":
            return False
        if any(self.tape_nodes[v].is_output for v in self.analysis.views_of(root)):
            return False
        if list(self.tape_nodes[i].inputs).count(source) != 1:
            return False
        # Whoever else sees the memory, under whatever name, must be done with it.
        holders = [j for j, v in self._values.items() if v.buffer is view.buffer and j != i]
        readers = {r for j in holders for r in self.readers(self.analysis.root(j))}
        readers |= set(self.readers(root))
        others = [
            j
            for j in self.tape_nodes[i].inputs
            if j != source and self.tape_nodes[j].role != "scalar" and self.analysis.root(j) not in self.computed_inside
        ]
        if any(self.value(j).buffer is view.buffer for j in others):
            return False
        outputs = any(self.tape_nodes[v].is_output for j in holders for v in (j, *self.analysis.views_of(j)))
        return not outputs and all(r == i or r in self._done for r in readers)

    def token(self, what: str) -> Buffer:
        """A buffer that nodes write, if they share `what` and so must run one after another."""
        if what not in self._tokens:
            self._tokens[what] = Buffer("arena", self.lift(1))
        return self._tokens[what]

    def take_leaf(self, leaf: int, group: Set[int]) -> View | None:
        """The memory of a leaf for a result of an elementwise group, if nobody but the group needs what is there."""
        view = self.value(leaf)
        if not self.tape_nodes[leaf].donatable or id(view.buffer) in self._overwritten:
            return None
        if any(self.tape_nodes[v].is_output for v in self.analysis.views_of(leaf)):
            return None
        if not all(r in group or r in self._done for r in self.readers(leaf)):
            return None
        self._overwritten.add(id(view.buffer))
        return view

    # ---- emission

    def emit(self, node: Node) -> None:
        """Add a node; what the unit has read so far is what it reads, if it computes a tape node."""
        if node.covers and not node.inputs:
            node.inputs = dict(self._reads)
        buffers = {id(v.buffer): v.buffer for v in node.inputs.values()}
        node.reads = list({**{id(b): b for b in node.reads}, **buffers}.values())
        written = {id(v.buffer): v.buffer for v in node.outputs.values()}
        node.writes = list({**{id(b): b for b in node.writes}, **written}.values())
        self.nodes.append(node)

    def kernel(
        self,
        source: KernelSource,
        dims: Sequence[IntLike],
        operands: Sequence[Operand],
        outputs: Sequence[Operand],
        *,
        scalars: Sequence[int] = (),
        ints: Sequence[IntLike] = (),
        named: Mapping[str, IntLike] | None = None,
        covers: Sequence[int] = (),
        label: str = "",
        copies: Sequence[tuple[View, View]] = (),
    ) -> None:
        """Emit a kernel.

        Args:
            source: the kernel.
            dims: its loop dims.
            operands, outputs: its arrays.
            scalars: scalar slots by the kernel's scalar number.
            ints: integers by the kernel's integer number.
            named: further names in its size expressions.
            covers: the tape nodes it completes.
            label: for errors; by default the covered ops.
            copies: (source, target) for a kernel that only copies.
        """
        env: dict[str, Sym] = {f"d{k}": self.lift(d) for k, d in enumerate(dims)}
        env.update({k: self.lift(v) for k, v in (named or {}).items()})
        arguments: list[tuple[Any, ...]] = []
        extra: list[Buffer] = []
        for param in source.params:
            match param[0]:
                case "dim":
                    arguments.append(("i64", self.lift(dims[param[1]])))
                case "ptr":
                    view = operands[param[1]].view
                    arguments.append(("ptr", view.buffer, view.offset * view.itemsize))
                case "out":
                    view = outputs[param[1]].view
                    arguments.append(("ptr", view.buffer, view.offset * view.itemsize))
                case "stride":
                    arguments.append(("i64", self.lift(operands[param[1]].strides[param[2]])))
                case "out_stride":
                    arguments.append(("i64", self.lift(outputs[param[1]].strides[param[2]])))
                case "scalar":
                    arguments.append((param[2], scalars[param[1]]))
                case "int":
                    arguments.append(("i64", self.lift(ints[param[1]])))
                case "workspace":
                    buffer = Buffer("arena", self.size(param[1], env))
                    extra.append(buffer)
                    arguments.append(("ptr", buffer, self.lift(0)))
                case "counters" | "kept":
                    size = 4 * param[1] if param[0] == "counters" else param[1]
                    buffer = Buffer("kept", self.size(size, env))
                    extra.append(buffer)
                    arguments.append(("ptr", buffer, self.lift(0)))
                case other:
                    raise AssertionError(f"unknown kernel parameter {other!r}")
        node = KernelNode(label or self.label(covers), tuple(covers))
        node.source = source
        node.grid = tuple(self.size(g, env) for g in source.launch.grid)  # type: ignore[assignment]
        node.shared = self.size(source.launch.shared, env)
        node.arguments = arguments
        node.copies = list(copies)
        node.reads = [o.view.buffer for o in operands]
        node.writes = [o.view.buffer for o in outputs] + extra
        node.outputs = {i: self._values[i] for i in covers if i in self._values}
        self.emit(node)

    def size(self, size: Size, env: Mapping[str, Sym]) -> Sym:
        """A kernel's size expression as a Sym."""
        if isinstance(size, int):
            return self.lift(size)
        if isinstance(size, str):
            return env[size]
        op, left, right = size
        a, b = self.size(left, env), self.size(right, env)
        match op:
            case "add":
                return a + b
            case "sub":
                return a - b
            case "mul":
                return a * b
        return self.table.apply(op, a, b)

    def label(self, covers: Sequence[int]) -> str:
        names = [self.tape_nodes[i].name for i in covers]
        return "+".join(names[:6]) + (f"+{len(names) - 6}" if len(names) > 6 else "")


__all__ = ["DONATING", "ELEMENTWISE", "Builder", "Operand", "lowers", "view_rule"]
