"""Kernels for the gradient of attention, where cuDNN takes no part: `generate_lse`, `generate_dq` and `generate_dkv`.

Loop dims: 0 batch, 1 query head, 2 query, 3 key. All arrays are contiguous along features; `lse` and `delta` are
float32 and packed, (B, H, Tq). With s the scores, c the cotangent of the result o and d = sum(c o) over features,

    p = exp(s - lse), ds = p (c v' - d) scale, dq = ds k, dk = ds' q, dv = p' c.

Every sum is made by one warp in a fixed order: equal inputs give equal bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from .attention import MAX_HEAD_DIM, Mask
from .codegen import Params, define
from .kernel import KernelSource, Launch, product
from .ops import storage

DTYPES = ("bfloat16", "float16", "float32")
MASKS: tuple[Mask, ...] = ("none", "causal", "additive")
_WARPS = 8  # of a block
_HEADER = "attention_vjp.cuh"
_QUERY, _KEY, _MASK = (0, 1, 2), (0, 1, 3), (0, 1, 2, 3)


def _check(dtype: str, mask: str, *sizes: int) -> None:
    if dtype not in DTYPES:
        raise TypeError(
            f"[scaled_dot_product_attention] no CUDA kernel for the gradient in {dtype}; use one of {DTYPES}."
        )
    if mask not in MASKS:
        raise ValueError(f"a mask is one of {MASKS}, not {mask!r}")
    if not all(1 <= size <= MAX_HEAD_DIM for size in sizes):
        raise ValueError(f"heads have 1 to {MAX_HEAD_DIM} features, not {sizes}")


class _Writer:
    """Parameters and the names of rows."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.params = Params()
        for d in range(4):
            self.params.add(("dim", d), f"i64 d{d}")
        self.lines: list[str] = []
        self._operands = self._outputs = 0

    def operand(self, name: str, strides: tuple[int, ...], dtype: str = "") -> None:
        """An array that is read; `name(coordinates)` is where a row of it begins, or `name` if there are no strides."""
        i = self._operands
        self._operands += 1
        self.params.add(("ptr", i), f"const {storage(dtype or self.dtype)}* p{i}")
        for d in strides:
            self.params.add(("stride", i, d), f"i64 t{i}_{d}")
        self._row(name, f"p{i}", f"t{i}_", strides)

    def output(self, name: str, strides: tuple[int, ...], dtype: str = "") -> None:
        """An array that is written."""
        j = self._outputs
        self._outputs += 1
        self.params.add(("out", j), f"{storage(dtype or self.dtype)}* __restrict__ q{j}")
        for d in strides:
            self.params.add(("out_stride", j, d), f"i64 u{j}_{d}")
        self._row(name, f"q{j}", f"u{j}_", strides)

    def _row(self, name: str, pointer: str, stride: str, strides: tuple[int, ...]) -> None:
        if not strides:
            self.lines.append(f"auto {name} = {pointer};")
        elif strides == _QUERY:
            at = f"batch * {stride}0 + head * {stride}1 + query * {stride}2"
            self.lines.append(f"auto {name} = [&](i64 head, i64 query) {{ return {pointer} + {at}; }};")
        elif strides == _KEY:
            at = f"batch * {stride}0 + kv_head * {stride}1 + key * {stride}3"
            self.lines.append(f"auto {name} = [&](i64 key) {{ return {pointer} + {at}; }};")
        else:
            at = " + ".join(f"{c} * {stride}{d}" for d, c in enumerate(("batch", "head", "query", "key")))
            self.lines.append(f"auto {name} = [&](i64 head, i64 query, i64 key) {{ return {pointer}[{at}]; }};")

    def score(self, mask: Mask, head_dim: int) -> None:
        """`score(head, query, key)`, of a key that the query sees."""
        more = " + to_compute(mask(head, query, key))" if mask == "additive" else ""
        self.lines.append(
            f"auto score = [&](i64 head, i64 query, i64 key) {{ "
            f"return dot<{head_dim}>(q(head, query), k(key)) * s0_f32{more}; }};"
        )

    def kernel(self, label: str, mask: Mask, start: list[str], body: list[str], dim: int, group: int) -> KernelSource:
        """One warp for each batch, head and place along loop dim 2 (queries) or 3 (keys)."""
        self.params.scalar(0, "f32")
        heads = "d1" if dim == 2 else f"d1 / {group}"
        own = "head" if dim == 2 else "kv_head"
        place = "query" if dim == 2 else "key"
        prologue = [
            f"i64 index = i64(blockIdx.x) * {_WARPS} + threadIdx.x / 32;",
            f"if (index >= d0 * ({heads}) * d{dim}) return;",
            f"const i64 {place} = take_coordinate(index, d{dim});",
            f"const i64 {own} = take_coordinate(index, {heads});",
            "const i64 batch = index;",
            *([f"const i64 kv_head = head / {group};"] if dim == 2 else []),
        ]
        rows = product(["d0", "d1" if dim == 2 else ("div", "d1", group), f"d{dim}"])
        return define(
            f"{label}_{self.dtype}_{mask}",
            _HEADER,
            self.params,
            [*prologue, *self.lines, *start, *body],
            Launch((32 * _WARPS, 1, 1), (("cdiv", rows, _WARPS), 1, 1)),
        )


def _end(mask: Mask) -> str:
    return "const i64 end = query + d3 - d2 + 1;" if mask == "causal" else "const i64 end = d3;"


