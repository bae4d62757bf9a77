"""Gradients of rms_norm and layer_norm: one pass over the rows for the input's and, by columns, the weight's.

A row is read once. With n = (x - mean) / deviation (mean 0 for rms_norm), c the cotangent of the result and g = c w,

    dx = (g - mean(g) - n mean(g n)) / deviation (without mean(g) for rms_norm), dw = sum of c n over rows.

A block goes over many rows and adds c n up in registers; its sums go to memory once, and `generate_column_sums` adds up
those of all blocks. Model: x and c are read and dx is written, 3 times the bytes of x, and 2 or 3 times `MAX_BLOCKS`
rows of float32.
"""

from __future__ import annotations

from collections.abc import Iterator

from .codegen import Params, define
from .kernel import KernelSource, Launch, Size
from .ops import storage

DTYPES = ("bfloat16", "float16", "float32")
NAMES = ("rms_norm", "layer_norm")
MAX_FEATURES = 8192
MAX_BLOCKS = 264
_THREADS = 256
_HEADER = "normalize_vjp.cuh"


def team_of(features: int) -> int:
    """Threads that share a row: at most 32 elements each."""
    return next(team for team in (32, 128, 256) if features <= 32 * team)


def blocks_of(rows: Size, features: int) -> Size:
    """Blocks of the kernel, and rows of its sums."""
    teams = _threads(features) // team_of(features)
    return ("min", ("cdiv", rows, teams), MAX_BLOCKS)


def _threads(features: int) -> int:
    team = team_of(features)
    return _THREADS if team == 32 else team


def generate(
    name: str, dtype: str, features: int, eps: float, *, has_weight: bool, of_x: bool, of_weight: bool
) -> KernelSource:
    """Loop dim 0: rows. Operands x, the weight if there is one and dx is wanted, c; x and c with a stride along dim 0.

    Outputs: dx, contiguous, of the dtype, if wanted; the sums of blocks, float32, (blocks, features), if dw is wanted.

    Args:
        name: rms_norm or layer_norm.
        dtype: of all operands and of dx: bfloat16, float16 or float32.
        features: of a row, at most `MAX_FEATURES`.
        eps: that of the normalisation.
        has_weight: whether the result was multiplied by a weight.
        of_x, of_weight: what is wanted, at least one.

    Raises:
        TypeError: another dtype.
        ValueError: features out of range, or nothing wanted.

    >>> generate("rms_norm", "bfloat16", 768, 1e-5, has_weight=True, of_x=True, of_weight=True).launch.grid
    (('min', ('cdiv', 'd0', 8), 264), 1, 1)
    """
    if dtype not in DTYPES:
        raise TypeError(f"[{name}] no CUDA kernel for the gradient in {dtype}; use one of {DTYPES}.")
    if name not in NAMES or not 1 <= features <= MAX_FEATURES or not (of_x or of_weight):
        raise ValueError(f"[{name}] no gradient of rows of {features} features (x: {of_x}, weight: {of_weight})")
    team, threads, ctype = team_of(features), _threads(features), storage(dtype)
    weighted = has_weight and of_x
    params = Params()
    params.add(("dim", 0), "i64 d0")
    operands = ["x", *(["w"] if weighted else []), "c"]
    for i, operand in enumerate(operands):
        params.add(("ptr", i), f"const {ctype}* {operand}_rows")
        if operand != "w":
            params.add(("stride", i, 0), f"i64 {operand}_stride")
    if of_x:
        params.add(("out", 0), f"{ctype}* __restrict__ dx")
    if of_weight:
        params.add(("out", int(of_x)), "float* __restrict__ sums")
    body = [f"using R = RowPart<{ctype}, {team}, {features}>;"]
    if weighted:
        body.append("const typename R::Raw weight = R::load(w_rows);")
    if of_weight:
        body.append("R total;")
    body += [
        f"for (i64 row = i64(blockIdx.x) * {threads // team} + threadIdx.x / {team}; row < d0; "
        f"row += i64(gridDim.x) * {threads // team}) {{",
        "    const typename R::Raw raw_x = R::load(x_rows + row * x_stride), raw_c = R::load(c_rows + row * c_stride);",
        "    R x(raw_x), c(raw_c);",
    ]
    if name == "layer_norm":
        body += [
            "    float sum = 0;",
            "    R::for_each([&](float x) { sum += x; }, x);",
            f"    const float mean = R::template merge<Sum<float>>(sum) / {features};",
            # What is beyond the row stays 0.
            "    for (int u = 0; u < R::kPacks; ++u)",
            "        for (int j = 0; j < R::kWidth; ++j) x.v[u][j] = x.has(u, j) ? x.v[u][j] - mean : 0;",
        ]
    body += [
        "    R g = c;",
        *(["    R w(weight);", "    R::for_each([&](float& g, float w) { g *= w; }, g, w);"] if weighted else []),
        "    TwoSums::State of_row = TwoSums::identity();",
        "    R::for_each([&](float x, float g) {",
        "        of_row.first = multiply_add(x, x, of_row.first);",
        "        of_row.second = multiply_add(x, g, of_row.second);",
        "    }, x, g);",
        "    of_row = R::template merge<TwoSums>(of_row);",
        f"    const float inverse = op_rsqrt(of_row.first / {features} + {float(eps)!r}f);",
    ]
    if of_weight:
        body.append("    R::for_each([&](float& t, float x, float c) { t += c * (x * inverse); }, total, x, c);")
    if of_x:
        body.append(f"    const float slope = of_row.second / {features} * inverse * inverse;")
        shift = ""
        if name == "layer_norm":
            body += [
                "    float of_g = 0;",
                "    R::for_each([&](float g) { of_g += g; }, g);",
                f"    const float shift = R::template merge<Sum<float>>(of_g) / {features};",
            ]
            shift = " - shift"
        body += [
            f"    R::for_each([&](float& g, float x) {{ g = inverse * (g{shift} - x * slope); }}, g, x);",
            f"    g.store(dx + row * {features});",
        ]
    body.append("}")
    if of_weight:
        body.append(f"total.template store_sums<{threads}>(sums + i64(blockIdx.x) * {features});")
    label = f"{name}_vjp_{dtype}_{features}" + "".join(part for part, on in (("_x", of_x), ("_w", of_weight)) if on)
    return define(label, _HEADER, params, body, Launch((threads, 1, 1), (blocks_of("d0", features), 1, 1)))


