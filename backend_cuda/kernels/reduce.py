"""Reductions over any of the loop dims, with an elementwise program in front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .codegen import (
    Instruction,
    Operand,
    Params,
    check,
    decompose,
    define,
    describe,
    emit,
    last_stride,
    offset,
    register_dtypes,
    vector_width,
)
from .kernel import KernelSource, Launch, Size, product
from .ops import DTYPES, FLOATS, INEXACT, INTEGERS, ITEMSIZE, compute, storage

OPS = ("sum", "prod", "max", "min", "any", "all", "logsumexp", "argmax", "argmin")
Variant = Literal["thread", "team", "warp", "block", "split", "column", "narrow_column"]

THREADS = 256
# Blocks that a split reduction is spread over: four for each of an H100's 132 multiprocessors.
SPLIT_BLOCKS = 528
_TEAMS = {"thread": 1, "team": 8, "warp": 32, "block": THREADS, "split": THREADS}
_ACROSS = {"column": 32, "narrow_column": 4}
_UNROLL = 4  # packs each thread has in flight
_CLASSES = {
    "sum": "Sum",
    "prod": "Prod",
    "max": "Max",
    "min": "Min",
    "any": "Any",
    "all": "All",
    "logsumexp": "LogSumExp",
    "argmax": "ArgMax",
    "argmin": "ArgMin",
}


def choose_variant(kinds: str, sizes: Sequence[int]) -> Variant:
    """A fast variant for loop dims of these kinds and sizes; the kernel is then correct for any sizes.

    >>> choose_variant("kr", (4096, 4096)), choose_variant("rk", (4096, 4096)), choose_variant("r", (1 << 24,))
    ('block', 'column', 'split')
    """
    kept = reduced = 1
    for kind, size in zip(kinds, sizes, strict=True):
        if kind == "k":
            kept *= size
        else:
            reduced *= size
    if kinds.endswith("k"):
        if reduced <= 4:
            return "thread"
        return "column" if sizes[-1] >= 64 else "narrow_column"
    if reduced <= 8:
        return "thread"
    if reduced <= 64:
        return "team"
    if reduced <= 512 or (reduced <= 2048 and kept >= 4096):
        return "warp"
    return "split" if kept * 2 <= SPLIT_BLOCKS and reduced >= 16384 else "block"


def generate(
    op: str,
    program: Sequence[Instruction],
    kinds: str,
    operands: Sequence[Operand],
    register: int,
    out_dtype: str,
    *,
    variant: Variant,
) -> KernelSource:
    """A kernel that runs `program` at every point of the loop dims and reduces the value of `register` over some dims.

    The output is contiguous over the kept dims in their order (one element if none is kept). 16-bit floats accumulate
    in float; sums and products of integers wrap. `max` and `min` give NaN where there is one, and so does the first of
    it for `argmax` and `argmin`, whose uint32 result is the linear index over the reduced dims. Over no elements `sum`,
    `prod`, `any`, `all` and `logsumexp` give 0, 1, false, true and minus infinity. Results do not depend on timing.

    Parameters, in order: the dims; each operand's pointer and runtime strides; the output; the program's scalars and
    integers; for "split" and the column variants a workspace, and `SPLIT_BLOCKS` counters.

    Args:
        op: one of `OPS`.
        program: the instructions, see `codegen`; at least `[("load", 0)]`.
        kinds: "k" (kept) or "r" (reduced) for each loop dim, outermost first. Kept dims stand in the order of the
            output's; put the dim along which the largest operand has stride 1 last where that leaves a choice.
        operands: what the program reads, accesses over all loop dims.
        register: the value to reduce.
        out_dtype: uint32 for argmax and argmin, bool for any and all; for sum and prod of integers or bool, an integer
            dtype; else the register's.
        variant: from `choose_variant`. "thread", "team" (8 lanes), "warp" and "block" say what takes one output;
            "split" is several blocks for each output; with "column" and "narrow_column" (the last dim is kept), threads
            lie along that dim, and the reduced dims are split over blocks where there are few columns.

    Raises:
        ValueError: an argument makes no sense.
        TypeError: the op takes no such dtype.

    >>> generate("sum", [("load", 0)], "kr", [Operand("float32")], 0, "float32", variant="warp").launch.grid
    (('cdiv', 'd0', 8), 1, 1)
    """
    n_dims = len(kinds)
    if n_dims < 1 or set(kinds) - {"k", "r"}:
        raise ValueError(f"loop dims are kept or reduced, 'k' or 'r': {kinds!r}")
    check(program, operands, (), n_dims)
    if not 0 <= register < len(program):
        raise ValueError(f"register {register} of {len(program)} is to be reduced")
    reduction = _Reduction(op, program, kinds, operands, register, out_dtype)
    reduction.check_dtypes()
    if variant in _TEAMS:
        return _rows_kernel(reduction, variant)
    if variant in _ACROSS:
        if not kinds.endswith("k"):
            raise ValueError(f"variant {variant!r} is for a last dim that is kept, not {kinds!r}")
        return _columns_kernel(reduction, variant)
    raise ValueError(f"unknown variant {variant!r}")


@dataclass(frozen=True)
class _Reduction:
    op: str
    program: Sequence[Instruction]
    kinds: str
    operands: Sequence[Operand]
    register: int
    out_dtype: str

    @property
    def dtype(self) -> str:
        """The dtype of what is reduced."""
        return register_dtypes(self.program, self.operands)[self.register]

    def check_dtypes(self) -> None:
        if self.op not in OPS:
            raise ValueError(f"unknown reduction {self.op!r}")
        dtype, out = self.dtype, self.out_dtype
        if self.op == "logsumexp" and dtype not in INEXACT:
            raise TypeError(f"[logsumexp] no CUDA kernel for {dtype}; convert it to a floating dtype first.")
        allowed = {dtype}
        if self.op in ("argmax", "argmin"):
            allowed = {"uint32"}
        elif self.op in ("any", "all"):
            allowed = {"bool"}
        elif self.op in ("sum", "prod") and dtype not in INEXACT:
            allowed = set(INTEGERS)
        if out not in allowed:
            raise ValueError(f"[{self.op}] of {dtype} cannot give {out}")

    @property
    def element(self) -> str:
        """The dtype in which elements are combined: 4 bytes or more, except for any and all."""
        if self.op in ("any", "all"):
            return "bool"
        dtype = self.dtype
        if dtype in INEXACT:
            return "float32" if dtype in ("float16", "bfloat16") else dtype
        if self.op in ("sum", "prod"):
            return "uint64" if ITEMSIZE[self.out_dtype] == 8 else "uint32"
        if ITEMSIZE[dtype] == 8:
            return dtype
        return "int32" if dtype[0] == "i" else "uint32"

    @property
    def state_bytes(self) -> int:
        size = max(4, ITEMSIZE[self.element])
        return 2 * size if self.op in ("argmax", "argmin", "logsumexp") else size

    @property
    def label(self) -> str:
        prologue = describe(self.program)
        return f"{self.op}_{self.kinds}_{self.dtype}" + ("" if prologue == "copy" else f"_of_{prologue}")

    def kept(self) -> list[int]:
        return [d for d, kind in enumerate(self.kinds) if kind == "k"]

    def reduced(self) -> list[int]:
        return [d for d, kind in enumerate(self.kinds) if kind == "r"]

    def width(self) -> int:
        """Consecutive elements of the last dim that a thread takes; more than 8 would need too many registers."""
        return vector_width([o.dtype for o in self.operands if last_stride(o.access) == 1], 8)

    def params(self) -> Params:
        params = Params()
        params.dims(len(self.kinds))
        params.operands(self.operands)
        params.add(("out", 0), f"{storage(self.out_dtype)}* __restrict__ q0")
        params.scalars(self.program)
        return params

    def coordinates(self) -> list[str]:
        """Reduced coordinates differ between the packs in flight; the last dim's is that of the pack's start."""
        return [f"c{d}[u]" if kind == "r" else f"c{d}" for d, kind in enumerate(self.kinds)]

    @property
    def takes_packs(self) -> bool:
        """Whether the elements of a pack are pushed at once, in place of one by one."""
        return self.op == "logsumexp" and self.element != "complex64"

    def push(self, state: str, last: str) -> list[str]:
        """Statements that compute element j of pack u and push it; `last` is its coordinate along the last dim."""
        lines, value, index = self._element_statements(last)
        return [*lines, f"Op::push({state}, {value}, {index});"]

    def push_pack(self, state: str, last: str, width: int) -> list[str]:
        """Statements that compute the elements of pack u from from[u] to to[u] and push them."""
        if not self.takes_packs:
            return [
                "#pragma unroll",
                f"for (int j = 0; j < {width}; ++j) {{",
                "    if (j >= from[u] && j < to[u]) {",
                *("        " + line for line in self.push(state, last)),
                "    }",
                "}",
            ]
        lines, value, _ = self._element_statements(last)
        element = compute(self.element)
        return [
            "if (from[u] >= to[u]) continue;",
            f"{element} x[{width}];",
            "#pragma unroll",
            f"for (int j = 0; j < {width}; ++j) {{",
            *("    " + line for line in lines),
            f"    x[j] = {value};",
            "}",
            f"if (from[u] > 0 || to[u] < {width}) {{",
            "#pragma unroll",
            f"    for (int j = 0; j < {width}; ++j) x[j] = j >= from[u] && j < to[u] ? x[j] : lowest<{element}>();",
            "}",
            f"Op::push_all({state}, x);",
        ]

    def _element_statements(self, last: str) -> tuple[list[str], str, str]:
        """Statements that compute element j of pack u, the element as it is pushed, and its index."""
        coordinates = [*self.coordinates()[:-1], f"({last} + j)"]

        def coordinate(axis: int | None) -> str:
            return coordinates[axis] if axis is not None else horner(coordinates, range(len(self.kinds)))

        lines = emit(self.program, self.operands, lambda i: f"element(a{i}[u], j)", coordinate)
        value = f"r{self.register}"
        if self.dtype in ("float16", "bfloat16") and self.op in ("any", "all", "argmax", "argmin"):
            value = f"rounded<{storage(self.dtype)}>({value})"  # what the stored array has: ties, and zeros
        value = f"cast<{storage(self.element)}>({value})"
        indexed = self.op in ("argmax", "argmin")
        index = horner([coordinates[d] for d in self.reduced()], self.reduced()) if indexed else "0"
        return lines, value, index

    def positions(self) -> list[str]:
        """The C expression of each operand's offset at the start of pack u."""
        coordinates = self.coordinates()
        linear = horner(coordinates, range(len(self.kinds)))
        return [offset(o.access, coordinates, f"t{i}_", linear) for i, o in enumerate(self.operands)]

    def stored(self, state: str) -> str:
        out = storage(self.out_dtype)
        return f"from_compute<{out}>(cast<{out}>(Op::result({state})))"

    def using(self) -> str:
        return f"using Op = {_CLASSES[self.op]}<{compute(self.element)}>;"


