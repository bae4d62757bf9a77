"""Gradients of rms_norm and layer_norm: one pass over the rows for the input's and, by columns, the weight's.

A row is read once. With n = (x - mean) / deviation (mean 0 for rms_norm), c the cotangent of the result and g = c w,

    dx = (g - mean(g) - n mean(g n)) / deviation (without mean(g) for rms_norm), dw = sum of c n over rows.

A block goes over many rows and adds c n up in registers; its sums go to memory once, and `generate_column_sums` adds up
those of all blocks. Model: x and c are read and dx is written, 3 times the bytes of x, and 2 or 3 times `MAX_BLOCKS`
rows of float32. An addend of dx is read once more, which is less than to write dx, and to read it for the sum.
"""

from __future__ import annotations

from collections.abc import Iterator

from .codegen import Params, define
from .kernel import KernelSource, Launch, Size
from .ops import ITEMSIZE, storage

DTYPES = ("bfloat16", "float16", "float32")
NAMES = ("rms_norm", "layer_norm")
MAX_FEATURES = 8192
MAX_BLOCKS = 264
_THREADS = 256
_HEADER = "normalize_vjp.cuh"


def team_of(features: int) -> int:
    """Threads that share a row: at most 32 elements each, or 16 where it is more than a warp."""
    return 32 if features <= 1024 else next(team for team in (128, 256, 512) if features <= 16 * team)


def blocks_of(rows: Size, features: int) -> Size:
    """Blocks of the kernel, and rows of its sums."""
    teams = _threads(features) // team_of(features)
    return ("min", ("cdiv", rows, teams), MAX_BLOCKS)


def _threads(features: int) -> int:
    team = team_of(features)
    return _THREADS if team == 32 else team


