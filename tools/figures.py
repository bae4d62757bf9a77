"""The table of figures in README.md, from what the benchmarks saved.

python tools/figures.py          # prints it
python tools/figures.py --write  # puts it into README.md
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results" / "h100"
sys.path.insert(0, str(ROOT))

# suite -> cases of the table, in its order.
CASES = {
    "llm": (
        "135M decode 128",
        "1B decode 128",
        "8B decode 128",
        "135M prompt 2048",
        "1B prompt 2048",
        "8B prompt 2048",
        "8B peak memory",
    ),
    "overhead": (
        "record one op",
        "x + 1 and wait",
        "chain of 256, async steady state, per op",
        "192-op program with 16 row sums",
        "192-op program, a new shape each call",
    ),
    "array": (
        "Black-Scholes 16M, plain",
        "Black-Scholes 16M, compiled",
        "sum 8192^2 float32, axis 0",
        "softmax 8192^2 float32",
        "transpose 8192^2 float32",
        "matmul 8192^3 bfloat16",
    ),
    "attention": ("1x32/8 heads, 2048 x 2048, d 128, causal, bfloat16",),
    "kernels": (
        "softmax 8192x8192 bfloat16",
        "layer_norm 16384x4096 bfloat16",
        "sum 1000000x64 float32, axis 1",
        "transpose 8192x8192 bfloat16 to (1, 0)",
        "cumsum 1000000x64 float32, axis 1",
        "sort 16777216 float32, last axis",
        "sort 1000000x64 float32, last axis",
        "topk 1024x32768 float32, 50 of a row",
    ),
    "train": (
        "GPT training step, plain",
        "GPT training step, compiled",
        "GPT training step, plain: peak memory",
    ),
}
PEERS = {"mlx": "MLX", "torch": "PyTorch"}


def _figure(value: float, unit: str) -> str:
    digits = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{digits} {unit}"


def table() -> str:
    """Markdown: each case on mlxlite and on the peer of that run, and how many times better mlxlite is."""
    from benchmarks.run import ratio

    lines = ["| suite | measurement | mlxlite | peer | times better |", "| --- | --- | --- | --- | --- |"]
    for suite, cases in CASES.items():
        record: dict[str, Any] = json.loads((RESULTS / f"{suite}.json").read_text())
        mine = record["results"]["mlxlite"]
        peer = next((p for p in PEERS if p in record["results"]), None)
        other = record["results"][peer] if peer else {}
        for case in cases:
            value, unit, *_ = mine[case]
            theirs = other.get(case)
            there = f"{_figure(*theirs[:2])} ({PEERS[peer]})" if peer and theirs else "not measured in that run"
            times = f"{ratio(value, theirs[0], unit):.2f}" if theirs else ""
            lines.append(f"| {suite} | {case} | {_figure(value, unit)} | {there} | {times} |")
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The GPU and driver of all suites; ValueError if they differ."""
    found = {json.loads((RESULTS / f"{suite}.json").read_text())["machine"]["gpu"] for suite in CASES}
    if len(found) != 1:
        raise ValueError(f"the suites ran on different machines: {sorted(found)}")
    return found.pop()


def with_table(text: str) -> str:
    """README's text with today's table between its markers."""
    made = f"<!-- figures -->\n{table()}<!-- end of figures -->"
    return re.sub(r"<!-- figures -->.*<!-- end of figures -->", lambda _: made, text, flags=re.DOTALL)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        README.write_text(with_table(README.read_text()))
    else:
        print(machine())
        print(table(), end="")
