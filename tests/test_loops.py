"""Random loops that carry arrays from step to step, as training and decoding do, beside NumPy: plans are met again,
memory is handed on from one evaluation to the next, and what somebody holds must stay as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .module_under_test import mx

PRIME = 97  # numbers are whole and below it, so that all of them are exact in float32
SHAPES = {"row": (6,), "matrix": (4, 6), "turned": (6, 4), "cache": (5, 4, 6)}
DTYPES = ("int32", "float32")

# A step's part, given the module, the arrays by name, and the step's number; it changes some of the arrays.
Part = Callable[[Any, dict[str, Any], int], None]


def _cast(xp: Any, a: Any, dtype: str) -> Any:
    return a.astype(getattr(xp, dtype))


def _changed(xp: Any, arrays: dict[str, Any], name: str) -> Any:
    """The array to be changed in place: NumPy's views would change with it, so there it is a copy."""
    if xp is np:
        arrays[name] = arrays[name].copy()
    return arrays[name]


class Loop:
    """Draws a step, and runs it some times in both modules."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        numbers = np.random.default_rng(seed)
        self.shapes = {f"{kind}_{k}": shape for kind, shape in SHAPES.items() for k in range(2)}
        self.dtypes = {name: self.choose.choice(DTYPES) for name in self.shapes}
        self.expected = {
            name: numbers.integers(0, PRIME, shape).astype(self.dtypes[name]) for name, shape in self.shapes.items()
        }
        self.arrays = {name: mx.array(a) for name, a in self.expected.items()}
        self.held: list[tuple[str, Any, np.ndarray]] = []
        self.log: list[str] = []
        parts = (
            self._sum,
            self._sum,
            self._assign,
            self._assign,
            self._add_in_place,
            self._at,
            self._reduce,
            self._scan,
        )
        parts += (self._turn_around, self._where, self._product, self._take, self._sort)
        self.parts = [self.choose.choice(parts)() for _ in range(self.choose.randrange(2, 10))]

    def _name(self, *kinds: str) -> str:
        return self.choose.choice([n for n in self.shapes if not kinds or n.partition("_")[0] in kinds])

    def _read(self, target: str) -> Callable[[Any, dict[str, Any], int], Any]:
        """What reads an array as one of the target's shape and dtype."""
        source, dtype = self._name(), self.dtypes[target]
        kind, of = source.partition("_")[0], target.partition("_")[0]
        self.log.append(f"    {target} from {source}")
        offset = self.choose.randrange(5)

        def read(xp: Any, arrays: dict[str, Any], step: int) -> Any:
            a = arrays[source]
            if kind == "cache" and of != "cache":
                a = a[(step + offset) % 5]
            if kind == "turned":
                a = a.T
            if of == "row" and a.ndim == 2:
                a = a[offset % 4]
            a = _cast(xp, a, dtype)
            shape = {"turned": (4, 6)}.get(of, SHAPES[of])
            a = xp.broadcast_to(a, shape) if a.shape != shape else a
            return a.T if of == "turned" else a

        return read

    def _index(self, target: str) -> Callable[[Any, int], Any]:
        """Of the first axis, and of the last one."""
        shape = self.shapes[target]
        kind, at = self.choose.randrange(5), self.choose.randrange(4)
        picked = self.choose.sample(range(shape[0]), 2)

        def index(xp: Any, step: int) -> Any:
            first: Any = (
                (step + at) % shape[0],
                slice(step % 3, step % 3 + 2),
                slice(None, None, -1),
                xp.array(picked),
                slice(at, None),
            )[kind]
            return first if len(shape) == 1 or at % 2 else (first, ..., slice(1, 5 if shape[-1] == 6 else 3))

        return index

    # ---- parts of a step

    def _sum(self) -> Part:
        target = self._name()
        a, b, factor = self._read(target), self._read(target), self.choose.randrange(4)

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            arrays[target] = (a(xp, arrays, step) + b(xp, arrays, step) * factor + step) % PRIME

        return part

    def _assign(self) -> Part:
        target = self._name()
        index, value, is_number = self._index(target), self._read(target), self.choose.random() < 0.3

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            at = index(xp, step)
            new = step if is_number else value(xp, arrays, step)[at]
            _changed(xp, arrays, target)[at] = new

        return part

    def _add_in_place(self) -> Part:
        target = self._name()
        value = self._read(target)

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            new, a = value(xp, arrays, step), _changed(xp, arrays, target)
            a += new
            arrays[target] = a % PRIME

        return part

    def _at(self) -> Part:
        target = self._name()
        index, value = self._index(target), self._read(target)

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            at = index(xp, step)
            new = value(xp, arrays, step)[at]
            if xp is np:
                np.add.at(_changed(xp, arrays, target), at, new)
            else:
                arrays[target] = arrays[target].at[at].add(new)
            arrays[target] = arrays[target] % PRIME

        return part

    def _reduce(self) -> Part:
        target, source = self._name("row"), self._name("matrix", "cache")
        name = self.choose.choice(("sum", "max", "min"))

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            a = arrays[source]
            reduced = getattr(xp, name)(a, axis=tuple(range(a.ndim - 1)))
            arrays[target] = _cast(xp, reduced, self.dtypes[target]) % PRIME

        return part

    def _scan(self) -> Part:
        target = self._name("matrix", "turned", "cache")
        axis = self.choose.randrange(len(self.shapes[target]))

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            arrays[target] = _cast(xp, xp.cumsum(arrays[target], axis=axis), self.dtypes[target]) % PRIME

        return part

    def _turn_around(self) -> Part:
        target = self._name()
        by = self.choose.randrange(1, 4)

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            a = arrays[target]
            arrays[target] = xp.concatenate([a[by:], a[:by]])

        return part

    def _where(self) -> Part:
        target = self._name()
        a, b = self._read(target), self._read(target)

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            x, y = a(xp, arrays, step), b(xp, arrays, step)
            arrays[target] = xp.where(x > y, arrays[target], xp.minimum(x, y))

        return part

    def _product(self) -> Part:
        target, left, right = self._name("matrix"), self._name("matrix"), self._name("turned")

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            a, b = (_cast(xp, arrays[n], "float32") for n in (left, right))
            product = (a @ b) @ xp.ones((4, 6), dtype=xp.float32)
            arrays[target] = _cast(xp, product % PRIME, self.dtypes[target])

        return part

    def _take(self) -> Part:
        target = self._name("matrix", "cache")
        picked = [self.choose.randrange(4) for _ in range(self.shapes[target][0])]

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            at = xp.array([(p + step) % self.shapes[target][0] for p in picked])
            arrays[target] = xp.take(arrays[target], at, axis=0)

        return part

    def _sort(self) -> Part:
        target = self._name()

        def part(xp: Any, arrays: dict[str, Any], step: int) -> None:
            arrays[target] = xp.sort(arrays[target], axis=-1)

        return part

    # ---- what happens between the parts

    def _hold(self) -> None:
        """A view, or the array as it is now."""
        name = self._name()
        a, expected = self.arrays[name], self.expected[name].copy()
        ways: list[tuple[str, Callable[[Any], Any]]] = [
            ("as it is", lambda x: x + 0),
            ("turned", lambda x: x.T),
            ("from 1", lambda x: x[1:]),
            ("flat", lambda x: x.reshape(-1)),
            ("backwards", lambda x: x[::-1]),
        ]
        way, of = self.choose.choice(ways)
        self.held.append((f"{name} {way}", of(a), of(expected)))

    def _evaluate(self) -> None:
        some = [a for a in self.arrays.values() if self.choose.random() < 0.5]
        self.choose.choice((mx.eval, mx.async_eval))(some)

    def _check_held(self) -> None:
        for what, a, expected in self.held:
            np.testing.assert_array_equal(np.array(a), expected, what)
        self.held = self.held[self.choose.randrange(1 + len(self.held)) :]

    def run(self) -> None:
        is_compiled = self.choose.random() < 0.3
        names = list(self.shapes)

        def whole(arrays: list[Any], step: int) -> list[Any]:
            named = dict(zip(names, arrays, strict=True))
            for part in self.parts:
                part(mx, named, step)
            return [named[n] for n in names]

        compiled = mx.compile(whole)
        between = [self.choose.choice((None, None, None, self._hold, self._evaluate)) for _ in self.parts]
        for step in range(self.choose.randrange(2, 7)):
            for part, then in zip(self.parts, between, strict=True):
                if not is_compiled:
                    part(mx, self.arrays, step)
                part(np, self.expected, step)
                if then and not is_compiled:
                    then()
            if is_compiled:
                made = compiled([self.arrays[n] for n in names], step)
                self.arrays = dict(zip(names, made, strict=True))
            for then in (self._hold, self._evaluate, self._check_held):
                if self.choose.random() < 0.4:
                    then()
        self._check_held()
        for name, expected in self.expected.items():
            np.testing.assert_array_equal(np.array(self.arrays[name]), expected, name)


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_loops(first: int) -> None:
    for seed in range(first, first + 50):
        loop = Loop(seed)
        try:
            loop.run()
        except Exception as error:
            error.add_note(f"seed {seed}\n" + "\n".join(loop.log))
            raise
