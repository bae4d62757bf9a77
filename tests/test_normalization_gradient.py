"""Gradients of rms_norm and layer_norm, primitives of their own, against those in float64, made of other operations."""

from __future__ import annotations

import numpy as np
import pytest

from tests.differential import to_numpy
from tests.module_under_test import mx

TOLERANCE = {"bfloat16": 3e-2, "float16": 4e-3, "float32": 2e-6}
# Of x: rows that fill a warp's registers, that do not, that take a block, and a row alone.
SHAPES = [(2, 5, 64), (7, 33), (3, 1200), (80,)]


def function_of(name, weighted=True, biased=True):
    def norm(x, *affine):
        w = affine[0] if weighted else None
        if name == "rms_norm":
            return mx.fast.rms_norm(x, w, 1e-3)
        return mx.fast.layer_norm(x, w, affine[-1] if biased else None, 1e-3)

    return norm


def arrays_of(name, shape, weighted=True, biased=True):
    """x, weight and bias, and a cotangent, that bfloat16 can hold."""
    rng = np.random.default_rng(11)
    shapes = [shape, *[shape[-1:]] * (weighted + (biased and name == "layer_norm")), shape]
    arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
    return [mx.array((a.view(np.uint32) & 0xFFFF0000).view(np.float32)) for a in arrays]


def near(found, expected, dtype):
    scale = max(1.0, float(np.abs(to_numpy(expected)).max()))
    assert found.shape == expected.shape and found.dtype == getattr(mx, dtype)
    kind = mx.float64 if dtype == "float64" else mx.float32
    np.testing.assert_allclose(to_numpy(found.astype(kind)), to_numpy(expected), atol=scale * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("weighted", "biased"), [(True, True), (False, False), (True, False), (False, True)])
@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
def test_gradient(name, weighted, biased, shape, dtype):
    *primals, c = arrays_of(name, shape, weighted, biased)
    norm = function_of(name, weighted, biased)
    _, expected = mx.vjp(norm, [a.astype(mx.float64) for a in primals], [c.astype(mx.float64)])
    given = [a.astype(getattr(mx, dtype)) for a in primals]
    _, found = mx.vjp(norm, given, [c.astype(getattr(mx, dtype))])
    mx.eval(found)
    for a, b in zip(found, expected, strict=True):
        near(a, b, dtype)


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
def test_gradient_of_one_argument(name):
    *primals, c = arrays_of(name, (4, 48))
    norm = function_of(name)
    _, expected = mx.vjp(norm, primals, [c])
    for k in range(len(primals)):

        def of_one(a, k=k):
            return norm(*primals[:k], a, *primals[k + 1 :])

        near(mx.vjp(of_one, [primals[k]], [c])[1][0], expected[k], "float32")


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
def test_second_derivatives(name):
    *primals, c = arrays_of(name, (3, 16))

    def penalty(*a):
        found = mx.vjp(function_of(name), list(a), [c.astype(a[0].dtype)])[1]
        return sum((g * g * (k + 1)).sum() for k, g in enumerate(found))

    argnums = tuple(range(len(primals)))
    expected = mx.grad(penalty, argnums=argnums)(*[a.astype(mx.float64) for a in primals])
    for a, b in zip(mx.grad(penalty, argnums=argnums)(*primals), expected, strict=True):
        scale = float(np.abs(to_numpy(b)).max())
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=1e-5 * max(1.0, scale))


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
def test_tangents_of_gradients(name):
    *primals, c = arrays_of(name, (3, 16))

    def gradients(*a):
        return mx.vjp(function_of(name), list(a), [c.astype(a[0].dtype)])[1]

    wide = [a.astype(mx.float64) for a in primals]
    expected = mx.jvp(gradients, wide, [a * a - 0.5 for a in wide])[1]
    for a, b in zip(mx.jvp(gradients, primals, [a * a - 0.5 for a in primals])[1], expected, strict=True):
        scale = float(np.abs(to_numpy(b)).max())
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=1e-5 * max(1.0, scale))


