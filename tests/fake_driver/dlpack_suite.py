"""Memory shared with other libraries, on the fake driver: who waits for whom, and when it is given back.

Run by tests/test_runtime_fake_driver.py.
"""

import ctypes
import gc

import numpy as np
import pytest
from framework import gpu  # noqa: F401  (a fixture)
from suite import FAKE, journal_of

import mlxlite.core as mx

pytestmark = pytest.mark.usefixtures("gpu")
FAKE.cuStreamCreate.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint]
OWN = "stream1"  # the compute stream, which is created first


@pytest.fixture(autouse=True)
def nothing_of_before():
    gc.collect()
    mx.clear_cache()


class Foreign:
    """Another library's tensor, in memory that `array` lends it."""

    def __init__(self, array, device=(2, 0), versions=True):
        self.array, self.device, self.versions, self.stream = array, device, versions, None

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream, **options):
        if options and not self.versions:
            raise TypeError("no such argument: max_version")
        self.stream = stream
        return self.array.__dlpack__(stream=1, max_version=(1, 0))


def on_gpu(n=1000):
    a = mx.zeros(n) + 1
    mx.eval(a)
    return a


def address(array):
    """Of the first element, by the tensor in a capsule."""
    capsule = array.__dlpack__(stream=-1, max_version=(1, 0))
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    managed = get(capsule, b"dltensor_versioned")
    return ctypes.cast(managed + 32, ctypes.POINTER(ctypes.c_void_p))[0]


def order(function):
    """Which streams were made to wait for which."""
    words, result = journal_of(function)
    return [w for w in words if "-after-" in w or w == "context"], result


def handle():
    stream = ctypes.c_void_p()
    FAKE.cuStreamCreate(ctypes.byref(stream), 0)
    return stream.value


def test_a_consumer_waits_for_the_values_and_we_for_the_consumer():
    a = on_gpu()
    assert a.__dlpack_device__() == (2, 0)
    words, capsules = order(lambda: [(a + 1).__dlpack__(max_version=(1, 0))])
    assert words == [f"legacy-after-{OWN}"]
    assert order(capsules.clear)[0] == [f"{OWN}-after-legacy"]


def test_a_stream_that_may_be_gone_is_not_named_again():
    a = on_gpu()
    words, capsules = order(lambda: [a.__dlpack__(stream=handle(), max_version=(1, 0))])
    assert len(words) == 1 and words[0].endswith(f"-after-{OWN}") and words[0] != f"legacy-after-{OWN}"
    assert order(capsules.clear)[0] == ["context"]
    words, capsules = order(lambda: [a.__dlpack__(stream=-1, max_version=(1, 0))])
    assert words == [] and order(capsules.clear)[0] == ["context"]


def test_memory_is_shared_and_lives_as_long_as_somebody_has_it():
    before = mx.get_active_memory()
    a = on_gpu(1 << 20)
    where = address(a)
    capsule = a.__dlpack__(max_version=(1, 0))
    del a
    gc.collect()
    assert mx.get_active_memory() == before + (4 << 20)
    b = on_gpu(1 << 20)
    assert address(b) != where
    del capsule, b
    assert mx.get_active_memory() == before


def test_a_consumer_that_knows_no_flags_gets_a_copy():
    a = on_gpu()
    before = mx.get_active_memory()
    capsule = a.__dlpack__()
    assert mx.get_active_memory() > before
    del capsule
    assert mx.get_active_memory() == before
    with pytest.raises(BufferError, match="must not change"):
        a.__dlpack__(copy=False)


@pytest.mark.parametrize("versions", [True, False])
def test_a_shared_tensor_has_its_memory_and_our_stream(versions):
    a = on_gpu()
    foreign = Foreign(a, versions=versions)
    b = mx.from_dlpack(foreign, copy=False)
    assert address(b) == address(a) and b.shape == a.shape and b.dtype == a.dtype
    capsule = b.__dlpack__(stream=foreign.stream, max_version=(1, 0))  # ours: a stream that the driver knows
    del capsule
    c = mx.from_dlpack(foreign)
    assert address(c) != address(a)


def test_what_is_shared_is_never_written():
    a = on_gpu()
    b = mx.from_dlpack(Foreign(a), copy=False)
    where = address(a)
    b[3] = 7
    mx.eval(b)
    assert address(b) != where
    own = on_gpu()
    where = address(own)
    own[3] = 7
    mx.eval(own)
    assert address(own) == where


def test_a_tensor_goes_back_when_the_work_that_reads_it_is_done():
    before = mx.get_active_memory()
    b = mx.from_dlpack(Foreign(on_gpu(1 << 20)), copy=False)
    gc.collect()
    FAKE.fake_hold(1)
    try:
        c = b + 1
        mx.async_eval(c)
        del b
        assert mx.get_active_memory() == before + (8 << 20)
    finally:
        FAKE.fake_hold(0)
    mx.synchronize()
    mx.clear_cache()  # which looks for what is done
    assert mx.get_active_memory() == before + (4 << 20)


def test_strided_tensors_and_parts_of_memory():
    a = on_gpu(24)
    part = mx.from_dlpack(Foreign(a), copy=False).reshape(4, 6)[1:, 2:].T
    mx.eval(part)
    shared = mx.from_dlpack(Foreign(part), copy=False)
    assert shared.shape == (4, 3) and address(shared) == address(part)
    empty = mx.from_dlpack(Foreign(on_gpu(0)), copy=False)
    assert empty.shape == (0,)


def test_refusals():
    a = on_gpu()
    with pytest.raises(ValueError, match="stream 0 could be either"):
        a.__dlpack__(stream=0)
    with pytest.raises(ValueError, match="got -2"):
        a.__dlpack__(stream=-2)
    with pytest.raises(BufferError, match=r"device \(2, 0\) cannot be had on \(2, 1\)"):
        a.__dlpack__(dl_device=(2, 1))
    with pytest.raises(BufferError, match="without a copy"):
        a.__dlpack__(dl_device=(1, 0), copy=False, max_version=(1, 0))
    with pytest.raises(ValueError, match="DLPack's device type 8"):
        mx.from_dlpack(Foreign(a, (8, 0)))


def test_an_array_in_host_memory_is_handed_out_on_the_default_device():
    a = mx.array([1, 2])
    assert a.__dlpack_device__() == (2, 0)
    np.testing.assert_array_equal(np.from_dlpack(a, device="cpu"), [1, 2])
    assert order(lambda: a.__dlpack__(max_version=(1, 0)))[0] == [f"legacy-after-{OWN}"]
    assert ctypes.cast(address(a), ctypes.POINTER(ctypes.c_int32))[:2] == [1, 2]
