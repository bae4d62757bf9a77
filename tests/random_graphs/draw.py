"""What is drawn: dims by name, arrays with their bounds, and which of them an op reads."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

import mlxlite.core as mx

SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = SIGNED + UNSIGNED
FLOATS = ("float16", "bfloat16", "float32", "float64")
# One operation's rounding, relative to the largest number that there may be; float32's is that of its functions.
UNIT = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 4e-6, "float64": 1e-13, "complex64": 8e-6}
LARGEST = {"float16": 1e3} | dict.fromkeys(("bfloat16", "float32", "float64", "complex64"), 1e5)
MOST_ELEMENTS = 150_000
Dims = tuple[str, ...]


@dataclass
class Value:
    """An array; its dims by name; for inexact dtypes, a bound of its numbers and of their error (0: exact)."""

    name: str
    array: Any
    dims: Dims
    bound: float = 0.0
    error: float = 0.0

    @property
    def dtype(self) -> str:
        return self.array.dtype.name


@dataclass(frozen=True)
class Extent:
    """A dim: its size, and the least and the most that it is for any sizes."""

    size: int
    least: int
    most: int


def is_float(value: Value) -> bool:
    return value.dtype in FLOATS


def is_inexact(value: Value) -> bool:
    return value.dtype in UNIT


def is_integer(value: Value) -> bool:
    return value.dtype in INTEGERS


def is_exact(value: Value) -> bool:
    return value.error == 0


class Dropped(Exception):
    """The op that was drawn can not be made of the arrays that it met."""


class Draw:
    """The arrays so far, and the two streams of random numbers.

    Args:
        structure: seeds `choose`, which decides what is done; nothing of it may depend on a size or a value.
        values: seeds `numbers`, which gives sizes, values and the places of slices.
        eager: whether every array is evaluated as it is made.
    """

    def __init__(self, structure: int, values: int, eager: bool) -> None:
        self.choose = random.Random(structure)
        self.numbers = np.random.default_rng([structure, values])
        self.eager = eager
        self.values: list[Value] = []
        self.kept: list[Value] = []
        self.log: list[str] = []
        self.extents = {"1": Extent(1, 1, 1), "3": Extent(3, 3, 3), "8": Extent(8, 8, 8)}
        self.extents |= {"16": Extent(16, 16, 16), "64": Extent(64, 64, 64)}
        self.extents["a"] = Extent(int(4 * 175 ** self.numbers.random()), 4, 700)
        for name in "bcd":
            self.extents[name] = Extent(int(self.numbers.integers(4, 10)), 4, 9)

    # ---- dims

    def dim(self, size: int, least: int, most: int) -> str:
        """A dim that no array had before."""
        name = f"n{len(self.extents)}"
        self.extents[name] = Extent(size, least, most)
        return name

    def shape(self, dims: Dims) -> tuple[int, ...]:
        return tuple(self.extents[d].size for d in dims)

    def most(self, dims: Dims) -> int:
        """The most elements that there may be along dims."""
        result = 1
        for d in dims:
            result *= self.extents[d].most
        return result

    def fits(self, dims: Dims) -> bool:
        return len(dims) <= 5 and self.most(dims) <= MOST_ELEMENTS

    def merged(self, dims: Dims) -> str:
        """The dim that dims become when they are one."""
        if len(dims) == 1:
            return dims[0]
        sizes = [self.extents[d] for d in dims]
        least, size = 1, 1
        for extent in sizes:
            least, size = least * extent.least, size * extent.size
        return self.dim(size, least, self.most(dims))

    def some_dims(self) -> Dims:
        """Dims of a new array, of which at most one is long."""
        rank = self.choose.choice((0, 1, 1, 2, 2, 2, 3, 3, 4))
        dims = [self.choose.choice("bcd1bcd") for _ in range(rank)]
        if rank and self.choose.random() < 0.6:
            dims[self.choose.randrange(rank)] = "a"
        return tuple(dims)

    # ---- arrays

    def result(
        self, text: str, array: Any, dims: Dims, bound: float = 0.0, error: float = 0.0, exact: bool = False
    ) -> Value | None:
        """The value that an op made; None if its numbers may be too large, or too far apart, to go on with.

        Args:
            text: what was done.
            bound, error: of the result, if it is inexact; without its rounding.
            exact: whether nothing is rounded.
        """
        assert array.shape == self.shape(dims), f"{text} has shape {array.shape}, not {self.shape(dims)}"
        dtype = array.dtype.name
        if dtype in UNIT:
            error += 0 if exact else UNIT[dtype] * bound
            if bound > LARGEST[dtype] or error > 0.06 * (1 + bound):
                return None
        value = Value(f"v{len(self.log)}", array, dims, bound, error if dtype in UNIT else 0.0)
        self.log.append(f"{value.name} = {text}: {dtype}{list(array.shape)}, error {value.error:.1e}")
        if self.eager:
            mx.eval(array)
        return value

    def numpy(self, dtype: str, shape: Sequence[int], low: float = -2, high: float = 2) -> np.ndarray:
        """Numbers that every dtype holds exactly: quarters, or for integers, whole numbers from 0 if unsigned."""
        if dtype == "bool":
            return self.numbers.random(shape) < 0.5
        if dtype in INTEGERS:
            return self.numbers.integers(max(low, 0) if dtype in UNSIGNED else low, high + 1, shape).astype(dtype)
        quarters = self.numbers.integers(4 * low, 4 * high + 1, shape) / 4
        if dtype == "complex64":
            return (quarters + 1j * self.numbers.integers(4 * low, 4 * high + 1, shape) / 4).astype(np.complex64)
        return np.asarray(quarters).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)

    def array(self, values: np.ndarray) -> Any:
        """An array with the values and dtype of NumPy's."""
        if values.dtype == ml_dtypes.bfloat16:
            return mx.array(values.astype(np.float32), dtype=mx.bfloat16)
        return mx.array(values)

    def leaf(self, dtype: str | None = None, dims: Dims | None = None, low: float = -2, high: float = 2) -> Value:
        """A new array in memory. Its numbers are from low to high."""
        if dtype is None:
            some = (*FLOATS, "float32", "float32", "bfloat16", "complex64", "bool", *INTEGERS)
            dtype = self.choose.choice(some)
        if dims is None:
            dims = self.some_dims()
        array = self.array(self.numpy(dtype, self.shape(dims), low, high))
        bound = max(abs(low), abs(high)) * (2 if dtype == "complex64" else 1)
        value = self.result("leaf", array, dims, bound, exact=True)
        assert value is not None
        return value

    def pick(self, *tests: Callable[[Value], bool]) -> Value | None:
        """One of the values of which all tests hold, rather a late one."""
        found = [v for v in self.values if all(test(v) for test in tests)]
        if not found:
            return None
        return self.choose.choice(found[-5:] if self.choose.random() < 0.7 else found)

    def pick_float(self, *tests: Callable[[Value], bool], dtypes: Sequence[str] = FLOATS) -> Value:
        """A value of a floating dtype; a new array if there is none."""
        found = self.pick(lambda v: v.dtype in dtypes, *tests)
        if found is None or self.choose.random() < 0.05:
            made = self.leaf(self.choose.choice(dtypes))
            return made if all(test(made) for test in tests) else self.leaf(made.dtype, ("b", "a"))
        return found

    def pick_any(self, *tests: Callable[[Value], bool]) -> Value:
        """A value of any dtype; a new array if there is none."""
        found = self.pick(*tests)
        if found is not None:
            return found
        made = self.leaf(dims=("b", "a"))
        return made if all(test(made) for test in tests) else self.leaf("float32", ("b", "a"))

    def within(self, value: Value, low: float, high: float) -> Value:
        """The value of a floating dtype, clipped where it may be outside."""
        if -low == high and value.bound <= high:
            return value
        array = mx.clip(value.array, low, high)
        text = f"clip({value.name}, {low}, {high})"
        clipped = self.result(text, array, value.dims, max(abs(low), abs(high)), value.error, exact=True)
        if clipped is None:  # its error is small beside its numbers, but not beside these
            raise Dropped
        return clipped

    def operand(self, value: Value, low: float = -2, high: float = 2) -> Value:
        """A value of the same dtype that broadcasts to another's dims: an earlier one, or new."""
        found = self.pick(lambda v: v.dtype == value.dtype, lambda v: self.broadcast(v.dims, value.dims) is not None)
        if found is not None and self.choose.random() < 0.6:
            return found
        dims = value.dims[self.choose.randint(0, len(value.dims)) :]
        dims = tuple("1" if self.choose.random() < 0.2 else d for d in dims)
        return self.leaf(value.dtype, dims, low, high)

    def broadcast(self, a: Dims, b: Dims) -> Dims | None:
        """The dims of a result of operands of dims a and b; None if there is none, or it may be too large."""
        n = max(len(a), len(b))
        dims = []
        for x, y in zip(("1",) * (n - len(a)) + a, ("1",) * (n - len(b)) + b, strict=True):
            if x != y and "1" not in (x, y):
                return None
            dims.append(y if x == "1" else x)
        return tuple(dims) if self.fits(tuple(dims)) else None
