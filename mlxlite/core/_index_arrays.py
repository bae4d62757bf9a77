"""Index arrays, as the primitives take them: of int32, uint32 or int64, all of one dtype and one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _graph
from . import shape as shapes
from ._registry import array, general, to_dtype

gather = general("gather", "gather")
scatter = general("scatter", "scatter")


def index_arrays(arrays: Sequence[array], name: str, stream: Any = None) -> tuple[list[array], tuple[int, ...]]:
    """Index arrays of one dtype, broadcast, and their shape. ValueError unless they are of integers and broadcast."""
    dtype = None
    for a in arrays:
        category = a.dtype.category
        if category == "bool":
            raise ValueError("boolean indices are not yet supported: the shape of the result would depend on values")
        if category not in ("signed", "unsigned"):
            raise ValueError(f"[{name}] Got indices with invalid dtype {a.dtype.name}. Indices must be integral.")
        of_a = _graph.int32 if a.dtype.size < 4 else _graph.int64 if a.dtype == _graph.uint64 else a.dtype
        dtype = of_a if dtype is None else _graph.promote_types(dtype, of_a)
    assert dtype is not None
    converted = [to_dtype(a, dtype, stream) for a in arrays]
    if len(converted) == 1:
        return converted, converted[0].shape
    shape = shapes.broadcast_shapes(*[a.shape for a in converted])
    return [a if a.shape == shape else shapes.broadcast_to(a, shape, stream=stream) for a in converted], shape


def check_not_empty(a: array, axes: Sequence[int], index_shape: tuple[int, ...]) -> None:
    if 0 not in index_shape and any(a.shape[axis] == 0 for axis in axes):
        raise ValueError("[take] Cannot do a non-empty take from an empty axis.")
