"""Reading and writing by index: against NumPy where it means the same, against MLX everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .differential import SOME_DTYPES, layouts, same_as_mlx, same_as_numpy, samples, to_module
from .module_under_test import IS_MLX, mx

I = np.array([2, 0, -1, 1], np.int32)  # noqa: E741
J = np.array([[0, 1], [-2, 3]], np.int32)

# Of an array of shape (3, 4, 5). NumPy arrays become arrays of the module.
READS = {
    "an integer": 1,
    "a negative integer": -1,
    "integers": (2, -1, 0),
    "a slice": slice(1, 3),
    "a slice from the end": slice(-2, None),
    "a slice past the end": slice(1, 100),
    "an empty slice": slice(2, 1),
    "a stepped slice": (slice(None), slice(None, None, 2)),
    "a reversed slice": slice(None, None, -1),
    "a reversed stepped slice": (slice(None), slice(3, 0, -2), slice(None, None, -3)),
    "a new axis": (None, slice(1)),
    "new axes between": (slice(None), None, 1, None),
    "an ellipsis": (..., 2),
    "an ellipsis between": (0, ..., slice(1, 3)),
    "only an ellipsis": ...,
    "an ellipsis of no dims": (0, 1, ..., 2),
    "nothing": (),
    "an array": np.array([2, 0, -2], np.int32),  # each element once: which update stays is not told
    "a matrix of indices": (slice(None), J),
    "an array in the last dim": (..., I),
    "two arrays": (I[:2], I[1:3]),
    "two arrays that broadcast": (I[:2, None], I[None, :3]),
    "arrays with a slice between": (I[:2], slice(1, 3), I[:2]),
    "arrays with a slice before": (slice(None), I[:2], I[:2]),
    "an integer and an array": (1, I),
    "an array and an integer": (I[:2], 1),
    "an integer, a slice and an array": (0, slice(1, 3), I),
    "an array and a new axis": (I[:2], None, 1),
    "an array, an ellipsis, an array": (I[:2], ..., I[:2]),
    "a slice, an array, a slice": (slice(0, 2), I, slice(None, None, -1)),
    "an array of one": np.array([1], np.int32),
    "a scalar array": np.array(1, np.int32),
    "no indices": np.zeros((0,), np.int32),
    "unsigned bytes": np.array([0, 2], np.uint8),
    "wide integers": np.array([0, -1], np.int64),
}


def _index(module, index):
    """An index with its arrays as arrays of a module."""
    if isinstance(index, tuple):
        return tuple(_index(module, i) for i in index)
    return to_module(module, index) if isinstance(index, np.ndarray) else index


@pytest.mark.parametrize("name", READS)
def test_reading(name):
    index = READS[name]
    for layout, base, view in layouts((3, 4, 5)):
        a = samples("int32", base)
        result = view(to_module(mx, a))[_index(mx, index)]
        same_as_numpy(result, view(a)[index], case=(name, layout))
    for dtype in SOME_DTYPES:
        same_as_mlx(lambda m, a: a[_index(m, index)], samples(dtype, (3, 4, 5)), case=(name, dtype))


# MLX lists these among what an update can be: numbers, arrays that broadcast, of another dtype.
def _updates(shape):
    yield "a number", 7
    yield "an array", np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape) * 3
    yield "a scalar array", np.array(5, np.int32)
    if shape:
        yield "the last dim", np.arange(shape[-1], dtype=np.int32)
        yield "one", np.array([4], np.int32)


# With only an ellipsis the array takes the dtype of the update; the other is an error though reading works.
MLX_WRITES_OTHERWISE = ("only an ellipsis", "an integer, a slice and an array")


@pytest.mark.parametrize("name", READS)
def test_writing(name):
    index = READS[name]
    base = samples("int32", (3, 4, 5))
    shape = base[index].shape
    if name == "two arrays that broadcast":
        index = (I[:2, None], I[None, :2])  # -1 and 2 are one place: the order of two writes is nobody's promise
        shape = base[index].shape
    for what, value in _updates(shape):
        expected = base.copy()
        expected[index] = value
        a = to_module(mx, base)
        before = a
        kept = a[:]
        a[_index(mx, index)] = _index(mx, value)
        same_as_numpy(a, expected, case=(name, what))
        assert before is a
        same_as_numpy(kept, base, case=(name, what, "another holder"))

        def write(m, a, value=value):
            a[_index(m, index)] = _index(m, value)
            return a

        if name in MLX_WRITES_OTHERWISE:
            continue
        for dtype in ("float32", "bfloat16", "bool"):
            same_as_mlx(write, samples(dtype, (3, 4, 5)), case=(name, what, dtype))


UPDATES = ["add", "subtract", "multiply", "divide", "maximum", "minimum"]


@pytest.mark.parametrize("name", UPDATES)
def test_at(name):
    repeated = np.array([0, 1, 0, 2, 0], np.int32)
    indices = {
        "an integer": 1,
        "a slice": slice(0, 3, 2),
        "a reversed slice": slice(None, None, -1),
        "repeated": repeated,
        "repeated pairs": (repeated, repeated),
        "a slice and an array": (slice(1, 3), repeated),
        "everything": ...,
    }
    for dtype in ("float32", "float16", "int32"):
        if dtype == "int32" and name == "divide":
            continue
        a = samples(dtype, (3, 4), domain="positive")
        for case, index in indices.items():
            value = samples(dtype, a[index].shape, seed=1, domain="positive")
            for update in (value, 2):
                same_as_mlx(
                    lambda m, a, u=update, i=index: getattr(a.at[_index(m, i)], name)(_index(m, u)),
                    a,
                    case=(name, dtype, case),
                    scale=8,
                )
    a = to_module(mx, samples("float32", (3,), domain="positive"))
    before = a.tolist()
    mx.eval(getattr(a.at[mx.array([0, 0])], name)(2.0))
    assert a.tolist() == before


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64", "int8", "bool"])
def test_at_subtracts_in_dtypes_without_minus_one(dtype):
    for index in (slice(1, 3), np.array([0, 1, 0], np.int32)):
        a = samples(dtype, (4,), domain="positive")
        for value in (samples(dtype, a[index].shape, seed=1, domain="positive"), 1, 2):
            same_as_mlx(
                lambda m, a, v=value, i=index: a.at[_index(m, i)].subtract(_index(m, v)), a, case=(dtype, index, value)
            )


def test_at_counts_every_repetition():
    a = mx.zeros((3,), dtype=mx.int32)
    assert a.at[mx.array([0, 0, 2, 0])].add(1).tolist() == [3, 0, 1]
    a[mx.array([1, 1])] += 1
    assert a.tolist() == [0, 1, 0]


def test_take():
    for dtype in SOME_DTYPES:
        a = samples(dtype, (3, 4, 5))
        for indices in (I[:3], J, np.array(2, np.int32), np.zeros((0,), np.int32)):
            for axis in (0, 1, 2, -1, None):
                if axis == 0 and indices is J:
                    continue  # 3 is out of range
                case = (dtype, indices.tolist(), axis)
                result = mx.take(to_module(mx, a), to_module(mx, indices), axis=axis)
                same_as_numpy(result, np.take(a, indices, axis=axis), case=case)
                same_as_mlx(lambda m, a, i, x=axis: m.take(a, i, axis=x), a, indices, case=case)
        same_as_mlx(lambda m, a: [m.take(a, 1, axis=1), m.take(a, 1), m.take(a, m.array(1), axis=0)], a, case=dtype)


def test_take_along_axis():
    for dtype in SOME_DTYPES:
        a = samples(dtype, (3, 4))
        for axis in (0, 1, -1):
            rng = np.random.default_rng(0)
            indices = rng.integers(-3, 3, (3, 6) if axis else (5, 4)).astype(np.int32)
            case = (dtype, axis)
            result = mx.take_along_axis(to_module(mx, a), to_module(mx, indices), axis=axis)
            same_as_numpy(result, np.take_along_axis(a, indices, axis), case=case)
            same_as_mlx(lambda m, a, i, x=axis: m.take_along_axis(a, i, axis=x), a, indices, case=case)
        flat = np.array([0, -1, 5], np.int32)
        same_as_mlx(lambda m, a, i: m.take_along_axis(a, i, axis=None), a, flat, case=dtype)
        same_as_mlx(lambda m, a, i: m.take_along_axis(a, i, axis=1), a, np.array([[1, 2]], np.int32), case="broadcast")


def test_put_along_axis():
    for dtype in SOME_DTYPES:
        a, values = samples(dtype, (3, 4)), samples(dtype, (3, 2), seed=1)
        indices = np.array([[0, 2], [3, 1], [-1, 0]], np.int32)
        expected = a.copy()
        np.put_along_axis(expected, indices, values, 1)
        result = mx.put_along_axis(*(to_module(mx, x) for x in (a, indices, values)), axis=1)
        same_as_numpy(result, expected, case=dtype)
        same_as_mlx(lambda m, a, i, v: m.put_along_axis(a, i, v, axis=1), a, indices, values, case=dtype)
        flat = (np.array([0, 5], np.int32), samples(dtype, (2,), seed=2))
        same_as_mlx(lambda m, a, i, v: m.put_along_axis(a, i, v, axis=None), a, *flat, case=dtype)


def test_slices_whose_start_is_an_array():
    a = samples("float32", (4, 6))
    start, update = np.array([1, 2], np.int32), samples("float32", (2, 3), seed=1)
    same_as_mlx(lambda m, a, s: m.slice(a, s, (0, 1), (2, 3)), a, start)
    same_as_mlx(lambda m, a, u, s: m.slice_update(a, u, s, (0, 1)), a, update, start)
    same_as_mlx(lambda m, a, s: m.slice(a, s, (1,), (4, 2)), a, start[1:])


def test_masks():
    a = samples("float32", (3, 4))
    mask = samples("bool", (3, 4))
    for value in (0, 2.5):

        def write(m, a, mask, value=value):
            a[mask] = value
            return a

        expected = a.copy()
        expected[mask] = value
        same_as_numpy(write(mx, to_module(mx, a), to_module(mx, mask)), expected, case=value)
        same_as_mlx(write, a, mask, case=value)
        same_as_mlx(write, a, mask[:, 0], case=(value, "rows"))

    def write_values(m, a, mask, values):
        a[mask] = values
        return a

    values = np.arange(int(mask.sum()), dtype=np.float32)
    same_as_mlx(write_values, a, mask, values)
    with pytest.raises((ValueError, IndexError, TypeError)):
        mx.eval(to_module(mx, a)[to_module(mx, mask)])


@st.composite
def indexed_shapes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    index = []
    for n in shape[: draw(st.integers(0, len(shape)))]:
        kind = draw(st.integers(0, 3))
        if kind == 0:
            index.append(draw(st.integers(-n, n - 1)))
        elif kind < 3:
            bound = st.one_of(st.none(), st.integers(-n - 2, n + 2))
            step = draw(st.one_of(st.none(), st.integers(-3, 3).filter(bool)))
            index.append(slice(draw(bound), draw(bound), step))
        else:
            index.append(np.array(draw(st.lists(st.integers(-n, n - 1), min_size=2, max_size=2)), np.int32))
        if draw(st.integers(0, 4)) == 0:
            index.append(None)
    if draw(st.booleans()):
        index.append(...)
    return shape, tuple(index)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(indexed_shapes())
def test_any_read_is_numpys(case):
    shape, index = case
    a = samples("int32", shape)
    same_as_numpy(to_module(mx, a)[_index(mx, index)], a[index], case=case)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(indexed_shapes())
def test_any_write_is_numpys(case):
    shape, index = case
    places = np.arange(int(np.prod(shape))).reshape(shape)[index]
    if len(np.unique(places)) != places.size:
        return  # one place twice: the order is nobody's promise
    if places.size == 0 and IS_MLX:
        return  # MLX may end in SIGFPE
    expected = samples("int32", shape)
    a = to_module(mx, expected)
    expected[index] = value = np.arange(places.size, dtype=np.int32).reshape(places.shape)
    a[_index(mx, index)] = to_module(mx, value)
    same_as_numpy(a, expected, case=case)


WRONG = {
    "too many indices": lambda m, a: a[0, 0, 0],
    "two ellipses": lambda m, a: a[..., ..., 0],
    "a float": lambda m, a: a[1.5],
    "a string": lambda m, a: a["x"],
    "an array of floats": lambda m, a: a[m.array([0.5])],
    "arrays that do not broadcast": lambda m, a: a[m.array([0, 1]), m.array([0, 1, 0])],
    "a slice with a float": lambda m, a: a[1.5:],
    "take with floats": lambda m, a: m.take(a, m.array([0.5])),
    "take of a wrong axis": lambda m, a: m.take(a, m.array([0]), axis=5),
    "take_along_axis of other ranks": lambda m, a: m.take_along_axis(a, m.array([0]), axis=1),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    a = to_module(mx, np.arange(6, dtype=np.float32).reshape(2, 3))
    with pytest.raises((IndexError, ValueError, TypeError)):
        mx.eval(WRONG[name](mx, a))
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]]
    same_as_mlx(WRONG[name], np.arange(6, dtype=np.float32).reshape(2, 3), case=name)


def test_updates_that_do_not_fit():
    a = mx.zeros((2, 3))
    for index, value in [(0, mx.zeros((4,))), (slice(None), mx.zeros((3, 3))), (mx.array([0, 1]), mx.zeros((2, 2)))]:
        with pytest.raises(ValueError):
            a[index] = value
            mx.eval(a)
    assert mx.sum(a).item() == 0 and a.shape == (2, 3)


@pytest.mark.parametrize("index", [2, -3, (0, 3), (slice(None), -4)], ids=str)
def test_integers_out_of_range(index):
    a = mx.arange(6).reshape(2, 3)
    with pytest.raises(IndexError):
        mx.eval(a[index])
    with pytest.raises(IndexError):
        a[index] = 1
        mx.eval(a)
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_iteration_and_length():
    a = mx.arange(6).reshape(3, 2)
    assert [row.tolist() for row in a] == [[0, 1], [2, 3], [4, 5]]
    assert len(a) == 3
    first, *rest = a
    assert first.tolist() == [0, 1] and len(rest) == 2
    with pytest.raises(TypeError):
        len(mx.array(1))
    with pytest.raises(TypeError):
        iter(mx.array(1))
