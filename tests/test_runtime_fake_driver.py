"""The CUDA runtime with no GPU: each of its suites runs in a process of its own, on a driver made of host memory."""

import pathlib

from tests.fake_driver.build import run_suite


def test_runtime_on_the_fake_driver(tmp_path: pathlib.Path) -> None:
    run_suite("suite", tmp_path)


def test_memory(tmp_path: pathlib.Path) -> None:
    run_suite("memory_suite", tmp_path)


def test_memory_shared_with_other_libraries(tmp_path: pathlib.Path) -> None:
    run_suite("dlpack_suite", tmp_path)


def test_waiting(tmp_path: pathlib.Path) -> None:
    run_suite("ticket_suite", tmp_path)


def test_arguments_in_memory(tmp_path: pathlib.Path) -> None:
    run_suite("arguments_suite", tmp_path)


def test_driver_calls_of_generating_text(tmp_path: pathlib.Path) -> None:
    run_suite("decode_suite", tmp_path)


def test_sums_with_products(tmp_path: pathlib.Path) -> None:
    run_suite("product_suite", tmp_path)


def test_choice_of_algorithms(tmp_path: pathlib.Path) -> None:
    run_suite("algorithms_suite", tmp_path)


def test_runtime_where_a_stream_cannot_write_values(tmp_path: pathlib.Path) -> None:
    for name in ("suite", "memory_suite", "dlpack_suite", "ticket_suite", "arguments_suite"):
        run_suite(name, tmp_path, "WITHOUT_STREAM_VALUES")
