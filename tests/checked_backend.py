"""A CPU backend that also lowers every tape for the GPU and simulates the plan, with and without fusion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import mlxlite.core as mx
from mlxlite import _graph
from mlxlite.backend_cpu.plan import CpuPlan
from tests import planned_backend
from tests.plan_simulator import Call, Simulator, lower_as_large

ORDERS = 2  # random orders of each plan


class CheckedPlan:
    """Evaluates by the CPU backend; raises AssertionError if a simulated plan gives something else."""

    def __init__(self, tape: Any, checks: list[Any]) -> None:
        self.tape = tape
        self.cpu = CpuPlan(tape)
        self.plans = [lower_as_large(tape, fuse) for fuse in (True, False)]
        self.checks = checks

    def run(self, sizes: list[int], scalars: list[Any], leaves: list[np.ndarray]) -> list[np.ndarray]:
        copies = [np.array(leaf) for leaf in leaves]
        expected = self.cpu.run(sizes, scalars, leaves)
        tape = self.tape
        call = Call(tape.nodes, tape.outputs, tape.leaves, tape.n_sizes, tape.n_scalars, list(sizes), list(scalars))
        for plan in self.plans:
            for seed in range(ORDERS):
                found = Simulator(plan, call, copies, seed).run()
                for k, (a, b) in enumerate(zip(found, expected, strict=True)):
                    _compare(a, b, f"output {k}: {tape.nodes[tape.outputs[k]].name}")
        self.checks.append(self.plans[0])
        return expected


def _compare(found: np.ndarray, expected: Any, what: str) -> None:
    expected = np.asarray(expected)
    assert found.shape == expected.shape, f"{what} has shape {found.shape}, not {expected.shape}"
    assert found.dtype == expected.dtype, f"{what} is {found.dtype}, not {expected.dtype}"
    # The same rules compute both: only the order of a sum may differ, where strides do.
    if found.dtype.kind in "biu":
        np.testing.assert_array_equal(found, expected, what)
    else:
        wide = np.complex128 if found.dtype.kind == "c" else np.float64
        rtol = 1e-5 if found.dtype.itemsize >= 4 and found.dtype.kind != "V" else 1.6e-2
        np.testing.assert_allclose(found.astype(wide), expected.astype(wide), rtol, 1e-5, err_msg=what)


@contextlib.contextmanager
def checked() -> Iterator[list[Any]]:
    """Every CPU evaluation inside is checked; yields the list of the plans that were.

    Skips the test where arrays live on the GPU, and where all plans are simulated anyway.
    """
    if mx.default_device() == mx.Device(mx.gpu) or planned_backend.active:
        pytest.skip("plans are checked where arrays are on the CPU")
    checks: list[Any] = []

    def lowered(tape: Any) -> tuple[CheckedPlan, list[Any]]:
        plan = CheckedPlan(tape, checks)
        return plan, plan.plans[0].table.ranges

    _graph.register_backend("cpu", lowered)
    try:
        yield checks
    finally:
        from mlxlite.backend_cpu import lower as cpu_lower

        _graph.register_backend("cpu", cpu_lower)
