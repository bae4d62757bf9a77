"""Run the examples of docs/observability.md and write what they print below them; with --check, only compare.

An example is a block ```` ```python ````, perhaps with variables of the environment after the word, as in
```` ```python MLXLITE_LOG=plan ````; what it prints stands in the block ```` ```text ```` that follows. Examples run
with no GPU. Times and what follows from them differ from run to run: that there is one is compared, not which.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "observability.md"
_EXAMPLE = re.compile(
    r"```python(?P<environment>[^\n]*)\n(?P<program>.*?)```\n(?P<between>\s*)```text\n(?P<text>.*?)```", re.S
)


def printed(program: str, environment: str) -> str:
    """What a program prints, to either stream."""
    chosen = dict(pair.split("=", 1) for pair in environment.split())
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLXLITE_", "MLX_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=inherited | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)} | chosen,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise SystemExit(f"an example of {DOCUMENT.name} fails:\n{done.stdout}")
    return "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


def comparable(text: str, measured: bool) -> str:
    """The text without what differs from run to run, if it was measured."""
    if not measured:
        return text
    text = re.sub(r"[\d.]+ (?:ns|us|ms|s)\b", "TIME", text)
    text = re.sub(r"\(?\b\d+%\)?", "PART", text)
    lines = [line for line in re.sub(r"[ \t]+", " ", text).splitlines() if line.strip()]
    # Rows of nodes are in the order of their times; the split of the host is wrapped where it happens to be full.
    return "\n".join(sorted(" ".join(lines).split(" ")))


def examples(document: str) -> list[re.Match[str]]:
    """The examples of a document, in order."""
    return list(_EXAMPLE.finditer(document))


def is_measured(example: re.Match[str]) -> bool:
    """Whether an example prints times."""
    return "profile" in example["program"] or "MLXLITE_LOG" in example["environment"]


def main(arguments: list[str]) -> int:
    document = DOCUMENT.read_text()
    stale = 0
    for example in reversed(examples(document)):
        found = printed(example["program"], example["environment"])
        if comparable(found, is_measured(example)) == comparable(example["text"], is_measured(example)):
            continue
        stale = 1
        document = document[: example.start("text")] + found + document[example.end("text") :]
        if "--check" in arguments:
            print(f"{DOCUMENT.relative_to(ROOT)} is stale: run python tools/examples.py. An example prints\n{found}")
    if "--check" not in arguments:
        DOCUMENT.write_text(document)
        return 0
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