@pytest.mark.parametrize("shape", [(4, 3, 16), (4, 16)])
@pytest.mark.parametrize("mapped", ["all", "rows"])
@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
def test_mapped_gradients(name, mapped, shape):
    """vmap of the gradient: each element's is that of the element, the weight's of its own rows alone."""
    x, *affine, c = arrays_of(name, shape)

    def gradients(c, x, *affine):
        return mx.vjp(function_of(name), [x, *affine], [c])[1]

    rows = [mx.stack([a * (i + 1) for i in range(shape[0])]) for a in affine] if mapped == "all" else affine
    axes = (0, 0, *[0 if mapped == "all" else None] * len(affine))
    found = mx.vmap(gradients, in_axes=axes)(c, x, *rows)
    for i in range(shape[0]):
        expected = gradients(c[i], x[i], *[a[i] if mapped == "all" else a for a in rows])
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(to_numpy(a[i]), to_numpy(b), rtol=2e-5, atol=2e-5)


def test_rows_that_are_apart_and_sizes_that_change():
    norm = function_of("rms_norm")
    for rows in (3, 40, 7):
        x, w, c = arrays_of("rms_norm", (rows, 24))
        whole = mx.concatenate([x, x], axis=1)
        expected = mx.vjp(norm, [x, w], [c])[1]

        def of_part(a, w):
            return norm(a[:, 24:], w)

        found = mx.vjp(of_part, [whole, w], [mx.broadcast_to(c[:1], c.shape) * 0 + c])[1]
        near(found[0][:, 24:], expected[0], "float32")
        near(found[1], expected[1], "float32")


def test_no_rows():
    for shape in ((0, 8), (3, 0)):
        x, w = mx.ones(shape), mx.ones(shape[-1:])
        found = mx.vjp(function_of("rms_norm"), [x, w], [mx.ones(shape)])[1]
        assert found[0].shape == shape and found[1].shape == shape[-1:]
        np.testing.assert_array_equal(to_numpy(found[1]), np.zeros(shape[-1:]))


@pytest.mark.mlxlite_only
def test_both_gradients_are_one_kernel_and_its_sums():
    x, w, c = arrays_of("rms_norm", (40, 24))
    mx.eval(x, w, c)
    found = mx.vjp(function_of("rms_norm"), [x, w], [c])[1]
    labels = [node.label for node in mx.explain(*found, device=mx.gpu).nodes]
    assert labels == ["norm_vjp+norm_vjp_weight", "column sums"], labels


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("before", [True, False])
def test_a_gradient_is_added_to_that_around_the_norm(name, dtype, before):
    x, *affine, c = (a.astype(getattr(mx, dtype)) for a in arrays_of(name, (40, 24)))
    norm = function_of(name)
    mx.eval(x, c, *affine)

    def around(x, *affine):
        return norm(x, *affine) + x if before else x + norm(x, *affine)

    def gradients():
        return mx.vjp(around, [x, *affine], [c])[1]

    alone = mx.vjp(norm, [x, *affine], [c])[1]
    expected = [alone[0].astype(mx.float32) + c.astype(mx.float32), *alone[1:]]
    for a, b in zip(gradients(), expected, strict=True):
        tolerance = 2e-5 if dtype == "float32" else 2**-6
        np.testing.assert_allclose(to_numpy(a.astype(mx.float32)), to_numpy(b.astype(mx.float32)), tolerance, tolerance)
    labels = [node.label for node in mx.explain(*gradients(), device=mx.gpu).nodes]
    assert "add" not in labels and any("norm_vjp" in label and "add" in label for label in labels), labels
    kept = mx.vjp(norm, [x, *affine], [c])[1]
    labels = [node.label for node in mx.explain(kept[0], kept[0] + c, device=mx.gpu).nodes]
    assert "add" in labels, labels  # the gradient itself is asked for, too
