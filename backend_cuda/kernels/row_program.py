"""Elementwise programs with reductions of rows inside: a softmax or a norm written out, or a chain of such steps.

A program as in `codegen`, over rows of the last loop dim. An instruction `("value", k, dtype)` is the result of
reduction k, which stands before it; what follows from such values and from operands that are one element a row is
computed once a row (by every thread). A team of threads holds a row in registers, and meets for each reduction; a row
that is too long is gone over again for each reduction, and once to write. Where rows are of whole packs of 16 bytes and
begin on their boundaries, packs are loaded and stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .codegen import Instruction, Operand, Output, Params, decompose, define, describe, emit, register_dtypes
from .kernel import KernelSource, Launch, Size, product
from .ops import FLOATS, ITEMSIZE, compute, storage

OPS = {"sum": "Sum", "prod": "Prod", "max": "Max", "min": "Min", "logsumexp": "LogSumExp"}
MAX_LENGTH = 8192  # of a row in registers
_TEAMS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
_MAX_PACKS = 4  # of a row that a thread holds
_LEAST_EACH = 8  # elements that a thread may hold, however few a pack has
# Of a multiprocessor that are to run together: with fewer, its memory waits for them. Each has 64 registers then, of
# which a row may have 40.
_TOGETHER = 1024
_REGISTERS = 40
_MANY_ROWS = 2048  # that keep a multiprocessor's memory busy however few threads share a row
_PREFIX = "reg_"


@dataclass(frozen=True)
class Reduction:
    """An op of `OPS` over the row's values of a register."""

    op: str
    register: int


@dataclass(frozen=True)
class Variant:
    """Threads that share a row, a power of two, and elements that each holds, a multiple of a pack's."""

    team: int
    each: int


def fits(length: int) -> bool:
    """Whether registers hold rows of this length, which have something to be reduced."""
    return 1 < length <= MAX_LENGTH


