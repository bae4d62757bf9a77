"""Running sums, products, extremes and logsumexps along the last axis, or down columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from .codegen import Params, define
from .kernel import KernelSource, Launch
from .ops import DTYPES, INEXACT, INTEGERS, ITEMSIZE, compute, storage
from .target import target

Variant = Literal["warp", "block", "long"]

_TEAMS = {"warp": 32, "block": 128, "long": 512}
_COLUMN_THREADS = 256
_ROWS = 4  # of a thread at a time, where it goes down columns
_CLASSES = {"cumsum": "Sum", "cumprod": "Prod", "cummax": "Max", "cummin": "Min", "logcumsumexp": "LogSumExp"}
OPS = tuple(_CLASSES)


def choose_variant(rows: int, n: int) -> Variant:
    """A fast variant for `rows` rows of n elements; any variant is correct for any.

    >>> choose_variant(10_000, 100), choose_variant(1, 1_000_000)
    ('warp', 'long')
    """
    if n <= 256 or (n <= 1024 and rows >= 4096):
        return "warp"
    return "block" if n <= 2048 or rows >= 1024 else "long"


def generate(op: str, dtype: str, out_dtype: str, *, reverse: bool, inclusive: bool, variant: Variant) -> KernelSource:
    """out[i] = the reduction of x[0]...x[i] along each row of contiguous (rows, n).

    16-bit floats accumulate in float; sums and products of integers wrap; a NaN stays from where it is. Any rows and n,
    any alignment. The order of the sums does not depend on timing. Parameters, in order: dim 0, the rows; dim 1, n;
    operand 0; the output; both contiguous.

    Args:
        op: one of `OPS`.
        dtype: of the operand; floating or complex for logcumsumexp.
        out_dtype: the operand's, or an integer dtype for cumsum and cumprod of integers or bool.
        reverse: from the end of the row to its start.
        inclusive: whether out[i] has x[i]; if not, the first is the identity: 0, 1, the least (-inf), the greatest
            (inf) or -inf.
        variant: from `choose_variant`.

    Raises:
        ValueError: an argument makes no sense.
        TypeError: the op takes no such dtype.

    >>> generate("cumsum", "bool", "int32", reverse=False, inclusive=True, variant="warp").launch.grid
    (('cdiv', 'd0', 8), 1, 1)
    """
    if variant not in _TEAMS:
        raise ValueError(f"unknown variant {variant!r}")
    element, first = _check(op, dtype, out_dtype)
    team = _TEAMS[variant]
    threads = max(team, 256) if team == 32 else team
    per_block = threads // team
    flags = f"{str(reverse).lower()}, {str(inclusive).lower()}"
    body = [
        f"const i64 row = i64(blockIdx.x) * {per_block} + threadIdx.x / {team};",
        "if (row >= d0) return;  // a whole warp's or block's threads",
        f"using Op = {_CLASSES[op]}<{compute(element)}>;",
        f"scan_row<Op, {storage(element)}, {team}, {flags}>(p0 + row * d1, q0 + row * d1, d1, {first});",
    ]
    grid = ("cdiv", "d0", per_block) if per_block > 1 else "d0"
    label = f"{op}_{dtype}{'_reverse' if reverse else ''}{'' if inclusive else '_exclusive'}_{variant}"
    params = _params(2, dtype, out_dtype)
    return define(label, "scan.cuh", params, body, Launch((threads, 1, 1), (grid, 1, 1)))


def columns_of(dtype: str) -> int:
    """Columns of a block: 128 bytes of a row, or 64 where those would be many."""
    return _across(dtype) * _width(dtype)


def has_columns(dtype: str, outer: int, n: int, inner: int) -> bool:
    """Whether `generate_columns` is fast for these sizes: there are blocks enough, or little to do.

    >>> has_columns("float32", 1, 8192, 8192), has_columns("float32", 1, 8192, 3)
    (True, False)
    """
    columns = columns_of(dtype)
    return inner >= columns and (n <= 256 or outer * -(-inner // columns) * 2 >= target.multiprocessors)


def generate_columns(op: str, dtype: str, out_dtype: str, *, reverse: bool, inclusive: bool) -> KernelSource:
    """The scan of `generate` along the middle axis of contiguous (outer, n, inner), in any alignment.

    Parameters, in order: dims 0 to 2, those three; operand 0; the output; both contiguous. Arguments and errors are
    those of `generate`.

    >>> generate_columns("cumsum", "float32", "float32", reverse=False, inclusive=True).launch.grid
    (('mul', 'd0', ('cdiv', 'd2', 32)), 1, 1)
    """
    element, first = _check(op, dtype, out_dtype)
    columns = columns_of(dtype)
    flags = f"{str(reverse).lower()}, {str(inclusive).lower()}"
    body = [
        "i64 outer = blockIdx.x;",
        f"const i64 column = take_coordinate(outer, ceil_div(d2, {columns})) * {columns};",
        "const i64 start = outer * d1 * d2 + column;",
        f"using Op = {_CLASSES[op]}<{compute(element)}>;",
        f"scan_columns<Op, {storage(element)}, {_COLUMN_THREADS}, {_across(dtype)}, {_ROWS}, {flags}>",
        f"    (p0 + start, q0 + start, d1, d2, d2 - column, {first});",
    ]
    label = f"{op}_{dtype}{'_reverse' if reverse else ''}{'' if inclusive else '_exclusive'}_columns"
    grid = ("mul", "d0", ("cdiv", "d2", columns))
    launch = Launch((_COLUMN_THREADS, 1, 1), (grid, 1, 1))
    return define(label, "scan.cuh", _params(3, dtype, out_dtype), body, launch)


def _width(dtype: str) -> int:
    """Elements of a pack."""
    return min(8, 16 // ITEMSIZE[dtype])


def _across(dtype: str) -> int:
    """Packs of a block's columns."""
    return 4 if ITEMSIZE[dtype] <= 2 else 8


