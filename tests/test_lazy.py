"""Nothing is computed before it is needed; what is needed is computed once, in any order, however deep the graph."""

from __future__ import annotations

import time

import numpy as np
import pytest

from .differential import same_as_numpy
from .module_under_test import IS_MLX, mx

if not IS_MLX:
    from mlxlite import _graph


def _evaluated(array) -> bool:
    return _graph.is_evaluated(array)


NEEDS = {
    "eval": mx.eval,
    "item": lambda a: a[0].item(),
    "tolist": lambda a: a.tolist(),
    "str": str,
    "bool": lambda a: bool(mx.sum(a)),
    "numpy": np.array,
    "memoryview": memoryview,
    "dlpack": lambda a: a.__dlpack__(),
    "async_eval": lambda a: (mx.async_eval(a), mx.synchronize()),
    "pickle": lambda a: a.__reduce_ex__(2),
}


@pytest.mark.mlxlite_only
def test_nothing_runs_before_it_is_needed():
    a = mx.arange(3) + 1
    b = mx.exp(a)[0].reshape(1, 1) @ mx.ones((1, 1))
    c = mx.sort(mx.concatenate([a, a]))
    c[0] = 5
    assert b.shape == (1, 1) and c.dtype == mx.int32 and len(c) == 6
    assert not any(_evaluated(x) for x in (a, b, c))


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("need", NEEDS)
def test_what_evaluates(need):
    a = mx.arange(3) + 1
    assert not _evaluated(a)
    NEEDS[need](a)
    if need not in ("item", "bool"):
        assert _evaluated(a)
    assert a.tolist() == [1, 2, 3]


@pytest.mark.mlxlite_only
def test_only_what_is_asked_for_is_evaluated():
    a = mx.ones((3,)) + 1
    b, c = a * 2, a * 3
    mx.eval(b)
    assert _evaluated(b) and not _evaluated(c)
    assert c.tolist() == [6, 6, 6]


def test_trees():
    a = mx.ones((2,))
    tree = {"a": a + 1, "b": [a + 2, (a + 3, {"c": a + 4})]}
    mx.eval(tree, a + 5)
    mx.async_eval(tree)
    leaves = [tree["a"], tree["b"][0], tree["b"][1][0], tree["b"][1][1]["c"]]
    if not IS_MLX:
        assert all(_evaluated(x) for x in leaves)
    assert [x.tolist()[0] for x in leaves] == [2, 3, 4, 5]


def test_eval_of_nothing_and_of_the_same():
    a = mx.ones((2,)) + 1
    mx.eval()
    mx.eval([])
    mx.eval(a, a, [a, {"a": a}])
    mx.eval(a)
    assert a.tolist() == [2, 2]


def _chain(length: int):
    a = mx.ones((2,))
    for _ in range(length):
        a = a + 1
    return a


def test_deep_chains():
    start = time.perf_counter()
    a = _chain(100_000)
    assert a.tolist() == [100_001, 100_001]
    assert time.perf_counter() - start < 20


def test_a_deep_chain_can_be_dropped():
    a = _chain(100_000)
    del a  # nothing may recurse once per operation
    assert mx.array(1).item() == 1


@pytest.mark.mlxlite_only
def test_a_million_operations():
    start = time.perf_counter()
    a = _chain(1_000_000)
    assert a.tolist() == [1_000_001, 1_000_001]
    assert time.perf_counter() - start < 60


def test_wide_graphs():
    a = mx.arange(4)
    total = mx.zeros((4,), dtype=mx.int32)
    for k in range(2000):
        total = total + a * k
    assert total.tolist() == [k * 1999 * 1000 for k in range(4)]


def test_shared_parts_are_computed_once():
    a = mx.ones((2,))
    for _ in range(60):
        a = a + a  # 2**60 additions if they were not
    assert a.tolist() == [2.0**60] * 2


def test_async_eval_then_use():
    a = mx.arange(1000)
    for _ in range(20):
        a = a + 1
        mx.async_eval(a)
    assert a[0].item() == 20 and mx.sum(a).item() == sum(range(20, 1020))


def test_updates_keep_other_holders_unchanged():
    a = mx.zeros((4,))
    holders = [a[:], a + 0, a.reshape(2, 2), a.T, mx.stop_gradient(a), a[1:], a.astype(mx.float32)]
    same = a
    a[0] = 1
    a[2:] = mx.array([3.0, 4.0])
    a += 1
    assert same is a and a.tolist() == [2, 1, 4, 5]
    for holder in holders:
        assert mx.sum(holder).item() == 0


def test_updates_of_evaluated_arrays_keep_views_unchanged():
    a = mx.arange(6).reshape(2, 3)
    mx.eval(a)
    row, numpys = a[0], np.array(a, copy=False)
    mx.eval(row)
    for k in range(5):
        a[0, 1] = 100 + k
        a[mx.array([1])] = a[mx.array([0])]
        mx.eval(a)
    assert row.tolist() == [0, 1, 2]
    assert numpys.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert a.tolist() == [[0, 104, 2], [0, 104, 2]]


def test_arrays_that_replace_others_keep_what_is_held():
    x = mx.arange(12).reshape(3, 4).astype(mx.float32) + 0
    expected = np.arange(12.0).reshape(3, 4)
    views = (lambda a: a, lambda a: a[1:], lambda a: a.T, lambda a: a.reshape(-1)[2:5], lambda a: a + a[0])
    held = []
    for k in range(15):
        if k % 3 == 0:
            held.append((views[k // 3](x), views[k // 3](expected)))
            if k % 2:
                mx.eval(held[-1][0])
        x, expected = x * 2 - x[:, :1], expected * 2 - expected[:, :1]
        if k % 2:
            x, expected = x + 1, expected + 1
        mx.eval(x)
        same_as_numpy(x, expected)
    for array, value in held:
        same_as_numpy(array, value)


def test_an_update_of_a_function_is_seen_by_its_caller():
    def fill(a):
        a[...] = 7

    a = mx.zeros((2,), dtype=mx.int32)
    fill(a)
    assert a.tolist() == [7, 7]


def test_a_loop_of_updates():
    cache = mx.zeros((100, 4))
    for k in range(100):
        cache[k] = mx.full((4,), k)
        if k % 7 == 0:
            mx.eval(cache)
    same_as_numpy(cache, np.repeat(np.arange(100.0), 4).reshape(100, 4))


def test_errors_leave_arrays_usable():
    a, b = mx.ones((3,)), mx.ones((4,))
    with pytest.raises(ValueError):
        mx.eval(a + b)
    assert (a + 1).tolist() == [2, 2, 2] and (b + 1).tolist() == [2, 2, 2, 2]


def test_threads():
    import threading

    results: dict[int, list] = {}

    def work(k):
        a = mx.full((10,), k)
        for _ in range(50):
            a = a + 1
            mx.eval(a)
        results[k] = a.tolist()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: [k + 50] * 10 for k in range(4)}
