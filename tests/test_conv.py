"""Convolutions and windows against MLX, and where MLX is wrong or stops, against sums written out."""

from __future__ import annotations

import doctest
import importlib
import itertools
from typing import Any

import numpy as np
import pytest

from tests.checked_backend import checked
from tests.differential import FLOATS, is_array, numpy_dtype, same_as_mlx, same_as_numpy, to_module, to_numpy
from tests.module_under_test import IS_MLX, mx


def numbers(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng([1, *shape]).uniform(-1, 1, shape).astype(numpy_dtype(dtype))


def convolved(
    x: np.ndarray,
    w: np.ndarray,
    stride: list[int],
    before: list[int],
    after: list[int],
    dilation: list[int],
    spread: list[int],
    groups: int = 1,
    flip: bool = False,
) -> np.ndarray:
    """The definition, in float64: a sum for every place of the weight."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    dims = [*zip(x.shape[1:-1], w.shape[1:-1], stride, before, after, dilation, spread, strict=True)]
    wide = np.zeros((x.shape[0], *(max(0, (n - 1) * s + 1) for n, *_, s in dims), x.shape[-1]))
    wide[(slice(None), *(slice(None, None, s) for s in spread))] = x
    wide = np.pad(wide, [(0, 0), *((max(0, a), max(0, b)) for _, _, _, a, b, *_ in dims), (0, 0)])
    ends = [n - max(0, -b) for n, b in zip(wide.shape[1:-1], after, strict=True)]
    wide = wide[(slice(None), *(slice(max(0, -a), end) for a, end in zip(before, ends, strict=True)))]
    if flip:
        w = w[(slice(None), *(slice(None, None, -1) for _ in dims))]
    counts = [(n - (k - 1) * d - 1) // s + 1 for n, (_, k, s, _, _, d, _) in zip(wide.shape[1:-1], dims, strict=True)]
    out = np.zeros((x.shape[0], *counts, w.shape[0]))
    ins, outs = w.shape[-1], w.shape[0] // groups
    for g, place in itertools.product(range(groups), np.ndindex(w.shape[1:-1])):
        first = [i * d for i, d in zip(place, dilation, strict=True)]
        window = [slice(i, i + (c - 1) * s + 1, s) for i, c, s in zip(first, counts, stride, strict=True)]
        part = wide[(slice(None), *window, slice(g * ins, (g + 1) * ins))]
        out[..., g * outs : (g + 1) * outs] += part @ w[(slice(g * outs, (g + 1) * outs), *place)].T
    return out


# --- conv_general -----------------------------------------------------------------------------------------------------

ARGUMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": 2},
    "stride of 3": {"stride": 3},
    "padding": {"padding": 1},
    "much padding": {"padding": 4},
    "negative padding": {"padding": -1},
    "dilation": {"kernel_dilation": 2},
    "input dilation": {"input_dilation": 2},
    "everything": {"stride": 2, "padding": 3, "kernel_dilation": 2, "input_dilation": 3},
    "flip": {"flip": True},
    "flip of everything": {"stride": 3, "padding": 2, "kernel_dilation": 2, "input_dilation": 2, "flip": True},
}


# MLX has no groups in three dims: see test_against_the_definition.
@pytest.mark.parametrize("rank, groups", [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (3, 1)])
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_general(rank, groups, arguments):
    x, w = numbers(2, *(7, 6, 5)[:rank], 4), numbers(8, *(3, 2, 1)[:rank], 4 // groups)
    same_as_mlx(
        lambda m, x, w: m.conv_general(x, w, groups=groups, **ARGUMENTS[arguments]), x, w, case=arguments, scale=4.0
    )


PER_DIM: dict[str, dict[str, Any]] = {
    "lists": {"stride": [2, 1], "padding": [0, 2], "kernel_dilation": [1, 3], "input_dilation": [2, 1]},
    "tuples": {"stride": (1, 3), "padding": (2, 1)},
    "of one": {"stride": [2], "padding": [1], "kernel_dilation": [2], "input_dilation": [2]},
    "before and after": {"padding": ([0, 3], [2, 1])},
    "before and after in lists": {"padding": [[0, 3], [2, 1]]},
    "before and after of one": {"padding": ([2], [0])},
    "taken away before": {"padding": ([-2, -1], [1, 0])},
    "taken away after": {"padding": ([1, 0], [-3, -2])},
}


@pytest.mark.parametrize("arguments", PER_DIM)
def test_arguments_for_each_dim(arguments):
    value = same_as_mlx(
        lambda m, x, w: m.conv_general(x, w, **PER_DIM[arguments]), numbers(2, 8, 9, 3), numbers(4, 2, 3, 3), scale=4.0
    )
    assert is_array(value)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_against_the_definition(rank, groups, flip):
    rng = np.random.default_rng([rank, groups])
    if IS_MLX and rank == 3 and groups > 1:
        pytest.skip("MLX has no groups in three dims")

    def pick(low: int, high: int) -> list[int]:
        return [int(n) for n in rng.integers(low, high, rank)]

    for _ in range(12):
        size, dilation, stride, spread = pick(1, 4), pick(1, 3), pick(1, 4), pick(1, 3)
        before, after = pick(-1, 4), pick(0, 4)
        n = [max(1, (k - 1) * d + 2 - a) for k, d, a in zip(size, dilation, before, strict=True)]
        if min(before) < 0:
            spread = [1] * rank  # see test_padding_is_taken_away_from_the_spread_input
        x, w = numbers(2, *n, 6), numbers(3, *size, 6 // groups)
        out = mx.conv_general(
            to_module(mx, x), to_module(mx, w), stride, (before, after), dilation, spread, groups, flip
        )
        expected = convolved(x, w, stride, before, after, dilation, spread, groups, flip)
        same_as_numpy(out, expected, case=(n, size, stride, before, after, dilation, spread), scale=8.0)


def test_padding_is_taken_away_from_the_spread_input():
    x, w = numbers(2, 7, 9, 2), numbers(3, 2, 3, 2)
    out = mx.conv_general(to_module(mx, x), to_module(mx, w), 1, ([-3, 1], [-2, -4]), 1, [2, 3])
    same_as_numpy(out, convolved(x, w, [1, 1], [-3, 1], [-2, -4], [1, 1], [2, 3]), scale=4.0)
    x, w = numbers(1, 10, 2), numbers(3, 3, 2)
    out = mx.conv_transpose1d(to_module(mx, x), to_module(mx, w), stride=2, padding=4)
    assert out.shape == (1, 13, 3)  # (10 - 1) * 2 - 2 * 4 + 3
    same_as_numpy(out, convolved(x, w, [1], [-2], [-2], [1], [2], flip=True), scale=4.0)


def test_more_is_taken_away_than_is_there():
    x, w = numbers(1, 2, 3), numbers(2, 2, 3)
    out = mx.conv_general(to_module(mx, x), to_module(mx, w), padding=([5], [-3]))
    assert to_numpy(out).tolist() == [[[0, 0]] * 3]


@pytest.mark.parametrize("size", [31, 32, 33, 80])
def test_long_windows(size):
    """Beyond some length windows are gathered."""
    for arguments in ({}, {"stride": 7, "kernel_dilation": 2, "padding": 5}):
        same_as_mlx(
            lambda m, x, w, arguments=arguments: m.conv_general(x, w, **arguments),
            numbers(2, 170, 3),
            numbers(2, size, 3),
            scale=16.0,
        )
    same_as_mlx(lambda m, x, w: m.conv2d(x, w), numbers(1, 82, 9, 2), numbers(2, size, 3, 2), scale=16.0)
    same_as_mlx(lambda m, x, w: m.conv1d(x, w, 2, groups=2), numbers(2, 99, 4), numbers(6, size, 2), scale=16.0)
    x, w = numbers(2, 5, 90, 4), numbers(6, 2, size, 2)
    out = mx.conv_general(to_module(mx, x), to_module(mx, w), [1, 3], 1, groups=2, flip=True)
    same_as_numpy(out, convolved(x, w, [1, 3], [1, 1], [1, 1], [1, 1], [1, 1], 2, True), scale=16.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes(dtype):
    for groups in (1, 2):
        same_as_mlx(
            lambda m, x, w, groups=groups: m.conv2d(x, w, 2, 1, 1, groups),
            numbers(2, 6, 5, 4, dtype=dtype),
            numbers(4, 3, 2, 4 // groups, dtype=dtype),
            scale=4.0,
        )


@pytest.mark.parametrize("groups", [1, 2])
def test_float64_has_all_its_digits(groups):
    x, w = numbers(2, 6, 5, 4, dtype="float64"), numbers(4, 3, 2, 4 // groups, dtype="float64")
    out = mx.conv2d(to_module(mx, x), to_module(mx, w), 2, 1, 1, groups)
    same_as_numpy(out, convolved(x, w, [2, 2], [1, 1], [1, 1], [1, 1], [1, 1], groups), scale=4.0)


@pytest.mark.parametrize("dtypes", [*itertools.product([*FLOATS, "int32", "bool", "complex64"], repeat=2)])
def test_mixed_dtypes(dtypes):
    x, w = np.ones((1, 4, 2), numpy_dtype(dtypes[0])), np.ones((3, 2, 2), numpy_dtype(dtypes[1]))
    same_as_mlx(lambda m, x, w: m.conv1d(x, w), x, w)


SHAPES = {
    "no batch": ((0, 5, 2), (3, 2, 2), 0),
    "one element": ((1, 1, 1), (1, 1, 1), 0),
    "one window": ((1, 4, 2), (3, 4, 2), 0),
    "one place": ((2, 4, 2), (3, 1, 2), 0),
    "one channel": ((2, 4, 1), (1, 2, 1), 0),
    "padding alone": ((1, 0, 2), (3, 2, 2), 2),
    "window of 2-d": ((2, 3, 3, 2), (4, 3, 3, 2), 0),
    "one place of 3-d": ((2, 3, 1, 2, 2), (4, 1, 1, 1, 2), 0),
}


@pytest.mark.parametrize("case", SHAPES)
def test_small_shapes(case):
    x, w, padding = SHAPES[case]
    value = same_as_mlx(lambda m, x, w: m.conv_general(x, w, padding=padding), numbers(*x), numbers(*w), scale=4.0)
    assert is_array(value)


def test_no_channels():
    """Where MLX's BLAS stops the process."""
    assert mx.conv1d(mx.ones((1, 5, 2)), mx.ones((0, 2, 2))).shape == (1, 4, 0)
    assert to_numpy(mx.conv1d(mx.ones((1, 5, 0)), mx.ones((3, 2, 0)))).tolist() == [[[0, 0, 0]] * 4]


@pytest.mark.parametrize("view", ["transposed", "strided", "reversed"])
def test_views(view):
    change = {
        "transposed": lambda a: a.transpose(0, 2, 1, 3),
        "strided": lambda a: a[:, ::2, :, 1:],
        "reversed": lambda a: a[:, ::-1, ::-1],
    }[view]
    x = numbers(2, 8, 8, 4)
    w = numbers(5, 3, 2, 3 if view == "strided" else 4)
    same_as_mlx(lambda m, x, w: m.conv2d(change(x), w, stride=1, padding=1), x, w, scale=4.0)


# --- By the number of dims --------------------------------------------------------------------------------------------


def test_by_rank():
    for rank, name in ((1, "conv1d"), (2, "conv2d"), (3, "conv3d")):
        x = numbers(2, *(6, 5, 7)[:rank], 4)
        groups = 2 if rank < 3 else 1
        w = numbers(2, *(3, 2, 3)[:rank], 4 // groups)
        for arguments in ((), (2,), (2, 1), (1, 2, 2)):
            same_as_mlx(
                lambda m, x, w, n=name, a=arguments, g=groups: getattr(m, n)(x, w, *a, groups=g), x, w, scale=4.0
            )
    same_as_mlx(
        lambda m, x, w: m.conv2d(x, w, stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
        numbers(2, 6, 5, 4),
        numbers(2, 3, 2, 4),
        scale=4.0,
    )
    same_as_mlx(
        lambda m, x, w: m.conv3d(x, w, stride=[2, 1, 1], padding=[0, 2, 1], dilation=(1, 2, 1)),
        numbers(2, 6, 5, 4, 4),
        numbers(2, 3, 2, 2, 4),
        scale=4.0,
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("output_padding", [0, 1, -1])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed(stride, padding, dilation, output_padding, groups):
    for rank in (1, 2, 3):
        # MLX has no groups in three dims; what padding takes away, it takes away before the stride spreads elements.
        if (rank == 3 and groups > 1) or (stride > 1 and rank > 1 and padding > dilation + output_padding):
            continue
        x, w = numbers(2, *(4, 3, 2)[:rank], 4), numbers(6, *(3, 2, 3)[:rank], 4 // groups)
        arguments = (stride, padding, dilation, output_padding, groups)
        same_as_mlx(
            lambda m, x, w, rank=rank, a=arguments: getattr(m, f"conv_transpose{rank}d")(x, w, *a), x, w, scale=4.0
        )


def test_transposed_with_arguments_for_each_dim():
    value = same_as_mlx(
        lambda m, x, w: m.conv_transpose2d(x, w, stride=(2, 1), padding=(1, 0), dilation=(1, 2), output_padding=(1, 0)),
        numbers(2, 4, 3, 4),
        numbers(6, 3, 2, 4),
        scale=4.0,
    )
    assert is_array(value)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("sizes", [(5, 3), (3, 5), (4, 4), (5, 2), (5, 4), (2, 5), (1, 1), (5, 1), (60, 40)])
def test_convolve(sizes, mode):
    a, v = (numbers(n) for n in sizes)
    value = same_as_mlx(lambda m, a, v: m.convolve(a, v, mode=mode), a, v, scale=4.0)
    if not (mode == "same" and min(sizes) > max(sizes)):
        same_as_numpy(value, np.convolve(a.astype(np.float64), v, mode), scale=4.0)


ERRORS: dict[str, Any] = {
    "channels": lambda m: m.conv1d(m.ones((1, 5, 4)), m.ones((3, 2, 2))),
    "window too large": lambda m: m.conv1d(m.ones((1, 2, 2)), m.ones((3, 3, 2))),
    "dilated window too large": lambda m: m.conv1d(m.ones((1, 4, 2)), m.ones((3, 3, 2)), dilation=2),
    "nothing left": lambda m: m.conv1d(m.ones((1, 4, 2)), m.ones((3, 1, 2)), padding=-2),
    "stride of 0": lambda m: m.conv1d(m.ones((1, 5, 2)), m.ones((3, 2, 2)), stride=0),
    "negative stride": lambda m: m.conv2d(m.ones((1, 5, 5, 2)), m.ones((3, 2, 2, 2)), stride=(1, -1)),
    "dilation of 0": lambda m: m.conv1d(m.ones((1, 5, 2)), m.ones((3, 2, 2)), dilation=0),
    "input dilation of 0": lambda m: m.conv_general(m.ones((1, 5, 2)), m.ones((3, 2, 2)), input_dilation=0),
    "negative groups": lambda m: m.conv1d(m.ones((1, 5, 1)), m.ones((1, 2, 1)), groups=-1),
    "groups of inputs": lambda m: m.conv1d(m.ones((1, 5, 3)), m.ones((4, 2, 2)), groups=2),
    "groups of outputs": lambda m: m.conv1d(m.ones((1, 5, 4)), m.ones((3, 2, 2)), groups=2),
    "groups and channels": lambda m: m.conv1d(m.ones((1, 5, 4)), m.ones((4, 2, 4)), groups=2),
    "ranks differ": lambda m: m.conv1d(m.ones((1, 5, 2)), m.ones((3, 2, 2, 2))),
    "no spatial dim": lambda m: m.conv_general(m.ones((1, 5)), m.ones((3, 5))),
    "too many dims": lambda m: m.conv_general(m.ones((1, 5, 5, 5, 5, 1)), m.ones((3, 2, 2, 2, 2, 1))),
    "conv2d of 1-d": lambda m: m.conv2d(m.ones((1, 5, 2)), m.ones((3, 2, 2))),
    "conv3d of 2-d": lambda m: m.conv3d(m.ones((1, 5, 5, 2)), m.ones((3, 2, 2, 2))),
    "too many strides": lambda m: m.conv_general(m.ones((1, 5, 2)), m.ones((3, 2, 2)), stride=[1, 2]),
    "too many paddings": lambda m: m.conv_general(m.ones((1, 5, 2)), m.ones((3, 2, 2)), padding=[1, 2, 3]),
    "three paddings of conv2d": lambda m: m.conv2d(m.ones((1, 5, 5, 2)), m.ones((3, 2, 2, 2)), padding=(1, 2, 3)),
    "a tuple for conv1d": lambda m: m.conv1d(m.ones((1, 5, 2)), m.ones((3, 2, 2)), stride=(2,)),
    "a fraction": lambda m: m.conv2d(m.ones((1, 5, 5, 2)), m.ones((3, 2, 2, 2)), stride=1.5),
    "a number as input": lambda m: m.conv1d(3.0, m.ones((3, 2, 2))),
    "a list as weight": lambda m: m.conv1d(m.ones((1, 5, 2)), [1.0]),
    "stride of 0, transposed": lambda m: m.conv_transpose1d(m.ones((1, 5, 2)), m.ones((3, 2, 2)), stride=0),
    "channels, transposed": lambda m: m.conv_transpose2d(m.ones((1, 5, 5, 3)), m.ones((3, 2, 2, 2))),
    "a pair for conv_transpose1d": lambda m: m.conv_transpose1d(m.ones((1, 5, 2)), m.ones((3, 2, 2)), padding=(1, 1)),
    "integers": lambda m: m.conv1d(m.ones((1, 5, 2), dtype=m.int32), m.ones((3, 2, 2), dtype=m.int32)),
    "convolve of matrices": lambda m: m.convolve(m.ones((2, 2)), m.ones((2,))),
    "convolve of nothing": lambda m: m.convolve(m.ones((0,)), m.ones((2,))),
    "convolve with nothing": lambda m: m.convolve(m.ones((2,)), m.ones((0,))),
    "convolve, mode": lambda m: m.convolve(m.ones((2,)), m.ones((2,)), mode="most"),
    "convolve of integers": lambda m: m.convolve(m.arange(3), m.arange(3)),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    assert same_as_mlx(ERRORS[case], case=case) is None


@pytest.mark.mlxlite_only
def test_errors_where_mlx_stops():
    with pytest.raises(ValueError, match="groups"):
        mx.conv1d(mx.ones((1, 5, 2)), mx.ones((3, 2, 2)), groups=0)
    with pytest.raises(ValueError, match="no places"):
        mx.conv1d(mx.ones((1, 5, 2)), mx.ones((3, 0, 2)))


@pytest.mark.mlxlite_only
def test_plans_for_the_gpu():
    """The plan simulator agrees, and a batch of another size finds its plan."""
    with checked() as checks:
        for arguments in ({"padding": 1}, {"stride": 2, "padding": ([1, 0], [0, 2])}, {"input_dilation": 2}):
            for groups in (1, 2):
                x, w = to_module(mx, numbers(2, 6, 5, 4)), to_module(mx, numbers(4, 3, 2, 4 // groups))
                mx.eval(mx.conv_general(x, w, groups=groups, **arguments))
        mx.eval(mx.conv1d(to_module(mx, numbers(2, 90, 2)), to_module(mx, numbers(3, 40, 2))))
        mx.eval(mx.conv2d(to_module(mx, numbers(2, 6, 6, 2)), to_module(mx, numbers(3, 2, 2, 2)), stride=2))
        assert len(checks) >= 8


# --- as_strided -------------------------------------------------------------------------------------------------------

STRIDED: dict[str, tuple[tuple[int, ...], tuple[Any, ...]]] = {
    "nothing": ((2, 3), ()),
    "windows": ((8,), ((3, 3), (2, 1))),
    "repeated": ((3,), ((4, 3), (0, 1))),
    "diagonal": ((3, 3), ((3,), (4,))),
    "shape alone": ((6,), ((6,),)),
    "offset": ((2, 5), ((2, 2), (5, 1), 3)),
    "backwards": ((6,), ((3,), (-2,), 5)),
    "transposed": ((2, 3), ((3, 2), (1, 3))),
    "contiguous": ((12,), ((2, 3), (3, 1), 4)),
    "a number": ((4,), ((), (), 2)),
    "nothing left": ((4,), ((0, 3), (3, 1))),
    "three dims": ((4, 6), ((2, 2, 3), (12, 2, 1), 1)),
}


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool", "bfloat16"])
@pytest.mark.parametrize("case", STRIDED)
def test_as_strided(case, dtype):
    shape, arguments = STRIDED[case]
    value = same_as_mlx(
        lambda m, a: m.as_strided(a, *arguments), (numbers(*shape) * 9).astype(numpy_dtype(dtype)), case=case
    )
    assert is_array(value)


def test_as_strided_of_a_view_counts_its_elements():
    transposed, every_second = mx.arange(12).reshape(3, 4).T, mx.arange(7)[::2]
    assert to_numpy(mx.as_strided(transposed, (2, 2), (1, 2))).tolist() == [[0, 8], [4, 1]]
    assert to_numpy(mx.as_strided(every_second, (2, 2), (1, 1))).tolist() == [[0, 2], [2, 4]]


@pytest.mark.mlxlite_only
@pytest.mark.parametrize(
    "arguments",
    [((3, 3), (2, 2)), ((3,), (-1,)), ((2,), (1,), 4), ((), (), 5), ((2,), (1,), -1), ((2, 2), (1,)), ((2,), (1, 1))],
)
def test_as_strided_stays_inside(arguments):
    with pytest.raises(ValueError, match="as_strided"):
        mx.as_strided(mx.arange(5), *arguments)


# --- Tapers -----------------------------------------------------------------------------------------------------------

TAPERS = ["bartlett", "blackman", "hamming", "hanning"]


@pytest.mark.parametrize("name", TAPERS)
def test_tapers(name):
    for m in (-3, 0, 1, 2, 3, 4, 5, 8, 33):
        value = same_as_mlx(lambda m, n=m: getattr(m, name)(n), case=m)
        same_as_numpy(value, getattr(np, name)(m), case=m)
    assert same_as_mlx(lambda m: getattr(m, name)(2.5)) is None
    assert same_as_mlx(lambda m: getattr(m, name)("3")) is None


@pytest.mark.skipif(IS_MLX, reason="MLX's docstrings are not ours to test")
def test_docstrings():
    for name in ("convolution", "windows"):
        result = doctest.testmod(importlib.import_module(f"mlxlite.core.{name}"), extraglobs={"mx": mx})
        assert result.failed == 0 and result.attempted > 1
    runner = doctest.DocTestRunner()
    for name in TAPERS:
        for test in doctest.DocTestFinder().find(getattr(mx, name), name, globs={"mx": mx}):
            assert test.examples and runner.run(test).failed == 0
