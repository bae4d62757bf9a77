"""Products of matrices: shapes, dtypes, layouts, batches, and einsum."""

from __future__ import annotations

import numpy as np
import pytest

from .differential import TOLERANCE, layouts, same_as_mlx, same_as_numpy, samples, to_module
from .module_under_test import mx

DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64")
SHAPES = [
    ((4, 5), (5, 3)),
    ((1, 5), (5, 1)),
    ((5,), (5,)),
    ((5,), (5, 3)),
    ((4, 5), (5,)),
    ((2, 4, 5), (5, 3)),
    ((2, 4, 5), (2, 5, 3)),
    ((2, 1, 4, 5), (3, 5, 2)),
    ((4, 5), (2, 5, 3)),
    ((5,), (2, 5, 3)),
    ((2, 4, 5), (5,)),
    ((4, 0), (0, 3)),
    ((0, 4), (4, 3)),
    ((2, 0, 5), (5, 3)),
    ((33, 65), (65, 17)),
]


def _exact(a: np.ndarray) -> np.ndarray:
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_shapes(shapes):
    for dtype in DTYPES:
        a, b = samples(dtype, shapes[0], seed=1, domain="small"), samples(dtype, shapes[1], seed=2, domain="small")
        case = (dtype, shapes)
        same_as_numpy(mx.matmul(to_module(mx, a), to_module(mx, b)), _exact(a) @ _exact(b), case=case, scale=30)
        same_as_mlx(lambda m, a, b: a @ b, a, b, case=case, scale=30)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_layouts(dtype):
    for left, left_base, left_view in layouts((6, 4)):
        for right, right_base, right_view in layouts((4, 3)):
            a, b = samples(dtype, left_base, seed=1, domain="small"), samples(dtype, right_base, seed=2, domain="small")
            expected = _exact(left_view(a)) @ _exact(right_view(b))
            result = left_view(to_module(mx, a)) @ right_view(to_module(mx, b))
            same_as_numpy(result, expected, case=(left, right), scale=20)


def test_layouts_of_batches():
    for left, left_base, left_view in layouts((2, 5, 4)):
        a, b = (
            samples("float32", left_base, seed=1, domain="small"),
            samples("float32", (4, 2, 3), seed=2, domain="small"),
        )
        result = left_view(to_module(mx, a)) @ to_module(mx, b).transpose(1, 0, 2)
        same_as_numpy(result, _exact(left_view(a)) @ _exact(b).transpose(1, 0, 2), case=left, scale=20)


@pytest.mark.parametrize("n, k", [(40, 2064), (2049, 96), (4100, 64), (8199, 40), (14339, 32), (140_003, 16)])
def test_a_few_rows_times_weights_of_all_sizes(n, k):
    """Of whole numbers, whose sums are exact, as they are or with another array added."""
    rng = np.random.default_rng(n)
    w = rng.integers(-1, 2, (n, k + 3)).astype(np.float32)
    c = rng.integers(-3, 4, (16, n)).astype(np.float32)
    x = rng.integers(-1, 2, (16, k)).astype(np.float32)
    for dtype in (mx.bfloat16, mx.float16):
        given, weights, added = (mx.array(a).astype(dtype) for a in (x, w, c))
        mx.eval(given, weights, added)
        for rows in (1, 2, 7, 8, 16):
            for first in (0, 3):  # the second is off a boundary of 16 bytes
                rest = weights[:, first : first + k] if first else mx.contiguous(weights[:, :k])
                mx.eval(rest)
                expected = x[:rows] @ w[:, first : first + k].T
                assert np.abs(expected).max() < 250
                found = given[:rows] @ rest.T
                np.testing.assert_array_equal(np.array(found.astype(mx.float32)), expected)
                sums = added[:rows] + given[:rows] @ rest.T
                np.testing.assert_array_equal(np.array(sums.astype(mx.float32)), c[:rows] + expected)


@pytest.mark.parametrize("n, k", [(40, 2064), (2049, 96), (17_000, 64), (70_003, 264)])
def test_a_normed_row_times_weights_of_all_sizes(n, k):
    rng = np.random.default_rng(n)
    x, scale, w = rng.normal(size=(1, k)), rng.normal(size=k), rng.normal(size=(n, k))
    normed = x / np.sqrt((x * x).mean() + 1e-5) * scale
    given = [mx.array(a.astype(np.float32)) for a in (x, scale, w)]
    found = np.array(mx.fast.rms_norm(given[0], given[1], 1e-5) @ given[2].T)
    np.testing.assert_allclose(found, normed @ w.T, rtol=1e-4, atol=1e-3)
    gated = np.array(mx.sigmoid(given[0] @ given[2].T) * (given[0] @ given[2].T))
    product = x @ w.T
    np.testing.assert_allclose(gated, product / (1 + np.exp(-product)), rtol=1e-4, atol=1e-3)


