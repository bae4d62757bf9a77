"""Every kernel the lowering can emit compiles for the architectures we name, with no GPU and no driver.

A sample by default; all of it, over all dtypes, with MLXLITE_ALL_KERNELS=1.
"""

from __future__ import annotations

import os

import pytest

from backend_cuda.kernels import catalogue, evaluate_size
from backend_cuda.kernels import compile as compiler
from backend_cuda.kernels.from_memory import from_memory

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
FULL = os.environ.get("MLXLITE_ALL_KERNELS") == "1"


def _have_nvrtc() -> bool:
    try:
        compiler._nvrtc()
    except RuntimeError:
        return False
    return True


needs_nvrtc = pytest.mark.skipif(not _have_nvrtc(), reason="NVRTC is not installed (nvidia-cuda-nvrtc)")


def _entries():
    by_module: dict[str, list] = {}
    for module, source in catalogue(FULL):
        by_module.setdefault(module, []).append(source)
    return by_module


ENTRIES = _entries()


@needs_nvrtc
@pytest.mark.parametrize("module", sorted(ENTRIES))
def test_compiles(module):
    """In the sample, the k-th kernel of a module is compiled for the k-th architecture, in turn."""
    jobs = []
    for k, source in enumerate(ENTRIES[module]):
        for arch in ARCHITECTURES if FULL else [ARCHITECTURES[k % 3]]:
            jobs.append((source.source, arch, source.name))
    for cubin in compiler.compile_many(jobs):
        assert cubin[:4] == b"\x7fELF"


@needs_nvrtc
def test_kernels_that_read_their_arguments_from_memory_compile():
    """In the sample, two of every module."""
    jobs = []
    for module in sorted(set(ENTRIES) - {"from_memory", "multi_tensor"}):  # whose tables stay parameters
        step = 1 if FULL else max(1, len(ENTRIES[module]) // 2)
        for source in map(from_memory, ENTRIES[module][::step]):
            jobs.append((source.source, ARCHITECTURES[len(jobs) % 3], source.name))
    for cubin in compiler.compile_many(jobs):
        assert cubin[:4] == b"\x7fELF"


@pytest.mark.parametrize("module", sorted(ENTRIES))
def test_entry_points_are_named_after_their_source(module):
    names: dict[str, str] = {}
    for source in ENTRIES[module]:
        assert f"{source.name}(" in source.source
        assert names.setdefault(source.name, source.source) == source.source


@pytest.mark.parametrize("module", sorted(ENTRIES))
def test_grids_are_positive(module):
    for source in ENTRIES[module]:
        for n in (1, 7, 100_000):
            values = {f"d{d}": n for d in range(8)}
            sizes = [evaluate_size(g, values) for g in source.launch.grid]
            assert all(s >= 1 for s in sizes), (source.name, sizes)


SOURCE = '#include "math.cuh"\nextern "C" __global__ void twice(f32* p) { p[0] = op_add(p[0], p[0]); }\n'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXLITE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "_memory", {})
    monkeypatch.setattr(compiler, "counters", dict.fromkeys(compiler.counters, 0))
    return tmp_path


@needs_nvrtc
def test_cache_on_disk(cache):
    first = compiler.compile_cubin(SOURCE, "sm_90", "twice")
    assert compiler.compile_cubin(SOURCE, "sm_90", "twice") == first
    compiler._memory.clear()
    assert compiler.compile_cubin(SOURCE, "sm_90", "twice") == first
    assert {k: v for k, v in compiler.counters.items() if v} == {"compiled": 1, "memory_hits": 1, "disk_hits": 1}
    assert compiler.compile_cubin(SOURCE, "sm_80", "twice") != first
    assert len(list(cache.iterdir())) == 2


@needs_nvrtc
@pytest.mark.parametrize("damage", [lambda d: d[:-9], lambda d: d[:60] + b"\0\1\2" + d[63:], lambda d: b""])
def test_damaged_entries_are_rebuilt(cache, damage):
    first = compiler.compile_cubin(SOURCE, "sm_90", "twice")
    (path,) = cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    compiler._memory.clear()
    assert compiler.compile_cubin(SOURCE, "sm_90", "twice") == first
    assert compiler.counters["corrupt"] == 1
    assert compiler.counters["compiled"] == 2
    compiler._memory.clear()
    assert compiler.compile_cubin(SOURCE, "sm_90", "twice") == first  # written anew
    assert compiler.counters["disk_hits"] == 1


def test_every_kernel_waits_for_its_producers():
    for module, source in catalogue():
        assert "launch_dependents();" in source.source and "wait_for_producers();" in source.source, (
            module,
            source.name,
        )


def test_a_kernel_depends_on_the_headers_that_it_includes():
    assert compiler._included('#include "attention_mma.cuh"\n') >= {
        "attention.cuh",
        "mma.cuh",
        "chunk.cuh",
        "prelude.cuh",
    }
    assert compiler._included(SOURCE) == {"math.cuh", "prelude.cuh"} and compiler._included("int k;") == set()


@needs_nvrtc
def test_cache_that_cannot_be_written(cache, monkeypatch):
    blocker = cache / "file"
    blocker.write_text("")
    monkeypatch.setenv("MLXLITE_CACHE_DIR", str(blocker / "below"))
    assert compiler.compile_cubin(SOURCE, "sm_90", "twice")[:4] == b"\x7fELF"


def test_trim_removes_the_least_recently_used(cache):
    for k in range(4):
        path = cache / f"{k}.cubin"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 + (k + 2) % 4, 1000 + (k + 2) % 4))
    assert compiler.trim_cache(250) == 2
    assert sorted(p.name for p in cache.iterdir()) == ["0.cubin", "1.cubin"]


@needs_nvrtc
def test_an_error_names_the_kernel_and_has_the_log(cache):
    with pytest.raises(RuntimeError, match=r"\[softmax\][\s\S]*undefined_name"):
        compiler.compile_cubin('extern "C" __global__ void k() { undefined_name(); }', "sm_90", "softmax")
    assert not list(cache.iterdir())
