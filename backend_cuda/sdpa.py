"""Attention by cuDNN: one graph per key, built and populated once, its pointers patched ever after.

The key holds everything the graph depends on as bytes: two calls share a graph if and only if their bytes are equal. A
populated graph is a CUDA graph of one kernel, or of a few for a gradient; the runtime copies it into the plan's graph
as a child.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mlxlite.core import cuda

DTYPES = ("float16", "bfloat16")
CAPACITY = 256

counters = {"hits": 0, "misses": 0, "builds": 0, "patches": 0, "evictions": 0, "declined": 0}


class DeclinedError(RuntimeError):
    """cuDNN does not do this attention."""


@dataclass(frozen=True)
class Tensor:
    """Dims and strides in elements, four each."""

    dims: tuple[int, ...]
    strides: tuple[int, ...]


class AnyCall(Protocol):
    """One use of cuDNN: everything but the pointers."""

    @property
    def dtype(self) -> str: ...

    def key(self) -> bytes:
        """The bytes that name this call. Every field has its place, none is left out and none is padded."""

    def build(self, library: Any, graph: Any) -> list[Any]:
        """Add the operation to a cuDNN graph. Returns its tensors, in the order of a bind's pointers."""


@dataclass(frozen=True)
class Call:
    """One attention; with `has_stats` it writes the logarithms of the softmax's sums too, (B, H, Tq, 1) in float32."""

    dtype: str
    causal: bool
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    bias: Tensor | None
    has_sinks: bool
    scale: float
    has_stats: bool = False

    def key(self) -> bytes:
        bias = self.bias or Tensor((0,) * 4, (0,) * 4)
        integers: list[int] = []
        for tensor in (self.q, self.k, self.v, self.o, bias):
            integers += (*tensor.dims, *tensor.strides)
        flags = DTYPES.index(self.dtype) | self.causal << 1 | (self.bias is not None) << 2 | self.has_sinks << 3
        return struct.pack("<qd40q", flags | self.has_stats << 4, self.scale, *integers)

    def build(self, library: Any, graph: Any) -> list[Any]:
        q, k, v = (declare(graph, name, t) for name, t in (("q", self.q), ("k", self.k), ("v", self.v)))
        tensors = [q, k, v]
        options: dict[str, Any] = {}
        if self.bias is not None:
            options["bias"] = declare(graph, "bias", self.bias)
            tensors.append(options["bias"])
        if self.has_sinks:
            heads = self.q.dims[1]
            sinks = Tensor((1, heads, 1, 1), (heads, 1, 1, 1))
            options["sink_token"] = declare(graph, "sinks", sinks, library.data_type.FLOAT)
            tensors.append(options["sink_token"])
        if self.causal:
            options |= diagonal(library, self.q, self.k)
        o, stats = graph.sdpa(
            name="sdpa", q=q, k=k, v=v, generate_stats=self.has_stats, attn_scale=self.scale, **options
        )[:2]
        tensors.append(as_output(o, self.o))
        if self.has_stats:
            tensors.append(as_output(stats, stats_of(self.q), library.data_type.FLOAT))
        return tensors


def stats_of(q: Tensor) -> Tensor:
    """Where the logarithms of the sums of these queries' softmax are: adjacent in memory, in the order (B, H, Tq)."""
    batch, heads, queries, _ = q.dims
    return normalized((batch, heads, queries, 1), (heads * queries, queries, 1, 1))


def declare(graph: Any, name: str, t: Tensor, dtype: Any = None) -> Any:
    """An input of a cuDNN graph; of the graph's dtype unless given."""
    given = {} if dtype is None else {"data_type": dtype}
    return graph.tensor(name=name, dim=list(t.dims), stride=list(t.strides), **given)


def as_output(tensor: Any, t: Tensor, dtype: Any = None) -> Any:
    """An output of a cuDNN graph, in memory of these strides."""
    tensor.set_output(True).set_dim(list(t.dims)).set_stride(list(t.strides))
    if dtype is not None:
        tensor.set_data_type(dtype)
    return tensor


