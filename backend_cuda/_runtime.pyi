# Written by `make stubs`: do not edit.
"""
The CUDA runtime: device memory, plans, and their replay as graphs.

Importing needs no driver; `initialize()` does. Errors of the driver are RuntimeError.

    def initialize(cublaslt_path: str | None = None, algorithms_directory: str | None = None) -> None
                                   # RuntimeError says what is missing; twice is harmless. Which algorithm of cuBLASLt's
                                   # is fastest for large products is kept in the directory; None: for the process
    def device_info() -> dict      # name, compute_capability (major, minor), multiprocessors, l2_bytes, total_memory,
                                   # driver_version, max_shared_per_block, max_threads_per_multiprocessor,
                                   # memory_bandwidth (bytes a second by clock and width, 0 if unknown)
    class Module:
        def __init__(self, cubin: bytes) -> None
        def function(self, name: str, dynamic_shared_max: int = 0) -> Function
    class Function:                # name, registers, local_bytes, static_shared, max_threads, dynamic_shared_max: int
    class Plan:
        def __init__(self, n_sizes: int, n_scalars: int, size_program: list, buffers: list, nodes: list, edges: list,
                     outputs: list, promote: Callable | None = None) -> None
        n_nodes, n_executables, arena_bytes: int
        labels: list[str]          # of the nodes
    def api_capsule() -> capsule   # for mlxlite._graph.register_backend("gpu", lower, api_capsule())
    def memory_info() -> dict      # active, peak, cache, arena, workspace, limit, cache_limit (bytes)
    def set_memory_limit(nbytes: int) -> int    # the previous limit
    def set_cache_limit(nbytes: int) -> int     # the previous limit
    def clear_cache() -> None
    def reset_peak_memory() -> None
    def set_tf32(allowed: bool) -> None
    def get_tf32() -> bool
    def synchronize() -> None
    def counters() -> dict[str, int]
    def stats_reset() -> None
    def measure(what: str) -> None              # "nodes", "whole" or "off"; starts anew
    def measured() -> list[tuple]  # since the last call, of each launch: (ns to bind, ns to launch, labels,
                                   # [(start, length) in ns, by label]); starts are of time.perf_counter_ns
    def size_class(nbytes: int) -> int          # bytes that a request really takes

A library node's callback is called as callback(sizes: list[int], scalars: list[float], pointers: list[int]) -> int, the
address of a CUgraph that stays the callback's own: it is copied before the next Python code runs.

A plan that keeps patching the arguments of many kernels calls promote(nodes: list[int], n_words: int) -> (functions,
(writer, words, blocks, threads)): for these nodes, Functions that take the address of their arguments, and one that
takes an address and a struct of so many 8-byte words and writes them there, launched with so many blocks and threads.
If it returns None it is asked again after some launches. Without it the arguments are patched for ever.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

def initialize(cublaslt_path: str | None = None, algorithms_directory: str | None = None) -> None: ...
def device_info() -> dict[str, Any]: ...

class Function:
    @property
    def name(self) -> str: ...
    @property
    def registers(self) -> int: ...
    @property
    def local_bytes(self) -> int: ...
    @property
    def static_shared(self) -> int: ...
    @property
    def max_threads(self) -> int: ...
    @property
    def dynamic_shared_max(self) -> int: ...

class Module:
    def __init__(self, cubin: bytes) -> None: ...
    def function(self, name: str, dynamic_shared_max: int = 0) -> Function: ...

class Plan:
    def __init__(
        self,
        n_sizes: int,
        n_scalars: int,
        size_program: Sequence[tuple[str, int, int]],
        buffers: Sequence[tuple[Any, ...]],
        nodes: Sequence[tuple[Any, ...]],
        edges: Sequence[tuple[int, int]],
        outputs: Sequence[tuple[Any, ...]],
        promote: Callable[[list[int], int], tuple[list[Any], tuple[Any, int, int, int]]] | None = None,
    ) -> None: ...
    @property
    def n_nodes(self) -> int: ...
    @property
    def labels(self) -> list: ...
    @property
    def n_executables(self) -> int: ...
    @property
    def arena_bytes(self) -> int: ...

def api_capsule() -> Any: ...
def memory_info() -> dict[str, int]: ...
def set_memory_limit(nbytes: int) -> int: ...
def set_cache_limit(nbytes: int) -> int: ...
def clear_cache() -> None: ...
def reset_peak_memory() -> None: ...
def set_tf32(allowed: bool) -> None: ...
def get_tf32() -> bool: ...
def synchronize() -> None: ...
def counters() -> dict[str, int]: ...
def stats_reset() -> None: ...
def measure(what: Literal["nodes", "whole", "off"]) -> None: ...
def measured() -> list[tuple[int, int, list[str], list[tuple[int, int]]]]: ...
def size_class(nbytes: int) -> int: ...
def cublaslt_version() -> int:
    """0 until a matmul has loaded it."""

_bytes_key_fields: int = 23

def _bytes_key_selftest(dirty: int) -> int:
    """Hash of one matmul key, built on a stack filled with the byte `dirty`."""

def _bytes_key_flip(field: int) -> int:
    """Hash of the same key with one field changed."""
