"""Wrong arguments: the error that MLX gives, a message that names the operation, arrays that stay usable."""

from __future__ import annotations

import numpy as np
import pytest

from .differential import same_as_mlx
from .module_under_test import IS_MLX, mx

# By operation: a wrong call, of arrays of shapes (2, 3) and (4, 5).
SHAPES = {
    "add": lambda m, a, b: m.add(a, b),
    "where": lambda m, a, b: m.where(a, b, 1),
    "matmul": lambda m, a, b: m.matmul(a, b),
    "addmm": lambda m, a, b: m.addmm(a, b, b),
    "concatenate": lambda m, a, b: m.concatenate([a, b], axis=0),
    "stack": lambda m, a, b: m.stack([a, b]),
    "reshape": lambda m, a, b: m.reshape(a, (5, 5)),
    "broadcast_to": lambda m, a, b: m.broadcast_to(a, (5, 3)),
    "tensordot": lambda m, a, b: m.tensordot(a, b, 1),
    "inner": lambda m, a, b: m.inner(a, b),
    "einsum": lambda m, a, b: m.einsum("ij,jk->ik", a, b),
    "split": lambda m, a, b: m.split(a, 4),
    "squeeze": lambda m, a, b: m.squeeze(a, 0),
    "transpose": lambda m, a, b: m.transpose(a, (0, 1, 2)),
    "pad": lambda m, a, b: m.pad(a, [(1, 1)] * 3),
    "unflatten": lambda m, a, b: m.unflatten(a, 1, (2, 2)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    a, b = np.ones((2, 3), np.float32), np.ones((4, 5), np.float32)
    with pytest.raises(ValueError):
        mx.eval(SHAPES[name](mx, mx.array(a), mx.array(b)))
    same_as_mlx(SHAPES[name], a, b, case=name)


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("name", SHAPES)
def test_messages_name_the_operation_and_the_shapes(name):
    a, b = mx.ones((2, 3)), mx.ones((4, 5))
    with pytest.raises(ValueError) as error:
        mx.eval(SHAPES[name](mx, a, b))
    text = str(error.value)
    # Some are made of others, and those speak.
    names = {"inner": ("inner", "matmul", "tensordot"), "stack": ("stack", "concatenate"), "split": ("split",)}
    assert any(f"[{n}]" in text for n in names.get(name, (name,))), text
    if name in ("add", "where", "matmul", "concatenate", "broadcast_to"):
        assert "2" in text and "3" in text, text


AXES = {
    "sum": lambda m, a, x: m.sum(a, axis=x),
    "argmax": lambda m, a, x: m.argmax(a, axis=x),
    "cumsum": lambda m, a, x: m.cumsum(a, axis=x),
    "softmax": lambda m, a, x: m.softmax(a, axis=x),
    "logsumexp": lambda m, a, x: m.logsumexp(a, axis=x),
    "mean": lambda m, a, x: m.mean(a, axis=x),
    "sort": lambda m, a, x: m.sort(a, axis=x),
    "argsort": lambda m, a, x: m.argsort(a, axis=x),
    "topk": lambda m, a, x: m.topk(a, 1, axis=x),
    "concatenate": lambda m, a, x: m.concatenate([a, a], axis=x),
    "stack": lambda m, a, x: m.stack([a, a], axis=x + 1 if x > 0 else x - 1),
    "take": lambda m, a, x: m.take(a, m.array([0]), axis=x),
    "take_along_axis": lambda m, a, x: m.take_along_axis(a, m.zeros((2, 1), dtype=m.int32), axis=x),
    "squeeze": lambda m, a, x: m.squeeze(a, axis=x),
    "expand_dims": lambda m, a, x: m.expand_dims(a, axis=x + 1 if x > 0 else x - 1),
    "swapaxes": lambda m, a, x: m.swapaxes(a, 0, x),
    "moveaxis": lambda m, a, x: m.moveaxis(a, 0, x),
    "flip": lambda m, a, x: m.flip(a, axis=x),
    "roll": lambda m, a, x: m.roll(a, 1, axis=x),
    "repeat": lambda m, a, x: m.repeat(a, 2, axis=x),
    "split": lambda m, a, x: m.split(a, 1, axis=x),
    "diagonal": lambda m, a, x: m.diagonal(a, 0, 0, x),
    "flatten": lambda m, a, x: m.flatten(a, x, x),
}


@pytest.mark.parametrize("name", [n for n in AXES if n != "flip"])
def test_axes(name):
    a = np.ones((2, 3), np.float32)
    for axis in (2, 7, -3):
        if name == "flatten" and axis == 7:
            continue
        same_as_mlx(lambda m, a, x=axis: AXES[name](m, a, x), a, case=(name, axis))


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("name", [n for n in AXES if n != "flatten"])
def test_messages_name_the_operation_and_the_axis(name):
    with pytest.raises((ValueError, IndexError)) as error:
        mx.eval(AXES[name](mx, mx.ones((2, 3)), 7))
    text = str(error.value)
    names = {"softmax": ("softmax",), "topk": ("topk", "partition"), "mean": ("mean", "sum"), "roll": ("roll",)}
    assert any(f"[{n}]" in text for n in names.get(name, (name,))), text
    assert "7" in text or "8" in text, text


# Operations and dtypes that do not go together.
TYPES = {
    "bitwise_and": lambda m, a: m.bitwise_and(a, a),
    "left_shift": lambda m, a: m.left_shift(a, a),
    "bitwise_invert": lambda m, a: m.bitwise_invert(a),
    "matmul": lambda m, a: m.matmul(a.astype(m.int32), a.T.astype(m.int32)),
    "take": lambda m, a: m.take(a, a),
    "floor": lambda m, a: m.floor(a.astype(m.complex64)),
    "remainder": lambda m, a: m.remainder(a.astype(m.complex64), a),
    "arctan2": lambda m, a: m.arctan2(a.astype(m.complex64), a),
    "negative": lambda m, a: m.negative(a.astype(m.bool_)),
    "subtract": lambda m, a: m.eval(m.subtract(a.astype(m.complex64), a)) or m.subtract(a, "x"),
    "erf": lambda m, a: m.erf(a.astype(m.complex64)),
    "linspace": lambda m, a: m.linspace(0, 1, -1),
    "arange": lambda m, a: m.arange(0, 5, dtype=m.bool_),
}


@pytest.mark.parametrize("name", TYPES)
def test_types(name):
    same_as_mlx(TYPES[name], np.ones((2, 3), np.float32), case=name)


# Python values where an array belongs, and the other way round.
ARGUMENTS = {
    "a list for an array": lambda m: m.exp([1.0, 2.0]),
    "a list for one of two": lambda m: m.add(m.ones((2,)), [1.0, 2.0]),
    "a string": lambda m: m.exp("a"),
    "None": lambda m: m.add(m.ones((2,)), None),
    "a number to reduce": lambda m: m.sum(3),
    "a string for an axis": lambda m: m.sum(m.ones((2,)), axis="x"),
    "a float for an axis": lambda m: m.sum(m.ones((2,)), axis=0.5),
    "an axis twice": lambda m: m.sum(m.ones((2, 2)), axis=(0, 0)),
    "a float for a shape": lambda m: m.zeros((2.5,)),
    "a string for a dtype": lambda m: m.zeros((2,), dtype="float32"),
    "too few arguments": lambda m: m.add(m.ones((2,))),
    "too many arguments": lambda m: m.exp(m.ones((2,)), 1, 2, 3),
    "an unknown name": lambda m: m.sum(m.ones((2,)), axes=0),
    "no arrays": lambda m: m.concatenate([]),
    "an operator with a string": lambda m: m.ones((2,)) + "a",
    "an operator with a list": lambda m: m.ones((2,)) + [1, 2],  # noqa: RUF005
    "an operator with None": lambda m: m.ones((2,)) * None,
    "matmul with a number": lambda m: m.ones((2, 2)) @ 2,
    "astype of a string": lambda m: m.ones((2,)).astype("float32"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name):
    with pytest.raises((TypeError, ValueError, RuntimeError) if IS_MLX else (TypeError, ValueError)):
        mx.eval(ARGUMENTS[name](mx))
    if not name.startswith("an operator"):  # a TypeError from Python itself, a ValueError in MLX
        same_as_mlx(ARGUMENTS[name], case=name)


def test_arrays_stay_usable_after_every_error():
    a, b = mx.arange(6, dtype=mx.float32).reshape(2, 3), mx.ones((4, 5))
    lazy = a * 2
    for call in SHAPES.values():
        with pytest.raises(ValueError):
            mx.eval(call(mx, a, b))
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert lazy.tolist() == [[0, 2, 4], [6, 8, 10]]
    assert mx.sum(b).item() == 20


def test_comparisons_with_what_is_no_array():
    a = mx.array([1, 2])
    assert (a == "x") is False or (a != "x") is True


def test_a_failed_update_leaves_the_array_as_it_was():
    a = mx.arange(3)
    for index, value in [(0, mx.zeros((2,))), (slice(None), mx.zeros((2,))), ("x", 1), (0, "x"), (0.5, 1)]:
        with pytest.raises((ValueError, TypeError, IndexError)):
            a[index] = value
            mx.eval(a)
    assert a.tolist() == [0, 1, 2]
