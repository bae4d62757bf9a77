"""Functions that record ops, and are run only for arguments that are new to them."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle

import numpy as np
import pytest

from tests.module_under_test import mx

pytestmark = pytest.mark.mlxlite_only


@pytest.fixture
def counted():
    """A remembered function of arrays and anything, and the list of the calls that were made to it."""
    from mlxlite.core._registry import remembered

    calls: list[tuple] = []

    @remembered
    def function(*args, **kwargs):
        calls.append((args, kwargs))
        first = next(a for a in args if isinstance(a, mx.array))
        return mx.exp(first)

    return function, calls


def ones(*shape: int, dtype=None):
    a = mx.ones(shape, dtype or mx.float32)
    mx.eval(a)
    return a


def test_runs_once_for_arguments_that_are_alike(counted):
    function, calls = counted
    results = [function(mx.full((2, 3), float(i)), 7, 0.5, "causal", None, True, (1, 2), axis=-1) for i in range(4)]
    assert len(calls) == 1
    for i, result in enumerate(results):
        np.testing.assert_allclose(np.array(result), np.full((2, 3), np.exp(np.float32(i))), rtol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        ((7,), {}),
        ((7, 0.5, None), {"axis": 1}),
        ((7, 0.5, None), {"dim": 0}),
        ((7, 0.5, None, 0), {}),
        ((8, 0.5, None), {"axis": 0}),
        ((True, 0.5, None), {"axis": 0}),
        ((7.0, 0.5, None), {"axis": 0}),
        ((7, -0.5, None), {"axis": 0}),
        ((7, 0.5, "none"), {"axis": 0}),
        ((7, 0.5, None), {"axis": False}),
        ((7, 0.5, (1, 2)), {"axis": 0}),
        ((2**80, 0.5, None), {"axis": 0}),
    ],
    ids=repr,
)
def test_runs_for_other_arguments(counted, other):
    function, calls = counted
    a = ones(2)
    function(a, 7, 0.5, None, axis=0)
    arguments, named = other
    function(a, *arguments, **named)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        ((1, 2), (1, 3)),
        ((1, 2), (1, 2, 3)),
        ((1,), (True,)),
        ([1], [1.0]),
        (0.0, -0.0),
        ([], ()),
        ([[1], [2]], [[1, 2]]),
        (slice(1, 2), slice(1, 2, 1)),
        (slice(None), slice(0, None)),
        (..., None),
        ((slice(1, 2), ...), (slice(1, 2), None)),
    ],
    ids=repr,
)
def test_tells_apart_what_python_may_call_equal(counted, one, other):
    function, calls = counted
    a = ones(2)
    for argument in (one, other, one, other):
        function(a, argument)
    assert len(calls) == 2
    assert [args[1] for args, _ in calls[:2]] == [one, other]
    assert repr(calls[1][0][1]) == repr(other)


def test_runs_for_another_shape_or_dtype(counted):
    function, calls = counted
    for a in (ones(2), ones(3), ones(2, 1), ones(2, dtype=mx.float16), ones(2, dtype=mx.bfloat16)):
        result = function(a)
        assert (result.shape, result.dtype) == (a.shape, a.dtype)
        function(a + 1)
    assert len(calls) == 5


def test_a_list_that_has_changed_is_another_argument(counted):
    function, calls = counted
    a, axes = ones(2), [1]
    function(a, axes)
    axes[0] = 2
    function(a, axes)
    function(a, [2])
    assert len(calls) == 2


def test_nothing_is_remembered_of_what_cannot_be_compared(counted):
    function, calls = counted
    a = ones(2)
    endless: list = []
    endless.append(endless)
    arguments = ({"axis": 1}, object(), np.float32(1), np.int64(1), mx.cpu, 2**70, [[[[1]]]], [{}], [0] * 65, endless)
    for argument in arguments:
        function(a, argument)
        function(a, argument)
    assert len(calls) == 2 * len(arguments)


def test_forgets_the_oldest(counted):
    function, calls = counted
    a = ones(2)
    for i in range(100):
        function(a, i)
    for i in range(99, 89, -1):
        function(a, i)
    assert len(calls) == 100
    function(a, 0)
    assert len(calls) == 101


def test_an_error_is_raised_every_time():
    for _ in range(3):
        with pytest.raises(ValueError, match="weight must have the same size"):
            mx.fast.rms_norm(ones(2, 3), ones(4), 1e-5)
    for _ in range(3):
        with pytest.raises(TypeError, match="expects an array"):
            mx.fast.rms_norm([1.0], None, 1e-5)


def test_one_array_in_two_places_does_not_confuse_later_calls():
    q, k, v = (mx.random.normal((1, 2, 4, 8), key=mx.random.key(i)) for i in range(3))
    attention = mx.fast.scaled_dot_product_attention

    def expected(q, k, v):
        scores = np.einsum("bhqd,bhkd->bhqk", *(np.array(a, np.float64) for a in (q, k))) * 0.5
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return np.einsum("bhqk,bhkd->bhqd", weights / weights.sum(-1, keepdims=True), np.array(v, np.float64))

    for arrays in ((q, q, q), (q, k, k), (q, k, v), (k, k, v), (v, q, k), (q, q, q)):
        np.testing.assert_allclose(np.array(attention(*arrays, scale=0.5)), expected(*arrays), atol=1e-5)


def test_arrays_of_a_list():
    a, b = mx.array([1, 2]), mx.array([3, 4])
    for _ in range(2):
        assert mx.concatenate([a, b]).tolist() == [1, 2, 3, 4]
        assert mx.concatenate([b, a]).tolist() == [3, 4, 1, 2]
        assert mx.concatenate([a, a]).tolist() == [1, 2, 1, 2]
        assert mx.concatenate([a, b, a + b]).tolist() == [1, 2, 3, 4, 4, 6]
        assert mx.concatenate((a, mx.array([0.5, 1.5]))).tolist() == [1, 2, 0.5, 1.5]


def test_no_op_gives_an_array_of_its_own():
    for _ in range(3):
        a = mx.array([[1, 2]])
        b = mx.transpose(a, (0, 1))
        b += 1
        assert (a.tolist(), b.tolist()) == ([[1, 2]], [[2, 3]])


@pytest.fixture
def runs():
    """Of a function, remembered, how often it is run for the arguments of some calls; its results must be right."""
    from mlxlite.core._registry import remembered

    def count(function, *calls):
        n = 0

        def counting(*args):
            nonlocal n
            n += 1
            return function(*args)

        kept = remembered(counting)
        for args in calls:
            for found, expected in zip(as_list(kept(*args)), as_list(function(*args)), strict=True):
                np.testing.assert_array_equal(np.array(found), np.array(expected))
        return n

    return count


def as_list(result):
    return [result] if isinstance(result, mx.array) else list(result)


def several(n: int) -> list[tuple]:
    return [(mx.full((2, 3), float(i)), mx.full((2, 3), 10.0 + i)) for i in range(n)]


def test_several_ops_with_numbers_between_them(runs):
    assert runs(lambda a, b: mx.exp(0.5 * a + b) - a * 2.0, *several(4)) == 1


def test_several_results(runs):
    assert runs(lambda a, b: [a + b, mx.exp(a + b), b * 2], *several(4)) == 1
    assert runs(lambda a, b: (a + b, b), *several(4)) == 4  # one of them is an argument
    assert runs(lambda a, b: [a + b] * 2, *several(4)) == 4  # and here both are one
    assert runs(lambda a, b: (), *several(3)) == 3
    from mlxlite.core._registry import remembered

    for made in ((1,), [2]):
        result = remembered(lambda a, made=made: type(made)([mx.exp(a)]))
        assert all(type(result(mx.zeros(2))) is type(made) for _ in range(3))


def test_an_array_in_two_places(runs):
    a, b = several(1)[0]
    assert runs(lambda x, y: x * 2 - y, (a, b), (a, a), (b, b), (b, a)) == 2
    assert (
        runs(lambda x, y, z: x * 2 - y + z * 3, (a, a, b), (a, b, a), (b, a, a), (a, b, b), (b, b, a), (a, a, a)) == 4
    )


def test_arrays_of_the_functions_own_are_not_remembered(runs):
    constant, number = mx.array([1.0, 2.0, 3.0]), mx.array(2.0)
    pending = constant * 2
    for own in (lambda: constant, lambda: number, lambda: pending, lambda: mx.array([1.0, 2.0, 3.0])):
        assert runs(lambda a, b, own=own: a + b * own(), *several(3)) == 3
    constant = constant + 1
    assert runs(lambda a, b: a + b * constant, *several(3)) == 3


def test_an_op_that_somebody_keeps_is_not_remembered(runs):
    kept = []

    def function(a, b):
        kept.append(a + b)
        return kept[-1] * 2

    assert runs(function, *several(3)) == 3


def test_more_than_is_worth_remembering(runs):
    def chain(a, b):
        for _ in range(60):
            a = a + b
        return a

    assert runs(chain, *several(3)) == 3
    assert runs(lambda *arrays: sum(arrays[1:], arrays[0]), *[tuple(several(70)[i][0] for i in range(70))] * 2) == 2


def test_numbers_are_data_as_in_the_first_call():
    """A plan is found by the graph's structure: that of a call from memory is that of the function's own run."""
    from mlxlite import _graph
    from mlxlite.core._registry import remembered

    function = remembered(lambda a: (a * 2.0 + 2.0) * 3.0)
    x = mx.array([1.0, 2.0])
    tapes = [_graph.tapes(function(function(x)), "cpu" if mx.default_device() == mx.cpu else "gpu") for _ in range(2)]
    roles = [[(n.role, n.name, n.inputs) for n in tape[0].nodes] for tape in tapes]
    assert roles[0] == roles[1]
    assert [tape[0].scalars for tape in tapes] == [[2.0, 2.0, 3.0] * 2] * 2


def test_nothing_is_kept_of_a_call():
    from mlxlite import _graph

    a, b = several(1)[0]
    mx.eval(a, b)
    gc.collect()
    before = _graph.pending()["ops"]
    for _ in range(3):
        results = [mx.var(mx.exp(a), axis=-1), mx.concatenate([a, b]), *mx.split(a, 2)]
        assert _graph.pending()["ops"] >= before + 5
        del results
        assert _graph.pending()["ops"] == before


@pytest.mark.parametrize("draw", ["uniform", "normal", "bernoulli", "gumbel", "laplace"])
def test_random_numbers_differ_from_call_to_call(draw):
    function = getattr(mx.random, draw)
    mx.random.seed(5)
    drawn = [np.array(function(shape=(64,))) for _ in range(4)]
    assert all((a != b).any() for i, a in enumerate(drawn) for b in drawn[:i])
    mx.random.seed(5)
    for expected in drawn:
        np.testing.assert_array_equal(np.array(function(shape=(64,))), expected)
    key = mx.random.key(3)
    np.testing.assert_array_equal(np.array(function(shape=(64,), key=key)), np.array(function(shape=(64,), key=key)))


def test_on_the_device_of_the_moment():
    a = ones(2, 3)
    before = mx.default_device()
    try:
        assert mx.softmax(a).tolist() == mx.softmax(a, stream=mx.cpu).tolist()
        mx.set_default_device(mx.cpu)
        from mlxlite import _graph

        for _ in range(2):
            assert _graph.device_of(mx.softmax(a)) == mx.Device(mx.cpu)
    finally:
        mx.set_default_device(before)


def test_gradients_of_a_remembered_op():
    x = mx.array([0.5, 1.5, -1.0])
    weights = mx.array([1.0, 2.0, 3.0])
    for scale in (1.0, 2.0):
        gradient = mx.grad(lambda x, scale=scale: (mx.softmax(scale * x, axis=-1) * weights).sum())(x)
        s = np.exp(scale * np.array(x)) / np.exp(scale * np.array(x)).sum()
        expected = scale * s * (np.array(weights) - (s * np.array(weights)).sum())
        np.testing.assert_allclose(np.array(gradient), expected, rtol=1e-5)


def test_gradients_stop_wherever_the_function_was_called_first():
    from mlxlite.core._registry import remembered

    half = remembered(lambda x: x * mx.stop_gradient(mx.exp(x)))
    x = mx.array([0.5, 1.5])
    expected = np.exp(np.array(x))
    for _ in range(2):
        np.testing.assert_allclose(np.array(half(x)), np.array(x) * expected, rtol=1e-6)
        np.testing.assert_allclose(np.array(mx.grad(lambda x: half(x).sum())(x)), expected, rtol=1e-6)


def test_is_a_function_to_python():
    rope = mx.fast.rope
    assert rope.__name__ == "rope" and rope.__module__ == "mlxlite.core.fast" and "arXiv:2104.09864" in rope.__doc__
    assert list(inspect.signature(rope).parameters)[:2] == ["a", "dims"]
    assert copy.deepcopy(rope) is rope and pickle.loads(pickle.dumps(rope)) is rope

    assert copy.deepcopy(mx.exp) is mx.exp and pickle.loads(pickle.dumps(mx.exp)) is mx.exp

    class Holder:
        act = mx.softmax

    assert Holder.act is mx.softmax
    assert mx.array([[0.0, 0.0]]).swapaxes(0, 1).shape == (2, 1)
    with pytest.raises(TypeError, match="expected a function"):
        type(rope)(3)
