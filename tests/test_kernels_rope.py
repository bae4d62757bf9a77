"""Rotary positions on the emulator, against MLX and the exact angles."""

from __future__ import annotations

import itertools

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.rope import generate_rope

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUMPY = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}
TOLERANCE = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2, "float64": 1e-6}
DIMS = (2, 6, 16, 32)  # a pack is 1, 1, 8 and 8 features of 16 bits
KERNELS = {
    (dtype, dims, traditional): generate_rope(dtype, dims, traditional)
    for dtype, dims, traditional in itertools.product(NUMPY, DIMS, (False, True))
}
OFFSETS = ("number", "array", "batch")
GIVEN = {
    (offset, traditional): generate_rope("float16", 8, traditional, offset=offset, has_freqs=True)
    for offset, traditional in itertools.product(OFFSETS, (False, True))
}


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build([*KERNELS.values(), *GIVEN.values()])


def expected(x, dims, traditional, positions, frequencies):
    """positions (B or 1, T), frequencies (dims / 2,): the product in float, the rest in double."""
    angle = positions.astype(np.float32)[:, None, :, None] * frequencies.astype(np.float32)
    cosine, sine = np.cos(angle.astype(np.float64)), np.sin(angle.astype(np.float64))
    wide = x.astype(np.float64)
    out = wide.copy()
    half = dims // 2
    first, second = (slice(0, dims, 2), slice(1, dims, 2)) if traditional else (slice(0, half), slice(half, dims))
    left, right = wide[..., first], wide[..., second]
    out[..., first], out[..., second] = left * cosine - right * sine, left * sine + right * cosine
    return out


def samples(dtype, shape):
    return np.random.default_rng(0).normal(size=shape).astype(NUMPY[dtype])


@pytest.mark.parametrize(("dtype", "dims", "traditional"), KERNELS)
def test_turns(dtype, dims, traditional):
    x = samples(dtype, (2, 3, 5, 37))
    kernel = KERNELS[dtype, dims, traditional]
    frequencies = 500.0 ** (-np.arange(dims // 2) / (dims // 2))
    for given in (x[..., :dims], x[..., :32], x):  # all features turn, or aligned and odd remains
        given = np.ascontiguousarray(given)
        (found,) = emulator.run(
            kernel, given.shape, [given], [(given.shape, given.dtype)], scalars={0: 500.0, 1: 0.5}, ints={0: 7}
        )
        exact = expected(given, dims, traditional, (np.arange(5) + 7)[None] * 0.5, frequencies)
        tolerance = TOLERANCE[dtype]
        np.testing.assert_allclose(found.astype(np.float64), exact, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(found[..., dims:], given[..., dims:])


@pytest.mark.parametrize("misalign", [0, 1])
def test_heads_inside_a_wider_product(misalign):
    """(B, H, T, D) seen in (B, T, 3, H, D): strides along all dims but the last, at any alignment."""
    whole = samples("bfloat16", (2, 5, 3, 4, 32 + misalign))
    x = whole[:, :, 1, :, misalign:].transpose(0, 2, 1, 3)
    (found,) = emulator.run(
        KERNELS["bfloat16", 32, False], x.shape, [x], [(x.shape, x.dtype)],
        scalars={0: 10000.0, 1: 1.0}, ints={0: 0}, misalign=misalign,
    )  # fmt: skip
    exact = expected(x, 32, False, np.arange(5)[None], 10000.0 ** (-np.arange(16) / 16))
    np.testing.assert_allclose(found.astype(np.float64), exact, rtol=1.6e-2, atol=1.6e-2)


@pytest.mark.parametrize(("offset", "traditional"), GIVEN)
def test_frequencies_given(offset, traditional):
    x = samples("float16", (3, 2, 4, 8))
    periods = np.array([1, 3, 50, 2000], np.float32)
    starts = {"number": np.array([11]), "array": np.array([1000]), "batch": np.array([0, 5, 70])}[offset]
    operands = [x, periods] if offset == "number" else [x, starts.astype(np.int32), periods]
    (found,) = emulator.run(
        GIVEN[offset, traditional], x.shape, operands, [(x.shape, x.dtype)], scalars={1: 2.0}, ints={0: 11}
    )
    exact = expected(x, 8, traditional, (starts[:, None] + np.arange(4)) * 2.0, 1 / periods)
    np.testing.assert_allclose(found.astype(np.float64), exact, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("position", [0, 4095, 131072, 1_000_000])
def test_like_mlx(position, traditional):
    mx = pytest.importorskip("mlx.core")
    x = samples("float32", (1, 2, 3, 37))
    (found,) = emulator.run(
        KERNELS["float32", 32, traditional], x.shape, [x], [(x.shape, x.dtype)],
        scalars={0: 10000.0, 1: 1.0}, ints={0: position},
    )  # fmt: skip
    with mx.stream(mx.cpu):
        other = mx.fast.rope(mx.array(x), 32, traditional=traditional, base=10000.0, scale=1.0, offset=position)
    # A frequency is rounded to float, and the angle is wrong by as much times the position.
    slack = 1e-5 + position * 2.0**-24
    np.testing.assert_allclose(found, np.array(other), rtol=1e-5, atol=slack)
    exact = expected(x, 32, traditional, (position + np.arange(3))[None], 10000.0 ** (-np.arange(16) / 16))
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=slack)


def test_refused():
    with pytest.raises(TypeError, match=r"\[rope\].*complex64"):
        generate_rope("complex64", 4, True)