def _check(op: str, dtype: str, out_dtype: str) -> tuple[str, str]:
    """The dtype in which elements are combined, and in C what is before the first. Errors are those of `generate`."""
    if op not in _CLASSES:
        raise ValueError(f"unknown scan {op!r}")
    if op == "logcumsumexp" and dtype not in INEXACT:
        raise TypeError(f"[logcumsumexp] no CUDA kernel for {dtype}; convert it to a floating dtype first.")
    sums_integers = op in ("cumsum", "cumprod") and dtype not in INEXACT
    if out_dtype != dtype and not (sums_integers and out_dtype in INTEGERS):
        raise ValueError(f"[{op}] of {dtype} cannot give {out_dtype}")
    # The least and greatest are those of the dtype, which may be narrower than the states.
    bound = {"cummax": "lowest", "cummin": "highest"}.get(op)
    first = f"{bound}<{compute(dtype)}>()" if bound else "Op::identity()"
    return _element(dtype, out_dtype, sums_integers), first


def _params(n_dims: int, dtype: str, out_dtype: str) -> Params:
    params = Params()
    params.dims(n_dims)
    params.add(("ptr", 0), f"const {storage(dtype)}* p0")
    params.add(("out", 0), f"{storage(out_dtype)}* __restrict__ q0")
    return params


def _element(dtype: str, out_dtype: str, sums_integers: bool) -> str:
    """The dtype in which elements are combined, of 4 bytes or more: states move between lanes as words."""
    if dtype in INEXACT:
        return "float32" if dtype in ("float16", "bfloat16") else dtype
    if sums_integers:
        return "uint64" if ITEMSIZE[out_dtype] == 8 else "uint32"
    if ITEMSIZE[dtype] == 8:
        return dtype
    return "int32" if dtype[0] == "i" else "uint32"


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Each op in each variant, in one dtype and direction of each (`full`: in all)."""
    flags = [(False, True), (True, True), (False, False), (True, False)]
    variants: tuple[Variant, ...] = ("warp", "block", "long")
    for k, op in enumerate(OPS):
        dtypes = [d for d in DTYPES if op != "logcumsumexp" or d in INEXACT]
        for m, variant in enumerate(variants):
            for i, dtype in enumerate(dtypes if full else [dtypes[(5 * k + 4 * m) % len(dtypes)]]):
                out = "int32" if op == "cumsum" and dtype == "bool" else dtype
                for reverse, inclusive in flags if full and i % 4 == 0 else [flags[(k + m + i) % 4]]:
                    yield generate(op, dtype, out, reverse=reverse, inclusive=inclusive, variant=variant)
        for i, dtype in enumerate(dtypes if full else [dtypes[(5 * k) % len(dtypes)]]):
            out = "int32" if op == "cumsum" and dtype == "bool" else dtype
            reverse, inclusive = flags[(k + i) % 4]
            yield generate_columns(op, dtype, out, reverse=reverse, inclusive=inclusive)
