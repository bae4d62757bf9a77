"""What tests compile with g++, kept for later tests and runs."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path


def available() -> bool:
    return shutil.which("g++") is not None


@functools.cache
def _version() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


def made_once(*ingredients: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled, in this process or in another: one for each compiler and all `ingredients`.

    What it raises leaves its folder behind, to be looked at.
    """
    digest = hashlib.sha256("\0".join((_version(), *ingredients)).encode()).hexdigest()[:24]
    root = Path(tempfile.gettempdir()) / f"mlxlite-tests-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    folder = root / digest
    if not folder.exists():
        filled = Path(tempfile.mkdtemp(dir=root))
        make(filled)
        try:
            filled.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(filled)
    return folder


def compile_file(source: Path, target: Path, flags: list[str]) -> None:
    """RuntimeError with what g++ says if it does not compile."""
    done = subprocess.run(["g++", *flags, str(source), "-o", str(target)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{source} does not compile:\n{done.stderr[:6000]}")
