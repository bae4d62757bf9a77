"""Generated elementwise kernels, run by g++, against MLX."""

from __future__ import annotations

import itertools

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels.codegen import Operand, Output
from backend_cuda.kernels.elementwise import generate
from backend_cuda.kernels.ops import BINARY, DTYPES, UNARY, result_dtype

mx = pytest.importorskip("mlx.core")
pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUMPY = {d: np.dtype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for d in DTYPES}
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 4e-6, "float64": 1e-13, "complex64": 1e-4}
MLX_NAME = {"rint": "round"}
MLX_CALL = {"cube": lambda a: mx.power(a, 3)}
# MLX refuses these for complex numbers; NumPy answers.
COMPLEX = {"expm1": np.expm1, "sigmoid": lambda z: (1 / (1 + np.exp(-z))).astype(z.dtype)}


def to_mlx(a):
    if a.dtype == ml_dtypes.bfloat16:
        return mx.array(a.astype(np.float32)).astype(mx.bfloat16)
    with mx.stream(mx.cpu):
        return mx.array(a, dtype=mx.float64) if a.dtype == np.float64 else mx.array(a)


def from_mlx(a):
    if a.dtype == mx.bfloat16:
        return np.array(a.astype(mx.float32)).astype(ml_dtypes.bfloat16)
    return np.array(a)


