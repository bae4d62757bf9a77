"""NumPy's view of the element types; bfloat16 is ml_dtypes'."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from . import _graph

_BY_NAME: dict[str, np.dtype[Any]] = {
    name: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64", "bfloat16", "complex64"),
    )
}
_TO_GRAPH = {dtype: _graph.dtype_named(name) for name, dtype in _BY_NAME.items()}


def to_numpy_dtype(dtype: _graph.Dtype) -> np.dtype[Any]:
    """The NumPy dtype of an mlxlite dtype."""
    return _BY_NAME[dtype.name]


def from_numpy_dtype(dtype: np.dtype[Any]) -> _graph.Dtype:
    """The mlxlite dtype of a NumPy dtype. TypeError if there is none."""
    found = _TO_GRAPH.get(dtype)
    if found is None:
        raise TypeError(f"NumPy dtype {dtype} has no counterpart; convert with .astype first")
    return found


def empty(shape: tuple[int, ...], name: str) -> np.ndarray:
    return np.empty(shape, _BY_NAME[name])


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def contiguous(array: np.ndarray) -> np.ndarray:
    """Row-major memory of the same shape (np.ascontiguousarray makes a 0-d array 1-d)."""
    return np.asarray(array, order="C")


_graph.set_hooks(empty=empty, address=address, contiguous=contiguous)
