"""Run the tests of a machine with GPUs under compute-sanitizer, and say what it found.

One sanitizer follows ten processes at most, and makes a process wait for each check: so each part of the tests is a
process with a sanitizer of its own. Backtraces are left out: taking them keeps frames of Python alive, and with them
arrays whose memory tests expect back. Errors that a call of the driver returns are part of what is tested, and not
reported.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS = 5  # pytest's exit status for a part that has none
# They start benchmarks, and processes by the dozen, which compute-sanitizer would have to follow.
LEFT_OUT = ("tests/test_benchmarks.py", "tests/test_random_graphs.py")


def command(tool: str, log: Path, part: int, parts: int, tests: list[str]) -> list[str]:
    """One part of the tests under one sanitizer."""
    sanitizer = ["compute-sanitizer", "--tool", tool, "--log-file", str(log), "--error-exitcode", "9"]
    sanitizer += ["--target-processes", "application-only", "--report-api-errors", "no", "--show-backtrace", "no"]
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--device", "gpu"]
    pytest += ["--part", f"{part}/{parts}", *(f"--ignore={name}" for name in LEFT_OUT), *tests]
    return [*sanitizer, *pytest]


def gpus() -> int:
    """How many there are."""
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    return listed.stdout.count("GPU ")


def verdict(log: str, output: str, status: int) -> list[str]:
    """What is wrong with one part, by the sanitizer's log, what pytest printed, and the exit status; or nothing."""
    summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", log)
    if summary is None:
        return ["the sanitizer did not finish", *output.splitlines()[-20:]]
    if int(summary[1]):
        return log.splitlines()[:80]
    if status == NO_TESTS:
        return []
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed or (output.splitlines()[-20:] if status else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default="memcheck", choices=["memcheck", "racecheck", "initcheck", "synccheck"])
    parser.add_argument("--parts", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("tests", nargs="*", default=["tests"])
    options = parser.parse_args()
    devices = gpus()
    wrong, ran = 0, False
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for part in range(options.parts):
            log, output = Path(folder) / f"{part}.log", Path(folder) / f"{part}.txt"
            process = subprocess.Popen(
                command(options.tool, log, part, options.parts, options.tests),
                cwd=ROOT,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": str(part % devices)},
                stdout=output.open("w"),
                stderr=subprocess.STDOUT,
            )
            running.append((process, log, output))
        for part, (process, log, output) in enumerate(running):
            status = process.wait()
            tests = output.read_text()
            ran = ran or status != NO_TESTS
            found = verdict(log.read_text() if log.exists() else "", tests, status)
            last = (tests.splitlines() or ["nothing"])[-1]
            print(f"part {part}: {last}; {options.tool} found {'something' if found else 'nothing'}", flush=True)
            for line in found:
                print(f"  {line}")
            wrong += bool(found)
    if not ran:
        print("there are no such tests")
    return int(wrong > 0 or not ran)


if __name__ == "__main__":
    sys.exit(main())
