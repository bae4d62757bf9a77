"""Arrays large enough for the kernels that a GPU has for them: other tests' arrays are small, and so are their kernels'
variants. Values are compared with NumPy's, in float64; the last tests say which kernels the cases are for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from .differential import TOLERANCE, numpy_dtype, to_module, to_numpy
from .module_under_test import mx

Spec = tuple[tuple[int, ...], str]


@dataclass(frozen=True)
class Case:
    """What is computed, by the module under test and by NumPy from float64.

    Attributes:
        tolerance: 0, or what a result may differ by, as a fraction of the greatest one.
        integers: whether the inputs are small integers, whose sums are exact.
    """

    name: str
    inputs: tuple[Spec, ...]
    call: Callable[..., Any]
    reference: Callable[..., Any]
    tolerance: float = 0.0
    integers: bool = True

    def arrays(self) -> list[np.ndarray]:
        rng = np.random.default_rng(len(self.name))
        draws = (rng.integers(-3, 4, s) if self.integers else rng.uniform(-2, 2, s) for s, _ in self.inputs)
        # Rounded to the dtype here, so that both sides begin with the same numbers.
        return [
            np.abs(a).astype(d) if d.startswith("u") else a.astype(numpy_dtype(d))
            for a, (_, d) in zip(draws, self.inputs, strict=True)
        ]


def _rms_norm(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w


def _layer_norm(x, w, b):
    c = x - x.mean(-1, keepdims=True)
    return c / np.sqrt((c * c).mean(-1, keepdims=True) + 1e-5) * w + b


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# Rows and features: rows of one pack a thread, and many rows, of up to five.
NORMALIZED = [(3, n) for n in (5, 40, 100, 200, 300, 600, 1100, 3000, 5000, 10_000, 14_000, 17_001, 30_000)]
MANY = 2100
NORMALIZED += [(MANY, n) for n in (70, 100, 130, 160, 180, 250, 300, 350, 480, 577, 700, 800, 1101, 1400, 1700, 2300)]
NORMALIZED += [(MANY, n) for n in (2700, 3200)]


def _normalizations() -> Iterator[Case]:
    for rows, n in NORMALIZED:
        for dtype in ("bfloat16", "float32"):
            if rows == MANY and n > 1000 and dtype == "float32":
                continue  # those of half as many features are as long
            x, w, close = ((rows, n), dtype), ((n,), dtype), {"tolerance": TOLERANCE[dtype], "integers": False}
            name = f"{rows}x{n} {dtype}"
            yield Case(f"softmax {name}", (x,), lambda m, x: m.softmax(x, axis=-1, precise=True), _softmax, **close)
            yield Case(f"rms_norm {name}", (x, w), lambda m, x, w: m.fast.rms_norm(x, w, 1e-5), _rms_norm, **close)
            yield Case(
                f"layer_norm {name}",
                (x, w, w),
                lambda m, x, w, b: m.fast.layer_norm(x, w, b, 1e-5),
                _layer_norm,
                **close,
            )
            yield Case(
                f"rms_norm written out {name}",
                (x, w),
                lambda m, x, w: x * m.rsqrt(m.mean(m.square(x.astype(m.float32)), -1, keepdims=True) + 1e-5) * w,
                _rms_norm,
                **close,
            )


def _rms_norm_vjp(x, w, c):
    inverse = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    n, g = x * inverse, c * w
    return inverse * (g - n * (g * n).mean(-1, keepdims=True)), (c * n).sum(0)


def _layer_norm_vjp(x, w, c):
    d = x - x.mean(-1, keepdims=True)
    inverse = 1 / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)
    n, g = d * inverse, c * w
    dx = inverse * (g - g.mean(-1, keepdims=True) - n * (g * n).mean(-1, keepdims=True))
    return dx, (c * n).sum(0), c.sum(0)


def _gradients() -> Iterator[Case]:
    for n in (64, 768, 1024, 3000, 8192):
        for dtype in ("bfloat16", "float32"):
            x, w, close = ((300, n), dtype), ((n,), dtype), {"tolerance": 2 * TOLERANCE[dtype], "integers": False}
            yield Case(
                f"gradient of rms_norm 300x{n} {dtype}",
                (x, w, x),
                lambda m, x, w, c: m.vjp(lambda x, w: m.fast.rms_norm(x, w, 1e-5), [x, w], [c])[1],
                _rms_norm_vjp,
                **close,
            )
            yield Case(
                f"gradient of layer_norm 300x{n} {dtype}",
                (x, w, x),
                lambda m, x, w, c: m.vjp(
                    lambda x, w, b: m.fast.layer_norm(x, w, b, 1e-5), [x, w, m.zeros_like(w)], [c]
                )[1],
                _layer_norm_vjp,
                **close,
            )


def _moves() -> Iterator[Case]:
    for dtype in ("int8", "bfloat16", "float32", "int64"):
        for shape, axes in [((1301, 1100), (1, 0)), ((3, 70, 4100), (2, 0, 1)), ((256, 512), (1, 0))]:
            yield Case(
                f"transpose {shape} {dtype} to {axes}",
                ((shape, dtype),),
                lambda m, x, axes=axes: m.contiguous(m.transpose(x, axes)),
                lambda x, axes=axes: x.transpose(axes),
            )
        yield Case(
            f"take rows {dtype}",
            (((3000, 520), dtype), ((4000,), "uint32")),
            lambda m, x, rows: m.take(x, rows * 700, axis=0),
            lambda x, rows: x[(rows * 700).astype(int)],
        )


def _reductions() -> Iterator[Case]:
    shapes: list[tuple[tuple[int, ...], int | tuple[int, ...]]] = [
        ((1_000_003,), 0),
        ((3, 400_001), 1),
        ((400_001, 3), 0),
    ]
    shapes += [((40, 501, 60), 1), ((40, 501, 60), (0, 2)), ((100_000, 70), 0), ((5000, 1030), 0), ((5000, 1030), 1)]
    for shape, axis in shapes:
        for dtype in ("float32", "bfloat16", "int8"):
            x, name = ((shape, dtype),), f"{shape} {dtype}, axis {axis}"
            if dtype != "bfloat16":  # which would round the sums
                yield Case(f"sum {name}", x, lambda m, x, a=axis: m.sum(x, axis=a), lambda x, a=axis: x.sum(a))
            yield Case(f"max {name}", x, lambda m, x, a=axis: m.max(x, axis=a), lambda x, a=axis: x.max(a))
            yield Case(f"all {name}", x, lambda m, x, a=axis: m.all(x + 2, axis=a), lambda x, a=axis: (x + 2).all(a))
            if isinstance(axis, int):
                yield Case(f"argmin {name}", x, lambda m, x, a=axis: m.argmin(x, axis=a), lambda x, a=axis: x.argmin(a))
        yield Case(
            f"logsumexp {shape}, axis {axis}",
            ((shape, "float32"),),
            lambda m, x, a=axis: m.logsumexp(x, axis=a),
            lambda x, a=axis: np.log(np.exp(x).sum(a)),
            tolerance=TOLERANCE["float32"],
        )


def _products() -> Iterator[Case]:
    for rows in range(1, 10):
        for dtype in ("bfloat16", "float32"):
            x, name = ((rows, 1100), dtype), f"{rows}x1100 {dtype}"
            close = {"tolerance": TOLERANCE["bfloat16"] / 2 if dtype == "bfloat16" else 2e-3}  # TF32's
            yield Case(
                f"product by rows {name}",
                (x, ((901, 1100), dtype)),
                lambda m, x, w: x @ w.T,
                lambda x, w: x @ w.T,
                **close,
            )
            yield Case(
                f"product by columns {name}",
                (x, ((1100, 904), dtype)),
                lambda m, x, w: x @ w,
                lambda x, w: x @ w,
                **close,
            )
    for n, k in [(576, 1536), (1536, 576), (2048, 2048), (2048, 8192), (8192, 2048), (64, 14_336)]:
        yield Case(
            f"product of a row by {n}x{k}",
            (((1, k), "bfloat16"), ((n, k), "bfloat16")),
            lambda m, x, w: x @ w.T,
            lambda x, w: x @ w.T,
            tolerance=TOLERANCE["bfloat16"] / 2,
        )


def _orders() -> Iterator[Case]:
    for n in (6, 12, 30, 60, 100, 200, 400, 900, 1500, 3000, 6000, 20_000, 200_003):
        rows = 2 if n > 10_000 else 5
        for dtype in ("float32", "int8", "bfloat16"):
            x, name = (((rows, n), dtype),), f"{rows}x{n} {dtype}"
            yield Case(f"sort {name}", x, lambda m, x: m.sort(x, axis=-1), lambda x: np.sort(x, -1))
            yield Case(
                f"argsort {name}", x, lambda m, x: m.argsort(x, axis=-1), lambda x: np.argsort(x, -1, kind="stable")
            )
            for k in (2, 40):
                if k < n:
                    yield Case(
                        f"topk {name}, {k}",
                        x,
                        lambda m, x, k=k: m.sort(m.topk(x, k, axis=-1), axis=-1),
                        lambda x, k=k: np.sort(x, -1)[:, -k:],
                    )
                    if dtype != "int8":
                        yield Case(
                            f"gradient of topk {name}, {k}",
                            x,
                            lambda m, x, k=k: m.sum(m.grad(lambda y: m.sum(m.topk(y, k, axis=-1)))(x) * x, axis=-1),
                            lambda x, k=k: np.sort(x, -1)[:, -k:].sum(-1),
                        )
                    yield Case(
                        f"argpartition {name}, {k}",
                        x,
                        lambda m, x, k=k: m.sort(
                            m.take_along_axis(x, m.argpartition(x, -k, axis=-1)[:, -k:], axis=-1), axis=-1
                        ),
                        lambda x, k=k: np.sort(x, -1)[:, -k:],
                    )


def _attention(q, k, v):
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    return _softmax(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5) @ v


def _attentions() -> Iterator[Case]:
    for features in (64, 80, 96, 128, 192, 256):
        for dtype in ("float32", "bfloat16"):
            for queries in (1, 70):
                q, k = ((1, 4, queries, features), dtype), ((1, 2, 300, features), dtype)
                yield Case(
                    f"attention of {queries} over 300, {features} features {dtype}",
                    (q, k, k),
                    lambda m, q, k, v: m.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5),
                    _attention,
                    tolerance=2e-3 if dtype == "float32" else TOLERANCE[dtype],
                    integers=False,
                )


FAMILIES = {
    "normalizations": _normalizations,
    "gradients": _gradients,
    "moves": _moves,
    "reductions": _reductions,
    "products": _products,
    "orders": _orders,
    "attentions": _attentions,
}
CASES = {family: list(cases()) for family, cases in FAMILIES.items()}


@pytest.mark.parametrize("case", [c for cases in CASES.values() for c in cases], ids=lambda c: c.name)
def test_values(case: Case, device: str, is_fused: bool) -> None:
    is_simulated = device == "cpu" and is_fused
    if is_simulated and case.inputs[0][0][0] == MANY:
        pytest.skip("a simulation runs no kernels, and the plan is that of 3 rows")
    arrays = case.arrays()
    found = case.call(mx, *(to_module(mx, a) for a in arrays))
    with np.errstate(over="ignore"):
        wanted = case.reference(*(a.astype(np.float64) for a in arrays))
    several = isinstance(wanted, tuple)
    for f, w in zip(found, wanted, strict=True) if several else [(found, wanted)]:
        values = to_numpy(f).astype(np.float64)
        if case.tolerance:
            np.testing.assert_allclose(values, w, rtol=0, atol=case.tolerance * np.abs(w).max())
        else:
            np.testing.assert_array_equal(values, w)


# Kernels that the cases are for, without dtypes; those of norms are in a test of their own.
REACHED = {
    "gradients": {f"{n}_norm_vjp_{k}_x_w" for n in ("rms", "layer") for k in (64, 768, 1024, 3000, 8192)},
    "moves": {"transpose_8", "transpose_16", "transpose_32", "transpose_64", "gather"},
    "reductions": {
        f"{op}_{dims}"
        for op in ("max", "logsumexp", "argmin")
        for dims in ("r_rows", "kr_rows", "rk_columns", "rkk_columns")
    }
    | {"max_rk_deep_columns", "sum_krr_rows", "max_krr_rows", "logsumexp_krr_rows"},
    "products": {"matvec_kn", "row_product_copy"},
    "orders": {f"{op}_{2**k}" for op in ("sort", "argsort") for k in range(3, 14) if k != 9}
    | {"sort_histogram", "sort_scatter", "argsort_scatter_first_last", "sort_sum_1", "sort_sum_128"}
    | {f"topk_{part}" for part in ("count", "count_selected", "write", "short", "long")}
    | {f"{op}_lanes_{2**k}" for op in ("topk", "argtopk") for k in range(3, 9)}
    | {f"argtopk_{part}" for part in ("count", "count_selected", "write", "short", "long")},
    "attentions": {f"attention_{n}_{n}_none" for n in (64, 80, 96, 128, 192, 256)}
    | {f"decode_{n}_{n}_none" for n in (64, 80, 96, 128, 192, 256)}
    | {f"decode_{n}_{n}_none_mma" for n in (64, 80, 96, 128)},
}


def _kernels(family: str) -> set[str]:
    """The names of the kernels of a family's plans, without dtypes and hashes."""
    from backend_cuda.lowering import lower
    from backend_cuda.lowering.plan import KernelNode
    from mlxlite import _graph

    names: set[str] = set()
    for case in CASES[family]:
        found = case.call(mx, *(to_module(mx, a) for a in case.arrays()))
        for tape in _graph.tapes(list(found) if isinstance(found, (list, tuple)) else [found], "gpu"):
            names |= {n.source.name for n in lower(tape).nodes if isinstance(n, KernelNode) and n.source}
    without_hash = (name.rpartition("_")[0] for name in names)
    return {re.sub("_(b?float|complex|u?int)[0-9]+|_bool", "", name) for name in without_hash}


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("family", REACHED)
def test_cases_reach_their_kernels(family: str, device: str) -> None:
    if device != "cpu":
        pytest.skip("what is chosen for a GPU depends on the GPU")
    assert REACHED[family] - _kernels(family) == set()


@pytest.mark.mlxlite_only
def test_cases_reach_all_variants_of_norms(device: str) -> None:
    if device != "cpu":
        pytest.skip("what is chosen for a GPU depends on the GPU")
    from backend_cuda.kernels.normalize import choose_variant

    few, most = max(n for rows, n in NORMALIZED if rows != MANY), max(n for rows, n in NORMALIZED if rows == MANY)
    variants = {choose_variant("bfloat16", 3, n) for n in range(1, few)}
    variants |= {choose_variant("bfloat16", MANY, n) for n in range(65, most)}
    wanted = {f"{op}_{v.team}x{v.packs}" for op in ("softmax", "rms_norm", "layer_norm") for v in variants}
    assert wanted - _kernels("normalizations") == set()
