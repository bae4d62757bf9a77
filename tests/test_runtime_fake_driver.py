"""The CUDA runtime with no GPU: each of its suites runs in a process of its own, on a driver made of host memory."""

import pytest

from tests.fake_driver.build import run_suite

RUNTIME = ["suite", "memory_suite", "dlpack_suite", "ticket_suite", "arguments_suite"]


@pytest.mark.parametrize("suite", [*RUNTIME, "decode_suite", "product_suite", "algorithms_suite"])
def test_on_the_fake_driver(suite: str) -> None:
    run_suite(suite)


@pytest.mark.parametrize("suite", RUNTIME)
def test_where_a_stream_cannot_write_values(suite: str) -> None:
    run_suite(suite, "WITHOUT_STREAM_VALUES")
