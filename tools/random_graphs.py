"""Evaluates random graphs in two ways and compares: a long test, of which tests/test_random_graphs.py is a short one.

    python tools/random_graphs.py                       # 20,000 graphs, on the GPU and on the CPU
    python tools/random_graphs.py --device plans        # by the GPU's plans, simulated: needs no GPU
    python tools/random_graphs.py --device cpu          # as one graph, and op by op
    python tools/random_graphs.py --only 12:3           # one of them again, with its program

A graph's name is STRUCTURE:VALUES, the seeds of what is done and of the sizes and numbers. Structures are met several
times, so that most kernels are compiled once. Prints the program of each failure; exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import multiprocessing
import os
import queue
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["MLX_ENABLE_TF32"] = "0"  # products of float32 are compared at float32's precision

BATCH = 20  # graphs that a process evaluates between two reports
PATIENCE = 120  # seconds without a report after which processes are said to hang


@dataclass(frozen=True)
class Name:
    """Of a graph."""

    structure: int
    values: int

    def __str__(self) -> str:
        return f"{self.structure}:{self.values}"


@dataclass
class Report:
    """Of a batch of graphs: how many there were, failures by name, and what the plan cache counted."""

    worker: int
    graphs: int = 0
    failures: list[tuple[Name, str]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    outputs: int = 0


def names(count: int, structures: int, seed: int) -> list[Name]:
    """The graphs of a run, those of one structure side by side."""
    structures = min(structures, count)
    first = seed * structures
    return [Name(first + s, v) for s in range(structures) for v in range(len(range(s, count, structures)))]


class Evaluator:
    """Evaluates graphs on a device and by the reference.

    Args:
        device: "gpu", "plans" or "cpu".
    """

    def __init__(self, device: str) -> None:
        import mlxlite.core as mx
        from backend_cuda.lowering import memory
        from mlxlite import _graph

        self.mx, self.graph, self.device = mx, _graph, device
        mx.set_default_device(mx.cpu)
        mx.eval(mx.zeros(1) + 1)  # the CPU's backend is there, to be replaced
        memory.LEAST_IN_OUTPUT = 1  # arrays of the graphs are small

    def failures(self, batch: list[Name], n_ops: int, report: Report) -> None:
        """Evaluate a batch in both ways, and put what differs into a report."""
        expected = {name: self._run(name, n_ops) for name in batch}
        self._begin()
        for name in batch:
            graph, outputs = expected[name]
            found = self._run(name, n_ops, eager=self.device == "cpu")
            report.graphs += 1
            report.outputs += len(outputs) if isinstance(outputs, list) else 0
            problem = _difference(outputs, found[1])
            if problem is not None:
                report.failures.append((name, f"{problem}\n" + "\n".join(f"    {line}" for line in graph.log)))
        self._end()
        info = self.graph.cache_info()["gpu" if self.device == "gpu" else "cpu"]
        report.counters = {k: info[k] for k in ("hits", "misses", "builds", "evictions")}

    def _run(self, name: Name, n_ops: int, eager: bool = False) -> tuple[Any, Any]:
        """The graph, and its outputs or the error that it raised."""
        from tests.random_graphs import Graph

        graph = Graph(name.structure, name.values, eager)
        try:
            return graph, graph.run(n_ops)
        except Exception as error:
            return graph, "".join(traceback.format_exception(error)[-3:])

    def _begin(self) -> None:
        """From now on graphs are evaluated on the device that is tested."""
        if self.device == "gpu":
            self.mx.set_default_device(self.mx.gpu)
        elif self.device == "plans":
            from tests.planned_backend import PlannedPlan

            self.graph.register_backend("cpu", PlannedPlan)

    def _end(self) -> None:
        """From now on they are evaluated by the reference."""
        if self.device == "gpu":
            self.mx.set_default_device(self.mx.cpu)
        elif self.device == "plans":
            from mlxlite.backend_cpu import lower

            self.graph.register_backend("cpu", lower)


def _difference(expected: Any, found: Any) -> str | None:
    if isinstance(expected, str):
        return f"the reference raised:\n{expected}"
    if isinstance(found, str):
        return f"the device raised:\n{found}"
    for a, b in zip(expected, found, strict=True):
        problem = a.difference(b)
        if problem is not None:
            return f"{a.name}: {problem}"
    return None


def work(worker: int, device: str, batches: list[list[Name]], n_ops: int, reports: Any, current: Any) -> None:
    """What a process does: its batches, a report of each, and None at the end."""
    evaluator = Evaluator(device)
    for batch in batches:
        current[2 * worker], current[2 * worker + 1] = batch[0].structure, batch[0].values
        report = Report(worker)
        evaluator.failures(batch, n_ops, report)
        reports.put(report)
    reports.put(Report(worker, -1))


def reports_of(device: str, wanted: list[Name], processes: int, n_ops: int) -> Iterator[Report]:
    """Evaluate graphs in processes; the reports as they come. A process that dies or hangs is a failure, too.

    All graphs of a structure are evaluated by one process, so that it compiles its kernels and no other does.
    """
    batches: list[list[list[Name]]] = [[] for _ in range(processes)]
    of_structure = collections.defaultdict(list)
    for name in wanted:
        of_structure[name.structure].append(name)
    for k, group in enumerate(of_structure.values()):
        mine = batches[k % processes]
        if mine and len(mine[-1]) + len(group) <= BATCH:
            mine[-1] += group
        else:
            mine.append(group)
    context = multiprocessing.get_context("spawn")
    reports, current = context.Queue(), context.Array("q", 2 * processes)
    running = {}
    for k in range(processes):
        running[k] = context.Process(target=work, args=(k, device, batches[k], n_ops, reports, current), daemon=True)
        running[k].start()
    last = time.monotonic()
    while running:
        try:
            report = reports.get(timeout=1)
            last = time.monotonic()
            if report.graphs < 0:
                running.pop(report.worker).join()
            else:
                yield report
            continue
        except queue.Empty:
            pass
        late = time.monotonic() - last > PATIENCE
        for k, process in list(running.items()):
            if late or process.exitcode is not None:
                place = Name(current[2 * k], current[2 * k + 1])
                what = f"no report for {PATIENCE} s" if late else f"the process ended with {process.exitcode}"
                process.kill()
                del running[k]
                yield Report(k, failures=[(place, f"{what}, in the batch that begins with this graph")])


def run(device: str, wanted: list[Name], processes: int, n_ops: int, most_failures: int) -> int:
    """Evaluate and print; returns how many graphs failed."""
    start = shown = time.monotonic()
    done = outputs = failed = 0
    counters: dict[int, dict[str, int]] = {}
    for report in reports_of(device, wanted, processes, n_ops):
        done, outputs = done + report.graphs, outputs + report.outputs
        counters[report.worker] = report.counters or counters.get(report.worker, {})
        for name, text in report.failures:
            failed += 1
            if failed <= most_failures:
                print(f"\nFAILED {name} (again: --device {device} --only {name}), {text}", flush=True)
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            print(f"{done} of {len(wanted)} graphs, {failed} failed, {shown - start:.0f} s", flush=True)
    total: collections.Counter[str] = collections.Counter()
    for each in counters.values():
        total.update(each)
    seconds = time.monotonic() - start
    print(f"{done} graphs, {outputs} arrays compared, {failed} failed, {seconds:.0f} s; plan caches: {dict(total)}")
    return failed


def again(device: str, name: Name, n_ops: int) -> bool:
    """Evaluate one graph, and print its program; whether it fails."""
    from tests.random_graphs import Graph

    report = Report(0)
    evaluator = Evaluator(device)
    evaluator.failures([name], n_ops, report)
    graph = Graph(name.structure, name.values)
    with contextlib.suppress(Exception):  # the report says so
        graph.run(n_ops)
    print("\n".join(graph.log))
    for _, text in report.failures:
        print("FAILED", text.split("\n    v")[0])
    return bool(report.failures)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["gpu", "plans", "cpu"], default="gpu", help="compared with the CPU")
    parser.add_argument("--graphs", type=int, default=20_000, help="how many")
    parser.add_argument("--structures", type=int, default=1_500, help="of how many structures")
    parser.add_argument("--seed", type=int, default=0, help="another seed has other structures")
    parser.add_argument("--ops", type=int, default=14, help="how many ops are drawn for a graph")
    parser.add_argument("--processes", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--failures", type=int, default=5, help="how many programs of failures are printed")
    parser.add_argument("--only", metavar="STRUCTURE:VALUES", help="this graph, whose program is printed")
    options = parser.parse_args(arguments)
    if min(options.graphs, options.structures, options.processes, options.ops) < 1:
        parser.error("--graphs, --structures, --processes and --ops must be positive")
    import mlxlite.core as mx

    if options.device == "gpu" and mx.cuda.why_unavailable():
        parser.error(f"--device gpu: {mx.cuda.why_unavailable()}")
    if options.only:
        return int(again(options.device, Name(*map(int, options.only.split(":"))), options.ops))
    wanted = names(options.graphs, options.structures, options.seed)
    return int(run(options.device, wanted, options.processes, options.ops, options.failures) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
