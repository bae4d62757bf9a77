"""Generated scans, run by g++, against NumPy."""

from __future__ import annotations

import dataclasses
import itertools
import re

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels import evaluate_size, scan
from backend_cuda.kernels.ops import DTYPES, INEXACT
from backend_cuda.kernels.scan import (
    OPS,
    TILE_VARIANTS,
    choose_columns,
    choose_variant,
    columns_of,
    generate,
    generate_column_tiles,
    generate_columns,
    generate_tiles,
    tile_columns,
)
from tests.test_reduce import LARGE_SCANS

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUMPY = {d: np.dtype(ml_dtypes.bfloat16 if d == "bfloat16" else d) for d in DTYPES}
TOLERANCE = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 5e-6, "float64": 1e-13, "complex64": 2e-5}
VARIANTS = ("short", "warp", "block", "long")
COLUMN_VARIANTS = ("thread", "block")
COLUMN_TILE_VARIANTS = ("tiles", "tiles_of_few_columns")
FLAGS = tuple(itertools.product((False, True), (False, True)))
SHAPES = [(1, 1), (9, 7), (3, 64), (2, 259), (2, 1031)]


def samples(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.3
    if dtype in INEXACT:
        a = rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype == "complex64" else 0)
        return a.astype(NUMPY[dtype])
    return rng.integers(-4 if dtype[0] == "i" else 0, 99, shape).astype(NUMPY[dtype])


def least(dtype):
    if dtype.kind == "c":
        return complex(-np.inf, -np.inf)
    return False if dtype.kind == "b" else np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def greatest(dtype):
    return True if dtype.kind == "b" else np.iinfo(dtype).max if dtype.kind in "iu" else -least(dtype)


def expected(op, a, out, reverse, inclusive):
    if a.dtype.kind not in "biu":
        a = a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
    elif op in ("cumsum", "cumprod"):
        a = a.astype(NUMPY[out])
    if reverse:
        a = a[:, ::-1]
    with np.errstate(all="ignore"):
        if op == "logcumsumexp":
            got, first = np.log(np.cumsum(np.exp(a), 1)), -np.inf
        else:
            function = {"cumsum": np.add, "cumprod": np.multiply, "cummax": np.maximum, "cummin": np.minimum}[op]
            got = function.accumulate(a, 1, dtype=a.dtype)
            first = {"cumsum": 0, "cumprod": 1}.get(op)
            first = first if first is not None else (least if op == "cummax" else greatest)(got.dtype)
    if not inclusive:
        got = np.concatenate([np.full_like(got[:, :1], first), got[:, :-1]], 1)
    return got[:, ::-1] if reverse else got


def _cases(makers):
    """(op, dtype, out, reverse, inclusive, maker): all ops and dtypes, in turns of flags and makers; all of a sum."""
    choices = itertools.cycle(itertools.product(FLAGS, makers))
    for op in OPS:
        for dtype in DTYPES:
            if op != "logcumsumexp" or dtype in INEXACT:
                flags, maker = next(choices)
                yield op, dtype, "int32" if op == "cumsum" and dtype == "bool" else dtype, *flags, maker
    for flags, maker in itertools.product(FLAGS, makers):
        yield "cumsum", "bfloat16", "bfloat16", *flags, maker


def _made(case, make):
    op, dtype, out, reverse, inclusive, variant = case
    return make(op, dtype, out, reverse=reverse, inclusive=inclusive, variant=variant)


def row_tiles(case):
    op, dtype, out, reverse, inclusive, variant = case
    return generate_tiles(op, dtype, out, reverse=reverse, inclusive=inclusive, variant=variant)


def column_tiles(case, columns):
    op, dtype, out, reverse, inclusive, variant = case
    flags = {"reverse": reverse, "inclusive": inclusive, "few": variant == COLUMN_TILE_VARIANTS[1]}
    return generate_column_tiles(op, dtype, out, columns=columns, **flags)


def _name(case):
    op, dtype, _, reverse, inclusive, variant = case
    return f"{op}-{dtype}{'-reverse' * reverse}{'' if inclusive else '-exclusive'}-{variant}"


CASES = list(_cases(VARIANTS))
COLUMN_CASES = list(_cases(COLUMN_VARIANTS))
TILE_CASES = list(_cases(TILE_VARIANTS))
COLUMN_TILE_CASES = list(_cases(COLUMN_TILE_VARIANTS))
COLUMN_SHAPES = [(1, 1, 1), (2, 5, 33), (1, 300, 40), (3, 127, 7)]
SPECIAL = ("cummax", "cummin", "logcumsumexp")


def special(op):
    return generate(op, "float32", "float32", reverse=False, inclusive=True, variant="block")


