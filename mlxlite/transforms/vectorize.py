"""Vectorisation: `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from .._graph import TracedNode, array
from ..core import shape as shapes
from . import _trees
from ._tables import VMAP, missing
from ._trace import VMAP as READ_FOR_VMAP
from ._trace import Graph, Trace


def vectorize(graph: Graph, arguments: list[array], batched: list[bool], size: int) -> list[array | None]:
    """The outputs of a graph with a new first axis; None for those that depend on no argument.

    Args:
        graph: read from the function.
        arguments: of the graph; those of which `batched` is true have the axis first.
        batched: which arguments have it.
        size: of the axis.
    """
    values: dict[int, tuple[array, bool]] = dict(enumerate(zip(arguments, batched, strict=True)))
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.sources}
    kept = set(graph.outputs)
    for i, node in enumerate(graph.nodes):
        sources = node.sources
        pairs = [values[v] if v >= 0 else (a, False) for v, a in zip(sources, node.inputs, strict=True)]
        inputs, has_axis = [a for a, _ in pairs], [b for _, b in pairs]
        info = node.info if node.name == "call" else None
        if info is not None:
            for k, result in enumerate(info.vmap(inputs, has_axis, size)):
                values[node.first + k] = (result, True)
        else:
            values[node.first] = (vectorized(node, inputs, has_axis, size), True)
        for value in sources:
            if value >= 0 and last_use[value] == i and value not in kept:
                values.pop(value, None)
    return [values[value][0] if value >= 0 else None for value in graph.outputs]


def vectorized(node: TracedNode, inputs: list[array], batched: list[bool], size: int) -> array:
    """A node's output for inputs some of which have a new first axis. NotImplementedError if there is no rule."""
    rule = VMAP.get(node.name)
    if rule is None:
        raise missing(node, "vmap")
    return rule(node, inputs, batched, size)


def _check_axes(axes: Any, what: str) -> None:
    for axis in _trees.leaves(axes):
        if axis is not None and not (isinstance(axis, int) and not isinstance(axis, bool)):
            raise ValueError(f"[vmap] {what} must be integers or None, or trees of them, got {axis!r}.")


def _axis(axis: int, ndim: int, shape: tuple[int, ...], what: str) -> int:
    if not -ndim <= axis < ndim:
        raise IndexError(f"[vmap] Invalid {what} {axis} for array with shape {shape}.")
    return axis % ndim


def _batch(leaves: list[array], axes: list[int | None]) -> tuple[list[array], int]:
    """The arrays with the mapped axis first, and its size."""
    size = None
    moved = []
    for a, axis in zip(leaves, axes, strict=True):
        if axis is None:
            moved.append(a)
            continue
        axis = _axis(axis, a.ndim, a.shape, "vectorization axis")
        if size is not None and a.shape[axis] != size:
            raise ValueError(f"[vmap] Inconsistent axis sizes: {a.shape[axis]} and {size}.")
        size = a.shape[axis]
        moved.append(shapes.moveaxis(a, axis, 0))
    if size is None:
        raise ValueError("[vmap] At least one of in_axes must be non-None.")
    return moved, size


def map_arrays(
    fun: Callable[[list[array]], list[array]], arguments: list[array], batched: list[bool], size: int
) -> list[array | None]:
    """`fun`, a function of arrays, for all of the first axis at once; the results have it first.

    A result that depends on no argument that is batched is None.
    """
    inputs = [a for a, b in zip(arguments, batched, strict=True) if b]
    with Trace() as trace:
        traced = iter(trace.abstract([a.shape[1:] for a in inputs], [a.dtype for a in inputs]))
        outputs = fun([next(traced) if b else a for a, b in zip(arguments, batched, strict=True)])
        graph = trace.read(outputs, READ_FOR_VMAP)
    found = vectorize(graph, inputs, [True] * len(inputs), size)
    return [shapes.broadcast_to(o, (size, *o.shape)) if f is None else f for o, f in zip(outputs, found, strict=True)]


def vmap(fun: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """A function that does for every element along an axis what `fun` does for one, by operations on whole arrays.

    Args:
        fun: a function of arrays or trees of arrays, that returns an array or a tree of arrays. It sees its arguments
            without the mapped axis, and without values: it cannot evaluate them.
        in_axes: the axis of each argument, None for one that is the same for every element. An integer for all of them,
            or a tuple with an entry for each: an integer, None, or a tree of these that is a prefix of the argument's.
        out_axes: where the axis is in the results; an integer or a prefix of the tree that is returned.

    Returns:
        A function of the arguments of `fun`, by position.

    Raises:
        ValueError: axes of different sizes, none at all, axes that are no prefix of the tree, a leaf that is no array,
            or an array evaluated inside `fun`.
        IndexError: an axis is out of range.
        TypeError: keyword arguments, or None where an axis must be.
        NotImplementedError: an operation has no rule.

    >>> mx.vmap(lambda x, y: x @ y, in_axes=(0, None))(mx.ones((2, 3)), mx.ones((3,)))
    array([3, 3], dtype=float32)
    """
    if not callable(fun):
        raise TypeError(f"[vmap] fun must be callable, got {type(fun).__name__}.")
    for axes, what in ((in_axes, "in_axes"), (out_axes, "out_axes")):
        if axes is None:
            raise TypeError(f"[vmap] {what} must be an integer or a tree of integers and None, got None.")
        _check_axes(axes, what)

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            raise TypeError("[vmap] Keyword arguments are not supported.")
        # The axes of the only argument may be given as they are.
        alone = len(args) == 1 and not (isinstance(in_axes, tuple) and len(in_axes) == 1)
        tree: Any = args[0] if alone else args
        given = _trees.arrays(tree)
        axes = _trees.spread_prefix(in_axes, tree)
        arguments, size = _batch(given, axes)
        batched = [axis is not None for axis in axes]
        result: Any = None

        def on_arrays(arrays: list[array]) -> list[array]:
            nonlocal result
            result = fun(*_trees.replace(args, arrays))
            return _trees.arrays(result)

        found = map_arrays(on_arrays, arguments, batched, size)
        places = _trees.spread_prefix(out_axes, result)
        return _trees.replace(result, [_place(a, axis) for a, axis in zip(found, places, strict=True)])

    return wrapped


def _place(a: Any, axis: int | None) -> array:
    if axis is None:
        raise ValueError("[vmap] an entry of out_axes is None: every result has the mapped axis.")
    return shapes.moveaxis(a, 0, _axis(axis, a.ndim, a.shape[1:], "output vectorization axis"))
