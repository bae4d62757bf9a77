"""Trees of arrays as transforms take them: nested lists, tuples and dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _graph
from .._graph import array


def rebuild(kind: type, children: list[Any]) -> Any:
    """A list, tuple or named tuple of `children`."""
    return kind(*children) if hasattr(kind, "_fields") else tuple(children) if issubclass(kind, tuple) else children


def leaves(tree: Any) -> list[Any]:
    """The leaves in order."""
    return _graph.tree_leaves(tree)


def arrays(tree: Any) -> list[array]:
    """The leaves, which must all be arrays. ValueError otherwise."""
    found = _graph.tree_leaves(tree)
    for leaf in found:
        if not isinstance(leaf, array):
            raise ValueError(
                f"[tree_flatten] The argument should contain only arrays, but a leaf is a {type(leaf).__name__}."
            )
    return found


def some_arrays(tree: Any) -> list[array]:
    """The leaves that are arrays."""
    return _graph.tree_arrays(tree)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same tree with `function(leaf)` at every leaf. A subclass of dict becomes a dict."""
    if isinstance(tree, (list, tuple)):
        return rebuild(type(tree), [map_leaves(function, child) for child in tree])
    if isinstance(tree, dict):
        return {key: map_leaves(function, child) for key, child in tree.items()}
    return function(tree)


def replace(tree: Any, values: list[Any]) -> Any:
    """The same tree with other leaves, in order. A subclass of dict becomes a dict, a named tuple remains one."""
    return _graph.tree_replace(tree, values, False)


def replace_arrays(tree: Any, values: list[Any]) -> Any:
    """The same tree with other values for the leaves that are arrays, in order."""
    return _graph.tree_replace(tree, values, True)


def fill(tree: Any, values: list[Any]) -> None:
    """Put values into the places of a tree's array leaves, in order, in its own lists and dicts.

    An array that stands in a tuple, which cannot be written to, is itself made to have the value.
    """
    _graph.tree_fill(tree, values)


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


def key(tree: Any, leaf: Callable[[Any], Any]) -> Any:
    """Hashable: the structure of a tree, with the order of a dict's keys, the shapes and dtypes of its arrays, and
    `leaf(x)` for its other leaves."""
    return _graph.tree_key(tree, leaf)