def diagonal(library: Any, q: Tensor, k: Tensor) -> dict[str, Any]:
    """The options for a causal mask: the last query sees all keys."""
    alignment = library.diagonal_alignment
    aligned = alignment.TOP_LEFT if q.dims[2] == k.dims[2] else alignment.BOTTOM_RIGHT
    return {"diagonal_alignment": aligned, "diagonal_band_right_bound": 0}


def normalized(dims: Sequence[int], strides: Sequence[int]) -> Tensor:
    """A tensor whose dims of size 1 have a packed tensor's strides: cuDNN counts no other as packed."""
    result = list(strides)
    for d in reversed(range(len(dims))):
        if dims[d] == 1:
            result[d] = result[d + 1] * dims[d + 1] if d + 1 < len(dims) else 1
    return Tensor(tuple(dims), tuple(result))


class _Entry:
    """A built graph, the CUDA graph it populated, and what it needs to live."""

    def __init__(self, call: AnyCall) -> None:
        library = cudnn()
        self.handle = _handle()
        data_type = {"float16": library.data_type.HALF, "bfloat16": library.data_type.BFLOAT16}[call.dtype]
        graph = library.pygraph(
            io_data_type=data_type,
            intermediate_data_type=library.data_type.FLOAT,
            compute_data_type=library.data_type.FLOAT,
            handle=self.handle,
        )
        try:
            tensors = call.build(library, graph)
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([library.heur_mode.A])
            graph.select_behavior_notes([library.behavior_note.SUPPORTS_CUDA_GRAPH_NATIVE_API])
            graph.check_support()
            graph.build_plans()
        except (library.cudnnGraphNotSupportedError, RuntimeError, ValueError) as error:
            raise DeclinedError(str(error)) from error
        self.graph = graph
        self.uids = [t.get_uid() for t in tensors]
        self.workspace = _Memory(graph.get_workspace_size())
        self.cuda_graph = _empty_cuda_graph()
        self.populated = False

    def bind(self, pointers: Sequence[int]) -> int:
        """The CUDA graph, reading and writing at these addresses."""
        variant_pack = dict(zip(self.uids, pointers, strict=True))
        if self.populated:
            self.graph.update_cuda_graph(self.handle, variant_pack, self.workspace.address, self.cuda_graph)
            counters["patches"] += 1
        else:
            self.graph.populate_cuda_graph(self.handle, variant_pack, self.workspace.address, self.cuda_graph)
            self.populated = True
        return self.cuda_graph


