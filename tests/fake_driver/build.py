"""Builds the fake driver, and runs a suite on it in a process of its own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests import compiler

HERE = pathlib.Path(__file__).parent
LIBRARY = "libfake_cuda.so"


def cuda_include() -> pathlib.Path | None:
    """Where cuda.h is: in the nvidia-cuda-runtime wheel or in a toolkit."""
    found = [path for entry in sys.path if entry for path in pathlib.Path(entry).glob("nvidia/cu*/include")]
    found += [pathlib.Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"]
    return next((path for path in found if (path / "cuda.h").exists()), None)


def build(*defines: str) -> pathlib.Path:
    """The driver's library, compiled with macros defined; skips the test where that is not possible."""
    pytest.importorskip("backend_cuda._runtime", reason="the CUDA runtime extension is not built")
    include = cuda_include()
    if not compiler.available() or not include:
        pytest.skip("needs g++ and cuda.h (nvidia-cuda-runtime) to build the fake driver")
    source = HERE / "fake_cuda.cpp"
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{include}"]
    flags += [f"-D{name}" for name in defines]

    def make(folder: pathlib.Path) -> None:
        compiler.compile_file(source, folder / LIBRARY, flags)

    ingredients = source.read_text(), (include / "cuda.h").read_text()
    return compiler.made_once(*ingredients, *flags, make=make) / LIBRARY


def run_suite(name: str, *defines: str) -> str:
    """Run tests/fake_driver/<name>.py on the fake driver; returns what pytest printed. AssertionError if one fails.

    Args:
        name: of the suite.
        defines: macros for the driver: WITHOUT_STREAM_VALUES makes a device that has no 64-bit stream operations.
    """
    library = build(*defines)
    paths = os.pathsep.join(map(str, (HERE, HERE.parents[1])))
    variables = {"MLXLITE_CUDA_DRIVER": str(library), "MLX_ENABLE_TF32": "0", "PYTHONPATH": paths}
    environment = os.environ | variables
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / f"{name}.py"]
    done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    return done.stdout