def generate_lse(dtype: str, head_dim: int, group: int, mask: Mask, *, mask_dtype: str | None = None) -> KernelSource:
    """The logarithms of the softmax's sums: operands q, k and the mask, output lse.

    Args:
        dtype: of the operands.
        head_dim: features of a head.
        group: query heads that share a key.
        mask: none, causal (there are at least as many keys as queries) or additive.
        mask_dtype: of the mask, if another.

    Raises:
        TypeError: the dtype has no such kernel.
        ValueError: another mask, or head sizes out of range.

    >>> generate_lse("bfloat16", 64, 1, "none").launch.grid[0]
    ('cdiv', ('mul', ('mul', 'd0', 'd1'), 'd2'), 8)
    """
    _check(dtype, mask, head_dim)
    w = _Writer(dtype)
    w.operand("q", _QUERY)
    w.operand("k", _KEY)
    if mask == "additive":
        w.operand("mask", _MASK, mask_dtype or dtype)
    w.output("lse", (), "float32")
    w.score(mask, head_dim)
    body = [
        "const float found = log_of_sum(end, [&](i64 key) { return score(head, query, key); });",
        "if (threadIdx.x % 32 == 0) lse[(batch * d1 + head) * d2 + query] = found;",
    ]
    return w.kernel("attention_lse", mask, [_end(mask)], body, 2, group)


def generate_dq(
    dtype: str, head_dim: int, value_dim: int, group: int, mask: Mask, *, mask_dtype: str | None = None
) -> KernelSource:
    """The cotangent of the queries: operands q, k, v, o, c, lse and the mask, outputs dq and delta.

    Arguments and errors: those of `generate_lse`, and `value_dim`, the features of a value.
    """
    _check(dtype, mask, head_dim, value_dim)
    w = _Writer(dtype)
    for name, strides in (("q", _QUERY), ("k", _KEY), ("v", _KEY), ("o", _QUERY), ("c", _QUERY)):
        w.operand(name, strides)
    w.operand("lse", (), "float32")
    if mask == "additive":
        w.operand("mask", _MASK, mask_dtype or dtype)
    w.output("dq", _QUERY)
    w.output("delta", (), "float32")
    w.score(mask, head_dim)
    start = [
        _end(mask),
        "const i64 row = (batch * d1 + head) * d2 + query;",
        "const float sum = lse[row];",
        "float own = 0;",
        f"for (int i = threadIdx.x % 32; i < {value_dim}; i += 32)",
        "    own += to_compute(o(head, query)[i]) * to_compute(c(head, query)[i]);",
        "const float d = warp_total(own);",
        "if (threadIdx.x % 32 == 0) delta[row] = d;",
    ]
    body = [
        f"WarpRow<{head_dim}> total;",
        "for_each(0, end, [&](i64 key) -> Two {",
        f"    const float p = expf(score(head, query, key) - sum), dp = dot<{value_dim}>(c(head, query), v(key));",
        "    return {p * (dp - d) * s0_f32, 0};",
        "}, [&](i64 key, float ds, float) { total.add(ds, k(key)); });",
        "total.store(dq(head, query));",
    ]
    return w.kernel("attention_dq", mask, start, body, 2, group)


def generate_dkv(
    dtype: str, head_dim: int, value_dim: int, group: int, mask: Mask, *, mask_dtype: str | None = None
) -> KernelSource:
    """Those of keys and values: operands q, k, v, c, lse, delta and the mask, outputs dk and dv.

    Arguments and errors: those of `generate_dq`.
    """
    _check(dtype, mask, head_dim, value_dim)
    w = _Writer(dtype)
    for name, strides in (("q", _QUERY), ("k", _KEY), ("v", _KEY), ("c", _QUERY)):
        w.operand(name, strides)
    w.operand("lse", (), "float32")
    w.operand("delta", (), "float32")
    if mask == "additive":
        w.operand("mask", _MASK, mask_dtype or dtype)
    w.output("dk", _KEY)
    w.output("dv", _KEY)
    w.score(mask, head_dim)
    first = "max_i64(0, key - (d3 - d2))" if mask == "causal" else "0"
    body = [
        f"WarpRow<{head_dim}> total_k;",
        f"WarpRow<{value_dim}> total_v;",
        f"for (i64 head = kv_head * {group}; head < (kv_head + 1) * {group}; ++head) {{",
        f"    for_each({first}, d2, [&](i64 query) -> Two {{",
        "        const i64 row = (batch * d1 + head) * d2 + query;",
        f"        const float dp = dot<{value_dim}>(c(head, query), v(key));",
        "        const float p = expf(score(head, query, key) - lse[row]);",
        "        return {p, p * (dp - delta[row]) * s0_f32};",
        "    }, [&](i64 query, float p, float ds) {",
        "        total_v.add(p, c(head, query));",
        "        total_k.add(ds, q(head, query));",
        "    });",
        "}",
        "total_k.store(dk(key));",
        "total_v.store(dv(key));",
    ]
    return w.kernel("attention_dkv", mask, [], body, 3, group)


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Every mask and dtype, head sizes of a warp's width and odd ones."""
    for dtype in DTYPES if full else DTYPES[:1]:
        for mask in MASKS:
            yield generate_lse(dtype, 64, 2, mask, mask_dtype="float32")
            for head_dim, value_dim in ((64, 64), (33, 7)):
                yield generate_dq(dtype, head_dim, value_dim, 2, mask)
                yield generate_dkv(dtype, head_dim, value_dim, 1, mask)
