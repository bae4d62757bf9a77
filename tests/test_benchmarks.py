"""The benchmarks: small sizes of every suite that has them run, and what is measured is what the names say."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import run, timing
from benchmarks.peers import Arrays, peer_named
from benchmarks.suites import LEFT_OUT, kernels, llm, matmul
from tests.differential import assert_close, to_numpy
from tests.module_under_test import IS_MLX

pytestmark = pytest.mark.skipif(IS_MLX, reason="measures mlxlite, and MLX as its peer")

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "MLXLITE_BENCH_KERNELS": "tiny",
    "MLXLITE_BENCH_MATMUL": "tiny",
    "MLXLITE_BENCH_MODELS": "tiny,Qwen tiny",
    "MLXLITE_BENCH_TRAIN": "tiny",
}
CASES = {
    "kernels": {"copy 12^2 float32", *(case.name for case in kernels.cases(kernels.SIZES["tiny"]))},
    "matmul": {
        chain.name for which in (matmul.large, matmul.few_rows) for chain in which(matmul.SIZES["tiny"])
    },
    "llm": {f"{name} {what}" for name in llm.TINY for what in ("prompt 2048", "decode 128", "peak memory")}
    | {"copy 12^2 float32"}
    | {"tiny start of a process to a first token"},
    "train": {f"GPT training step, {what}" for what in ("plain", "plain: peak memory", "compiled")},
}  # fmt: skip


@pytest.mark.parametrize("suite", CASES)
def test_a_suite_runs_and_saves_its_figures(suite: str, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "run.py", suite, "--peers", "mlxlite", "--out", tmp_path]
    done = subprocess.run(command, env=os.environ | TINY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / f"{suite}.json").read_text())
    assert record["suite"] == suite and set(record["versions"]) == {"mlxlite"}
    figures = record["results"]["mlxlite"]
    assert set(figures) == CASES[suite]
    for case, (value, unit, *details) in figures.items():
        assert value > 0 or unit == "GB", case  # memory is not counted on the CPU
        assert all(amount > 0 for detail in details for amount in detail.values()), case
        assert case in done.stdout


def test_the_names_of_full_sizes_are_distinct() -> None:
    names = [case.name for case in kernels.cases(kernels.SIZES["full"])]
    names += [chain.name for which in (matmul.large, matmul.few_rows) for chain in which(matmul.SIZES["full"])]
    assert len(set(names)) == len(names) > 150


@pytest.mark.parametrize("other", ["mlx", "torch"])
def test_peers_compute_the_same(other: str) -> None:
    """Each kernel, asked for in the words of each peer, on the same inputs."""
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    mine, theirs = Arrays("mlxlite"), peer_named(other)
    for case in kernels.cases(kernels.SIZES["tiny"]):
        inputs = [mine.make(spec) for spec in case.inputs]
        given = [_given(theirs, to_numpy(a)) for a in inputs]
        found = case.arrays(mine.module, *inputs)
        expected = (case.torch if other == "torch" else case.arrays)(theirs.module, *given)
        assert found.nbytes == expected.nbytes, case.name
        a, b = to_numpy(found), _taken(theirs, expected)
        if case.name.startswith("topk"):  # in no order
            a, b = np.sort(a, axis=-1), np.sort(b, axis=-1)
        assert_close(a, b, case=case.name, scale=8)


def _given(peer: Any, values: np.ndarray) -> Any:
    """An array of a peer with the values and dtype of NumPy's."""
    make = peer.module.tensor if peer.name == "torch" else peer.module.array
    if values.dtype.name == "bfloat16":
        return make(values.astype(np.float32), dtype=peer.module.bfloat16)
    return make(values)


def _taken(peer: Any, a: Any) -> np.ndarray:
    return (a.float() if peer.name == "torch" else a.astype(peer.module.float32)).__array__()


def test_chains_multiply_as_their_names_say() -> None:
    on = Arrays("mlxlite")
    size = matmul.SIZES["tiny"]
    for chain in (*matmul.large(size), *matmul.few_rows(size)):
        x = on.make((chain.input, chain.dtype))
        weights = [on.make((chain.weight(i), chain.dtype), 0.3) for i in range(chain.links)]
        assert sum(w.nbytes for w in weights) == chain.weight_bytes
        # Rows of features, whatever the layout: layout tn has them as columns, nt the weights transposed.
        rows, matrices = to_numpy(x).astype(np.float64), [to_numpy(w).astype(np.float64) for w in weights]
        rows = rows.swapaxes(-1, -2) if chain.layout == "tn" else rows
        operations = 0
        for w in matrices:
            w = w.swapaxes(-1, -2) if chain.layout == "nt" else w
            operations += 2 * rows.size * w.shape[-1]
            rows = rows @ w
        assert operations == chain.operations
        found = to_numpy(chain(on.module, x, *weights))
        expected = rows.swapaxes(-1, -2) if chain.layout == "tn" else rows
        tolerance = {"bfloat16": 3e-2, "float16": 4e-3, "float32": 2e-6}[chain.dtype]
        assert_close(found, expected, case=chain.name, tolerance=tolerance * chain.links**0.5, scale=2)


