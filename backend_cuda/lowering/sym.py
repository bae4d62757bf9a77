"""Integers that are known only when a plan is bound: polynomials over the tape's sizes.

A plan is lowered once and bound for many sizes, so shapes, strides and offsets are symbolic. Polynomials have one
normal form, so that "is this stride the product of the inner dims?" is an equality test. What is not a polynomial (a
ceiling division, a maximum) becomes an atom of its own.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Union

from ..kernels.target import target

Monomial = tuple[int, ...]
IntLike = Union["Sym", int]
Choice = TypeVar("Choice")
Terms = tuple[tuple[int, tuple[int, ...]], ...]  # (factor, slots of the tape's sizes that are multiplied), added up
MOST = 1 << 48  # more than any size


@dataclass(frozen=True)
class Atom:
    """A size slot (`op == "size"`, `a` the slot) or an operation that is not a polynomial."""

    op: str
    a: int | Sym
    b: Sym | None = None


class Sym:
    """An integer polynomial: {monomial (sorted atom ids): coefficient}."""

    __slots__ = ("_hash", "const", "table", "terms")

    const: int | None  # the value, if it does not depend on any size

    def __init__(self, table: SymTable, terms: dict[Monomial, int]) -> None:
        self.table = table
        self.terms = {m: c for m, c in terms.items() if c}
        self.const = self.terms.get(()) if len(self.terms) == 1 else None if self.terms else 0
        self._hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.const == other
        return self is other or (isinstance(other, Sym) and self.terms == other.terms)

    def __add__(self, other: IntLike) -> Sym:
        other = self.table.lift(other)
        if other.const == 0:
            return self
        if self.const == 0:
            return other
        terms = dict(self.terms)
        for m, c in other.terms.items():
            terms[m] = terms.get(m, 0) + c
        return Sym(self.table, terms)

    __radd__ = __add__

    def __neg__(self) -> Sym:
        return Sym(self.table, {m: -c for m, c in self.terms.items()})

    def __sub__(self, other: IntLike) -> Sym:
        return self + (-self.table.lift(other))

    def __rsub__(self, other: IntLike) -> Sym:
        return self.table.lift(other) - self

    def __mul__(self, other: IntLike) -> Sym:
        other = self.table.lift(other)
        if other.const == 1:
            return self
        if self.const == 1:
            return other
        terms: dict[Monomial, int] = {}
        for m1, c1 in self.terms.items():
            for m2, c2 in other.terms.items():
                m = tuple(sorted(m1 + m2))
                terms[m] = terms.get(m, 0) + c1 * c2
        return Sym(self.table, terms)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        def text(m: Monomial, c: int) -> str:
            atoms = "*".join(self.table.atom_text(a) for a in m)
            return str(c) if not atoms else atoms if c == 1 else f"{c}*{atoms}"

        return " + ".join(text(m, c) for m, c in sorted(self.terms.items())) or "0"


class SymTable:
    """Atoms, what they are known to equal, and the example values they were lowered with."""

    def __init__(self, example_sizes: list[int]) -> None:
        self.example = example_sizes
        self.atoms: list[Atom] = []
        self._ids: dict[Atom, int] = {}
        self._constants: dict[int, Sym] = {}
        self._lone_sizes: dict[int, Sym] = {}  # by the atom's id
        self._ids_of_slots: dict[int, int] = {}
        self._replaced: dict[int, Sym] = {}
        self._ranges: dict[Terms, tuple[int, int]] = {}
        self._choices: dict[Any, Any] = {}

    def lift(self, value: IntLike) -> Sym:
        if isinstance(value, Sym):
            return value
        found = self._constants.get(value)
        if found is None:
            found = self._constants[value] = Sym(self, {(): value})
        return found

    def _atom(self, atom: Atom) -> int:
        found = self._ids.get(atom)
        if found is None:
            found = self._ids[atom] = len(self.atoms)
            self.atoms.append(atom)
        return found

    def size(self, slot: int) -> Sym:
        """The size in a slot of the tape, or what it was found to equal."""
        atom_id = self._ids_of_slots.get(slot)
        if atom_id is None:
            atom_id = self._ids_of_slots[slot] = self._atom(Atom("size", slot))
        return self._resolve(atom_id)

    def _resolve(self, atom_id: int) -> Sym:
        if atom_id not in self._replaced:
            return self._lone_size(atom_id)
        # Equal sizes form chains as long as a program is deep: each is followed once, and not by recursion.
        chain = []
        last: int | None = atom_id
        while last is not None and last in self._replaced:
            chain.append(last)
            atom_id, last = last, self._lone(self._replaced[last])
        found = self._lone_size(last) if last is not None else self.resolve(self._replaced[atom_id])
        for link in chain:
            self._replaced[link] = found
        return found

    def _lone_size(self, atom_id: int) -> Sym:
        found = self._lone_sizes.get(atom_id)
        if found is None:
            found = self._lone_sizes[atom_id] = Sym(self, {(atom_id,): 1})
        return found

    def resolve(self, sym: Sym) -> Sym:
        """`sym` with every atom replaced by what it is known to equal."""
        if not any(a in self._replaced for m in sym.terms for a in m):
            return sym
        total = self.lift(0)
        for m, c in sym.terms.items():
            product = self.lift(c)
            for a in m:
                product = product * self._resolve(a)
            total = total + product
        return total

    def equate(self, a: Sym, b: Sym) -> None:
        """Record that the ops imply a == b, if one of them is a lone size not yet replaced."""
        a, b = self.resolve(a), self.resolve(b)
        if a == b or a.const is not None or b.const is not None:
            return
        factor = math.gcd(*a.terms.values(), *b.terms.values())
        if factor > 1:
            a, b = (Sym(self, {m: c // factor for m, c in x.terms.items()}) for x in (a, b))
        for x, y in ((a, b), (b, a)):
            lone = self._lone(x)
            if lone is not None and not self._mentions(y, lone):
                self._replaced[lone] = y
                return

    def _lone(self, sym: Sym) -> int | None:
        if len(sym.terms) == 1:
            ((m, c),) = sym.terms.items()
            if c == 1 and len(m) == 1 and self.atoms[m[0]].op == "size":
                return m[0]
        return None

    def _mentions(self, sym: Sym, atom_id: int) -> bool:
        return any(a == atom_id for m in sym.terms for a in m)

    def apply(self, op: str, a: IntLike, b: IntLike) -> Sym:
        """`cdiv`, `div`, `mod`, `max` or `min` of two integers."""
        a, b = self.lift(a), self.lift(b)
        if a.const is not None and b.const is not None:
            return self.lift(evaluate_op(op, a.const, b.const))
        if op in ("cdiv", "div") and b.const == 1:
            return a
        if op in ("max", "min") and a == b:
            return a
        return Sym(self, {(self._atom(Atom(op, a, b)),): 1})

    def cdiv(self, a: IntLike, b: IntLike) -> Sym:
        return self.apply("cdiv", a, b)

    def maximum(self, a: IntLike, b: IntLike) -> Sym:
        return self.apply("max", a, b)

    def minimum(self, a: IntLike, b: IntLike) -> Sym:
        return self.apply("min", a, b)

    def value(self, sym: IntLike, sizes: list[int] | None = None) -> int:
        """The integer for given sizes (the example's by default)."""
        if isinstance(sym, int):
            return sym
        sizes = self.example if sizes is None else sizes
        total = 0
        for m, c in sym.terms.items():
            for a in m:
                atom = self.atoms[a]
                if atom.op == "size":
                    assert isinstance(atom.a, int)
                    c *= sizes[atom.a]
                else:
                    assert isinstance(atom.a, Sym) and atom.b is not None
                    c *= evaluate_op(atom.op, self.value(atom.a, sizes), self.value(atom.b, sizes))
            total += c
        return total

    # ---- choices of speed

    def choose(self, function: Callable[..., Choice], *constants: Any, of: Sequence[IntLike]) -> Choice:
        """function(*constants, *values of sizes) for the example: a choice that is right for any sizes, fast for some.

        The ranges around the example's sizes in which it would be the same become `ranges`: for other sizes there will
        be another plan. Each is looked for as if the other sizes stayed what they are; then all are made smaller until
        the choice is the same where they end together.
        """
        sizes = [self.resolve(self.lift(s)) for s in of]
        key = (function, constants, tuple(sizes))
        if key not in self._choices:
            values = tuple(self.value(s) for s in sizes)
            terms = {k: t for k, t in enumerate(map(self._terms, sizes)) if t and values[k] > 0}
            self._choices[key], bounds = _choice_and_bounds(function, constants, values, tuple(terms), target.numbers)
            for k, (least, most) in bounds.items():
                known = self._ranges.get(terms[k], (0, MOST))
                self._ranges[terms[k]] = max(known[0], least), min(known[1], most)
        return self._choices[key]

    def _terms(self, sym: Sym) -> Terms:
        """A polynomial of sizes that are not constant; nothing for others."""
        if sym.const is not None or any(self.atoms[a].op != "size" for m in sym.terms for a in m):
            return ()
        return tuple((c, tuple(int(self.atoms[a].a) for a in m)) for m, c in sorted(sym.terms.items()))  # type: ignore[arg-type]

    @property
    def ranges(self) -> list[tuple[int, int, Terms]]:
        """The sizes for which all choices would be the same: (least, most, polynomial)."""
        return [(*bounds, terms) for terms, bounds in self._ranges.items() if bounds != (0, MOST)]

    def atom_text(self, atom_id: int) -> str:
        atom = self.atoms[atom_id]
        return f"s{atom.a}" if atom.op == "size" else f"{atom.op}({atom.a}, {atom.b})"


# Layers of a model ask the same of sizes that are other slots of the tape.
@functools.lru_cache(maxsize=4096)
def _choice_and_bounds(
    function: Callable[..., Choice],
    constants: tuple[Any, ...],
    values: tuple[int, ...],
    free: tuple[int, ...],
    device: tuple[int, ...],
) -> tuple[Choice, dict[int, tuple[int, int]]]:
    """function(*constants, *values), and the bounds of the values of `free` numbers between which it is the same.

    What functions choose for is `device`, which they look up themselves.
    """
    chosen = function(*constants, *values)

    def is_same(changed: dict[int, int]) -> bool:
        return function(*constants, *(changed.get(k, v) for k, v in enumerate(values))) == chosen

    bounds = {}
    for k in free:
        alone = functools.partial(lambda k, v: is_same({k: v}), k)
        bounds[k] = _least(alone, values[k]), _most(alone, values[k])
    while len(bounds) > 1 and not all(
        is_same(dict(zip(bounds, (max(1, v) for v in corner), strict=True)))
        for corner in itertools.product(*bounds.values())
    ):
        bounds = {k: _nearer(least, values[k], most) for k, (least, most) in bounds.items()}
    return chosen, bounds


def _nearer(least: int, value: int, most: int) -> tuple[int, int]:
    """Bounds half as far from a value, by their ratio to it."""
    return math.isqrt(max(1, least) * value - 1) + 1, math.isqrt(most * value)


def _least(is_same: Callable[[int], bool], value: int) -> int:
    """The least of the numbers up to `value` for which all seem to be the same, 0 if that is 1."""
    same, other = value, 0
    while same > 1 and not other:
        probe = same // 2
        same, other = (probe, 0) if is_same(probe) else (same, probe)
    while same - other > 1 and other:
        middle = (same + other) // 2
        same, other = (middle, other) if is_same(middle) else (same, middle)
    return same if other else 0


def _most(is_same: Callable[[int], bool], value: int) -> int:
    """The greatest of the numbers from `value` for which all seem to be the same."""
    same, other = value, 0
    while same < MOST and not other:
        probe = 2 * same
        same, other = (probe, 0) if is_same(probe) else (same, probe)
    while other - same > 1 and other:
        middle = (same + other) // 2
        same, other = (middle, other) if is_same(middle) else (same, middle)
    return same if other else MOST


def evaluate_op(op: str, a: int, b: int) -> int:
    """One entry of a size program."""
    match op:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "cdiv":
            return -(-a // b)
        case "div":
            return a // b
        case "mod":
            return a % b
        case "max":
            return max(a, b)
        case "min":
            return min(a, b)
    raise ValueError(f"unknown size operation {op!r}")


class Registers:
    """Turns Syms into the registers of a size program, each value computed once."""

    def __init__(self, table: SymTable, n_sizes: int) -> None:
        self.table = table
        self.n_sizes = n_sizes
        self.program: list[tuple[str, int, int]] = []
        self._entries: dict[tuple[str, int, int], int] = {}
        self._syms: dict[Sym, int] = {}

    def _emit(self, op: str, a: int, b: int) -> int:
        entry = (op, a, b)
        found = self._entries.get(entry)
        if found is None:
            found = self._entries[entry] = self.n_sizes + len(self.program)
            self.program.append(entry)
        return found

    def constant(self, value: int) -> int:
        return self._emit("const", value, 0)

    def register(self, value: IntLike) -> int:
        """The register that holds this integer when the plan is bound."""
        sym = self.table.lift(value)
        found = self._syms.get(sym)
        if found is not None:
            return found
        total: int | None = None
        for m, c in sorted(sym.terms.items()):
            product: int | None = None if c == 1 and m else self.constant(c)
            for a in m:
                atom = self.table.atoms[a]
                if atom.op == "size":
                    assert isinstance(atom.a, int)
                    reg = atom.a
                else:
                    assert isinstance(atom.a, Sym) and atom.b is not None
                    reg = self._emit(atom.op, self.register(atom.a), self.register(atom.b))
                product = reg if product is None else self._emit("mul", product, reg)
            assert product is not None
            total = product if total is None else self._emit("add", total, product)
        result = self.constant(0) if total is None else total
        self._syms[sym] = result
        return result
