"""Elements picked or updated by index arrays: rows of a table, or single elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .codegen import Access, Operand, Params, decompose, define, load_expression, offset
from .kernel import KernelSource, Launch, Size, product
from .ops import ITEMSIZE, storage

THREADS = 256
UNROLL = 4  # packs of a gather that a thread has under way
INDEX_DTYPES = ("int32", "uint32", "int64")
MODES = ("none", "add", "prod", "max", "min")


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
    _check("gather", index_dtype)
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
    element = storage(dtype)
    # What is picked waits for its index: several packs are under way at once.
    place = [f"i64 rest = (i64(blockIdx.x) * kUnroll + u) * {THREADS} + threadIdx.x;"]
    if access:
        place += [
            f"const i64 column = take_coordinate(rest, ceil_div(d{last}, {width})) * {width};",
            f"to[u] = rest * d{last} + column;",
            *decompose("rest", range(last)),
            f"count[u] = c0 < d0 ? int(min_i64({width}, d{last} - column)) : 0;",
        ]
    else:
        place += ["const i64 c0 = rest;", "to[u] = c0;", "count[u] = c0 < d0 ? 1 : 0;"]
    place.append("const i64 picked = min_i64(c0, d0 - 1);")
    terms = [f"{index_expression(index_dtype, f'p{j + 1}[picked]', f'size{j}')} * step{j}" for j in range(n_axes)]
    if access:
        terms.append(offset(pattern, [*(f"c{d}" for d in range(last)), "column"], "t0_", ""))
    place.append(f"from[u] = {' + '.join(terms)};")
    load = load_expression(0, source, "from[u]", width, last, "count[u]") if access else "{p0[from[u]]}"
    body = [
        f"constexpr int kUnroll = {UNROLL};",
        "i64 from[kUnroll], to[kUnroll];",
        "int count[kUnroll];",
        "#pragma unroll",
        "for (int u = 0; u < kUnroll; ++u) {",
        *("    " + line for line in place),
        "}",
        f"Pack<{element}, {width}> picked[kUnroll];",
        "#pragma unroll",
        f"for (int u = 0; u < kUnroll; ++u) picked[u] = {load};",
        "#pragma unroll",
        f"for (int u = 0; u < kUnroll; ++u) store_pack<{width}>(q0 + to[u], picked[u], count[u]);",
    ]
    rows: Size = product([f"d{d}" for d in range(max(1, last))])
    work: Size = ("mul", rows, ("cdiv", f"d{last}", width)) if access else "d0"
    return _assemble(f"gather_{dtype}", params, body, ("cdiv", work, UNROLL))


def _assemble(label: str, params: Params, body: list[str], work: Size) -> KernelSource:
    return define(label, "math.cuh", params, body, Launch((THREADS, 1, 1), (("cdiv", work, THREADS), 1, 1)))


def _check(name: str, index_dtype: str, mode: str = "none") -> None:
    if index_dtype not in INDEX_DTYPES:
        raise TypeError(f"[{name}] no CUDA kernel for indices of {index_dtype}: cast them to int32 or int64.")
    if mode not in MODES:
        raise ValueError(f"[{name}] an update is one of {MODES}, not {mode!r}")


def _write(mode: str, dtype: str, place: str, value: str) -> str:
    if mode == "none":
        return f"*({place}) = {value};"
    return f"atomic_{mode}({place}, to_compute({value}));"


def generate_scatter(dtype: str, index_dtype: str, n_axes: int, n_rest: int, mode: str) -> KernelSource:
    """a[index_0[i], ..., s...] (mode)= updates[i, s...], in place.

    Loop dims: 0 runs over the index arrays, the others over a's remaining dims. Of several updates of one element any
    one stays for "none"; all count otherwise, in any order. Parameters, in order: the dims; operand 0, the updates,
    contiguous; operands 1..., the index arrays, contiguous; for each axis its size and a's stride along it (integers
    2 j and 2 j + 1); the output, which is a, with its strides along dims 1... .

    Args:
        dtype: of a and the updates.
        index_dtype: int32, uint32 or int64.
        n_axes: at least 1.
        n_rest: how many dims remain.
        mode: none, add, prod, max or min.

    Raises:
        TypeError: another index dtype.
        ValueError: another mode.

    >>> generate_scatter("float32", "int32", 1, 1, "add").params[0]
    ('dim', 0)
    """
    _check("scatter", index_dtype, mode)
    n_dims = 1 + n_rest
    params = Params()
    params.dims(n_dims)
    params.operands([Operand(dtype)])
    params.operands([Operand(index_dtype)] * n_axes, first=1)
    for j in range(n_axes):
        params.add(("int", 2 * j), f"i64 size{j}")
        params.add(("int", 2 * j + 1), f"i64 step{j}")
    params.add(("out", 0), f"{storage(dtype)}* __restrict__ q0")
    for d in range(1, n_dims):
        params.add(("out_stride", 0, d), f"i64 u{d}")
    body = [
        f"const i64 i = i64(blockIdx.x) * {THREADS} + threadIdx.x;",
        "i64 rest = i;",
        *decompose("rest", range(n_dims)),
        "if (c0 >= d0) return;",
        "i64 to = 0;",
    ]
    for j in range(n_axes):
        body.append(f"to += {index_expression(index_dtype, f'p{j + 1}[c0]', f'size{j}')} * step{j};")
    body += [f"to += c{d} * u{d};" for d in range(1, n_dims)]
    body.append(_write(mode, dtype, "q0 + to", "p0[i]"))
    return _assemble(f"scatter_{mode}_{dtype}", params, body, product([f"d{d}" for d in range(n_dims)]))


def generate_take_along_axis(dtype: str, index_dtype: str, n_dims: int) -> KernelSource:
    """out[c] = a[c with the coordinate of one axis replaced by indices[c]].

    Loop dims: those of the indices and the output. Parameters, in order: the dims; operand 0, a, with a stride along
    each dim (0 along the axis); operand 1, the indices, with a stride along each dim; the axis's size and a's stride
    along it (integers 0 and 1); the output, contiguous.

    Args:
        dtype: of a and the output.
        index_dtype: int32, uint32 or int64.
        n_dims: at least 1.

    Raises:
        TypeError: another index dtype.

    >>> generate_take_along_axis("float32", "int32", 2).params[0]
    ('dim', 0)
    """
    _check("take_along_axis", index_dtype)
    params = Params()
    params.dims(n_dims)
    params.operands([Operand(dtype, (None,) * n_dims), Operand(index_dtype, (None,) * n_dims)])
    params.add(("int", 0), "i64 size")
    params.add(("int", 1), "i64 step")
    params.add(("out", 0), f"{storage(dtype)}* __restrict__ q0")
    body = _along(n_dims, index_dtype)
    body.append(f"q0[i] = p0[{_offset(n_dims, 't0_')} + at];")
    return _assemble(f"take_along_axis_{dtype}", params, body, product([f"d{d}" for d in range(n_dims)]))


def generate_put_along_axis(dtype: str, index_dtype: str, n_dims: int, mode: str) -> KernelSource:
    """a[c with the coordinate of one axis replaced by indices[c]] (mode)= values[c], in place.

    Parameters: those of `generate_take_along_axis` with the values as operand 0; the output is a, with a stride along
    each dim (0 along the axis).

    Args:
        dtype: of a and the values.
        index_dtype: int32, uint32 or int64.
        n_dims: at least 1.
        mode: none, add, prod, max or min; as for `generate_scatter`.

    Raises:
        TypeError: another index dtype.
        ValueError: another mode.

    >>> generate_put_along_axis("float32", "int32", 2, "none").params[0]
    ('dim', 0)
    """
    _check("put_along_axis", index_dtype, mode)
    params = Params()
    params.dims(n_dims)
    params.operands([Operand(dtype, (None,) * n_dims), Operand(index_dtype, (None,) * n_dims)])
    params.add(("int", 0), "i64 size")
    params.add(("int", 1), "i64 step")
    params.add(("out", 0), f"{storage(dtype)}* __restrict__ q0")
    for d in range(n_dims):
        params.add(("out_stride", 0, d), f"i64 u{d}")
    body = _along(n_dims, index_dtype)
    body.append(f"const i64 to = {_offset(n_dims, 'u')} + at;")
    body.append(_write(mode, dtype, "q0 + to", f"p0[{_offset(n_dims, 't0_')}]"))
    return _assemble(f"put_along_axis_{mode}_{dtype}", params, body, product([f"d{d}" for d in range(n_dims)]))


def _offset(n_dims: int, strides: str) -> str:
    return " + ".join(f"c{d} * {strides}{d}" for d in range(n_dims))


def _along(n_dims: int, index_dtype: str) -> list[str]:
    """Coordinates, and `at`: where the index points to along the axis."""
    return [
        f"const i64 i = i64(blockIdx.x) * {THREADS} + threadIdx.x;",
        "i64 rest = i;",
        *decompose("rest", range(n_dims)),
        "if (c0 >= d0) return;",
        f"const i64 index = i64(p1[{_offset(n_dims, 't1_')}]);",
        f"const i64 at = {index_expression(index_dtype, 'index', 'size')} * step;",
    ]


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Rows of a table, single elements and strided remains; updates in every mode and of every size of element."""
    yield generate_gather("bfloat16", "int32", 1, (1,))
    yield generate_gather("float32", "int64", 2, ())
    yield generate_gather("bool", "uint32", 1, (None, None))
    yield generate_gather("complex64", "int32", 2, (None, 1))
    if full:
        for dtype in ("uint8", "float16", "float64", "int32"):
            yield generate_gather(dtype, "uint32", 1, (None, 0))
    dtypes = ("float32", "bfloat16", "bool", "complex64", "int64", "float64", "uint8", "int32", "float16")
    for k, dtype in enumerate(dtypes):
        for mode in MODES if full else (MODES[k % len(MODES)],):
            yield generate_scatter(dtype, INDEX_DTYPES[k % 3], 1 + k % 2, k % 3, mode)
        yield generate_take_along_axis(dtype, INDEX_DTYPES[k % 3], 1 + k % 3)
        yield generate_put_along_axis(dtype, INDEX_DTYPES[k % 3], 1 + k % 3, MODES[k % 2])
