"""Kernels that move memory, each against the copy of the same run.

Model: every input is read once and every output written once; `of copy` is the rate at which these bytes moved, as a
fraction of that of a copy (`x + 1`; torch's `clone`). A sort moves its bytes several times: its fraction says how many.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import INPUT_SETS, Spec, copy_rate, peer_named
from benchmarks.suites import LEFT_OUT
from benchmarks.timing import queued_us

PEERS = ("mlxlite", "mlx", "torch")


@dataclass(frozen=True)
class Size:
    """Of the arrays: square ones, tall and wide ones, and rows that are normalised."""

    square: int
    long: int
    short: int
    features: tuple[int, ...]
    elements: int  # of arrays whose rows have `features`
    heads: tuple[int, int, int, int]  # texts, positions, heads, features
    topk: tuple[int, int, int]  # rows, columns, k
    sorted: int
    taken: tuple[int, int]


SIZES = {
    "full": Size(
        8192, 1_000_000, 64, (576, 1024, 2048, 4096, 8192), 1 << 26, (8, 2048, 32, 128), (1024, 32768, 50), 1 << 24,
        (1 << 17, 512),
    ),
    "tiny": Size(12, 20, 3, (8, 33), 264, (2, 5, 3, 4), (4, 9, 3), 50, (9, 4)),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A kernel: what it reads, and how it is asked for, given a module and the inputs."""

    name: str
    inputs: tuple[Spec, ...]
    arrays: Callable[..., Any]
    torch: Callable[..., Any]


def measure(peer: str) -> dict[str, Any]:
    """Times of a peer, with the bytes and the fraction; what it refuses is left out.

    The size is that of MLXLITE_BENCH_KERNELS, full by default.
    """
    size = SIZES[os.environ.get("MLXLITE_BENCH_KERNELS", "full")]
    on = peer_named(peer)
    copy = copy_rate(on, size.square) / 1e12
    out: dict[str, Any] = {f"copy {size.square}^2 float32": (copy, "TB/s")}
    for case in cases(size):
        try:
            time, nbytes = _time(case, on)
        except Exception as error:
            if peer == "mlxlite":
                raise
            out.setdefault(LEFT_OUT, {})[case.name] = f"{type(error).__name__}: {error}"
            continue
        out[case.name] = (time / 1e3, "ms", {"GB": nbytes / 1e9, "of copy": nbytes / time / 1e6 / copy})
    return out


def _time(case: Case, on: Any) -> tuple[float, int]:
    """Microseconds of a call, and the bytes of its inputs and its result."""
    function = case.torch if on.name == "torch" else case.arrays
    sets = [tuple(map(on.make, case.inputs)) for _ in range(INPUT_SETS)]
    nbytes = sum(a.nbytes for a in (*sets[0], function(on.module, *sets[0])))
    return queued_us([on.queued(function, *inputs) for inputs in sets], on.wait), nbytes


