"""The device's memory, on the fake driver: what is cached, counted, limited and given back.

Run by tests/test_runtime_fake_driver.py.
"""

import numpy as np
import pytest
from suite import API, FAKE, upload

from backend_cuda import _runtime


def test_large_uploads_and_downloads():
    data = np.random.default_rng(0).integers(0, 255, 20_000_003, dtype=np.uint8)
    np.testing.assert_array_equal(upload(data).numpy(np.uint8), data)
    assert upload(np.empty(0)).address is None
    block = upload(data[:100])
    with pytest.raises(IndexError):
        API.download(0, block.pointer, 50, 51, 0)


@pytest.mark.parametrize("nbytes", [1, 512, 513, 8192, 8193, 9000, 100_000, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_size_classes_hold_the_request_with_bounded_waste(nbytes):
    size = _runtime.size_class(nbytes)
    assert size >= nbytes and size % 512 == 0
    assert size - nbytes < max(512, nbytes / 8, 2 << 20 if nbytes > 1 << 20 else 0)
    assert _runtime.size_class(size) == size


def test_memory_is_cached_counted_and_given_back():
    _runtime.clear_cache()
    base = _runtime.memory_info()
    _runtime.reset_peak_memory()
    block = upload(np.zeros(3 << 20, np.uint8))
    info = _runtime.memory_info()
    assert info["active"] == base["active"] + (4 << 20) == info["peak"]
    address = block.address
    del block
    assert _runtime.memory_info()["cache"] >= base["cache"] + (4 << 20)
    assert upload(np.zeros(int(3.9 * 2**20), np.uint8)).address == address
    _runtime.clear_cache()
    assert _runtime.memory_info()["active"] == base["active"]
    assert FAKE.fake_in_use() == _runtime.memory_info()["active"] + _runtime.memory_info()["cache"]
    assert _runtime.memory_info()["cache"] < 2 << 20 or base["active"]


def test_cache_limit():
    _runtime.clear_cache()
    previous = _runtime.set_cache_limit(0)
    try:
        before = FAKE.fake_in_use()
        del_me = upload(np.zeros(16 << 20, np.uint8))
        assert FAKE.fake_in_use() == before + (16 << 20)
        del del_me
        assert FAKE.fake_in_use() == before
    finally:
        assert _runtime.set_cache_limit(previous) == 0


def test_out_of_memory_frees_the_cache_first_and_then_says_what_was_asked():
    _runtime.clear_cache()
    cached = upload(np.zeros(32 << 20, np.uint8))
    del cached
    FAKE.fake_set_capacity(FAKE.fake_in_use() + (8 << 20))
    try:
        assert upload(np.zeros(34 << 20, np.uint8)).address
        with pytest.raises(RuntimeError, match=r"out of memory: 67108864 bytes were requested"):
            upload(np.zeros(64 << 20, np.uint8))
    finally:
        FAKE.fake_set_capacity(1 << 40)


def test_memory_limit_is_enforced_before_the_driver_is_asked():
    _runtime.clear_cache()
    previous = _runtime.set_memory_limit(FAKE.fake_in_use() + (4 << 20))
    try:
        with pytest.raises(RuntimeError, match="the memory limit"):
            upload(np.zeros(64 << 20, np.uint8))
    finally:
        _runtime.set_memory_limit(previous)
    upload(np.zeros(64 << 20, np.uint8))
