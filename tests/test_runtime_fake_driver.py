"""The CUDA runtime with no GPU: each of its suites runs in a process of its own, on a driver made of host memory."""

from tests.fake_driver.build import run_suite


def test_runtime_on_the_fake_driver() -> None:
    run_suite("suite")


def test_memory() -> None:
    run_suite("memory_suite")


def test_memory_shared_with_other_libraries() -> None:
    run_suite("dlpack_suite")


def test_waiting() -> None:
    run_suite("ticket_suite")


def test_arguments_in_memory() -> None:
    run_suite("arguments_suite")


def test_driver_calls_of_generating_text() -> None:
    run_suite("decode_suite")


def test_sums_with_products() -> None:
    run_suite("product_suite")


def test_choice_of_algorithms() -> None:
    run_suite("algorithms_suite")


def test_runtime_where_a_stream_cannot_write_values() -> None:
    for name in ("suite", "memory_suite", "dlpack_suite", "ticket_suite", "arguments_suite"):
        run_suite(name, "WITHOUT_STREAM_VALUES")
