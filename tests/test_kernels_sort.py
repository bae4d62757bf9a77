"""Sorting kernels on the emulator, against NumPy."""

from __future__ import annotations

import kernel_emulator as emulator
import numpy as np
import pytest

from backend_cuda.kernels.sort import CAPACITY, generate_sort

pytestmark = pytest.mark.skipif(not emulator.available(), reason="needs g++")

DTYPES = ("float32", "int8", "float64", "uint16", "bool", "float16", "int64")
KERNELS = {(dtype, indices): generate_sort(dtype, indices) for dtype in DTYPES for indices in (False, True)}


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build(list(KERNELS.values()))


@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows(dtype, indices):
    rng = np.random.default_rng(0)
    for rows, n in ((3, 1), (2, 7), (2, CAPACITY), (2, CAPACITY + 52), (1, 5000)):
        a = (rng.normal(size=(rows, n)) * 20).astype(dtype)
        if a.dtype.kind == "f" and n > 5:
            a[0, 1:4] = -0.0, 0.0, np.nan
        out = np.dtype(np.uint32) if indices else a.dtype
        (found,) = emulator.run(KERNELS[dtype, indices], a.shape, [a], [(a.shape, out)])
        want = np.argsort(a, 1, kind="stable") if indices else np.sort(a, 1)
        np.testing.assert_array_equal(found, want, f"{rows} x {n}")


def test_complex_numbers_have_no_order():
    with pytest.raises(TypeError, match=r"\[argsort\].*complex64"):
        generate_sort("complex64", True)
