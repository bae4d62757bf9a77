"""Initializers against mlx.nn.init, from the same seeds."""

from __future__ import annotations

import inspect
from typing import Any

import mlx.core
import mlx.nn as oracle
import numpy as np
import pytest

from tests.differential import assert_close, dtype_name, dtype_of, same_as_mlx, to_numpy
from tests.module_under_test import mx, subpackage

nn = subpackage("nn")
flatten = subpackage("utils").tree_flatten

INITIALIZERS: dict[str, Any] = {
    "constant": lambda init, dtype: init.constant(0.5, dtype),
    "normal": lambda init, dtype: init.normal(1.0, 0.5, dtype),
    "uniform": lambda init, dtype: init.uniform(-1.0, 3.0, dtype),
    "glorot_normal": lambda init, dtype: init.glorot_normal(dtype),
    "glorot_uniform": lambda init, dtype: init.glorot_uniform(dtype),
    "he_normal": lambda init, dtype: init.he_normal(dtype),
    "he_uniform": lambda init, dtype: init.he_uniform(dtype),
    "sparse": lambda init, dtype: init.sparse(0.3, 0.5, 2.0, dtype),
    "orthogonal": lambda init, dtype: init.orthogonal(2.0, dtype),
    "identity": lambda init, dtype: init.identity(dtype),
}


def test_every_initializer_of_mlx_is_here_and_tested():
    found = {n for n, f in vars(oracle.init).items() if inspect.isfunction(f) and n[0] != "_"}
    assert found == set(INITIALIZERS)
    for name in found:
        ours, theirs = (inspect.signature(getattr(m.init, name)).parameters for m in (nn, oracle))
        assert list(ours) == list(theirs)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers(name, dtype):
    arguments: list[dict[str, Any]] = [{}]
    if "glorot" in name or "he_" in name:
        arguments.append({"gain": 2.0})
    if "he_" in name:
        arguments.append({"mode": "fan_out"})
    shapes = [(6, 6)] if name == "identity" else [(6, 6), (5, 8), (8, 5)]
    if name in ("constant", "normal", "uniform"):
        shapes += [(), (3,)]
    if name not in ("identity", "sparse", "orthogonal"):
        shapes += [(4, 3, 2, 5)]
    for shape in shapes:
        for given in arguments:
            results = []
            for module, m in ((mx, nn), (mlx.core, oracle)):
                module.random.seed(5)
                initializer = INITIALIZERS[name](m.init, dtype_of(module, dtype))
                results.append(initializer(module.zeros(shape), **given))
            tolerance = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}[dtype]
            ours, theirs = results
            assert dtype_name(ours.dtype) == dtype_name(theirs.dtype) == dtype and ours.shape == theirs.shape
            assert_close(to_numpy(ours), to_numpy(theirs), case=(name, shape, given), tolerance=tolerance)


def test_orthogonal_is_orthogonal():
    for shape in ((5, 5), (3, 8), (8, 3)):
        q = to_numpy(nn.init.orthogonal()(mx.zeros(shape)))
        product = q @ q.T if shape[0] <= shape[1] else q.T @ q
        np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-5)


def test_initializers_of_a_model():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model.apply(nn.init.constant(0.25))
    assert all((to_numpy(a) == 0.25).all() for _, a in flatten(model.parameters()))


ERRORS: dict[str, Any] = {
    "vectors of glorot": lambda m, core: m.init.glorot_normal()(core.ones((3,))),
    "vectors of he": lambda m, core: m.init.he_uniform()(core.ones((3,))),
    "mode of he": lambda m, core: m.init.he_normal()(core.ones((3, 3)), mode="fan"),
    "identity that is not square": lambda m, core: m.init.identity()(core.ones((3, 2))),
    "sparse vectors": lambda m, core: m.init.sparse(0.5)(core.ones((3,))),
    "orthogonal of three dims": lambda m, core: m.init.orthogonal()(core.ones((3, 2, 2))),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    def call(module: Any) -> Any:
        return ERRORS[case](oracle if module is mlx.core else nn, module)

    assert same_as_mlx(call, case=case) is None
