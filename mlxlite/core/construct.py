"""Arrays from Python numbers, nested lists, NumPy, buffers and DLPack. A copy, since an array never changes; only
`from_dlpack` shares memory, if it is told to."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from .. import _graph
from .._numpy import from_numpy_dtype, to_numpy_dtype
from . import shape as shapes
from ._registry import Dtype, alias, array, to_dtype

_NUMBERS = frozenset({bool, int, float, complex})
_SEQUENCES = frozenset({list, tuple})

# Wider types of NumPy's that become the default width unless a dtype is given.
_NARROWED = {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.complex128): np.dtype(np.complex64)}
_INT32 = np.iinfo(np.int32)

_DLPACK = (1, 1)  # the version that is known
_HOST_MEMORY = (1, 3)  # DLPack's types of devices: CPU, pinned for CUDA
_GPU_MEMORY = (2, 13)  # CUDA, and managed by it


def construct(value: Any, dtype: Dtype | None = None) -> array:
    """What `mx.array(value, dtype)` returns.

    Args:
        value: a number, nested lists or tuples of numbers and arrays, an array, a NumPy array or scalar, bytes, or an
            object with `__mlx_array__`, `__dlpack__` or `__array__`.
        dtype: the dtype of the result. By default bool, int32 (int64 if a value needs it), float32 and complex64 for
            Python numbers, and that of the array for arrays, but float32 for float64 and complex64 for complex128.

    Raises:
        ValueError: rows of different lengths, an integer beyond 64 bits, or a value that cannot be an array.
        TypeError: None, or a NumPy dtype without counterpart.

    >>> mx.array([1, 2.5])
    array([1, 2.5], dtype=float32)
    """
    if dtype is not None and not isinstance(dtype, _graph.Dtype):
        raise TypeError(f"array() dtype must be a Dtype such as mx.float32, got {type(dtype).__name__}")
    if isinstance(value, array):
        return alias(value) if dtype is None else _graph.astype(value, dtype)
    if isinstance(value, (bool, int, float, complex)):  # np.float64 is a float
        return _graph.as_array(value) if dtype is None else scalar(value, dtype)
    if isinstance(value, (list, tuple)):
        return _from_sequence(value, dtype)
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return from_ndarray(value, dtype)
    return _from_foreign(value, dtype)


def scalar(value: bool | int | float | complex, dtype: Dtype) -> array:
    """A number of a given dtype. Integers wrap around, as a cast does."""
    category = dtype.category
    if isinstance(value, complex) and category != "complex":
        value = value.real
    if category in ("signed", "unsigned"):
        if isinstance(value, float):
            if not math.isfinite(value):
                return from_ndarray(np.array(value), dtype)
            value = int(value)
        bits = 8 * dtype.size
        value = int(cast(int, value)) & ((1 << bits) - 1)
        if category == "signed" and value >> (bits - 1):
            value -= 1 << bits
    elif category == "bool":
        return _graph.as_array(bool(value))
    return _graph.scalar(value, dtype)


def from_ndarray(value: np.ndarray, dtype: Dtype | None) -> array:
    """A copy of a NumPy array."""
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    if dtype is None:
        wanted = _NARROWED.get(value.dtype, value.dtype)
        dtype = from_numpy_dtype(wanted)
    else:
        if value.dtype not in _NARROWED:
            from_numpy_dtype(value.dtype)  # raises for strings, objects, ...
        wanted = to_numpy_dtype(dtype)
        if value.dtype.kind == "c" and wanted.kind != "c":
            value = value.real
    with np.errstate(all="ignore"):
        return _graph.from_numpy(np.array(value, wanted, order="C", copy=True), dtype)


def _from_sequence(value: list[Any] | tuple[Any, ...], dtype: Dtype | None) -> array:
    kinds: set[type] = set()
    if _shape_of_numbers(value, kinds) is None:
        return _from_mixed(value, dtype)
    if not kinds:
        return from_ndarray(np.array(value, np.float32), dtype)
    if complex in kinds or float in kinds:
        natural = np.array(value, np.complex128 if complex in kinds else np.float64)
    elif int not in kinds:
        natural = np.array(value, np.bool_)
    else:
        natural = _integers(value, dtype)
        if dtype is None and natural.size and _INT32.min <= natural.min() and natural.max() <= _INT32.max:
            natural = natural.astype(np.int32)
    return from_ndarray(natural, dtype)


def _integers(value: Any, dtype: Dtype | None) -> np.ndarray:
    try:
        return np.array(value, np.int64)
    except OverflowError:
        if dtype is None or dtype == _graph.int64:
            raise ValueError("an integer does not fit into int64; give another dtype") from None
    try:
        return np.array(value, np.float64 if dtype.category in ("floating", "complex") else np.uint64)
    except OverflowError:
        raise ValueError(f"an integer does not fit into {dtype.name}") from None


def _shape_of_numbers(value: Any, kinds: set[type]) -> tuple[int, ...] | None:
    """The shape of nested sequences of Python numbers, whose types are put into `kinds`; None if there is another type.

    Raises:
        ValueError: the nesting is not that of an array.
    """
    types = set(map(type, value))
    if types <= _NUMBERS:
        kinds |= types
        return (len(value),)
    if not types <= _SEQUENCES:
        if types <= (_NUMBERS | _SEQUENCES):
            first_is_number = type(value[0]) in _NUMBERS
            problem = "extra dimension" if first_is_number else "non-uniform length"
            raise ValueError(f"Initialization encountered {problem}.")
        return None
    first = _shape_of_numbers(value[0], kinds)
    for row in value[1:]:
        shape = _shape_of_numbers(row, kinds)
        if shape is None or first is None:
            return None
        if shape != first:
            extra = len(shape) > len(first)
            raise ValueError(f"Initialization encountered {'extra dimension' if extra else 'non-uniform length'}.")
    return None if first is None else (len(value), *first)


def _from_mixed(value: list[Any] | tuple[Any, ...], dtype: Dtype | None) -> array:
    """Nested sequences with arrays or NumPy scalars among the elements."""
    parts = []
    for item in value:
        known = isinstance(item, (array, list, tuple, bool, int, float, complex, np.generic, np.ndarray))
        if not known and not hasattr(item, "__mlx_array__"):
            raise ValueError(f"Invalid type {type(item).__name__} received in array initialization.")
        parts.append(construct(item))
    if any(part.shape != parts[0].shape for part in parts):
        raise ValueError("Initialization encountered non-uniform length.")
    stacked = shapes.stack(parts)
    return stacked if dtype is None else to_dtype(stacked, dtype)


def _from_foreign(value: Any, dtype: Dtype | None) -> array:
    if value is None:
        raise TypeError("array() needs a number, a sequence or an array, not None")
    if hasattr(value, "__mlx_array__"):
        return construct(value.__mlx_array__(), dtype)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return from_ndarray(np.asarray(memoryview(value)), dtype)
    if hasattr(value, "__dlpack__"):
        return _from_tensor(value, dtype)
    if hasattr(value, "__array__"):
        return from_ndarray(np.asarray(value), dtype)
    if not isinstance(value, (str, dict, set, frozenset, range)):
        try:
            return from_ndarray(np.asarray(memoryview(value)), dtype)
        except TypeError:
            pass
    raise ValueError(f"Invalid type {type(value).__name__} received in array initialization.")


def _from_tensor(value: Any, dtype: Dtype | None, share: bool = False) -> array:
    """Of an object with `__dlpack__`: a copy, or on the GPU, with `share`, its memory."""
    kind = int(value.__dlpack_device__()[0]) if hasattr(value, "__dlpack_device__") else _HOST_MEMORY[0]
    if kind in _HOST_MEMORY:
        if share:
            raise ValueError("[from_dlpack] Host memory of other libraries is always copied: leave copy=False out.")
        return _from_host_tensor(value, dtype)
    if kind not in _GPU_MEMORY:
        raise ValueError(
            f"[from_dlpack] Tensors of DLPack's device type {kind} cannot be taken: "
            "copy it to the CPU or a CUDA device first."
        )
    taken = _graph.from_dlpack(_capsule_of(value, stream=_graph.dlpack_stream()), share)
    if dtype is None and taken.dtype == _graph.float64 and not share:
        dtype = _graph.float32
    return taken if dtype is None else to_dtype(taken, dtype)


def _from_host_tensor(value: Any, dtype: Dtype | None) -> array:
    try:
        return from_ndarray(np.from_dlpack(value), dtype)
    except (RuntimeError, BufferError, TypeError):  # a dtype that NumPy does not know, or memory that it may not write
        pass
    try:
        taken = _graph.from_dlpack(_capsule_of(value), False)
    except BufferError:
        if not hasattr(value, "__array__"):
            raise
        return from_ndarray(np.asarray(value), dtype)
    return taken if dtype is None else to_dtype(taken, dtype)


def _capsule_of(value: Any, **options: Any) -> Any:
    try:
        return value.__dlpack__(max_version=_DLPACK, **options)
    except TypeError:  # of a producer that knows no versions
        return value.__dlpack__(**options)


def from_dlpack(x: Any, /, *, copy: bool | None = None) -> array:
    """An array of an object with `__dlpack__`; float64 becomes float32, as in `array`.

    Args:
        x: a tensor in host memory or on the GPU that arrays are on.
        copy: None or True copies. False shares the memory of a tensor on the GPU, with its dtype and strides: it must
            not be written as long as there is this array, or one made from it that is not evaluated.

    Raises:
        TypeError: the object has no `__dlpack__`, or its dtype has no counterpart.
        ValueError: it is on another device, or `copy` is False and it is in host memory.

    >>> mx.from_dlpack(torch.ones(3, device="cuda"))
    array([1, 1, 1], dtype=float32)
    """
    if not hasattr(x, "__dlpack__"):
        raise TypeError(f"[from_dlpack] {type(x).__name__} has no __dlpack__ method")
    if isinstance(x, array):
        return alias(x)
    return _from_tensor(x, None, share=copy is False)


def asarray(a: Any, dtype: Dtype | None = None, *, copy: bool | None = None) -> array:
    """`a` as an array: itself if it is one of the dtype, else `array(a, dtype)`.

    Args:
        a: anything `array` takes.
        dtype: the dtype of the result.
        copy: True always makes a new array; False raises instead of copying.

    Raises:
        ValueError: `copy` is False and a copy is needed. Memory of other libraries is always copied.

    >>> mx.asarray([1, 2])
    array([1, 2], dtype=int32)
    """
    if isinstance(a, array) and (dtype is None or a.dtype == dtype):
        return alias(a) if copy else a
    if copy is False:
        raise ValueError("Unable to avoid copy while creating an array as requested.")
    return construct(a, dtype)


_graph.set_hooks(construct=construct)
