"""Sorting kernels on the emulator, against NumPy's stable sorts."""

from __future__ import annotations

import itertools

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels import evaluate_size
from backend_cuda.kernels.ops import DTYPES, ITEMSIZE
from backend_cuda.kernels.sort import (
    BLOCKS,
    FEW_TILES,
    LANES,
    Pipeline,
    capacity_limit,
    choose_capacity,
    generate_device_sort,
    generate_sort,
    has_few_tiles,
    tile_size,
)

pytestmark = pytest.mark.skipif(not emulator.available(), reason="needs g++")

NUMPY = {d: np.dtype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for d in DTYPES}
SORTED = [d for d in DTYPES if d != "complex64"]
DEVICE = [("bool", True, True), ("int8", False, False), ("bfloat16", True, True), ("float16", False, False)]
DEVICE += [("float32", False, True), ("int32", True, False), ("float64", True, True), ("uint64", False, False)]
CAPACITIES = (*LANES, *BLOCKS)
IN_REGISTERS = [
    (dtype, indices, capacity)
    for k, (dtype, indices) in enumerate(itertools.product(SORTED, (False, True)))
    for m, capacity in enumerate(CAPACITIES)
    if capacity <= capacity_limit(dtype) and (dtype in ("float32", "float64") or (k + m) % 4 == 0)
]


@pytest.fixture(scope="module", autouse=True)
def built():
    kernels = [generate_sort(*case) for case in IN_REGISTERS]
    emulator.build(kernels + [stage.kernel for case in DEVICE for stage in generate_device_sort(*case).stages])


