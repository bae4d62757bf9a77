"""Devices and streams: defaults, contexts, and what is said where there is no GPU."""

from __future__ import annotations

import pytest

from .module_under_test import IS_MLX, mx


def test_the_cpu_is_there():
    assert mx.is_available(mx.cpu)
    assert mx.device_count(mx.cpu) >= 1
    assert isinstance(mx.device_info(mx.cpu), dict)
    assert (mx.ones((2,), stream=mx.cpu) + 1).tolist() == [2, 2]


def test_the_default_device(device):
    assert mx.default_device() == mx.Device(getattr(mx, device))
    assert mx.default_stream(mx.default_device()).device == mx.default_device()


def test_devices_are_values():
    assert mx.Device(mx.cpu) == mx.Device(mx.cpu, 0) == mx.cpu
    assert mx.Device(mx.cpu) != mx.Device(mx.gpu)
    assert mx.Device(mx.cpu).type == mx.cpu and mx.cpu != mx.gpu


def test_setting_the_default_device():
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    assert mx.default_device() == mx.cpu
    assert mx.sum(mx.ones((3,))).item() == 3
    mx.set_default_device(before)


def test_streams():
    stream = mx.new_stream(mx.cpu)
    assert stream.device == mx.cpu and stream != mx.default_stream(mx.cpu)
    before = mx.default_stream(mx.cpu)
    with mx.stream(stream):
        assert mx.default_stream(mx.cpu) == stream
        a = mx.ones((2,)) + 1
    assert mx.default_stream(mx.cpu) == before
    b = mx.add(a, 1, stream=stream)
    mx.synchronize(stream)
    mx.synchronize()
    assert b.tolist() == [3, 3]


def test_a_context_is_left_after_an_error():
    device, stream = mx.default_device(), mx.default_stream(mx.default_device())
    with pytest.raises(ZeroDivisionError), mx.stream(mx.cpu):
        raise ZeroDivisionError
    assert mx.default_device() == device and mx.default_stream(device) == stream


def test_contexts_of_contexts():
    before = mx.default_device()
    with mx.stream(mx.cpu), mx.stream(mx.new_stream(mx.cpu)):
        assert mx.default_device() == mx.cpu
    assert mx.default_device() == before


def test_what_is_no_device():
    for value in ("cpu", 3):
        with pytest.raises((TypeError, ValueError)):
            mx.set_default_device(value)
        with pytest.raises((TypeError, ValueError)):
            mx.ones((2,), stream=value)
        with pytest.raises((TypeError, ValueError)):
            mx.stream(value)


def test_without_a_gpu():
    if mx.is_available(mx.gpu):
        pytest.skip("there is a GPU")
    assert mx.device_count(mx.gpu) == 0
    with pytest.raises((ValueError, RuntimeError)):
        mx.set_default_device(mx.gpu)
    assert mx.default_device() == mx.cpu
    with pytest.raises((ValueError, RuntimeError)):
        mx.eval(mx.ones((2,), stream=mx.gpu))
    assert mx.ones((2,)).tolist() == [1, 1]


@pytest.mark.mlxlite_only
def test_why_there_is_no_gpu():
    reason = mx.cuda.why_unavailable()
    assert (reason is None) == mx.cuda.is_available() == mx.is_available(mx.gpu)
    if reason is not None:
        assert len(reason) > 10
        with pytest.raises((ValueError, RuntimeError)) as error:
            mx.set_default_device(mx.gpu)
        assert reason in str(error.value)


def test_memory_counters():
    for name in ("get_active_memory", "get_peak_memory", "get_cache_memory"):
        assert getattr(mx, name)() >= 0
    mx.reset_peak_memory()
    mx.clear_cache()
    before = mx.set_cache_limit(1 << 20)
    assert mx.set_cache_limit(before) in (1 << 20, 0)


@pytest.mark.gpu
def test_arrays_of_two_devices_meet():
    host, device = mx.arange(4, stream=mx.cpu), mx.arange(4, stream=mx.gpu)
    assert mx.add(host, device, stream=mx.gpu).tolist() == [0, 2, 4, 6]
    assert mx.add(host, device, stream=mx.cpu).tolist() == [0, 2, 4, 6]


@pytest.mark.gpu
def test_memory_of_the_gpu_is_counted():
    if IS_MLX:
        pytest.skip("counted by mlxlite's runtime")
    before = mx.get_active_memory()
    a = mx.ones((1 << 20,), stream=mx.gpu)
    mx.eval(a)
    assert mx.get_active_memory() >= before + a.nbytes
    assert mx.get_peak_memory() >= mx.get_active_memory()
