"""Kernels of the k greatest on the emulator, against NumPy's stable sorts."""

from __future__ import annotations

import itertools

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest
from test_kernels_sort import SORTED, run_stages, samples

from backend_cuda.kernels.select import VARIANTS, choose_variant, generate_device_top, generate_top

pytestmark = pytest.mark.skipif(not emulator.available(), reason="needs g++")

CASES = [
    (dtype, indices, variant)
    for k, (dtype, indices) in enumerate(itertools.product(SORTED, (False, True)))
    for m, variant in enumerate(VARIANTS)
    if (k + m) % 4 == 0 or (dtype == "float32" and variant in ("lanes 64", "short", "long"))
]
DEVICE = [("bool", True), ("int8", False), ("bfloat16", True), ("float16", False)]
DEVICE += [("float32", False), ("float32", True), ("int32", True), ("float64", True), ("uint64", False)]


@pytest.fixture(scope="module", autouse=True)
def built():
    kernels = [generate_top(*case) for case in CASES]
    emulator.build(kernels + [stage.kernel for case in DEVICE for stage in generate_device_top(*case).stages])


def check(found: np.ndarray, a: np.ndarray, k: int, indices: bool) -> None:
    wide = a.astype(np.float32) if a.dtype == ml_dtypes.bfloat16 else a
    order = np.sort(np.argsort(wide, axis=-1, kind="stable")[..., a.shape[-1] - k :], axis=-1)
    case = f"{a.dtype} {a.shape} {k}"
    if indices:
        np.testing.assert_array_equal(found, order, case)
    else:  # bit for bit: signs of zeros, and NaN as they were
        bits = f"u{a.itemsize}"
        np.testing.assert_array_equal(found.view(bits), np.take_along_axis(a, order, -1).view(bits), case)


def output(a: np.ndarray, k: int, indices: bool) -> tuple[tuple[int, ...], np.dtype]:
    return (a.shape[0], k), np.dtype(np.uint32) if indices else a.dtype


def inputs(dtype: str, shape: tuple[int, int], seed: int) -> list[np.ndarray]:
    """Samples, and rows of one number."""
    a = samples(dtype, shape, seed)
    return [a, np.broadcast_to(a[:, :1], shape).copy()]


@pytest.mark.parametrize("dtype,indices,variant", CASES)
def test_one_kernel(dtype, indices, variant):
    kernel = generate_top(dtype, indices, variant)
    if variant.startswith("lanes"):
        capacity = int(variant.split()[1])
        shapes = [(70, capacity), (3, 2), (65, capacity - 1), (2, capacity // 2 + 1), (3, 2 * capacity + 5)]
    else:
        shapes = [(2, 3), (2, 1000), (1, 20_001)]
    for m, (rows, n) in enumerate(shapes):
        for k in sorted({1, 2, n // 3 or 1, n - 1, n}):
            for a in inputs(dtype, (rows, n), m):
                (found,) = emulator.run(kernel, (rows, n, k), [a], [output(a, k, indices)], misalign=m % 2)
                check(found, a, k, indices)


@pytest.mark.parametrize("dtype,indices", DEVICE)
def test_many_blocks(dtype, indices):
    pipeline = generate_device_top(dtype, indices)
    for m, (rows, n) in enumerate([(3, 2), (2, 300), (2, 20_001)]):
        for k in sorted({1, n // 3 or 1, n - 1}):
            for a in inputs(dtype, (rows, n), m):
                check(run_stages(pipeline, a, output(a, k, indices), m % 2), a, k, indices)


def test_a_row_of_many_parts():
    """More than a block has threads."""
    a = np.arange(300 * 8192, dtype=np.uint32).reshape(1, -1) % 1000
    found = run_stages(generate_device_top("uint32", False), a, output(a, 7000, False), 0)
    check(found, a, 7000, False)


def test_stages_and_their_memory():
    for dtype, indices in itertools.product(SORTED, (False, True)):
        pipeline = generate_device_top(dtype, indices)
        names = {w for stage in pipeline.stages for w in (*stage.operands, *stage.outputs) if w[0] == "temporary"}
        assert names == {("temporary", t) for t in range(len(pipeline.temporaries))}
        for stage in pipeline.stages:
            assert not set(stage.operands) & set(stage.outputs)  # they are restricted pointers
        assert pipeline.stages[-1].outputs == (("output", 0),)


def test_the_choice_of_a_variant():
    assert choose_variant(1, 8) == "lanes 8" and choose_variant(10**6, 9) == "lanes 16"
    assert choose_variant(1, 257) == choose_variant(1000, 4096) == "short"
    assert choose_variant(1000, 10**6) == "long" and choose_variant(1, 10**6) == "device"


def test_what_is_refused():
    for generate in (lambda d: generate_top(d, True, "short"), lambda d: generate_device_top(d, True)):
        with pytest.raises(TypeError, match=r"\[argtopk\].*complex64"):
            generate("complex64")
    with pytest.raises(ValueError, match="variant"):
        generate_top("float32", False, "device")