def samples(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Many equal values, extremes, and for floats NaN of both signs, zeros of both, and infinities."""
    rng = np.random.default_rng(seed)
    kind = NUMPY[dtype]
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if "float" in dtype:
        numbers = np.round(rng.normal(size=shape) * 3, 1).astype(kind)
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-7, -1e-7]).astype(kind)
        return np.where(rng.random(shape) < 0.2, special[rng.integers(0, len(special), shape)], numbers)
    info = np.iinfo(kind)
    numbers = rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)
    few = rng.integers(-3 if info.min else 0, 4, shape).astype(kind)
    extremes = np.where(rng.random(shape) < 0.5, kind.type(info.min), kind.type(info.max))
    return np.select([rng.random(shape) < 0.3, rng.random(shape) < 0.3], [extremes, few], numbers)


def check(found: np.ndarray, a: np.ndarray, indices: bool) -> None:
    wide = a.astype(np.float32) if a.dtype == ml_dtypes.bfloat16 else a
    order = np.argsort(wide, axis=-1, kind="stable")
    if indices:
        np.testing.assert_array_equal(found, order, f"{a.dtype} {a.shape}")
    else:  # bit for bit: signs of zeros, and NaN as they were
        bits = f"u{a.itemsize}"
        want = np.take_along_axis(a, order, -1)
        np.testing.assert_array_equal(found.view(bits), want.view(bits), f"{a.dtype} {a.shape}")


def out_dtype(a: np.ndarray, indices: bool) -> np.dtype:
    return np.dtype(np.uint32) if indices else a.dtype


@pytest.mark.parametrize("dtype,indices,capacity", IN_REGISTERS)
def test_rows_in_registers(dtype, indices, capacity):
    kernel = generate_sort(dtype, indices, capacity)
    sizes = {1, 2, 3, capacity // 2 - 1, capacity // 2 + 1, capacity - 1, capacity}
    for k, n in enumerate(sorted(sizes)):
        rows = 1 if capacity in BLOCKS else 70 - k
        a = samples(dtype, (rows, n), k)
        (found,) = emulator.run(kernel, a.shape, [a], [(a.shape, out_dtype(a, indices))], misalign=k % 2)
        check(found, a, indices)


@pytest.mark.parametrize("dtype,indices,capacity", [c for c in IN_REGISTERS if c[2] in (8, 64, 1024)])
def test_rows_beyond_the_capacity(dtype, indices, capacity):
    kernel = generate_sort(dtype, indices, capacity)
    for k, shape in enumerate([(3, capacity + 1), (2, 5000)]):
        a = samples(dtype, shape, k)
        (found,) = emulator.run(kernel, shape, [a], [(shape, out_dtype(a, indices))], misalign=k % 2)
        check(found, a, indices)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_with_equals_of_one_kind_and_of_several(dtype):
    """Where keys alone tell the elements of every row of a warp, and where they do not in some."""
    kernel = generate_sort(dtype, False, 8)
    kind = NUMPY[dtype].type
    rows = [[3, -0.0, -1, -0.0, 7], [1, 0.0, -5, 0.0, 2], [np.nan, 1, np.nan, 0.0, -1], [-np.nan, 5, 4, -np.nan, 6]]
    mixed = [[3, -0.0, -1, 0.0, 7], [np.nan, 1, -np.nan, 2, 3], [0.0, -np.nan, -0.0, np.nan, -np.inf]]
    for chosen in (rows, rows + mixed, mixed):
        a = np.array(chosen, kind)
        (found,) = emulator.run(kernel, a.shape, [a], [(a.shape, a.dtype)])
        check(found, a, False)


def run_stages(pipeline: Pipeline, a: np.ndarray, out: tuple[tuple[int, ...], np.dtype], misalign: int) -> np.ndarray:
    """A pipeline's stages one by one; temporaries begin with whatever was there."""
    dims = (*a.shape, out[0][-1])
    values = {f"d{k}": n for k, n in enumerate(dims)}
    buffers = {
        ("temporary", t): np.full(evaluate_size(n, values), 0xC3, np.uint8) for t, n in enumerate(pipeline.temporaries)
    }
    buffers["operand", 0] = a
    for stage in pipeline.stages:
        types, initial = [], {}
        for j, name in enumerate(stage.outputs):
            if name in buffers:
                types.append((buffers[name].shape, buffers[name].dtype))
                initial[j] = buffers[name]
            else:
                types.append(out)
        operands = [buffers[name] for name in stage.operands]
        assert set(stage.updates) <= set(stage.outputs)
        shift = misalign if ("output", 0) in stage.outputs and len(stage.outputs) == 1 else 0
        ints = {0: stage.number}
        found = emulator.run(stage.kernel, dims, operands, types, initial=initial, misalign=shift, ints=ints)
        buffers.update(zip(stage.outputs, found, strict=True))
    return buffers["output", 0]


@pytest.mark.parametrize("dtype,indices,few_tiles", DEVICE)
def test_many_blocks(dtype, indices, few_tiles):
    pipeline = generate_device_sort(dtype, indices, few_tiles)
    for k, shape in enumerate([(1, 1), (3, 257), (2, 2 * tile_size(dtype) + 77)]):
        a = samples(dtype, shape, k)
        check(run_stages(pipeline, a, (shape, out_dtype(a, indices)), k % 2), a, indices)


@pytest.mark.parametrize("few_tiles", [True, False])
def test_a_row_of_many_tiles(few_tiles):
    """Several whose counts one thread sums."""
    a = samples("bool", (1, 150 * tile_size("bool") - 5), 0)
    check(run_stages(generate_device_sort("bool", True, few_tiles), a, (a.shape, np.dtype(np.uint32)), 0), a, True)


def test_stages_and_their_memory():
    for dtype, indices in itertools.product(SORTED, (False, True)):
        pipeline = generate_device_sort(dtype, indices)
        assert len(pipeline.stages) == 3 * ITEMSIZE[dtype]
        names = {w for stage in pipeline.stages for w in (*stage.operands, *stage.outputs) if w[0] == "temporary"}
        assert names == {("temporary", t) for t in range(len(pipeline.temporaries))}
        for stage in pipeline.stages:
            assert not set(stage.operands) & set(stage.outputs)  # they are restricted pointers
        assert pipeline.stages[-1].outputs[-1] == ("output", 0)


def test_the_choice_of_a_capacity():
    for dtype in SORTED:
        for n in (1, 8, 9, 256, 257, 4096):
            capacity = choose_capacity(dtype, n)
            assert n <= capacity
            generate_sort(dtype, False, capacity)
        assert choose_capacity(dtype, capacity_limit(dtype) + 1) is None
    limit = FEW_TILES * tile_size("float32")
    assert has_few_tiles("float32", limit) and not has_few_tiles("float32", limit + 1)


def test_no_such_capacity():
    for capacity in (48, 8192):
        with pytest.raises(ValueError, match="capacity"):
            generate_sort("float64", False, capacity)


def test_complex_numbers_have_no_order():
    with pytest.raises(TypeError, match=r"\[argsort\].*complex64"):
        generate_sort("complex64", True, 64)
    with pytest.raises(TypeError, match=r"\[argsort\].*complex64"):
        generate_device_sort("complex64", True)