def samples(dtype: str, n: int, seed: int) -> np.ndarray:
    """Values of a dtype, extremes among them."""
    rng = np.random.default_rng(seed)
    kind = NUMPY[dtype]
    if dtype == "bool":
        return rng.integers(0, 2, n).astype(bool)
    if dtype == "complex64":
        return (rng.normal(size=n) + 1j * rng.normal(size=n)).astype(kind)
    if "float" in dtype:
        a = rng.normal(size=n) * rng.choice([0.1, 1, 3], n)
        a[: n // 8] = np.resize([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -2.5, 3.5], n // 8)
        return rng.permutation(a).astype(kind)
    low = np.iinfo(kind).min if dtype[0] == "i" else 0
    a = rng.integers(low // 2, np.iinfo(kind).max // 2, n).astype(kind)
    a[: n // 2] = rng.integers(-9 if low else 0, 9, n // 2).astype(kind)
    return rng.permutation(a)


def assert_close(found, expected, dtype, context):
    assert found.dtype == expected.dtype, context
    if dtype in TOLERANCE:
        wide = np.complex128 if dtype == "complex64" else np.float64
        found, expected = found.astype(wide), expected.astype(wide)
        tolerance = TOLERANCE[dtype]
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance / 4, err_msg=str(context))
    else:
        np.testing.assert_array_equal(found, expected, err_msg=str(context))


def elementwise_kernel(name, dtypes):
    out = result_dtype(name, dtypes)
    n = len(dtypes)
    program = [*(("load", i) for i in range(n)), ("op", name, (), tuple(range(n)), tuple(dtypes), out)]
    return generate(program, 1, [Operand(d) for d in dtypes], [Output(n, out)])


def _cases():
    for table, arity in ((UNARY, 1), (BINARY, 2)):
        for name, accepted in table.items():
            for dtype in DTYPES:
                if dtype == "bool" and "shift" in name:
                    continue  # MLX gives uint8
                if dtype in accepted and dtype != "float64":
                    yield name, (dtype,) * arity


CASES = list(_cases())


@pytest.fixture(scope="module")
def built():
    emulator.build([elementwise_kernel(name, dtypes) for name, dtypes in CASES])


@pytest.mark.parametrize("name,dtypes", CASES, ids=lambda x: x if isinstance(x, str) else x[0])
def test_primitive_matches_mlx(built, name, dtypes):
    n = 203
    arrays = [samples(d, n, 3 * k + len(name)) for k, d in enumerate(dtypes)]
    function = MLX_CALL.get(name) or getattr(mx, MLX_NAME.get(name, name))
    if name in ("left_shift", "right_shift"):
        arrays[1] = np.abs(arrays[1].astype(np.int64) % 8).astype(arrays[1].dtype)  # further is undefined in C
    if name == "floor_divide" and "float" in dtypes[0]:
        arrays = [np.rint(a * 4).astype(a.dtype) for a in arrays]  # MLX rounds 16-bit quotients before it floors them
    if name in ("floor_divide", "remainder") and dtypes[0] not in TOLERANCE and dtypes[0] != "bool":
        arrays[1] = np.where(arrays[1] == 0, NUMPY[dtypes[0]].type(3), arrays[1])  # MLX traps
    if dtypes[0] == "complex64" and name in COMPLEX:
        expected = COMPLEX[name](*arrays)
    else:
        with mx.stream(mx.cpu):
            expected = from_mlx(function(*map(to_mlx, arrays)))
    kernel = elementwise_kernel(name, dtypes)
    (found,) = emulator.run(kernel, [n], arrays, [((n,), expected.dtype)])
    assert_close(found, expected, str(expected.dtype), (name, dtypes))


FLOAT64 = [
    (name, ("float64",) * arity)
    for table, arity in ((UNARY, 1), (BINARY, 2))
    for name, accepted in table.items()
    if "float64" in accepted and hasattr(np, name)
]


def test_float64_matches_numpy():
    emulator.build([elementwise_kernel(name, dtypes) for name, dtypes in FLOAT64])
    for name, dtypes in FLOAT64:
        arrays = [samples("float64", 97, k) for k in range(len(dtypes))]
        if name == "sign":
            arrays = [np.nan_to_num(a) for a in arrays]  # ours gives 0 for NaN
        if name == "floor_divide":
            arrays = [np.where(np.isfinite(a) & (a != 0), a, 2.0) for a in arrays]
        with np.errstate(all="ignore"):
            expected = getattr(np, name)(*arrays)
        (found,) = emulator.run(elementwise_kernel(name, dtypes), [97], arrays, [((97,), expected.dtype)])
        assert_close(found, expected, str(expected.dtype), name)


def astype_kernel(source, target):
    program = [("load", 0), ("op", "astype", (), (0,), (source,), target)]
    return generate(program, 1, [Operand(source)], [Output(1, target)])


def test_astype_between_all_dtypes():
    pairs = list(itertools.product(DTYPES, DTYPES))
    emulator.build([astype_kernel(*pair) for pair in pairs])
    for source, target in pairs:
        a = samples(source, 131, 5)
        wide = a.astype(np.float32) if source == "bfloat16" else a
        if ("float" in source or source == "complex64") and "int" in target:
            a = wide = np.nan_to_num(np.clip(a.real.astype(np.float32), 0, 100)).astype(
                a.dtype
            )  # in every integer's range
            wide = wide.astype(np.complex64).real if source == "complex64" else wide.astype(np.float64)
        elif source == "complex64" and target not in ("bool", "complex64"):
            wide = wide.real
        with np.errstate(all="ignore"):
            expected = wide != 0 if target == "bool" else wide.astype(NUMPY[target])
        (found,) = emulator.run(astype_kernel(source, target), [131], [a], [((131,), NUMPY[target])])
        if target == "float16" or target == "bfloat16":
            found, expected = found.astype(np.float32), expected.astype(np.float32)
        np.testing.assert_array_equal(found, expected, err_msg=f"{source} to {target}")


def test_float16_rounds_as_numpy_does():
    """Of the emulator: all float16 values, and the midpoints between them."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    kernel = astype_kernel("float16", "float32")
    (wide,) = emulator.run(kernel, [halves.size], [halves], [(halves.shape, np.float32)])
    np.testing.assert_array_equal(wide, halves.astype(np.float32))
    finite = np.sort(wide[np.isfinite(wide)])
    between = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    kernel = astype_kernel("float32", "float16")
    (narrow,) = emulator.run(kernel, [between.size], [between], [(between.shape, np.float16)])
    np.testing.assert_array_equal(narrow, between.astype(np.float16))


def pattern(a: np.ndarray, runtime: bool = False):
    """The access pattern of a strided array: 0 and 1 given as such, unless everything is to be a parameter."""
    return tuple(None if runtime or s not in (0, 1) else s for s in emulator.strides_of(a))


BIAS = [
    ("load", 0),
    ("load", 1),
    ("op", "add", (), (0, 1), ("float32", "float32"), "float32"),
    ("scalar", 3, "float32"),
    ("op", "multiply", (), (2, 3), ("float32", "float32"), "float32"),
    ("op", "greater", (), (4, 3), ("float32", "float32"), "bool"),
]


def _strided_cases():
    rng = np.random.default_rng(0)
    for shape in [(1,), (5,), (3, 4), (7, 13), (2, 3, 5), (3, 1, 8), (2, 3, 2, 9), (300, 8)]:
        wide = rng.normal(size=tuple(2 * n + 1 for n in shape)).astype(np.float32)
        steps = wide[tuple(slice(1, 2 * n, 2) for n in shape)]
        corner = wide[tuple(slice(1, n + 1) for n in shape)]
        turned = rng.normal(size=shape[::-1]).astype(np.float32).T
        row = np.broadcast_to(rng.normal(size=shape[-1:]).astype(np.float32), shape)
        column = np.broadcast_to(rng.normal(size=(*shape[:-1], 1)).astype(np.float32), shape)
        backwards = corner[tuple(slice(None, None, -1) for _ in shape)]
        for x, y in ((steps, corner), (turned, row), (column, backwards)):
            for runtime in (False, True):
                operands = [Operand("float32", pattern(a, runtime)) for a in (x, y)]
                yield generate(BIAS, len(shape), operands, [Output(4, "float32"), Output(5, "bool")]), x, y, runtime


def test_strided_operands():
    cases = list(_strided_cases())
    emulator.build([case[0] for case in cases])
    for kernel, x, y, runtime in cases:
        types = [(x.shape, np.float32), (x.shape, np.bool_)]
        found, greater = emulator.run(kernel, x.shape, [x, y], types, scalars={3: 0.7}, misalign=int(runtime))
        expected = (x + y) * np.float32(0.7)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(greater, expected > np.float32(0.7))


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 40])
def test_the_width_is_that_of_what_is_not_broadcast(columns):
    """(x - y) as bfloat16 where two indices are not equal; y and an index are of a row, the other is of a column."""
    h, f = "bfloat16", "float32"
    program = [
        ("load", 0),
        ("op", "astype", (), (0,), (h,), f),
        ("load", 1),
        ("op", "subtract", (), (1, 2), (f, f), f),
        ("load", 2),
        ("load", 3),
        ("op", "equal", (), (4, 5), ("int32", "int32"), "bool"),
        ("scalar", 0, f),
        ("op", "where", (), (6, 7, 3), ("bool", f, f), f),
        ("op", "astype", (), (8,), (f,), h),
    ]
    operands = [Operand(h), Operand(f, (1, 0)), Operand("int32", (0, 1)), Operand("int32", (1, 0))]
    kernel = generate(program, 2, operands, [Output(9, h)])
    assert "load_pack<8>" in kernel.source
    rng = np.random.default_rng(columns)
    x = rng.normal(size=(6, columns)).astype(NUMPY[h])
    y = np.broadcast_to(rng.normal(size=(6, 1)).astype(np.float32), x.shape)
    across = np.broadcast_to(np.arange(columns, dtype=np.int32), x.shape)
    down = np.broadcast_to(rng.integers(0, columns, (6, 1), np.int32), x.shape)
    (found,) = emulator.run(kernel, x.shape, [x, y, across, down], [(x.shape, NUMPY[h])], scalars={0: 2.5})
    want = np.where(across == down, np.float32(2.5), x.astype(np.float32) - y).astype(NUMPY[h])
    np.testing.assert_array_equal(found.astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("misalign", [0, 1])
def test_lengths_and_alignments_of_the_flat_kernel(n, misalign):
    a = np.arange(n + 8, dtype=np.int16)[misalign : n + misalign]
    one = np.array([3], np.int16)
    program = [("load", 0), ("load", 1), ("op", "multiply", (), (0, 1), ("int16", "int16"), "int16")]
    kernel = generate(program, 1, [Operand("int16"), Operand("int16", "scalar")], [Output(2, "int16")])
    (found,) = emulator.run(kernel, [n], [a, one], [((n,), np.int16)], misalign=misalign)
    np.testing.assert_array_equal(found, a * np.int16(3))


def test_strided_output():
    a = np.arange(35, dtype=np.uint8).reshape(5, 7)
    kernel = generate([("load", 0)], 2, [Operand("uint8")], [Output(0, "uint8", (None, 1))])
    (found,) = emulator.run(kernel, [5, 7], [a], [((5, 7), np.uint8)])
    np.testing.assert_array_equal(found, a)


def test_iota():
    program = [("iota", None, ("int", 0), ("int", 1), "int32")]
    kernel = generate(program, 1, [], [Output(0, "int32")])
    (found,) = emulator.run(kernel, [10], [], [((10,), np.int32)], ints={0: 5, 1: -2})
    np.testing.assert_array_equal(found, np.arange(5, -15, -2, np.int32))
    program = [("iota", 1, ("scalar", 0), ("scalar", 1), "float32"), ("iota", 0, ("int", 0), ("int", 1), "float32")]
    kernel = generate(program, 2, [], [Output(0, "float32"), Output(1, "float32")])
    across, down = emulator.run(
        kernel, [3, 5], [], [((3, 5), np.float32)] * 2, scalars={0: 0.5, 1: 0.1}, ints={0: 7, 1: 2}
    )
    np.testing.assert_array_equal(across, np.broadcast_to((0.5 + 0.1 * np.arange(5)).astype(np.float32), (3, 5)))
    np.testing.assert_array_equal(down, np.broadcast_to((7 + 2 * np.arange(3)).astype(np.float32)[:, None], (3, 5)))


def test_16_bit_intermediates_are_rounded_where_it_shows():
    """A sum stored in float16 equals itself, and its conversion to float32 is that of the stored value."""
    h, f = "float16", "float32"
    program = [
        ("load", 0),
        ("load", 1),
        ("op", "add", (), (0, 1), (h, h), h),
        ("load", 2),
        ("op", "equal", (), (2, 3), (h, h), "bool"),
        ("op", "astype", (), (2,), (h,), f),
    ]
    kernel = generate(program, 1, [Operand(h)] * 3, [Output(4, "bool"), Output(5, f)])
    a, b = samples(h, 300, 1), samples(h, 300, 2)
    with np.errstate(all="ignore"):
        total = a + b
    same, wide = emulator.run(kernel, [300], [a, b, total], [((300,), np.bool_), ((300,), np.float32)])
    np.testing.assert_array_equal(same, total == total)
    np.testing.assert_array_equal(wide, total.astype(np.float32))


def test_bad_programs_are_refused():
    with pytest.raises(TypeError, match=r"\[erf\].*complex64"):
        elementwise_kernel("erf", ("complex64",))
    with pytest.raises(ValueError, match="register 0 is float32"):
        generate([("load", 0)], 1, [Operand("float32")], [Output(0, "float16")])
    with pytest.raises(ValueError, match="strides"):
        generate([("load", 0)], 2, [Operand("float32", (None,))], [Output(0, "float32")])
