"""Devices, streams, evaluation and memory."""

from __future__ import annotations

import os
import platform
from types import TracebackType
from typing import Any

from .. import _graph
from . import cuda

Device = _graph.Device
DeviceType = _graph.DeviceType
Stream = _graph.Stream
cpu = _graph.DeviceType.cpu
gpu = _graph.DeviceType.gpu

default_device = _graph.default_device
default_stream = _graph.default_stream
new_stream = _graph.new_stream
set_default_stream = _graph.set_default_stream
eval = _graph.eval
async_eval = _graph.async_eval


def set_default_device(device: Device | DeviceType) -> None:
    """Make a device the one where operations run unless told otherwise. ValueError if there is no such device."""
    if _type_of(device) == gpu and not cuda.is_available():
        raise ValueError(f"[set_default_device] There is no usable GPU: {cuda.why_unavailable()}")
    _graph.set_default_device(device)


def _type_of(device: Any) -> DeviceType:
    if isinstance(device, Stream):
        return device.device.type
    return device.type if isinstance(device, Device) else device


class StreamContext:
    """What `stream` returns."""

    def __init__(self, stream: Stream | Device | DeviceType):
        if not isinstance(stream, (Stream, Device, DeviceType)):
            raise TypeError(f"[stream] expected a Stream or a Device, got {type(stream).__name__}")
        self._stream = stream

    def __enter__(self) -> StreamContext:
        self._device_before = default_device()
        set_default_device(_type_of(self._stream))
        self._stream_before = default_stream(default_device())
        if isinstance(self._stream, Stream):
            set_default_stream(self._stream)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        set_default_stream(self._stream_before)
        _graph.set_default_device(self._device_before)


def stream(s: Stream | Device | DeviceType) -> StreamContext:
    """A context manager that makes a stream or a device the default.

    Raises:
        ValueError: the device is not there, on entering.

    >>> with mx.stream(mx.cpu):
    ...     a = mx.ones(3)
    """
    return StreamContext(s)


def synchronize(stream: Stream | Device | DeviceType | None = None) -> None:
    """Wait until everything that was started is done. (All streams are waited for.)"""
    if stream is not None:
        _type_of(StreamContext(stream)._stream)
    _graph.synchronize()


def is_available(device: Device | DeviceType) -> bool:
    """Whether a device can be used."""
    return cuda.is_available() if _type_of(device) == gpu else True


def device_count(device_type: DeviceType) -> int:
    """How many devices of a type there are to use: one CPU, and at most one GPU a process."""
    return int(is_available(device_type))


def device_info(d: Device | DeviceType | None = None) -> dict[str, str | int]:
    """Facts about a device, the default one for None."""
    kind = _type_of(default_device() if d is None else d)
    if kind == gpu:
        return cuda.device_info()
    return {
        "architecture": platform.machine(),
        "device_name": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
    }


# ---- memory. NumPy's memory belongs to Python and is not tracked: on the CPU everything is 0, and limits do nothing.


def get_active_memory() -> int:
    """Bytes of device memory that arrays use."""
    return cuda.memory("get_active_memory")


def get_peak_memory() -> int:
    """The greatest that `get_active_memory` has been since `reset_peak_memory`."""
    return cuda.memory("get_peak_memory")


def reset_peak_memory() -> None:
    """Start measuring the peak anew."""
    cuda.memory("reset_peak_memory")


def get_cache_memory() -> int:
    """Bytes of device memory kept for reuse."""
    return cuda.memory("get_cache_memory")


def clear_cache() -> None:
    """Give the device memory that is kept for reuse back."""
    cuda.memory("clear_cache")


def get_memory_limit() -> int:
    """The limit that `set_memory_limit` sets, 0 if there is none."""
    return cuda.memory("get_memory_limit")


def set_memory_limit(limit: int) -> int:
    """Set how much device memory may be used; returns the old limit. ValueError if it is negative."""
    return cuda.memory("set_memory_limit", _checked(limit))


def set_cache_limit(limit: int) -> int:
    """Set how much device memory may be kept for reuse; returns the old limit. ValueError if it is negative."""
    return cuda.memory("set_cache_limit", _checked(limit))


def set_wired_limit(limit: int) -> int:
    """For programs written for Apple's GPUs. Does nothing; returns 0."""
    _checked(limit)
    return 0


def _checked(limit: int) -> int:
    if limit < 0:
        raise ValueError(f"a memory limit must not be negative, got {limit}")
    return limit
