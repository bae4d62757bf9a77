"""The CUDA backend: lowers a tape to one CUDA graph. Loaded when a GPU is first used."""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["register", "register_provider"]


def _libraries(pattern: str) -> Iterator[str]:
    """Shared libraries in NVIDIA's wheels, newest first."""
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(root).glob(pattern), reverse=True):
            yield str(path)


def register() -> None:
    """Start the runtime on the GPU and make it the graph's backend for `mx.gpu`.

    Raises:
        RuntimeError: there is no driver, or it does not start.
    """
    from mlxlite import _graph

    from . import _runtime
    from .kernels.compile import cache_directory
    from .kernels.target import target

    found = [*_libraries("cu*/lib/libcublasLt.so.*"), *_libraries("cublas/lib/libcublasLt.so.*")]
    _runtime.initialize(found[0] if found else None, str(cache_directory()))
    info = _runtime.device_info()
    target.use(info["multiprocessors"], tuple(info["compute_capability"]))
    _graph.register_backend("gpu", _lower, _runtime.api_capsule())
    register_provider()


def register_provider() -> None:
    """Let plans for the GPU be described, and measured where there is one. Needs neither a GPU nor a driver."""
    from mlxlite import observe

    from .provider import CudaProvider

    observe.register("gpu", CudaProvider())


def _lower(tape: Any) -> Any:
    from . import _runtime
    from .lowering import lower
    from .lowering.plan import assemble

    plan = lower(tape)
    return assemble(plan, _runtime, functions, are_compiled), plan.table.ranges


_functions: dict[str, Any] = {}
_lock = threading.Lock()


@functools.cache
def architecture() -> str:
    """What kernels are compiled for, such as "sm_90a"."""
    from . import _runtime

    major, minor = _runtime.device_info()["compute_capability"]
    return f"sm_{major}{minor}{'a' if (major, minor) == (9, 0) else ''}"


def functions(sources: list[Any]) -> dict[str, Any]:
    """Loaded kernels by name; what is not loaded yet is compiled in parallel."""
    from . import _runtime
    from .kernels.compile import compile_many

    with _lock:
        missing = [s for s in sources if s.name not in _functions]
        if missing:
            arch = architecture()
            cubins = compile_many([(s.source, arch, s.name) for s in missing])
            for source, cubin in zip(missing, cubins, strict=True):
                shared = source.launch.shared
                most = shared if isinstance(shared, int) else 0
                _functions[source.name] = _runtime.Module(cubin).function(source.name, most)
        return {s.name: _functions[s.name] for s in sources}


_compiling: dict[str, Any] = {}  # futures by the kernel's name


def are_compiled(sources: list[Any]) -> bool:
    """Whether `functions` would have nothing to compile; what it would have is being compiled from now on."""
    from .kernels.compile import start_compiling

    with _lock:
        missing = [s for s in sources if s.name not in _functions]
        new = [s for s in missing if s.name not in _compiling]
        if new:
            arch = architecture()
            futures = start_compiling([(s.source, arch, s.name) for s in new])
            _compiling.update({s.name: future for s, future in zip(new, futures, strict=True)})
        if not all(_compiling[s.name].done() for s in missing):
            return False
        for s in missing:
            del _compiling[s.name]  # an error comes again where the kernel is asked for
        return True