def cases(size: Size) -> Iterator[Case]:
    """All kernels, at a size."""
    yield from _elementwise((size.square, size.square))
    for shape in ((size.square, size.square), (size.long, size.short), (size.short, size.long)):
        yield from _reductions(shape, "float32")
    yield from _reductions((size.square, size.square), "bfloat16", names=("sum",))
    for features in size.features:
        yield from _rows((size.elements // features, features))
    yield from _moves(size)
    yield from _scans_and_sorts(size)


def _name(shape: tuple[int, ...], dtype: str) -> str:
    return f"{'x'.join(map(str, shape))} {dtype}"


def _elementwise(shape: tuple[int, ...]) -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        a = (shape, dtype)
        yield Case(f"add {_name(*a)}", (a, a), lambda m, x, y: x + y, lambda m, x, y: x + y)
        yield Case(f"exp {_name(*a)}", (a,), lambda m, x: m.exp(x), lambda m, x: m.exp(x))
    for source, target in (("float32", "bfloat16"), ("bfloat16", "float32")):
        yield Case(
            f"cast {_name(shape, source)} to {target}",
            ((shape, source),),
            lambda m, x, t=target: x.astype(getattr(m, t)),
            lambda m, x, t=target: x.to(getattr(m, t)),
        )


def _reductions(shape: tuple[int, int], dtype: str, names: tuple[str, ...] = ("sum", "max")) -> Iterator[Case]:
    for name in names:
        for axis in (0, 1, None):
            yield Case(
                f"{name} {_name(shape, dtype)}, {'all' if axis is None else f'axis {axis}'}",
                ((shape, dtype),),
                lambda m, x, f=name, axis=axis: getattr(m, f)(x, axis=axis),
                lambda m, x, f="amax" if name == "max" else name, axis=axis: (
                    getattr(m, f)(x) if axis is None else getattr(m, f)(x, dim=axis)
                ),
            )


def _written_out(m: Any, x: Any, w: Any) -> Any:
    """A norm in plain code, which is several kernels where nothing fuses them."""
    return x * m.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w


def _rows(shape: tuple[int, int]) -> Iterator[Case]:
    x, w = (shape, "bfloat16"), (shape[-1:], "bfloat16")
    what = _name(*x)
    yield Case(f"softmax {what}", (x,), lambda m, x: m.softmax(x, axis=-1), lambda m, x: m.softmax(x, -1))
    yield Case(
        f"rms_norm {what}",
        (x, w),
        lambda m, x, w: m.fast.rms_norm(x, w, 1e-5),
        lambda m, x, w: m.nn.functional.rms_norm(x, w.shape, w, 1e-5),
    )
    yield Case(
        f"layer_norm {what}",
        (x, w, w),
        lambda m, x, w, b: m.fast.layer_norm(x, w, b, 1e-5),
        lambda m, x, w, b: m.nn.functional.layer_norm(x, w.shape, w, b, 1e-5),
    )
    yield Case(f"rms_norm written out {what}", (x, w), _written_out, _written_out)


def _moves(size: Size) -> Iterator[Case]:
    square = (size.square, size.square)
    for dtype in ("float32", "bfloat16"):
        for shape, order in ((square, (1, 0)), (size.heads, (0, 2, 1, 3)), (size.heads, (2, 0, 1, 3))):
            yield Case(
                f"transpose {_name(shape, dtype)} to {order}",
                ((shape, dtype),),
                lambda m, x, order=order: m.contiguous(m.transpose(x, order)),
                lambda m, x, order=order: x.permute(order).contiguous(),
            )
    for dtype in ("float32", "bfloat16"):
        yield Case(
            f"take {_name(size.taken, dtype)}, every row once",
            ((size.taken, dtype), (size.taken[:1], "permutation")),
            lambda m, x, rows: m.take(x, rows, axis=0),
            lambda m, x, rows: x.index_select(0, rows),
        )


def _scans_and_sorts(size: Size) -> Iterator[Case]:
    shapes = [(size.square, size.square), (size.long, size.short), (size.short, size.long)]
    along = [*itertools.product(shapes, ("float32", "bfloat16"), (0, 1))]
    along += [((size.long * size.short,), dtype, 0) for dtype in ("float32", "bfloat16")]
    for shape, dtype, axis in along:
        yield Case(
            f"cumsum {_name(shape, dtype)}, axis {axis}",
            ((shape, dtype),),
            lambda m, x, axis=axis: m.cumsum(x, axis=axis),
            lambda m, x, axis=axis: m.cumsum(x, axis),
        )
    for shape in ((size.sorted,), (size.square // 2, size.square), (size.long, size.short)):
        yield Case(
            f"sort {_name(shape, 'float32')}, last axis",
            ((shape, "float32"),),
            lambda m, x: m.sort(x, axis=-1),
            lambda m, x: m.sort(x, -1).values,
        )
    rows, columns, k = size.topk
    yield Case(
        f"topk {_name((rows, columns), 'float32')}, {k} of a row",
        (((rows, columns), "float32"),),
        lambda m, x: m.topk(x, k, axis=-1),
        lambda m, x: m.topk(x, k, -1, sorted=False).values,
    )
