"""Transposes through shared memory, run by g++, against NumPy."""

from __future__ import annotations

import itertools
from dataclasses import replace

import kernel_emulator as emulator
import numpy as np
import pytest

from backend_cuda.kernels.copy import generate_transpose

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

ITEMSIZES = (1, 2, 4, 8)
KERNELS = {(itemsize, n): generate_transpose(itemsize, n) for itemsize in ITEMSIZES for n in range(3)}
# Below, at and beyond a tile of 32, 64 or 128; odd rows are never aligned.
MATRICES = [(1, 1), (1, 130), (129, 1), (33, 7), (64, 128), (5, 66), (131, 67)]


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build(list(KERNELS.values()))


def memory(itemsize, shape):
    rng = np.random.default_rng(0)
    return rng.integers(0, 2 ** (8 * itemsize), shape, np.dtype(f"u{itemsize}"))


def transposed(a):
    return np.swapaxes(a, -1, -2)


@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize("shape", MATRICES)
def test_matrices(itemsize, shape):
    a = transposed(memory(itemsize, shape[::-1]))
    for misalign in (0, 1) if itemsize < 8 else (0,):
        kernel = KERNELS[itemsize, 0]
        (found,) = emulator.run(kernel, shape, [a], [(shape, a.dtype)], misalign=misalign)
        np.testing.assert_array_equal(found, a)


@pytest.mark.parametrize("itemsize", ITEMSIZES)
def test_part_of_a_wider_array(itemsize):
    """Off every boundary, with rows apart, backwards along the output's last dim."""
    a = transposed(memory(itemsize, (40, 75))[::-2, 3:74])
    (found,) = emulator.run(KERNELS[itemsize, 0], a.shape, [a], [(a.shape, a.dtype)])
    np.testing.assert_array_equal(found, a)


@pytest.mark.parametrize("itemsize", ITEMSIZES)
def test_broadcast_along_the_last_dim(itemsize):
    a = np.broadcast_to(memory(itemsize, (37, 1)), (37, 66))
    (found,) = emulator.run(KERNELS[itemsize, 0], a.shape, [a], [(a.shape, a.dtype)])
    np.testing.assert_array_equal(found, a)


@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize("shape", [(3, 35, 9), (2, 3, 9, 70), (1, 2, 1, 5)])
def test_batches(itemsize, shape):
    kernel = KERNELS[itemsize, len(shape) - 2]
    a = transposed(memory(itemsize, (*shape[:-2], shape[-1], shape[-2])))
    for given in (a, np.broadcast_to(a[:1], shape), a[::-1]):
        (found,) = emulator.run(kernel, shape, [given], [(shape, a.dtype)])
        np.testing.assert_array_equal(found, given)


@pytest.mark.parametrize("permutation", [(2, 1, 0), (2, 0, 1), (1, 2, 0)])
def test_any_permutation(permutation):
    """Loop dims in an order that puts the input's unit stride before the output's; the output has its own strides."""
    a = np.transpose(memory(2, (5, 34, 67)), permutation)
    unit = a.strides.index(a.itemsize)
    order = [d for d in range(2) if d != unit] + [unit, 2]
    loop = np.transpose(a, order)
    target = np.transpose(np.empty(a.shape, a.dtype), order)
    strides = emulator.strides_of(target)
    (found,) = emulator.run(KERNELS[2, 1], loop.shape, [loop], [(a.shape, a.dtype)], out_strides={0: strides})
    np.testing.assert_array_equal(found, a)


def test_a_grid_larger_than_the_work():
    a = transposed(memory(4, (3, 70, 5)))
    for n in (0, 1):
        kernel = KERNELS[4, n]
        grid = (("add", kernel.launch.grid[0], 3), 1, 1)
        larger = replace(kernel, launch=replace(kernel.launch, grid=grid))
        given = a if n else a[0]
        (found,) = emulator.run(larger, given.shape, [given], [(given.shape, a.dtype)])
        np.testing.assert_array_equal(found, given)


def test_refused():
    for itemsize, n in itertools.product((3, 16), (0, 1)):
        with pytest.raises(ValueError, match="bytes"):
            generate_transpose(itemsize, n)
    with pytest.raises(ValueError, match="batch dims"):
        generate_transpose(4, -1)
