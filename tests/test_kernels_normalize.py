"""Generated softmax and norm kernels, run by g++, against NumPy in double precision."""

from __future__ import annotations

import itertools

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.normalize import (
    MAX_PACKS,
    MAX_TEAM,
    Variant,
    choose_variant,
    generate_layer_norm,
    generate_rms_norm,
    generate_softmax,
)

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

TOLERANCE = {"bfloat16": 2**-8, "float16": 2**-10, "float32": 3e-6, "float64": 1e-14, "complex64": 5e-6}
FLOATS = ("bfloat16", "float16", "float32", "float64")
# Of 16 bytes a pack. The shapes of each: rows of whole packs and others, such as fit into registers and longer ones.
SHAPES = {
    Variant(4, 1): [(1, 1), (70, 8), (3, 130), (5, 37), (70, 31), (70, 15)],
    Variant(8, 4): [(70, 64), (5, 37), (2, 304), (35, 255), (35, 127), (35, 64)],
    Variant(32, 3): [(9, 192), (3, 333), (2, 768), (2, 2049)],
    Variant(16, 5): [(35, 320), (3, 640), (5, 577), (2, 635), (2, 1300)],
    Variant(64, 4): [(1, 1), (3, 1000), (2, 1030), (2, 2056)],
    Variant(256, 2): [(2, 576), (2, 2001), (1, 4105)],
    Variant(512, 4): [(1, 3), (2, 4096), (1, 16401)],
}
VARIANTS = tuple(SHAPES)


def numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def normal(rng, shape, dtype):
    a = rng.normal(size=shape) * 2 + 0.5
    return (a + 1j * rng.normal(size=shape) if dtype == "complex64" else a).astype(numpy_dtype(dtype))


def wide(a):
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def _cases():
    for k, variant in enumerate(VARIANTS):
        for dtype in (*FLOATS, "complex64"):
            yield "softmax", variant, dtype, (), generate_softmax(dtype, variant)
        for m, dtype in enumerate(FLOATS):
            own = (dtype, "float32", None)[(k + m) % 3]
            yield "rms_norm", variant, dtype, (own,), generate_rms_norm(dtype, own, variant)
            own = list(itertools.product((dtype, None), (dtype, None)))[(k + m) % 4]
            yield "layer_norm", variant, dtype, own, generate_layer_norm(dtype, *own, variant)
    own = ("float16", "float32")
    variant = Variant(8, 4)
    yield "layer_norm", variant, "float16", own, generate_layer_norm("float16", *own, variant)


CASES = list(_cases())
EPS = 0.125


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build([case[-1] for case in CASES])


def expected(function, x, vectors):
    x = wide(x)
    if function == "softmax":
        e = np.exp(x - np.max(x, -1, keepdims=True))
        return e / e.sum(-1, keepdims=True)
    weight, bias = (*(None if v is None else wide(v) for v in vectors), None)[:2]
    if function == "layer_norm":
        x = x - x.mean(-1, keepdims=True)
    out = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@pytest.mark.parametrize("function,variant,dtype,own,kernel", CASES, ids=[case[-1].name for case in CASES])
def test_rows(function, variant, dtype, own, kernel):
    rng = np.random.default_rng(4)
    for k, (rows, n) in enumerate(SHAPES[variant]):
        # With 3, rows begin off a 16-byte boundary, and elsewhere than the output's; with 0, where the output's do, of
        # which some have one pack more than threads hold.
        for padding in (0, 3):
            x = normal(rng, (rows, n + padding), dtype)[:, padding:]
            vectors = [None if d is None else normal(rng, (n,), d) for d in own]
            given = [v for v in vectors if v is not None]
            kinds = {x.dtype, *(v.dtype for v in given)}
            out = x.dtype if len(kinds) == 1 else np.dtype(np.float64 if np.dtype(np.float64) in kinds else np.float32)
            (found,) = emulator.run(
                kernel, (rows, n), [x, *given], [((rows, n), out)], scalars={0: EPS}, misalign=(k + padding) % 2
            )
            want = expected(function, x, vectors)
            error = np.abs(wide(found) - want).max()
            scale = np.abs(want).max()
            assert error <= TOLERANCE[dtype if out == x.dtype else "float32"] * scale, (rows, n, padding, error)


@pytest.mark.parametrize("variant", VARIANTS)
def test_softmax_of_infinities(variant):
    inf, nan = np.inf, np.nan
    rows = [[-inf, -inf, -inf], [inf, 1, 2], [nan, 1, 2], [-inf, 0, 0], [1e30, 1e30, -1e30]]
    x = np.array(rows, np.float32)
    kernel = generate_softmax("float32", variant)
    for repeats in (1, 300, 8000):
        if repeats > 300 and variant.team <= 32:
            continue
        a = np.repeat(x, repeats, 1)
        with np.errstate(all="ignore"):
            want = expected("softmax", a, ())
        (found,) = emulator.run(kernel, a.shape, [a], [(a.shape, np.float32)])
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_a_repeated_row():
    x = np.broadcast_to(normal(np.random.default_rng(0), (1, 40), "float16"), (3, 40))
    kernel = generate_softmax("float16", Variant(32, 1))
    (found,) = emulator.run(kernel, x.shape, [x], [(x.shape, np.float16)])
    np.testing.assert_allclose(wide(found), expected("softmax", x, ()), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "complex64"])
def test_the_chosen_variant_holds_rows_as_long_as_can_be(dtype):
    width = 16 // numpy_dtype(dtype).itemsize
    for rows, n in itertools.product((1, 300, 5000), (1, 7, 96, 100, 1000, 1024, 5000, 100_000)):
        variant = choose_variant(dtype, rows, n)
        assert variant.team * variant.packs * width >= n or variant == Variant(MAX_TEAM, MAX_PACKS)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"\[softmax\].*int32"):
        generate_softmax("int32", Variant(32, 1))
    with pytest.raises(TypeError, match=r"\[rms_norm\].*int8"):
        generate_rms_norm("float32", "int8", Variant(32, 1))
    with pytest.raises(ValueError, match="no team of 48 threads with 2 packs each"):
        Variant(48, 2)
