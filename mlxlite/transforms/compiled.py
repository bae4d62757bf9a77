"""`compile`: a function traced once, and its graph recorded again by later calls without Python."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any

from .. import _graph
from .._graph import Template, array
from . import _trees
from ._trace import Trace

# Templates that one compiled function keeps, the least recently used are dropped.
CAPACITY = 256

_enabled = "MLX_DISABLE_COMPILE" not in os.environ


def disable_compile() -> None:
    """Make compiled functions call the functions they were made of. So does the variable MLX_DISABLE_COMPILE."""
    global _enabled
    _enabled = False


def enable_compile() -> None:
    """Undo `disable_compile`."""
    global _enabled
    _enabled = True


def _key_of(leaf: Any) -> Any:
    if isinstance(leaf, float):
        return leaf.hex()  # 0.0 and -0.0 differ, and a NaN is itself
    if leaf is None or isinstance(leaf, (int, str)):  # bool is an int
        return (type(leaf), leaf)
    raise ValueError(
        "[compile] Function arguments must be trees of arrays or constants (floats, ints, strings, or None), "
        f"but received type {type(leaf).__name__}."
    )


def _of_no_account(leaf: Any) -> Any:
    """Of the state, only arrays are part of the key."""
    return None


class _Compiled:
    """One template and the tree that its first results belong to."""

    __slots__ = ("n_results", "result", "template")

    def __init__(self, template: Template, result: Any, n_results: int):
        self.template = template
        self.result = result
        self.n_results = n_results


def _trace(
    fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inputs: Any, outputs: Any
) -> _Compiled:
    call = (args, kwargs)
    given = _trees.some_arrays(call)
    state = _trees.some_arrays(inputs)
    values = [_graph.astype(a, a.dtype) for a in state]  # of objects that tracing may change in place
    everything = given + values
    before = _trees.some_arrays(outputs)
    with Trace() as trace:
        traced = trace.abstract([a.shape for a in everything], [a.dtype for a in everything])
        traced_args, traced_kwargs = _trees.replace_arrays(call, traced[: len(given)])
        _trees.fill(inputs, traced[len(given) :])
        try:
            result = fun(*traced_args, **traced_kwargs)
            found = _trees.some_arrays(result)
            template = Template([*found, *_trees.some_arrays(outputs)], trace.arguments)
        except BaseException:
            if len(_trees.some_arrays(outputs)) == len(before):
                _trees.fill(outputs, list(before))  # what the function has put there has no value
            raise
        finally:
            _restore(inputs, traced[len(given) :], state, values)
    return _Compiled(template, _trees.map_leaves(_forget, result), len(found))


class _Place:
    """Where an array is in a result."""


_PLACE = _Place()


def _forget(leaf: Any) -> Any:
    return _PLACE if isinstance(leaf, array) else leaf


def _with_arrays(tree: Any, arrays: list[array]) -> Any:
    leaves = _trees.leaves(tree)
    if len(leaves) == len(arrays):  # all are
        return _trees.replace(tree, arrays)
    rest = iter(arrays)
    return _trees.replace(tree, [next(rest) if leaf is _PLACE else leaf for leaf in leaves])


def _restore(inputs: Any, traced: list[array], state: list[array], values: list[array]) -> None:
    """Put the arrays of the state back into their places, which hold arrays without values now."""
    for a, value in zip(state, values, strict=True):
        a._replace(value)
    now = _trees.some_arrays(inputs)
    if len(now) != len(state):  # the function has put in new arrays: keep those
        originals = {id(t): a for t, a in zip(traced, state, strict=True)}
        state = [originals.get(id(a), a) for a in now]
    _trees.fill(inputs, list(state))


def compile(
    fun: Callable[..., Any], inputs: Any = None, outputs: Any = None, shapeless: bool = False
) -> Callable[..., Any]:
    """A function that traces `fun` once for arguments of a kind, and then records the same graph again.

    The kind of arguments is: the structure of their trees, shapes and dtypes of the arrays, and the values of the
    numbers, strings and None among them. Python code of `fun` runs only when it traces.

    Args:
        fun: a function of trees of arrays, numbers, strings and None, that returns a tree. It sees arrays without
            values: it cannot evaluate them. It must have no side effects but on `outputs`.
        inputs: a tree of lists and dicts whose arrays `fun` reads, such as the state of a model. An array that it reads
            and that is neither here nor an argument is taken as a constant.
        outputs: a tree of lists and dicts whose arrays `fun` replaces; each call puts new ones into it.
        shapeless: accepted; a new shape is traced again all the same.

    Returns:
        A function of the arguments of `fun`. Within another transform it calls `fun`.

    Raises:
        ValueError: an argument of another type, an array evaluated inside `fun`, or `outputs` changed its structure.
        TypeError: `fun` is not callable.

    >>> state = [mx.array(0)]
    >>> def count(x):
    ...     state[0] = state[0] + 1
    ...     return x * state[0]
    >>> compiled = mx.compile(count, inputs=state, outputs=state)
    >>> compiled(mx.array(5)), compiled(mx.array(5)), state[0]
    (array(5, dtype=int32), array(10, dtype=int32), array(2, dtype=int32))
    """
    if not callable(fun):
        raise TypeError(f"[compile] fun must be callable, got {type(fun).__name__}.")
    if isinstance(inputs, array) or isinstance(outputs, array):
        raise ValueError("[compile] inputs and outputs must be lists or dicts that hold arrays, not an array.")
    cache: OrderedDict[Any, _Compiled] = OrderedDict()

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not _enabled or _graph.is_tracing():
            return fun(*args, **kwargs)
        call = (args, kwargs)
        key = (
            _trees.key(call, _key_of),
            _trees.key(inputs, _of_no_account),
            _graph.default_device().type.name,
        )
        given = _trees.some_arrays(call) + _trees.some_arrays(inputs)
        found = cache.get(key)
        if found is None:
            found = cache[key] = _trace(fun, args, kwargs, inputs, outputs)
            if len(cache) > CAPACITY:
                cache.popitem(last=False)
        else:
            cache.move_to_end(key)
        results = found.template(given)
        if outputs is not None:
            if len(_trees.some_arrays(outputs)) != len(results) - found.n_results:
                raise ValueError("[compile] outputs holds another number of arrays than when the function was traced.")
            _trees.fill(outputs, results[found.n_results :])
        return _with_arrays(found.result, results[: found.n_results])

    return wrapped
