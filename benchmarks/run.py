"""Runs benchmark suites on mlxlite and its peers, prints the ratios, and saves figures and plots.

    python benchmarks/run.py overhead array kernels matmul attention llm train

Every peer runs in a process of its own, one after the other on the same machine; those of `matmul` take turns in one
process. A peer that is not installed is left out, and said to be.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.suites import ERROR, LEFT_OUT, RESULT, Figure, tell

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("overhead", "array", "kernels", "matmul", "attention", "llm", "train")
RATES = ("TB/s", "TFLOP/s", "tok/s")


def _version(peer: str) -> str:
    try:
        return importlib.metadata.version(peer)
    except importlib.metadata.PackageNotFoundError:
        return "source tree"


def _installed(peer: str) -> bool:
    return importlib.util.find_spec(peer) is not None


def _gpu() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return platform.processor() or platform.machine()


def _measure(suite: str, peers: list[str], limit: float) -> Iterator[dict[str, dict[str, Any]]]:
    """The results of each peer, as they come."""
    if takes_turns(suite):
        together = _in_a_process(suite, ",".join(peers), limit * len(peers))
        yield {peer: {ERROR: together[ERROR]} for peer in peers} if ERROR in together else together
        return
    results: dict[str, dict[str, Any]] = {}
    for peer in peers:
        results[peer] = _in_a_process(suite, peer, limit)
        yield results


def takes_turns(suite: str) -> bool:
    """Whether the peers are measured in one process."""
    return hasattr(_module_of(suite), "measure_in_turns")


def _module_of(suite: str) -> Any:
    return importlib.import_module(f"benchmarks.suites.{suite}")


def _in_a_process(suite: str, peers: str, limit: float) -> dict[str, Any]:
    """What a suite measures of a peer, or of several with commas between them, in a process of its own.

    Where it fails or takes too long, what it told before, and why there is no more.
    """
    command = [sys.executable, __file__, "--child", suite, peers]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=ROOT)
    except subprocess.TimeoutExpired as late:
        return _told(late.stdout) | {ERROR: f"did not finish within {limit:g} s"}
    told = _told(done.stdout)
    if done.returncode or not told:
        told[ERROR] = (done.stderr or done.stdout).strip()[-2000:]
    return told


def _told(output: str | bytes | None) -> dict[str, Any]:
    """The last results that a process told."""
    text = output.decode() if isinstance(output, bytes) else output or ""
    whole = [line for line in text.splitlines(keepends=True) if line.startswith(RESULT) and line.endswith("\n")]
    return json.loads(whole[-1].removeprefix(RESULT)) if whole else {}


def ratio(mine: float, other: float, unit: str) -> float:
    """How many times better than the other: above 1 is better."""
    return mine / other if unit in RATES else other / mine


def figures_of(results: dict[str, Any]) -> dict[str, Figure]:
    """A peer's figures by case: its results without what says that there are none."""
    return {case: figure for case, figure in results.items() if case not in (ERROR, LEFT_OUT)}


def _cell(figure: Figure | None, mine: Figure | None) -> str:
    """A figure in words; with how many times better mlxlite's is, if that is given."""
    if figure is None:
        return "-"
    value, unit, *details = figure
    words = [f"{value:.4g} {unit}"]
    words += [f"{amount:.3g} {name}" for detail in details for name, amount in detail.items()]
    times = "" if mine is None else f" ({ratio(mine[0], value, unit):.2f}x)"
    return ", ".join(words) + times


def _table(results: dict[str, dict[str, Any]]) -> str:
    figures = {peer: figures_of(found) for peer, found in results.items()}
    mine = figures.get("mlxlite", {})
    rows = [["", *figures]]
    for case in dict.fromkeys(case for found in figures.values() for case in found):
        others = {peer: None if peer == "mlxlite" else mine.get(case) for peer in figures}
        rows.append([case, *(_cell(figures[peer].get(case), others[peer]) for peer in figures)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{row[0]:<{widths[0]}}" + "".join(f"  {text:>{n}}" for text, n in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    for peer, found in results.items():
        lines += [f"{peer} left out {case}: {why}" for case, why in found.get(LEFT_OUT, {}).items()]
        if ERROR in found:
            lines.append(f"{peer} failed: {found[ERROR]}")
    return "\n".join(lines)


def _plot(suite: str, results: dict[str, dict[str, Any]], path: Path) -> None:
    """Ratios of mlxlite to each peer as bars. Needs matplotlib, and says so without it."""
    if not _installed("matplotlib"):
        print(f"(no plot of {suite}: matplotlib is not installed)")
        return
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    results = {peer: figures_of(found) for peer, found in results.items()}
    mine = results.get("mlxlite", {})
    peers = [p for p in results if p != "mlxlite" and results[p]]
    cases = [c for c in mine if any(c in results[p] for p in peers)]
    if not cases:
        return
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(cases) * max(1, len(peers)) + 1.2), layout="constrained")
    height = 0.8 / max(1, len(peers))
    for k, peer in enumerate(peers):
        values = [ratio(mine[c][0], results[peer][c][0], mine[c][1]) if c in results[peer] else 0 for c in cases]
        bars = axes.barh([i + k * height for i in range(len(cases))], values, height, label=f"times faster than {peer}")
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(cases))], cases, fontsize=8)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    figure.savefig(path)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", default=list(SUITES), metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--peers", help="comma-separated; by default each suite's own that are installed")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out", help="folder for JSON and plots")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one peer and suite")
    parser.add_argument("--child", nargs=2, metavar=("SUITE", "PEERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        suite, peers = options.child
        module = _module_of(suite)
        measured = module.measure_in_turns(peers.split(",")) if takes_turns(suite) else module.measure(peers)
        tell(measured)
        return 0
    failed = False
    options.out.mkdir(parents=True, exist_ok=True)
    for suite in options.suites:
        if suite not in SUITES:
            parser.error(f"there is no suite {suite!r}: {', '.join(SUITES)}")
        wanted = options.peers.split(",") if options.peers else _module_of(suite).PEERS
        present = [p for p in wanted if _installed(p)]
        for peer in wanted:
            if peer not in present:
                print(f"({peer} is not installed)")
        machine = {"gpu": _gpu(), "python": platform.python_version()}
        versions = {peer: _version(peer) for peer in present}
        results: dict[str, dict[str, Any]] = {}
        for results in _measure(suite, present, options.limit):
            record = {"suite": suite, "machine": machine, "versions": versions, "results": results}
            (options.out / f"{suite}.json").write_text(json.dumps(record, indent=1) + "\n")
        failed = failed or ERROR in results.get("mlxlite", {})
        print(f"\n{suite} on {machine['gpu']}\n{_table(results)}", flush=True)
        _plot(suite, results, options.out / f"{suite}.svg")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