@pytest.fixture(scope="module", autouse=True)
def built():
    kernels = [_made(case, generate) for case in CASES] + [_made(case, generate_columns) for case in COLUMN_CASES]
    kernels += [row_tiles(case) for case in TILE_CASES]
    for case in COLUMN_TILE_CASES:
        kernels += [column_tiles(case, columns) for columns in (columns_of(case[1]), tile_columns(case[1], 5))]
    emulator.build(kernels + [special(op) for op in SPECIAL])


def to_scan(op, dtype, shape, seed):
    """Samples whose products neither overflow nor vanish."""
    a = samples(dtype, shape, seed)
    if op == "cumprod" and dtype in INEXACT:
        a = (a / np.maximum(np.abs(a), 0.5)).astype(a.dtype)
        a = np.where(np.abs(a) < 0.9, a.dtype.type(1), a)
    return a


def assert_scanned(found, want, op, out):
    if out not in INEXACT:
        np.testing.assert_array_equal(found, want)
        return
    found = found.astype(np.complex128 if out == "complex64" else np.float64)
    if op == "logcumsumexp" and out == "complex64":
        found, want = np.exp(found), np.exp(want)  # an angle and the same one turned around are equal
    scale = np.abs(want[np.isfinite(want)]).max(initial=1)
    np.testing.assert_allclose(found, want, rtol=TOLERANCE[out], atol=TOLERANCE[out] * scale)


def run_tiles(tiles, dims, a, out, misalign=0, kept=None):
    return emulator.run(tiles, dims, [a], [(tuple(dims), out)], misalign=misalign, kept=kept)[0]


def kept_by(tiles, *dims_of_launches):
    """Memory enough for what the kernel keeps, as it is before the first launch."""
    (size,) = [size for name, size in (p for p in tiles.params if p[0] == "kept")]
    sizes = [evaluate_size(size, {f"d{k}": n for k, n in enumerate(dims)}) for dims in dims_of_launches]
    return np.zeros(max(sizes), np.uint8)


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_scan(case):
    op, dtype, out, reverse, inclusive, _ = case
    kernel = _made(case, generate)
    for k, (rows, n) in enumerate([*SHAPES, (1, 5000)] if dtype == "bfloat16" and op == "cumsum" else SHAPES):
        for misalign in (0, 1):
            a = to_scan(op, dtype, (rows, n + misalign), k).reshape(-1)[misalign * rows :].reshape(rows, n)
            want = expected(op, a, out, reverse, inclusive)
            (found,) = emulator.run(kernel, (rows, n), [a], [((rows, n), NUMPY[out])], misalign=misalign)
            assert_scanned(found, want, op, out)


