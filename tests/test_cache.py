"""The plan cache: a structure is lowered once, whatever its sizes and numbers, and the cache stays within its bound."""

from __future__ import annotations

import pytest

from .module_under_test import IS_MLX, mx

if not IS_MLX:
    from mlxlite import _graph

    from .fake_driver.build import run_suite
    from .many_programs import evaluate_many

pytestmark = pytest.mark.mlxlite_only


@pytest.fixture
def counts(device):
    """Clears the cache; then a function of what the counters went up by since it was last called."""
    _graph.clear_plans()
    last = dict(_graph.cache_info()[device])

    def since():
        nonlocal last
        now = dict(_graph.cache_info()[device])
        change = {k: now[k] - last[k] for k in ("hits", "misses", "builds", "evictions")}
        last = now
        return change

    return since


@pytest.fixture
def capacity(device):
    before = _graph.cache_info()[device]["capacity"]
    yield lambda n: _graph.set_plan_capacity(device, n)
    _graph.set_plan_capacity(device, before)


HIT = {"hits": 1, "misses": 0, "builds": 0, "evictions": 0}
MISS = {"hits": 0, "misses": 1, "builds": 1, "evictions": 0}


def _structure(n: int, number: float):
    return mx.sum(mx.exp(mx.ones((n, 3)) * number) + 1, axis=0)


def test_the_second_evaluation_is_a_hit(counts):
    mx.eval(_structure(4, 2.0))
    assert counts() == MISS
    mx.eval(_structure(4, 2.0))
    assert counts() == HIT


def test_other_sizes_and_numbers_are_hits(counts):
    mx.eval(_structure(4, 2.0))
    counts()
    for n, number in [(5, 2.0), (4, 3.0), (1000, -1.5), (7, 0.0)]:
        mx.eval(_structure(n, number))
        assert counts() == HIT, (n, number)
    assert abs(_structure(8, 0.0)[0].item() - 16) < 1e-6


def test_slices_are_data(counts):
    a = mx.arange(100)
    mx.eval(a)
    mx.eval(a[3:10] + 1)
    counts()
    for start in range(4, 20):
        result = a[start : 2 * start] + 1
        mx.eval(result)
        assert counts() == HIT, start
        assert result.tolist() == list(range(start + 1, 2 * start + 1))


def test_a_growing_cache_is_one_structure(counts):
    cache = mx.zeros((64, 4))
    mx.eval(cache)
    for k in range(1, 40):
        cache[k : k + 1] = mx.ones((1, 4))
        mx.eval(cache)
        change = counts()
        assert k < 3 or change["misses"] == 0, (k, change)
    assert mx.sum(cache).item() == 39 * 4


def test_dims_of_zero_and_one_are_other_structures(counts):
    for n in (4, 1, 0):
        mx.eval(mx.ones((n, 3)) + 1)
        assert counts()["misses"] == 1, n
    for n in (9, 1, 0):
        mx.eval(mx.ones((n, 3)) + 1)
        assert counts() == HIT, n


def test_dtypes_and_ops_are_other_structures(counts):
    a = mx.ones((3,))
    mx.eval(a)
    counts()
    for build in (lambda: a + 1, lambda: a - 1, lambda: a.astype(mx.float16) + 1, lambda: a + 1 + 1, lambda: a + a):
        mx.eval(build())
        assert counts()["misses"] == 1


def test_what_is_held_is_part_of_the_structure(counts):
    a = mx.ones((3,))
    mx.eval(a)
    mx.eval(mx.exp(a * 2))
    counts()
    held = a * 2
    mx.eval(mx.exp(held))
    counts()
    assert held.tolist() == [2, 2, 2]


def test_layouts_keep_results_right_whatever_the_key(counts):
    a = mx.arange(12).reshape(3, 4)
    mx.eval(a)
    for view in (a, a.T.T, a[::-1][::-1], a[:, :]):
        assert (view + 1).tolist() == (a + 1).tolist()
    square = mx.arange(9).reshape(3, 3)
    mx.eval(square)
    assert (square + square.T).tolist() == [[0, 4, 8], [4, 8, 12], [8, 12, 16]]
    assert (square.T + square.T).tolist() == [[0, 6, 12], [2, 8, 14], [4, 10, 16]]


def test_the_cache_has_a_bound(counts, capacity, device):
    capacity(8)
    a = mx.ones((2,))
    mx.eval(a)
    counts()
    for length in range(1, 30):
        b = a
        for _ in range(length):
            b = b + 1
        assert b.tolist() == [1 + length] * 2
        assert _graph.cache_info()[device]["plans"] <= 8
    change = counts()
    assert change["misses"] == 29 and change["evictions"] >= 21


def test_the_least_recently_used_plan_goes_first(counts, capacity):
    capacity(2)
    a = mx.ones((2,))
    mx.eval(a)
    counts()
    builds = (lambda: a + 1, lambda: a * 2, lambda: mx.exp(a))
    for which, hit in [(0, 0), (1, 0), (0, 1), (2, 0), (0, 1), (1, 0)]:
        mx.eval(builds[which]())
        assert counts()["hits"] == hit, which


def test_more_structures_than_the_cache_holds(counts, capacity, device):
    if device == "gpu":
        capacity(64)  # each structure has a kernel to compile, which takes a tenth of a second
    bound = _graph.cache_info()[device]["capacity"]
    n = 2 * bound
    a = mx.ones((2,))
    mx.eval(a)
    for k in range(n):
        b = a
        for bit in range(12):
            b = b + 1 if k >> bit & 1 else b * 2
        mx.eval(b)
    info = _graph.cache_info()[device]
    assert info["plans"] <= bound
    assert counts()["misses"] >= n
    assert (a + 1).tolist() == [2, 2]


@pytest.mark.parametrize("bound", [1024, 100])
def test_programs_of_many_structures(device, bound):
    if device == "gpu":
        pytest.skip("tests/test_gpu.py does so on a GPU, and looks at its runtime and its memory as well")
    counts = evaluate_many("cpu", bound)
    assert (counts["evictions"] > 0) == (bound < 600)


def test_programs_of_many_structures_on_the_fake_driver():
    run_suite("cache_suite")


def test_clearing():
    mx.eval(mx.ones((2,)) + 1)
    _graph.clear_plans()
    info = _graph.cache_info()
    assert info["cpu"]["plans"] == info["gpu"]["plans"] == 0
    assert (mx.ones((2,)) + 1).tolist() == [2, 2]


def test_a_wrong_capacity():
    with pytest.raises((ValueError, TypeError)):
        _graph.set_plan_capacity("cpu", -1)


def test_public_counters():
    info = mx.cuda.cache_info()
    assert {"hits", "misses", "builds", "evictions", "plans", "capacity"} <= set(info["plans"])
    assert isinstance(info["runtime"], dict)
