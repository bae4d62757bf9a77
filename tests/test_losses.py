"""Losses against mlx.nn.losses."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import mlx.nn as oracle_nn
import numpy as np
import pytest

from tests.differential import is_array, numpy_dtype, same_as_mlx
from tests.module_under_test import IS_MLX, mx, subpackage

nn = subpackage("nn")


def losses(module: Any) -> Any:
    return (oracle_nn if module.__name__ == "mlx.core" else nn).losses


def numbers(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(np.float32)


def classes(count: int, *shape: int, dtype: str = "int32") -> np.ndarray:
    return np.random.default_rng(shape).integers(0, count, shape).astype(dtype)


def probabilities(*shape: int, axis: int = -1) -> np.ndarray:
    p = numbers(*shape, low=0.1, high=1.0)
    return p / p.sum(axis=axis, keepdims=True)


A, B, C = (numbers(3, 4, seed=seed) for seed in (1, 2, 3))
SIGNS = np.where(B > 0, 1, -1).astype(np.float32)
BITS = (B > 0).astype(np.float32)
P = probabilities(3, 4)

# (loss, arguments, keywords): floating arguments are also tried in 16 bits.
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "cross entropy": ("cross_entropy", [A * 10, classes(4, 3)], {}),
    "cross entropy of one": ("cross_entropy", [A[0], np.array(2, np.int32)], {}),
    "cross entropy, unsigned": ("cross_entropy", [A, classes(4, 3, dtype="uint32")], {}),
    "cross entropy, first axis": ("cross_entropy", [A, classes(3, 4)], {"axis": 0}),
    "cross entropy, middle axis": ("cross_entropy", [numbers(2, 5, 3), classes(5, 2, 3)], {"axis": 1}),
    "cross entropy of probabilities": ("cross_entropy", [A, P], {}),
    "cross entropy of probabilities, first axis": ("cross_entropy", [A, probabilities(3, 4, axis=0)], {"axis": 0}),
    "cross entropy, smoothed": ("cross_entropy", [A, classes(4, 3)], {"label_smoothing": 0.3}),
    "cross entropy of probabilities, smoothed": ("cross_entropy", [A, P], {"label_smoothing": 0.3}),
    "cross entropy, weighted": ("cross_entropy", [A, classes(4, 3), numbers(3)], {}),
    "cross entropy, whole logits": ("cross_entropy", [np.array([[1, 2], [3, 0]], np.int32), classes(2, 2)], {}),
    "binary": ("binary_cross_entropy", [A * 10, BITS], {}),
    "binary, weighted": ("binary_cross_entropy", [A, BITS, C], {}),
    "binary of probabilities": ("binary_cross_entropy", [P, BITS], {"with_logits": False}),
    "binary of certain ones": (
        "binary_cross_entropy",
        [np.array([0, 1, 0, 1], np.float32), np.array([0, 0, 1, 1], np.float32)],
        {"with_logits": False},
    ),
    "l1": ("l1_loss", [A, B], {}),
    "mse": ("mse_loss", [A, B], {}),
    "mse of one": ("mse_loss", [np.array(A[0, 0]), np.array(B[0, 0])], {}),
    "nll": ("nll_loss", [np.log(P), classes(4, 3)], {}),
    "nll, first axis": ("nll_loss", [A, classes(3, 4)], {"axis": 0}),
    "gaussian": ("gaussian_nll_loss", [A, B, np.abs(C)], {}),
    "gaussian in full": ("gaussian_nll_loss", [A, B, np.abs(C)], {"full": True, "eps": 0.5}),
    "kl": ("kl_div_loss", [np.log(P), np.log(probabilities(3, 4)[::-1].copy())], {}),
    "kl, first axis": ("kl_div_loss", [A, B], {"axis": 0}),
    "smooth l1": ("smooth_l1_loss", [A, B], {}),
    "smooth l1, beta": ("smooth_l1_loss", [A, B], {"beta": 0.3}),
    "triplet": ("triplet_loss", [A, B, C], {}),
    "triplet, other": ("triplet_loss", [A, B, C], {"axis": 0, "p": 3, "margin": 0.2, "eps": 1e-2}),
    "hinge": ("hinge_loss", [A, SIGNS], {}),
    "huber": ("huber_loss", [A, B], {}),
    "huber, delta": ("huber_loss", [A, B], {"delta": 0.25}),
    "log cosh": ("log_cosh_loss", [A * 30, B], {}),
    "cosine": ("cosine_similarity_loss", [A, B], {}),
    "cosine, first axis": ("cosine_similarity_loss", [A, B], {"axis": 0}),
    "cosine of zeros": ("cosine_similarity_loss", [A * 0, B], {"eps": 0.5}),
    "cosine of whole numbers": ("cosine_similarity_loss", [np.array([[30000, 4]], np.int32), np.array([[3, 4]])], {}),
    "ranking": ("margin_ranking_loss", [A, B, SIGNS], {}),
    "ranking, margin": ("margin_ranking_loss", [A, B, SIGNS], {"margin": 0.5}),
}


def test_every_loss_of_mlx_is_here_and_tested():
    names = {n for n, f in vars(oracle_nn.losses).items() if inspect.isroutine(f) and n.islower() and n[0] != "_"}
    names -= {"get_args"}
    assert {name for name, _, _ in CASES.values()} == names and len(names) == 14


@pytest.mark.parametrize("name", sorted({name for name, _, _ in CASES.values()}))
def test_parameters_and_defaults(name):
    def described(function: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    assert described(getattr(nn.losses, name)) == described(getattr(oracle_nn.losses, name))


@pytest.mark.parametrize("reduction", [None, "none", "mean", "sum"])
@pytest.mark.parametrize("case", CASES)
def test_losses(case, reduction):
    name, arguments, keywords = CASES[case]
    if reduction is not None:
        keywords = {**keywords, "reduction": reduction}
    value = same_as_mlx(lambda m, *a: getattr(losses(m), name)(*a, **keywords), *arguments, case=case)
    assert is_array(value) and (reduction not in ("mean", "sum") or value.shape == ())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_losses_in_16_bits(case, dtype):
    name, arguments, keywords = CASES[case]
    arguments = [np.asarray(a.astype(numpy_dtype(dtype)) if a.dtype == np.float32 else a) for a in arguments]
    # Sums of a few roundings, of numbers up to 60.
    value = same_as_mlx(lambda m, *a: getattr(losses(m), name)(*a, **keywords), *arguments, case=case, scale=4.0)
    assert is_array(value)


@pytest.mark.skipif(not hasattr(mx, "value_and_grad"), reason="mx.value_and_grad is not there yet")
@pytest.mark.parametrize("case", [case for case, (_, inputs, _) in CASES.items() if inputs[0].dtype == np.float32])
def test_gradients(case):
    name, arguments, keywords = CASES[case]
    same_as_mlx(
        lambda m, x, *rest: m.grad(lambda x: getattr(losses(m), name)(x, *rest, **keywords).sum())(x),
        *arguments,
        case=case,
        tolerance=2e-5,
    )


SHAPES_DIFFER = ["binary_cross_entropy", "l1_loss", "mse_loss", "smooth_l1_loss"]
ERRORS: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    **{f"shapes of {name}": (name, [A, B[:2]], {}) for name in SHAPES_DIFFER},
    "shapes of means": ("gaussian_nll_loss", [A, B[:1], np.abs(C)], {}),
    "shapes of variances": ("gaussian_nll_loss", [A, B, np.abs(C[:1])], {}),
    "shapes of ranking": ("margin_ranking_loss", [A, B[:1], SIGNS], {}),
    "shapes of ranking's targets": ("margin_ranking_loss", [A, B, SIGNS[:1]], {}),
    "shapes of cross entropy": ("cross_entropy", [A, classes(4, 2)], {}),
    "shapes of probabilities": ("cross_entropy", [A, P[:, :2]], {}),
    "too few dims": ("cross_entropy", [numbers(2, 3, 4), classes(4, 2)], {}),
    "smoothing of 1": ("cross_entropy", [A, classes(4, 3)], {"label_smoothing": 1.0}),
    "smoothing below 0": ("cross_entropy", [A, classes(4, 3)], {"label_smoothing": -0.1}),
    "weights": ("cross_entropy", [A, classes(4, 3), numbers(3, 1)], {}),
    "weights of binary": ("binary_cross_entropy", [A, BITS, numbers(4)], {}),
    "cross entropy of nothing": ("cross_entropy", [numbers(0, 4), classes(4, 0)], {}),
    "axis": ("nll_loss", [A, classes(4, 3)], {"axis": 3}),
    **{
        f"reduction of {name}": (name, arguments, {**keywords, "reduction": "median"})
        for name, arguments, keywords in CASES.values()
    },
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    name, arguments, keywords = ERRORS[case]
    value = same_as_mlx(lambda m, *a: getattr(losses(m), name)(*a, **keywords), *arguments, case=case)
    assert value is None, "MLX raises no error here"


def test_certain_predictions_have_no_loss():
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], np.float32)
    value = same_as_mlx(lambda m, a, t: losses(m).cross_entropy(a, t), logits, np.array([0, 0], np.int32))
    assert value.tolist() == [0.0, 1000.0]


@pytest.mark.skipif(IS_MLX, reason="MLX's docstrings are not ours to test")
def test_docstrings():
    for module in (nn.losses, nn.init):
        result = doctest.testmod(module, extraglobs={"mx": mx})
        assert result.failed == 0 and result.attempted >= 10