def generate_column_sums(dtype: str) -> KernelSource:
    """The sums of float32 columns: loop dims 0 rows, 1 columns; operand 0 contiguous; the output, of `dtype`.

    >>> generate_column_sums("bfloat16").launch.grid
    (('cdiv', 'd1', 32), 1, 1)
    """
    params = Params()
    params.dims(2)
    params.add(("ptr", 0), "const float* p0")
    params.add(("out", 0), f"{storage(dtype)}* __restrict__ q0")
    body = [
        "__shared__ float parts[32][33];",
        "const int across = threadIdx.x % 32, down = threadIdx.x / 32;",
        "const i64 column = i64(blockIdx.x) * 32 + across;",
        "float total = 0;",
        "if (column < d1) {",
        "#pragma unroll 4",
        "    for (i64 row = down; row < d0; row += 32) total += p0[row * d1 + column];",
        "}",
        "parts[down][across] = total;",
        "__syncthreads();",
        "if (down > 0 || column >= d1) return;",
        "total = 0;",
        "for (int i = 0; i < 32; ++i) total += parts[i][across];",
        f"q0[column] = from_compute<{storage(dtype)}>(total);",
    ]
    return define(f"column_sums_{dtype}", "math.cuh", params, body, Launch((1024, 1, 1), (("cdiv", "d1", 32), 1, 1)))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Both functions, teams of every size, in one dtype (`full`: in all)."""
    for dtype in DTYPES if full else DTYPES[:1]:
        yield generate_column_sums(dtype)
        for name in NAMES:
            for features in (768, 33, 3000, 8192):
                yield generate(name, dtype, features, 1e-5, has_weight=True, of_x=True, of_weight=True)
            yield generate(name, dtype, 64, 1e-5, has_weight=False, of_x=True, of_weight=False)
            yield generate(name, dtype, 64, 1e-5, has_weight=True, of_x=False, of_weight=True)
