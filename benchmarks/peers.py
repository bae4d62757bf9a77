"""The peers behind one face: random arrays, work that is queued, and the wait for it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import queued_us

# The shape and dtype of an array of normal numbers. Of dtype "permutation": the numbers below its length, shuffled.
Spec = tuple[tuple[int, ...], str]


def jax_module() -> Any:
    """JAX, which takes memory as it needs it, so that peers that run later find some."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return importlib.import_module("jax")


INPUT_SETS = 2  # they take turns: twice what a cache of 50 MB holds, and more


def copy_rate(on: Arrays | Torch, side: int) -> float:
    """Bytes a second that a copy of side x side float32 moves, read and written: `x + 1`, or torch's `clone`."""
    inputs = [on.make(((side, side), "float32")) for _ in range(INPUT_SETS)]
    copies = [on.queued(lambda m, x: x.clone() if on.name == "torch" else x + 1, x) for x in inputs]
    return 2 * 4 * side**2 / queued_us(copies, on.wait) * 1e6


def peer_named(name: str) -> Arrays | Torch:
    """The face of mlxlite, mlx or torch."""
    return Torch() if name == "torch" else Arrays(name)


class Arrays:
    """mlxlite, or MLX."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module = importlib.import_module(f"{name}.core")
        self.module.random.seed(0)

    def make(self, spec: Spec, scale: float = 1.0) -> Any:
        """An array of a spec, in memory; normal numbers are multiplied by `scale`."""
        mx, (shape, dtype) = self.module, spec
        if dtype == "permutation":
            a = mx.array(np.random.default_rng(0).permutation(shape[0]).astype(np.int32))
        else:
            a = (mx.random.normal(shape) * scale).astype(getattr(mx, dtype))
        mx.eval(a)
        return a

    def queued(self, function: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
        """A call that queues `function(module, *inputs)`; nobody keeps the result."""
        return lambda: self.module.async_eval(function(self.module, *inputs))

    def replayed(self, function: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
        """The same: an evaluation is one launch."""
        return self.queued(function, *inputs)

    def wait(self) -> None:
        """Until all that is queued is done."""
        self.module.synchronize()

    def give_back(self) -> None:
        """The memory that nothing uses, for other peers of the process."""
        self.module.clear_cache()


class Torch:
    """PyTorch, on the GPU if it sees one."""

    def __init__(self) -> None:
        self.name = "torch"
        self.module = importlib.import_module("torch")
        self.on_gpu = self.module.cuda.is_available()
        self.device = "cuda" if self.on_gpu else "cpu"
        self.module.set_float32_matmul_precision("high")  # TF32, as the others have it by default
        self.module.manual_seed(0)

    def make(self, spec: Spec, scale: float = 1.0) -> Any:
        """A tensor of a spec; normal numbers are multiplied by `scale`."""
        torch, (shape, dtype) = self.module, spec
        if dtype == "permutation":
            return torch.randperm(shape[0], dtype=torch.int32, device=self.device)
        return (torch.randn(shape, device=self.device) * scale).to(getattr(torch, dtype))

    def queued(self, function: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
        """A call that queues `function(module, *inputs)`; nobody keeps the result."""
        return lambda: function(self.module, *inputs)

    def replayed(self, function: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
        """A call that replays `function(module, *inputs)` as one CUDA graph, so that its launches are not measured."""
        call = self.queued(function, *inputs)
        if not self.on_gpu:
            return call
        cuda = self.module.cuda
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):  # libraries make their handles and workspaces before anything is captured
            call()
        cuda.current_stream().wait_stream(side)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            call()
        return graph.replay

    def wait(self) -> None:
        """Until all that is queued is done."""
        if self.on_gpu:
            self.module.cuda.synchronize()

    def give_back(self) -> None:
        """The memory that nothing uses, for other peers of the process."""
        if self.on_gpu:
            self.module.cuda.empty_cache()
