"""Rotary positions (Su et al., arXiv:2104.09864): pairs of features turn by an angle that grows with the position."""

from __future__ import annotations

from collections.abc import Iterator

from .codegen import Params, define
from .kernel import KernelSource, Launch
from .ops import FLOATS, ITEMSIZE, storage

THREADS = 128


def generate_rope(
    dtype: str, dims: int, traditional: bool, *, offset: str = "number", has_freqs: bool = False
) -> KernelSource:
    """out[b, h, t] = x[b, h, t] with its first `dims` features turned by (offset + t) * scale * frequency.

    Loop dims: 0 batch, 1 heads, 2 positions, 3 features. The frequency of pair i is base ** (-2 i / dims), or
    1 / freqs[i]. Computed in float, angles reduced exactly. A thread turns as many pairs as make 16 bytes of each half.

    Parameters, in order: the dims; operand 0, x, with strides along dims 0, 1 and 2 (features are adjacent); the next
    operands: the int32 offsets unless `offset` is "number", the float32 inverse frequencies if `has_freqs`; the output
    with its strides along dims 0, 1 and 2; integer 0, the offset, if it is a number; scalar 0, the base, f64 (without
    `has_freqs`); scalar 1, the scale, f32.

    Args:
        dtype: of x and the output, floating.
        dims: an even number, at most the features.
        traditional: whether pairs are neighbours, else halves.
        offset: "number" (an integer parameter), "array" (one element) or "batch" (one for each batch).
        has_freqs: whether frequencies are given.

    Raises:
        TypeError: the dtype has no kernel.

    >>> generate_rope("bfloat16", 64, False).launch.block
    (128, 1, 1)
    """
    if dtype not in FLOATS:
        raise TypeError(f"[rope] no CUDA kernel for {dtype}; cast with astype to a floating type.")
    half = dims // 2
    width = max(w for w in (1, 2, 4, 8) if half % w == 0 and w * ITEMSIZE[dtype] <= 16)
    packs = half // width
    params = Params()
    params.dims(4)
    params.add(("ptr", 0), f"const {storage(dtype)}* p0")
    for d in range(3):
        params.add(("stride", 0, d), f"i64 t{d}")
    n_operands = 1
    if offset != "number":
        params.add(("ptr", n_operands), "const i32* offsets")
        n_operands += 1
    if has_freqs:
        params.add(("ptr", n_operands), "const f32* periods")
    params.add(("out", 0), f"{storage(dtype)}* __restrict__ q0")
    for d in range(3):
        params.add(("out_stride", 0, d), f"i64 u{d}")
    if offset == "number":
        params.add(("int", 0), "i64 start")
    else:
        start = "offsets[b]" if offset == "batch" else "offsets[0]"
    if not has_freqs:
        params.scalar(0, "f64")
    params.scalar(1, "f32")
    frequency = "1.0f / periods[pair]" if has_freqs else "op_exp(f32(pair) * slope)"
    compute = "f64" if dtype == "float64" else "f32"
    first, second = (f"{2 * width} * pack", "") if traditional else (f"{width} * pack", f"{width} * pack + {half}")
    lines = [
        f"i64 rest = i64(blockIdx.x) * {THREADS} + threadIdx.x;",
        f"const i64 columns = {packs} + ceil_div(d3 - {dims}, {width});",
        "const i64 pack = take_coordinate(rest, columns);",
        "const i64 h = take_coordinate(rest, d1);",
        "const i64 t = take_coordinate(rest, d2);",
        "const i64 b = rest;",
        "if (b >= d0) return;",
        f"const {storage(dtype)}* x = p0 + b * t0 + h * t1 + t * t2;",
        f"{storage(dtype)}* y = q0 + b * u0 + h * u1 + t * u2;",
        f"if (pack >= {packs}) {{  // features that do not turn",
        f"    const i64 column = {dims} + (pack - {packs}) * {width};",
        f"    store_pack<{width}>(y + column, load_pack<{width}>(x + column, d3 - column), d3 - column);",
        "    return;",
        "}",
    ]
    if offset != "number":
        lines.append(f"const i64 start = {start};")
    if not has_freqs:
        lines.append(f"const f32 slope = f32(-log(s0_f64) / {half});")
    lines.append("const f32 position = f32(start + t) * s1_f32;")
    if traditional:
        lines += [
            f"auto v = load_pack<{2 * width}>(x + {first}, {2 * width});",
        ]
        left, right = "v.v[2 * j]", "v.v[2 * j + 1]"
        stores = [f"store_pack<{2 * width}>(y + {first}, v, {2 * width});"]
    else:
        lines += [
            f"auto v = load_pack<{width}>(x + {first}, {width});",
            f"auto w = load_pack<{width}>(x + {second}, {width});",
        ]
        left, right = "v.v[j]", "w.v[j]"
        stores = [f"store_pack<{width}>(y + {first}, v, {width});", f"store_pack<{width}>(y + {second}, w, {width});"]
    lines += [
        "#pragma unroll",
        f"for (int j = 0; j < {width}; ++j) {{",
        f"    const int pair = int(pack) * {width} + j;",
        f"    const f32 angle = position * ({frequency});",
        "    f32 sine, cosine;",
        "    sincosf(angle, &sine, &cosine);",
        f"    const {compute} l = to_compute({left}), r = to_compute({right});",
        f"    {left} = from_compute<{storage(dtype)}>(l * {compute}(cosine) - r * {compute}(sine));",
        f"    {right} = from_compute<{storage(dtype)}>(l * {compute}(sine) + r * {compute}(cosine));",
        "}",
        *stores,
    ]
    rows = ("mul", "d0", ("mul", "d1", "d2"))
    columns = ("add", packs, ("cdiv", ("max", ("sub", "d3", dims), 0), width))
    grid = ("cdiv", ("mul", rows, columns), THREADS)
    return define(f"rope_{dtype}", "math.cuh", params, lines, Launch((THREADS, 1, 1), (grid, 1, 1)))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Both pairings, every kind of offset, and frequencies."""
    yield generate_rope("bfloat16", 64, False)
    yield generate_rope("float32", 128, True, offset="batch")
    yield generate_rope("float16", 6, False, offset="array", has_freqs=True)
    yield generate_rope("float64", 32, True, has_freqs=True)
    if full:
        for dtype in ("bfloat16", "float16", "float32"):
            for traditional in (False, True):
                yield generate_rope(dtype, 80, traditional, offset="array")