def horner(coordinates: Sequence[str], dims: Sequence[int]) -> str:
    """The row-major linear index of coordinates along loop dims.

    >>> horner(["a", "b", "c"], [0, 2, 3])
    '((a) * d2 + b) * d3 + c'
    """
    text = ""
    for c, d in zip(coordinates, dims, strict=True):
        text = f"({text}) * d{d} + {c}" if text else c
    return text or "0"


def _pack_declaration(i: int, operand: Operand, width: int) -> str:
    return f"Pack<{storage(operand.dtype)}, {width}> a{i}[{_UNROLL}];"


def _assemble(
    reduction: _Reduction, variant: str, params: Params, body: list[str], grid: tuple[Size, Size, Size]
) -> KernelSource:
    label = f"{reduction.label}_{variant}"
    return define(label, "reduce.cuh", params, [reduction.using(), *body], Launch((THREADS, 1, 1), grid))


def _splits(outputs: Size, most: Size) -> Size:
    """Blocks for each of `outputs`, at most `most`, so that there are about SPLIT_BLOCKS in all."""
    return ("max", 1, ("min", ("div", SPLIT_BLOCKS, ("max", 1, outputs)), most))


def _add_scratch(params: Params, outputs: Size, splits: Size, state_bytes: int) -> None:
    """Workspace for the states of all blocks, if there are several for an output, and a counter for each output."""
    is_split: Size = ("min", 1, ("sub", splits, 1))
    states: Size = ("mul", ("mul", outputs, splits), state_bytes)
    params.add(("workspace", ("max", 16, ("mul", is_split, states))), "void* workspace")
    params.add(("counters", SPLIT_BLOCKS), "u32* counters")


