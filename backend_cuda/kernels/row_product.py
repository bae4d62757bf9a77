"""Products of one row with several weights in one kernel, with what comes before and after: a decoding step's core.

y_p = f_p(norm(x) @ W_p.T) for parts p that share x: the norm is a factor of the sum, so x is read once for both; f_p is
an elementwise program, rotary positions, or two weights combined (a gated activation); the result is written wherever
it is wanted, a row of a key-value cache for instance.

Model: the weights' bytes at memory bandwidth. A weight of a few MB takes as long as a launch, so the kernel starts
copying weights before the kernel in front of it is done (`define`'s `before`), and one launch does the work of several.
Its blocks, two on each multiprocessor, stay, and their teams take several rows of the weights at a time: x is read once
for these, and most of what a multiprocessor has of shared memory is on its way, also when one kernel follows another.
Measured in chains of 16, 8192 x 2048 and back run at 0.94 of a copy's rate, 14336 x 4096 at 1.0, 2048 x 2048 at 0.59
(H200).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from .codegen import (
    Access,
    Instruction,
    Operand,
    Output,
    Params,
    check,
    check_output_dtypes,
    define,
    describe,
    emit,
    offset,
    store_expression,
)
from .kernel import KernelSource, Launch, Size
from .ops import ITEMSIZE, compute, storage
from .target import target

DTYPES = ("bfloat16", "float16", "float32", "float64")
MAX_PARTS = 4
# Of a block, and blocks of a multiprocessor. With four rows and six stages a block has 96 KiB: no third one finds room,
# so that blocks are spread evenly, also where they begin one by one as those of the kernel in front end.
_THREADS, _BLOCKS, _ROWS, _STAGES = 256, 2, 4, 6
_STATIC = 2048  # bytes, at most, of what else a block has in shared memory


@dataclass(frozen=True)
class Turn:
    """Rotary positions: the first `dims` features of each head turn in pairs (see `rope.generate_rope`).

    Attributes:
        dims: an even number, at most the features of a head.
        traditional: whether pairs are neighbours, else halves.
        offset: the position is "number" (an integer parameter) or "array" (the element of an int32 array).
        has_freqs: whether the inverse frequencies are an operand, else base ** (-2 i / dims).
        position, base, scale: numbers of the kernel's integer and scalar parameters.
    """

    dims: int
    traditional: bool
    offset: str
    has_freqs: bool
    position: int = 0
    base: int = 0
    scale: int = 0


@dataclass(frozen=True)
class Part:
    """A weight, or two that are combined, and what becomes of their products.

    Attributes:
        weights: 1, or 2 whose values at one column come together as `("value", 0, dtype)` and `("value", 1, dtype)`.
        heads: whether columns are (heads, features): operands and outputs then have two strides, else one.
        turn: rotary positions of what the program makes; needs `heads`, and has one output, of the product's dtype.
        program, operands, outputs: the epilogue. `("load", i)` loads `operands[i]`.
    """

    program: tuple[Instruction, ...]
    operands: tuple[Operand, ...] = ()
    outputs: tuple[Output, ...] = ()
    weights: int = 1
    heads: bool = False
    turn: Turn | None = None


@dataclass(frozen=True)
class Variant:
    """`team` threads (8 to 256, a power of two) take `items` columns, or as many pairs, at a time.

    Each thread has `stages` - 1 chunks of each of their rows in flight; there are `blocks` of `threads` at most.
    """

    team: int = 32
    items: int = 2
    stages: int = 4
    threads: int = 128
    blocks: int = 264

    def shared_bytes(self, rows: int) -> int:
        """Of a block, with so many rows for an item."""
        return 16 * self.threads * self.stages * self.items * rows


def rows_of(parts: Sequence[Part]) -> int:
    """Rows of weights of an item, the same for all parts."""
    return 2 if any(p.turn or p.weights == 2 for p in parts) else 1


def choose_variant(dtype: str, rows: int, norm: bool, columns: int, k: int) -> Variant:
    """A fast variant for so many columns in all; any variant is correct for any.

    >>> choose_variant("bfloat16", 1, False, 576, 576)
    Variant(team=256, items=4, stages=6, threads=256, blocks=264)
    >>> choose_variant("bfloat16", 2, True, 16384, 2048)
    Variant(team=32, items=2, stages=6, threads=256, blocks=264)
    >>> choose_variant("bfloat16", 1, True, 128256, 2048)
    Variant(team=32, items=4, stages=6, threads=256, blocks=2112)
    """
    most = (target.shared - _STATIC) // (16 * _THREADS * _ROWS)
    variant = Variant(8, _ROWS // rows, max(2, min(_STAGES, most)), _THREADS)
    blocks = max(1, min(_BLOCKS * target.multiprocessors, target.places(variant.shared_bytes(rows))))
    chunks = max(1, -(-k * ITEMSIZE[dtype] // 16))
    groups = -(-columns // _ROWS)
    # With a norm, teams that are a warp and never wait for another were faster (2 to 7%, H200), if rows are long, there
    # are groups for two rounds, and the last round is nearly full; with eight blocks for each place, each for two
    # rounds, if there are as many: the faster multiprocessors then take more of them.
    rounds = groups * 32 / (_THREADS * blocks)
    if norm and chunks > 64 and rounds >= 1.75 and rounds >= 0.8 * math.ceil(rounds):
        waves = next(w for w in (8, 4, 2, 1) if rounds >= 1.6 * w)
        return replace(variant, team=32, blocks=waves * blocks)
    # Else four chunks of a row for each thread, or fewer, as long as there are blocks that would have nothing to do.
    team = 8
    while team < _THREADS and (4 * team < chunks or (team < 4 * chunks and 2 * team * groups <= _THREADS * blocks)):
        team *= 2
    return replace(variant, team=team, blocks=blocks)


def generate(dtype: str, parts: Sequence[Part], norm: bool = False, variant: Variant | None = None) -> KernelSource:
    """The kernel of these parts.

    Loop dims, in order: k; then for each part its columns or, if it has heads, heads and features of a head.

    Parameters, in order: the dims; operand 0, x (k contiguous elements); operand 1, the norm's weight (k contiguous
    elements), if `norm`; for each part its weights, each an operand with a stride along dim 0 (of its own two: from row
    to row; along k it is contiguous); for each part that turns, the position and the inverse frequencies, if they are
    operands; for each part its operands, then its outputs, with runtime strides along their own one or two dims; scalar
    0, the norm's epsilon (f32; f64 for float64), if `norm`; scalars and integers of turns and programs, whose numbers
    are the caller's: 0 is epsilon's if there is a norm.

    Args:
        dtype: of x, the norm's weight and the weights: bfloat16, float16, float32 or float64; sums are float or double.
        parts: 1 to 4.
        norm: whether x is divided by the root of the mean of its squares, and multiplied by a weight.
        variant: from `choose_variant`.

    Raises:
        TypeError: the dtype has no kernel.
        ValueError: the parts or the variant make no sense.

    >>> value = (("value", 0, "bfloat16"),)
    >>> generate("bfloat16", [Part(value, outputs=(Output(0, "bfloat16"),))]).launch.grid
    (('min', ('cdiv', ('cdiv', 'd1', 2), 4), 264), 1, 1)
    """
    if dtype not in DTYPES:
        raise TypeError(f"[matmul] no CUDA kernel of one row for {dtype}; convert the operands with astype first.")
    if not 1 <= len(parts) <= MAX_PARTS:
        raise ValueError(f"a kernel has 1 to {MAX_PARTS} parts, not {len(parts)}")
    return _Writer(dtype, parts, norm, variant or Variant()).kernel()


@dataclass
class _Numbered:
    """A part with the numbers of its dims, operands and outputs in the kernel."""

    index: int
    part: Part
    dim: int
    weight: int = 0
    position: int = 0
    periods: int = 0
    operand: int = 0
    output: int = 0
    coordinates: tuple[str, ...] = field(default=("column",))


class _Writer:
    def __init__(self, dtype: str, parts: Sequence[Part], norm: bool, variant: Variant) -> None:
        self.dtype, self.norm, self.variant = dtype, norm, variant
        self.rows = rows_of(parts)
        self.elements = self.rows * variant.items  # of the result, that a team has at a time
        powers = [8 << i for i in range(6)]
        if variant.team not in powers or variant.threads % max(variant.team, 32) or variant.threads > 1024:
            raise ValueError(f"teams of 8, 16, ... 256 threads divide a block of whole warps: {variant}")
        if variant.stages < 2 or not 1 <= self.elements <= variant.team or variant.shared_bytes(self.rows) > 96 << 10:
            raise ValueError(f"2 stages, an item, and no more rows than threads, in at most 96 KiB: {variant}")
        self.params = Params()
        self.parts = self._number(parts)

    def _number(self, parts: Sequence[Part]) -> list[_Numbered]:
        """Number everything, and declare the parameters."""
        params, element = self.params, storage(self.dtype)
        numbered = []
        params.add(("dim", 0), "i64 k")
        dim = 1
        for i, part in enumerate(parts):
            _check(part)
            numbered.append(_Numbered(i, part, dim, coordinates=("head", "feature") if part.heads else ("column",)))
            for _ in numbered[-1].coordinates:
                params.add(("dim", dim), f"i64 d{dim}")
                dim += 1
        params.add(("ptr", 0), f"const {element}* x")
        operand = 1
        if self.norm:
            params.add(("ptr", operand), f"const {element}* scale")
            operand += 1
        for n in numbered:
            n.weight = operand
            for _ in range(n.part.weights):
                params.add(("ptr", operand), f"const {element}* p{operand}")
                params.add(("stride", operand, 0), f"i64 t{operand}_0")
                operand += 1
        for n in numbered:
            if n.part.turn and n.part.turn.offset == "array":
                n.position = operand
                params.add(("ptr", operand), f"const i32* p{operand}")
                operand += 1
            if n.part.turn and n.part.turn.has_freqs:
                n.periods = operand
                params.add(("ptr", operand), f"const f32* p{operand}")
                operand += 1
        output = 0
        for n in numbered:
            n.operand = operand
            params.operands(n.part.operands, operand)
            operand += len(n.part.operands)
        for n in numbered:
            n.output = output
            for o in n.part.outputs:
                params.add(("out", output), f"{storage(o.dtype)}* __restrict__ q{output}")
                if isinstance(o.access, tuple):
                    for d, stride in enumerate(o.access):
                        if stride is None:
                            params.add(("out_stride", output, d), f"i64 u{output}_{d}")
                output += 1
        if self.norm:
            params.scalar(0, self.real)
        for n in numbered:
            if n.part.turn:
                self._declare_turn(n.part.turn)
            params.scalars(n.part.program)
        return numbered

    @property
    def real(self) -> str:
        return "f64" if self.dtype == "float64" else "f32"

    def _declare_turn(self, turn: Turn) -> None:
        if turn.offset == "number" and ("int", turn.position) not in self.params.params:
            self.params.add(("int", turn.position), f"i64 n{turn.position}")
        if not turn.has_freqs:
            self.params.scalar(turn.base, "f64")
        self.params.scalar(turn.scale, "f32")

    # ---- text

    def kernel(self) -> KernelSource:
        v, rows, elements, element, c = self.variant, self.rows, self.elements, storage(self.dtype), compute(self.dtype)
        per_block = v.threads // v.team
        weights = [n.weight + i for n in self.parts for i in range(n.part.weights)]
        before = [
            f"using Dot = RowDot<{element}, {elements}, {str(self.norm).lower()}, {v.team}, {v.stages}, {v.threads}>;",
            "DYNAMIC_SHARED(ring, 16 * Dot::kRing);",
            f"const int member = threadIdx.x % {v.team};",
            *(f"const i64 items{n.index} = {self._items(n)};" for n in self.parts),
            f"const i64 items = {' + '.join(f'items{n.index}' for n in self.parts)};",
            f"const i64 groups = ceil_div(items, {v.items});",
            f"const i64 own = i64(blockIdx.x) * {per_block} + threadIdx.x / {v.team};",
            "// The columns of an item's rows, as features of a head; there may be no second one.",
            "struct Place {",
            "    int part;",
            "    i64 head, first, second;",
            "    bool turned, has_second;",
            "};",
            f"auto find_item = [&](i64 item, const {element}** rows) {{",
            "    int part = 0;",
            *(
                f"    if (part == {n.index} && item >= items{n.index}) part = {n.index + 1}, item -= items{n.index};"
                for n in self.parts[:-1]
            ),
            *("    " + line for line in self._find_item()),
            "};",
            "// Past the last item, that one again.",
            "auto find = [&](i64 group, Dot::Rows& rows) {",
            *(
                f"    find_item(min_i64(group * {v.items} + {i}, items - 1), rows + {i * rows});"
                for i in range(v.items)
            ),
            "};",
            f"const bool aligned = {' && '.join(f'is_chunk_aligned(p{i}, t{i}_0)' for i in weights)};",
            f"const i64 step = i64(gridDim.x) * {per_block};",
            "Dot dot(ring, k, aligned, member, own, step, groups);",
            "dot.prefetch(find);",
            "// Each of the first members of a team has an element of its results.",
            f"const int element = member < {elements} ? member : 0, of_item = element % {rows};",
            "// In turns, so that none waits for what another has read.",
            f"__shared__ {c} memory[2][{v.threads // 32 * elements}];",
            "int turn = 0;",
            *([f"{c} factor = 1;"] if self.norm else []),
            "// Teams that have no more groups go along, since whole blocks meet.",
            f"for (i64 group = own; group - threadIdx.x / {v.team} < groups; group += step, turn ^= 1) {{",
            f"const i64 item = group * {v.items} + element / {rows};",
            f"const {element}* own_rows[{rows}];",
            "const Place place = find_item(min_i64(item, items - 1), own_rows);",
            "const int part = place.part;",
            "const i64 head = place.head, first = place.first, second = place.second;",
            "const bool turned = place.turned, has_second = place.has_second;",
            *self._turns(is_late=False),
        ]
        second = " && (of_item == 0 || has_second)" if rows == 2 else ""
        body = [
            *self._turns(is_late=True),
            f"const bool inside = member < {elements} && item < items{second};",
            "const i64 feature = of_item == 0 ? first : second;",
            *(line for n in self.parts for line in self._loads(n)),
            f"{c} sum[{elements}] = {{}};",
            f"if (group < groups) dot.run(sum, x, {'scale' if self.norm else 'nullptr'}, group, group == own, find);",
            f"{c} value0 = sum_team<{c}, {elements}, {v.team}>(sum, memory[turn]);",
        ]
        if self.norm:
            body += [
                "if (group == own) {",
                f"    __shared__ {c} of_squares[{v.threads // 32}];",
                f"    const {c} squares[1] = {{dot.squares}};",
                f"    factor = op_rsqrt(sum_team<{c}, 1, {v.team}>(squares, of_squares) / {c}(k) + s0_{self.real});",
                f"    factor = shuffle_from(factor, threadIdx.x % 32 / {min(v.team, 32)} * {min(v.team, 32)});",
                "}",
                "value0 = value0 * factor;",
            ]
        if rows == 2:
            body += [
                f"{c} value1 = shuffle_xor(value0, 1);",
                f"if (of_item == 1) {{ const {c} own_value = value0; value0 = value1; value1 = own_value; }}",
            ]
        body.append("if (inside) {")
        body += ["    " + line for line in self._branches(self._stores)]
        body += ["}", "}", "wait_copy_groups<0>();"]
        total: Size = self._size(self.parts[0])
        for n in self.parts[1:]:
            total = ("add", total, self._size(n))
        label = f"row_product_{self.dtype}" + ("_norm" if self.norm else "")
        label += "".join("_" + ("rope" if n.part.turn else describe(n.part.program)) for n in self.parts)
        needed: Size = ("cdiv", ("cdiv", total, v.items) if v.items > 1 else total, per_block)
        launch = Launch((v.threads, 1, 1), (("min", needed, v.blocks), 1, 1), v.shared_bytes(rows))
        together = max(1, _BLOCKS * _THREADS // v.threads)
        return define(label, "row_product.cuh", self.params, body, launch, before, together)

    def _branches(self, lines_of: object) -> list[str]:
        """The statements of each part, for the part that the team has."""
        assert callable(lines_of)
        if len(self.parts) == 1:
            return lines_of(self.parts[0])
        lines = []
        for n in self.parts:
            lines += [f"if (part == {n.index}) {{", *("    " + line for line in lines_of(n)), "}"]
        return lines

    def _pairs(self, n: _Numbered) -> bool:
        """Whether an item is two columns of one weight."""
        return self.rows == 2 and n.part.weights == 1

    def _items_of_head(self, n: _Numbered) -> str:
        """How many items a head has; all of the part, if it has no heads."""
        features = f"d{n.dim + n.part.heads}"
        if not self._pairs(n):
            return features
        turn = n.part.turn
        return f"{turn.dims // 2} + ceil_div({features} - {turn.dims}, 2)" if turn else f"ceil_div({features}, 2)"

    def _items(self, n: _Numbered) -> str:
        of_head = self._items_of_head(n)
        return f"d{n.dim} * ({of_head})" if n.part.heads else of_head

    def _size(self, n: _Numbered) -> Size:
        """The same as a Size."""
        d = n.dim
        if not n.part.heads:
            return ("cdiv", f"d{d}", 2) if self._pairs(n) else f"d{d}"
        if not self._pairs(n):
            return ("mul", f"d{d}", f"d{d + 1}")
        turn = n.part.turn
        if turn is None:
            return ("mul", f"d{d}", ("cdiv", f"d{d + 1}", 2))
        return ("mul", f"d{d}", ("add", turn.dims // 2, ("cdiv", ("sub", f"d{d + 1}", turn.dims), 2)))

    def _find_item(self) -> list[str]:
        """Statements that find a place for `part` and `item`, a number in that part, and set where its rows begin.

        What differs between parts is chosen, so that there is one division, however many there are.
        """
        lines = []
        for name, kind, of in (
            ("features", "i64", lambda n: f"d{n.dim + n.part.heads}"),
            ("per_head", "i64", self._items_of_head),
            ("turning", "i64", lambda n: f"{n.part.turn.dims // 2 if n.part.turn else 0}"),
            ("is_pair", "bool", lambda n: str(self._pairs(n)).lower()),
            ("is_split", "bool", lambda n: str(bool(n.part.turn and not n.part.turn.traditional)).lower()),
            *(
                (f"weight{r}", f"{storage(self.dtype)}*", lambda n, r=r: f"p{self._weight(n, r)}")
                for r in range(self.rows)
            ),
            *((f"length{r}", "i64", lambda n, r=r: f"t{self._weight(n, r)}_0") for r in range(self.rows)),
        ):
            *others, last = (of(n) for n in self.parts)
            choices = "".join(f"part == {i} ? {value} : " for i, value in enumerate(others) if value != last)
            lines.append(f"const {kind} {name} = {choices}{last};")
        has_heads = any(n.part.heads for n in self.parts)
        lines += [
            f"const i64 within = {'take_coordinate(item, per_head)' if has_heads else 'item'};",
            f"const i64 head = {'item' if has_heads else '0'};",
            "const bool turned = within < turning;",
            "// A pair that turns is halves of a head, or neighbours as others are.",
            "i64 first = is_pair ? 2 * within : within, second = is_pair ? first + 1 : first;",
            "if (turned && is_split) first = within, second = within + turning;",
            "const bool has_second = is_pair && second < features;",
            "rows[0] = weight0 + (head * features + first) * length0;",
        ]
        if self.rows == 2:
            lines.append("rows[1] = weight1 + (head * features + (is_pair && !has_second ? first : second)) * length1;")
        return [*lines, "return Place{part, head, first, second, turned, has_second};"]

    def _weight(self, n: _Numbered, row: int) -> int:
        """The operand that has this row of an item."""
        return n.weight + (row if n.part.weights == 2 else 0)

    def _turns(self, is_late: bool) -> list[str]:
        """Statements that find the angle of an own element, before the kernels in front are done or after.

        It is found late if that of any part is in memory, since there is one place for sine and cosine, whose text is
        long.
        """
        turns = [(n, n.part.turn) for n in self.parts if n.part.turn]
        if not turns or is_late != any(turn.offset == "array" or turn.has_freqs for _, turn in turns):
            return []
        lines = ["f32 angle = 0, sine = 0, cosine = 1;"]
        for n, turn in turns:
            position = f"p{n.position}[0]" if turn.offset == "array" else f"n{turn.position}"
            pair = "first / 2" if turn.traditional else "first"
            if turn.has_freqs:
                frequency = f"1.0f / p{n.periods}[{pair}]"
            else:
                frequency = f"op_exp(f32({pair}) * f32(-log(s{turn.base}_f64) / {turn.dims // 2}))"
            angle = f"f32({position}) * s{turn.scale}_f32 * ({frequency})"
            lines.append(f"if (part == {n.index} && turned && member < {self.elements}) angle = {angle};")
        return [*lines, f"if (turned && member < {self.elements}) sincosf(angle, &sine, &cosine);"]

    def _linear(self, n: _Numbered, feature: str = "feature") -> str:
        return f"(head * d{n.dim + 1} + {feature})" if n.part.heads else feature

    def _offset(self, n: _Numbered, access: Access, prefix: str, feature: str = "feature") -> str:
        names = ("head", feature) if n.part.heads else (feature,)
        return offset(access, names, prefix, self._linear(n, feature))

    def _columns(self, n: _Numbered) -> tuple[str, ...]:
        """The features for which a thread runs the program: both of a pair that turns, else its own."""
        return ("first", "second") if n.part.turn else ("feature",)

    def _loads(self, n: _Numbered) -> list[str]:
        """Statements that load the epilogue's operands of a thread's own element, beside the loads of the weights."""
        lines = []
        for i, operand in enumerate(n.part.operands, n.operand):
            element = storage(operand.dtype)
            for column in self._columns(n):
                condition = "inside" if len(self.parts) == 1 else f"inside && part == {n.index}"
                if column == "second":
                    condition += " && has_second"
                place = self._offset(n, operand.access, f"t{i}_", column)
                lines.append(f"const {element} {column}_{i} = {condition} ? p{i}[{place}] : {element}{{}};")
        return lines

    def _program(self, n: _Numbered, column: str, values: Sequence[str], prefix: str) -> list[str]:
        return emit(
            n.part.program,
            n.part.operands,
            lambda i: f"{column}_{n.operand + i}",
            lambda axis: self._linear(n, column) if axis is None else ("head", column)[axis],
            value=values,
            prefix=prefix,
        )

    def _stores(self, n: _Numbered) -> list[str]:
        part, c = n.part, compute(self.dtype)
        if part.turn:
            (output,) = part.outputs
            left, right = f"a{output.register}", f"b{output.register}"
            sine, cosine = f"{c}(sine)", f"{c}(cosine)"
            place = self._offset(n, output.access, f"u{n.output}_")
            return [
                *self._program(n, "first", ["value0"], "a"),
                *self._program(n, "second", ["value1"], "b"),
                f"const {c} turned_value = of_item == 0 ? {left} * {cosine} - {right} * {sine} : "
                f"{left} * {sine} + {right} * {cosine};",
                f"q{n.output}[{place}] = from_compute<{storage(output.dtype)}>(turned_value);",
            ]
        values = ["(of_item == 0 ? value0 : value1)"] if self._pairs(n) else ["value0", "value1"]
        lines = self._program(n, "feature", values, "r")
        for j, output in enumerate(part.outputs, n.output):
            place = self._offset(n, output.access, f"u{j}_")
            lines.append(f"q{j}[{place}] = {store_expression(output.register, part.program, output)};")
        return lines


def _check(part: Part) -> None:
    if part.weights not in (1, 2):
        raise ValueError(f"a part has one or two weights, not {part.weights}")
    if part.turn and (not part.heads or part.weights != 1 or part.turn.dims < 2 or part.turn.dims % 2):
        raise ValueError(f"heads of one weight turn, by an even number of features: {part}")
    if not part.outputs or (part.turn and len(part.outputs) > 1):
        raise ValueError(f"a part has an output, and one that turns has no other: {part}")
    check(part.program, part.operands, part.outputs, 2 if part.heads else 1)
    check_output_dtypes(part.program, part.operands, part.outputs)


def catalogue(full: bool) -> Iterator[KernelSource]:
    """A decoding step's kernels: q, k and v with rotary positions, a gated activation, a residual, a bias."""
    for dtype in ("bfloat16", "float16", "float32", "float64") if full else ("bfloat16", "float32"):
        value: Instruction = ("value", 0, dtype)
        plain = Part((value,), outputs=(Output(0, dtype),))
        to_cache = Part((value,), outputs=(Output(0, dtype, (None, 1)),), heads=True)
        for traditional, place, has_freqs in ((False, "number", False), (True, "array", True)):
            turn = Turn(64, traditional, place, has_freqs, position=0, base=1, scale=2)
            turned = Part((value,), outputs=(Output(0, dtype, (None, 1)),), heads=True, turn=turn)
            variant = choose_variant(dtype, 2, True, 960, 576)
            yield generate(dtype, [turned, turned, to_cache], norm=True, variant=variant)
        gate: tuple[Instruction, ...] = (
            value,
            ("value", 1, dtype),
            ("op", "sigmoid", (), (0,), (dtype,), dtype),
            ("op", "multiply", (), (0, 2), (dtype, dtype), dtype),
            ("op", "multiply", (), (3, 1), (dtype, dtype), dtype),
        )
        gated = Part(gate, outputs=(Output(4, dtype),), weights=2)
        yield generate(dtype, [gated], norm=True, variant=choose_variant(dtype, 2, True, 3072, 576))
        residual: tuple[Instruction, ...] = (value, ("load", 0), ("op", "add", (), (0, 1), (dtype, dtype), dtype))
        added = Part(residual, (Operand(dtype),), (Output(2, dtype),))
        for n, k in ((576, 576), (576, 1536), (4096, 14336)):
            yield generate(dtype, [added], variant=choose_variant(dtype, 1, False, n, k))
        yield generate(dtype, [plain, added, plain], norm=True)
