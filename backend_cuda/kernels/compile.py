"""CUDA C++ to cubin with NVRTC, found at run time, behind a cache on disk.

NVRTC needs neither a driver nor a toolkit: the library comes from the `nvidia-cuda-nvrtc` wheel, `CUDA_HOME`, or the
system. Cubins are kept in `$MLXLITE_CACHE_DIR` or `~/.cache/mlxlite/cubin`, named by a hash of all that goes into them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

# A product and a sum are two roundings, also where they meet in one kernel: what is fused has the bits of what is not.
# Loops that are bound by arithmetic ask for one rounding by `multiply_add`.
OPTIONS = ("--std=c++20", "--fmad=false")
MAX_CACHE_BYTES = 512 << 20
_MAGIC = b"mlxlite cubin 1\n"
_DIGEST_BYTES = 32

counters = {"compiled": 0, "disk_hits": 0, "memory_hits": 0, "corrupt": 0, "evicted": 0}
_lock = threading.Lock()
_memory: dict[str, bytes] = {}  # by cache key: a process asks for the same kernel once per plan
_MAX_MEMORY_ENTRIES = 4096
_log = logging.getLogger("mlxlite.kernel")


def _candidates() -> Iterable[str]:
    """Where libnvrtc may be, best first."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        spec = None
    roots = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    patterns = ("cu*/lib/libnvrtc.so.*", "cuda_nvrtc/lib/libnvrtc.so.*")
    for root in roots:
        for pattern in patterns:
            yield from (str(p) for p in sorted(root.glob(pattern), reverse=True) if "alt" not in p.name)
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home:
            yield from (str(Path(home) / sub / "libnvrtc.so") for sub in ("lib64", "lib"))
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


class _Nvrtc:
    """The functions of libnvrtc used here. They may be called from several threads."""

    def __init__(self, path: str) -> None:
        # It opens its builtins by name when it compiles: releases such as 13.0 do not look beside themselves for them.
        self._builtins = [ctypes.CDLL(str(p)) for p in sorted(Path(path).parent.glob("libnvrtc-builtins.so.*"))[-1:]]
        self.library = ctypes.CDLL(path)
        self.path = path
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.check(self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
        self.version = (major.value, minor.value)

    def check(self, status: int, what: str) -> None:
        if status != 0:
            raise RuntimeError(f"{what}: {self.library.nvrtcGetErrorString(status).decode()} (NVRTC {self.path})")

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self.check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), f"nvrtcGet{what}Size")
        data = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.library, f"nvrtcGet{what}")(program, data), f"nvrtcGet{what}")
        return data.raw

    def compile(self, source: str, headers: dict[str, str], options: Sequence[str], name: str) -> bytes:
        program = ctypes.c_void_p()
        count = len(headers)
        texts = (ctypes.c_char_p * count)(*(text.encode() for text in headers.values()))
        names = (ctypes.c_char_p * count)(*(key.encode() for key in headers))
        created = self.library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), f"{name}.cu".encode(), count, texts, names
        )
        self.check(created, "nvrtcCreateProgram")
        try:
            arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self.library.nvrtcCompileProgram(program, len(options), arguments)
            if status != 0:
                log = self._text(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
                reason = self.library.nvrtcGetErrorString(status).decode()
                raise RuntimeError(f"[{name}] kernel does not compile ({reason}; {' '.join(options)}):\n{log}")
            return self._text(program, "CUBIN")
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def _nvrtc() -> _Nvrtc:
    tried = []
    for path in _candidates():
        try:
            return _Nvrtc(path)
        except OSError as error:
            tried.append(f"  {path}: {error}")
    raise RuntimeError(
        "NVRTC, which compiles CUDA kernels, was not found. Install `nvidia-cuda-nvrtc` or set CUDA_HOME. Tried:\n"
        + "\n".join(tried)
    )


@functools.cache
def headers() -> dict[str, str]:
    """The .cuh files beside this one, by name; a source includes them as "prelude.cuh"."""
    return {p.name: p.read_text() for p in sorted(Path(__file__).parent.glob("*.cuh"))}


_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


@functools.cache
def _with_included(name: str) -> frozenset[str]:
    """A header, and those that it includes."""
    return _included(headers()[name]) | {name}


def _included(text: str) -> frozenset[str]:
    known = [name for name in _INCLUDE.findall(text) if name in headers()]
    return frozenset().union(*map(_with_included, known))


@functools.cache
def _headers_digest(names: frozenset[str]) -> bytes:
    return hashlib.sha256(repr([(name, headers()[name]) for name in sorted(names)]).encode()).digest()


def cache_directory() -> Path:
    """Where cubins are kept."""
    chosen = os.environ.get("MLXLITE_CACHE_DIR")
    return Path(chosen) if chosen else Path.home() / ".cache" / "mlxlite" / "cubin"


def _cache_key(source: str, arch: str, options: Sequence[str], version: tuple[int, int]) -> str:
    digest = hashlib.sha256(_headers_digest(_included(source)))
    for part in (source, arch, "\0".join(options), repr(version)):
        digest.update(len(part).to_bytes(8, "little") + part.encode())
    return digest.hexdigest()


def _read(path: Path) -> bytes | None:
    """The cubin in a cache file, or None if there is none; a damaged file is removed."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST_BYTES
    cubin = data[start:]
    if data[: len(_MAGIC)] == _MAGIC and data[len(_MAGIC) : start] == hashlib.sha256(cubin).digest():
        with contextlib.suppress(OSError):  # a read-only cache still serves
            os.utime(path)  # the least recently used go first
        return cubin
    with _lock:
        counters["corrupt"] += 1
    path.unlink(missing_ok=True)
    return None


def _write(path: Path, cubin: bytes) -> None:
    """Store a cubin so that a reader sees all of it or nothing. A cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(cubin).digest() + cubin)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError:
        return


