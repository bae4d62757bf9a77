"""Trees of arrays as transforms take them: nested lists, tuples and dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .._graph import array


def rebuild(kind: type, children: list[Any]) -> Any:
    """A list, tuple or named tuple of `children`."""
    return kind(*children) if hasattr(kind, "_fields") else tuple(children) if issubclass(kind, tuple) else children


# No function here is defined inside another and calls itself: that would be a cycle that keeps arrays until Python
# collects garbage.


def leaves(tree: Any) -> list[Any]:
    """The leaves in order."""
    found: list[Any] = []
    _collect(tree, found)
    return found


def _collect(node: Any, found: list[Any]) -> None:
    if type(node) is array:  # as most are: a tree of parameters is gone over several times for each step of training
        found.append(node)
    elif isinstance(node, (list, tuple)):
        for child in node:
            _collect(child, found)
    elif isinstance(node, dict):
        for child in node.values():
            _collect(child, found)
    else:
        found.append(node)


def arrays(tree: Any) -> list[array]:
    """The leaves, which must all be arrays. ValueError otherwise."""
    found = leaves(tree)
    for leaf in found:
        if not isinstance(leaf, array):
            raise ValueError(
                f"[tree_flatten] The argument should contain only arrays, but a leaf is a {type(leaf).__name__}."
            )
    return found


def some_arrays(tree: Any) -> list[array]:
    """The leaves that are arrays."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, array)]


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same tree with `function(leaf)` at every leaf. A subclass of dict becomes a dict."""
    if isinstance(tree, (list, tuple)):
        return rebuild(type(tree), [map_leaves(function, child) for child in tree])
    if isinstance(tree, dict):
        return {key: map_leaves(function, child) for key, child in tree.items()}
    return function(tree)


def replace(tree: Any, values: list[Any]) -> Any:
    """The same tree with other leaves, in order."""
    return _replaced(tree, iter(values))


def _replaced(node: Any, rest: Iterator[Any]) -> Any:
    if type(node) is array:
        return next(rest)
    if isinstance(node, dict):
        return {key: next(rest) if type(child) is array else _replaced(child, rest) for key, child in node.items()}
    if isinstance(node, (list, tuple)):
        return rebuild(type(node), [_replaced(child, rest) for child in node])
    return next(rest)


def replace_arrays(tree: Any, values: list[Any]) -> Any:
    """The same tree with other values for the leaves that are arrays, in order."""
    rest = iter(values)
    return map_leaves(lambda leaf: next(rest) if isinstance(leaf, array) else leaf, tree)


def fill(tree: Any, values: list[Any]) -> None:
    """Put values into the places of a tree's array leaves, in order, in its own lists and dicts.

    An array that stands in a tuple, which cannot be written to, is itself made to have the value.
    """
    _fill(tree, iter(values))


def _fill(node: Any, rest: Iterator[Any]) -> None:
    keys: Any = range(len(node)) if isinstance(node, (list, tuple)) else list(node) if isinstance(node, dict) else ()
    for key in keys:
        child = node[key]
        if not isinstance(child, array):
            _fill(child, rest)
        elif isinstance(node, tuple):
            child._replace(next(rest))
        else:
            node[key] = next(rest)


def spread_prefix(prefix: Any, tree: Any) -> list[Any]:
    """For each leaf of `tree` the leaf of `prefix` at or above its place.

    Raises:
        ValueError: `prefix` is no prefix of the tree.
    """
    found: list[Any] = []
    _spread(prefix, tree, found)
    return found


def _spread(above: Any, node: Any, found: list[Any]) -> None:
    if isinstance(above, (list, tuple)):
        if not isinstance(node, (list, tuple)) or len(above) != len(node):
            raise ValueError("[tree_map] Additional input tree is not a valid prefix of the first tree.")
        for a, n in zip(above, node, strict=True):
            _spread(a, n, found)
    elif isinstance(above, dict):
        if not isinstance(node, dict) or any(key not in above for key in node):
            raise ValueError("[tree_map] Additional input tree is not a valid prefix of the first tree.")
        for key, n in node.items():
            _spread(above[key], n, found)
    else:
        found.extend([above] * len(leaves(node)))


def structure(tree: Any, leaf: Callable[[Any], Any]) -> Any:
    """The structure of a tree, hashable, with `leaf(x)` for the leaves. The order of a dict's keys is part of it."""
    if isinstance(tree, (list, tuple)):
        return (type(tree), *[structure(child, leaf) for child in tree])
    if isinstance(tree, dict):
        return (dict, tuple(tree), *[structure(child, leaf) for child in tree.values()])
    return leaf(tree)
