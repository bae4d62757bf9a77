"""Arrays on the fake driver: programs are lowered, bound and launched as on a GPU, by kernels that do nothing."""

import pytest

import backend_cuda
import mlxlite.core as mx
from backend_cuda import _runtime
from backend_cuda.kernels.kernel import words_of
from mlxlite import _graph


def functions(sources):
    """Functions with the sources' parameters, that do nothing."""
    found = {}
    for source in sources:
        sizes = [4 if p[0] == "scalar" and p[2] == "f32" else 8 * words_of(p) for p in source.params]
        text = " ".join(map(str, ["sizes", *([8] if source.from_memory else sizes)]))
        found[source.name] = _runtime.Module(text.encode()).function(source.name, 0)
    return found


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(backend_cuda, "functions", functions)
    monkeypatch.setattr(backend_cuda, "are_compiled", lambda sources: True)
    _graph.register_backend("gpu", backend_cuda._lower, _runtime.api_capsule())
    before = mx.default_device()
    _graph.set_default_device(mx.gpu)
    yield
    _graph.set_default_device(before)
    _graph.clear_plans()
