"""Programs of elementwise instructions, and the C text that loads, computes and stores them. Every generator uses this.

A program is a list of instructions; instruction i defines register i:

* `("load", i)`: the element of operand i at the loop's coordinates;
* `("scalar", k, dtype)`: scalar k, rounded to dtype;
* `("iota", axis, start, step, dtype)`: start + step * coordinate of loop dim `axis`, or of the linear index for None;
  start and step are `("scalar", k)`, or `("int", k)` for an integer dtype;
* `("op", primitive, static, registers, input dtypes, output dtype)`;
* `("value", k, dtype)`: in an epilogue, what the kernel itself computed: its value k.

Results of 16-bit floats are kept in float between instructions: stores round, and so do the ops named in
`ops.NEEDS_ROUNDED` on their operands. (A value counts as unrounded.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .kernel import KernelSource, Launch, Param, kernel
from .ops import INTEGERS, ITEMSIZE, KEEPS_ROUNDED, NEEDS_ROUNDED, compute, expression, storage

Instruction = tuple[Any, ...]
# "contiguous": at the linear index over all loop dims. "scalar": one element for all. Else a stride per loop dim, of
# which 0 and 1 may be given as such and None is a parameter.
Access = Literal["contiguous", "scalar"] | tuple[int | None, ...]


@dataclass(frozen=True)
class Operand:
    """An array that is read."""

    dtype: str
    access: Access = "contiguous"


@dataclass(frozen=True)
class Output:
    """An array that is written, from a register. `in_place`: it may lie exactly on an operand of the same access."""

    register: int
    dtype: str
    access: Access = "contiguous"
    in_place: bool = False


def check(program: Sequence[Instruction], operands: Sequence[Operand], outputs: Sequence[Output], n_dims: int) -> None:
    """ValueError for a program, an access pattern or an output that makes no sense."""
    for operand in operands:
        if isinstance(operand.access, tuple) and len(operand.access) != n_dims:
            raise ValueError(f"an operand has {len(operand.access)} strides for {n_dims} loop dims")
    for output in outputs:
        if output.access == "scalar":
            raise ValueError("an output cannot be one element for all")
        if isinstance(output.access, tuple) and (len(output.access) != n_dims or 0 in output.access):
            raise ValueError(f"an output has strides {output.access} for {n_dims} loop dims")
        if not 0 <= output.register < len(program):
            raise ValueError(f"an output names register {output.register} of {len(program)}")
    for i, instruction in enumerate(program):
        if instruction[0] == "load" and not 0 <= instruction[1] < len(operands):
            raise ValueError(f"instruction {i} loads operand {instruction[1]} of {len(operands)}")
        if instruction[0] == "op" and any(not 0 <= r < i for r in instruction[3]):
            raise ValueError(f"instruction {i} reads a register that is not set yet: {instruction[3]}")


def register_dtypes(program: Sequence[Instruction], operands: Sequence[Operand]) -> list[str]:
    """The dtype of every register."""
    return [operands[i[1]].dtype if i[0] == "load" else i[-1] for i in program]


def describe(program: Sequence[Instruction]) -> str:
    """The primitives of a program, for a kernel's name."""
    names = [i[1] for i in program if i[0] == "op"] or ["copy"]
    return "_".join(names[:4]) + (f"_and_{len(names) - 4}" if len(names) > 4 else "")


class Params:
    """Collects a kernel's parameters and their declarations."""

    def __init__(self) -> None:
        self.params: list[Param] = []
        self.declarations: list[str] = []

    def add(self, param: Param, declaration: str) -> None:
        self.params.append(param)
        self.declarations.append(declaration)

    def dims(self, n: int) -> None:
        for d in range(n):
            self.add(("dim", d), f"i64 d{d}")

    def operands(self, operands: Sequence[Operand], first: int = 0) -> None:
        for i, operand in enumerate(operands, first):
            self.add(("ptr", i), f"const {storage(operand.dtype)}* p{i}")
            if isinstance(operand.access, tuple):
                for d, stride in enumerate(operand.access):
                    if stride is None:
                        self.add(("stride", i, d), f"i64 t{i}_{d}")

    def outputs(self, outputs: Sequence[Output]) -> None:
        for j, output in enumerate(outputs):
            restrict = "" if output.in_place else " __restrict__"
            self.add(("out", j), f"{storage(output.dtype)}*{restrict} q{j}")
            if isinstance(output.access, tuple):
                for d, stride in enumerate(output.access):
                    if stride is None:
                        self.add(("out_stride", j, d), f"i64 u{j}_{d}")

    def scalars(self, *programs: Sequence[Instruction]) -> None:
        """Scalars and integers of programs, in order of first use."""
        for program in programs:
            for instruction in program:
                if instruction[0] == "scalar":
                    self.scalar(instruction[1], scalar_type(instruction[2]))
                elif instruction[0] == "iota":
                    for kind, k in instruction[2:4]:
                        if kind == "scalar":
                            self.scalar(k, "f64")
                        elif ("int", k) not in self.params:
                            self.add(("int", k), f"i64 n{k}")

    def scalar(self, k: int, ctype: str) -> str:
        """Declares scalar k, once; returns its C name."""
        name = f"s{k}_{ctype}"
        if ("scalar", k, ctype) not in self.params:
            self.add(("scalar", k, ctype), f"{'i64' if ctype == 's64' else ctype} {name}")
        return name


