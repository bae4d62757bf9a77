"""Decoding's products: one row times weights, fused with the norm before them and with what becomes of the results.

A group is what one kernel computes (`kernels.row_product`): products of one x, maybe normalised, each followed by
rotary positions, an update of a slice (a key-value cache), or an elementwise group, which may combine two products.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from ..kernels import row_product as kernels
from ..kernels.codegen import Operand as KernelOperand
from ..kernels.codegen import Output as KernelOutput
from ..kernels.kernel import KernelSource
from .analysis import VIEWS
from .builder import Builder, Operand
from .elementwise import ProgramWriter, access_of, broadcast_strides, collapse
from .matmul import is_given, layout, scaled_sum
from .plan import View
from .rope import rope_result
from .shape import sliced
from .sym import Sym
from .units import Unit, can_merge, merge


@dataclass
class Product:
    """A matmul or addmm of one row with a weight whose rows are contiguous; `x` is the node whose elements it reads."""

    node: int
    x: int
    weight: int
    row_length: Sym
    n: Sym
    k: Sym


@dataclass
class Piece:
    """Products that become one part of a kernel: one, or two that an elementwise group combines."""

    products: list[Product]
    rope: int | None = None
    update: int | None = None
    elementwise: list[int] = field(default_factory=list)

    @property
    def members(self) -> list[int]:
        """The tape nodes, in order."""
        others = [i for i in (self.rope, self.update) if i is not None]
        return sorted({*(p.node for p in self.products), *others, *self.elementwise})


@dataclass
class Group:
    """What one kernel computes. `norm` is the rms_norm whose result is x, if the kernel computes that too."""

    pieces: list[Piece]
    norm: int | None

    @property
    def members(self) -> list[int]:
        return sorted({*(i for p in self.pieces for i in p.members), *([] if self.norm is None else [self.norm])})

    def lower(self, b: Builder) -> None:
        _lower(b, self)


# ---- finding groups


def fuse(b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
    """Merge the units of each group into one, whose recipe is the group; of smaller ones, where that is impossible."""
    finder = _Finder(b, units, unit_of)
    for group in finder.groups():
        finder.merge(group)


class _Finder:
    def __init__(self, b: Builder, units: list[Unit], unit_of: dict[int, int]) -> None:
        self.b = b
        self.nodes = b.tape_nodes
        self.units = units
        self.unit_of = unit_of

    def groups(self) -> list[Group]:
        products = [p for p in map(self._product, range(len(self.nodes))) if p is not None]
        by_x: dict[tuple[int, str], list[Piece]] = {}
        for piece in self._pieces(products):
            first = piece.products[0]
            by_x.setdefault((first.x, self.b.dtype(first.node)), []).append(piece)
        groups = []
        for (x, _), pieces in by_x.items():
            for level in self._levels(pieces):
                for at in range(0, len(level), kernels.MAX_PARTS):
                    some = level[at : at + kernels.MAX_PARTS]
                    groups.append(Group(some, self._norm(x, some)))
        return groups

    def _levels(self, pieces: list[Piece]) -> list[list[Piece]]:
        """Pieces that read nothing of one another, then those that read of these, and so on."""
        owner = {i: k for k, piece in enumerate(pieces) for i in piece.members}
        reads: list[set[int]] = [set() for _ in pieces]
        for k, piece in enumerate(pieces):
            stack = piece.members
            while stack:
                for j in map(self.b.analysis.root, self.nodes[stack.pop()].inputs):
                    if j in self.b.repeated:  # the piece computes it, too
                        stack.append(j)
                    elif owner.get(j, k) != k:
                        reads[k].add(owner[j])
        level = [0] * len(pieces)
        for _ in pieces:  # as often as the longest chain of them may need
            level = [max((level[of] + 1 for of in reads[k]), default=0) for k in range(len(pieces))]
        return [[p for p, at in zip(pieces, level, strict=True) if at == n] for n in sorted(set(level))]

    def _product(self, i: int) -> Product | None:
        b, node = self.b, self.nodes[i]
        if node.role != "op" or node.name not in ("matmul", "addmm") or b.dtype(i) not in kernels.DTYPES:
            return None
        left, right = node.inputs[-2:]
        if b.analysis.is_empty(i) or b.analysis.is_empty(left):
            return None
        if not all(d.const == 1 for j in (i, left) for d in b.dims(j)[:-1]):
            return None
        if not is_given(b, right) or not all(d.const == 1 for d in b.dims(right)[:-2]):
            return None
        found = layout(b, b.value(right))
        if found is None or not found[0]:
            return None
        return Product(i, self._source(left), right, found[1], b.dims(i)[-1], b.dims(left)[-1])

    def _source(self, j: int) -> int:
        """The node whose elements, in order, are those of a row."""
        b = self.b
        while self.nodes[j].role == "op" and self.nodes[j].name in VIEWS:
            node = self.nodes[j]
            source = node.inputs[0]
            if b.numel(b.dims(source)) != b.numel(b.dims(j)):
                break
            if node.name == "slice" and any(how > 1 for how in node.static[0]):
                break
            if node.name == "transpose" and sum(d.const != 1 for d in b.dims(j)) > 1:
                break
            j = source
        return j

    def _pieces(self, products: list[Product]) -> list[Piece]:
        pieces: list[Piece] = []
        waiting: dict[int, list[Product]] = {}  # by the elementwise unit that reads them
        for p in products:
            readers = self.b.analysis.readers(p.node)
            is_kept = self._is_kept(p.node)
            piece = None
            if len(readers) == 1 and not is_kept:
                piece = self._turned(p, readers[0]) or self._stored(p, readers[0])
            unit = self._elementwise_reader(p, readers)
            if piece is not None:
                pieces.append(piece)
            elif unit is not None:
                waiting.setdefault(unit, []).append(p)
            else:
                pieces.append(Piece([p]))
        for unit, candidates in waiting.items():
            # The last product, with another of the same x if there is one: they are ready at the same time.
            last = candidates[-1]
            pair = [p for p in candidates[:-1] if p.x == last.x and self.b.dtype(p.node) == self.b.dtype(last.node)]
            chosen = [*pair[-1:], last]
            pieces.append(Piece(chosen, elementwise=list(self.units[unit].members)))
            pieces += [Piece([p]) for p in candidates if p not in chosen]
        return pieces

    def _is_kept(self, i: int) -> bool:
        """Whether the result, or a view of it, is asked for."""
        return any(self.nodes[j].is_output for j in (i, *self.b.analysis.views_of(i)))

    def _elementwise_reader(self, p: Product, readers: list[int]) -> int | None:
        """The elementwise unit that has all readers of a product, which it reads as it is."""
        if not readers or any(self.nodes[c].name in VIEWS for c in self.b.analysis.consumers[p.node]):
            return None
        if any(r in self.b.repeated for r in readers):  # no unit has it
            return None
        units = {self.unit_of[r] for r in readers}
        if len(units) != 1:
            return None
        (unit,) = units
        members = self.units[unit].members
        if not self.units[unit].elementwise or self.b.dims(members[-1]) != self.b.dims(p.node):
            return None
        return unit

    def _turned(self, p: Product, reader: int) -> Piece | None:
        """A product whose reader is rope, whose own reader may be an update of a slice."""
        b, node = self.b, self.nodes[reader]
        if node.name != "rope" or b.analysis.root(node.inputs[0]) != p.node or b.dtype(reader) != b.dtype(p.node):
            return None
        _, _, has_offset, _ = node.static
        if has_offset and not all(d.const == 1 for d in b.dims(node.inputs[1])):
            return None
        # One position: otherwise the dim before the features is time, and not heads.
        if b.dims(reader)[-2].const != 1 or not self._are_heads(p.node, node.inputs[0]):
            return None
        piece = Piece([p], rope=reader)
        readers = b.analysis.readers(reader)
        if len(readers) == 1 and not self._is_kept(reader) and self._updates_with(readers[0], reader):
            if self.nodes[readers[0]].inputs[1] == reader:
                piece.update = readers[0]
        return piece

    def _stored(self, p: Product, reader: int) -> Piece | None:
        """A product whose reader is an update of a slice."""
        if self._updates_with(reader, p.node) and self._are_heads(p.node, self.nodes[reader].inputs[1]):
            return Piece([p], update=reader)
        return None

    def _updates_with(self, i: int, source: int) -> bool:
        """Whether node i writes node `source`, or a view of it, into a slice of something else."""
        node, root = self.nodes[i], self.b.analysis.root
        if node.name != "slice_update" or node.static[1] != "none" or self.b.dtype(i) != self.b.dtype(source):
            return False
        return root(node.inputs[1]) == source and root(node.inputs[0]) != source

    def _are_heads(self, i: int, j: int) -> bool:
        """Whether view j of the row of node i has the row's elements in order, as heads of features."""
        b = self.b
        k, turned = j, False
        chain = []
        while k != i:
            chain.append(k)
            k = self.nodes[k].inputs[0]
        for k in reversed(chain):  # only such views are derived here as need no copy
            if self.nodes[k].name not in ("reshape", "transpose") or (turned and self.nodes[k].name == "reshape"):
                return False
            turned = turned or self.nodes[k].name == "transpose"
        b.result(i)
        view = b.value(j)
        b.forget(i)
        heads, (strides,) = collapse(b, view.dims[:-1], [view.strides[:-1]])
        in_order = view.strides[-1] == 1 or view.dims[-1].const == 1
        return in_order and len(heads) == 1 and (heads[0].const == 1 or strides[0] == view.dims[-1])

    def _norm(self, x: int, pieces: list[Piece]) -> int | None:
        """x, if it is an rms_norm with a weight that only these products read."""
        node = self.nodes[x]
        if node.role != "op" or node.name != "rms_norm" or not node.static[0] or self._is_kept(x):
            return None
        products = [p for piece in pieces for p in piece.products]
        if not set(self.b.analysis.readers(x)) <= {p.node for p in products}:
            return None
        return x if self.b.dims(x)[-1] == products[0].k and self.b.dtype(x) == self.b.dtype(products[0].node) else None

    # ---- merging

    def merge(self, group: Group) -> None:
        """Merge the group, or as much of it at a time as does not wait for itself."""
        if self._merged(group) or self._merged(Group(group.pieces, None)):
            return
        for piece in group.pieces:  # each as the plan is after the pieces before it
            if not self._merged(Group([piece], None)):
                for p in piece.products:
                    self._merged(Group([Piece([p])], None))

    def _merged(self, group: Group) -> bool:
        """Whether the units of the group could be made one."""
        numbers = {self.unit_of[i] for i in group.members}
        if not can_merge(self.units, numbers):
            return False
        unit = merge(self.units, self.unit_of, numbers, min(numbers))
        unit.elementwise, unit.recipe = False, group
        return True