def test_promotion():
    a, b = samples("float16", (2, 3), domain="small"), samples("float32", (3, 2), domain="small")
    same_as_mlx(lambda m, a, b: m.matmul(a, b), a, b, scale=20)
    same_as_mlx(lambda m, a, b: m.matmul(a, b), a.astype(np.int32), b, scale=20)


def test_addmm():
    for dtype in ("float16", "bfloat16", "float32"):
        a, b = samples(dtype, (4, 5), seed=1, domain="small"), samples(dtype, (5, 3), seed=2, domain="small")
        for shape in [(4, 3), (3,), (1, 3), (4, 1), ()]:
            c = samples(dtype, shape, seed=3, domain="small")
            for alpha, beta in [(1.0, 1.0), (0.5, 2.0), (1.0, 0.0)]:
                expected = beta * _exact(c) + alpha * (_exact(a) @ _exact(b))
                result = mx.addmm(*(to_module(mx, x) for x in (c, a, b)), alpha, beta)
                case = (dtype, shape, alpha, beta)
                same_as_numpy(result, expected, case=case, scale=40, tolerance=2 * TOLERANCE[dtype])
                same_as_mlx(
                    lambda m, c, a, b, x=alpha, y=beta: m.addmm(c, a, b, x, y),
                    c,
                    a,
                    b,
                    case=case,
                    scale=40,
                    tolerance=2 * TOLERANCE[dtype],
                )
    a, b, c = (samples("float32", s, seed=k, domain="small") for k, s in enumerate([(2, 4, 5), (2, 5, 3), (3,)]))
    same_as_mlx(lambda m, c, a, b: m.addmm(c, a, b), c, a, b, case="batch", scale=40)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_with_products(dtype):
    for left, right in [
        ((4, 5), (5, 3)),
        ((2, 4, 5), (5, 3)),
        ((2, 4, 5), (2, 5, 3)),
        ((1, 5), (5, 3)),
        ((33, 65), (65, 17)),
    ]:
        a, b = samples(dtype, left, seed=1, domain="small"), samples(dtype, right, seed=2, domain="small")
        product = _exact(a) @ _exact(b)
        for name, base, view in layouts(product.shape):
            c = samples(dtype, base, seed=3, domain="small")
            x, y, z = (to_module(mx, array) for array in (a, b, c))
            case = (dtype, left, right, name)
            tolerance = 2 * TOLERANCE[dtype]  # of two roundings
            same_as_numpy(x @ y + view(z), product + view(_exact(c)), case=case, scale=40, tolerance=tolerance)
            same_as_numpy(view(z) + x @ y, view(_exact(c)) + product, case=case, scale=40, tolerance=tolerance)


def test_other_products():
    a, b = samples("float32", (3, 4), seed=1, domain="small"), samples("float32", (2, 4), seed=2, domain="small")
    c = samples("float32", (4, 2), seed=3, domain="small")
    same_as_numpy(mx.inner(to_module(mx, a), to_module(mx, b)), np.inner(a, b), scale=20)
    same_as_numpy(mx.outer(to_module(mx, a), to_module(mx, b)), np.outer(a, b))
    same_as_numpy(mx.kron(to_module(mx, a), to_module(mx, b)), np.kron(a, b))
    for axes in (1, 0, ([1], [0]), ([0, 1], [0, 1])):
        left, right = (a, a) if axes == ([0, 1], [0, 1]) else (a, c)
        result = mx.tensordot(to_module(mx, left), to_module(mx, right), axes)
        same_as_numpy(result, np.tensordot(left, right, axes), case=axes, scale=30)
    same_as_mlx(lambda m, a, b: [m.inner(a, b), m.outer(a, b), m.kron(a, b)], a, b, scale=20)