@pytest.mark.parametrize("name", llm.TINY)
def test_a_token_reads_the_weights_that_the_model_has(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlxlite.utils import tree_flatten

    config, seen = llm.TINY[name], []
    monkeypatch.setattr(llm, "_runs", lambda steps, config, mx: [])
    monkeypatch.setattr(llm, "_finish_loading", lambda model, mx: seen.append(model))
    llm._mlxlite(config, Arrays("mlxlite").module)
    sizes = {path: a.size for path, a in tree_flatten(seen[0].parameters())}
    unread = 0 if config["tie_word_embeddings"] else sizes["model.embed_tokens.weight"]
    assert llm.weights(config) == sum(sizes.values()) - unread
    cached = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * llm._head_dim(config)
    assert llm.bytes_per_token(config) == 2 * llm.weights(config) + 2 * cached * (2048 + 64)


def test_what_a_peer_refuses_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(m: Any, x: Any) -> Any:
        raise NotImplementedError("no such kernel")

    spec = ((3, 4), "float32")
    good = kernels.Case("good", (spec,), lambda m, x: x * 2, lambda m, x: x * 2)
    monkeypatch.setattr(kernels, "cases", lambda size: iter((good, kernels.Case("bad", (spec,), refuse, refuse))))
    monkeypatch.setenv("MLXLITE_BENCH_KERNELS", "tiny")
    with pytest.raises(NotImplementedError):
        kernels.measure("mlxlite")
    if importlib.util.find_spec("mlx") is None:
        pytest.skip("mlx is not installed")
    results = kernels.measure("mlx")
    assert set(run.figures_of(results)) == {"copy 12^2 float32", "good"}
    assert results[LEFT_OUT] == {"bad": "NotImplementedError: no such kernel"}
    assert "mlx left out bad: NotImplementedError: no such kernel" in run._table({"mlx": results})


def test_what_was_measured_in_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that is cut after two results and part of a third."""
    told = b'noise\nRESULT {"a": [1, "ms"]}\nRESULT {"a": [1, "ms"], "b": [2, "ms"]}\nRESULT {"a": [1, "m'

    def cut(command: list[Any], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"], output=told)

    monkeypatch.setattr(subprocess, "run", cut)
    found = list(run._measure("kernels", ["mlxlite", "torch"], 3))[-1]
    assert run.figures_of(found["mlxlite"]) == {"a": [1, "ms"], "b": [2, "ms"]} == run.figures_of(found["torch"])
    assert "mlxlite failed: did not finish within 3 s" in run._table(found)
    assert set(list(run._measure("matmul", ["mlxlite", "torch"], 3))[-1]["torch"]) == {run.ERROR}


def test_the_table_says_how_many_times_better_mlxlite_is() -> None:
    results = {
        "mlxlite": {"a": (2.0, "ms", {"of copy": 0.5}), "b": (30.0, "TB/s")},
        "torch": {"a": (3.0, "ms"), "b": (10.0, "TB/s"), "c": (1.0, "us")},
        "jax": {"error": "no memory"},
    }
    lines = run._table(results).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["mlxlite", "torch", "jax"],
        ["a", "2", "ms,", "0.5", "of", "copy", "3", "ms", "(1.50x)", "-"],
        ["b", "30", "TB/s", "10", "TB/s", "(3.00x)", "-"],
        ["c", "-", "1", "us", "-"],
    ]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[4:] == ["jax failed: no memory"]


def test_queued_calls_take_turns_and_are_waited_for_once_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row, rows, now = "", [], 0.0

    def call(name: str) -> Any:
        def queue() -> None:
            nonlocal now, row
            now, row = now + 100e-6, row + name

        return queue

    def wait() -> None:
        nonlocal row
        rows.append(row)
        row = ""

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    found = timing.queued_us([call("a"), call("b")], wait, aim_us=1001)
    assert found == pytest.approx(100)
    assert rows == ["abab", "ab", *["ababababab"] * 6]


def test_peers_take_turns_in_rows_of_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, now = [""], 0.0

    def peer(name: str, microseconds: float) -> tuple[Any, Any]:
        def call() -> None:
            nonlocal now
            now += 1e-6 * microseconds
            rows[-1] += name

        return call, lambda: rows.append("")

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    found = timing.in_turns_us([peer("a", 100), peer("b", 250)], aim_us=501)
    assert found == pytest.approx([100, 250])
    a, b = "a" * 5, "b" * 5
    assert rows[:-1] == ["aaa", "bbb", "aaa", "bbb", a, b, b, a, a, b, b, a, a, b]