# ---- lowering


@functools.lru_cache(maxsize=1024)
def _kernel(dtype: str, parts: tuple[kernels.Part, ...], norm: bool, variant: kernels.Variant) -> KernelSource:
    return kernels.generate(dtype, parts, norm, variant)


def _lower(b: Builder, group: Group) -> None:
    first = group.pieces[0].products[0]
    dtype = b.dtype(first.node)
    b.computed_inside = set(group.members)
    x = _row(b, first.x if group.norm is None else b.tape_nodes[group.norm].inputs[0])
    shared = ProgramWriter(b, (b.lift(1),))
    dims: list[Sym] = [first.k]
    operands = [x]
    if group.norm is not None:
        node = b.tape_nodes[group.norm]
        operands.append(Operand(b.read_contiguous(node.inputs[1]), ()))
        shared.scalar_number(node.scalar_slot)
    for piece in group.pieces:
        for p in piece.products:
            operands.append(Operand(b.read(p.weight), (p.row_length, 1)))
    parts = [_Part(b, piece, shared) for piece in group.pieces]
    for part in parts:
        dims += part.dims
        operands += part.turn_operands
    for part in parts:
        operands += part.operands
    outputs = [o for part in parts for o in part.outputs]
    b.computed_inside = set()
    columns = sum((p.n for piece in group.pieces for p in piece.products), start=b.lift(0))
    described = tuple(part.described for part in parts)
    norm = group.norm is not None
    variant = b.table.choose(kernels.choose_variant, dtype, kernels.rows_of(described), norm, of=(columns, first.k))
    b.kernel(
        _kernel(dtype, described, norm, variant),
        dims,
        operands,
        outputs,
        scalars=shared.scalars,
        ints=shared.ints,
        covers=sorted({*group.members, *(i for part in parts for i in part.repeated)}),
    )


