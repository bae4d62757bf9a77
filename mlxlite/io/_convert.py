"""Between the arrays of this package and NumPy's, without a copy where memory allows."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .. import _graph
from .._numpy import from_numpy_dtype

File = Any  # a path, or a file object opened in binary mode


def to_array(values: np.ndarray) -> _graph.array:
    """An array over the same memory, which must not be written to from now on. TypeError for an unknown dtype."""
    dtype = from_numpy_dtype(values.dtype)
    return _graph.from_numpy(values if values.flags.aligned else values.copy(), dtype)


def to_ndarray(a: Any, name: str) -> np.ndarray:
    """The evaluated values. TypeError if `a` is no array."""
    if not isinstance(a, _graph.array):
        raise TypeError(f"[{name}] expects arrays, got {type(a).__name__}; make one with mx.array.")
    return _graph.to_numpy(a)


def path_of(file: File, name: str) -> str | None:
    """A path as a string, None for a file object. TypeError for anything else."""
    if isinstance(file, (str, os.PathLike)):
        return os.fspath(file)
    if not (hasattr(file, "read") or hasattr(file, "write")):
        raise TypeError(f"[{name}] expects a path or a file opened in binary mode, got {type(file).__name__}")
    return None