def trim_cache(max_bytes: int | None = None) -> int:
    """Remove the least recently used cubins until at most `max_bytes` remain. Returns how many were removed."""
    limit = MAX_CACHE_BYTES if max_bytes is None else max_bytes
    entries = []
    try:
        for path in cache_directory().glob("*.cubin"):
            try:
                status = path.stat()
            except OSError:
                continue  # another process removed it
            entries.append((status.st_mtime_ns, status.st_size, path))
    except OSError:
        return 0
    total = sum(size for _, size, _ in entries)
    removed = 0
    for _, size, path in sorted(entries):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size
        removed += 1
    with _lock:
        counters["evicted"] += removed
    return removed


_written_bytes = 0


def _note_written(n: int) -> None:
    """Look at the cache's size now and then: at the first write, and after each 32 MiB."""
    global _written_bytes
    with _lock:
        before, _written_bytes = _written_bytes, _written_bytes + n
    if before == 0 or before >> 25 != (before + n) >> 25:
        trim_cache()


def compile_cubin(source: str, arch: str, name: str, options: Sequence[str] = ()) -> bytes:
    """The cubin of CUDA C++ for one architecture, from the cache or from NVRTC.

    Args:
        source: the text; the headers of this directory can be included.
        arch: such as "sm_90".
        name: names the op in error messages.
        options: NVRTC options beside those of every kernel.

    Raises:
        RuntimeError: the source does not compile (the message has its name and the log), or there is no NVRTC.
    """
    start = time.perf_counter()
    nvrtc = _nvrtc()
    all_options = (f"--gpu-architecture={arch}", *OPTIONS, *options)
    key = _cache_key(source, arch, all_options, nvrtc.version)
    with _lock:
        cubin = _memory.get(key)
        if cubin is not None:
            counters["memory_hits"] += 1
            _log.debug("%s for %s: in memory", name, arch)
            return cubin
    path = cache_directory() / f"{key}.cubin"
    cubin = _read(path)
    if cubin is not None:
        _remember(key, cubin, "disk_hits")
        _log.info("%s for %s: from disk in %.1f ms", name, arch, 1e3 * (time.perf_counter() - start))
        return cubin
    cubin = nvrtc.compile(source, headers(), all_options, name)
    _remember(key, cubin, "compiled")
    _log.info("%s for %s: compiled in %.1f ms", name, arch, 1e3 * (time.perf_counter() - start))
    _write(path, cubin)
    _note_written(len(cubin))
    return cubin


def _remember(key: str, cubin: bytes, counter: str) -> None:
    with _lock:
        counters[counter] += 1
        if len(_memory) >= _MAX_MEMORY_ENTRIES:
            _memory.pop(next(iter(_memory)))
        _memory[key] = cubin


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1), thread_name_prefix="mlxlite-nvrtc")


def compile_many(jobs: Sequence[tuple[str, str, str]]) -> list[bytes]:
    """Cubins of several (source, arch, name), compiled in parallel; the first error in order is raised."""
    if len(jobs) == 1:
        return [compile_cubin(*jobs[0])]
    return [future.result() for future in start_compiling(jobs)]


def start_compiling(jobs: Sequence[tuple[str, str, str]]) -> list[Future[bytes]]:
    """Cubins that are being made in other threads, by (source, arch, name)."""
    return [_pool().submit(compile_cubin, *job) for job in jobs]