@pytest.mark.parametrize("reverse,inclusive", FLAGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_rows_of_any_length_share_a_warp(dtype, reverse, inclusive):
    out = "int32" if dtype == "uint8" else dtype
    kernel = generate("cumsum", dtype, out, reverse=reverse, inclusive=inclusive, variant="short")
    for n in (1, 2, 3, 4, 5, 8, 11, 24, 33, 100, 128, 129, 384, 515, 1000):
        rows = 1 + 2200 // n
        a = samples(dtype, (rows, n + 1), n).reshape(-1)[rows:].reshape(rows, n)
        if dtype != "uint8":  # what one row sums up must not be seen in the next
            a[::3, n // 2] = np.nan
        (found,) = emulator.run(kernel, (rows, n), [a], [((rows, n), NUMPY[out])], misalign=n % 3)
        assert_rows(found, expected("cumsum", a, out, reverse, inclusive), out)


def assert_rows(found, want, out):
    """As assert_scanned, with the scale of each row, and NaN where it is wanted."""
    if out not in INEXACT:
        np.testing.assert_array_equal(found, want)
        return
    for f, w in zip(found, want, strict=True):
        assert_scanned(f, w, "cumsum", out)


@pytest.mark.parametrize("case", COLUMN_CASES, ids=_name)
def test_scan_of_columns(case):
    op, dtype, out, reverse, inclusive, _ = case
    kernel = _made(case, generate_columns)
    for k, shape in enumerate(COLUMN_SHAPES):
        a = to_scan(op, dtype, shape, k)
        want = expected_columns(op, a, out, reverse, inclusive)
        (found,) = emulator.run(kernel, shape, [a], [(shape, NUMPY[out])], misalign=k % 2)
        assert_scanned(found, want, op, out)


def expected_columns(op, a, out, reverse, inclusive):
    outer, n, inner = a.shape
    rows = expected(op, a.transpose(0, 2, 1).reshape(outer * inner, n), out, reverse, inclusive)
    return rows.reshape(outer, inner, n).transpose(0, 2, 1)


@pytest.mark.parametrize("case", TILE_CASES, ids=_name)
def test_scan_by_tiles(case):
    op, dtype, out, reverse, inclusive, _ = case
    tiles = row_tiles(case)
    shapes = [(1, 1), (3, 100), (2, 20_011), (1, 32_768)]
    kept = kept_by(tiles, *shapes)  # what a launch leaves there means nothing to the next
    for k, (rows, n) in enumerate(shapes):
        for misalign in (0, 1):
            a = to_scan(op, dtype, (rows, n + misalign), k).reshape(-1)[misalign * rows :].reshape(rows, n)
            found = run_tiles(tiles, (rows, n), a, NUMPY[out], misalign, kept)
            assert_scanned(found, expected(op, a, out, reverse, inclusive), op, out)


@pytest.mark.parametrize("case", COLUMN_TILE_CASES, ids=_name)
def test_scan_of_columns_by_tiles(case):
    op, dtype, out, reverse, inclusive, _ = case
    for columns in (columns_of(dtype), tile_columns(dtype, 5)):
        tiles = column_tiles(case, columns)
        shapes = [(1, 1, 1), (2, 5, 33), (1, 1300, columns + 3), (2, 3000, 5), (1, 4200, columns)]
        kept = kept_by(tiles, *shapes)
        for k, shape in enumerate(shapes):
            a = to_scan(op, dtype, shape, k)
            found = run_tiles(tiles, shape, a, NUMPY[out], k % 2, kept)
            assert_scanned(found, expected_columns(op, a, out, reverse, inclusive), op, out)


@pytest.mark.parametrize("op,dtype", [("cumsum", "float64"), ("cummax", "int8"), ("logcumsumexp", "float32")])
def test_tiles_of_many_groups(op, dtype):
    for reverse, inclusive, is_second in ((False, True, False), (True, False, True)):
        flags = {"reverse": reverse, "inclusive": inclusive}
        tiles = generate_column_tiles(op, dtype, dtype, **flags, columns=columns_of(dtype), few=is_second)
        n = 64 * 512 * 2 + 999  # rows of more than two groups
        a = to_scan(op, dtype, (1, n, 5), 3)
        found = run_tiles(tiles, a.shape, a, NUMPY[dtype])
        assert_scanned(found, expected_columns(op, a, dtype, reverse, inclusive), op, dtype)
        tiles = generate_tiles(op, dtype, dtype, **flags, variant=TILE_VARIANTS[is_second])
        n = 600 * 256 * 8 * min(8, 16 // NUMPY[dtype].itemsize) + 999
        a = to_scan(op, dtype, (1, n), 4)
        found = run_tiles(tiles, a.shape, a, NUMPY[dtype])
        assert_scanned(found, expected(op, a, dtype, reverse, inclusive), op, dtype)


def with_blocks(tiles, adders, grid, name):
    """The scan by so many blocks in all, and so many of them that add up groups for the others."""
    name = f"{tiles.name}_{name}"
    source, n = re.subn(r" adders = [^;]*;", f" adders = {adders};", tiles.source.replace(tiles.name, name))
    assert n == 1
    return dataclasses.replace(
        tiles, name=name, source=source, launch=dataclasses.replace(tiles.launch, grid=(grid, 1, 1))
    )


def without_adder(tiles):
    """The scan with one block fewer, where one adds up groups for the others."""
    return with_blocks(tiles, 0, ("sub", tiles.launch.grid[0], 1), "alone")


def run_both(kernels, a, dtype):
    """What each of two scans gives; they leave the same for their next launches."""
    kept = [kept_by(tiles, a.shape) for tiles in kernels]
    found = [run_tiles(tiles, a.shape, a, NUMPY[dtype], kept=k) for tiles, k in zip(kernels, kept, strict=True)]
    assert kept[0].any()
    np.testing.assert_array_equal(*kept)
    return found


@pytest.mark.parametrize(
    "op,dtype,rows",
    [("cumsum", "float32", 1), ("cumprod", "bfloat16", 1), ("logcumsumexp", "float32", 2), ("cumsum", "float64", 9)],
)
def test_groups_add_up_to_the_same_whoever_adds_them_up(monkeypatch, op, dtype, rows):
    monkeypatch.setattr(scan, "_ADDERS", 1)  # a warp of its block has two rows, if there are nine
    tiles = generate_tiles(op, dtype, dtype, reverse=False, inclusive=True)
    # Two groups and some tiles of the third, or one and some of the second.
    n = (600 if rows == 1 else 260) * 1024 * (16 // NUMPY[dtype].itemsize)
    a = to_scan(op, dtype, (rows, n), 7)
    found, alone = run_both((tiles, without_adder(tiles)), a, dtype)
    np.testing.assert_array_equal(found.view(np.uint8), alone.view(np.uint8))


@pytest.mark.parametrize("op,dtype,outer", [("cumsum", "float32", 1), ("cumprod", "bfloat16", 2)])
def test_groups_of_columns_add_up_to_the_same_whoever_adds_them_up(op, dtype, outer):
    tiles = generate_column_tiles(op, dtype, dtype, reverse=False, inclusive=True, columns=columns_of(dtype), few=True)
    a = to_scan(op, dtype, (outer, 320 * 32 * 2 + 999, columns_of(dtype)), 8)
    found, alone = run_both((tiles, with_blocks(tiles, 0, 5, "alone")), a, dtype)
    np.testing.assert_array_equal(found.view(np.uint8), alone.view(np.uint8))


def test_a_block_that_adds_up_does_not_wait_for_ever():
    """Where others begin only when it has ended."""
    flags = {"reverse": False, "inclusive": True}
    tiles = generate_tiles("cumsum", "float32", "float32", **flags)
    of_columns = generate_column_tiles("cumsum", "float32", "float32", **flags, columns=32, few=True)
    for t, shape in ((tiles, (1, 600 * 1024 * 4)), (of_columns, (1, 320 * 32 * 2, 32))):
        kept = kept_by(t, shape)
        run_tiles(with_blocks(t, 1, 1, "unaided"), shape, np.ones(shape, np.float32), np.float32, kept=kept)
        assert kept.view(np.uint64)[0] == 1 and not kept[8:].any()  # a ticket was taken, nothing was published


def test_launches_are_counted_without_end():
    """No launch takes for its own what others have left, nor zeros, where its number begins anew."""
    tiles = generate_tiles("cumsum", "int32", "int32", reverse=False, inclusive=True)
    kept = kept_by(tiles, (3, 20_000))
    launches = kept.view(np.uint32)[1:2]
    launches[0] = 2**32 - 3
    for after in (2**32 - 2, 0, 1):
        a = samples("int32", (3, 20_000), after)
        np.testing.assert_array_equal(run_tiles(tiles, a.shape, a, np.int32, kept=kept), np.cumsum(a, 1))
        assert launches[0] == after and kept.view(np.uint32)[0] == 0


def test_large_scans_of_arrays_take_each_variant():
    """Those of tests/test_reduce.py."""
    shapes = LARGE_SCANS.values()
    rows = [shape for shape, axis in shapes if axis == 1]
    for dtype in ("float32", "bfloat16"):
        taken = {choose_variant(dtype, *shape) for shape in rows}
        assert taken == {"warp", "block", "long", *TILE_VARIANTS}, dtype
    columns = [shape for shape, axis in shapes if axis == 0]
    assert {choose_columns("cumsum", "float32", 1, *shape) for shape in columns} == {
        *COLUMN_VARIANTS,
        *COLUMN_TILE_VARIANTS,
    }
    assert {tile_columns("float32", inner) for _, inner in columns} == {8, 32}


def test_special_values():
    inf, nan = np.inf, np.nan
    a = np.array([[1, nan, 2, 0], [-inf, -inf, 0, 1], [1, inf, 2, inf], [-0.0, 0, -inf, nan]], np.float32)
    for op in SPECIAL:
        (found,) = emulator.run(special(op), a.shape, [a], [(a.shape, np.float32)])
        np.testing.assert_allclose(found, expected(op, a, "float32", False, True), rtol=1e-6, err_msg=op)


def test_the_chosen_variant_is_one_of_those():
    for dtype, rows, n in itertools.product(DTYPES, (1, 300, 5000), (1, 100, 1000, 5000, 100_000)):
        assert choose_variant(dtype, rows, n) in (*VARIANTS, *TILE_VARIANTS)
        for inner in (1, 64, 1_000_000):
            assert choose_columns("cumsum", dtype, rows, n, inner) in (*COLUMN_VARIANTS, *COLUMN_TILE_VARIANTS, None)


def test_bad_scans_are_refused():
    with pytest.raises(ValueError, match="unknown scan 'cummedian'"):
        generate("cummedian", "float32", "float32", reverse=False, inclusive=True, variant="warp")
    with pytest.raises(ValueError, match="unknown variant 'chain'"):
        generate("cumsum", "float32", "float32", reverse=False, inclusive=True, variant="chain")
    with pytest.raises(ValueError, match="unknown variant 'block'"):
        generate_tiles("cumsum", "float32", "float32", reverse=False, inclusive=True, variant="block")
    with pytest.raises(ValueError, match="cannot have 24 columns"):
        generate_column_tiles("cumsum", "float32", "float32", reverse=False, inclusive=True, columns=24)
    with pytest.raises(TypeError, match=r"\[logcumsumexp\].*int32"):
        generate("logcumsumexp", "int32", "int32", reverse=False, inclusive=True, variant="warp")
    with pytest.raises(ValueError, match=r"\[cummax\] of int8 cannot give int32"):
        generate("cummax", "int8", "int32", reverse=False, inclusive=True, variant="warp")
