"""Softmax, rms_norm and layer_norm over the last axis of rows that may be apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .codegen import Params, define
from .kernel import KernelSource, Launch
from .ops import FLOATS, INEXACT, ITEMSIZE, compute, storage

MAX_TEAM = 512
MAX_PACKS = 5  # of 16 bytes of a row, so that half of a multiprocessor's threads fill its registers
VECTOR_PACKS = 4  # up to which there are registers for packs of vectors along the row, too: as in HeldRow

_TOGETHER = 1024  # threads that a multiprocessor is to have registers for: with fewer, its memory waits for them


@dataclass(frozen=True)
class Variant:
    """Threads that share a row: a power of two; and packs of 16 bytes that each holds in registers.

    A row that is longer, or lies elsewhere between boundaries than its result, is read again for each pass. So that
    NVRTC does not take too long, a pass over it is no faster than that needs.
    """

    team: int
    packs: int

    def __post_init__(self) -> None:
        if self.team not in (4, 8, 16, 32, 64, 128, 256, 512) or not 1 <= self.packs <= MAX_PACKS:
            raise ValueError(f"no team of {self.team} threads with {self.packs} packs each")


def choose_variant(dtype: str, rows: int, n: int) -> Variant:
    """A fast variant for `rows` rows of n elements; any variant is correct for any.

    >>> choose_variant("bfloat16", 4096, 768), choose_variant("float32", 4096, 8192), choose_variant("bfloat16", 1, 768)
    (Variant(team=32, packs=3), Variant(team=512, packs=4), Variant(team=128, packs=1))
    """
    packs = -(-n // (16 // ITEMSIZE[dtype]))
    # Few rows leave a multiprocessor little to do while it waits for memory: more threads, for each of them.
    each = MAX_PACKS if rows >= 2048 else 1
    team = 4
    while team < MAX_TEAM and team * each < packs:
        team *= 2
    return Variant(team, min(-(-packs // team), MAX_PACKS))


def generate_softmax(dtype: str, variant: Variant) -> KernelSource:
    """Softmax of each row, computed in float (double for float64, complex for complex64).

    Any rows and n but 0, any alignment. Parameters, in order: dim 0, the rows; dim 1, n; operand 0 and its stride along
    dim 0 (along dim 1 it is contiguous; a row may be repeated by a stride of 0); the output, contiguous. A row whose
    greatest element is infinite gives NaN, as in MLX.

    Args:
        dtype: of the operand and the output: a floating dtype or complex64.
        variant: from `choose_variant`.

    >>> generate_softmax("float16", Variant(32, 2)).launch.grid
    (('cdiv', 'd0', 8), 1, 1)
    """
    _check("softmax", [dtype], INEXACT)
    # Of which the exponential is 0. An imaginary part of infinity would make it NaN.
    filler, one = ("C{-float_infinity(), 0}", "C{1, 0}") if dtype == "complex64" else ("lowest<C>()", "C(1)")
    exp = "exp_of_difference" if dtype in ("float16", "bfloat16") else "op_exp"
    body = [
        "C greatest = lowest<C>();",
        "row.for_elements([&](C& x, bool) { greatest = greater(greatest, x); });",
        "greatest = R::template merge<Max<C>>(greatest);",
        "C total = {};",
        "row.for_elements([&](C& x, bool) {",
        f"    x = {exp}(x - greatest);",
        "    total = total + x;",
        "});",
        "total = R::template merge<Sum<C>>(total);",
        "if (!has_row) return;",
        f"const C scale = {one} / total;",
        "constexpr bool done = R::kKeepsChanges;",
        "row.write(out, [&](typename R::Place, int) {",
        f"    return [&](C x, int) {{ return (done ? x : {exp}(x - greatest)) * scale; }};",
        "});",
    ]
    return _kernel("softmax", dtype, [], dtype, variant, body, filler=filler, changes=True)


def generate_rms_norm(dtype: str, weight_dtype: str | None, variant: Variant) -> KernelSource:
    """x / sqrt(mean(x^2) + eps) * weight for each row, computed in float (double for float64), rounded once.

    Any rows and n but 0, any alignment. Parameters, in order: dim 0, the rows; dim 1, n; operand 0, which is x, and its
    stride along dim 0 (along dim 1 it is contiguous); operand 1, the weight, contiguous, if there is one; the output,
    contiguous, of the promoted dtype; scalar 0, eps, f32 (f64 if x is float64).

    Args:
        dtype: of x, floating.
        weight_dtype: floating, or None for no weight.
        variant: from `choose_variant`.

    >>> [p[0] for p in generate_rms_norm("bfloat16", "bfloat16", Variant(256, 1)).params]
    ['dim', 'dim', 'ptr', 'stride', 'ptr', 'out', 'scalar']
    """
    vectors = [weight_dtype] if weight_dtype else []
    _check("rms_norm", [dtype, *vectors], FLOATS)
    scaled = "x * inverse" + (" * C(to_compute(element(w, j)))" if weight_dtype else "")
    body = [
        "C total = 0;",
        "row.for_elements([&](C& x, bool) { total = multiply_add(x, x, total); });",
        "total = R::template merge<Sum<C>>(total);",
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

    >>> generate_layer_norm("float32", "float32", "float32", Variant(256, 1)).launch.grid
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
        "const C mean = R::template merge<Sum<C>>(total) / C(d1);",
        "C squares = 0;",
        "row.for_elements([&](C& x, bool is_own) {",
        "    squares = multiply_add(is_own ? x - mean : C(0), x - mean, squares);",
        "});",
        "squares = R::template merge<Sum<C>>(squares);",
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
        "row.write(out, [&](typename R::Place at, int u) {",
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
    variant: Variant,
    body: list[str],
    *,
    filler: str = "C{}",
    changes: bool = False,
    names: list[str] | None = None,
) -> KernelSource:
    """`body` goes over `row`, of type R; if `changes`, it changes its elements, and has no eps."""
    team, packs = variant.team, variant.packs
    threads = team if team > 32 else 256
    per_block = threads // team
    params = Params()
    params.dims(2)
    params.add(("ptr", 0), f"const {storage(dtype)}* p0")
    params.add(("stride", 0, 0), "i64 t0_0")
    for i, vector in enumerate(vectors, 1):
        params.add(("ptr", i), f"const {storage(vector)}* p{i}")
    params.add(("out", 0), f"{storage(out_dtype)}* __restrict__ q0")
    if not changes:
        wide = "f64" if dtype == "float64" else "f32"
        params.add(("scalar", 0, wide), f"{wide} eps")
    out, kinds = storage(out_dtype), [storage(v) for v in vectors]
    companions = list(zip(names or ["w"], kinds, strict=bool(names)))
    held = f"HeldRow<{storage(dtype)}, {team}, {packs}"
    # Six packs of floats and the words that they were are too much.
    keeps = changes and (packs < MAX_PACKS or ITEMSIZE[dtype] > 2)
    whole, shifted = f"{held}, {str(changes).lower()}, false>", f"{held}, {str(keeps).lower()}, true>"
    aligned = ["are_aligned<kWidth>(p0, t0_0)", "is_aligned<kWidth>(q0)"]
    aligned += [f"is_aligned<kWidth>(p{i})" for i in range(1, len(vectors) + 1)]

    def go_over(row_type: str) -> list[str]:
        lines = [f"using R = {row_type};", f"R row(p0 + at_row * t0_0, d1, {filler});"]
        lines += [f"const Companion<{v}, R> {name}_vector(p{i}, row);" for i, (name, v) in enumerate(companions, 1)]
        return ["    " + line for line in [*lines, *body]]

    text = [
        f"using C = {compute(dtype)};",
        f"constexpr int kWidth = {whole}::kWidth;",
        f"const i64 own_row = i64(blockIdx.x) * {per_block} + threadIdx.x / {team};",
        "const bool has_row = own_row < d0;",
        "// Teams beyond the last row go along with it, since whole warps meet in shuffles.",
        "const i64 at_row = has_row ? own_row : d0 - 1;",
        f"{out}* out = q0 + at_row * d1;",
        f"if (d1 % kWidth == 0 && {whole}::takes(d1) && {' && '.join(aligned)}) {{",
        *go_over(whole),
        *(
            [
                "// Rows of the input and of the output lie alike.",
                f"}} else if ({shifted}::takes(d1) && (t0_0 - d1) % kWidth == 0 && "
                "elements_past_boundary<kWidth>(p0) == elements_past_boundary<kWidth>(q0)) {",
                *go_over(shifted),
            ]
            if ITEMSIZE[dtype] == ITEMSIZE[out_dtype]
            else []
        ),
        "} else {",
        *go_over(f"ReadRow<{storage(dtype)}, {team}>"),
        "}",
    ]
    grid = ("cdiv", "d0", per_block) if per_block > 1 else "d0"
    name = "_".join([label, dtype, *vectors, f"{team}x{packs}"])
    launch = Launch((threads, 1, 1), (grid, 1, 1))
    # Vectors wider than the row need more registers than so many threads can have.
    kept = packs * (1 + (packs <= VECTOR_PACKS) * sum(ITEMSIZE[v] for v in vectors) / ITEMSIZE[dtype])
    together = _TOGETHER if kept <= 3 * VECTOR_PACKS else _TOGETHER * 3 // 4
    return define(name, "normalize.cuh", params, text, launch, together=max(1, together // threads))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Each function in each variant, in one dtype (`full`: in all), with weights of its own dtype and of float32."""
    floats = ("bfloat16", "float16", "float32", "float64")
    shapes = ((4, 4), (32, 3), (64, 4), (512, 4), (8, 1), (256, 1), (16, 5))
    variants = [Variant(team, packs) for team, packs in shapes]
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
    yield generate_softmax("bfloat16", Variant(256, 4))
    yield generate_rms_norm("float16", "float32", Variant(128, 4))
    yield generate_rms_norm("float32", None, Variant(128, 2))
    yield generate_layer_norm("float32", None, "float32", Variant(128, 2))
