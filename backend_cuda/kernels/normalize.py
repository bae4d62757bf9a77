"""Softmax, rms_norm and layer_norm over the last axis of rows that may be apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from .codegen import Params, define
from .kernel import KernelSource, Launch
from .ops import FLOATS, INEXACT, compute, storage

Variant = Literal["short", "warp", "wide_warp", "small", "block", "long"]

# Threads of a row, and elements that each holds in registers: more would leave too few threads at a time, and take
# NVRTC too long. A row that is longer is read again for each pass.
_TEAMS = {
    "short": (8, 16),
    "warp": (32, 16),
    "wide_warp": (32, 32),
    "small": (128, 16),
    "block": (256, 16),
    "long": (512, 16),
}


def choose_variant(rows: int, n: int) -> Variant:
    """A fast variant for `rows` rows of n elements; any variant is correct for any.

    >>> choose_variant(4096, 64), choose_variant(4096, 576), choose_variant(1, 576)
    ('short', 'wide_warp', 'small')
    """
    # A row need not start on a boundary of 16 bytes, for which there is some room.
    if n <= 112:
        return "short" if rows >= 1024 else "warp"
    if n <= 496:
        return "warp"
    # Warps need not wait for one another as those of a block do, but few rows leave them without company.
    if n <= 1008 and rows >= 2048:
        return "wide_warp"
    if n <= 2032:
        return "small"
    return "block" if n <= 4080 else "long"


def generate_softmax(dtype: str, variant: Variant) -> KernelSource:
    """Softmax of each row, computed in float (double for float64, complex for complex64).

    Any rows and n but 0, any alignment. Parameters, in order: dim 0, the rows; dim 1, n; operand 0 and its stride along
    dim 0 (along dim 1 it is contiguous; a row may be repeated by a stride of 0); the output, contiguous. A row whose
    greatest element is infinite gives NaN, as in MLX.

    Args:
        dtype: of the operand and the output: a floating dtype or complex64.
        variant: from `choose_variant`.

    >>> generate_softmax("float16", "warp").launch.grid
    (('cdiv', 'd0', 8), 1, 1)
    """
    _check("softmax", [dtype], INEXACT)
    # Of which the exponential is 0. An imaginary part of infinity would make it NaN.
    filler = "C{-float_infinity(), 0}" if dtype == "complex64" else "lowest<C>()"
    body = [
        "C greatest = lowest<C>();",
        "row.for_elements([&](C& x, bool) { greatest = op_maximum(greatest, x); });",
        "greatest = R::merge<Max<C>>(greatest);",
        "C total = {};",
        "row.for_elements([&](C& x, bool) {",
        "    x = op_exp(x - greatest);",
        "    total = total + x;",
        "});",
        "total = R::merge<Sum<C>>(total);",
        "if (!has_row) return;",
        "const bool done = row.fits;",
        "row.write(out, [&](R::Place, int) {",
        "    return [&](C x, int) { return (done ? x : op_exp(x - greatest)) / total; };",
        "});",
    ]
    return _kernel("softmax", dtype, [], dtype, variant, body, filler=filler, has_eps=False)


def generate_rms_norm(dtype: str, weight_dtype: str | None, variant: Variant) -> KernelSource:
    """x / sqrt(mean(x^2) + eps) * weight for each row, computed in float (double for float64), rounded once.

    Any rows and n but 0, any alignment. Parameters, in order: dim 0, the rows; dim 1, n; operand 0, which is x, and its
    stride along dim 0 (along dim 1 it is contiguous); operand 1, the weight, contiguous, if there is one; the output,
    contiguous, of the promoted dtype; scalar 0, eps, f32 (f64 if x is float64).

    Args:
        dtype: of x, floating.
        weight_dtype: floating, or None for no weight.
        variant: from `choose_variant`.

    >>> [p[0] for p in generate_rms_norm("bfloat16", "bfloat16", "block").params]
    ['dim', 'dim', 'ptr', 'stride', 'ptr', 'out', 'scalar']
    """
    vectors = [weight_dtype] if weight_dtype else []
    _check("rms_norm", [dtype, *vectors], FLOATS)
    scaled = "x * inverse" + (" * C(to_compute(element(w, j)))" if weight_dtype else "")
    body = [
        "C total = 0;",
        "row.for_elements([&](C& x, bool) { total += x * x; });",
        "total = R::merge<Sum<C>>(total);",
        "if (!has_row) return;",
        "const C inverse = op_rsqrt(total / C(d1) + C(eps));",
        *_write(scaled, ["w"] if weight_dtype else []),
    ]
    return _kernel("rms_norm", dtype, vectors, _promote([dtype, *vectors]), variant, body)


def generate_layer_norm(dtype: str, weight_dtype: str | None, bias_dtype: str | None, variant: Variant) -> KernelSource:
    """(x - mean) / sqrt(variance + eps) * weight + bias for each row, computed in float (double for float64).

    Any rows and n but 0, any alignment. The parameters are those of `generate_rms_norm`, and the bias is the operand
    after the weight, or operand 1 if there is none.

    Args:
        dtype: of x, floating.
        weight_dtype: floating, or None for no weight.
        bias_dtype: floating, or None for no bias.
        variant: from `choose_variant`.

    >>> generate_layer_norm("float32", "float32", "float32", "block").launch.grid
    ('d0', 1, 1)
    """
    vectors = [d for d in (weight_dtype, bias_dtype) if d]
    _check("layer_norm", [dtype, *vectors], FLOATS)
    names = [name for name, d in (("w", weight_dtype), ("b", bias_dtype)) if d]
    scaled = "(x - mean) * inverse"
    scaled += " * C(to_compute(element(w, j)))" if weight_dtype else ""
    scaled += " + C(to_compute(element(b, j)))" if bias_dtype else ""
    body = [
        "C total = 0;",
        "row.for_elements([&](C& x, bool) { total += x; });",
        "const C mean = R::merge<Sum<C>>(total) / C(d1);",
        "C squares = 0;",
        "row.for_elements([&](C& x, bool is_own) { squares += is_own ? (x - mean) * (x - mean) : C(0); });",
        "squares = R::merge<Sum<C>>(squares);",
        "if (!has_row) return;",
        "const C inverse = op_rsqrt(squares / C(d1) + C(eps));",
        *_write(scaled, names),
    ]
    label = "layer_norm" if weight_dtype or not bias_dtype else "layer_norm_bias"
    return _kernel(label, dtype, vectors, _promote([dtype, *vectors]), variant, body, names=names)


def _write(expression: str, vectors: list[str]) -> list[str]:
    """Statements that write `expression` of x, and of element j of packs of the vectors."""
    captures = ", ".join(["=", *(f"{v} = {v}_vector.pack(at, u)" for v in vectors)])
    return [
        "row.write(out, [&](R::Place at, int u) {",
        f"    return [{captures}](C x, int j) {{ return {expression}; }};",
        "});",
    ]


def _check(name: str, dtypes: list[str], allowed: frozenset[str]) -> None:
    for dtype in dtypes:
        if dtype not in allowed:
            raise TypeError(f"[{name}] no CUDA kernel for {dtype}; convert it to a floating dtype first.")


def _promote(dtypes: list[str]) -> str:
    """The dtype that floating dtypes promote to."""
    kinds = set(dtypes)
    if len(kinds) == 1:
        return dtypes[0]
    return "float64" if "float64" in kinds else "float32"


def _kernel(
    label: str,
    dtype: str,
    vectors: list[str],
    out_dtype: str,
    variant: str,
    body: list[str],
    *,
    filler: str = "C{}",
    has_eps: bool = True,
    names: list[str] | None = None,
) -> KernelSource:
    if variant not in _TEAMS:
        raise ValueError(f"unknown variant {variant!r}")
    team, elements = _TEAMS[variant]
    threads = team if team > 32 else 256
    per_block = threads // team
    params = Params()
    params.dims(2)
    params.add(("ptr", 0), f"const {storage(dtype)}* p0")
    params.add(("stride", 0, 0), "i64 t0_0")
    for i, vector in enumerate(vectors, 1):
        params.add(("ptr", i), f"const {storage(vector)}* p{i}")
    params.add(("out", 0), f"{storage(out_dtype)}* __restrict__ q0")
    if has_eps:
        wide = "f64" if dtype == "float64" else "f32"
        params.add(("scalar", 0, wide), f"{wide} eps")
    text = [
        f"using C = {compute(dtype)};",
        f"using R = Row<{storage(dtype)}, {team}, {elements}>;",
        f"const i64 own_row = i64(blockIdx.x) * {per_block} + threadIdx.x / {team};",
        "const bool has_row = own_row < d0;",
        "// Teams beyond the last row go along with it, since whole warps meet in shuffles.",
        "const i64 at_row = has_row ? own_row : d0 - 1;",
        f"R row(p0 + at_row * t0_0, d1, {filler});",
        f"{storage(out_dtype)}* out = q0 + at_row * d1;",
    ]
    for i, (name, vector) in enumerate(zip(names or ["w"], vectors, strict=bool(names)), 1):
        text.append(f"const Companion<{storage(vector)}, R> {name}_vector(p{i}, row);")
    grid = ("cdiv", "d0", per_block) if per_block > 1 else "d0"
    name = "_".join([label, dtype, *vectors, variant])
    return define(name, "normalize.cuh", params, [*text, *body], Launch((threads, 1, 1), (grid, 1, 1)))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Each function in each variant, in one dtype (`full`: in all), with weights of its own dtype and of float32."""
    floats = ("bfloat16", "float16", "float32", "float64")
    variants: tuple[Variant, ...] = ("short", "warp", "small", "block", "long", "wide_warp")
    for k, variant in enumerate(variants):
        for dtype in (*floats, "complex64") if full else [(*floats, "complex64")[k % 5]]:
            yield generate_softmax(dtype, variant)
        for dtype in floats if full else [floats[k % 4]]:
            yield generate_rms_norm(dtype, dtype, variant)
            yield generate_layer_norm(dtype, dtype, dtype, variant)
            if full:
                yield generate_rms_norm(dtype, None, variant)
                yield generate_rms_norm(dtype, "float32", variant)
                yield generate_layer_norm(dtype, dtype, None, variant)
                yield generate_layer_norm(dtype, None, "float32", variant)
                yield generate_layer_norm(dtype, None, None, variant)
    yield generate_softmax("bfloat16", "long")
    yield generate_rms_norm("float16", "float32", "block")
    yield generate_rms_norm("float32", None, "block")
    yield generate_layer_norm("float32", None, "float32", "block")
