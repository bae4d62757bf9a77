"""The methods of `array` that are written in Python: shorthands of functions, and the protocols of Python and NumPy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _graph
from . import creation, indexing, reduce
from . import elementwise as ew
from . import shape as shapes
from ._registry import Dtype, array
from .matmul import matmul

_UNARY = "abs cos sin exp log log10 log1p log2 reciprocal rsqrt sqrt square real imag conj round"
_REDUCE = "all any argmax argmin cummax cummin cumprod cumsum logcumsumexp logsumexp max mean min prod std sum var"
_SHAPE = "diagonal flatten moveaxis split squeeze swapaxes view"

_HOST = (1, 0)  # DLPack's type and number of the device


def _method(function: Any, name: str) -> Callable[..., Any]:
    """A function of an array as its method."""
    if inspect.isfunction(function) or isinstance(function, _graph.Remembered):
        return function

    def method(self: array, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"array.{name}"
    method.__doc__ = function.__doc__
    method.__dict__["__wrapped__"] = function  # help() and the stubs show its signature
    return method


def _axes_or_shape(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


def _reshape(self: array, *shape: Any, stream: Any = None) -> array:
    """The same elements in another shape, given as a tuple or as separate integers; see `reshape`."""
    return shapes.reshape(self, _axes_or_shape(shape), stream=stream)


def _transpose(self: array, *axes: Any, stream: Any = None) -> array:
    """The axes in another order, given as a tuple or as separate integers; reversed if none are given."""
    order = _axes_or_shape(axes)
    if axes == (None,):
        order = ()
    return shapes.transpose(self, order if len(order) else None, stream=stream)


def _astype(self: array, dtype: Dtype, stream: Any = None) -> array:
    """Every element converted to `dtype`."""
    return _graph.astype(self, dtype, stream)


def _diag(self: array, k: int = 0, *, stream: Any = None) -> array:
    """The k-th diagonal of a matrix, or a matrix with this diagonal."""
    return creation.diag(self, k, stream=stream)


def _array(self: array, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """For NumPy: evaluates; the same memory where it is on the host, read-only. bfloat16 becomes ml_dtypes.bfloat16.

    Raises:
        ValueError: `copy` is False and a copy is needed.
    """
    values = _graph.to_numpy(self)
    if dtype is not None and np.dtype(dtype) != values.dtype:
        if copy is False:
            raise ValueError(f"converting {self.dtype.name} to {np.dtype(dtype)} needs a copy")
        return values.astype(dtype)
    if copy is False and _graph.device_of(self).type == _graph.DeviceType.gpu:
        raise ValueError("an array of the GPU cannot be seen by NumPy without a copy")
    return values.copy() if copy else values


def _dlpack(
    self: array,
    *,
    stream: int | None = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """For DLPack's consumers: evaluates; the memory itself, flagged as read-only.

    A consumer that knows no flags (`max_version` below 1.0) gets a copy, since an array must not change.

    Args:
        stream: of the consumer, for memory of the GPU: 1 (or None) for the legacy default stream, 2 for that of the
            thread, or a handle; it is made to wait for the values. -1: the consumer sees to that.
        max_version: the newest version of DLPack that the consumer knows.
        dl_device: where the consumer wants the values: None for `__dlpack_device__()`, or (1, 0), host memory.
        copy: True for memory of the consumer's own, which it may write; False raises instead of copying.

    Raises:
        BufferError: `copy` is False and a copy is needed, or `dl_device` is another device.
        ValueError: `stream` is 0, which could be either default stream, or no stream's number, or not None for host
            memory.

    >>> torch.from_dlpack(array)  # shares memory, on the GPU too
    """
    versioned = max_version is not None and max_version[0] >= 1
    home = _graph.dlpack_device(self)
    target = home if dl_device is None else tuple(dl_device)
    on_host = target == _HOST
    if target not in (home, _HOST):
        raise BufferError(f"[__dlpack__] an array on DLPack's device {home} cannot be had on {target}")
    if copy is False and not versioned:
        raise BufferError("[__dlpack__] an array must not change, and a consumer of DLPack below 1.0 is not told so")
    if copy is False and on_host and home != _HOST:
        raise BufferError("[__dlpack__] an array of the GPU cannot be had in host memory without a copy")
    if on_host and stream is not None:
        raise ValueError(f"[__dlpack__] host memory has no stream, got {stream}")
    if stream is not None and stream < -1:
        raise ValueError(f"[__dlpack__] a stream is -1, 1, 2 or a handle of the driver's, got {stream}")
    if stream == 0:
        raise ValueError("[__dlpack__] stream 0 could be either default stream: 1 is the legacy one, 2 the thread's")
    lent_to = None if on_host or stream == -1 else 1 if stream is None else stream
    return _graph.to_dlpack(self, on_host, versioned, bool(copy) or not versioned, lent_to)


def _dlpack_device(self: array) -> tuple[int, int]:
    """DLPack's type and number of the device: (2, n) for the GPU n, if the array or the default device is there; else
    (1, 0), host memory."""
    return _graph.dlpack_device(self)


def _rebuild(values: np.ndarray, dtype: str) -> array:
    return _graph.from_numpy(values, _graph.dtype_named(dtype))


def _reduce_ex(self: array, protocol: Any) -> tuple[Any, ...]:
    return _rebuild, (np.array(_graph.to_numpy(self)), self.dtype.name)


def _copy(self: array) -> array:
    return _graph.astype(self, self.dtype)


def _deepcopy(self: array, memo: Any) -> array:
    return _graph.astype(self, self.dtype)


def _format(self: array, spec: str) -> str:
    if self.ndim == 0:
        return format(self.item(), spec)
    if spec:
        raise TypeError(f"[format] An array of shape {self.shape} takes no format, got {spec!r}: format its elements.")
    return str(self)


def _complex(self: array) -> complex:
    return complex(self.item())


def _attach() -> None:
    for names, module in ((_UNARY, ew), (_REDUCE, reduce), (_SHAPE, shapes)):
        for name in names.split():
            setattr(array, name, _method(getattr(module, name), name))
    methods: dict[str, Any] = {
        "astype": _astype,
        "diag": _diag,
        "__array__": _array,
        "__dlpack__": _dlpack,
        "__dlpack_device__": _dlpack_device,
        "__reduce_ex__": _reduce_ex,
        "__copy__": _copy,
        "__deepcopy__": _deepcopy,
        "__format__": _format,
        "__complex__": _complex,
        "__pos__": ew.positive,
        "__str__": array.__repr__,
        "mT": property(shapes.matrix_transpose, doc="The last two axes exchanged. ValueError below two dims."),
        "at": property(indexing.ArrayAt, doc="`a.at[index].add(x)` and the like: updates that all count."),
    }
    for name, method in methods.items():
        setattr(array, name, method)


_attach()
_graph.set_hooks(
    operators={
        **ew.OPERATORS,
        "matmul": matmul,
        # What the methods of C++ leave to Python: other kinds of integers, a stream, and errors.
        "reshape_method": _reshape,
        "transpose_method": _transpose,
    }
)
