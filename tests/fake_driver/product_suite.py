"""Sums with products, lowered, bound and computed by the fake cuBLASLt: plans of nothing but matmul nodes.

Run by tests/test_runtime_fake_driver.py.
"""

import os

import numpy as np
import pytest

import mlxlite.core as mx
from backend_cuda import _runtime
from backend_cuda.lowering import lower
from backend_cuda.lowering.plan import assemble
from mlxlite import _graph

_runtime.initialize(os.environ["MLXLITE_CUDA_DRIVER"])


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    def no_kernels(sources):
        assert not sources, [s.name for s in sources]
        return {}

    _graph.register_backend("gpu", lambda tape: assemble(lower(tape), _runtime, no_kernels), _runtime.api_capsule())
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)  # the fake driver is one
    mx.set_default_device(mx.gpu)
    yield
    mx.set_default_device(mx.cpu)


def integers(*shape, dtype=np.float32):
    return np.random.default_rng(shape).integers(-4, 5, shape).astype(dtype)


@pytest.mark.parametrize(
    ("a", "b", "c"),
    [
        ((3, 4), (4, 5), (3, 5)),
        ((2, 3, 4), (4, 5), (2, 3, 5)),
        ((2, 3, 4), (2, 4, 5), (2, 3, 5)),
        ((6, 4), (4, 5), (2, 3, 5)),
    ],
)
def test_a_sum_with_a_product(a, b, c):
    for n in (0, 1, 5):  # the same plan, other sizes
        x, w, y = (integers(*s[:-2], s[-2] + n * (k != 1), s[-1]) for k, s in enumerate((a, b, c)))
        if len(a) < len(c):
            y = integers(2, c[1] + n, c[2])
            x = integers(2 * (c[1] + n), a[1])
        found = mx.array(y) + (mx.array(x) @ mx.array(w)).reshape(y.shape)
        np.testing.assert_array_equal(np.array(found), y + (x @ w).reshape(y.shape))


def test_weights_that_are_stored_transposed():
    x, w, y = integers(3, 4), integers(5, 4), integers(3, 5)
    found = mx.array(x) @ mx.array(w).T + mx.array(y)
    np.testing.assert_array_equal(np.array(found), x @ w.T + y)


def test_a_chain_of_sums():
    x, w = integers(3, 3), integers(3, 3)
    found, expected = mx.array(x), x
    for _ in range(4):
        found, expected = found + found @ mx.array(w), expected + expected @ w
    np.testing.assert_array_equal(np.array(found), expected)


@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.5, 2.0), (-1.0, 0.0)])
def test_addmm_of_a_whole_array(factors):
    x, w, y = integers(3, 4), integers(4, 5), integers(3, 5)
    alpha, beta = factors
    found = mx.addmm(mx.array(y), mx.array(x), mx.array(w), alpha, beta)
    np.testing.assert_array_equal(np.array(found), alpha * (x @ w) + beta * y)
