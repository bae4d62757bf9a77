"""Elementwise programs with reductions of rows inside: a softmax or a norm written out, or a chain of such steps.

A program as in `codegen`, over rows of the last loop dim. An instruction `("value", k, dtype)` is the result of
reduction k, which stands before it; what follows from such values and from operands that are one element a row is
computed once a row (by every thread). A team of threads holds a row in registers, and meets for each reduction; a row
that is too long is gone over again for each reduction, and once to write.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from .codegen import Instruction, Operand, Output, Params, decompose, define, describe, emit, register_dtypes
from .kernel import KernelSource, Launch, Size, product
from .ops import FLOATS, ITEMSIZE, compute, storage
from .row_registers import (
    Held,
    after_reductions,
    in_words,
    is_by_row,
    last_uses,
    late_vectors,
    pack_width,
    registers_held,
    stride_along,
)

OPS = {"sum": "Sum", "prod": "Prod", "max": "Max", "min": "Min", "logsumexp": "LogSumExp"}
MAX_LENGTH = 8192  # of a row in registers
_TEAMS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
_MAX_PACKS = 5  # of a row that a thread holds
_LEAST_EACH = 8  # elements that a thread may hold, however few a pack has
# Of a multiprocessor that are to run together: with fewer, its memory waits for them. Each has 64 registers then, of
# which a row may have 40, and 32 together with vectors that need not be held.
_TOGETHER = 1024
_REGISTERS, _REGISTERS_WITH_VECTORS = 40, 32
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


def _variants(held: Held, width: int, length: int) -> list[Variant]:
    """Those that hold rows of this length: few threads for a row first."""
    packs, registers = -(-length // width), held.in_packs if width > 1 else held.apart
    found = [Variant(team, -(-packs // team) * width) for team in _TEAMS]
    most = max(_LEAST_EACH, _MAX_PACKS * width)
    found = [v for v in found if v.each <= most and v.each * registers <= _most_registers(v)]
    return [v for v in found if v.each * registers <= _REGISTERS] or found


def _most_registers(variant: Variant) -> int:
    """That a thread may hold of a row: half of those that it can have."""
    return 32 if variant.team == 1024 else 64


def holds(held: Held, width: int, length: int) -> bool:
    """Whether there is a variant for rows of this length, or of `MAX_LENGTH` if they are longer.

    Elements may turn out to be apart, so that there are no packs: there is one then, too.
    """
    return all(_variants(held, w, min(length, MAX_LENGTH)) for w in (width, 1))


def choose_variant(held: Held, width: int, rows: int, length: int) -> Variant:
    """A fast variant for about so many rows of about `length` elements, which `holds`; any is correct for any rows.

    Args:
        held: what `registers_held` says.
        width: what `pack_width` says.
        rows: of all outer dims.
        length: of a row.

    >>> held = Held(1.5, 1.5)
    >>> choose_variant(held, 8, 4096, 20), choose_variant(held, 8, 4096, 576), choose_variant(held, 8, 1, 576)
    (Variant(team=4, each=8), Variant(team=32, each=24), Variant(team=128, each=8))
    """
    found = _variants(held, width, min(length, MAX_LENGTH))
    if rows >= _MANY_ROWS:
        return found[0]
    return next((v for v in found if v.each == width), found[-1])


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


class _Packs(enum.Enum):
    """How a row in registers is loaded and stored: element by element, or in packs of 16 bytes on boundaries of memory.

    Those are whole, or may begin before the row and end beyond it.
    """

    NONE = enum.auto()
    WHOLE = enum.auto()
    SHIFTED = enum.auto()


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
        self.in_words = in_words(program, operands)
        self.last_use = last_uses(program, [o.register for o in outputs])
        self.packed_operands = [i for i, o in enumerate(operands) if stride_along(o.access) == 1]
        self.packed_outputs = [j for j, o in enumerate(outputs) if stride_along(o.access) == 1]
        self.width = math.gcd(variant.each, pack_width(operands, outputs))
        self.held = registers_held(program, operands, [o.register for o in outputs])
        self.last_part = after_reductions(program)
        self.vectors = late_vectors(program, operands)
        self.late = self._late()
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
            if stride_along(output.access) == 0 and not self.by_row[output.register]:
                raise ValueError("an output has one element a row, and its register has not")
            if self.dtypes[output.register] != output.dtype:
                raise ValueError(f"register {output.register} is {self.dtypes[output.register]}, not {output.dtype}")

    def _late(self) -> set[int]:
        """The vectors for which there are too few registers while the row is held."""
        words = self.held.in_packs + sum(ITEMSIZE[self.operands[i].dtype] / 4 for i in self.vectors)
        return set(self.vectors) if self.variant.each * words > _REGISTERS_WITH_VECTORS else set()

    def _totals(self) -> list[str]:
        return [f"total_{k}" for k in range(len(self.reductions))]

    def _load(self, i: int) -> str:
        stride = stride_along(self.operands[i].access)
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
            # Asked of all rows, not of one: threads of a warp, which may have several, take one way together.
            body += [f"constexpr int kWidth = {self.width};"]
            body += [f"if (n % kWidth == 0 && {' && '.join(self._are_aligned())}) {{"]
            body += [*_indent(self._held_rows(_Packs.WHOLE)), "return;", "}"]
            # Where a thread has one pack, another would be twice the work; and 64 elements are told apart.
            is_shifted = self.width < each <= 64 - self.width
            body += self._held_rows(_Packs.SHIFTED if is_shifted else _Packs.NONE)
        else:
            body += self._held_rows(_Packs.NONE)
        label = "rows_" + describe(self.program)
        launch = Launch((threads, 1, 1), (("cdiv", rows, per_block), 1, 1))
        together = max(1, _TOGETHER // threads) if each * self.held.in_packs <= _REGISTERS else 1
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

    def _are_aligned(self) -> list[str]:
        """C expressions of whether the arrays along the row are aligned for packs in every row."""
        found = []
        for name, step, arrays, packed in (
            ("p", "t", self.operands, self.packed_operands),
            ("q", "u", self.outputs, self.packed_outputs),
        ):
            for i in packed:
                access = arrays[i].access
                assert isinstance(access, tuple)
                strides = [str(x) if x is not None else f"{step}{i}_{d}" for d, x in enumerate(access[:-1]) if x != 0]
                found.append(f"is_aligned<kWidth>({name}{i})")
                if strides:
                    found.append(f"({' | '.join(strides)}) % kWidth == 0")
        return found

    def _held_rows(self, packs: _Packs) -> list[str]:
        """A row in registers: element-level registers are arrays, until all reductions are done."""
        out: list[str] = []
        pending: list[int] = []
        packed = packs is not _Packs.NONE
        each = "kEach + kWidth" if packs is _Packs.SHIFTED else "kEach"
        place, is_own = self._place(packs)
        loop = ["#pragma unroll", f"for (int u = 0; u < {each}; ++u) {{"]
        if packs is _Packs.SHIFTED:
            loop.append("    if (u == kEach && !has_last) break;")
        if packs is _Packs.WHOLE:
            out += self._load_whole()
        elif packs is _Packs.SHIFTED:
            out += self._place_packs()

        def flush() -> None:
            if not pending:
                return
            for i in pending:
                out.append(f"{compute(self.dtypes[i])} {_PREFIX}{i}[{each}];")
            out.extend(loop)
            out.append(f"    const int at = {place};")
            out.append(f"    const bool own = {is_own};")
            out.extend(f"    {_PREFIX}{i}[u] = {self._expression(i, packed)};" for i in pending)
            out.append("}")
            pending.clear()

        taken_out = self.in_words if packed else {}
        late = {_Packs.NONE: set(), _Packs.WHOLE: set(self.late), _Packs.SHIFTED: set(self.packed_operands)}[packs]
        for i, instruction in enumerate(self.program[: self.last_part]):
            if not self.by_row[i]:
                if instruction[0] == "load" and instruction[1] in late:
                    out += self._load_shifted(instruction[1])
                    late.remove(instruction[1])
                if i not in taken_out:
                    pending.append(i)
                continue
            flush()
            if instruction[0] == "value":
                k = instruction[1]
                value = self._of_element(f"{_PREFIX}{self.reductions[k].register}", packed)
                out += self._start(k)
                out += [
                    *loop,
                    f"    if ({is_own}) Op{k}::push(state_{k}, {value}, 0);",
                    "}",
                    *self._merge(k),
                ]
                operands = {taken_out[r] for r in taken_out if r < i < self.last_use.get(r, 0)}
                out += self._forget(operands, packs)
            out.append("const " + self.lines[i])
        out += ["const " + line for i, line in enumerate(self.lines) if i >= self.last_part and self.by_row[i]]
        return [*out, "if (!has_row) return;", *self._write_rows(packs, late), *self._store_by_row()]

    def _place(self, packs: _Packs) -> tuple[str, str]:
        """Where element u is in the row, and whether it is of it: of whole packs, the pack says that."""
        match packs:
            case _Packs.NONE:
                return "u * kTeam + member", "u * kTeam + member < n"
            case _Packs.WHOLE:
                pack = "(u / kWidth * kTeam + member) * kWidth"
                return f"{pack} + u % kWidth", f"{pack} < n"
            case _Packs.SHIFTED:
                return "(u / kWidth * kTeam + member) * kWidth - before + u % kWidth", "(owned >> u & 1) != 0"

    def _write_rows(self, packs: _Packs, late: Collection[int]) -> list[str]:
        """Statements that make and write what follows from the last reduction, element by element or pack by pack.

        `late` are the operands that are loaded only now.
        """
        stored = [j for j, output in enumerate(self.outputs) if stride_along(output.access) != 0]
        if not stored:
            return []
        packed = packs is not _Packs.NONE
        made = [i for i in range(self.last_part, len(self.program)) if not self.by_row[i]]
        made = [i for i in made if not packed or i not in self.in_words]
        place, is_own = self._place(packs)
        lines = [f"const int at = {place};", f"const bool own = {is_own};"]
        lines += [f"const {compute(self.dtypes[i])} {_PREFIX}{i} = {self._expression(i, packed, late)};" for i in made]
        apart = [j for j in stored if not packed or j not in self.packed_outputs]
        lines += [f"if (own) {self._of_element(self._store(j), packed, late)}" for j in apart]
        if not packed:
            return ["#pragma unroll", "for (int u = 0; u < kEach; ++u) {", *_indent(lines), "}"]
        lines += [
            f"made_{j}[w] = {self._of_element(f'{_PREFIX}{self.outputs[j].register}', packed, late)};"
            for j in self.packed_outputs
        ]
        shift = " - before" if packs is _Packs.SHIFTED else ""
        pack = [f"const int first = (v * kTeam + member) * kWidth{shift};", "if (first >= n) continue;"]
        for i in sorted(late):
            pack += self._load_late(i, packs)
        pack += [f"compute_t<{storage(self.outputs[j].dtype)}> made_{j}[kWidth];" for j in self.packed_outputs]
        pack += ["#pragma unroll", "for (int w = 0; w < kWidth; ++w) {", "    const int u = v * kWidth + w;"]
        pack += [*_indent(lines), "}"]
        for j in self.packed_outputs:
            what = f"row_of_q{j} + first, stored<{storage(self.outputs[j].dtype)}>(made_{j})"
            ends = ", -first, n - first" if packs is _Packs.SHIFTED else ""
            pack.append(f"store_{'range' if ends else 'aligned'}<kWidth>({what}{ends});")
        return ["#pragma unroll", f"for (int v = 0; v < {self._count(packs)}; ++v) {{", *_indent(pack), "}"]

    def _load_whole(self) -> list[str]:
        """Statements that load the packs of a row, which are whole."""
        lines = []
        wanted = [i for i in self.packed_operands if i not in self.late]
        for i in wanted:
            word, count = self._words(i)
            lines.append(f"Pack<{word}, {count}> words_of_p{i}[kEach / kWidth] = {{}};")
        lines += ["#pragma unroll", "for (int u = 0; u < kEach / kWidth; ++u) {"]
        lines += ["    const int at = (u * kTeam + member) * kWidth;", "    if (at >= n) continue;"]
        for i in wanted:
            word, count = self._words(i)
            source = f"reinterpret_cast<const {word}*>(row_of_p{i} + at)"
            lines.append(f"    words_of_p{i}[u] = load_aligned<{count}>({source});")
        return [*lines, "}"]

    def _place_packs(self) -> list[str]:
        """Statements that say where packs begin before the row, and which elements are of it."""
        # They lie on boundaries of what is written, if it is along the row, else of what is read.
        written, read = self.packed_outputs, self.packed_operands
        leader = f"q{written[0]}" if written else f"p{read[0]}"
        return [
            f"const int before = elements_past_boundary<kWidth>(row_of_{leader});",
            "// There may be one pack more than threads have.",
            "const bool has_last = n + before > kTeam * kEach;",
            "u64 owned = 0;",
            "#pragma unroll",
            "for (int u = 0; u < kEach / kWidth + 1; ++u) {",
            "    const int at = (u * kTeam + member) * kWidth - before;",
            "    owned |= u64(bits_between(at < 0 ? -at : 0, n - at < kWidth ? n - at : kWidth)) << (u * kWidth);",
            "}",
        ]

    def _load_shifted(self, i: int) -> list[str]:
        """Statements that load the packs of operand i, where its first use is: there are few registers."""
        word, count = self._words(i)
        pack = f"Pack<{word}, {count}>"
        return [
            f"{pack} words_of_p{i}[kEach / kWidth + 1];",
            "#pragma unroll",
            "for (int u = 0; u < kEach / kWidth + 1; ++u) {",
            "    const int at = (u * kTeam + member) * kWidth - before;",
            "    const int from = at < 0 ? -at : 0, to = n - at < kWidth ? n - at : kWidth;",
            f"    words_of_p{i}[u] = bits_as<{pack}>(load_range<kWidth>(row_of_p{i} + at, from, to));",
            "}",
        ]

    def _load_late(self, i: int, packs: _Packs) -> list[str]:
        """Statements that load the one pack of operand i that the statements around them are about."""
        word, count = self._words(i)
        pack = f"Pack<{word}, {count}>"
        if packs is _Packs.SHIFTED:
            load = "load_unaligned" if i in self.vectors else "load_range"
            loaded = f"bits_as<{pack}>({load}<kWidth>(row_of_p{i} + first, -first, n - first))"
        else:
            loaded = f"load_aligned<{count}>(reinterpret_cast<const {word}*>(row_of_p{i} + first))"
        return [f"const {pack} words_of_p{i} = {loaded};"]

    def _words(self, i: int) -> tuple[str, int]:
        """Of a pack: not elements, since the compiler would take words apart where those of the row meet zeros."""
        size = self.width * ITEMSIZE[self.operands[i].dtype]
        word = math.gcd(4, size)
        return f"u{8 * word}", size // word

    @staticmethod
    def _count(packs: _Packs) -> str:
        """Packs that a thread holds."""
        return "kEach / kWidth + 1" if packs is _Packs.SHIFTED else "kEach / kWidth"

    def _forget(self, operands: Collection[int], packs: _Packs) -> list[str]:
        """Statements after which elements of these operands are taken out of their words again, and not kept."""
        lines = []
        for operand in sorted(operands):
            if self._words(operand)[0] == "u32":
                lines += ["#pragma unroll", f"for (int u = 0; u < {self._count(packs)}; ++u) {{"]
                lines += [f"    forget_made_of(words_of_p{operand}[u]);", "}"]
        return lines

    def _expression(self, i: int, packed: bool, late: Collection[int] | None = None) -> str:
        """How element u of a register is computed of others; see `_of_element`."""

        def of_pack(found: re.Match[str]) -> str:
            operand = int(found[1])
            pack = f"Pack<{storage(self.operands[operand].dtype)}, kWidth>"
            words = f"words_of_p{operand}" + ("" if operand in (late or ()) else "[u / kWidth]")
            return f"element(bits_as<{pack}>({words}), u % kWidth)"

        text = self.lines[i].partition(" = ")[2].removesuffix(";")
        if packed:
            text = re.sub(r"load_if\(own, row_of_p(\d+) \+ at\)", of_pack, text)
        return self._of_element(text, packed, late)

    def _of_element(self, text: str, packed: bool, late: Collection[int] | None = None) -> str:
        """The text with registers of elements as arrays, or as what packs hold of them.

        `late`, after all reductions: operands of which there is one pack. Registers that are made then are no arrays.
        """

        def element(found: re.Match[str]) -> str:
            i = int(found[1])
            if self.by_row[i]:
                return found[0]
            if packed and i in self.in_words:
                return self._expression(i, packed, late)
            return found[0] if late is not None and i >= self.last_part else f"{found[0]}[u]"

        return re.sub(rf"\b{_PREFIX}(\d+)\b", element, text)

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
        stored = [j for j, output in enumerate(self.outputs) if stride_along(output.access) != 0]
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
        step = "" if stride_along(output.access) == 1 else f" * u{j}_{self.n_dims - 1}"
        return f"row_of_q{j}[at{step}] = from_compute<{storage(output.dtype)}>({_PREFIX}{output.register});"

    def _store_by_row(self) -> list[str]:
        lines = [
            f"*row_of_q{j} = from_compute<{storage(output.dtype)}>({_PREFIX}{output.register});"
            for j, output in enumerate(self.outputs)
            if stride_along(output.access) == 0
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
        held = registers_held(program, operands, [o.register for o in outputs])
        width = pack_width(operands, outputs)
        for rows, length in ((5000, 20), (5000, 576), (100, 700), (100, 1500), (5000, 4096), (100, 8192)):
            if holds(held, width, length):
                variant = choose_variant(held, width, rows, length)
                yield generate(program, reductions, operands, outputs, 2, variant)
