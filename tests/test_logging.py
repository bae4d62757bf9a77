"""MLXLITE_LOG: what is lowered, hit, missed, dropped and compiled is told; nothing runs when it is off."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.module_under_test import IS_MLX, mx

if IS_MLX:
    pytest.skip("MLX has no such logs", allow_module_level=True)

from mlxlite import _graph
from mlxlite.observe import log, observers

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """Clears the cache and logs all topics; then a function that gives the lines since it was last called."""
    _graph.clear_plans()
    log.configure("plan,cache,kernel")

    def lines() -> list[str]:
        found = [f"{r.name.removeprefix('mlxlite.')}: {r.getMessage()}" for r in caplog.records]
        caplog.clear()
        return found

    yield lines
    log.configure("")


def evaluate(n: int = 4, dtype: Any = None, hold: bool = False) -> Any:
    a = mx.ones((n, 3)).astype(dtype or mx.float32)
    b = mx.sinh(a * 2) - 1
    c = b.sum(axis=0)
    kept = b if hold else None
    del b
    mx.eval(c)
    return kept


def test_a_lowering_and_its_reason(logged: Any, device: str) -> None:
    evaluate()
    miss, plan = [line for line in logged() if not line.startswith("kernel")]
    number = int(re.match(rf"cache: {device} miss, plan (\d+): new ops ", miss)[1])  # type: ignore[index]
    assert miss.endswith("full+multiply+sinh+subtract+sum")
    nodes = 5 if device == "cpu" else 2
    assert re.match(rf"plan: {device} plan {number}: 5 ops in {nodes} nodes, [\d.]+ [mun]?s: full", plan)
    evaluate(n=7)
    assert logged() == [f"cache: {device} hit, plan {number}"]


@pytest.mark.parametrize(
    "arguments, difference",
    [
        ({"n": 1}, r"#\d+ full: dims \(1, n\), before \(n, n\) \(and \d more\)"),
        ({"hold": True}, r"#\d+ subtract: held by others yes, before no"),
        ({"dtype": "float16"}, r"new ops full\+astype\+multiply\+sinh\+subtract\+sum"),
    ],
)
def test_what_is_new_about_a_structure(logged: Any, device: str, arguments: dict[str, Any], difference: str) -> None:
    if "dtype" in arguments:
        arguments = {"dtype": mx.float16}
    evaluate()
    logged()
    evaluate(**arguments)
    misses = [line for line in logged() if line.startswith("cache")]
    assert len(misses) == 1 and re.fullmatch(rf"cache: {device} miss, plan \d+: {difference}", misses[0])


def test_another_dtype_of_the_same_ops(logged: Any) -> None:
    for dtype in (mx.float32, mx.float16):
        a = mx.ones((2, 3), dtype=dtype)
        mx.eval(a)
        logged()
        mx.eval(mx.tanh(a))
    assert any("#0 array: dtype float16, before float32" in line for line in logged())


def test_evictions_have_a_reason(logged: Any, device: str) -> None:
    capacity = _graph.cache_info()[device]["capacity"]
    try:
        evaluate()
        _graph.set_plan_capacity(device, 1)
        logged()
        evaluate(n=1)
        assert f"cache: {device} evicted 1: the cache is full (set_plan_capacity)" in logged()
        evaluate()
        assert any(line.endswith(": its plan was dropped") for line in logged())
        _graph.set_plan_capacity(device, 2)
        evaluate(n=1)
        logged()
        _graph.set_plan_capacity(device, 1)
        assert logged() == [f"cache: {device} evicted 1: the capacity was lowered"]
    finally:
        _graph.set_plan_capacity(device, capacity)


def test_kernels_tell_where_they_come_from(logged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backend_cuda.kernels import compile as kernels

    try:
        kernels._nvrtc()
    except RuntimeError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("MLXLITE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "_memory", {})
    source = 'extern "C" __global__ void logged_kernel(float* a) { *a = 1; }'
    kernels.compile_cubin(source, "sm_90", "logged_kernel")
    kernels.compile_cubin(source, "sm_90", "logged_kernel")
    kernels._memory.clear()
    kernels.compile_cubin(source, "sm_90", "logged_kernel")
    compiled, memory, disk = logged()
    assert re.fullmatch(r"kernel: logged_kernel for sm_90: compiled in [\d.]+ ms", compiled)
    assert memory == "kernel: logged_kernel for sm_90: in memory"
    assert re.fullmatch(r"kernel: logged_kernel for sm_90: from disk in [\d.]+ ms", disk)


def test_off_it_runs_nothing_on_an_evaluation() -> None:
    evaluate()
    called: list[str] = []

    def tracer(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and Path(frame.f_code.co_filename).parent.name == "observe":
            called.append(frame.f_code.co_name)

    sys.setprofile(tracer)
    try:
        evaluate()
        evaluate(hold=True)
    finally:
        sys.setprofile(None)
    assert called == [] and observers._all.observers == []


def test_a_topic_alone_is_logged_alone(caplog: pytest.LogCaptureFixture) -> None:
    _graph.clear_plans()
    try:
        log.configure(" plan ,")
        evaluate()
        assert {r.name for r in caplog.records} == {"mlxlite.plan"}
        assert {r.levelno for r in caplog.records} == {logging.INFO}
    finally:
        log.configure("")


def run(topics: str, program: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MLXLITE_LOG": topics, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)


def test_the_environment_switches_it_on() -> None:
    program = "import mlxlite.core as mx\nmx.set_default_device(mx.cpu)\nfor _ in range(2): mx.eval(mx.ones(3) + 1)"
    done = run("plan,cache", program)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and len(lines) == 3
    assert lines[0] == "mlxlite.cache: cpu miss, plan 1: new ops full+add"
    assert lines[1].startswith("mlxlite.plan: cpu plan 1: 2 ops in 2 nodes, ")
    assert lines[2] == "mlxlite.cache: cpu hit, plan 1"
    assert run("", program).stderr == ""


def test_handlers_of_the_program_are_used_alone() -> None:
    program = (
        "import logging, sys\nlogging.basicConfig(stream=sys.stdout, level=logging.INFO, format='mine %(message)s')\n"
        "import mlxlite.core as mx\nmx.set_default_device(mx.cpu)\nmx.eval(mx.ones(3) + 1)"
    )
    done = run("cache", program)
    assert done.stderr == "" and done.stdout == "mine cpu miss, plan 1: new ops full+add\n"


def test_an_unknown_topic_is_an_error() -> None:
    done = run("plans", "import mlxlite.core")
    assert done.returncode == 1
    assert "ValueError: MLXLITE_LOG: there is no topic 'plans'; the topics are plan, cache, kernel" in done.stderr


def test_an_observer_that_fails_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    class Broken(observers.Observer):
        def evaluated(self, *arguments: Any) -> None:
            raise KeyError("broken")

        def wants_tape(self, device: str, plan: Any) -> bool:
            raise KeyError("broken")

    broken = Broken()
    observers.add(broken)
    try:
        assert (mx.ones(3) * 2).tolist() == [2, 2, 2]
    finally:
        observers.remove(broken)
    assert [type(r.exc_value) for r in reported] == [KeyError, KeyError]
