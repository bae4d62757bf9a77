"""Trees, compared with mlx.utils on random trees, and by example."""

from __future__ import annotations

import doctest
from collections import namedtuple
from typing import Any

import mlx.utils as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.module_under_test import IS_MLX, mx, subpackage

utils = subpackage("utils")

Pair = namedtuple("Pair", "x y")
LEAVES = st.integers(-3, 3)
KEYS = st.text("ab01", min_size=1, max_size=3)  # digits too: they are mistaken for list positions


def containers(children: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(
        st.lists(children, max_size=3),
        st.tuples(children, children),
        st.builds(Pair, children, children),
        st.dictionaries(KEYS, children, max_size=3),
    )


TREES = st.recursive(LEAVES, containers, max_leaves=12)
random_trees = settings(derandomize=True, max_examples=150, deadline=None)


def is_list(node: Any) -> bool:
    return isinstance(node, list)


def outcome(function, *arguments, **keywords):
    """The result, or the type of the error."""
    try:
        return function(*arguments, **keywords)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return type(error)


@random_trees
@given(TREES)
def test_flatten_and_unflatten(tree):
    flat = utils.tree_flatten(tree)
    assert flat == oracle.tree_flatten(tree)
    assert utils.tree_flatten(tree, is_leaf=is_list) == oracle.tree_flatten(tree, is_leaf=is_list)
    assert utils.tree_flatten(tree, prefix=".p", destination={}) == oracle.tree_flatten(
        tree, prefix=".p", destination={}
    )
    assert outcome(utils.tree_unflatten, flat) == outcome(oracle.tree_unflatten, flat)
    assert outcome(utils.tree_unflatten, dict(flat)) == outcome(oracle.tree_unflatten, dict(flat))


@random_trees
@given(TREES)
def test_map(tree):
    def show(*arguments):
        return str(arguments)

    for is_leaf in (None, is_list):
        mapped = utils.tree_map(show, tree, tree, is_leaf=is_leaf)
        expected = oracle.tree_map(show, tree, tree, is_leaf=is_leaf)
        assert mapped == expected and repr(mapped) == repr(expected)  # types of containers show
        for path in (None, "p"):
            mapped = utils.tree_map_with_path(show, tree, tree, is_leaf=is_leaf, path=path)
            assert mapped == oracle.tree_map_with_path(show, tree, tree, is_leaf=is_leaf, path=path)


@random_trees
@given(TREES)
def test_reduce(tree):
    for initializer in (None, "start"):
        reduced = utils.tree_reduce(lambda a, b: (a, b), tree, initializer)
        assert reduced == oracle.tree_reduce(lambda a, b: (a, b), tree, initializer)


@random_trees
@given(TREES, TREES)
def test_merge(a, b):
    for merge in (None, lambda x, y: (x, y)):
        # Dicts compare without their order, which in MLX is that of a set.
        assert outcome(utils.tree_merge, a, b, merge) == outcome(oracle.tree_merge, a, b, merge)


def test_examples():
    tree = {"a": [1, {"b": 2}], "c": (3,)}
    assert utils.tree_flatten(tree) == [("a.0", 1), ("a.1.b", 2), ("c.0", 3)]
    assert utils.tree_flatten(5) == [("", 5)]
    assert utils.tree_unflatten([("a.1", 2), ("a.0", 1)]) == {"a": [1, 2]}
    assert utils.tree_unflatten([("a.2", 1)]) == {"a": [{}, {}, 1]}
    assert utils.tree_map(lambda x, y: x + y, {"a": [1, 2]}, {"a": [10, 20], "more": 0}) == {"a": [11, 22]}
    assert utils.tree_map(len, {"a": [1, 2]}, is_leaf=is_list) == {"a": 2}
    mapped = utils.tree_map(lambda x: x + 1, Pair(1, (2,)))
    assert mapped == Pair(2, (3,)) and isinstance(mapped, Pair)
    assert utils.tree_reduce(lambda total, x: total + x, tree, 0) == 6
    assert utils.tree_merge({"a": [1]}, {"a": [None, 2], "b": 3}) == {"a": [1, 2], "b": 3}


def test_destination_is_extended():
    pairs = [("first", 0)]
    assert utils.tree_flatten([1], destination=pairs) is pairs
    assert pairs == [("first", 0), ("0", 1)]
    with pytest.raises(ValueError):
        utils.tree_flatten([1], destination=())


def test_errors():
    with pytest.raises(ValueError):
        utils.tree_merge({"a": 1}, {"a": 2})
    with pytest.raises(ValueError):
        utils.tree_merge([], {})
    with pytest.raises((KeyError, IndexError)):
        utils.tree_map(lambda x, y: x, {"a": [1, 2]}, {"a": [1]})


@pytest.mark.skipif(IS_MLX, reason="MLX's docstrings are not ours to test")
def test_docstrings():
    failed, tried = doctest.testmod(utils)
    assert tried > 5 and failed == 0


# ---- what walking a tree must not break


class Items(list):
    pass


@pytest.mark.mlxlite_only
def test_tree_map_keeps_named_tuples_and_subclasses_of_list() -> None:
    tree = {"pair": Pair(1, (2,)), "items": Items([3])}
    mapped = utils.tree_map(lambda x, y: x + y, tree, {"pair": (10, [20]), "items": [30], "more": None})
    assert mapped == {"pair": Pair(11, (22,)), "items": [33]}
    assert type(mapped["pair"]) is Pair and type(mapped["items"]) is Items


def test_tree_map_raises_what_the_function_and_the_other_trees_raise() -> None:
    with pytest.raises(ZeroDivisionError):
        utils.tree_map(lambda x: 1 / x, [1, {"a": 0}])
    with pytest.raises(KeyError, match="a"):
        utils.tree_map(lambda x, y: x, {"a": 1}, {})
    with pytest.raises(IndexError):
        utils.tree_map(lambda x, y: x, [1, 2], [1])


@pytest.mark.mlxlite_only
def test_a_tree_that_holds_itself_raises_recursion_error() -> None:
    tree: list[Any] = [1]
    tree.append({"again": tree})
    with pytest.raises(RecursionError):
        utils.tree_map(lambda x: x, tree)
    with pytest.raises(RecursionError):
        mx.value_and_grad(lambda p: mx.array(0.0))(tree)


def test_a_dict_that_grows_while_it_is_mapped_raises() -> None:
    tree = {"a": 1, "b": 2}
    with pytest.raises(RuntimeError, match="dictionary changed size during iteration"):
        utils.tree_map(lambda x: tree.setdefault(f"new {x}", 0), tree)
