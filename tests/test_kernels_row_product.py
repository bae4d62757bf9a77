"""Generated kernels of one-row products with norms, rotary positions and epilogues, run by g++, against NumPy."""

from __future__ import annotations

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.codegen import Operand, Output
from backend_cuda.kernels.row_product import Part, Turn, Variant, choose_variant, generate

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

# Of the largest element of the result: one rounding of the result, and float's of the sum.
TOLERANCE = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 3e-6, "float64": 2e-7}
VARIANTS = [
    Variant(),
    Variant(team=8, items=1, stages=3, threads=64, blocks=2),
    Variant(team=128, items=4, stages=2, blocks=1),
    Variant(team=64, items=2, stages=4, blocks=3),
]


def numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return rng.normal(size=shape).astype(numpy_dtype(dtype))


def wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64)


def normed(x: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    return wide(x) / np.sqrt((wide(x) ** 2).mean() + eps) * wide(scale)


def rotated(y: np.ndarray, dims: int, traditional: bool, position: float, periods: np.ndarray) -> np.ndarray:
    """y (heads, features) with its first features turned."""
    out = y.copy()
    first = np.arange(0, dims, 2) if traditional else np.arange(dims // 2)
    second = first + (1 if traditional else dims // 2)
    angle = position / periods
    out[:, first] = y[:, first] * np.cos(angle) - y[:, second] * np.sin(angle)
    out[:, second] = y[:, first] * np.sin(angle) + y[:, second] * np.cos(angle)
    return out


def check(found: np.ndarray, expected: np.ndarray, dtype: str, scale: float = 1) -> None:
    error = np.abs(wide(found) - expected).max()
    assert error <= scale * TOLERANCE[dtype] * max(1, np.abs(expected).max()), error


def plain(dtype: str) -> Part:
    return Part((("value", 0, dtype),), outputs=(Output(0, dtype),))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("norm", [False, True])
def test_one_weight(dtype: str, norm: bool) -> None:
    rng = np.random.default_rng(0)
    kernels = [generate(dtype, [plain(dtype)], norm, variant) for variant in VARIANTS]
    emulator.build(kernels)
    for kernel in kernels:
        for n, k in ((1, 1), (5, 8), (13, 31), (70, 96), (9, 520)):
            x, scale, w = normal(rng, (k,), dtype), normal(rng, (k,), dtype), normal(rng, (n, k), dtype)
            operands = [x, scale, w] if norm else [x, w]
            (y,) = emulator.run(kernel, (k, n), operands, [((n,), numpy_dtype(dtype))], scalars={0: 1e-5})
            check(y, wide(w) @ (normed(x, scale, 1e-5) if norm else wide(x)), dtype)


def test_rows_that_are_apart_and_off_a_boundary() -> None:
    rng = np.random.default_rng(1)
    kernel = generate("bfloat16", [plain("bfloat16")])
    x = normal(rng, (41,), "bfloat16")[1:]
    for first, step in ((0, 56), (1, 56), (0, 43)):
        w = normal(rng, (7, step), "bfloat16")[:, first : first + 40]
        (y,) = emulator.run(kernel, (40, 7), [x, w], [((7,), numpy_dtype("bfloat16"))])
        check(y, wide(w) @ wide(x), "bfloat16")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("dims, features", [(16, 16), (6, 13), (8, 10)])
def test_queries_keys_and_values(dtype: str, traditional: bool, dims: int, features: int) -> None:
    """Three weights of different sizes: two with a bias that turn, all three written where strides say."""
    rng = np.random.default_rng(2)
    k, heads, kv = 48, 3, 2
    turn = Turn(dims, traditional, "number", False, position=0, base=1, scale=2)
    value = (("value", 0, dtype),)
    biased = (*value, ("load", 0), ("op", "add", (), (0, 1), (dtype, dtype), dtype))
    turned = Part(biased, (Operand(dtype),), outputs=(Output(2, dtype, (None, 1)),), heads=True, turn=turn)
    kept = Part(value, outputs=(Output(0, dtype, (None, None)),), heads=True)
    x, scale = normal(rng, (k,), dtype), normal(rng, (k,), dtype)
    weights = [normal(rng, (n * features, k), dtype) for n in (heads, kv, kv)]
    expected = [(wide(w) @ normed(x, scale, 1e-6)).reshape(-1, features) for w in weights]
    biases = [normal(rng, (n, features), dtype) for n in (heads, kv)]
    position, base, by = 37, 10000.0, 0.5
    periods = base ** (np.arange(dims // 2) / (dims // 2))
    for i in range(2):
        expected[i] = rotated(expected[i] + wide(biases[i]), dims, traditional, position * by, periods)
    for variant in VARIANTS[:2]:
        kernel = generate(dtype, [turned, turned, kept], True, variant)
        shapes = [((n, features), numpy_dtype(dtype)) for n in (heads, kv)]
        outputs = [*shapes, ((features, kv), numpy_dtype(dtype))]
        found = emulator.run(
            kernel,
            (k, heads, features, kv, features, kv, features),
            [x, scale, *weights, *biases],
            outputs,
            scalars={0: 1e-6, 1: base, 2: by},
            ints={0: position},
            out_strides={2: (1, kv)},
        )
        found[2] = found[2].T
        for a, b in zip(found, expected, strict=True):
            check(a, b, dtype, 4)


def test_positions_and_periods_in_memory() -> None:
    rng = np.random.default_rng(3)
    k, heads, features = 24, 2, 8
    turn = Turn(features, False, "array", True, scale=0)
    part = Part((("value", 0, "float32"),), outputs=(Output(0, "float32", (None, 1)),), heads=True, turn=turn)
    x, w = normal(rng, (k,), "float32"), normal(rng, (heads * features, k), "float32")
    periods = rng.uniform(1, 50, features // 2).astype(np.float32)
    kernel = generate("float32", [part, plain("float32")])
    other = normal(rng, (5, k), "float32")
    turned, y = emulator.run(
        kernel,
        (k, heads, features, 5),
        [x, w, other, np.array([11], np.int32), periods],
        [((heads, features), np.float32), ((5,), np.float32)],
        scalars={0: 2.0},
    )
    check(turned, rotated((wide(w) @ wide(x)).reshape(heads, features), features, False, 22, periods), "float32", 4)
    check(y, wide(other) @ wide(x), "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_gated_activation(dtype: str) -> None:
    rng = np.random.default_rng(4)
    program = (
        ("value", 0, dtype),
        ("value", 1, dtype),
        ("op", "sigmoid", (), (0,), (dtype,), dtype),
        ("op", "multiply", (), (0, 2), (dtype, dtype), dtype),
        ("op", "multiply", (), (3, 1), (dtype, dtype), dtype),
    )
    part = Part(program, outputs=(Output(4, dtype),), weights=2)
    for variant in VARIANTS:
        kernel = generate(dtype, [part], True, variant)
        k, n = 72, 21
        x, scale = normal(rng, (k,), dtype), normal(rng, (k,), dtype)
        gate, up = normal(rng, (n, k), dtype), normal(rng, (n, k), dtype)
        (y,) = emulator.run(
            kernel, (k, n), [x, scale, gate, up], [((n,), numpy_dtype(dtype))], scalars={0: 1e-5}, misalign=1
        )
        g, u = (wide(w) @ normed(x, scale, 1e-5) for w in (gate, up))
        check(y, g / (1 + np.exp(-g)) * u, dtype, 4)


def test_epilogues_beside_one_another() -> None:
    """A residual, a scaled bias in another dtype, and the product itself kept."""
    rng = np.random.default_rng(5)
    h = "bfloat16"
    residual = (("value", 0, h), ("load", 0), ("op", "add", (), (0, 1), (h, h), h))
    biased = (
        ("value", 0, h),
        ("scalar", 0, h),
        ("op", "multiply", (), (0, 1), (h, h), h),
        ("op", "astype", (), (2,), (h,), "float32"),
        ("load", 0),
        ("op", "add", (), (3, 4), ("float32", "float32"), "float32"),
    )
    parts = [
        Part(residual, (Operand(h),), (Output(2, h), Output(0, h))),
        Part(biased, (Operand("float32", (None,)),), (Output(5, "float32"),)),
    ]
    kernel = generate(h, parts)
    k, n, m = 40, 10, 6
    x, a, b = normal(rng, (k,), h), normal(rng, (n, k), h), normal(rng, (m, k), h)
    r, bias = normal(rng, (n,), h), normal(rng, (2 * m,), "float32")[::2]
    found = emulator.run(
        kernel, (k, n, m), [x, a, b, r, bias], [((n,), r.dtype), ((n,), r.dtype), ((m,), np.float32)], scalars={0: 0.5}
    )
    check(found[0], wide(a) @ wide(x) + wide(r), h, 2)
    check(found[1], wide(a) @ wide(x), h)
    check(found[2], 0.5 * (wide(b) @ wide(x)) + wide(bias), h)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("n, k", [(1, 1), (576, 576), (960, 576), (128256, 2048), (6144, 4096), (28672, 4096)])
def test_variants_fit(rows: int, n: int, k: int) -> None:
    for dtype in TOLERANCE:
        for norm in (False, True):
            variant = choose_variant(dtype, rows, norm, n, k)
            parts = [plain(dtype)]
            if rows == 2:
                program = (("value", 0, dtype), ("value", 1, dtype), ("op", "add", (), (0, 1), (dtype,) * 2, dtype))
                parts = [Part(program, outputs=(Output(2, dtype),), weights=2)]
            assert generate(dtype, parts, norm, variant).launch.block[0] == variant.threads


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(TypeError, match="int32"):
        generate("int32", [plain("int32")])
    with pytest.raises(ValueError, match="parts"):
        generate("float32", [plain("float32")] * 5)
    with pytest.raises(ValueError, match="teams"):
        generate("float32", [plain("float32")], variant=Variant(team=12))
    turn = Turn(7, False, "number", False)
    with pytest.raises(ValueError, match="even"):
        generate("float32", [Part((("value", 0, "float32"),), (), (Output(0, "float32", (None, 1)),), 1, True, turn)])
