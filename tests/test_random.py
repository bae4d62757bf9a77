"""Random numbers: the same key gives the same bits as in MLX, for every function."""

from __future__ import annotations

import numpy as np
import pytest

from .differential import dtype_of, same_as_mlx, samples, to_numpy
from .module_under_test import mx

SHAPES = [(), (1,), (5,), (8,), (3, 7), (2, 3, 4), (0,)]
FLOATS = ("float32", "float16", "bfloat16")


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1, 2**32, 2**64 - 1])
def test_keys(seed):
    same_as_mlx(lambda m: m.random.key(seed))
    for num in (1, 2, 3, 8):
        same_as_mlx(lambda m, n=num: m.random.split(m.random.key(seed), n), case=(seed, num))


def test_splits_of_splits():
    def call(m):
        a, b = m.random.split(m.random.key(3))
        return [m.random.split(a), m.random.split(b, 5), m.random.uniform(key=m.random.split(b, 5)[3])]

    same_as_mlx(call)


# Bits go through one multiplication to become uniform numbers: no tolerance there. What follows has logarithms.
@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform(dtype):
    for shape in SHAPES:
        for seed in (0, 7):
            same_as_mlx(
                lambda m, s=shape, k=seed: m.random.uniform(shape=s, key=m.random.key(k), dtype=dtype_of(m, dtype)),
                case=(dtype, shape, seed),
                tolerance=0,
            )
    same_as_mlx(
        lambda m: m.random.uniform(-2.5, 7, (20,), dtype=dtype_of(m, dtype), key=m.random.key(1)), case=dtype, scale=10
    )
    same_as_mlx(
        lambda m, low, high: m.random.uniform(low, high, (4, 3), dtype=dtype_of(m, dtype), key=m.random.key(1)),
        np.array([0, 1, 2], np.float32),
        np.array([[1], [2], [3], [4]], np.float32),
        case=(dtype, "bounds of arrays"),
        scale=4,
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal(dtype):
    for shape in SHAPES:
        same_as_mlx(
            lambda m, s=shape: m.random.normal(s, dtype=dtype_of(m, dtype), key=m.random.key(5)), case=(dtype, shape)
        )
    same_as_mlx(
        lambda m: m.random.normal((6,), dtype=dtype_of(m, dtype), loc=3.0, scale=0.5, key=m.random.key(5)),
        case=dtype,
        scale=4,
    )
    same_as_mlx(
        lambda m, loc: m.random.normal((4, 3), loc=loc, scale=m.array(2.0), key=m.random.key(5)),
        np.array([0, 100, 200], np.float32),
        scale=200,
    )


def test_normal_of_complex_numbers():
    same_as_mlx(lambda m: m.random.normal((6,), dtype=m.complex64, key=m.random.key(5)), scale=1)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "int16", "uint8"])
def test_randint(dtype):
    for low, high in [(0, 10), (3, 4), (5, 100)] + ([(-7, 7)] if dtype.startswith("int") else []):
        for shape in [(), (5,), (3, 4)]:
            same_as_mlx(
                lambda m, a=low, b=high, s=shape: m.random.randint(
                    a, b, s, dtype=dtype_of(m, dtype), key=m.random.key(2)
                ),
                case=(dtype, low, high, shape),
            )
    same_as_mlx(
        lambda m, high: m.random.randint(0, high, (4, 3), key=m.random.key(2)), np.array([1, 10, 1000], np.int32)
    )


