"""Kernels that read their arguments from memory compute what those with parameters do; the writer writes all words."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from backend_cuda.kernels import elementwise, random, rope
from backend_cuda.kernels.codegen import Operand, Output
from backend_cuda.kernels.from_memory import MOST_WORDS, from_memory, writer, writer_for

from . import kernel_emulator as emulator

pytestmark = pytest.mark.skipif(not emulator.available(), reason="needs g++")

RNG = np.random.default_rng(3)


def both(kernel, *arguments, **options):
    """The results of a kernel, which must be the same bytes with its arguments in memory."""
    changed = from_memory(kernel)
    assert changed.params == kernel.params and changed.launch == kernel.launch and changed.name != kernel.name
    expected = emulator.run(kernel, *arguments, **options)
    found = emulator.run(changed, *arguments, **options)
    for a, b in zip(expected, found, strict=True):
        assert a.tobytes() == b.tobytes()
    return found


@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", 0.3), ("float64", 0.3), ("int64", -(2**40) - 3), ("complex64", 0.5 - 2j)]
)
def test_scalars_of_every_type(dtype, value):
    program = [("load", 0), ("scalar", 0, dtype), ("op", "multiply", (), (0, 1), (dtype, dtype), dtype)]
    kernel = elementwise.generate(program, 1, [Operand(dtype)], [Output(2, dtype)])
    x = RNG.integers(-9, 9, 1000).astype(dtype)
    (out,) = both(kernel, [1000], [x], [((1000,), dtype)], scalars={0: value})
    np.testing.assert_array_equal(out, x * np.asarray(value, dtype))


def test_strides_dims_and_several_outputs():
    program = [("load", 0), ("load", 1), ("op", "add", (), (0, 1), ("float32", "float32"), "float32")]
    operands = [Operand("float32", (None, None)), Operand("float32", (0, 1))]
    kernel = elementwise.generate(program, 2, operands, [Output(2, "float32", (None, None)), Output(0, "float32")])
    x, row = RNG.normal(size=(33, 7)).astype(np.float32).T, RNG.normal(size=33).astype(np.float32)
    shape = ((7, 33), np.float32)
    out, copy = both(kernel, [7, 33], [x, np.broadcast_to(row, (7, 33))], [shape, shape])
    np.testing.assert_array_equal(out, x + row)
    np.testing.assert_array_equal(copy, x)


def test_random_bits_whose_text_is_written_by_hand():
    keys = RNG.integers(0, 2**32, (3, 2), dtype=np.uint32)
    both(random.generate_random_bits(2), [3, 11], [keys], [((3, 11), np.uint16)])


def test_the_arguments_are_read_before_the_kernel_waits():
    for source in map(from_memory, rope.catalogue(False)):
        head, _, rest = source.source.partition("wait_for_producers();")
        assert head.count("= Argument{arguments + ") == len(source.params) and "Argument" not in rest
        with pytest.raises(ValueError, match="does not begin, once, with its parameters"):
            from_memory(source)


@pytest.mark.parametrize("n", [64, 1000])
def test_the_writer_writes_its_words(n):
    kernel = writer(n)
    emulator.build([kernel])
    words = RNG.integers(0, 2**63, n, dtype=np.uint64)
    target = np.zeros(n + 64, np.uint64)
    address = np.array([target.ctypes.data], np.uint64)
    pointers = (ctypes.c_void_p * 2)(address.ctypes.data, words.ctypes.data)
    grid, block = (ctypes.c_uint * 3)(*kernel.launch.grid), (ctypes.c_uint * 3)(*kernel.launch.block)
    assert getattr(emulator._libraries[kernel.name], f"run_{kernel.name}")(grid, block, pointers) == 0
    np.testing.assert_array_equal(target[:n], words)
    assert not target[n:].any()


def test_the_smallest_writer_is_taken_and_fits_the_parameters_of_a_kernel():
    assert [writer_for(n)[1] for n in (1, 256, 257, 4000, 9000)] == [256, 256, 512, 4000, 4000]
    assert 8 + 8 * MOST_WORDS <= 32764
