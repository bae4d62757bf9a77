"""Run by tests/test_cache.py, with MLXLITE_CUDA_DRIVER naming the fake driver: the GPU's caches over many programs.

Programs are lowered as for a GPU; their kernels do nothing, so that results are not looked at here.
"""

import os

import pytest

import mlxlite.core as mx
from backend_cuda import _runtime
from backend_cuda.lowering import lower
from backend_cuda.lowering.plan import assemble
from mlxlite import _graph
from tests.many_programs import evaluate_many

_runtime.initialize(os.environ["MLXLITE_CUDA_DRIVER"])
IDLE = _runtime.Module(b"not really a cubin").function("idle")


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    def lower_idle(tape):
        return assemble(lower(tape), _runtime, lambda sources: {s.name: IDLE for s in sources})

    _graph.register_backend("gpu", lower_idle, _runtime.api_capsule())
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)  # the fake driver is one
    mx.set_default_device(mx.gpu)
    yield
    mx.set_default_device(mx.cpu)


@pytest.mark.parametrize("capacity", [1024, 100])
def test_many_structures(capacity):
    counts = evaluate_many("gpu", capacity)
    assert counts["misses"] > 500
    assert (counts["evictions"] > 0) == (capacity < 600)
