"""How arrays, dtypes and devices are written."""

from __future__ import annotations

import numpy as np
import pytest

from .differential import DTYPES, same_as_mlx, samples
from .module_under_test import mx

TEXTS = {
    "a number": lambda m: m.array(1),
    "a float": lambda m: m.array(2.5),
    "minus nothing": lambda m: m.array(-0.0),
    "floats": lambda m: m.array([1.5, 2.0, 1 / 3]),
    "floats far apart": lambda m: m.array([1e-8, 1e8, 123456789.0, 1e20]),
    "no numbers": lambda m: m.array([float("nan"), float("inf"), float("-inf")]),
    "bools": lambda m: m.array([True, False]),
    "complex": lambda m: m.array([1.5 - 2.5j, 3j]),
    "nothing": lambda m: m.array([]),
    "no rows": lambda m: m.zeros((0, 2)),
    "no columns": lambda m: m.zeros((2, 0)),
    "long": lambda m: m.arange(2000),
    "a long matrix": lambda m: m.arange(10000).reshape(100, 100),
    "many dims": lambda m: m.zeros((3, 4, 5)),
    "many long dims": lambda m: m.zeros((8, 8, 8)),
    "ones": lambda m: m.zeros((1, 1, 1)),
    "signs": lambda m: m.array([-1, 100]),
    "a view": lambda m: m.arange(12).reshape(3, 4).T[::-1],
    "lazy": lambda m: m.arange(3) + 1,
}


@pytest.mark.parametrize("name", TEXTS)
def test_arrays(name):
    same_as_mlx(lambda m: [str(TEXTS[name](m)), repr(TEXTS[name](m))], case=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype):
    a = samples(dtype, (3, 4), domain="small")
    same_as_mlx(lambda m, x: [str(x), repr(x), str(x[0, 0])], a, case=dtype)


def test_precision():
    def call(m):
        texts = []
        for precision in (2, 8):
            with m.printoptions(precision=precision):
                texts.append(str(m.array([np.pi, 100.5])))
        m.set_printoptions(precision=3)
        texts.append(str(m.array([np.pi])))
        m.set_printoptions(precision=-1)
        return [*texts, str(m.array([np.pi]))]

    same_as_mlx(call)


def test_printing_evaluates_and_keeps_the_value():
    a = mx.arange(3) * 2
    assert str(a) == "array([0, 2, 4], dtype=int32)"
    assert a.tolist() == [0, 2, 4]


def test_format():
    same_as_mlx(lambda m: [f"{m.array(2.5)}", f"{m.array([1, 2])}", f"{m.array(3)!r}"])


def test_devices():
    same_as_mlx(lambda m: [str(m.cpu), str(m.Device(m.cpu, 0)), repr(m.Device(m.cpu))])
