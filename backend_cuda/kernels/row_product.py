"""Products of one row with several weights in one kernel, with what comes before and after: a decoding step's core.

y_p = f_p(norm(x) @ W_p.T) for parts p that share x: the norm is a factor of the sum, so x is read once for both; f_p is
an elementwise program, rotary positions, or two weights combined (a gated activation); the result is written wherever
it is wanted, a row of a key-value cache for instance.

Model: the weights' bytes at memory bandwidth. A weight of a few MB takes as long as a launch, so the kernel starts
copying weights before the kernel in front of it is done (`define`'s `before`), and one launch does the work of several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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
# Warps that have the memory of an H100 busy.
_BUSY_WARPS = 132 * 16
_STAGES_TO_KEEP = 6  # a block with fewer is too slow for its place to be worth it


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
    """`team` threads (8 to 256, a power of two) take one or two rows of the weights, `stages` - 1 loads in flight."""

    team: int = 32
    stages: int = 4
    threads: int = 128

    def shared_bytes(self, slots: int) -> int:
        """Of a block, for `slots` loads of each thread in each stage."""
        return 16 * self.threads * self.stages * slots


def rows_of(parts: Sequence[Part]) -> int:
    """Rows of weights that a team takes at a time, the same for all parts."""
    return 2 if any(p.turn or p.weights == 2 for p in parts) else 1


def choose_variant(dtype: str, rows: int, norm: bool, columns: int, k: int) -> Variant:
    """A fast variant for so many columns in all; any variant is correct for any.

    >>> choose_variant("bfloat16", 1, False, 576, 576)
    Variant(team=64, stages=3, threads=128)
    >>> choose_variant("bfloat16", 1, False, 2048, 8192)
    Variant(team=64, stages=6, threads=128)
    """
    chunks = max(1, -(-k * ITEMSIZE[dtype] // 16))
    items = max(1, columns // rows)
    team = 32
    while team > 8 and chunks < 4 * team and items * team // 2 >= 32 * _BUSY_WARPS:
        team //= 2
    # Enough warps for the memory, and some loads for each thread: 8 to 16 were the fastest for rows of 4 to 28 KB.
    while team < 256 and chunks > 2 * team and items * team * rows < 32 * _BUSY_WARPS:
        team *= 2
    while team < 128 and team * (8 if rows == 2 else 16) < chunks:
        team *= 2
    threads = max(128, team)
    # All loads of a short row at once; at most 32 KiB a block, of which six fit on a multiprocessor. Where there are
    # blocks for several rounds, more of them beside one another do better than more loads in each.
    slots = rows + 1 + norm
    most = (32 << 10) // Variant(team, 1, threads).shared_bytes(slots)
    if items * team > 32 * 2 * _BUSY_WARPS:
        most = min(most, 4)
    stages = max(2, min(8, most, -(-chunks // team) + 1))
    # The last blocks would run alone if there were no room for them beside the others.
    fewer = [Variant(team, s, threads) for s in range(stages, min(stages, _STAGES_TO_KEEP) - 1, -1)]
    blocks = -(-items * team // threads)
    return next((v for v in fewer if target.places(v.shared_bytes(slots)) >= blocks), fewer[0])


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
    (('cdiv', 'd1', 4), 1, 1)
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
        slots = self.rows + 1 + norm
        powers = [8 << i for i in range(6)]
        if variant.team not in powers or variant.threads % max(variant.team, 32) or variant.threads > 1024:
            raise ValueError(f"teams of 8, 16, ... 256 threads divide a block of whole warps: {variant}")
        if variant.stages < 2 or variant.shared_bytes(slots) > 44 << 10:
            raise ValueError(f"2 stages or more, in at most 44 KiB of shared memory: {variant}")
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
        v, rows, element = self.variant, self.rows, storage(self.dtype)
        per_block = v.threads // v.team
        items = [self._items(n) for n in self.parts]
        before = [
            f"using Dot = RowDot<{element}, {rows}, {str(self.norm).lower()}, {v.team}, {v.stages}, {v.threads}>;",
            "__shared__ uint4 ring[Dot::kRing];",
            f"const int member = threadIdx.x % {v.team};",
            *(f"const i64 items{n.index} = {text};" for n, text in zip(self.parts, items, strict=True)),
            f"const i64 items = {' + '.join(f'items{n.index}' for n in self.parts)};",
            f"i64 item = i64(blockIdx.x) * {per_block} + threadIdx.x / {v.team};",
            "// Teams beyond the last item go along with it, since whole warps meet in shuffles.",
            "const bool is_item = item < items;",
            "item = min_i64(item, items - 1);",
            "int part = 0;",
            *(
                f"if (part == {n.index} && item >= items{n.index}) part = {n.index + 1}, item -= items{n.index};"
                for n in self.parts[:-1]
            ),
            f"const {element}* rows[{rows}];",
            "// The columns of the two rows, as features of a head; there may be no second one.",
            "i64 head = 0, first = 0, second = 0;",
            "bool turned = false, has_second = false;",
            *self._branches(self._place),
            *(line for n in self.parts for line in self._turn(n, is_late=False)),
            "Dot dot(ring, rows, k, member);",
            "dot.prefetch();",
        ]
        element_lines = [
            "// Each of the first members of a team has an element of its result.",
            f"const bool inside = is_item && (member == 0{' || (member == 1 && has_second)' if rows == 2 else ''});",
            "const i64 feature = member == 0 ? first : second;",
        ]
        body = [
            *(line for n in self.parts for line in self._turn(n, is_late=True)),
            *element_lines,
            *(line for n in self.parts for line in self._loads(n)),
            f"{compute(self.dtype)} sum[Dot::kSums];",
            f"dot.run(sum, x, {'scale' if self.norm else 'nullptr'});",
            f"__shared__ {compute(self.dtype)} memory[{v.threads // 32} * Dot::kSums];",
            f"const TeamTotals<{compute(self.dtype)}, Dot::kSums, {v.team}, {v.threads}> totals(sum, memory);",
            "if (!inside) return;",
            f"{compute(self.dtype)} value0 = totals.total(0){', value1 = totals.total(1)' if rows == 2 else ''};",
        ]
        if self.norm:
            c = compute(self.dtype)
            body.append(f"const {c} factor = op_rsqrt(totals.total({rows}) / {c}(k) + s0_{self.real});")
            body += [f"value{r} = value{r} * factor;" for r in range(rows)]
        body += self._branches(self._stores)
        total: Size = self._size(self.parts[0])
        for n in self.parts[1:]:
            total = ("add", total, self._size(n))
        label = f"row_product_{self.dtype}" + ("_norm" if self.norm else "")
        label += "".join("_" + ("rope" if n.part.turn else describe(n.part.program)) for n in self.parts)
        launch = Launch((v.threads, 1, 1), (("cdiv", total, per_block), 1, 1))
        return define(label, "row_product.cuh", self.params, body, launch, before)

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

    def _items(self, n: _Numbered) -> str:
        d = n.dim
        if not n.part.heads:
            return f"ceil_div(d{d}, 2)" if self._pairs(n) else f"d{d}"
        if not self._pairs(n):
            return f"d{d} * d{d + 1}"
        turn = n.part.turn
        if turn is None:
            return f"d{d} * ceil_div(d{d + 1}, 2)"
        return f"d{d} * ({turn.dims // 2} + ceil_div(d{d + 1} - {turn.dims}, 2))"

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

    def _place(self, n: _Numbered) -> list[str]:
        """Statements that set head, first, second, turned, has_second and rows."""
        d, turn, w = n.dim, n.part.turn, n.weight
        features = f"d{d + 1}" if n.part.heads else f"d{d}"
        if not self._pairs(n):
            lines = (
                [f"first = take_coordinate(item, {features});", "head = item;"] if n.part.heads else ["first = item;"]
            )
            row = f"(head * {features} + first)" if n.part.heads else "first"
            return [*lines, *(f"rows[{r}] = p{w + r} + {row} * t{w + r}_0;" for r in range(n.part.weights))]
        pairs = f"ceil_div({features}, 2)"
        if turn:
            pairs = f"{turn.dims // 2} + ceil_div({features} - {turn.dims}, 2)"
        lines = []
        if n.part.heads:
            lines += [f"const i64 pair = take_coordinate(item, {pairs});", "head = item;"]
        else:
            lines.append("const i64 pair = item;")
        lines.append("first = 2 * pair, second = first + 1;")
        if turn:
            lines.append(f"turned = pair < {turn.dims // 2};")
            if not turn.traditional:
                lines.append(f"if (turned) first = pair, second = pair + {turn.dims // 2};")
        lines += [
            f"has_second = second < {features};",
            f"rows[0] = p{w} + (head * {features} + first) * t{w}_0;",
            f"rows[1] = p{w} + (head * {features} + (has_second ? second : first)) * t{w}_0;",
        ]
        return lines

    def _turn(self, n: _Numbered, is_late: bool) -> list[str]:
        """Statements that find the angle, which wait for the kernels before if they read memory."""
        turn = n.part.turn
        if turn is None or is_late != (turn.offset == "array" or turn.has_freqs):
            return []
        half = turn.dims // 2
        position = f"p{n.position}[0]" if turn.offset == "array" else f"n{turn.position}"
        pair = "first / 2" if turn.traditional else "first"
        if turn.has_freqs:
            frequency = f"1.0f / p{n.periods}[{pair}]"
        else:
            frequency = f"op_exp(f32({pair}) * f32(-log(s{turn.base}_f64) / {half}))"
        return [
            f"f32 sine{n.index} = 0, cosine{n.index} = 1;",
            f"if (part == {n.index} && turned) {{",
            f"    sincosf(f32({position}) * s{turn.scale}_f32 * ({frequency}), &sine{n.index}, &cosine{n.index});",
            "}",
        ]

    def _linear(self, n: _Numbered, feature: str = "feature") -> str:
        return f"(head * d{n.dim + 1} + {feature})" if n.part.heads else feature

    def _offset(self, n: _Numbered, access: Access, prefix: str, feature: str = "feature") -> str:
        names = ("head", feature) if n.part.heads else (feature,)
        return offset(access, names, prefix, self._linear(n, feature))

    def _columns(self, n: _Numbered) -> tuple[str, ...]:
        """The features for which a thread runs the program: both of a pair that turns, else its own."""
        return ("first", "second") if n.part.turn else ("feature",)

    def _loads(self, n: _Numbered) -> list[str]:
        """Statements that load the epilogue's operands, beside the loads of the weights."""
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
            sine, cosine = f"{c}(sine{n.index})", f"{c}(cosine{n.index})"
            place = self._offset(n, output.access, f"u{n.output}_")
            return [
                *self._program(n, "first", ["value0"], "a"),
                *self._program(n, "second", ["value1"], "b"),
                f"const {c} own = member == 0 ? {left} * {cosine} - {right} * {sine} : "
                f"{left} * {sine} + {right} * {cosine};",
                f"q{n.output}[{place}] = from_compute<{storage(output.dtype)}>(own);",
            ]
        values = ["(member == 0 ? value0 : value1)"] if self._pairs(n) else ["value0", "value1"]
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
            yield generate(
                dtype, [turned, turned, to_cache], norm=True, variant=choose_variant(dtype, 2, True, 960, 576)
            )
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
