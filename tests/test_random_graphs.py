"""Random graphs, evaluated in two ways by tools/random_graphs.py; and that it would see a fault."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mlxlite.core as mx
from mlxlite import _graph
from tests.planned_backend import FusedSimulator
from tests.random_graphs import Graph, Output
from tools import random_graphs
from tools.random_graphs import Evaluator, Name, Report

TOOL = Path(__file__).resolve().parents[1] / "tools" / "random_graphs.py"


def run_tool(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *options], capture_output=True, text=True)


@pytest.mark.parametrize(
    "device, graphs, structures",
    [("cpu", 400, 200), ("plans", 400, 200), pytest.param("gpu", 1000, 100, marks=pytest.mark.gpu)],
)
def test_random_graphs_agree(device: str, graphs: int, structures: int) -> None:
    sizes = ("--graphs", str(graphs), "--structures", str(structures), "--processes", "2", "--seed", "7")
    done = run_tool("--device", device, *sizes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{graphs} graphs, \d\d+ arrays compared, 0 failed", done.stdout, re.M), done.stdout


def test_every_op_is_drawn() -> None:
    seen = set()
    for structure in range(800):
        graph = Graph(structure, 0)
        with mx.stream(mx.cpu):  # what is drawn does not depend on the device
            graph.run()
        seen |= {word for line in graph.log for word in re.findall(r"\b[a-z_0-9]+(?=\()", line)}
        seen |= {line.split(": ")[1].split("[")[0] for line in graph.log if ": " in line}
    from tests.random_graphs import elementwise

    wanted = {*elementwise.FUNCTIONS, *elementwise.JUMPS, *elementwise.COMPARISONS, "where", "astype", "bitwise_invert"}
    wanted |= {"sum", "mean", "prod", "max", "min", "any", "all", "logsumexp", "var", "argmax", "argmin", "softmax"}
    wanted |= {"cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "argsort", "topk"}
    wanted |= {"transpose", "reshape", "broadcast_to", "concatenate", "stack", "pad", "roll", "tril", "contiguous"}
    wanted |= {"take", "take_along_axis", "put_along_axis", "slice", "slice_update", "add", "subtract", "eval"}
    wanted |= {
        "addmm",
        "rms_norm",
        "layer_norm",
        "rope",
        "attention",
        "view",
        "full",
        "arange",
        "randint",
        "nan_to_num",
    }
    wanted |= {d.name for d in (mx.bool_, mx.uint8, mx.uint16, mx.uint32, mx.uint64, mx.int8, mx.int16, mx.int32)}
    wanted |= {d.name for d in (mx.int64, mx.float16, mx.bfloat16, mx.float32, mx.float64, mx.complex64)}
    assert wanted <= seen, wanted - seen


@pytest.mark.parametrize("structure", range(20))
def test_a_structure_is_lowered_once_for_a_range_of_sizes(structure: int, device: str) -> None:
    def misses() -> int:
        return sum(info["misses"] for info in _graph.cache_info().values())

    Graph(structure, 0).run()
    for values in range(1, 5):
        before = misses()
        Graph(structure, values).run()
        # On a GPU other kernels may be faster for these sizes; the CPU's plans are for all.
        assert device == "gpu" or misses() == before, values
    before = misses()
    for values in range(5):
        Graph(structure, values).run()
    assert misses() == before


def test_a_wrong_result_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = FusedSimulator.run

    def wrong(self: FusedSimulator) -> list[np.ndarray]:
        return [a + 1 if a.dtype == np.float32 else a for a in right(self)]

    monkeypatch.setattr(FusedSimulator, "run", wrong)
    report = Report(0)
    Evaluator("plans").failures([Name(0, 0), Name(1, 0)], 14, report)
    assert report.graphs == 2 and report.failures
    name, text = report.failures[0]
    assert re.search(r"^v\d+: \d+ of \d+ differ \(float32, by more than", text) and "v0 = leaf" in text
    assert random_graphs.main(["--device", "plans", "--only", str(name)]) == 1
    assert "FAILED v" in capsys.readouterr().out


def test_an_error_of_the_device_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: FusedSimulator) -> list[np.ndarray]:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(FusedSimulator, "run", broken)
    report = Report(0)
    Evaluator("plans").failures([Name(3, 0)], 14, report)
    ((_, text),) = report.failures
    assert text.startswith("the device raised:") and "no such kernel" in text


def test_a_process_that_ends_is_a_failure() -> None:
    if mx.cuda.is_available():
        pytest.skip("ends a process by asking for a GPU that is not there")
    # The graphs themselves raise on a GPU that is missing; structures that are no numbers end the process.
    reports = list(random_graphs.reports_of("cpu", [Name("no number", 0)], 1, 14))  # type: ignore[arg-type]
    assert [name for report in reports for name, _ in report.failures]
    assert "the process ended with 1" in reports[0].failures[0][1]


def test_names_meet_each_structure_several_times() -> None:
    found = random_graphs.names(10, 4, 2)
    assert [str(name) for name in found] == ["8:0", "8:1", "8:2", "9:0", "9:1", "9:2", "10:0", "10:1", "11:0", "11:1"]
    assert len(random_graphs.names(3, 100, 0)) == 3


def test_what_is_compared() -> None:
    a = Output("v", np.array([1.0, np.nan, np.inf]), "float32", 1e-3)
    assert a.difference(Output("v", np.array([1.0015, np.nan, np.inf]), "float32", 1e-3)) is None
    assert "by more than 0.002" in str(a.difference(Output("v", np.array([1.003, np.nan, np.inf]), "float32", 1e-3)))
    assert "first at (1,): 2.0 instead of nan" in str(a.difference(Output("v", np.array([1, 2, np.inf]), "float32", 0)))
    assert "instead of float32" in str(a.difference(Output("v", np.zeros(3), "float16", 1e-3)))
    exact = Output("v", np.array([1, 2]), "int32", 0)
    assert exact.difference(Output("v", np.array([1, 3]), "int32", 0)) is not None
