"""Arrays from Python's and NumPy's values, and back."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref

import ml_dtypes
import numpy as np
import pytest

from .differential import DTYPES, dtype_of, same_as_mlx, same_as_numpy, samples, to_module, to_numpy
from .module_under_test import mx

VALUES = [
    True,
    3,
    -(2**31),
    2**40,
    2.5,
    float("nan"),
    1e400,
    1 + 2j,
    [],
    [[]],
    [1, 2.0],
    [True, 1],
    [1j, 2],
    (1, 2),
    [(1, 2), [3, 4]],
    [[1], [2.5]],
    [[[1, 2], [3, 4]]],
    [2**40],
    [2**31],
    [float("nan"), float("-inf")],
    b"ab",
    bytearray(b"ab"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_python_values(value):
    same_as_mlx(lambda m: m.array(value), case=value)
    for dtype in ("bool", "int32", "uint8", "float16", "float32", "complex64"):
        if dtype in ("uint8", "int32", "float16", "bool") and _does_not_fit(value, dtype):
            continue
        if dtype != "complex64" and np.iscomplexobj(value):
            continue
        same_as_mlx(lambda m, d=dtype: m.array(value, dtype=dtype_of(m, d)), case=(value, dtype))


def _does_not_fit(value, dtype) -> bool:
    """Conversions that C++ leaves undefined, or for which MLX has a way of its own."""
    numbers = np.atleast_1d(np.asarray(list(value) if isinstance(value, (bytes, bytearray)) else value)).ravel()
    return bool(numbers.size) and not np.all(np.abs(numbers) < 2**7)


def test_arrays_among_values():
    same_as_mlx(lambda m: m.array([m.array(1), 2]))
    same_as_mlx(lambda m: m.array([m.array([1, 2]), m.array([3, 4])]))
    same_as_mlx(lambda m: m.array([[m.array(1.5), m.array(2)]]))
    same_as_mlx(lambda m: m.array(m.array([1, 2]), dtype=m.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_arrays(dtype):
    for shape in [(), (0,), (3,), (2, 3), (2, 0, 3)]:
        a = samples(dtype, shape)
        for layout in (a, np.asarray(a, order="F")):
            array = mx.array(layout, dtype=dtype_of(mx, dtype))
            assert array.dtype == dtype_of(mx, dtype) and array.shape == shape
            same_as_numpy(array, a, case=(dtype, shape), tolerance=0)
    a = samples(dtype, (4, 6))
    if dtype != "bfloat16":
        same_as_numpy(mx.array(a[1::2, ::3]), a[1::2, ::3], case="strided", tolerance=0)
        same_as_numpy(mx.array(a.T), a.T, case="transposed", tolerance=0)


def test_dtypes_of_numpy_arrays():
    for dtype in ("int8", "uint16", "int64", "float16", "float32", "float64", "complex64", "complex128", "bool"):
        same_as_mlx(lambda m, a: m.array(a), samples("int8", (3,)).astype(dtype).view(Opaque), case=dtype)
    same_as_mlx(lambda m: [m.array(np.int8(3)), m.array(np.float64(2)), m.array(np.float32(2))])


class Opaque(np.ndarray):
    """A NumPy array that the comparison passes on as it is."""


def test_numpy_bfloat16():
    a = samples("bfloat16", (3, 4))
    array = mx.array(a)
    assert array.dtype == mx.bfloat16
    same_as_numpy(array, a, tolerance=0)


def test_what_is_taken_is_copied():
    a = np.ones((3,), np.float32)
    taken = [mx.array(a), mx.array(memoryview(a))]
    a[0] = 7
    for array in taken:
        assert array.tolist() == [1, 1, 1]


WRONG = {
    "None": (lambda m: m.array(None), TypeError),
    "a string": (lambda m: m.array("abc"), (TypeError, ValueError)),
    "a ragged list": (lambda m: m.array([[1, 2], [3]]), ValueError),
    "a list that goes on deeper": (lambda m: m.array([1, [2]]), ValueError),
    "an empty list among others": (lambda m: m.array([[], [1]]), ValueError),
    "a string among numbers": (lambda m: m.array([1, "a"]), (TypeError, ValueError)),
    "a set": (lambda m: m.array({1}), (TypeError, ValueError)),
    "a range": (lambda m: m.array(range(3)), (TypeError, ValueError)),
    "None among numbers": (lambda m: m.array([None]), (TypeError, ValueError)),
    "a dtype that is none": (lambda m: m.array([1], dtype="float32"), TypeError),
    "nothing": (lambda m: m.array(), TypeError),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    call, error = WRONG[name]
    with pytest.raises(error):
        call(mx)
    same_as_mlx(call, case=name)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, [2**64]], ids=repr)
def test_integers_that_fit_nowhere(value):
    with pytest.raises((OverflowError, ValueError, TypeError, RuntimeError)):
        mx.eval(mx.array(value))


@pytest.mark.parametrize("dtype", ["<U1", "O", "M8[s]"])
def test_numpy_dtypes_that_there_are_not(dtype):
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        mx.eval(mx.array(np.zeros((2,), dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_numpy_and_lists(dtype):
    for shape in [(), (0,), (3,), (2, 3)]:
        a = samples(dtype, shape)
        array = to_module(mx, a)
        if dtype != "bfloat16":
            back = np.array(array)
            assert back.dtype == a.dtype and back.shape == a.shape
            np.testing.assert_array_equal(back, a)
        same_as_mlx(lambda m, x: repr(x.tolist()), a, case=(dtype, shape))
    same_as_mlx(lambda m, x: [x.item(), type(x.item()).__name__], samples(dtype, (1, 1)), case=dtype)


def test_numbers_from_arrays():
    assert int(mx.array(3)) == 3 and float(mx.array([2.5])) == 2.5 and bool(mx.array(1.0))
    assert complex(mx.array(1 + 2j)) == 1 + 2j
    assert [10, 20, 30][mx.array(1)] == 20
    assert f"{mx.array(2.5):.2f}" == "2.50"
    with pytest.raises(ValueError):
        mx.array([1, 2]).item()
    with pytest.raises((ValueError, TypeError)):
        int(mx.array([1, 2]))


def test_truth_of_many_elements():
    with pytest.raises(ValueError):
        bool(mx.array([1, 2]))
    assert not mx.array(0) and mx.array([[1]])


def test_numpys_functions_take_arrays():
    a = mx.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(np.sum(np.asarray(a), 0), [3, 5, 7])
    assert isinstance(np.asarray(a.astype(mx.float32)) + 1, np.ndarray)
    same_as_mlx(lambda m, x: m.array(x) + np.float32(1), samples("float32", (3,)))


def test_views_in_numpy_share_memory(device):
    if device == "gpu":
        pytest.skip("NumPy cannot see the GPU's memory")
    a = mx.arange(6)
    mx.eval(a)
    first, second = np.array(a, copy=False), np.array(a, copy=False)
    assert np.shares_memory(first, second)
    assert first.tolist() == list(range(6))
    copied = np.array(a)
    assert not np.shares_memory(copied, first)
    copied[0] = 9
    assert a.tolist() == list(range(6))


def test_numpys_view_outlives_the_array():
    a = mx.arange(1000) + 1
    view = np.array(a, copy=False)
    del a
    gc.collect()
    assert view.sum() == 500_500


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != "bfloat16"])
def test_buffer_protocol(dtype):
    a = samples(dtype, (2, 3))
    array = to_module(mx, a)
    view = memoryview(array)
    assert view.shape == (2, 3) and view.itemsize == a.itemsize
    np.testing.assert_array_equal(np.asarray(view), a)
    same_as_numpy(mx.array(array), a)


def test_asarray():
    a = mx.array([1, 2])
    assert mx.asarray(a).tolist() == [1, 2]
    same_as_mlx(lambda m: [m.asarray([1, 2]), m.asarray([1, 2], dtype=m.float32), m.asarray(3.5)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_pickles(dtype):
    a = samples(dtype, (2, 3))
    lazy = to_module(mx, a)[::-1]
    back = pickle.loads(pickle.dumps(lazy))
    assert back.dtype == lazy.dtype
    np.testing.assert_array_equal(to_numpy(back), a[::-1])


def test_copies():
    a = mx.array([1, 2, 3])
    for other in (copy.copy(a), copy.deepcopy(a), copy.deepcopy([a])[0]):
        assert other is not a
        other[0] = 9
        assert a.tolist() == [1, 2, 3] and other.tolist() == [9, 2, 3]


def test_attributes():
    a = mx.zeros((2, 3, 4), dtype=mx.float16)
    assert (a.shape, a.ndim, a.size, a.itemsize, a.nbytes) == ((2, 3, 4), 3, 24, 2, 48)
    assert type(a.shape) is tuple and a.dtype == mx.float16
    assert a.T.shape == (4, 3, 2) and a.mT.shape == (2, 4, 3)
    with pytest.raises(AttributeError):
        a.nonsense  # noqa: B018


def test_arrays_can_be_keys_and_weak():
    a, b = mx.array([1]), mx.array([1])
    assert len({a: 1, b: 2}) == 2
    reference = weakref.ref(a)
    assert reference() is a
    del a
    gc.collect()
    assert reference() is None


def test_memory_is_given_back():
    class Owner(np.ndarray):
        pass

    a = np.zeros((1000,), np.float32).view(Owner)
    before = sys.getrefcount(a)
    for _ in range(20):
        mx.eval(mx.array(a) + 1)
    gc.collect()
    assert sys.getrefcount(a) <= before + 1


def test_ml_dtypes_is_numpys_bfloat16():
    assert np.dtype(ml_dtypes.bfloat16).itemsize == mx.bfloat16.size
