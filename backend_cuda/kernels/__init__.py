"""CUDA kernels: source text, generated per use, compiled by NVRTC and cached on disk. Needs no driver and no GPU.

`prelude.cuh` holds element types, memory access, indices and shuffles; `math.cuh` elementwise functions and atomics.
A module that makes kernels has a function `catalogue()` that yields representative ones; tests compile them all.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from .kernel import KernelSource, Launch, Param, Size, evaluate_size, kernel

__all__ = ["KernelSource", "Launch", "Param", "Size", "catalogue", "evaluate_size", "kernel"]


def catalogue(full: bool = False) -> Iterator[tuple[str, KernelSource]]:
    """(module name, kernel) for representative kernels of every module here; `full`: over all dtypes."""
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        make = getattr(module, "catalogue", None)
        if make is not None:
            for source in make(full):
                yield info.name, source
