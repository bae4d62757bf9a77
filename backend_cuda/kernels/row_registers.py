"""What a row program holds of a row: which registers are one value a row, and how many an element takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .codegen import Instruction, Operand, Output, register_dtypes
from .ops import ITEMSIZE


def stride_along(access: object) -> int | None:
    """The stride of an array along the row."""
    if not isinstance(access, tuple):
        raise ValueError(f"arrays of a row program have strides, not {access!r}")
    found = access[-1]
    return found if found is None else int(found)


def pack_width(operands: Sequence[Operand], outputs: Sequence[Output]) -> int:
    """Elements of a pack: 16 bytes of the narrowest array that lies along the row."""
    arrays: tuple[Operand | Output, ...] = (*operands, *outputs)
    sizes = [ITEMSIZE[a.dtype] for a in arrays if stride_along(a.access) == 1]
    return 16 // min(sizes) if sizes else 1


def is_by_row(program: Sequence[Instruction], operands: Sequence[Operand]) -> list[bool]:
    """Of each register, whether it is one value a row."""
    found: list[bool] = []
    for instruction in program:
        match instruction[0]:
            case "load":
                found.append(stride_along(operands[instruction[1]].access) == 0)
            case "op":
                found.append(all(found[r] for r in instruction[3]))
            case "scalar" | "value":
                found.append(True)
            case other:
                raise ValueError(f"a row program has no {other!r}")
    return found


@dataclass(frozen=True)
class Held:
    """4-byte registers for an element of a row that are held while a reduction is merged, at most.

    Attributes:
        in_packs: where packs are loaded and stored. What is loaded takes the room that it has in memory; `late_vectors`
            take none.
        apart: where elements are: what is loaded takes a register at least.
    """

    in_packs: float
    apart: float


def after_reductions(program: Sequence[Instruction]) -> int:
    """The first instruction that no reduction comes after: from there on an element is made, written and forgotten."""
    return 1 + max((i for i, instruction in enumerate(program) if instruction[0] == "value"), default=-1)


def late_vectors(program: Sequence[Instruction], operands: Sequence[Operand]) -> list[int]:
    """The operands that are the same for all rows, so that caches have them, and are used after all reductions."""
    first_use: dict[int, int] = {}
    for i, instruction in enumerate(program):
        if instruction[0] == "load":
            first_use.setdefault(instruction[1], i)
    return [
        k
        for k, operand in enumerate(operands)
        if first_use.get(k, 0) >= after_reductions(program)
        and isinstance(operand.access, tuple)
        and operand.access[-1] == 1
        and len(operand.access) > 1
        and not any(stride != 0 for stride in operand.access[:-1])
    ]


def registers_held(program: Sequence[Instruction], operands: Sequence[Operand], kept: Sequence[int]) -> Held:
    """What a program holds of a row; `kept` are the registers that are written."""
    return Held(*(_most_held(program, operands, kept, in_packs) for in_packs in (True, False)))


def _most_held(
    program: Sequence[Instruction], operands: Sequence[Operand], kept: Sequence[int], in_packs: bool
) -> float:
    dtypes, by_row = register_dtypes(program, operands), is_by_row(program, operands)
    words = [0 if by_row[r] else max(4, ITEMSIZE[dtype]) / 4 for r, dtype in enumerate(dtypes)]
    taken_out = in_words(program, operands) if in_packs else {}
    for i in taken_out:
        words[i] = ITEMSIZE[dtypes[i]] / 4 if program[i][0] == "load" else 0
    last_use = last_uses(program, kept)
    for i in reversed(taken_out):
        for source in program[i][3] if program[i][0] == "op" else ():
            last_use[source] = max(last_use[source], last_use.get(i, 0))
    late = late_vectors(program, operands) if in_packs else []
    loads = [
        (i, ITEMSIZE[dtypes[i]] / 4)
        for i, instruction in enumerate(program)
        if instruction[0] == "load"
        and stride_along(operands[instruction[1]].access) == 1
        and instruction[1] not in late
    ]

    def held_at(i: int) -> float:
        made = sum(words[r] for r in range(i) if last_use.get(r, 0) > i)
        return made + sum(size for at, size in loads if at > i)  # loaded ahead

    return max((held_at(i) for i, instruction in enumerate(program) if instruction[0] == "value"), default=0)


def last_uses(program: Sequence[Instruction], kept: Sequence[int]) -> dict[int, int]:
    """The last instruction that takes each register, or the number of instructions if it is written."""
    found: dict[int, int] = {}
    for i, instruction in enumerate(program):
        for r in instruction[3] if instruction[0] == "op" else ():
            found[r] = i
    return found | dict.fromkeys(kept, len(program))


def in_words(program: Sequence[Instruction], operands: Sequence[Operand]) -> dict[int, int]:
    """The operand of each register that is not held where packs are: it is taken out of their words when it is used.

    That is what is loaded of elements smaller than a word, such elements widened, and what one instruction makes of
    them and of values of the row.
    """
    found: dict[int, int] = {}
    made: dict[int, int] = {}
    by_row = is_by_row(program, operands)
    for i, instruction in enumerate(program):
        match instruction:
            case ("load", operand):
                if stride_along(operands[operand].access) == 1 and ITEMSIZE[operands[operand].dtype] < 4:
                    found[i] = operand
            case ("op", "astype", _, (source,), _, "float32") if source in found:
                found[i] = found[source]
            case ("op", "add" | "subtract" | "multiply", _, sources, _, _):
                of = {found.get(source, -1) for source in sources if not by_row[source]}
                if len(of) == 1 and -1 not in of:
                    made[i] = of.pop()
    return found | made