def _row(b: Builder, i: int) -> Operand:
    """Node i as contiguous elements."""
    view = b.read(i)
    dims, (strides,) = collapse(b, view.dims, [view.strides])
    if len(dims) != 1 or not (strides[0] == 1 or dims[0].const == 1):
        view = b.read_contiguous(i)
    return Operand(view, ())


class _Part:
    """A piece as the kernel takes it: `described`, with its dims, operands and outputs."""

    def __init__(self, b: Builder, piece: Piece, shared: ProgramWriter) -> None:
        self.b = b
        self.piece = piece
        self.dims: list[Sym] = []
        self.turn_operands: list[Operand] = []
        product = piece.products[0].node
        writer = ProgramWriter(b, b.dims(product), shared)
        has_heads = piece.rope is not None or piece.update is not None
        for k, p in enumerate(piece.products):
            bias = b.tape_nodes[p.node].inputs[0]
            if has_heads and b.tape_nodes[p.node].name == "addmm" and b.tape_nodes[bias].role != "scalar":
                writer.registers[bias] = writer.load(b.read_contiguous(bias))  # read at heads and features
            writer.registers[p.node] = self._value(writer, p.node, k)
        turn = None if piece.rope is None else self._turn(piece.rope, shared)
        written: list[tuple[View, int, tuple[Sym, ...]]]
        if has_heads:
            place = self._place()
            heads, (strides,) = collapse(b, place.dims[:-1], [place.strides[:-1]])
            self.dims += [heads[0], place.dims[-1]]
            written = [(place, writer.registers[product], (strides[0], place.strides[-1]))]
        else:
            self.dims.append(piece.products[0].n)
            written = self._elementwise(writer)
        self.repeated = writer.repeated
        accesses = [self._strides(writer, v) for v in writer.operands]
        self.operands = [Operand(v, s) for v, s in zip(writer.operands, accesses, strict=True)]
        self.outputs = [Operand(v, s) for v, _, s in written]
        self.described = kernels.Part(
            tuple(writer.program),
            tuple(KernelOperand(o.view.dtype, access_of(b, o.strides, self.dims[-1:])) for o in self.operands),  # type: ignore[arg-type]
            tuple(KernelOutput(r, v.dtype, tuple(1 if x == 1 else None for x in s)) for v, r, s in written),
            len(piece.products),
            has_heads,
            turn,
        )

    def _value(self, writer: ProgramWriter, i: int, k: int) -> int:
        """The register of a product; an addmm's is scaled, and has its bias added."""
        b, node = self.b, self.b.tape_nodes[i]
        value = writer.instruction(("value", k, b.dtype(i)))
        return value if node.name == "matmul" else scaled_sum(writer, i, value)

    def _strides(self, writer: ProgramWriter, view: View) -> tuple[Sym, ...]:
        """Of an operand along the columns."""
        strides = broadcast_strides(self.b, view, writer.dims)
        return (strides[-1],)

    def _turn(self, i: int, shared: ProgramWriter) -> kernels.Turn:
        b, node = self.b, self.b.tape_nodes[i]
        dims, traditional, has_offset, has_freqs = node.static
        position = 0
        if has_offset:
            self.turn_operands.append(Operand(b.read_contiguous(node.inputs[1]), ()))
        else:
            position = len(shared.ints)
            shared.ints += b.ints(i)
        if has_freqs:
            self.turn_operands.append(Operand(b.read_contiguous(node.inputs[-1]), ()))
        base = 0 if has_freqs else shared.scalar_number(node.scalar_slot)
        scale = shared.scalar_number(node.scalar_slot + 1)
        return kernels.Turn(dims, traditional, "array" if has_offset else "number", has_freqs, position, base, scale)

    def _place(self) -> View:
        """Where the heads are written: new memory, or the slice that is updated."""
        b, piece = self.b, self.piece
        if piece.update is None:
            assert piece.rope is not None
            return rope_result(b, piece.rope)
        node = b.tape_nodes[piece.update]
        target = b.define(piece.update, b.updatable(piece.update))
        return sliced(b, target, node.static[0], b.ints(piece.update), b.dims(node.inputs[1]))

    def _elementwise(self, writer: ProgramWriter) -> list[tuple[View, int, tuple[Sym, ...]]]:
        """The registers that are written, with their memory."""
        b, members = self.b, self.piece.elementwise
        for m in members:
            writer.add(m)
        inside = {*members, *(p.node for p in self.piece.products)}
        candidates = [*(p.node for p in self.piece.products), *members]
        kept = [
            m
            for m in candidates
            if b.tape_nodes[m].is_output or (m not in b.repeated and set(b.analysis.consumers[m]) - inside)
        ]
        one = (b.lift(1),)
        return [(b.result(m), writer.registers[m], one) for m in kept]
