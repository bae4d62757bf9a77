"""The table of `test_gradients.py`: functions of arrays, one or more for every primitive that has derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .differential import samples


@dataclass
class Case:
    """A call, and what it takes.

    Attributes:
        call: of a module and arrays.
        shapes: of the arrays.
        domain: of their numbers, or one for each.
        constants: NumPy arrays passed after them, without derivatives (indices, masks).
        mlx_lacks: "jvp" or "vjp" (and jvp), what MLX does not have or has wrong.
        distinct: make all numbers of an array different, by steps that finite differences do not cross.
        dtype: of the check by finite differences.
    """

    call: Callable[..., Any]
    shapes: list[tuple[int, ...]]
    domain: Any = "small"
    constants: list[np.ndarray] = field(default_factory=list)
    mlx_lacks: str = ""
    distinct: bool = False
    dtype: str = "float64"
    primitive: str = ""
    vmap_constants: bool = True

    def inputs(self, dtype: str, seed: int = 0) -> list[np.ndarray]:
        domains = self.domain if isinstance(self.domain, list) else [self.domain] * len(self.shapes)
        arrays = []
        for i, (shape, domain) in enumerate(zip(self.shapes, domains, strict=True)):
            values = samples("float64", shape, seed=seed + i, domain=domain)
            if self.distinct:
                rng = np.random.default_rng(seed + i)
                values = ((rng.permutation(values.size) - values.size / 2 + 0.25 * i + 0.11) * 0.37).reshape(shape)
            arrays.append(values.astype(dtype))
        return arrays


def one(name: str, domain: str, **more: Any) -> Case:
    return Case(lambda m, a: getattr(m, name)(a), [(2, 3)], domain, primitive=name, **more)


def two(name: str, domain: Any = "small", **more: Any) -> Case:
    return Case(lambda m, a, b: getattr(m, name)(a, b), [(2, 3), (3,)], domain, primitive=name, **more)


I32 = np.int32
ROWS = np.array([[0, 2], [1, 1]], I32)
COLUMNS = np.array([[1, 0], [2, 2]], I32)
ONCE = np.array([2, 0], I32)
ALONG = np.array([[0, 2, 1, 0], [2, 1, 0, 2]], I32)  # along axis 0 of (3, 4), each once a column
MASK = np.array([[True, False, True], [False, True, True]])

UNARY = {
    "abs": "nonzero",
    "negative": "small",
    "square": "small",
    "sqrt": "positive",
    "rsqrt": "positive",
    "reciprocal": "nonzero",
    "exp": "small",
    "expm1": "small",
    "log": "positive",
    "log2": "positive",
    "log10": "positive",
    "log1p": "positive",
    "sin": "small",
    "cos": "small",
    "tan": "unit",
    "sinh": "small",
    "cosh": "small",
    "tanh": "small",
    "arcsin": "unit",
    "arccos": "unit",
    "arctan": "small",
    "arcsinh": "small",
    "arccosh": "above_one",
    "arctanh": "unit",
    "erf": "small",
    "erfinv": "unit",
    "sigmoid": "small",
    "degrees": "small",
    "real": "small",
    "conjugate": "small",
}
PIECEWISE_CONSTANT = ["sign", "ceil", "floor", "round", "trunc"]

CASES: dict[str, Case] = {name: one(name, domain) for name, domain in UNARY.items()}
CASES |= {name: one(name, "nonzero", distinct=True) for name in PIECEWISE_CONSTANT}
CASES |= {
    "add": two("add"),
    "subtract": two("subtract"),
    "multiply": two("multiply"),
    "divide": two("divide", "nonzero"),
    "power": two("power", ["positive", "unit"]),
    "cube": Case(lambda m, a: a**3, [(2, 3)], primitive="cube"),
    "square by a power": Case(lambda m, a: m.power(a, 2.0), [(2, 3)]),
    "remainder": two("remainder", "positive"),
    "floor_divide": two("floor_divide", "positive"),
    "maximum": two("maximum"),
    "minimum": two("minimum"),
    "arctan2": two("arctan2", "nonzero"),
    "logaddexp": two("logaddexp"),
    "where": Case(lambda m, a, b, c: m.where(c, a, b), [(2, 3), (3,)], constants=[MASK], primitive="where"),
    "astype": Case(lambda m, a: (a * a).astype(m.float32) * 1.0, [(2, 3)], dtype="float32", primitive="astype"),
    "imag": Case(lambda m, a: m.imag(a * m.array(2 + 3j)), [(3,)], dtype="float32", primitive="imag"),
    # reductions
    "sum": Case(lambda m, a: m.sum(a, axis=(0, 2)), [(2, 3, 4)], primitive="sum"),
    "sum, all": Case(lambda m, a: m.sum(a), [(2, 3)]),
    "mean, kept": Case(lambda m, a: m.mean(a, axis=1, keepdims=True), [(2, 3)]),
    "prod": Case(lambda m, a: m.prod(a, axis=1), [(2, 3)], "nonzero", primitive="prod"),
    "prod, two axes": Case(lambda m, a: m.prod(a, axis=(0, 2)), [(2, 3, 2)], "nonzero"),
    "max": Case(lambda m, a: m.max(a, axis=0), [(3, 4)], distinct=True, primitive="max"),
    "min, all": Case(lambda m, a: m.min(a), [(3, 4)], distinct=True, primitive="min"),
    "logsumexp": Case(lambda m, a: m.logsumexp(a, axis=-1), [(2, 4)], primitive="logsumexp"),
    "logsumexp, kept": Case(lambda m, a: m.logsumexp(a, axis=(0, 1), keepdims=True), [(2, 4)]),
    "softmax": Case(lambda m, a: m.softmax(a, axis=-1), [(2, 4)], primitive="softmax"),
    "softmax, two axes": Case(lambda m, a: m.softmax(a, axis=(0, 1)), [(2, 4)]),
    "var": Case(lambda m, a: m.var(a, axis=0), [(3, 2)]),
    # scans
    **{
        f"{name}{', reversed' * reverse}{', exclusive' * (not inclusive)}": Case(
            lambda m, a, name=name, reverse=reverse, inclusive=inclusive: getattr(m, name)(
                a, axis=1, reverse=reverse, inclusive=inclusive
            ),
            [(2, 5)],
            "nonzero",
            distinct=name in ("cummax", "cummin"),
            mlx_lacks="" if name in ("cumsum", "logcumsumexp") else "jvp",
            primitive=name,
        )
        for name in ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
        for reverse in (False, True)
        for inclusive in (True, False)
        if inclusive or name not in ("cummax", "cummin", "logcumsumexp")
    },
    **{
        f"{name}, exclusive": Case(
            lambda m, a, name=name, low=low: (
                m.maximum(getattr(m, name)(a, axis=1, inclusive=False), low)
                if name != "cummin"
                else m.minimum(getattr(m, name)(a, axis=1, inclusive=False), -low)
            ),
            [(2, 5)],
            distinct=True,
            mlx_lacks="" if name == "logcumsumexp" else "jvp",
        )
        for name, low in (("cummax", -50.0), ("cummin", -50.0), ("logcumsumexp", -50.0))
    },
    # sorting
    "sort": Case(lambda m, a: m.sort(a, axis=0), [(4, 3)], distinct=True, primitive="sort"),
    "topk": Case(lambda m, a: m.sort(m.topk(a, 2, axis=-1), axis=-1), [(2, 5)], distinct=True, primitive="topk"),
    "topk, first axis": Case(lambda m, a: m.sort(m.topk(a, 3, axis=0), axis=0), [(5, 2)], distinct=True),
    # products
    "matmul": Case(lambda m, a, b: a @ b, [(2, 3), (3, 4)], primitive="matmul"),
    "matmul, batches": Case(lambda m, a, b: a @ b, [(2, 1, 2, 3), (3, 3, 2)]),
    "matmul, one matrix": Case(lambda m, a, b: a @ b, [(2, 2, 3), (3, 2)]),
    "matmul, vectors": Case(lambda m, a, b: a @ b, [(3,), (3,)]),
    "addmm": Case(
        lambda m, c, a, b: m.addmm(c, a, b, 0.5, 2.0), [(4,), (2, 3), (3, 4)], primitive="addmm", mlx_lacks="jvp"
    ),
    "tensordot": Case(lambda m, a, b: m.tensordot(a, b, 1), [(2, 3), (3, 2)]),
    "einsum": Case(lambda m, a, b: m.einsum("ij,kj->ik", a, b), [(2, 3), (4, 3)]),
    # shapes
    "reshape": Case(lambda m, a: m.reshape(a, (3, 2)), [(2, 3)], primitive="reshape"),
    "transpose": Case(lambda m, a: m.transpose(a, (2, 0, 1)), [(2, 3, 4)], primitive="transpose"),
    "broadcast_to": Case(lambda m, a: m.broadcast_to(a, (2, 3, 4)), [(3, 1)], primitive="broadcast_to"),
    "concatenate": Case(lambda m, a, b: m.concatenate([a, b, a], axis=1), [(2, 3), (2, 1)], primitive="concatenate"),
    "copy": Case(lambda m, a: m.contiguous(a.T), [(2, 3)], primitive="copy"),
    "full": Case(lambda m, a: m.full((2, 3), a), [(3,)], primitive="full", mlx_lacks="vjp"),
    "slice": Case(lambda m, a: a[1:, ::2], [(3, 5)], primitive="slice"),
    "slice, backwards": Case(lambda m, a: a[::-1, -2::-2], [(3, 5)]),
    "pad": Case(lambda m, a: m.pad(a, 1), [(2, 3)]),
    # indexing
    "gather": Case(lambda m, a, i: a[i], [(3, 2)], constants=[ROWS], primitive="gather"),
    "gather, two": Case(lambda m, a, i, j: a[i, :, j], [(3, 2, 4)], constants=[ROWS, COLUMNS]),
    "take": Case(lambda m, a, i: m.take(a, i, axis=1), [(2, 3)], constants=[ROWS]),
    "take_along_axis": Case(
        lambda m, a, i: m.take_along_axis(a, i, axis=0), [(3, 4)], constants=[ALONG], primitive="take_along_axis"
    ),
    "put_along_axis": Case(
        lambda m, a, u, i: m.put_along_axis(a, i, u, axis=0),
        [(3, 4), (2, 4)],
        constants=[ALONG],
        primitive="put_along_axis",
    ),
    "scatter": Case(
        lambda m, a, u, i: put(a, i, u), [(3, 2), (2, 2)], constants=[ONCE], primitive="scatter", mlx_lacks="jvp"
    ),
    "scatter, add": Case(lambda m, a, u, i: a.at[i].add(u), [(3, 2), (2, 2, 2)], constants=[ROWS], mlx_lacks="jvp"),
    "scatter, two": Case(
        lambda m, a, u, i, j: a.at[i, :, j].add(u), [(3, 2, 4), (2, 2, 2)], constants=[ROWS, COLUMNS], mlx_lacks="jvp"
    ),
    "scatter, prod": Case(
        lambda m, a, u, i: a.at[i].multiply(u), [(3, 2), (2, 2, 2)], "nonzero", [ROWS], mlx_lacks="vjp"
    ),
    "scatter, max": Case(
        lambda m, a, u, i: a.at[i].maximum(u), [(3, 2), (2, 2, 2)], constants=[ROWS], distinct=True, mlx_lacks="jvp"
    ),
    "scatter, min": Case(
        lambda m, a, u, i: a.at[i].minimum(u), [(3, 2), (2, 2, 2)], constants=[ROWS], distinct=True, mlx_lacks="jvp"
    ),
    "slice_update": Case(
        lambda m, a, u: put(a, (slice(1, 3), slice(None, None, 2)), u), [(3, 5), (2, 3)], primitive="slice_update"
    ),
    "slice_update, one element": Case(lambda m, a, u: put(a, (1, 2), u), [(3, 5), ()]),
    # fast
    "rms_norm": Case(lambda m, x, w: m.fast.rms_norm(x, w, 1e-3), [(2, 3, 8), (8,)], primitive="rms_norm"),
    "rms_norm, plain": Case(lambda m, x: m.fast.rms_norm(x, None, 1e-3), [(2, 8)]),
    "layer_norm": Case(
        lambda m, x, w, b: m.fast.layer_norm(x, w, b, 1e-3), [(2, 3, 8), (8,), (8,)], primitive="layer_norm"
    ),
    "layer_norm, plain": Case(lambda m, x: m.fast.layer_norm(x, None, None, 1e-3), [(2, 8)]),
    "layer_norm, bias": Case(lambda m, x, b: m.fast.layer_norm(x, None, b, 1e-3), [(2, 8), (8,)]),
    "rope": Case(
        lambda m, x: m.fast.rope(x, 4, traditional=False, base=100.0, scale=0.5, offset=3),
        [(2, 2, 3, 6)],
        dtype="float32",
        primitive="rope",
    ),
    "rope, offsets": Case(
        lambda m, x, o: m.fast.rope(x, 4, traditional=True, base=100.0, scale=1.0, offset=o),
        [(2, 2, 3, 4)],
        constants=[np.array([1, 5], I32)],
        dtype="float32",
    ),
    "rope, frequencies": Case(
        lambda m, x, f: m.fast.rope(x, 4, traditional=False, base=None, scale=0.5, offset=1, freqs=f),
        [(2, 2, 3, 4), (2,)],
        ["small", "above_one"],
        dtype="float32",
        vmap_constants=False,
    ),
}


def put(a: Any, index: Any, value: Any) -> Any:
    a[index] = value
    return a


def attention(mask: Any = None, sinks: bool = False, kv: int = 2, **more: Any) -> Case:
    """Attention of 4 heads, 3 queries and 5 keys."""
    shapes = [(1, 4, 3, 8), (1, kv, 5, 8), (1, kv, 5, 8)]
    constants: list[np.ndarray] = []
    additive = isinstance(mask, tuple)
    if additive:
        shapes.append(mask)
    if sinks:
        shapes.append((4,))
    if isinstance(mask, np.ndarray):
        constants = [mask]

    def call(m: Any, q: Any, k: Any, v: Any, *rest: Any) -> Any:
        given = {"sinks": rest[int(additive)]} if sinks else {}
        chosen = mask if mask is None or isinstance(mask, str) else rest[0] if additive else rest[-1]
        return m.fast.scaled_dot_product_attention(q, k, v, scale=0.5, mask=chosen, **given)

    return Case(call, shapes, constants=constants, **more)


BOOL_MASK = np.array([[1, 0, 1, 0, 1], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1]], bool)
CASES |= {
    "sdpa": attention(primitive="sdpa"),
    "sdpa, causal": attention("causal"),
    "sdpa, bool mask": attention(BOOL_MASK),
    "sdpa, additive mask": attention((4, 3, 5), kv=4),
    "sdpa, sinks": attention("causal", sinks=True),
    "sdpa, mask and sinks": attention((1, 1, 3, 5), sinks=True, kv=1),
}