class Cache:
    """Entries by key, the least recently used leaving first. Declined keys are remembered too."""

    def __init__(self, capacity: int = CAPACITY, make: Any = _Entry) -> None:
        self.capacity = capacity
        self._make = make
        self._entries: OrderedDict[bytes, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, call: AnyCall, key: bytes) -> Any:
        """The entry for a call whose key is `key`. DeclinedError if cuDNN cannot do it."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                counters["hits"] += 1
            else:
                counters["misses"] += 1
                try:
                    found = self._make(call)
                    counters["builds"] += 1
                except DeclinedError as error:
                    counters["declined"] += 1
                    found = error
                self._entries[key] = found
                while len(self._entries) > self.capacity:
                    self._entries.popitem(last=False)
                    counters["evictions"] += 1
        if isinstance(found, DeclinedError):
            raise found
        return found


cache = Cache()


class Callback:
    """What a plan calls for one node of cuDNN's: finds the graph for the sizes at hand and patches the pointers.

    The key is computed once for each set of sizes, and stored with the entry; the entries whose kernels a plan's
    executables may hold stay alive with the plan.
    """

    _MAX_HELD = 8

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def call_for(self, sizes: Sequence[int], scale: float) -> AnyCall:
        """The call for dims and strides of its tensors, eight integers each."""
        raise NotImplementedError

    def entry_for(self, sizes: Sequence[int], scale: float) -> Any:
        """The entry of that call. DeclinedError if cuDNN cannot do it."""
        call = self.call_for(sizes, scale)
        return cache.get(call, call.key())

    def __call__(self, sizes: list[int], scalars: list[float], pointers: list[int]) -> int:
        held = (*sizes, scalars[0])
        entry = self._held.get(held)
        if entry is None:
            try:
                entry = self.entry_for(sizes, scalars[0])
            except DeclinedError as error:
                call = self.call_for(sizes, scalars[0])
                raise RuntimeError(
                    f"[scaled_dot_product_attention] cuDNN declined {call}, though it took other sizes: {error}. "
                    "Evaluate it on mx.cpu, or in float32."
                ) from error
            self._held[held] = entry
            if len(self._held) > self._MAX_HELD:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end(held)
        return entry.bind(pointers)


def tensors_of(sizes: Sequence[int]) -> list[Tensor]:
    """Dims and strides of tensors, from eight integers each."""
    return [normalized(sizes[i : i + 4], sizes[i + 4 : i + 8]) for i in range(0, len(sizes), 8)]


class Attention(Callback):
    """Attention, of tensors q, k, v, o and, if there is one, the bias; pointers in the order of `Call.build`."""

    def __init__(self, dtype: str, causal: bool, has_bias: bool, has_sinks: bool, has_stats: bool = False) -> None:
        super().__init__()
        self.dtype, self.causal, self.has_bias, self.has_sinks = dtype, causal, has_bias, has_sinks
        self.has_stats = has_stats

    def call_for(self, sizes: Sequence[int], scale: float) -> Call:
        q, k, v, o, *bias = tensors_of(sizes)
        found = bias[0] if self.has_bias else None
        return Call(self.dtype, self.causal, q, k, v, o, found, self.has_sinks, scale, self.has_stats)


# ---- the libraries


@functools.cache
def cudnn() -> Any:
    """The module `cudnn`. ImportError if it is not installed, or if it finds no cuDNN."""
    import cudnn

    cudnn.backend_version()
    return cudnn


@functools.cache
def why_unavailable() -> str | None:
    """Why cuDNN cannot be used, and what to install; None if it can."""
    try:
        cudnn()
    except (ImportError, OSError, RuntimeError, AssertionError) as error:
        return f"{error}; install it with: pip install nvidia-cudnn-frontend nvidia-cudnn-cu13"
    return None


@functools.cache
def can_be_used() -> bool:
    """Whether there is cuDNN. Warns once, on a GPU, if there is none: what does without it is many times slower.

    Measured on an H100: 2048 causal queries of 32 heads of 128 take 84 us with cuDNN and 1,606 us without.
    """
    reason = why_unavailable()
    if reason is not None and cuda.is_available():
        text = "[scaled_dot_product_attention] 16-bit attention over many queries is far slower without cuDNN"
        warnings.warn(f"{text}: {reason}", RuntimeWarning, stacklevel=2)
    return reason is None


@functools.cache
def _handle() -> Any:
    return cudnn().create_handle()


@functools.cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _check(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"{what} failed with CUDA error {status}")


class _Memory:
    """Device memory for a workspace, which most graphs do not need."""

    def __init__(self, nbytes: int) -> None:
        self.address = 0
        if nbytes:
            pointer = ctypes.c_uint64()
            _check(_driver().cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(nbytes)), "cuMemAlloc")
            self.address = pointer.value
            freed = weakref.finalize(self, _driver().cuMemFree_v2, ctypes.c_uint64(self.address))
            freed.atexit = False  # the driver may be gone by then, and takes the memory back by itself


def _empty_cuda_graph() -> int:
    graph = ctypes.c_void_p()
    _check(_driver().cuGraphCreate(ctypes.byref(graph), 0), "cuGraphCreate")
    assert graph.value is not None
    return graph.value