def _rows_kernel(r: _Reduction, variant: str) -> KernelSource:
    """A team of threads takes an output (or with "split", a part of it), going along the reduced dims together."""
    team, n_dims = _TEAMS[variant], len(r.kinds)
    kept, reduced = r.kept(), r.reduced()
    inner = r.kinds.endswith("r")
    width = r.width() if inner else 1
    # Packs start at addresses that are aligned for this operand, the first of a row reaching before the row's start.
    # A single thread would pay more for the extra pack than it gains.
    leaders = [i for i, o in enumerate(r.operands) if last_stride(o.access) == 1] if inner and width > 1 else []
    leader = leaders[0] if leaders and team > 1 else None
    last = n_dims - 1

    body = [f"constexpr int kTeam = {team}, kUnroll = {_UNROLL};"]
    outputs = product([f"d{d}" for d in kept])
    count = " * ".join(f"d{d}" for d in kept) or "1"
    if team < THREADS:
        body += [
            f"const i64 outputs = {count};",
            f"const i64 output = i64(blockIdx.x) * {THREADS // team} + threadIdx.x / kTeam;",
            "// Teams beyond the last output go along with it, since whole warps meet in shuffles.",
            "i64 kept = min_i64(output, outputs - 1);",
        ]
    else:
        body += ["const i64 output = blockIdx.x;", "i64 kept = output;"]
    body += decompose("kept", kept)
    body.append("const int member = threadIdx.x % kTeam;")

    # `packs` for each combination of the outer reduced coordinates.
    outer = reduced[:-1] if inner else reduced
    outer_count = " * ".join(f"d{d}" for d in outer) or "1"
    if not inner:
        body.append(f"const i64 total = {outer_count};")
    elif leader is None:
        body += [f"const i64 packs = ceil_div(d{last}, {width});", f"const i64 total = packs * {outer_count};"]
    elif not outer:
        start = r.positions()[leader].replace(f"c{last}[u]", "0")
        body += [
            f"const int before = elements_past_boundary<{width}>(p{leader} + ({start}));",
            f"const i64 packs = ceil_div(d{last} + before, {width});",
            "const i64 total = packs;",
        ]
    else:
        body += [
            f"const i64 packs = ceil_div(d{last} + {width - 1}, {width});",
            f"const i64 total = packs * {outer_count};",
        ]
    if variant == "split":
        body += [
            "const i64 splits = gridDim.y, per_split = ceil_div(total, splits);",
            "const i64 begin = min_i64(total, blockIdx.y * per_split), end = min_i64(total, begin + per_split);",
        ]
    else:
        body.append("const i64 begin = 0, end = total;")

    load = ["i64 rest = min_i64(first + u * kTeam, end - 1);", "const bool wanted = first + u * kTeam < end;"]
    ahead = []
    if inner and not outer:
        # Packs follow one another: what needs 64 bits is computed once for those in flight.
        before = "before" if leader is not None else "0"
        body.append(f"const i64 limit = min_i64(d{last}, end * {width} - {before});")
        ahead = [
            f"const i64 start = first * {width} - {before};",
            f"const int left = int(min_i64(limit - start, kTeam * kUnroll * {width}));",
        ]
        load = [
            f"const int past = u * kTeam * {width};",
            f"c{last}[u] = start + past;",
            "from[u] = u == 0 && start < 0 ? int(-start) : 0;",
            f"to[u] = left - past < {width} ? left - past : {width};",
        ]
    elif inner:
        load.append(f"c{last}[u] = take_coordinate(rest, packs) * {width};")
        load += [f"c{d}[u] = take_coordinate(rest, d{d});" for d in reversed(outer[1:])]
        load.append(f"c{outer[0]}[u] = rest;")
        if leader is not None:
            start = r.positions()[leader].replace(f"c{last}[u]", "0")
            load.append(f"const int before = elements_past_boundary<{width}>(p{leader} + ({start}));")
            load.append(f"c{last}[u] -= before;")
        load += [
            f"from[u] = c{last}[u] < 0 ? int(-c{last}[u]) : 0;",
            f"to[u] = wanted ? int(min_i64({width}, d{last} - c{last}[u])) : 0;",
        ]
    else:
        load += [f"c{d}[u] = take_coordinate(rest, d{d});" for d in reversed(outer[1:])]
        load += [f"c{outer[0]}[u] = rest;"] if outer else []
        load += ["from[u] = 0;", "to[u] = wanted;"]
    for i, (operand, position) in enumerate(zip(r.operands, r.positions(), strict=True)):
        stride = last_stride(operand.access)
        if stride == 0 or not inner:
            # The pack may start before its row, and this element must not.
            text = f"load_splat<{width}>(p{i} + ({position}))"
        elif stride == 1:
            text = f"load_range<{width}>(p{i} + ({position}), from[u], to[u])"
        else:
            text = f"load_strided_range<{width}>(p{i} + ({position}), {stride or f't{i}_{last}'}, from[u], to[u])"
        load.append(f"a{i}[u] = {text};")

    body += [
        "Op::State state = Op::identity();",
        "for (i64 first = begin + member; first < end; first += kTeam * kUnroll) {",
        *(f"    i64 c{d}[kUnroll];" for d in reduced),
        "    int from[kUnroll], to[kUnroll];",
        *("    " + _pack_declaration(i, o, width) for i, o in enumerate(r.operands)),
        *("    " + line for line in ahead),
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        *("        " + line for line in load),
        "    }",
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        *("        " + line for line in r.push_pack("state", f"c{last}[u]" if inner else f"c{last}", width)),
        "    }",
        "}",
    ]
    params = r.params()
    if team < THREADS:
        body += [
            "state = merge_lanes<Op, kTeam>(state);",
            f"if (member == 0 && output < outputs) q0[output] = {r.stored('state')};",
        ]
        grid: tuple[Size, Size, Size] = (("cdiv", outputs, THREADS // team), 1, 1)
    else:
        body.append(f"state = merge_block<Op, {THREADS}>(state);")
        grid = (outputs, 1, 1)
    if variant == "split":
        length = product([f"d{d}" for d in reduced])
        splits = _splits(outputs, ("cdiv", length, width * THREADS * _UNROLL))
        _add_scratch(params, outputs, splits, r.state_bytes)
        body += [
            "if (splits > 1) {",
            "    Op::State* parts = static_cast<Op::State*>(workspace) + output * splits;",
            "    if (threadIdx.x == 0) parts[blockIdx.y] = state;",
            "    if (!is_last_block(counters + output, u32(splits))) return;",
            "    state = Op::identity();",
            f"    for (i64 s = threadIdx.x; s < splits; s += {THREADS}) Op::merge(state, load_fresh(parts + s));",
            f"    state = merge_block<Op, {THREADS}>(state);",
            "}",
        ]
        grid = (outputs, splits, 1)
    if team == THREADS:
        body.append(f"if (threadIdx.x == 0) q0[output] = {r.stored('state')};")
    return _assemble(r, variant, params, body, grid)


def _columns_kernel(r: _Reduction, variant: str) -> KernelSource:
    """The last dim is kept: each thread takes a few columns and every kDown-th index along the reduced dims."""
    across, last, width = _ACROSS[variant], len(r.kinds) - 1, r.width()
    down = THREADS // across
    columns = across * width
    outer_kept, reduced = r.kept()[:-1], r.reduced()
    tiles: Size = product([*(f"d{d}" for d in outer_kept), ("cdiv", f"d{last}", columns)])
    length = product([f"d{d}" for d in reduced])
    splits = _splits(tiles, ("cdiv", length, down * _UNROLL))
    params = r.params()
    _add_scratch(params, ("mul", tiles, columns), splits, r.state_bytes)

    load = [
        "i64 rest = min_i64(first + u * kDown, end - 1);",
        "to[u] = first + u * kDown < end ? live : 0;",
        *(f"c{d}[u] = take_coordinate(rest, d{d});" for d in reversed(reduced[1:])),
        *([f"c{reduced[0]}[u] = rest;"] if reduced else []),
    ]
    for i, (operand, position) in enumerate(zip(r.operands, r.positions(), strict=True)):
        stride = last_stride(operand.access)
        if stride == 0:
            text = f"load_splat<{width}>(p{i} + ({position}))"
        elif stride == 1:
            text = f"load_range<{width}>(p{i} + ({position}), 0, to[u])"
        else:
            text = f"load_strided_range<{width}>(p{i} + ({position}), {stride or f't{i}_{last}'}, 0, to[u])"
        load.append(f"a{i}[u] = {text};")
    body = [
        f"constexpr int kAcross = {across}, kDown = {down}, kUnroll = {_UNROLL}, kWidth = {width};",
        "const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross;",
        "i64 tile = blockIdx.x;",
        f"const i64 column_tile = take_coordinate(tile, ceil_div(d{last}, kAcross * kWidth));",
        f"const i64 c{last} = (column_tile * kAcross + across) * kWidth;",
        "const i64 row = tile;  // over the outer kept dims",
        *decompose("tile", outer_kept),
        f"const int live = int(max_i64(0, min_i64(kWidth, d{last} - c{last})));",
        f"const i64 total = {' * '.join(f'd{d}' for d in reduced) or '1'};",
        "const i64 splits = gridDim.y, per_split = ceil_div(total, splits);",
        "const i64 begin = min_i64(total, blockIdx.y * per_split), end = min_i64(total, begin + per_split);",
        "Op::State states[kWidth];",
        "#pragma unroll",
        "for (int j = 0; j < kWidth; ++j) states[j] = Op::identity();",
        "for (i64 first = begin + down; first < end; first += kDown * kUnroll) {",
        *(f"    i64 c{d}[kUnroll];" for d in reduced),
        "    int to[kUnroll];",
        *("    " + _pack_declaration(i, o, width) for i, o in enumerate(r.operands)),
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        *("        " + line for line in load),
        "    }",
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        "        if (to[u] == 0) continue;  // beyond the end; columns beyond theirs are computed and not stored",
        "#pragma unroll",
        "        for (int j = 0; j < kWidth; ++j) {",
        *("            " + line for line in r.push("states[j]", f"c{last}")),
        "        }",
        "    }",
        "}",
        "__shared__ Op::State memory[kDown][kAcross][kWidth];",
        "merge_columns<Op>(states, memory, across, down);",
        "if (splits > 1) {",
        "    Op::State* parts = static_cast<Op::State*>(workspace) +",
        "                       (blockIdx.x * splits * kAcross + across) * kWidth;",
        "    if (down == 0) {",
        "#pragma unroll",
        "        for (int j = 0; j < kWidth; ++j) parts[i64(blockIdx.y) * kAcross * kWidth + j] = states[j];",
        "    }",
        "    if (!is_last_block(counters + blockIdx.x, u32(splits))) return;",
        "#pragma unroll",
        "    for (int j = 0; j < kWidth; ++j) states[j] = Op::identity();",
        "#pragma unroll 4",
        "    for (i64 s = down; s < splits; s += kDown) {",
        "#pragma unroll",
        "        for (int j = 0; j < kWidth; ++j) {",
        "            Op::merge(states[j], load_fresh(parts + s * kAcross * kWidth + j));",
        "        }",
        "    }",
        "    merge_columns<Op>(states, memory, across, down);",
        "}",
        "if (down != 0) return;",
        "#pragma unroll",
        "for (int j = 0; j < kWidth; ++j) {",
        f"    if (j < live) q0[row * d{last} + c{last} + j] = {r.stored('states[j]')};",
        "}",
    ]
    return _assemble(r, variant, params, body, (tiles, splits, 1))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Each op in each variant for one dtype of each sort (`full`: all dtypes), and prologues over several dims."""
    variants: tuple[Variant, ...] = ("thread", "team", "warp", "block", "split", "column", "narrow_column")
    for k, op in enumerate(OPS):
        dtypes = [d for d in DTYPES if op != "logsumexp" or d in INEXACT]
        for m, variant in enumerate(variants):
            kinds = "rk" if "column" in variant else "kr"
            for dtype in dtypes if full else [dtypes[(5 * k + 3 * m) % len(dtypes)]]:
                yield generate(op, [("load", 0)], kinds, [Operand(dtype)], 0, result_dtype(op, dtype), variant=variant)
    h, f = "bfloat16", "float32"
    square = [("load", 0), ("op", "astype", (), (0,), (h,), f), ("op", "square", (), (1,), (f,), f)]
    for kinds, access in (("rkr", (None, None, 1)), ("krk", (None, None, 1)), ("rk", (1, None)), ("k", (None,))):
        for variant in ("block", "split") if kinds[-1] == "r" else ("thread", "column"):
            yield generate("sum", square, kinds, [Operand(h, access)], 2, f, variant=variant)


def result_dtype(op: str, dtype: str) -> str:
    """The dtype of a reduction of an array: sums of bool and of integers narrower than 32 bits are widened.

    >>> result_dtype("sum", "int8"), result_dtype("max", "int8")
    ('int32', 'int8')
    """
    if op in ("argmax", "argmin"):
        return "uint32"
    if op in ("any", "all"):
        return "bool"
    if op in ("sum", "prod") and dtype not in FLOATS and ITEMSIZE[dtype] < 4:
        return "uint32" if dtype[0] == "u" else "int32"
    return dtype
