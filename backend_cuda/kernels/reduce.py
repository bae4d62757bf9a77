"""Reductions over any of the loop dims, with an elementwise program in front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .codegen import Instruction, Operand, Params, check, decompose, define, last_stride
from .kernel import KernelSource, Launch, Size, evaluate_size, product
from .ops import DTYPES, FLOATS, INEXACT, ITEMSIZE, storage
from .reduced_program import OPS, ReducedProgram

THREADS = 256
# Blocks that a reduction is spread over where there are few outputs: four for each of an H100's 132 multiprocessors. Of
# columns of short elements two, or one where each thread has `DEEP` packs in flight: 8192 rows of 8192 bfloat16 are
# summed at 0.914 of a copy's rate, with 4 packs and 264 blocks at 0.894, with 528 at 0.81.
SPLIT_BLOCKS = 528
SHORT_COLUMN_SPLIT_BLOCKS = 264
DEEP_SPLIT_BLOCKS = 132
SHORTEST_SPLIT = 16384  # elements of a reduction that several blocks take
UNROLL = 4  # packs each thread has in flight
DEEP = 16  # the same, of long columns of 16-bit elements
SHORT_UNROLL = 4  # the same, where lanes take an output
TOGETHER = 4  # blocks that a multiprocessor has registers for, where states are a word
# Packs up to which a warp takes an output: where there are many outputs, and where there are few, so that more threads
# are to take each.
WARP_PACKS, FEW_WARP_PACKS, MANY_OUTPUTS = 512, 128, 4096


def generate(
    op: str,
    program: Sequence[Instruction],
    kinds: str,
    operands: Sequence[Operand],
    register: int,
    out_dtype: str,
    *,
    deep: bool = False,
) -> KernelSource:
    """A kernel that runs `program` at every point of the loop dims and reduces the value of `register` over some dims.

    The output is contiguous over the kept dims in their order (one element if none is kept). 16-bit floats accumulate
    in float; sums and products of integers wrap. `max` and `min` give NaN where there is one, and so does the first of
    it for `argmax` and `argmin`, whose uint32 result is the linear index over the reduced dims. Over no elements `sum`,
    `prod`, `any`, `all` and `logsumexp` give 0, 1, false, true and minus infinity. Results do not depend on timing.

    A plan is bound to other sizes than it was lowered for, so a kernel decides from its sizes what takes an output:

    * the last dim is reduced: 1 to 32 lanes by its length, a block, or several blocks where there are few outputs;
    * the last dim is kept: threads lie along the kept dims, and if there are too few columns for 256, or many elements
      to reduce, along the reduced dims too; few columns are split over several blocks.

    Parameters, in order: the dims; each operand's pointer and runtime strides; the output; the program's scalars and
    integers; a workspace, and `SPLIT_BLOCKS` counters.

    Args:
        op: one of `OPS`.
        program: the instructions, see `codegen`; at least `[("load", 0)]`.
        kinds: "k" (kept) or "r" (reduced) for each loop dim, outermost first. Kept dims stand in the order of the
            output's; put the dim along which the largest operand has stride 1 last where that leaves a choice.
        operands: what the program reads, accesses over all loop dims.
        register: the value to reduce.
        out_dtype: uint32 for argmax and argmin, bool for any and all; for sum and prod of integers or bool, an integer
            dtype; else the register's.
        deep: have `DEEP` packs in flight in fewer blocks; where the last dim is kept and `has_deep`.

    Raises:
        ValueError: an argument makes no sense.
        TypeError: the op takes no such dtype.

    >>> generate("sum", [("load", 0)], "kr", [Operand("float32")], 0, "float32").launch.block
    (256, 1, 1)
    """
    n_dims = len(kinds)
    if n_dims < 1 or set(kinds) - {"k", "r"}:
        raise ValueError(f"loop dims are kept or reduced, 'k' or 'r': {kinds!r}")
    check(program, operands, (), n_dims)
    if not 0 <= register < len(program):
        raise ValueError(f"register {register} of {len(program)} is to be reduced")
    reduction = ReducedProgram(op, program, kinds, operands, register, out_dtype)
    reduction.check_dtypes()
    if deep and not (kinds.endswith("k") and has_deep(op, [o.dtype for o in operands])):
        raise ValueError(f"only columns of one 16-bit operand are reduced with more packs in flight, not {kinds!r}")
    return _columns_kernel(reduction, deep) if kinds.endswith("k") else _rows_kernel(reduction)


def has_deep(op: str, dtypes: Sequence[str]) -> bool:
    """Whether registers have room for `DEEP` packs of the operands, and for states of a word."""
    return [ITEMSIZE[dtype] for dtype in dtypes] == [2] and op not in ("argmax", "argmin", "logsumexp")


def is_deep(length: int, rows: int, columns: int) -> bool:
    """Whether `deep` is faster for `rows` of so many columns of 16-bit elements, each column a sum of `length`.

    It is where every thread has `DEEP` packs or more: 1,000,000 rows of 128 bfloat16 go from 0.894 of a copy's rate to
    0.928. Of 64 rows of 2,000,000, where none has, from 0.873 to 0.673.
    """
    across, tiles = _columns_layout(length, rows * -(-columns // 8))
    splits = _splits(tiles, length, DEEP_SPLIT_BLOCKS)
    return length >= evaluate_size(("mul", ("div", THREADS, across), ("mul", DEEP, splits)), {})


def _pack_declaration(i: int, operand: Operand, width: int, unroll: int = UNROLL) -> str:
    return f"Pack<{storage(operand.dtype)}, {width}> a{i}[{unroll}];"


def _power_of_two(n: Size, most: int) -> Size:
    """The least power of two that is n or more, at most `most`: `power_of_two` of reduce.cuh."""
    below: Size = ("sub", ("max", 1, n), 1)
    total: Size = 1
    step = 1
    while step < most:
        total = ("add", total, ("mul", step, ("min", 1, ("div", below, step))))
        step *= 2
    return total


def _assemble(
    reduction: ReducedProgram,
    variant: str,
    params: Params,
    body: list[str],
    grid: tuple[Size, Size, Size],
    together: int = TOGETHER,
) -> KernelSource:
    label = f"{reduction.label}_{variant}"
    if reduction.state_bytes != 4:
        together = 1
    lines = [reduction.using(), *body]
    return define(label, "reduce.cuh", params, lines, Launch((THREADS, 1, 1), grid), together=together)


def _splits(outputs: Size, most: Size, blocks: int) -> Size:
    """Blocks for each of `outputs`, at most `most`, so that there are about so many in all."""
    return ("max", 1, ("min", ("div", blocks, ("max", 1, outputs)), most))


def _add_scratch(params: Params, outputs: Size, splits: Size, state_bytes: int) -> None:
    """Workspace for the states of all blocks, if there are several for an output, and a counter for each output."""
    is_split: Size = ("min", 1, ("sub", splits, 1))
    states: Size = ("mul", ("mul", outputs, splits), state_bytes)
    params.add(("workspace", ("max", 16, ("mul", is_split, states))), "void* workspace")
    params.add(("counters", SPLIT_BLOCKS), "u32* counters")


def _team(packs: Size, outputs: Size) -> Size:
    """Threads that take an output of so many packs: `team_of` of reduce.cuh."""
    lanes = _power_of_two(("cdiv", packs, SHORT_UNROLL), 32)
    is_few: Size = ("sub", 1, ("min", 1, ("div", outputs, MANY_OUTPUTS)))
    is_long: Size = ("min", 1, ("div", packs, FEW_WARP_PACKS + 1))
    is_longer: Size = ("min", 1, ("div", packs, WARP_PACKS + 1))
    # Where a block takes it, 32 lanes would.
    return ("add", lanes, ("mul", THREADS - 32, ("max", is_longer, ("mul", is_long, is_few))))


def _rows_kernel(r: ReducedProgram) -> KernelSource:
    """A team of threads takes an output, or several blocks do, going along the reduced dims together."""
    kept, reduced = r.kept(), r.reduced()
    width, last = r.width(), len(r.kinds) - 1
    outer = reduced[:-1]
    # Packs start at addresses that are aligned for this operand, the first of a row reaching before the row's start.
    leader = next((i for i, o in enumerate(r.operands) if last_stride(o.access) == 1), None) if width > 1 else None

    outputs = product([f"d{d}" for d in kept])
    length = product([f"d{d}" for d in reduced])
    extra: Size = ("mul", width - 1, ("min", 1, ("mod", f"d{last}", width))) if leader is not None else 0
    packs = product([*(f"d{d}" for d in outer), ("cdiv", ("add", f"d{last}", extra), width)])
    team = _team(packs, outputs)
    each: Size = 1 if outer else ("div", SHORT_UNROLL, _power_of_two(packs, SHORT_UNROLL))
    per_block: Size = ("mul", ("div", THREADS, team), each)

    outer_count = " * ".join(f"d{d}" for d in outer) or "1"
    row_packs = f"ceil_div(d{last}, {width})"
    if leader is not None:
        row_packs = f"ceil_div(d{last} + (d{last} % {width} ? {width - 1} : 0), {width})"
    limits = f"{WARP_PACKS}, {FEW_WARP_PACKS}, {MANY_OUTPUTS}"
    body = [
        f"const i64 outputs = {' * '.join(f'd{d}' for d in kept) or '1'};",
        f"const i64 most_packs = {row_packs} * {outer_count};",
        f"const int chosen = team_of<{SHORT_UNROLL}, {THREADS}, {limits}>(most_packs, outputs);",
    ]
    if leader is not None:
        body.append(f"const bool aligned = {_all_aligned(leader, r.operands[leader], width, last + 1)};")
    if not outer:
        body += [
            f"if (chosen < {THREADS}) {{",
            *("    " + line for line in _short_rows(replace(r, kept_in_flight=True), leader)),
            "}",
            f"constexpr int team = {THREADS};",
        ]
    else:
        body.append("const int team = chosen;")
    body += [
        f"constexpr int kUnroll = {UNROLL};",
        f"const i64 output = (i64(blockIdx.x) * {THREADS} + threadIdx.x) >> (__ffs(team) - 1);",
        "const int member = threadIdx.x & (team - 1);",
        "// Teams beyond the last output go along with it, since whole warps meet in shuffles.",
        "i64 kept = min_i64(output, outputs - 1);",
        *decompose("kept", kept),
    ]

    # `packs` for each combination of the outer reduced coordinates.
    start = r.positions()[leader].replace(f"c{last}[u]", "0") if leader is not None else ""
    before = f"elements_past_boundary<{width}>(p{leader} + ({start}))"
    if leader is None:
        body += [f"const i64 packs = ceil_div(d{last}, {width});", f"const i64 total = packs * {outer_count};"]
    elif not outer:
        body += [
            f"const int before = {before};",
            f"const i64 packs = ceil_div(d{last} + before, {width});",
            "const i64 total = packs;",
        ]
    else:
        body += [
            f"const i64 packs = ceil_div(d{last} + (aligned ? 0 : {width - 1}), {width});",
            f"const i64 total = d{last} == 0 ? 0 : packs * {outer_count};",
        ]
    body += [
        "const i64 splits = gridDim.y;",
        "i64 begin = 0, end = total;",
        "if (splits > 1) {",
        "    const i64 per_split = ceil_div(total, splits);",
        "    begin = min_i64(total, blockIdx.y * per_split);",
        "    end = min_i64(total, begin + per_split);",
        "}",
    ]

    ahead = []
    if not outer:
        # Packs follow one another: what needs 64 bits is computed once for those in flight.
        shift = "before" if leader is not None else "0"
        body.append(f"const i64 limit = min_i64(d{last}, end * {width} - {shift});")
        ahead = [
            f"const i64 start = first * {width} - {shift};",
            f"const int left = int(min_i64(limit - start, team * kUnroll * {width}));",
        ]
        load = [
            f"const int past = u * team * {width};",
            f"c{last}[u] = start + past;",
            "from[u] = u == 0 && start < 0 ? int(-start) : 0;",
            f"to[u] = left - past < {width} ? left - past : {width};",
        ]
    else:
        load = [
            "i64 rest = min_i64(first + u * team, end - 1);",
            "const bool wanted = first + u * team < end;",
            f"c{last}[u] = take_coordinate(rest, packs) * {width};",
            *(f"c{d}[u] = take_coordinate(rest, d{d});" for d in reversed(outer[1:])),
            f"c{outer[0]}[u] = rest;",
        ]
        if leader is not None:
            load += [f"const int before = {before};", f"c{last}[u] -= before;"]
        load += [
            f"from[u] = c{last}[u] < 0 ? int(-c{last}[u]) : 0;",
            f"to[u] = wanted ? int(min_i64({width}, d{last} - c{last}[u])) : 0;",
        ]

    body += ["Op::State state = Op::identity();", "i64 first = begin + member;"]
    if leader is not None and not outer:
        body += _whole_packs(r, leader)
    body += [
        "for (; first < end; first += team * kUnroll) {",
        *(f"    i64 c{d}[kUnroll];" for d in reduced),
        "    int from[kUnroll], to[kUnroll];",
        *("    " + _pack_declaration(i, o, width) for i, o in enumerate(r.operands)),
        *("    " + line for line in ahead),
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        *("        " + line for line in (*load, *_row_loads(r, leader, f"d{last}", "before"))),
        "    }",
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        *("        " + line for line in r.push_pack("state", f"c{last}[u]")),
        "    }",
        "}",
    ]
    whole_block = f"merge_block<Op, {THREADS}>(state)"
    if outer:
        body.append(f"state = team < {THREADS} ? merge_lanes<Op>(state, team) : {whole_block};")
    else:
        body.append(f"state = {whole_block};")
    params = r.params()
    is_long: Size = ("min", 1, ("div", length, SHORTEST_SPLIT))
    splits = _splits(outputs, ("mul", is_long, ("cdiv", packs, THREADS * UNROLL)), SPLIT_BLOCKS)
    _add_scratch(params, outputs, splits, r.state_bytes)
    body += [
        "if (splits > 1) {",
        "    Op::State* parts = static_cast<Op::State*>(workspace) + output * splits;",
        "    if (threadIdx.x == 0) parts[blockIdx.y] = state;",
        "    if (!is_last_block(counters + output, u32(splits))) return;",
        "    Op::State merged[1] = {Op::identity()};",
        f"    merge_parts<Op>(merged, parts, threadIdx.x, splits, {THREADS}, 1);",
        "    state = merged[0];",
        f"    state = {whole_block};",
        "}",
        f"if (member == 0 && output < outputs) q0[output] = {r.stored('state')};",
    ]
    return _assemble(r, "rows", params, body, (("cdiv", outputs, per_block), splits, 1))


def _whole_packs(r: ReducedProgram, leader: int) -> list[str]:
    """Statements that push packs which are whole, if the row begins on a boundary: nothing is asked of an element."""
    last, width = len(r.kinds) - 1, r.width()
    others = [(i, o) for i, o in enumerate(r.operands) if last_stride(o.access) == 1 and i != leader]
    are_aligned = ["before == 0", *(_all_aligned(i, o, width, last + 1) for i, o in others)]
    return [
        f"if ({' && '.join(are_aligned)}) {{",
        f"    for (; first + (kUnroll - 1) * team < limit / {width}; first += team * kUnroll) {{",
        f"        i64 c{last}[kUnroll];",
        *("        " + _pack_declaration(i, o, width) for i, o in enumerate(r.operands)),
        "#pragma unroll",
        "        for (int u = 0; u < kUnroll; ++u) {",
        f"            c{last}[u] = (first + u * team) * {width};",
        *("            " + line for line in r.loads(None)),
        "        }",
        "#pragma unroll",
        "        for (int u = 0; u < kUnroll; ++u) {",
        *("            " + line for line in r.push_pack("state", f"c{last}[u]", whole=True)),
        "        }",
        "    }",
        "}",
    ]


def _short_rows(r: ReducedProgram, leader: int | None) -> list[str]:
    """Statements for rows that some lanes take: a lane has packs of one row in flight, or of several short ones.

    A slot is a pack in flight; `span` neighbouring slots are of one row. Positions along a row have 32 bits.
    """
    kept, last, width = r.kept(), len(r.kinds) - 1, r.width()
    start = r.positions()[leader].replace(f"c{last}[u]", "0") if leader is not None else ""
    before = f"elements_past_boundary<{width}>(p{leader} + ({start}))" if leader is not None else "0"
    most = f"length == 0 ? 0 : length + (aligned ? 0 : {width - 1})" if leader is not None else "length"
    pack = f"(member + (u & (span - 1)) * chosen) * {width}"
    return [
        f"constexpr int kUnroll = {SHORT_UNROLL};",
        f"const int length = int(d{last}), most = {most};",
        "const int span = power_of_two(most_packs, kUnroll), span_bits = __ffs(span) - 1, each = kUnroll >> span_bits;",
        "// The last slot may have no pack.",
        "const int used = each > 1 || most_packs > (kUnroll - 1) * chosen ? span : kUnroll - 1;",
        f"const int team_bits = __ffs(chosen) - 1, teams = {THREADS} >> team_bits;",
        "const int member = threadIdx.x & (chosen - 1);",
        "const i64 output = i64(blockIdx.x) * teams * each + (threadIdx.x >> team_bits);",
        *(f"i64 c{d}[kUnroll];" for d in kept),
        f"int before[kUnroll], c{last}[kUnroll], from[kUnroll], to[kUnroll];",
        *(_pack_declaration(i, o, width) for i, o in enumerate(r.operands)),
        "#pragma unroll",
        "for (int u = 0; u < kUnroll; ++u) {",
        "    if (u > 0 && each == 1) {",
        *(f"        c{d}[u] = c{d}[0];" for d in kept),
        "        before[u] = before[0];",
        "    } else {",
        "        // Beyond the last output there is that one again, since whole warps meet in shuffles.",
        "        i64 kept = min_i64(output + (u >> span_bits) * teams, outputs - 1);",
        *(f"        c{d}[u] = take_coordinate(kept, d{d});" for d in reversed(kept[1:])),
        *([f"        c{kept[0]}[u] = kept;"] if kept else []),
        f"        before[u] = {before};",
        "    }",
        "}",
        "Op::State states[kUnroll];",
        "#pragma unroll",
        "for (int u = 0; u < kUnroll; ++u) states[u] = Op::identity();",
        f"for (int first = 0; first < most; first += used * chosen * {width}) {{",
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        "        if (u == kUnroll - 1 && used == kUnroll - 1) break;",
        f"        c{last}[u] = first + {pack} - before[u];",
        f"        from[u] = c{last}[u] < 0 ? -c{last}[u] : 0;",
        f"        to[u] = length - c{last}[u] < {width} ? length - c{last}[u] : {width};",
        *("        " + line for line in _row_loads(r, leader, "length", "before[u]")),
        "    }",
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        "        if (u == kUnroll - 1 && used == kUnroll - 1) break;",
        *("        " + line for line in r.push_pack("states[u]", f"c{last}[u]")),
        "    }",
        "}",
        "merge_slots<Op>(states, span);",
        "#pragma unroll",
        "for (int u = 0; u < kUnroll; ++u) {",
        "    if (u & (span - 1)) continue;",
        "    const Op::State state = merge_lanes<Op>(states[u], chosen);",
        "    const i64 q = output + (u >> span_bits) * teams;",
        f"    if (member == 0 && q < outputs) q0[q] = {r.stored('state')};",
        "}",
        "return;",
    ]


def _row_loads(r: ReducedProgram, leader: int | None, length: str, before: str) -> list[str]:
    """Statements that load pack u of each operand, of which from[u] to to[u] are wanted.

    `length` and `before` are C expressions, of a type with c[u]: the row's elements, and how many of the leader's lie
    between a boundary and the row's start.
    """
    width, last = r.width(), len(r.kinds) - 1
    lines = []
    if leader is not None:
        lines.append(f"const auto inside = start_inside<{width}>(c{last}[u], {length}, {before});")
    for i, (operand, position) in enumerate(zip(r.operands, r.positions(), strict=True)):
        stride = last_stride(operand.access)
        if stride == 0:
            # The pack may start before its row, and this element must not.
            text = f"load_splat<{width}>(p{i} + ({position}))"
        elif i == leader:
            text = f"load_aligned<{width}>(p{i} + ({position.replace(f'c{last}[u]', 'inside')}))"
        elif stride == 1:
            text = f"load_range<{width}>(p{i} + ({position}), from[u], to[u])"
        else:
            text = f"load_strided_range<{width}>(p{i} + ({position}), {stride or f't{i}_{last}'}, from[u], to[u])"
        lines.append(f"a{i}[u] = {text};")
    return lines


def _all_aligned(i: int, operand: Operand, width: int, n_dims: int) -> str:
    """The C expression of whether operand i is aligned for packs wherever its rows begin."""
    if isinstance(operand.access, str):
        strides = [f"d{n_dims - 1}"]
    else:
        strides = [str(s) if s is not None else f"t{i}_{d}" for d, s in enumerate(operand.access[:-1]) if s != 0]
    return f"is_aligned<{width}>(p{i}) && ({' | '.join(strides) or '0'}) % {width} == 0"


def _columns_layout(length: Size, packs: Size) -> tuple[Size, Size]:
    """Packs of columns next to one another that are a block's, and how many blocks that makes."""
    most_down = _power_of_two(("cdiv", length, UNROLL), THREADS // 32)
    across: Size = ("min", _power_of_two(packs, THREADS), ("div", THREADS, most_down))
    return across, ("cdiv", packs, across)


def _columns_kernel(r: ReducedProgram, deep: bool) -> KernelSource:
    """The last dim is kept: each thread takes a few columns and every `down`-th index along the reduced dims."""
    last, width = len(r.kinds) - 1, r.width()
    outer_kept, reduced = r.kept()[:-1], r.reduced()
    # Packs of columns, over all kept dims.
    packs = product([*(f"d{d}" for d in outer_kept), ("cdiv", f"d{last}", width)])
    length = product([f"d{d}" for d in reduced])
    across, tiles = _columns_layout(length, packs)
    is_short = max((ITEMSIZE[o.dtype] for o in r.operands), default=4) < 4
    blocks = DEEP_SPLIT_BLOCKS if deep else SHORT_COLUMN_SPLIT_BLOCKS if is_short else SPLIT_BLOCKS
    unroll = DEEP if deep else UNROLL
    splits = _splits(tiles, ("cdiv", length, ("mul", ("div", THREADS, across), UNROLL)), blocks)
    params = r.params()
    _add_scratch(params, ("mul", tiles, ("mul", across, width)), splits, r.state_bytes)

    place = [
        *(f"c{d}[u] = take_coordinate(rest, d{d});" for d in reversed(reduced[1:])),
        *([f"c{reduced[0]}[u] = rest;"] if reduced else []),
    ]

    def packs_in_flight(count: int) -> list[str]:
        return [
            *(f"    i64 c{d}[{count}];" for d in reduced),
            *("    " + _pack_declaration(i, o, width, count) for i, o in enumerate(r.operands)),
        ]

    push = r.push_each("states[j]", f"c{last}")
    aligned = [_all_aligned(i, o, width, last + 1) for i, o in enumerate(r.operands) if last_stride(o.access) == 1]
    outer_count = "".join(f" * d{d}" for d in outer_kept)
    row_start = f"row * d{last} + " if outer_kept else ""
    stored = r.stored("states[i]")
    if outer_kept:
        store = [
            "i64 at = i64(blockIdx.x) * n_across + column / kWidth;",
            "if (at >= packs) continue;",
            "const i64 c = take_coordinate(at, row_packs) * kWidth + column % kWidth;",
            f"if (c < d{last}) q0[at * d{last} + c] = {stored};",
        ]
    else:
        store = ["const i64 q = i64(blockIdx.x) * columns + column;", f"if (q < d{last}) q0[q] = {stored};"]
    body = [
        f"constexpr int kUnroll = {UNROLL}, kWidth = {width}, kThreads = {THREADS};",
        f"const i64 row_packs = ceil_div(d{last}, kWidth), packs = row_packs{outer_count};",
        f"const i64 total = {' * '.join(f'd{d}' for d in reduced) or '1'};",
        "const int n_across = columns_across<kUnroll, kThreads>(packs, total), n_down = kThreads / n_across;",
        "const int across = threadIdx.x & (n_across - 1), down = threadIdx.x >> (__ffs(n_across) - 1);",
        "const i64 pack = i64(blockIdx.x) * n_across + across;",
        "i64 row = min_i64(pack, packs - 1);  // over the outer kept dims",
        f"const i64 c{last} = {'take_coordinate(row, row_packs)' if outer_kept else 'row'} * kWidth;",
        *(["i64 outer = row;", *decompose("outer", outer_kept)] if outer_kept else []),
        f"const int live = pack < packs ? int(min_i64(kWidth, d{last} - c{last})) : 0;",
        "const i64 splits = gridDim.y, per_split = ceil_div(total, splits);",
        "const i64 begin = min_i64(total, blockIdx.y * per_split), end = min_i64(total, begin + per_split);",
        "Op::State states[kWidth];",
        "#pragma unroll",
        "for (int j = 0; j < kWidth; ++j) states[j] = Op::identity();",
        "i64 first = begin + down;",
        f"if ({' && '.join(['live == kWidth', *aligned])}) {{  // what is asked once is not asked of every pack",
        f"    for (; first + {unroll - 1} * n_down < end; first += {unroll} * n_down) {{",
        *("    " + line for line in packs_in_flight(unroll)),
        "#pragma unroll",
        f"        for (int u = 0; u < {unroll}; ++u) {{",
        "            i64 rest = first + u * n_down;",
        *("            " + line for line in [*place, *r.loads(None)]),
        "        }",
        "#pragma unroll",
        f"        for (int u = 0; u < {unroll}; ++u) {{",
        *("            " + line for line in push),
        "        }",
        "    }",
        "}",
        "for (; first < end; first += kUnroll * n_down) {",
        *packs_in_flight(UNROLL),
        "    int to[kUnroll];",
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        "        i64 rest = min_i64(first + u * n_down, end - 1);",
        "        to[u] = first + u * n_down < end ? live : 0;",
        *("        " + line for line in [*place, *r.loads("to[u]")]),
        "    }",
        "#pragma unroll",
        "    for (int u = 0; u < kUnroll; ++u) {",
        "        if (to[u] == 0) continue;  // beyond the end; columns beyond theirs are computed and not stored",
        *("        " + line for line in push),
        "    }",
        "}",
        "if (n_down == 1) {  // and one split: a thread has all of its columns",
        "#pragma unroll",
        "    for (int j = 0; j < kWidth; ++j) {",
        f"        if (j < live) q0[{row_start}c{last} + j] = {r.stored('states[j]')};",
        "    }",
        "    return;",
        "}",
        "alignas(16) __shared__ Op::State memory[kThreads][kWidth];",
        "const int columns = n_across * kWidth;",
        "merge_columns<Op>(states, memory, columns);",
        "if (splits > 1) {",
        "    Op::State* parts = static_cast<Op::State*>(workspace) + blockIdx.x * splits * columns;",
        "#pragma unroll",
        "    for (int i = 0; i < kWidth; ++i) {",
        "        const int column = i * kThreads + threadIdx.x;",
        "        if (column < columns) parts[blockIdx.y * columns + column] = states[i];",
        "    }",
        "    if (!is_last_block(counters + blockIdx.x, u32(splits))) return;",
        "#pragma unroll",
        "    for (int j = 0; j < kWidth; ++j) states[j] = Op::identity();",
        "    merge_parts<Op>(states, parts + across * kWidth, down, splits, n_down, columns);",
        "    merge_columns<Op>(states, memory, columns);",
        "}",
        "#pragma unroll",
        "for (int i = 0; i < kWidth; ++i) {",
        "    const int column = i * kThreads + threadIdx.x;",
        "    if (column >= columns) continue;",
        *("    " + line for line in store),
        "}",
    ]
    grid: tuple[Size, Size, Size] = (tiles, splits, 1)
    return _assemble(r, "deep_columns" if deep else "columns", params, body, grid, together=2 if deep else TOGETHER)


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Each op along rows and columns for a dtype of each sort (`full`: all dtypes), and prologues over several dims."""
    for k, op in enumerate(OPS):
        dtypes = [d for d in DTYPES if op != "logsumexp" or d in INEXACT]
        for m, kinds in enumerate(("kr", "r", "rkr", "rk", "krk")):
            for dtype in dtypes if full else [dtypes[(5 * k + 3 * m) % len(dtypes)]]:
                yield generate(op, [("load", 0)], kinds, [Operand(dtype)], 0, result_dtype(op, dtype))
    h, f = "bfloat16", "float32"
    square = [("load", 0), ("op", "astype", (), (0,), (h,), f), ("op", "square", (), (1,), (f,), f)]
    for kinds, access in (("rkr", (None, None, 1)), ("krk", (None, None, 1)), ("rk", (1, None)), ("k", (None,))):
        yield generate("sum", square, kinds, [Operand(h, access)], 2, f)
    yield generate("sum", [("load", 0)], "rk", [Operand(h)], 0, h, deep=True)


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
