"""`mx.cuda`: whether a GPU can be used, why not, and what its caches hold. Loads nothing of CUDA before it is asked."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import _graph

__all__ = ["cache_info", "is_available", "why_unavailable"]


def is_available() -> bool:
    """Whether operations can run on a GPU here."""
    return why_unavailable() is None


@functools.cache
def why_unavailable() -> str | None:
    """What is missing for a GPU to be used, and how to get it; None if nothing is.

    >>> mx.cuda.is_available() == (mx.cuda.why_unavailable() is None)
    True
    """
    return _backend_problem() or _driver_problem() or _library_problem()


def _backend_problem() -> str | None:
    for module in ("backend_cuda", "backend_cuda._runtime"):
        if importlib.util.find_spec(module) is None:
            return f"the module {module} is not installed; reinstall with: pip install 'mlxlite[cuda]'"
    return None


def _driver_problem() -> str | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"the NVIDIA driver was not found ({error}); install the driver, no pip package has it"
    status = driver.cuInit(0)
    if status:
        return f"the NVIDIA driver does not start (cuInit: {_driver_message(driver, status)})"
    count = ctypes.c_int()
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        return f"the NVIDIA driver lists no devices (cuDeviceGetCount: {_driver_message(driver, status)})"
    return None if count.value else "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?)"


def _driver_message(driver: Any, status: int) -> str:
    text = ctypes.c_char_p()
    found = driver.cuGetErrorString(status, ctypes.byref(text)) == 0 and text.value
    return f"error {status}" + (f", {text.value.decode()}" if found and text.value else "")


def _library_problem() -> str | None:
    for library, folder, package in (
        ("libnvrtc", "cuda_nvrtc", "nvidia-cuda-nvrtc"),
        ("libcublasLt", "cublas", "nvidia-cublas"),
    ):
        if not any(_loads(path) for path in _candidates(library, folder)):
            return f"{library} was not found; install it with: pip install {package} (or: pip install 'mlxlite[cuda]')"
    return None


def _candidates(library: str, folder: str) -> Iterator[str]:
    """Where a library of the CUDA toolkit may be: in NVIDIA's wheels, else wherever the system's loader finds it."""
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for pattern in (f"cu*/lib/{library}.so.*", f"{folder}/lib/{library}.so.*"):
            yield from map(str, sorted(Path(root).glob(pattern)))
    yield from (f"{library}.so.13", f"{library}.so.12", f"{library}.so")


def _loads(path: str) -> bool:
    try:
        ctypes.CDLL(path)
    except OSError:
        return False
    return True


def cache_info() -> dict[str, Any]:
    """Counters of the GPU's caches: the plan cache, and the runtime's once the backend is loaded.

    Returns:
        `{"plans": {...}, "runtime": {...}}`: hits, misses, builds, evictions; executables, patches, launches.
    """
    runtime = _runtime()
    return {"plans": _graph.cache_info()["gpu"], "runtime": {} if runtime is None else runtime.counters()}


def _runtime() -> Any:
    """The backend's C++ part if the backend is in use, else None."""
    return importlib.import_module("backend_cuda._runtime") if _graph.is_registered("gpu") else None


def device_info() -> dict[str, Any]:
    """Facts about the GPU. RuntimeError if there is none to use."""
    load_backend("gpu")
    return _runtime().device_info()


_INFO = {
    "get_active_memory": "active",
    "get_peak_memory": "peak",
    "get_cache_memory": "cache",
    "get_memory_limit": "limit",
}


def memory(function: str, *args: int) -> int:
    """A memory function of the GPU's, by the name it has in `mlxlite.core`; 0 while the backend is not in use."""
    runtime = _runtime()
    if runtime is None:
        return 0
    if function in _INFO:
        return runtime.memory_info()[_INFO[function]]
    return getattr(runtime, function)(*args) or 0


def load_backend(device: str) -> None:
    """Register a backend with the graph, on the first use of its device. RuntimeError if there is no such device."""
    if device == "cpu":
        importlib.import_module("mlxlite.backend_cpu")
        return
    problem = why_unavailable()
    if problem is not None:
        raise RuntimeError(f"There is no usable GPU: {problem}")
    if not _graph.is_registered("gpu"):
        importlib.import_module("backend_cuda").register()


def _default_device() -> str:
    return "gpu" if is_available() else "cpu"


_graph.set_hooks(load_backend=load_backend, default_device=_default_device)