EINSUMS = [
    ("ij,jk->ik", (3, 4), (4, 5)),
    ("ij,jk", (3, 4), (4, 5)),
    ("ij,kj->ki", (3, 4), (5, 4)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
    ("i,j->ij", (3,), (4,)),
    ("i,i->", (4,), (4,)),
    ("i,i->i", (4,), (4,)),
    ("ij->ji", (3, 4)),
    ("ij->j", (3, 4)),
    ("ij->", (3, 4)),
    ("ii->i", (4, 4)),
    ("ii", (4, 4)),
    ("bhid,bhjd->bhij", (2, 2, 3, 4), (2, 2, 5, 4)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("ijk,ilm,njm,nlk,abc->", (2, 3, 4), (2, 5, 3), (2, 3, 3), (2, 5, 4), (2, 2, 2)),
]


@pytest.mark.parametrize("call", EINSUMS, ids=lambda c: c[0])
def test_einsum(call):
    subscripts, *shapes = call
    inputs = [samples("float32", s, seed=k, domain="unit") for k, s in enumerate(shapes)]
    expected = np.einsum(subscripts, *(a.astype(np.float64) for a in inputs))
    same_as_numpy(mx.einsum(subscripts, *(to_module(mx, a) for a in inputs)), expected, case=subscripts, scale=10)


WRONG = {
    "inner dims": lambda m, a, b: m.matmul(a, b),
    "batch dims": lambda m, a, b: m.matmul(m.zeros((2, 3, 4)), m.zeros((3, 4, 5))),
    "a scalar": lambda m, a, b: m.matmul(a, m.array(1.0)),
    "a Python number": lambda m, a, b: m.matmul(a, 2.0),
    "addmm": lambda m, a, b: m.addmm(m.zeros((7,)), a, a.T),
    "integers": lambda m, a, b: m.matmul(a.astype(m.int32), a.T.astype(m.int32)),
    "einsum with too many inputs": lambda m, a, b: m.einsum("ij->i", a, b),
    "einsum of different dims": lambda m, a, b: m.einsum("ij,jk->ik", a, b),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    a, b = samples("float32", (2, 3)), samples("float32", (2, 3))
    with pytest.raises((ValueError, TypeError)):
        mx.eval(WRONG[name](mx, to_module(mx, a), to_module(mx, b)))
    same_as_mlx(WRONG[name], a, b, case=name)


def _random_einsum(seed: int) -> tuple[str, list[np.ndarray]]:
    """A sum of products of three to five arrays, each of up to three dims."""
    rng = np.random.default_rng(seed)
    sizes = {letter: int(n) for letter, n in zip("abcdef", rng.integers(1, 5, 6), strict=True)}
    terms = ["".join(rng.choice([*sizes], rng.integers(1, 4), replace=False)) for _ in range(rng.integers(3, 6))]
    output = "".join(x for x in sorted(set("".join(terms))) if rng.random() < 0.4)
    inputs = [samples("float32", [sizes[x] for x in term], seed=i, domain="unit") for i, term in enumerate(terms)]
    return f"{','.join(terms)}->{output}", inputs


@pytest.mark.parametrize("seed", range(40))
def test_einsum_of_many(seed):
    """However the products are ordered, the sum is NumPy's; and the path contracts all operands to one."""
    subscripts, inputs = _random_einsum(seed)
    expected = np.einsum(subscripts, *(a.astype(np.float64) for a in inputs))
    arrays = [to_module(mx, a) for a in inputs]
    same_as_numpy(mx.einsum(subscripts, *arrays), expected, case=subscripts, scale=100)
    left = len(inputs)
    for step in mx.einsum_path(subscripts, *arrays)[0]:
        assert len(set(step)) == len(step) and max(step) < left
        left += 1 - len(step)
    assert left == 1


@pytest.mark.parametrize(
    "subscripts, shapes",
    [
        ("ij->ji", [(2, 3)]),
        ("ii->", [(3, 3)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("ij,jk,kl->il", [(2, 9), (9, 9), (9, 2)]),
        ("i,j,k->ijk", [(2,), (3,), (4,)]),
        ("...ij,...jk,kl->...il", [(7, 2, 3), (7, 3, 4), (4, 5)]),
        ("abc,cd,bde,ea->d", [(2, 3, 4), (4, 5), (3, 5, 2), (2, 2)]),
    ],
)
def test_einsum_path(subscripts, shapes):
    inputs = [np.ones(shape, np.float32) for shape in shapes]
    path, text = same_as_mlx(lambda m, *a: m.einsum_path(subscripts, *a), *inputs)
    assert path and subscripts in text


def test_einsum_path_errors():
    a = np.ones((2, 3), np.float32)
    assert same_as_mlx(lambda m, a: m.einsum_path("ij,jk->ik", a), a) is None
    assert same_as_mlx(lambda m, a: m.einsum_path("ij,jk->ik", a, a), a) is None
    assert same_as_mlx(lambda m, a: m.einsum_path(3, a), a) is None
