"""Sorting kernels on the emulator, against NumPy's stable sorts."""

from __future__ import annotations

import itertools

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels import evaluate_size
from backend_cuda.kernels.ops import DTYPES, ITEMSIZE
from backend_cuda.kernels.sort import CAPACITY, TILE, choose_variant, generate_device_sort, generate_sort

pytestmark = pytest.mark.skipif(not emulator.available(), reason="needs g++")

NUMPY = {d: np.dtype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for d in DTYPES}
SORTED = [d for d in DTYPES if d != "complex64"]
DEVICE = [("bool", True), ("int8", False), ("bfloat16", True), ("float16", False)]
DEVICE += [("float32", False), ("int32", True), ("float64", True), ("uint64", False)]


@pytest.fixture(scope="module", autouse=True)
def built():
    kernels = [generate_sort(*case) for case in itertools.product(SORTED, (False, True))]
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


@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize("dtype", SORTED)
def test_one_block_a_row(dtype, indices):
    kernel = generate_sort(dtype, indices)
    for k, shape in enumerate([(3, 1), (3, 2), (2, 7), (2, 700), (1, CAPACITY), (2, CAPACITY + 1), (1, 5000)]):
        a = samples(dtype, shape, k)
        (found,) = emulator.run(kernel, shape, [a], [(shape, out_dtype(a, indices))], misalign=k % 2)
        check(found, a, indices)


def run_stages(dtype: str, indices: bool, a: np.ndarray, misalign: int) -> np.ndarray:
    """The pipeline's stages one by one; temporaries begin with whatever was there."""
    pipeline = generate_device_sort(dtype, indices)
    values = {"d0": a.shape[0], "d1": a.shape[1]}
    buffers = {
        ("temporary", t): np.full(evaluate_size(n, values), 0xC3, np.uint8) for t, n in enumerate(pipeline.temporaries)
    }
    buffers["operand", 0] = a
    for stage in pipeline.stages:
        types, initial = [], {}
        for j, name in enumerate(stage.outputs):
            if name == ("output", 0):
                types.append((a.shape, out_dtype(a, indices)))
            else:
                types.append((buffers[name].shape, np.uint8))
                initial[j] = buffers[name]
        operands = [buffers[name] for name in stage.operands]
        shift = misalign if ("output", 0) in stage.outputs else 0
        found = emulator.run(stage.kernel, a.shape, operands, types, initial=initial, misalign=shift)
        buffers.update(zip(stage.outputs, found, strict=True))
    return buffers["output", 0]


@pytest.mark.parametrize("dtype,indices", DEVICE)
def test_many_blocks(dtype, indices):
    for k, shape in enumerate([(1, 1), (3, 257), (2, 2 * TILE + 77)]):
        a = samples(dtype, shape, k)
        check(run_stages(dtype, indices, a, k % 2), a, indices)


def test_a_histogram_of_several_rounds():
    """More tiles than are summed at a time."""
    a = samples("bool", (1, 70 * TILE), 0)
    check(run_stages("bool", True, a, 0), a, True)


def test_stages_and_their_memory():
    for dtype, indices in itertools.product(SORTED, (False, True)):
        pipeline = generate_device_sort(dtype, indices)
        assert len(pipeline.stages) == 3 * ITEMSIZE[dtype]
        names = {w for stage in pipeline.stages for w in (*stage.operands, *stage.outputs) if w[0] == "temporary"}
        assert names == {("temporary", t) for t in range(len(pipeline.temporaries))}
        for stage in pipeline.stages:
            assert not set(stage.operands) & set(stage.outputs)  # they are restricted pointers


def test_the_choice_of_a_variant():
    assert choose_variant(1, CAPACITY) == choose_variant(500, 4 * CAPACITY) == "block"
    assert choose_variant(1, CAPACITY + 1) == "device"


@pytest.mark.parametrize("generate", [generate_sort, generate_device_sort])
def test_complex_numbers_have_no_order(generate):
    with pytest.raises(TypeError, match=r"\[argsort\].*complex64"):
        generate("complex64", True)
