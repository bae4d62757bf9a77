"""Primitives by name. A primitive is made once, here; rules elsewhere refer to it by its name."""

from __future__ import annotations

import copyreg
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from .. import _graph

array = _graph.array
Dtype = _graph.Dtype

PRIMITIVES: dict[str, _graph.Primitive] = {}


def _register(primitive: _graph.Primitive) -> _graph.Primitive:
    if primitive.name in PRIMITIVES:
        raise ValueError(f"primitive {primitive.name!r} is defined twice")
    PRIMITIVES[primitive.name] = primitive
    return primitive


def primitive_named(name: str) -> _graph.Primitive:
    """The primitive of a name; KeyError if there is none."""
    return PRIMITIVES[name]


# There is one of each: a copy of a model whose activation is `mx.exp` has the same, and a pickle has its name.
copyreg.pickle(_graph.Primitive, lambda primitive: (primitive_named, (primitive.name,)))


def unary(name: str, *, dtype: str = "same", accepts: str = "any", doc: str = "") -> _graph.Primitive:
    """An elementwise function of one array; `dtype` is same, inexact, bool or real."""
    return _register(_graph.Primitive(name, "unary", dtype, accepts, doc))


def binary(name: str, *, dtype: str = "promote", accepts: str = "any", doc: str = "") -> _graph.Primitive:
    """An elementwise function of two arrays; `dtype` is promote, inexact, compare or logical."""
    return _register(_graph.Primitive(name, "binary", dtype, accepts, doc))


def select(name: str, *, doc: str = "") -> _graph.Primitive:
    """`name(condition, x, y)`."""
    return _register(_graph.Primitive(name, "select", doc=doc))


def general(name: str, kind: str) -> _graph.Primitive:
    """A primitive recorded by a Python function of its family."""
    return _register(_graph.Primitive(name, kind))


Function = TypeVar("Function", bound=Callable[..., Any])


def remembered(function: Function) -> Function:
    """The function, run for new arguments alone: where shapes, dtypes, numbers and names are those of one of its last
    calls, the ops that were recorded then are recorded for the arrays at hand.

    It must look at nothing else: not at values, and not at what may change between calls, but for the default device
    and whether a transform is tracing. Calls whose results are not new ops on their arrays and on numbers are not
    remembered.
    """
    return cast(Function, functools.update_wrapper(_graph.Remembered(function), function))


def as_array(value: Any) -> array:
    """`value` if it is an array, else an array of it (numbers, NumPy arrays; not lists)."""
    return value if isinstance(value, array) else _graph.as_array(value)


def require_array(value: Any, name: str) -> array:
    """`value`, which must be an array already. TypeError otherwise, as for MLX's functions that take no numbers."""
    if not isinstance(value, array):
        raise TypeError(f"[{name}] expects an array, got {type(value).__name__}; make one with mx.array.")
    return value


def alias(a: array) -> array:
    """Another array object of the same value: `b += 1` on a result must never change an argument."""
    return _graph.astype(a, a.dtype)


def to_dtype(a: array, dtype: Dtype, stream: Any = None) -> array:
    """`a` converted to `dtype`, or `a` itself when it is of it."""
    return a if a.dtype == dtype else _graph.astype(a, dtype, stream)


def is_inexact(dtype: Dtype) -> bool:
    """Whether the dtype is floating or complex."""
    return dtype.category in ("floating", "complex")


def to_inexact(a: array, stream: Any = None) -> array:
    """`a`, as float32 if it is bool or integer."""
    return a if is_inexact(a.dtype) else _graph.astype(a, _graph.float32, stream)


def normalize_axis(axis: Any, ndim: int, name: str) -> int:
    """A non-negative axis. IndexError when it is out of range, TypeError when it is no integer."""
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"[{name}] axis must be an integer, got {type(axis).__name__}") from None
    result = index + ndim if index < 0 else index
    if not 0 <= result < ndim:
        raise IndexError(f"[{name}] Axis {index} is out of bounds for array with {ndim} dimensions.")
    return result


def normalize_axes(axis: int | Sequence[int] | None, ndim: int, name: str) -> tuple[int, ...]:
    """Sorted distinct non-negative axes; all of them for None. ValueError for a repeated axis."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    result = tuple(sorted([normalize_axis(a, ndim, name) for a in axes]))
    if len(set(result)) != len(result):
        raise ValueError(f"[{name}] Received duplicate axes {axes}.")
    return result


def normalize_shape(shape: Any, name: str) -> tuple[int, ...]:
    """A shape from an integer or a sequence of them. TypeError for anything else, ValueError for negative dims."""
    try:
        dims = tuple(map(operator.index, shape)) if isinstance(shape, (tuple, list)) else (operator.index(shape),)
    except TypeError:
        raise TypeError(f"[{name}] shape must be an integer or a sequence of integers, got {shape!r}") from None
    if any(d < 0 for d in dims):
        raise ValueError(f"[{name}] Negative dimensions not allowed.")
    return dims