def define(
    label: str,
    header: str,
    params: Params,
    body: Sequence[str],
    launch: Launch,
    before: Sequence[str] = (),
    together: int = 1,
) -> KernelSource:
    """A kernel of these statements. Its graph edge may be programmatic: it waits for its producers before the body.

    Inputs are not `__restrict__`: memory that a kernel before this one is still writing is not constant while this one
    runs, as loads through the path for constants would take it to be.

    Args:
        label: the beginning of the kernel's name.
        header: what it includes.
        params: its parameters.
        body: statements.
        launch: how it is launched; the number of threads bounds its registers.
        before: statements that need not wait: they read nothing that a plan writes, and write no global memory.
        together: blocks that a multiprocessor is to have registers for.
    """
    threads = launch.block[0] * launch.block[1] * launch.block[2]
    bounds = f"{threads}, {together}" if together > 1 else f"{threads}"
    cluster = f"CLUSTER_DIMS(1, {launch.cluster}, 1) " if launch.cluster > 1 else ""
    lines = ["launch_dependents();", *before, "wait_for_producers();", *body]
    text = "\n".join(
        [
            f'#include "{header}"',
            f'extern "C" __global__ void {cluster}__launch_bounds__({bounds}) KERNEL_NAME(KERNEL_PARAMETERS) {{',
            *("    " + line for line in lines),
            "}",
            "",
        ]
    )
    return kernel(label, text, params.params, launch, params.declarations)


def scalar_type(dtype: str) -> str:
    """The kernel argument type of a scalar of this dtype."""
    if dtype == "complex64":
        return "c64"
    if dtype == "float64":
        return "f64"
    return "f32" if "float" in dtype else "s64"


def _scalar(k: int, dtype: str) -> str:
    name = f"s{k}_{scalar_type(dtype)}"
    match dtype:
        case "bool":
            return f"{name} != 0"
        case "float16" | "bfloat16":
            return f"rounded<{storage(dtype)}>({name})"
        case "float32" | "float64" | "complex64":
            return name
    return f"{storage(dtype)}({name})"


def _iota(instruction: Instruction, coordinate: Callable[[int | None], str]) -> str:
    _, axis, start, step, dtype = instruction
    index = coordinate(axis)
    if dtype in INTEGERS:
        first, by = (f"n{k}" if kind == "int" else f"i64(s{k}_f64)" for kind, k in (start, step))
        return f"{storage(dtype)}(u64({first}) + u64({by}) * u64({index}))"
    # In double, so that far elements of a float32 range are rounded once and not by the product too.
    first, by = (f"f64(n{k})" if kind == "int" else f"s{k}_f64" for kind, k in (start, step))
    return f"cast<{storage(dtype)}>({first} + {by} * f64({index}))"


