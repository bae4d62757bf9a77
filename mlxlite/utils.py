"""Trees: nested lists, tuples and dicts with arrays (or anything else) at the leaves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from . import _graph

IsLeaf = Callable[[Any], bool] | None


def _rebuild(kind: type, children: list[Any]) -> Any:
    """A list, tuple or named tuple of `children`."""
    return kind(*children) if hasattr(kind, "_fields") else kind(children)


def tree_map(fn: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf = None) -> Any:
    """The same tree with `fn(leaf, *leaves of rest)` at every leaf.

    Args:
        fn: called once per leaf, in order.
        tree: the tree whose structure is followed.
        rest: trees that hold at least what `tree` holds.
        is_leaf: tells which subtrees are to be taken as leaves.

    >>> tree_map(lambda x: x + 1, {"a": [1, 2]})
    {'a': [2, 3]}
    """
    return _graph.tree_map(fn, tree, rest, is_leaf)


def tree_map_with_path(
    fn: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf = None, path: str | None = None
) -> Any:
    """As `tree_map`, but `fn(path, leaf, ...)` also gets the leaf's dotted path, below `path` where that is given.

    >>> tree_map_with_path(lambda path, _: path, {"a": [1, 2]})
    {'a': ['a.0', 'a.1']}
    """
    if is_leaf is not None and is_leaf(tree):
        return fn(path, tree, *rest)

    def below(key: Any, child: Any) -> Any:
        child_path = f"{path}.{key}" if path else str(key)
        return tree_map_with_path(fn, child, *(r[key] for r in rest), is_leaf=is_leaf, path=child_path)

    if isinstance(tree, (list, tuple)):
        return _rebuild(type(tree), [below(i, child) for i, child in enumerate(tree)])
    if isinstance(tree, dict):
        return {key: below(key, child) for key, child in tree.items()}
    return fn(path, tree, *rest)


def tree_flatten(tree: Any, prefix: str = "", is_leaf: IsLeaf = None, destination: Any = None) -> Any:
    """The leaves with their dotted paths, as a list of pairs.

    Args:
        tree: any tree.
        prefix: put before every path; its first character is dropped (it is taken for a dot).
        is_leaf: tells which subtrees are to be taken as leaves.
        destination: a list to extend or a dict to update, returned; None for a new list.

    Raises:
        ValueError: `destination` is neither a list nor a dict.

    >>> tree_flatten({"a": [1, {"b": 2}]})
    [('a.0', 1), ('a.1.b', 2)]
    """
    if destination is None:
        destination = []
    elif not isinstance(destination, (list, dict)):
        raise ValueError(f"[tree_flatten] destination must be a list, a dict or None, got {type(destination).__name__}")

    _flatten_into(destination, tree, prefix, is_leaf)
    return destination


# Not inside of tree_flatten: a function that calls itself by its closure is a cycle, and would keep the leaves alive.
def _flatten_into(destination: Any, node: Any, path: str, is_leaf: IsLeaf) -> None:
    leaf = is_leaf is not None and is_leaf(node)
    if not leaf and isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            _flatten_into(destination, child, f"{path}.{i}", is_leaf)
    elif not leaf and isinstance(node, dict):
        for key, child in node.items():
            _flatten_into(destination, child, f"{path}.{key}", is_leaf)
    elif isinstance(destination, list):
        destination.append((path[1:], node))
    else:
        destination[path[1:]] = node


def tree_unflatten(tree: list[tuple[str, Any]] | dict[str, Any]) -> Any:
    """The tree that `tree_flatten` gives these pairs for: a level whose keys are all integers becomes a list.

    >>> tree_unflatten([("a.0", 1), ("a.1.b", 2)])
    {'a': [1, {'b': 2}]}
    """
    pairs = list(tree.items()) if isinstance(tree, dict) else list(tree)
    if len(pairs) == 1 and pairs[0][0] == "":
        return pairs[0][1]
    groups: dict[str, list[tuple[str, Any]]] = {}
    for path, value in pairs:
        head, _, tail = path.partition(".")
        groups.setdefault(head, []).append((tail, value))
    try:
        positions = {int(head): head for head in groups}
    except ValueError:
        positions = {}
    # "01" and "1" are two keys but one position: such a level stays a dict.
    if len(positions) != len(groups):
        return {head: tree_unflatten(children) for head, children in groups.items()}
    items: list[Any] = []
    for position, head in sorted(positions.items()):
        items.extend({} for _ in range(position - len(items)))
        items.append(tree_unflatten(groups[head]))
    return items


def tree_reduce(fn: Callable[[Any, Any], Any], tree: Any, initializer: Any = None, is_leaf: IsLeaf = None) -> Any:
    """`fn(accumulated, leaf)` over all leaves in order, from `initializer` or, where that is None, the first leaf.

    >>> tree_reduce(lambda total, x: total + x, {"a": [1, 2], "b": 3}, 0)
    6
    """
    accumulated = initializer
    for _, leaf in tree_flatten(tree, is_leaf=is_leaf):
        accumulated = leaf if accumulated is None else fn(accumulated, leaf)
    return accumulated


def _is_empty(tree: Any) -> bool:
    return isinstance(tree, (dict, list, tuple)) and len(tree) == 0


def tree_merge(tree_a: Any, tree_b: Any, merge_fn: Callable[[Any, Any], Any] | None = None) -> Any:
    """One tree with what either holds; `merge_fn(a, b)` decides where both have a leaf. None and {} stand for nothing.

    Raises:
        ValueError: both have a leaf at one place and there is no `merge_fn`, or empty containers of two kinds meet.

    >>> tree_merge({"a": [1]}, {"a": [{}, 2]})
    {'a': [1, 2]}
    """
    if _is_empty(tree_a) and _is_empty(tree_b):
        if type(tree_a) is not type(tree_b):
            raise ValueError(f"Cannot merge {type(tree_a).__name__} with {type(tree_b).__name__}")
        return type(tree_a)()
    if _is_empty(tree_a):
        tree_a = None
    if _is_empty(tree_b):
        tree_b = None
    if tree_b is None and tree_a is not None:
        return tree_a
    if tree_a is None and tree_b is not None:
        return tree_b
    if isinstance(tree_a, (list, tuple)) and isinstance(tree_b, (list, tuple)):
        return _rebuild(type(tree_a), [tree_merge(a, b, merge_fn) for a, b in zip_longest(tree_a, tree_b)])
    if isinstance(tree_a, dict) and isinstance(tree_b, dict):
        # The first tree's order, then what only the second has: reproducible, unlike a set's order.
        keys = [*tree_a, *(key for key in tree_b if key not in tree_a)]
        return {key: tree_merge(tree_a.get(key), tree_b.get(key), merge_fn) for key in keys}
    if merge_fn is None:
        raise ValueError("Both trees have a leaf at the same place: give a merge_fn that chooses.")
    return merge_fn(tree_a, tree_b)
