"""Options, markers and the device of the tests."""

from __future__ import annotations

import argparse
import os
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

# The helpers of the kernel tests are imported by their own names.
sys.path.insert(0, str(Path(__file__).parent))

# Products of float32 are compared at float32's precision.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

from tests.deviations import CRASHES, DEVIATIONS
from tests.module_under_test import IS_MLX, mx


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=["cpu", "gpu", "plans"],
        default="cpu",
        help="where arrays of the tests live; plans: on the CPU, evaluated by the GPU's plans, which are simulated",
    )

    parser.addoption(
        "--part",
        type=_part,
        default=(0, 1),
        metavar="I/N",
        help="every Nth test from the Ith on, counted from 0: for several processes that know nothing of one another",
    )


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I < N")
    return int(index), int(count)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mlxlite_only: looks at something that MLX does not have; skipped on MLX")
    device = config.getoption("--device")
    if device == "gpu" and not mx.is_available(mx.gpu):
        raise pytest.UsageError(f"--device gpu: {why_no_gpu()}")
    # Here and not in a fixture: some test modules make arrays when they are imported.
    mx.set_default_device(mx.gpu if device == "gpu" else mx.cpu)
    if device == "gpu" and not IS_MLX:
        from backend_cuda.lowering import memory

        memory.LEAST_IN_OUTPUT = 1  # arrays of tests are small
    if device == "plans":
        if IS_MLX:
            raise pytest.UsageError("--device plans: MLX has no plans to simulate")
        from tests import planned_backend

        planned_backend.register()


# What looks at generated kernels, plans, a driver of our own making, or the sources: the same whatever the device.
ON_NO_DEVICE = ("kernels_*", "lowering*", "runtime_*", "typing", "docs")
# What looks at a backend and not at arrays, and programs that take long.
NOT_ON_PLANS = ("explain", "profile", "logging", "generate", "lora", "train_*", "gpu", "benchmarks", "random_graphs")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    left_out = {"cpu": (), "gpu": ON_NO_DEVICE, "plans": (*ON_NO_DEVICE, *NOT_ON_PLANS)}[config.getoption("--device")]
    return any(collection_path.match(f"test_{name}.py") for name in left_out) or None


def why_no_gpu() -> str | None:
    """Why there is no GPU to test on; None if there is one."""
    return "MLX's wheel for CPUs has no GPU" if IS_MLX else mx.cuda.why_unavailable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    index, count = config.getoption("--part")
    items[:] = items[index::count]
    reason = why_no_gpu()
    for item in items:
        if item.get_closest_marker("gpu") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        if IS_MLX:
            _mark_for_mlx(item)


def _mark_for_mlx(item: pytest.Item) -> None:
    if item.get_closest_marker("mlxlite_only"):
        item.add_marker(pytest.mark.skip(reason="looks at something that MLX does not have"))
        return
    name = item.nodeid.removeprefix("tests/")
    for table, run in ((DEVIATIONS, True), (CRASHES, False)):
        for pattern, argument in table.items():
            # An id has brackets, which mean something else to fnmatch.
            if fnmatch(name, pattern.replace("[", "[[]")):
                item.add_marker(pytest.mark.xfail(strict=True, run=run, reason=argument))


@pytest.fixture(autouse=True)
def default_device_stays(request: pytest.FixtureRequest):
    """Every test starts and ends with the device of `--device` as the default."""
    device = mx.gpu if request.config.getoption("--device") == "gpu" else mx.cpu
    mx.set_default_device(device)
    yield
    mx.set_default_device(device)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """`cpu` or `gpu`."""
    return "gpu" if request.config.getoption("--device") == "gpu" else "cpu"


@pytest.fixture
def is_fused(request: pytest.FixtureRequest) -> bool:
    """Whether arrays are evaluated by the GPU's plans, which round a fused group of 16-bit floats once."""
    return request.config.getoption("--device") != "cpu"