def emit(
    program: Sequence[Instruction],
    operands: Sequence[Operand],
    load: Callable[[int], str],
    coordinate: Callable[[int | None], str],
    *,
    value: Sequence[str] = (),
    prefix: str = "r",
) -> list[str]:
    """One C statement per instruction, defining registers `{prefix}0`...

    Args:
        program: the instructions.
        operands: what its loads name.
        load: the C expression of an operand's element as it is stored.
        coordinate: the C expression of a loop coordinate, or of the linear index for None.
        value: the C expressions of what `("value", k, dtype)` stands for, by k.
        prefix: of the registers' names.
    """
    lines = []
    dtypes = register_dtypes(program, operands)
    is_rounded: list[bool] = []
    for i, (instruction, dtype) in enumerate(zip(program, dtypes, strict=True)):
        exact = dtype not in ("float16", "bfloat16") or instruction[0] in ("load", "scalar", "iota")
        match instruction[0]:
            case "load":
                text = f"to_compute({load(instruction[1])})"
            case "scalar":
                text = _scalar(instruction[1], dtype)
            case "iota":
                text = _iota(instruction, coordinate)
            case "op":
                _, name, _static, registers, inputs, output = instruction
                for r, expected in zip(registers, inputs, strict=True):
                    if dtypes[r] != expected:
                        raise ValueError(f"[{name}] register {r} is {dtypes[r]}, not {expected}")
                arguments = [f"{prefix}{r}" for r in registers]
                if name in NEEDS_ROUNDED:
                    arguments = [
                        a if is_rounded[r] else f"rounded<{storage(dtypes[r])}>({a})"
                        for a, r in zip(arguments, registers, strict=True)
                    ]
                exact = exact or (
                    name in KEEPS_ROUNDED and (name in NEEDS_ROUNDED or all(is_rounded[r] for r in registers))
                )
                text = expression(name, arguments, inputs, output)
            case "value":
                text = value[instruction[1]]
            case other:
                raise ValueError(f"unknown instruction {other!r}")
        is_rounded.append(exact)
        lines.append(f"const {compute(dtype)} {prefix}{i} = {text};")
    return lines


def store_expression(register: int, program: Sequence[Instruction], output: Output, prefix: str = "r") -> str:
    """A register as it is stored in an output. Its dtype must be the output's."""
    instruction = program[register]
    if instruction[:2] == ("op", "astype") and instruction[4] == ("float32",) and compute(output.dtype) == "f32":
        (register,) = instruction[3]  # rounded by being stored
    return f"from_compute<{storage(output.dtype)}>({prefix}{register})"


def check_output_dtypes(program: Sequence[Instruction], operands: Sequence[Operand], outputs: Sequence[Output]) -> None:
    """ValueError if an output's dtype is not its register's."""
    dtypes = register_dtypes(program, operands)
    for output in outputs:
        if dtypes[output.register] != output.dtype:
            raise ValueError(f"register {output.register} is {dtypes[output.register]}, its output {output.dtype}")


def offset(access: Access, coordinates: Sequence[str], stride_prefix: str, linear: str) -> str:
    """The C expression of an element's offset.

    Args:
        access: the pattern; for a tuple, one stride for each of `coordinates` (further strides are left out).
        coordinates: C expressions of the leading loop coordinates.
        stride_prefix: of stride parameters, such as "t0_".
        linear: the linear index, for "contiguous".
    """
    if access == "scalar":
        return "0"
    if access == "contiguous":
        return linear
    terms = []
    for d, c in enumerate(coordinates):
        stride = access[d]
        if stride != 0:
            terms.append(c if stride == 1 else f"{c} * {stride if stride is not None else f'{stride_prefix}{d}'}")
    return " + ".join(terms) or "0"


def last_stride(access: Access) -> int | None:
    """The stride along the last loop dim: 0, 1, or None for a parameter."""
    if isinstance(access, str):
        return 0 if access == "scalar" else 1
    return access[-1]


def vector_width(dtypes: Sequence[str], limit: int = 16) -> int:
    """Elements per thread: 16 bytes of the widest of the dtypes that can be moved as vectors, at most `limit`."""
    return min([limit] + [16 // ITEMSIZE[d] for d in dtypes]) if dtypes else 1


def load_expression(i: int, operand: Operand, position: str, width: int, d_last: int, count: str) -> str:
    """A Pack of `width` elements along the last loop dim from `position`, an offset of operand i."""
    stride = last_stride(operand.access)
    if stride == 1:
        return f"load_pack<{width}>(p{i} + ({position}), {count})"
    if stride == 0:
        return f"load_splat<{width}>(p{i} + ({position}))"
    return f"load_strided<{width}>(p{i} + ({position}), {stride or f't{i}_{d_last}'}, {count})"


def load_statement(i: int, operand: Operand, position: str, width: int, d_last: int, count: str) -> str:
    """`const Pack a{i} = ...`, of `load_expression`."""
    text = load_expression(i, operand, position, width, d_last, count)
    return f"const Pack<{storage(operand.dtype)}, {width}> a{i} = {text};"


def decompose(index: str, dims: Sequence[int], prefix: str = "c") -> list[str]:
    """Statements that split the linear `index` (an i64 lvalue, used up) over loop dims into {prefix}{d}."""
    lines = []
    for d in reversed(list(dims)[1:]):
        lines.append(f"const i64 {prefix}{d} = take_coordinate({index}, d{d});")
    if dims:
        lines.append(f"const i64 {prefix}{dims[0]} = {index};")
    return lines
