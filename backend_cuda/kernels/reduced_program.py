"""What a reduction computes, as C statements: an elementwise program, and what is reduced of it over some loop dims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .codegen import Instruction, Operand, Params, describe, emit, last_stride, offset, register_dtypes, vector_width
from .ops import INEXACT, INTEGERS, ITEMSIZE, compute, storage

OPS = ("sum", "prod", "max", "min", "any", "all", "logsumexp", "argmax", "argmin")
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


@dataclass(frozen=True)
class ReducedProgram:
    """A program at every point of loop dims, of which some are reduced: see `reduce.generate`."""

    op: str
    program: Sequence[Instruction]
    kinds: str
    operands: Sequence[Operand]
    register: int
    out_dtype: str
    kept_in_flight: bool = False  # whether kept coordinates differ, too, between the packs in flight

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
        """Consecutive elements of the last dim that a thread takes: 16 bytes of the widest operand along it.

        More than 8 need too many registers, except of bytes that are all reduced to one state.
        """
        bytes_only = all(ITEMSIZE[o.dtype] == 1 for o in self.operands) and self.kinds.endswith("r")
        along = [o.dtype for o in self.operands if last_stride(o.access) == 1]
        return vector_width(along, 16 if bytes_only else 8)

    def params(self) -> Params:
        params = Params()
        params.dims(len(self.kinds))
        params.operands(self.operands)
        params.add(("out", 0), f"{storage(self.out_dtype)}* __restrict__ q0")
        params.scalars(self.program)
        return params

    def coordinates(self) -> list[str]:
        """Reduced coordinates differ between the packs in flight; the last dim's is that of the pack's start."""
        return [f"c{d}[u]" if kind == "r" or self.kept_in_flight else f"c{d}" for d, kind in enumerate(self.kinds)]

    @property
    def takes_packs(self) -> bool:
        """Whether the elements of a pack are pushed at once, in place of one by one."""
        return self.op == "logsumexp" and self.element != "complex64"

    def push_each(self, state: str, last: str, when: str | None = None) -> list[str]:
        """Statements that compute the elements of pack u one by one, and push element j to `state`, if `when`.

        `last` is the coordinate of the pack's first along the last dim.
        """
        lines, value, index = self._element_statements(last)
        lines = [*lines, f"Op::push({state}, {value}, {index});"]
        if when:
            lines = [f"if ({when}) {{", *("    " + line for line in lines), "}"]
        return self._for_elements(lines)

    def push_pack(self, state: str, last: str, *, whole: bool = False) -> list[str]:
        """Statements that compute the elements of pack u and push them: those from from[u] to to[u], or all."""
        inside = "wanted >> j & 1"  # of one word: two comparisons an element cost more than its sum
        wanted = [] if whole else ["const u32 wanted = bits_between(from[u], to[u]);"]
        if not self.takes_packs:
            return [*wanted, *self.push_each(state, last, None if whole else inside)]
        lines, value, _ = self._element_statements(last)
        element, width = compute(self.element), self.width()
        computed = [f"{element} x[{width}];", *self._for_elements([*lines, f"x[j] = {value};"])]
        if not whole:
            computed = [
                "if (from[u] >= to[u]) continue;",
                *wanted,
                *computed,
                f"if (from[u] > 0 || to[u] < {width}) {{",
                "#pragma unroll",
                f"    for (int j = 0; j < {width}; ++j) x[j] = {inside} ? x[j] : lowest<{element}>();",
                "}",
            ]
        return [*computed, f"Op::push_all({state}, x);"]

    def _for_elements(self, lines: Sequence[str]) -> list[str]:
        """Statements for each element j of a pack."""
        head = ["#pragma unroll", f"for (int j = 0; j < {self.width()}; ++j) {{"]
        return [*head, *("    " + line for line in lines), "}"]

    def loads(self, count: str | None) -> list[str]:
        """Statements that load pack u of each operand: its first `count` elements; if None, all, from a boundary."""
        width, last = self.width(), len(self.kinds) - 1
        lines = []
        for i, (operand, position) in enumerate(zip(self.operands, self.positions(), strict=True)):
            stride = last_stride(operand.access)
            if stride == 0:
                text = f"load_splat<{width}>(p{i} + ({position}))"
            elif stride != 1:
                step = stride or f"t{i}_{last}"
                text = f"load_strided_range<{width}>(p{i} + ({position}), {step}, 0, {count or width})"
            elif count:
                text = f"load_range<{width}>(p{i} + ({position}), 0, {count})"
            else:
                text = f"load_aligned<{width}>(p{i} + ({position}))"
            lines.append(f"a{i}[u] = {text};")
        return lines

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
