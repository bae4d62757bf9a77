"""The CUDA runtime with no GPU: its suite runs in a process of its own, on a driver made of host memory."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


def cuda_include() -> pathlib.Path | None:
    """Where cuda.h is: in the nvidia-cuda-runtime wheel or in a toolkit."""
    found = [path for entry in sys.path if entry for path in pathlib.Path(entry).glob("nvidia/cu*/include")]
    found += [pathlib.Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"]
    return next((path for path in found if (path / "cuda.h").exists()), None)


def test_runtime_on_the_fake_driver(tmp_path):
    pytest.importorskip("backend_cuda._runtime", reason="the CUDA runtime extension is not built")
    compiler, include = shutil.which("g++"), cuda_include()
    if not compiler or not include:
        pytest.skip("needs g++ and cuda.h (nvidia-cuda-runtime) to build the fake driver")
    library = tmp_path / "libfake_cuda.so"
    source = HERE / "fake_driver" / "fake_cuda.cpp"
    subprocess.run(
        [
            compiler,
            "-std=c++20",
            "-O1",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
            f"-I{include}",
            source,
            "-o",
            library,
        ],
        check=True,
    )
    environment = os.environ | {"MLXLITE_CUDA_DRIVER": str(library), "MLX_ENABLE_TF32": "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "fake_driver" / "suite.py"]
    done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
