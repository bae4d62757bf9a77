"""Matrix products: large ones by their operations, products of a few rows by the bytes of their weights.

Model: 2 operations a row, column and inner place, of 990 TFLOP/s in 16 bits; a few rows read their weights, at the rate
of a copy. Products are measured in chains, each the operand of the next, so that none runs beside another; a chain is
one evaluation, in torch one CUDA graph. The peers take turns, chain by chain: large products draw so much power that
the clock falls, and what runs second in a minute of them would seem slower.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import peer_named
from benchmarks.suites import Figure
from benchmarks.timing import in_turns_us

PEERS = ("mlxlite", "torch")
LINKS = 4  # products in a chain of large ones
LINKS_OF_ROWS = 16  # at least, of a few rows: a launch takes as long as one of them, and a decoding step has a hundred


@dataclass(frozen=True)
class Size:
    """Of the products; `pairs` are features before and after a weight, as models have them."""

    squares: tuple[int, ...]
    tokens: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    batched: tuple[tuple[int, int], ...]  # batch, side
    rows: tuple[int, ...]
    weights: tuple[tuple[int, int], ...]  # of a product of rows: features after and before
    weight_bytes: int  # of a chain of them, in all: more than a cache of 50 MB holds


SIZES = {
    "full": Size(
        (512, 1024, 2048, 4096, 8192),
        (2048, 8192),
        ((576, 1536), (1536, 2048), (2048, 3072), (3072, 4096), (4096, 4096), (4096, 14336)),
        ((256, 128), (64, 512), (32, 1024)),
        (1, 2, 4, 8, 16),
        ((1536, 576), (8192, 2048), (14336, 4096)),
        128 << 20,
    ),
    "tiny": Size((8,), (6,), ((8, 12),), ((3, 4),), (1, 4), ((16, 8),), 1024),
}
LAYOUTS: dict[str, Callable[[Any, Any], Any]] = {
    "nn": lambda x, w: x @ w,
    "nt": lambda x, w: x @ w.swapaxes(-1, -2),
    "tn": lambda x, w: w.swapaxes(-1, -2) @ x,
}


@dataclass(frozen=True)
class Chain:
    """Products that follow one another: `rows` go from `before` features to `after`, and back."""

    name: str
    layout: str
    dtype: str
    batch: tuple[int, ...]
    rows: int
    before: int
    after: int
    links: int

    @property
    def input(self) -> tuple[int, ...]:
        """The shape of the first operand: the left one, but the right one of layout tn."""
        sides = (self.before, self.rows) if self.layout == "tn" else (self.rows, self.before)
        return (*self.batch, *sides)

    def weight(self, link: int) -> tuple[int, ...]:
        """The shape of a link's weight."""
        sides = (self.before, self.after) if link % 2 == 0 else (self.after, self.before)
        return (*self.batch, *(sides[::-1] if self.layout == "nt" else sides))

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.links * math.prod(self.batch) * self.rows * self.before * self.after

    @property
    def weight_bytes(self) -> int:
        """Of all weights."""
        return self.links * math.prod(self.batch) * self.before * self.after * (4 if self.dtype == "float32" else 2)

    def __call__(self, _: Any, x: Any, *weights: Any) -> Any:
        """The last product."""
        for w in weights:
            x = LAYOUTS[self.layout](x, w)
        return x


def measure_in_turns(peers: list[str]) -> dict[str, dict[str, Figure]]:
    """TFLOP/s and TB/s of each peer, float32 with TF32; the size from MLXLITE_BENCH_MATMUL, full by default."""
    size = SIZES[os.environ.get("MLXLITE_BENCH_MATMUL", "full")]
    os.environ["MLX_ENABLE_TF32"] = "1"
    os.environ.setdefault("MLXLITE_MATMUL_TUNING", "30")  # seconds: there are more products here than programs have
    faces = [peer_named(peer) for peer in peers]
    out: dict[str, dict[str, Figure]] = {peer: {} for peer in peers}
    for chains, amount, unit in ((large, "operations", "TFLOP/s"), (few_rows, "weight_bytes", "TB/s")):
        for chain in chains(size):
            times = in_turns_us([(_call(chain, on), on.wait) for on in faces])
            for peer, microseconds in zip(peers, times, strict=True):
                out[peer][chain.name] = (getattr(chain, amount) / microseconds / 1e6, unit)
            for on in faces:
                on.give_back()
    return out


def _call(chain: Chain, on: Any) -> Callable[[], Any]:
    """Queues a chain. Weights are scaled so that its numbers stay of one size."""
    x = on.make((chain.input, chain.dtype))
    fan_in = (chain.before, chain.after)
    weights = [on.make((chain.weight(i), chain.dtype), fan_in[i % 2] ** -0.5) for i in range(chain.links)]
    return on.replayed(chain, x, *weights)


def large(size: Size) -> Iterator[Chain]:
    """Products bound by operations."""
    for dtype in ("bfloat16", "float16", "float32"):
        for n in size.squares:
            for layout in LAYOUTS:
                yield Chain(f"{n}^3 {dtype} {layout}", layout, dtype, (), n, n, n, LINKS)
        for batch, n in size.batched:
            for layout in LAYOUTS:
                yield Chain(f"{batch} x {n}^3 {dtype} {layout}", layout, dtype, (batch,), n, n, n, LINKS)
        for rows in size.tokens:
            for before, after in size.pairs:
                for layout in LAYOUTS if dtype == "bfloat16" else ("nt",):
                    name = f"{rows} rows, {before} to {after} and back, {dtype} {layout}"
                    yield Chain(name, layout, dtype, (), rows, before, after, LINKS)


def few_rows(size: Size) -> Iterator[Chain]:
    """Products bound by the bytes of their weights, x @ w.T."""
    for after, before in size.weights:
        for rows in size.rows:
            name = f"{rows} row{'s' if rows > 1 else ''}, weights {after}x{before} and {before}x{after} bfloat16"
            links = max(LINKS_OF_ROWS, 2 * math.ceil(size.weight_bytes / (4 * after * before)))
            yield Chain(name, "nt", "bfloat16", (), rows, before, after, links)