def generate(
    name: str,
    dtype: str,
    features: int,
    eps: float,
    *,
    has_weight: bool,
    of_x: bool,
    of_weight: bool,
    adds: bool = False,
) -> KernelSource:
    """Loop dim 0: rows. Operands x, the weight if there is one and dx is wanted, c, and what is added to dx if `adds`;
    all but the weight with a stride along dim 0.

    Outputs: dx, contiguous, of the dtype, if wanted; the sums of blocks, float32, (blocks, features), if dw is wanted.

    Args:
        name: rms_norm or layer_norm.
        dtype: of all operands and of dx: bfloat16, float16 or float32.
        features: of a row, at most `MAX_FEATURES`.
        eps: that of the normalisation.
        has_weight: whether the result was multiplied by a weight.
        of_x, of_weight: what is wanted, at least one.
        adds: whether another array is added to dx, before it is rounded.

    Raises:
        TypeError: another dtype.
        ValueError: features out of range, nothing wanted, or an addend without a dx.

    >>> generate("rms_norm", "bfloat16", 768, 1e-5, has_weight=True, of_x=True, of_weight=True).launch.grid
    (('min', ('cdiv', 'd0', 8), 264), 1, 1)
    """
    if dtype not in DTYPES:
        raise TypeError(f"[{name}] no CUDA kernel for the gradient in {dtype}; use one of {DTYPES}.")
    if name not in NAMES or not 1 <= features <= MAX_FEATURES or not (of_x or of_weight) or adds > of_x:
        wanted = f"x: {of_x}, weight: {of_weight}, adds: {adds}"
        raise ValueError(f"[{name}] no gradient of rows of {features} features ({wanted})")
    team, threads, ctype = team_of(features), _threads(features), storage(dtype)
    weighted = has_weight and of_x
    params = Params()
    params.add(("dim", 0), "i64 d0")
    operands = ["x", *(["w"] if weighted else []), "c", *(["a"] if adds else [])]
    for i, operand in enumerate(operands):
        params.add(("ptr", i), f"const {ctype}* {operand}_rows")
        if operand != "w":
            params.add(("stride", i, 0), f"i64 {operand}_stride")
    if of_x:
        params.add(("out", 0), f"{ctype}* __restrict__ dx")
    if of_weight:
        params.add(("out", int(of_x)), "float* __restrict__ sums")
    taken, rows, g = "float x, float c", "x, c", "c"
    body: list[str] = []
    if weighted:
        # g = c w is computed wherever it is used: kept, it would take as many registers as a row.
        taken, rows, g = f"{taken}, float w", f"{rows}, w", "(c * w)"
        body.append("typename R::Raw w = R::load(w_rows);")
    if of_weight:
        body.append("R total;")
    body += [
        f"const i64 first = i64(blockIdx.x) * {threads // team} + threadIdx.x / {team};",
        f"const i64 step = i64(gridDim.x) * {threads // team};",
        "typename R::Raw next_x{}, next_c{};",
        "typename R::Own own;",
        "if (first < d0) next_x = R::load(x_rows + first * x_stride), next_c = R::load(c_rows + first * c_stride);",
        "for (i64 row = first; row < d0; row += step) {",
        "    typename R::Raw x = next_x, c = next_c;",
        "    const i64 next = row + step;  // on its way while this row's sums go from thread to thread",
        "    if (next < d0) next_x = R::load(x_rows + next * x_stride), next_c = R::load(c_rows + next * c_stride);",
    ]
    if adds:
        body.append("    const typename R::Raw a = R::load(a_rows + row * a_stride);")
    forget = [f"    {row}.forget_floats();" for row in rows.split(", ")]
    deviation, shift = "x", ""
    if name == "layer_norm":
        deviation, shift = "(x - mean)", " - shift"
        body += [
            "    float sum = 0, of_g = 0;",
            f"    R::for_each([&]({taken}) {{ sum += x, of_g += {g}; }}, {rows});",
            *forget,
            "    const TwoSums::State sums_of_row = R::template merge<TwoSums>({sum, of_g});",
            f"    const float mean = sums_of_row.first / {features}, shift = sums_of_row.second / {features};",
        ]
    body += [
        "    TwoSums::State of_row = TwoSums::identity();",
        f"    R::for_each([&]({taken}, bool is_own) {{",
        f"        const float deviation = is_own ? {deviation} : 0.0f;",
        "        of_row.first = multiply_add(deviation, deviation, of_row.first);",
        f"        of_row.second = multiply_add(deviation, {g}, of_row.second);",
        f"    }}, {rows}, own);",
        *forget,
        "    of_row = R::template merge<TwoSums>(of_row);",
        f"    const float inverse = op_rsqrt(of_row.first / {features} + {float(eps)!r}f);",
    ]
    if of_weight:
        body.append(
            f"    R::for_each([&](float& t, float x, float c) {{ t += c * ({deviation} * inverse); }}, total, x, c);"
        )
    if of_x:
        more, other, addend = (", float a", ", a", "a + ") if adds else ("", "", "")
        body += [
            f"    const float slope = of_row.second / {features} * inverse * inverse;",
            f"    R::store_each(dx + row * {features}, [&]({taken}{more}) {{",
            f"        return {addend}inverse * ({g}{shift} - {deviation} * slope);",
            f"    }}, {rows}{other});",
        ]
    body.append("}")
    if of_weight:
        body.append(f"total.template store_sums<{threads}>(sums + i64(blockIdx.x) * {features}, all);")
    part, width = f"RowPart<{ctype}, {team}, {features}", 16 // ITEMSIZE[dtype]
    each = [f"    {line}" for line in body]
    body = ["{", f"    using R = {part}, false>;", *each, "}"]
    if features % width == 0:
        aligned = [f"are_aligned<{width}>({a}_rows, {a}_stride)" for a in operands if a != "w"]
        aligned += [f"is_aligned<{width}>({a})" for a in (*["w_rows"] * weighted, *["dx"] * of_x)]
        body = [f"if ({' && '.join(aligned)}) {{", f"    using R = {part}, true>;", *each, "} else", *body]
    if of_weight:
        body.insert(0, f"__shared__ float all[{threads // team * features}];")
    parts = (("_x", of_x), ("_w", of_weight), ("_add", adds))
    label = f"{name}_vjp_{dtype}_{features}" + "".join(part for part, on in parts if on)
    # Two blocks to a multiprocessor, as `MAX_BLOCKS` has it, where the sums, a row, the next one and the weight fit.
    elements = -(-features // team)
    together = (
        2 if elements + (6 if adds else 5) * elements * ITEMSIZE[dtype] // 4 + 30 <= 65536 // (2 * threads) else 1
    )
    launch = Launch((threads, 1, 1), (blocks_of("d0", features), 1, 1))
    return define(label, _HEADER, params, body, launch, together=together)


def generate_column_sums(dtype: str) -> KernelSource:
    """The sums of float32 columns: loop dims 0 rows, 1 columns; operand 0 contiguous; the output, of `dtype`.

    >>> generate_column_sums("bfloat16").launch.grid
    (('cdiv', 'd1', 8), 1, 1)
    """
    params = Params()
    params.dims(2)
    params.add(("ptr", 0), "const float* p0")
    params.add(("out", 0), f"{storage(dtype)}* __restrict__ q0")
    # A sector of memory of each row: eight columns, so that there are blocks for many multiprocessors.
    body = [
        "constexpr int kAcross = 8, kWarps = 16, kDown = kWarps * 32 / kAcross;",
        "__shared__ float parts[kAcross][kWarps];",
        "const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross, lane = threadIdx.x % 32;",
        "const i64 column = i64(blockIdx.x) * kAcross + across;",
        "float total = 0;",
        "if (column < d1) {",
        "#pragma unroll 8",
        "    for (i64 row = down; row < d0; row += kDown) total += p0[row * d1 + column];",
        "}",
        "#pragma unroll",
        "for (int lanes = kAcross; lanes < 32; lanes *= 2) total += shuffle_xor(total, lanes);",
        "if (lane < kAcross) parts[across][threadIdx.x / 32] = total;",
        "__syncthreads();",
        "// Each of the first warps has two columns.",
        "if (threadIdx.x >= kAcross * kWarps) return;",
        "total = merge_lanes<Sum<float>, kWarps>(parts[threadIdx.x / kWarps][threadIdx.x % kWarps]);",
        "const i64 own = i64(blockIdx.x) * kAcross + threadIdx.x / kWarps;",
        f"if (threadIdx.x % kWarps == 0 && own < d1) q0[own] = from_compute<{storage(dtype)}>(total);",
    ]
    return define(f"column_sums_{dtype}", "reduce.cuh", params, body, Launch((512, 1, 1), (("cdiv", "d1", 8), 1, 1)))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Both functions, teams of every size, in one dtype (`full`: in all)."""
    for dtype in DTYPES if full else DTYPES[:1]:
        yield generate_column_sums(dtype)
        for name in NAMES:
            for features in (768, 33, 3000, 8192):
                yield generate(name, dtype, features, 1e-5, has_weight=True, of_x=True, of_weight=True)
            yield generate(name, dtype, 64, 1e-5, has_weight=False, of_x=True, of_weight=False)
            yield generate(name, dtype, 768, 1e-5, has_weight=True, of_x=True, of_weight=True, adds=True)
            yield generate(name, dtype, 64, 1e-5, has_weight=True, of_x=False, of_weight=True)
