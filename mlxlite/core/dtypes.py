"""The element types, their categories and limits."""

from __future__ import annotations

import enum
from typing import Any

import ml_dtypes
import numpy as np

from .. import _graph
from .._numpy import to_numpy_dtype
from ._registry import Dtype


class DtypeCategory(enum.Enum):
    """A group of element types; see `issubdtype`."""

    generic = "generic"
    number = "number"
    integer = "integer"
    signedinteger = "signedinteger"
    unsignedinteger = "unsignedinteger"
    inexact = "inexact"
    floating = "floating"
    complexfloating = "complexfloating"


generic = DtypeCategory.generic
number = DtypeCategory.number
integer = DtypeCategory.integer
signedinteger = DtypeCategory.signedinteger
unsignedinteger = DtypeCategory.unsignedinteger
inexact = DtypeCategory.inexact
floating = DtypeCategory.floating
complexfloating = DtypeCategory.complexfloating

_PARENT = {
    number: generic,
    integer: number,
    signedinteger: integer,
    unsignedinteger: integer,
    inexact: number,
    floating: inexact,
    complexfloating: inexact,
}
_OF_DTYPE = {
    "bool": generic,
    "signed": signedinteger,
    "unsigned": unsignedinteger,
    "floating": floating,
    "complex": complexfloating,
}


def issubdtype(arg1: Dtype | DtypeCategory, arg2: Dtype | DtypeCategory) -> bool:
    """Whether a dtype or category belongs to another.

    Raises:
        ValueError: an argument is neither.

    >>> mx.issubdtype(mx.float32, mx.floating)
    True
    """
    for position, argument in (("first", arg1), ("second", arg2)):
        if not isinstance(argument, (Dtype, DtypeCategory)):
            raise ValueError(f"[issubdtype] Received invalid type for {position} input.")
    if arg1 == arg2:
        return True
    if isinstance(arg2, Dtype):
        return False
    category: Any = _OF_DTYPE[arg1.category] if isinstance(arg1, Dtype) else arg1
    while category is not None:
        if category is arg2:
            return True
        category = _PARENT.get(category)
    return False


def isdtype(dtype: Dtype, kind: Any) -> bool:
    """Whether a dtype is of an array-API kind: a dtype, the name of a kind, or a tuple of these.

    The kinds are "bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating" and
    "numeric". ValueError for another name.
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, Dtype):
        return dtype == kind
    if kind not in _KINDS:
        raise ValueError(f"[isdtype] Unknown kind '{kind}': expected one of {', '.join(_KINDS)}.")
    return dtype.category in _KINDS[kind]


_KINDS = {
    "bool": ("bool",),
    "signed integer": ("signed",),
    "unsigned integer": ("unsigned",),
    "integral": ("signed", "unsigned"),
    "real floating": ("floating",),
    "complex floating": ("complex",),
    "numeric": ("signed", "unsigned", "floating", "complex"),
}


def result_type(*arrays_and_dtypes: Any) -> Dtype:
    """The dtype that arrays or dtypes promote to. ValueError for none."""
    dtypes = [x.dtype if isinstance(x, _graph.array) else x for x in arrays_and_dtypes]
    if not dtypes:
        raise ValueError("[result_type] At least one array or dtype is required.")
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = _graph.promote_types(result, dtype)
    return result


def can_cast(from_: Any, to: Dtype) -> bool:
    """Whether promoting an array or a dtype with `to` gives `to`.

    Raises:
        ValueError: `from_` is neither an array nor a dtype.
        TypeError: `to` is no dtype.

    >>> mx.can_cast(mx.int32, mx.float16), mx.can_cast(mx.float32, mx.float16)
    (True, False)
    """
    if isinstance(from_, _graph.array):
        from_ = from_.dtype
    if not isinstance(to, _graph.Dtype):
        raise TypeError(f"[can_cast] `to` must be a dtype, got {to!r}")
    if not isinstance(from_, _graph.Dtype):
        raise ValueError(f"[can_cast] `from_` must be an array or a dtype, got {from_!r}")
    return _graph.promote_types(from_, to) == to


class finfo:
    """Limits of a floating type: `bits`, `eps`, `max`, `min`, `smallest_normal`, `dtype` (complex64: of its parts).

    >>> mx.finfo(mx.float16).max
    65504.0
    """

    def __init__(self, dtype: Dtype):
        if dtype.category not in ("floating", "complex"):
            raise ValueError(f"[finfo] dtype {dtype.name} is not inexact.")
        limits = ml_dtypes.finfo(to_numpy_dtype(_graph.float32 if dtype.category == "complex" else dtype))
        self.dtype = dtype
        self.bits = int(limits.bits)
        self.eps = float(limits.eps)
        self.max = float(limits.max)
        self.min = float(limits.min)
        self.smallest_normal = float(limits.smallest_normal)


class iinfo:
    """Limits of an integer type: `max`, `min`, `dtype`.

    >>> mx.iinfo(mx.int8).max
    127
    """

    def __init__(self, dtype: Dtype):
        if dtype.category not in ("signed", "unsigned"):
            raise ValueError(f"[iinfo] dtype {dtype.name} is not an integer type.")
        limits = np.iinfo(to_numpy_dtype(dtype))
        self.dtype = dtype
        self.max = int(limits.max)
        self.min = int(limits.min)
