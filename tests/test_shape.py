"""Functions that move elements: against NumPy and MLX, on every layout, and the errors of wrong shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .checked_backend import checked
from .differential import (
    DTYPES,
    SOME_DTYPES,
    dtype_of,
    layouts,
    numpy_dtype,
    same_as_mlx,
    same_as_numpy,
    samples,
    to_module,
    to_numpy,
)
from .module_under_test import mx

# A call of each function that takes any array of three dims, and NumPy's way to say it.
CALLS = {
    "reshape": (lambda m, a: m.reshape(a, (4, -1)), lambda a: a.reshape(4, -1)),
    "reshape to 1-d": (lambda m, a: a.reshape(-1), lambda a: a.reshape(-1)),
    "reshape with ones": (lambda m, a: a.reshape(1, 2, 1, 3, 4, 1), lambda a: a.reshape(1, 2, 1, 3, 4, 1)),
    "reshape by groups": (lambda m, a: a.reshape(6, 2, 2), lambda a: a.reshape(6, 2, 2)),
    "flatten": (lambda m, a: m.flatten(a), np.ravel),
    "flatten some": (lambda m, a: a.flatten(1, 2), lambda a: a.reshape(2, 12)),
    "unflatten": (lambda m, a: m.unflatten(a, -1, (2, 2)), lambda a: a.reshape(2, 3, 2, 2)),
    "unflatten with -1": (lambda m, a: m.unflatten(a, 2, (-1, 1)), lambda a: a.reshape(2, 3, 4, 1)),
    "expand_dims": (lambda m, a: m.expand_dims(a, 1), lambda a: np.expand_dims(a, 1)),
    "expand_dims many": (lambda m, a: m.expand_dims(a, (0, -1)), lambda a: np.expand_dims(a, (0, -1))),
    "squeeze": (lambda m, a: m.squeeze(a[:1, :, None]), lambda a: np.squeeze(a[:1, :, None])),
    "squeeze one": (lambda m, a: m.squeeze(a[:1, :, None], 2), lambda a: a[:1]),
    "transpose": (lambda m, a: m.transpose(a), np.transpose),
    "transpose by axes": (lambda m, a: m.transpose(a, (1, 2, 0)), lambda a: a.transpose(1, 2, 0)),
    "transpose negative": (lambda m, a: a.transpose(-1, 0, 1), lambda a: a.transpose(-1, 0, 1)),
    "T": (lambda m, a: a.T, lambda a: a.T),
    "swapaxes": (lambda m, a: m.swapaxes(a, 0, -1), lambda a: a.swapaxes(0, -1)),
    "moveaxis": (lambda m, a: m.moveaxis(a, 0, -1), lambda a: np.moveaxis(a, 0, -1)),
    "matrix_transpose": (lambda m, a: m.matrix_transpose(a), lambda a: a.swapaxes(-1, -2)),
    "permute_dims": (lambda m, a: m.permute_dims(a, (2, 0, 1)), lambda a: a.transpose(2, 0, 1)),
    "broadcast_to": (lambda m, a: m.broadcast_to(a, (5, 2, 3, 4)), lambda a: np.broadcast_to(a, (5, 2, 3, 4))),
    "flip": (lambda m, a: m.flip(a), np.flip),
    "flip some": (lambda m, a: m.flip(a, (0, -1)), lambda a: np.flip(a, (0, -1))),
    "diagonal": (lambda m, a: m.diagonal(a, 1, 0, 2), lambda a: a.diagonal(1, 0, 2)),
    "contiguous": (lambda m, a: m.contiguous(a), lambda a: a),
    "atleast_1d": (lambda m, a: m.atleast_1d(a[0, 0, 0]), lambda a: a[0, 0, :1]),
    "atleast_2d": (lambda m, a: m.atleast_2d(a[0, 0]), lambda a: a[0, :1]),
    "atleast_3d": (lambda m, a: m.atleast_3d(a[0]), lambda a: np.atleast_3d(a[0])),
    "concatenate": (lambda m, a: m.concatenate([a, a[:, :1]], axis=1), lambda a: np.concatenate([a, a[:, :1]], axis=1)),
    "concatenate flat": (lambda m, a: m.concatenate([a, a], axis=None), lambda a: np.concatenate([a, a], axis=None)),
    "stack": (lambda m, a: m.stack([a, a], axis=-1), lambda a: np.stack([a, a], axis=-1)),
    "repeat": (lambda m, a: m.repeat(a, 2, axis=1), lambda a: np.repeat(a, 2, axis=1)),
    "repeat flat": (lambda m, a: m.repeat(a, 3), lambda a: np.repeat(a, 3)),
    "tile": (lambda m, a: m.tile(a, (2, 1, 2)), lambda a: np.tile(a, (2, 1, 2))),
    "tile more dims": (lambda m, a: m.tile(a, (2, 1, 1, 1)), lambda a: np.tile(a, (2, 1, 1, 1))),
    "tile fewer dims": (lambda m, a: m.tile(a, 2), lambda a: np.tile(a, 2)),
    "roll": (lambda m, a: m.roll(a, 2), lambda a: np.roll(a, 2)),
    "roll one axis": (lambda m, a: m.roll(a, -1, axis=2), lambda a: np.roll(a, -1, axis=2)),
    "roll two axes": (lambda m, a: m.roll(a, (1, 5), axis=(0, 1)), lambda a: np.roll(a, (1, 5), axis=(0, 1))),
    "pad": (lambda m, a: m.pad(a, 1), lambda a: np.pad(a, 1)),
    "pad by axis": (lambda m, a: m.pad(a, [(0, 1), (2, 0), (1, 1)]), lambda a: np.pad(a, [(0, 1), (2, 0), (1, 1)])),
    "pad with edge": (lambda m, a: m.pad(a, (1, 2), mode="edge"), lambda a: np.pad(a, (1, 2), mode="edge")),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_layout(name):
    call, reference = CALLS[name]
    for layout, base, view in layouts((2, 3, 4)):
        a = samples("int32", base)
        same_as_numpy(call(mx, view(to_module(mx, a))), reference(view(a)), case=(name, layout))
        same_as_mlx(lambda m, a, v=view: call(m, v(a)), a, case=(name, layout))


@pytest.mark.parametrize("name", CALLS)
def test_every_dtype(name):
    call, _ = CALLS[name]
    for dtype in SOME_DTYPES:
        same_as_mlx(call, samples(dtype, (2, 3, 4)), case=(name, dtype))


@pytest.mark.parametrize("name", CALLS)
def test_then_used_again(name):
    """A view that is read by another operation, which must go through its strides."""
    call, reference = CALLS[name]
    a = samples("float32", (2, 3, 4), domain="small")
    view = call(mx, to_module(mx, a) + 1)
    expected = reference(a + 1)
    same_as_numpy(mx.sum(view * 2, axis=0), (expected * 2).sum(0), case=name, scale=10)
    same_as_numpy(view.reshape(-1)[::-1], expected.reshape(-1)[::-1], case=name)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.data())
def test_reshape_of_transposed_arrays(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    perm = data.draw(st.permutations(range(len(shape))))
    size = int(np.prod(shape))
    first = data.draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    second = data.draw(st.sampled_from([d for d in range(1, size // first + 1) if size // first % d == 0]))
    target = (first, second, size // first // second)
    a = samples("int32", shape)
    same_as_numpy(
        to_module(mx, a).transpose(perm).reshape(target), a.transpose(perm).reshape(target), case=(shape, perm)
    )


def test_reshape_of_nothing():
    a = np.zeros((0, 3), np.float32)
    for shape in [(3, 0), (0,), (0, 5, 2), (1, 0)]:
        same_as_numpy(mx.reshape(to_module(mx, a), shape), a.reshape(shape), case=shape)
    for shape in [(1,), (-1, 0)]:
        with pytest.raises(ValueError):
            mx.eval(mx.reshape(to_module(mx, a), shape))


def test_split():
    a = samples("int32", (6, 4))
    for sections in (1, 2, 3, 6, [2], [1, 4], [0, 6], [3, 3], [-2], []):
        case = sections
        expected = np.split(a, sections)
        result = mx.split(to_module(mx, a), sections)
        assert len(result) == len(expected), case
        for ours, theirs in zip(result, expected, strict=True):
            same_as_numpy(ours, theirs, case=case)
        if sections != []:
            same_as_mlx(lambda m, a, s=sections: m.split(a, s), a, case=case)
    same_as_mlx(lambda m, a: m.split(a, 2, axis=-1), a)
    with pytest.raises(ValueError):
        mx.split(to_module(mx, a), 4)


def test_unstack_is_the_inverse_of_stack():
    a = samples("int32", (3, 4))
    for axis in (0, 1, -1):
        parts = mx.unstack(to_module(mx, a), axis=axis)
        same_as_numpy(mx.stack(list(parts), axis=axis), a, case=axis)


def test_meshgrid():
    x, y, z = np.arange(3, dtype=np.int32), np.arange(2, dtype=np.int32), np.arange(4, dtype=np.int32)
    for indexing in ("xy", "ij"):
        for sparse in (False, True):
            for arrays in [(x, y), (x, y, z), (x,)]:
                same_as_mlx(lambda m, *a, i=indexing, s=sparse: m.meshgrid(*a, sparse=s, indexing=i), *arrays)


def test_broadcast_arrays_and_shapes():
    a, b = samples("int32", (3, 1)), samples("float32", (1, 4))
    same_as_mlx(lambda m, a, b: m.broadcast_arrays(a, b), a, b)
    for shapes in [((3, 1), (1, 4)), ((2, 3), (3,)), ((), (5,)), ((0, 1), (1, 3))]:
        assert tuple(mx.broadcast_shapes(*shapes)) == np.broadcast_shapes(*shapes)
    with pytest.raises(ValueError):
        mx.broadcast_shapes((2,), (3,))


def test_pad_values_and_errors():
    for dtype in ("int32", "float16", "float32"):
        a = samples(dtype, (2, 3), domain="small")
        same_as_mlx(lambda m, a: m.pad(a, 1, constant_values=7), a, case=dtype)
        same_as_mlx(lambda m, a: m.pad(a, (1, 2), constant_values=m.array(3)), a, case=dtype)
    same_as_mlx(lambda m, a: m.pad(a, [(0, 1)]), samples("int32", (3,)))
    with pytest.raises(ValueError):
        mx.pad(mx.zeros((2, 3)), [(1, 1), (1, 1), (1, 1)])
    with pytest.raises(ValueError):
        mx.pad(mx.zeros((2, 3)), -1)


def test_views_of_views():
    a = samples("int32", (4, 6, 5))
    chains = [
        lambda a: a.T[1:, ::-1].T[::2],
        lambda a: a[::-1, 1::2].reshape(4, -1)[1:, ::-2],
        lambda a: a.transpose(2, 0, 1)[1:4].swapaxes(0, 2)[:, None, ::2],
        lambda a: a[..., 2][::-1].T[::-2],
        lambda a: a[2].reshape(-1)[3:20:4].reshape(-1, 1).T,
        lambda a: a[1:1].reshape(0, 3).T,
    ]
    for k, chain in enumerate(chains):
        same_as_numpy(chain(to_module(mx, a)), chain(a), case=k)
        same_as_numpy(chain(to_module(mx, a) + 1) * 2, (chain(a + 1)) * 2, case=k)


def test_views_are_not_changed_by_what_they_view():
    a = mx.arange(6).reshape(2, 3)
    row, turned = a[0], a.T
    a[0] = 100
    assert row.tolist() == [0, 1, 2]
    assert turned.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert a.tolist() == [[100, 100, 100], [3, 4, 5]]


WRONG = {
    "reshape to another size": (lambda m, a: m.reshape(a, (5,)), ValueError),
    "reshape with two unknowns": (lambda m, a: m.reshape(a, (-1, -1)), ValueError),
    "transpose of an axis twice": (lambda m, a: m.transpose(a, (0, 0)), ValueError),
    "transpose of too few axes": (lambda m, a: m.transpose(a, (0,)), ValueError),
    "squeeze of a dim of 3": (lambda m, a: m.squeeze(a, 1), ValueError),
    "broadcast to a smaller shape": (lambda m, a: m.broadcast_to(a, (2, 2)), ValueError),
    "concatenate different shapes": (lambda m, a: m.concatenate([a, a[:1]], axis=1), ValueError),
    "concatenate nothing": (lambda m, a: m.concatenate([]), ValueError),
    "stack different shapes": (lambda m, a: m.stack([a, a[:1]]), ValueError),
    "swapaxes out of range": (lambda m, a: m.swapaxes(a, 0, 5), (ValueError, IndexError)),
    "expand_dims out of range": (lambda m, a: m.expand_dims(a, 9), (ValueError, IndexError)),
    "repeat a negative number of times": (lambda m, a: m.repeat(a, -1), ValueError),
    "flatten backwards": (lambda m, a: m.flatten(a, 1, 0), ValueError),
    "unflatten to another size": (lambda m, a: m.unflatten(a, 0, (7, 7)), ValueError),
    "a reshape that is no shape": (lambda m, a: m.reshape(a, "ab"), TypeError),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    call, error = WRONG[name]
    a = samples("int32", (2, 3))
    array = to_module(mx, a)
    with pytest.raises(error):
        mx.eval(call(mx, array))
    same_as_numpy(array, a)
    same_as_mlx(call, a, case=name)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # bytes that make a NaN
@pytest.mark.parametrize("source", DTYPES)
def test_view(source):
    """The same bytes, for every pair of dtypes and every layout."""
    for target in DTYPES:
        if target == "bool":
            continue  # a byte that is neither 0 nor 1 is no bool
        for layout, base, view in layouts((3, 8)):
            a = samples(source, base, domain="small")
            case = (source, target, layout)
            value = same_as_mlx(lambda m, a, v=view, t=target: m.view(v(a), dtype_of(m, t)), a, case=case)
            expected = np.ascontiguousarray(view(a)).view(numpy_dtype(target))
            # As integers: a conversion may change the bits of a NaN.
            bits = to_numpy(mx.view(value, dtype_of(mx, f"uint{8 * expected.itemsize}")))
            assert value.shape == expected.shape and bits.tobytes() == expected.tobytes(), case


def test_view_of_numbers_and_of_nothing():
    same_as_mlx(lambda m: m.view(1.0, m.int32))
    same_as_mlx(lambda m: m.view(m.array(-1, m.int16), m.uint16))
    same_as_mlx(lambda m: m.array([True, False]).view(m.uint8))
    same_as_mlx(lambda m: m.zeros((2, 0)).view(m.int16))
    same_as_mlx(lambda m: m.zeros((0,), m.int16).view(m.int64))
    same_as_mlx(lambda m: m.view(m.zeros((0, 2), m.int16), m.float32))


def test_view_errors():
    for call in (
        lambda m: m.view(m.zeros((3,), m.int16), m.int32),
        lambda m: m.view(m.array(1.0), m.int16),
        lambda m: m.view(m.array(1.0), "int32"),
        lambda m: m.view(m.array(1.0)),
    ):
        assert same_as_mlx(call) is None


@pytest.mark.mlxlite_only
def test_view_in_a_plan_for_the_gpu():
    a = to_module(mx, samples("float32", (4, 6), domain="small"))
    with checked() as checks:
        mx.eval(mx.view(a * 2, mx.uint32) ^ 1, mx.view(a[:, 1:3].T, mx.int16) + 1, mx.view(a[1:], mx.complex64))
        mx.eval(mx.view(mx.view(a, mx.uint8)[:, 4:], mx.float32) + 1, mx.view(2.0, mx.int32))
        assert len(checks) == 2