def test_bernoulli():
    for p in (0.0, 0.3, 0.5, 1.0):
        same_as_mlx(lambda m, p=p: m.random.bernoulli(p, (50,), key=m.random.key(9)), case=p)
    same_as_mlx(lambda m: [m.random.bernoulli(key=m.random.key(1)), m.random.bernoulli(0.9, key=m.random.key(1))])
    p = np.array([0.1, 0.5, 0.9], np.float32)
    same_as_mlx(
        lambda m, p: [m.random.bernoulli(p, key=m.random.key(1)), m.random.bernoulli(p, (4, 3), key=m.random.key(1))], p
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_truncated_normal_gumbel_and_laplace(dtype):
    for shape in [(), (5,), (3, 4)]:
        for name, arguments in {
            "truncated_normal": (-1.0, 2.0, shape),
            "gumbel": (shape,),
            "laplace": (shape,),
        }.items():
            same_as_mlx(
                lambda m, n=name, a=arguments: getattr(m.random, n)(*a, dtype=dtype_of(m, dtype), key=m.random.key(4)),
                case=(name, dtype, shape),
                scale=4,
            )
    same_as_mlx(lambda m: m.random.laplace((6,), loc=3.0, scale=2.0, key=m.random.key(4)), scale=8)
    bounds = np.array([-1, 0, 1], np.float32)
    same_as_mlx(lambda m, b: m.random.truncated_normal(b, b + 1, key=m.random.key(4)), bounds, scale=4)


def test_categorical():
    logits = samples("float32", (4, 6), domain="small")
    for options in ({}, {"axis": 0}, {"num_samples": 5}, {"shape": (3, 4)}, {"axis": 0, "num_samples": 3}):
        same_as_mlx(lambda m, x, o=options: m.random.categorical(x, key=m.random.key(6), **o), logits, case=options)
    same_as_mlx(lambda m, x: m.random.categorical(x[0], key=m.random.key(6)), logits)
    sure = np.log(np.array([[0, 1, 0], [1, 0, 0]], np.float32) + 1e-30)
    assert mx.random.categorical(mx.array(sure)).tolist() == [1, 0]


def test_permutation():
    for x in (1, 2, 7, 100):
        same_as_mlx(lambda m, x=x: m.random.permutation(x, key=m.random.key(8)), case=x)
        assert sorted(mx.random.permutation(x).tolist()) == list(range(x))
    a = samples("float32", (4, 5), domain="small")
    for axis in (0, 1, -1):
        same_as_mlx(lambda m, a, x=axis: m.random.permutation(a, axis=x, key=m.random.key(8)), a, case=axis)


@pytest.mark.mlxlite_only
def test_multivariate_normal_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"multivariate_normal.*singular value decomposition"):
        mx.random.multivariate_normal(mx.zeros((2,)), mx.eye(2))


def test_sequences_after_a_seed():
    def call(m):
        m.random.seed(17)
        first = [m.random.uniform(shape=(3,)), m.random.normal((2,)), m.random.randint(0, 99, (4,))]
        return [*first, m.random.bernoulli(0.5, (4,)), m.random.permutation(5), m.random.uniform()]

    same_as_mlx(call)


def test_a_seed_repeats():
    mx.random.seed(3)
    a = [mx.random.normal((4,)).tolist() for _ in range(3)]
    mx.random.seed(3)
    assert [mx.random.normal((4,)).tolist() for _ in range(3)] == a
    assert a[0] != a[1]


@pytest.mark.mlxlite_only
def test_the_state_can_be_kept_and_put_back():
    mx.random.seed(5)
    kept = list(mx.random.state)
    a = mx.random.uniform(shape=(3,)).tolist()
    mx.random.state[0] = kept[0]
    assert mx.random.uniform(shape=(3,)).tolist() == a


def test_the_order_of_evaluation_does_not_matter():
    mx.random.seed(11)
    first, second = mx.random.uniform(shape=(2,)), mx.random.uniform(shape=(2,))
    mx.eval(second)
    late = first.tolist()
    mx.random.seed(11)
    assert mx.random.uniform(shape=(2,)).tolist() == late


def test_moments():
    key = mx.random.key(0)
    uniform = to_numpy(mx.random.uniform(shape=(100_000,), key=key))
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.005
    normal = to_numpy(mx.random.normal((100_000,), key=key))
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    integers = to_numpy(mx.random.randint(0, 6, (60_000,), key=key))
    assert np.bincount(integers, minlength=6).min() > 9_500


WRONG = {
    "a key of floats": lambda m: m.random.uniform(key=m.array([0.0, 1.0])),
    "a key of three": lambda m: m.random.uniform(key=m.array([0, 1, 2], dtype=m.uint32)),
    "uniform integers": lambda m: m.random.uniform(shape=(2,), dtype=m.int32),
    "normal integers": lambda m: m.random.normal((2,), dtype=m.int32),
    "floats from randint": lambda m: m.random.randint(0, 2, (2,), dtype=m.float32),
    "bernoulli of an integer": lambda m: m.random.bernoulli(m.array([1, 2])),
    "bounds that do not fit": lambda m: m.random.uniform(m.zeros((3,)), m.ones((3,)), shape=(2,)),
    "categorical with shape and num_samples": lambda m: m.random.categorical(
        m.zeros((2, 3)), shape=(2,), num_samples=2
    ),
    "categorical with a wrong shape": lambda m: m.random.categorical(m.zeros((2, 3)), shape=(5,)),
    "a negative shape": lambda m: m.random.uniform(shape=(-1,)),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    with pytest.raises((ValueError, TypeError)):
        mx.eval(WRONG[name](mx))
    same_as_mlx(WRONG[name], case=name)
