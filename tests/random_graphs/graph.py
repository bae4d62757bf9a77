"""A graph of a structure, sizes and values: recorded, evaluated in parts, and compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import mlxlite.core as mx

from . import elementwise, fast, indexing, matmul, reduce, shape
from .draw import UNIT, Draw, Dropped, Value

FAMILIES = {"elementwise": elementwise, "shape": shape, "reduce": reduce, "indexing": indexing}
FAMILIES |= {"matmul": matmul, "fast": fast}
WEIGHTS = {"elementwise": 5, "shape": 4, "reduce": 3, "indexing": 3, "matmul": 2, "fast": 1}


@dataclass(frozen=True)
class Output:
    """A result: its numbers, and how far another right evaluation may be from them."""

    name: str
    values: np.ndarray
    dtype: str
    error: float

    def difference(self, other: Output) -> str | None:
        """How another evaluation differs from this one by more than may be; None if it does not."""
        if (self.dtype, self.values.shape) != (other.dtype, other.values.shape):
            return f"{other.dtype}{other.values.shape} instead of {self.dtype}{self.values.shape}"
        with np.errstate(all="ignore"):
            a, b = self.values, other.values
            agree = (a == b) | (np.abs(a - b) <= 2 * self.error) if self.dtype in UNIT else a == b
            agree |= (a != a) & (b != b)
        if agree.all():
            return None
        where = tuple(int(k) for k in np.argwhere(~agree)[0])
        return (
            f"{int((~agree).sum())} of {agree.size} differ ({self.dtype}, by more than {2 * self.error:.3g}); "
            f"first at {where}: {b[where]} instead of {a[where]}"
        )


class Graph:
    """Draws a program and evaluates it on the default device.

    Args:
        structure: which program; graphs of one structure differ in sizes, values and the places of slices only.
        values: which of those.
        eager: whether every array is evaluated as it is made, and nothing is fused, held or donated by chance.

    Attributes:
        log: a line for each array that was made.
    """

    def __init__(self, structure: int, values: int, eager: bool = False) -> None:
        self.draw = Draw(structure, values, eager)
        self.log = self.draw.log

    def run(self, n_ops: int = 14) -> list[Output]:
        """Record, evaluate now and then what is held, and at the end what is kept."""
        draw, choose = self.draw, self.draw.choose
        draw.values = [draw.leaf() for _ in range(3)]
        names = choose.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()), k=n_ops)
        kept: list[Value] = []
        for name in names:
            try:
                made = choose.choice(FAMILIES[name].STEPS)(draw)
            except Dropped:
                made = None
            if made is not None:
                draw.values.append(made)
            if choose.random() < 0.08:
                held = choose.sample(draw.values, min(len(draw.values), 2))
                draw.log.append(f"eval({', '.join(v.name for v in held)})")
                mx.eval([v.array for v in held])
            if len(draw.values) > 8:  # what is let go may be fused away, or its memory donated
                draw.values.pop(choose.randrange(len(draw.values)))
        kept = choose.sample(draw.values, min(len(draw.values), choose.randint(2, 6)))
        draw.values = []
        mx.eval([v.array for v in kept])
        return [_output(v) for v in kept]


def _output(v: Value) -> Output:
    array = v.array
    if v.dtype in ("float16", "bfloat16"):
        array = array.astype(mx.float32)
    return Output(v.name, np.array(array), v.dtype, v.error)
