"""Elements picked by index arrays: rows of a table, or single elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .codegen import Access, Operand, Params, decompose, load_statement, offset
from .kernel import KernelSource, Launch, Size, kernel, product
from .ops import ITEMSIZE, storage

THREADS = 256
INDEX_DTYPES = ("int32", "uint32", "int64")


def index_expression(dtype: str, element: str, size: str) -> str:
    """The C expression of an index: negative ones count from the end, and what is still outside is held inside."""
    if dtype == "uint32":
        return f"min_i64(i64({element}), {size} - 1)"
    return f"min_i64(max_i64(i64({element}) + (i64({element}) < 0 ? {size} : 0), 0), {size} - 1)"


def generate_gather(dtype: str, index_dtype: str, n_axes: int, access: Sequence[int | None]) -> KernelSource:
    """out[i, s...] = a[index_0[i], ..., s...]: picked along `n_axes` axes, whole along the others.

    Loop dims: 0 runs over the index arrays, the others over a's remaining dims, collapsed. Parameters, in order: the
    dims; operand 0, a, with its runtime strides along dims 1...; operands 1..., the index arrays, contiguous; for each
    axis its size and a's stride along it (integers 2 j and 2 j + 1); the output, contiguous.

    Args:
        dtype: of a and the output.
        index_dtype: int32, uint32 or int64.
        n_axes: at least 1.
        access: a's stride along each remaining dim: 0, 1, or None for a parameter.

    Raises:
        TypeError: another index dtype.

    >>> generate_gather("float32", "int32", 1, (1,)).params[0]
    ('dim', 0)
    """
    if index_dtype not in INDEX_DTYPES:
        raise TypeError(f"[gather] no CUDA kernel for indices of {index_dtype}: cast them to int32 or int64.")
    n_dims = 1 + len(access)
    last = n_dims - 1
    pattern: Access = (0, *access)
    source = Operand(dtype, pattern)
    params = Params()
    params.dims(n_dims)
    params.operands([source])
    params.operands([Operand(index_dtype)] * n_axes, first=1)
    for j in range(n_axes):
        params.add(("int", 2 * j), f"i64 size{j}")
        params.add(("int", 2 * j + 1), f"i64 step{j}")
    params.add(("out", 0), f"{storage(dtype)}* __restrict__ q0")
    width = 16 // ITEMSIZE[dtype] if access else 1
    body = [f"i64 rest = i64(blockIdx.x) * {THREADS} + threadIdx.x;"]
    if access:
        body += [
            f"const i64 column = take_coordinate(rest, ceil_div(d{last}, {width})) * {width};",
            "const i64 row = rest;",
            *decompose("rest", range(last)),
        ]
    else:
        body += ["const i64 c0 = rest;"]
    body += ["if (c0 >= d0) return;", "i64 from = 0;"]
    for j in range(n_axes):
        body.append(f"from += {index_expression(index_dtype, f'p{j + 1}[c0]', f'size{j}')} * step{j};")
    if access:
        coordinates = [*(f"c{d}" for d in range(last)), "column"]
        body += [
            f"const i64 count = d{last} - column;",
            load_statement(0, source, f"from + {offset(pattern, coordinates, 't0_', '')}", width, last, "count"),
            f"store_pack<{width}>(q0 + row * d{last} + column, a0, count);",
        ]
    else:
        body.append("q0[c0] = p0[from];")
    text = "\n".join(
        [
            '#include "prelude.cuh"',
            f'extern "C" __global__ void __launch_bounds__({THREADS}) KERNEL_NAME({params.signature()}) {{',
            *("    " + line for line in body),
            "}",
            "",
        ]
    )
    rows: Size = product([f"d{d}" for d in range(max(1, last))])
    work: Size = ("mul", rows, ("cdiv", f"d{last}", width)) if access else "d0"
    return kernel(f"gather_{dtype}", text, params.params, Launch((THREADS, 1, 1), (("cdiv", work, THREADS), 1, 1)))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Rows of a table, single elements, and strided remains."""
    yield generate_gather("bfloat16", "int32", 1, (1,))
    yield generate_gather("float32", "int64", 2, ())
    yield generate_gather("bool", "uint32", 1, (None, None))
    yield generate_gather("complex64", "int32", 2, (None, 1))
    if full:
        for dtype in ("uint8", "float16", "float64", "int32"):
            yield generate_gather(dtype, "uint32", 1, (None, 0))