def _variants(held: float, width: int, length: int) -> list[Variant]:
    """Those that hold rows of this length, if an element takes `held` registers: few threads for a row first."""
    packs = -(-length // width)
    found = [Variant(team, -(-packs // team) * width) for team in _TEAMS]
    most = max(_LEAST_EACH, _MAX_PACKS * width)
    found = [v for v in found if v.each <= most and v.each * held <= _most_registers(v)]
    return [v for v in found if v.each * held <= _REGISTERS] or found


def _most_registers(variant: Variant) -> int:
    """That a thread may hold of a row: half of those that it can have."""
    return 32 if variant.team == 1024 else 64


def holds(held: float, width: int, length: int) -> bool:
    """Whether there is a variant for rows of this length, or of `MAX_LENGTH` if they are longer."""
    return bool(_variants(held, width, min(length, MAX_LENGTH)))


def choose_variant(held: float, width: int, rows: int, length: int) -> Variant:
    """A fast variant for about so many rows of about `length` elements, which `holds`; any is correct for any rows.

    Args:
        held: what `registers_held` says.
        width: what `pack_width` says.
        rows: of all outer dims.
        length: of a row.

    >>> choose_variant(1.5, 8, 4096, 20), choose_variant(1.5, 8, 4096, 576), choose_variant(1.5, 8, 1, 576)
    (Variant(team=4, each=8), Variant(team=32, each=24), Variant(team=128, each=8))
    """
    found = _variants(held, width, min(length, MAX_LENGTH))
    if rows >= _MANY_ROWS:
        return found[0]
    return next((v for v in found if v.each == width), found[-1])


def pack_width(operands: Sequence[Operand], outputs: Sequence[Output]) -> int:
    """Elements of a pack: 16 bytes of the narrowest array that lies along the row."""
    arrays: tuple[Operand | Output, ...] = (*operands, *outputs)
    sizes = [ITEMSIZE[a.dtype] for a in arrays if _last(a.access) == 1]
    return 16 // min(sizes) if sizes else 1


def is_by_row(program: Sequence[Instruction], operands: Sequence[Operand]) -> list[bool]:
    """Of each register, whether it is one value a row."""
    found: list[bool] = []
    for instruction in program:
        match instruction[0]:
            case "load":
                found.append(_last(operands[instruction[1]].access) == 0)
            case "op":
                found.append(all(found[r] for r in instruction[3]))
            case "scalar" | "value":
                found.append(True)
            case other:
                raise ValueError(f"a row program has no {other!r}")
    return found


def registers_held(
    program: Sequence[Instruction], operands: Sequence[Operand], reductions: Sequence[Reduction], kept: Sequence[int]
) -> float:
    """4-byte registers for an element of a row that are held while a reduction is merged, or written, at most.

    What is loaded in packs is loaded first, and until it is used takes the room that it has in memory. `kept` are the
    registers that are written.
    """
    dtypes, by_row = register_dtypes(program, operands), is_by_row(program, operands)
    words = [0 if by_row[r] else max(4, ITEMSIZE[dtype]) // 4 for r, dtype in enumerate(dtypes)]
    last_use: dict[int, int] = {}
    for i, instruction in enumerate(program):
        for r in instruction[3] if instruction[0] == "op" else ():
            last_use[r] = i
    last_use.update(dict.fromkeys(kept, len(program)))
    loads = [
        (i, ITEMSIZE[dtypes[i]] / 4)
        for i, instruction in enumerate(program)
        if instruction[0] == "load" and _last(operands[instruction[1]].access) == 1
    ]

    def held_at(i: int) -> float:
        made = sum(words[r] for r in range(i) if last_use.get(r, 0) > i)
        return made + sum(size for at, size in loads if at > i)

    written: float = sum(words[r] for r in set(kept))
    return max([written, *(held_at(i) for i, instruction in enumerate(program) if instruction[0] == "value")])


def generate(
    program: Sequence[Instruction],
    reductions: Sequence[Reduction],
    operands: Sequence[Operand],
    outputs: Sequence[Output],
    n_dims: int,
    variant: Variant,
) -> KernelSource:
    """A kernel for a program over loop dims of which the last is the row.

    Parameters, in order: the dims; each operand's pointer and runtime strides; each output's; the program's scalars.
    Any sizes but 0. Outputs may not lie on operands.

    Args:
        program: the instructions; no iota.
        reductions: by number.
        operands: arrays read, with a stride for every loop dim: 0, 1, or None for a parameter; along the last, 0 says
            that there is one element a row.
        outputs: arrays written, likewise; along the last, 0 for one element a row.
        n_dims: at least 1.
        variant: from `choose_variant`.

    Raises:
        ValueError: an argument makes no sense.
        TypeError: a reduction of another dtype than a floating one.

    >>> share = ("op", "divide", (), (0, 1), ("float32", "float32"), "float32")
    >>> program, rows = [("load", 0), ("value", 0, "float32"), share], (None, 1)
    >>> generate(program, [Reduction("sum", 0)], [Operand("float32", rows)], [Output(2, "float32", rows)], 2,
    ...          Variant(32, 4)).launch.grid
    (('cdiv', 'd0', 8), 1, 1)
    """
    return _Generator(program, reductions, operands, outputs, n_dims, variant).kernel()


def _last(access: object) -> int | None:
    if not isinstance(access, tuple):
        raise ValueError(f"arrays of a row program have strides, not {access!r}")
    found = access[-1]
    return found if found is None else int(found)


class _Generator:
    def __init__(
        self,
        program: Sequence[Instruction],
        reductions: Sequence[Reduction],
        operands: Sequence[Operand],
        outputs: Sequence[Output],
        n_dims: int,
        variant: Variant,
    ) -> None:
        self.program, self.reductions, self.operands, self.outputs = program, reductions, operands, outputs
        self.n_dims, self.variant = n_dims, variant
        self.by_row = is_by_row(program, operands)
        self.dtypes = register_dtypes(program, operands)
        self._check()
        self.packed_operands = [i for i, o in enumerate(operands) if _last(o.access) == 1]
        self.packed_outputs = [j for j, o in enumerate(outputs) if _last(o.access) == 1]
        self.width = math.gcd(variant.each, pack_width(operands, outputs))
        self.lines = [
            re.sub(r"^const ", "", line)
            for line in emit(program, operands, self._load, lambda axis: "", value=self._totals(), prefix=_PREFIX)
        ]

    def _check(self) -> None:
        for reduction in self.reductions:
            if reduction.op not in OPS:
                raise ValueError(f"a row program does not reduce by {reduction.op!r}")
            if self.dtypes[reduction.register] not in FLOATS:
                dtype = self.dtypes[reduction.register]
                raise TypeError(f"[{reduction.op}] no row program for {dtype}; convert it to a floating dtype first.")
        arrays: tuple[Operand | Output, ...] = (*self.operands, *self.outputs)
        for array in arrays:
            if not isinstance(array.access, tuple) or len(array.access) != self.n_dims:
                raise ValueError(f"an array has strides {array.access} for {self.n_dims} loop dims")
        for output in self.outputs:
            if _last(output.access) == 0 and not self.by_row[output.register]:
                raise ValueError("an output has one element a row, and its register has not")
            if self.dtypes[output.register] != output.dtype:
                raise ValueError(f"register {output.register} is {self.dtypes[output.register]}, not {output.dtype}")

    def _totals(self) -> list[str]:
        return [f"total_{k}" for k in range(len(self.reductions))]

    def _load(self, i: int) -> str:
        stride = _last(self.operands[i].access)
        if stride == 0:
            return f"*row_of_p{i}"
        step = "" if stride == 1 else f" * t{i}_{self.n_dims - 1}"
        return f"load_if(own, row_of_p{i} + at{step})"

    # ---- text

    def kernel(self) -> KernelSource:
        team, each = self.variant.team, self.variant.each
        threads = max(team, 256) if team <= 32 else team  # a block meets in one place of shared memory
        per_block = threads // team
        last = self.n_dims - 1
        params = Params()
        params.dims(self.n_dims)
        params.operands(self.operands)
        params.outputs(self.outputs)
        params.scalars(self.program)
        rows: Size = product([f"d{d}" for d in range(last)])
        count = " * ".join(f"d{d}" for d in range(last)) or "1"
        body = [
            f"constexpr int kTeam = {team}, kEach = {each};",
            f"const i64 own_row = i64(blockIdx.x) * {per_block} + threadIdx.x / kTeam, rows = {count};",
            "// Teams beyond the last row go along with it, since whole warps meet in shuffles.",
            "const bool has_row = own_row < rows;",
            *(["i64 rest = has_row ? own_row : rows - 1;"] if last else []),
            *(decompose("rest", range(last)) if last else []),
            "const int member = threadIdx.x % kTeam;",
            f"const i64 length = d{last};",
        ]
        for i, operand in enumerate(self.operands):
            body.append(f"const auto* row_of_p{i} = p{i}{self._offset(operand.access, f't{i}_')};")
        for j, output in enumerate(self.outputs):
            body.append(f"auto* row_of_q{j} = q{j}{self._offset(output.access, f'u{j}_')};")
        body += ["if (length > kTeam * kEach) {", *_indent(self._long_rows()), "return;", "}"]
        body.append("const int n = int(length);")
        if self.width > 1:
            packed = [f"row_of_p{i}" for i in self.packed_operands] + [f"row_of_q{j}" for j in self.packed_outputs]
            aligned = " && ".join(f"is_aligned<kWidth>({row})" for row in packed)
            body += [f"constexpr int kWidth = {self.width};", f"if (n % kWidth == 0 && {aligned}) {{"]
            body += [*_indent(self._held_rows(packed=True)), "return;", "}"]
        body += self._held_rows()
        label = "rows_" + describe(self.program)
        launch = Launch((threads, 1, 1), (("cdiv", rows, per_block), 1, 1))
        held = registers_held(self.program, self.operands, self.reductions, [o.register for o in self.outputs])
        together = max(1, _TOGETHER // threads) if each * held <= _REGISTERS else 1
        return define(label, "row_program.cuh", params, body, launch, together=together)

    def _offset(self, access: object, prefix: str) -> str:
        assert isinstance(access, tuple)
        terms = []
        for d, stride in enumerate(access[:-1]):
            if stride != 0:
                terms.append(f"c{d}" if stride == 1 else f"c{d} * {prefix}{d}")
        return "".join(f" + {term}" for term in terms)

    def _merge(self, k: int) -> list[str]:
        return [f"const auto total_{k} = Op{k}::result(merge_team<Op{k}, kTeam>(state_{k}));"]

    def _start(self, k: int) -> list[str]:
        reduction = self.reductions[k]
        kind = f"{OPS[reduction.op]}<{compute(self.dtypes[reduction.register])}>"
        return [f"using Op{k} = {kind};", f"typename Op{k}::State state_{k} = Op{k}::identity();"]

    def _held_rows(self, packed: bool = False) -> list[str]:
        """A row in registers: element-level registers are arrays. `packed`: it is loaded and stored in packs."""
        out: list[str] = []
        pending: list[int] = []
        # The length is of whole packs: whether an element is of the row, its pack says.
        first = "(u / kWidth * kTeam + member) * kWidth" if packed else "u * kTeam + member"
        place = f"{first} + u % kWidth" if packed else first
        if packed:
            for i in self.packed_operands:
                word, count = self._words(i)
                out.append(f"Pack<{word}, {count}> words_of_p{i}[kEach / kWidth] = {{}};")
            out += ["#pragma unroll", "for (int u = 0; u < kEach / kWidth; ++u) {"]
            out += ["    const int at = (u * kTeam + member) * kWidth;", "    if (at >= n) continue;"]
            for i in self.packed_operands:
                word, count = self._words(i)
                source = f"reinterpret_cast<const {word}*>(row_of_p{i} + at)"
                out.append(f"    words_of_p{i}[u] = load_aligned<{count}>({source});")
            out.append("}")

        def flush() -> None:
            if not pending:
                return
            for i in pending:
                out.append(f"{compute(self.dtypes[i])} {_PREFIX}{i}[kEach];")
            out.append("#pragma unroll")
            out.append("for (int u = 0; u < kEach; ++u) {")
            out.append(f"    const int at = {place};")
            out.append(f"    const bool own = {first} < n;")
            for i in pending:
                text = self.lines[i].partition(" = ")[2]
                if packed:
                    text = re.sub(r"load_if\(own, row_of_p(\d+) \+ at\)", self._element_of_pack, text)
                out.append(f"    {_PREFIX}{i}[u] = {self._of_element(text)}")
            out.append("}")
            pending.clear()

        for i, instruction in enumerate(self.program):
            if not self.by_row[i]:
                pending.append(i)
                continue
            flush()
            if instruction[0] == "value":
                k = instruction[1]
                value = self._of_element(f"{_PREFIX}{self.reductions[k].register}")
                out += self._start(k)
                out += [
                    "#pragma unroll",
                    "for (int u = 0; u < kEach; ++u) {",
                    f"    if ({first} < n) Op{k}::push(state_{k}, {value}, 0);",
                    "}",
                    *self._merge(k),
                ]
            out.append("const " + self.lines[i])
        flush()
        out.append("if (!has_row) return;")
        stored = [j for j, output in enumerate(self.outputs) if _last(output.access) != 0]
        if packed:
            out += self._store_packs()
            stored = [j for j in stored if j not in self.packed_outputs]
        if stored:
            out += ["#pragma unroll", "for (int u = 0; u < kEach; ++u) {", f"    const int at = {place};"]
            out += [f"    if (at < n) {self._of_element(self._store(j))}" for j in stored]
            out.append("}")
        return out + self._store_by_row()

    def _words(self, i: int) -> tuple[str, int]:
        """Of a pack: not elements, since the compiler would take words apart where those of the row meet zeros."""
        size = self.width * ITEMSIZE[self.operands[i].dtype]
        word = math.gcd(4, size)
        return f"u{8 * word}", size // word

    def _element_of_pack(self, found: re.Match[str]) -> str:
        i = int(found[1])
        pack = f"Pack<{storage(self.operands[i].dtype)}, kWidth>"
        return f"element(bits_as<{pack}>(words_of_p{i}[u / kWidth]), u % kWidth)"

    def _store_packs(self) -> list[str]:
        lines = ["#pragma unroll", "for (int v = 0; v < kEach / kWidth; ++v) {"]
        lines += ["    const int first = (v * kTeam + member) * kWidth;", "    if (first >= n) continue;"]
        for j in self.packed_outputs:
            kind, register = storage(self.outputs[j].dtype), self._of_element(f"{_PREFIX}{self.outputs[j].register}")
            lines += [
                f"    compute_t<{kind}> made_{j}[kWidth];",
                "#pragma unroll",
                f"    for (int w = 0; w < kWidth; ++w) made_{j}[w] = {register.replace('[u]', '[v * kWidth + w]')};",
                f"    store_aligned<kWidth>(row_of_q{j} + first, stored<{kind}>(made_{j}));",
            ]
        return [*lines, "}"] if self.packed_outputs else []

    def _of_element(self, text: str) -> str:
        """The text with registers of elements as arrays."""
        return re.sub(rf"\b{_PREFIX}(\d+)\b", lambda m: m[0] if self.by_row[int(m[1])] else f"{m[0]}[u]", text)

    def _long_rows(self) -> list[str]:
        """A row that is gone over again for each reduction, and once more to be written."""
        out: list[str] = []
        for i, instruction in enumerate(self.program):
            if not self.by_row[i]:
                continue
            if instruction[0] == "value":
                k = instruction[1]
                register = self.reductions[k].register
                push = f"Op{k}::push(state_{k}, {_PREFIX}{register}, 0);"
                out += [*self._start(k), *self._pass([register], [push]), *self._merge(k)]
            out.append("const " + self.lines[i])
        out.append("if (!has_row) return;")
        stored = [j for j, output in enumerate(self.outputs) if _last(output.access) != 0]
        if stored:
            out += self._pass([self.outputs[j].register for j in stored], [self._store(j) for j in stored])
        return out + self._store_by_row()

    def _pass(self, wanted: Sequence[int], then: Sequence[str]) -> list[str]:
        needed: set[int] = set()
        stack = list(wanted)
        while stack:
            r = stack.pop()
            if r in needed or self.by_row[r]:
                continue
            needed.add(r)
            if self.program[r][0] == "op":
                stack.extend(self.program[r][3])
        lines = ["const " + self.lines[r] for r in sorted(needed)]
        head = ["for (i64 at = member; at < length; at += kTeam) {", "    constexpr bool own = true;"]
        return [*head, *_indent([*lines, *then]), "}"]

    def _store(self, j: int) -> str:
        output = self.outputs[j]
        step = "" if _last(output.access) == 1 else f" * u{j}_{self.n_dims - 1}"
        return f"row_of_q{j}[at{step}] = from_compute<{storage(output.dtype)}>({_PREFIX}{output.register});"

    def _store_by_row(self) -> list[str]:
        lines = [
            f"*row_of_q{j} = from_compute<{storage(output.dtype)}>({_PREFIX}{output.register});"
            for j, output in enumerate(self.outputs)
            if _last(output.access) == 0
        ]
        return ["if (member == 0) {", *_indent(lines), "}"] if lines else []


def _indent(lines: Sequence[str]) -> list[str]:
    return ["    " + line for line in lines]


def _softmax(dtype: str) -> tuple[list[Instruction], list[Reduction]]:
    """Greatest, exponentials, their sum."""
    pair = (dtype, dtype)
    program: list[Instruction] = [
        ("load", 0),
        ("value", 0, dtype),
        ("op", "subtract", (), (0, 1), pair, dtype),
        ("op", "exp", (), (2,), (dtype,), dtype),
        ("value", 1, dtype),
        ("op", "divide", (), (3, 4), pair, dtype),
    ]
    return program, [Reduction("max", 0), Reduction("sum", 3)]


def catalogue(full: bool) -> Iterator[KernelSource]:
    """A softmax written out, in variants, in one dtype (`full`: in every)."""
    for dtype in ("float32", "bfloat16", "float16", "float64") if full else ("bfloat16",):
        program, reductions = _softmax(dtype)
        operands, outputs = [Operand(dtype, (None, 1))], [Output(5, dtype, (None, 1)), Output(4, dtype, (1, 0))]
        held = registers_held(program, operands, reductions, [o.register for o in outputs])
        width = pack_width(operands, outputs)
        for rows, length in ((5000, 20), (5000, 576), (100, 700), (100, 1500), (5000, 4096), (100, 8192)):
            if holds(held, width, length):
                variant = choose_variant(held, width, rows, length)
                yield generate(program, reductions, operands, outputs, 2, variant)
