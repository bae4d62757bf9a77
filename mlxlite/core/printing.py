"""How arrays look: `array([1, 2, 3], dtype=int32)`, long dims shortened to three elements at each end."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _graph
from . import shape as shapes
from ._registry import array, is_inexact, to_dtype

_EDGE = 3  # elements shown at each end of a dim longer than twice this

_precision = -1


def set_printoptions(precision: int = -1) -> None:
    """Set how many decimals of a floating element are shown; six significant digits for a negative number."""
    global _precision
    _precision = operator.index(precision)


def get_printoptions() -> dict[str, int]:
    """The options that `set_printoptions` sets."""
    return {"precision": _precision}


@contextlib.contextmanager
def printoptions(precision: int = -1) -> Iterator[None]:
    """Options for the time of a `with` block."""
    before = _precision
    set_printoptions(precision)
    try:
        yield
    finally:
        set_printoptions(before)


def _real(value: float) -> str:
    if math.isnan(value):
        return "nan"
    return f"{value:.6g}" if _precision < 0 else f"{value:.{_precision}f}"


def _complex(value: complex) -> str:
    imag = _real(value.imag)
    return f"{_real(value.real)}{'' if imag.startswith('-') else '+'}{imag}j"


def _corners(a: array) -> array:
    """`a` with the middle of every long dim left out."""
    for axis, n in enumerate(a.shape):
        if n > 2 * _EDGE:
            head = shapes.slice_along(a, axis, 0, _EDGE)
            tail = shapes.slice_along(a, axis, n - _EDGE, n)
            a = shapes.concatenate([head, tail], axis)
    return a


def _render(values: Any, shape: tuple[int, ...], indent: int, element: Any) -> str:
    """Nested brackets of `values`, nested lists of what is shown of an array of `shape`."""
    rows = [_render(v, shape[1:], indent + 1, element) if len(shape) > 1 else element(v) for v in values]
    if shape[0] > 2 * _EDGE:
        rows.insert(_EDGE, "...")
    separator = ",\n" + " " * (indent + 1) if len(shape) > 1 else ", "
    return "[" + separator.join(rows) + "]"


def array_repr(a: array) -> str:
    """The text of an array. Only what is shown is brought to the host."""
    element: Any = str
    if is_inexact(a.dtype):
        element = _complex if a.dtype == _graph.complex64 else _real
    if a.ndim == 0:
        text = element(a.item())
    elif 0 in a.shape[:1]:
        text = "[]"
    else:
        shown = _corners(a)
        if shown.dtype in (_graph.bfloat16, _graph.float16):
            shown = to_dtype(shown, _graph.float32)
        values: np.ndarray = _graph.to_numpy(shown)
        text = _render(values.tolist(), a.shape, len("array("), element)
    return f"array({text}, dtype={a.dtype.name})"


_graph.set_hooks(repr=array_repr)
