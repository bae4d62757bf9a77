"""The k greatest elements of rows, or their indices, in the order in which they lie there; of equal ones the last.

Elements are ordered as `sort` orders them: NaN is the greatest. Nothing depends on timing or on the variant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from .codegen import Params, define
from .kernel import KernelSource, Launch, Size
from .ops import DTYPES, ITEMSIZE, storage
from .pipeline import Pipeline, Stage
from .sort import LANES
from .target import target

# Rows by lanes, by a block of few or many threads, or by many blocks.
Variant = Literal["lanes 8", "lanes 16", "lanes 32", "lanes 64", "lanes 128", "lanes 256", "short", "long", "device"]

BLOCK_THREADS = {"short": 256, "long": 1024}
_LANES: tuple[Variant, ...] = ("lanes 8", "lanes 16", "lanes 32", "lanes 64", "lanes 128", "lanes 256")
VARIANTS: tuple[Variant, ...] = (*_LANES, "short", "long")
_LANE_THREADS = 256
_PART = 8192  # elements that one of many blocks takes
_PART_THREADS = 256
_BIN_BITS = 11  # kBinBits of select.cuh
_BINS = 1 << _BIN_BITS
_THRESHOLD = 24  # bytes of a Threshold


def choose_variant(rows: int, n: int) -> Variant:
    """Which is fast for `rows` rows of n elements; any is correct for any.

    >>> choose_variant(1000, 60), choose_variant(1000, 30_000), choose_variant(1, 1_000_000)
    ('lanes 64', 'long', 'device')
    """
    for capacity, variant in zip(LANES, _LANES, strict=True):
        if n <= capacity:
            return variant
    if n > _PART and rows * 2 < target.multiprocessors:
        return "device"
    return "short" if n <= 4096 else "long"


def generate_top(dtype: str, indices: bool, variant: Variant) -> KernelSource:
    """The k greatest of each row of (rows, n), as (rows, k), or their uint32 indices.

    Any rows and n, and k from 1 to n. Parameters, in order: dim 0, the rows; dim 1, n; dim 2, k; operand 0, contiguous;
    the output, contiguous.

    Args:
        dtype: of the operand, not complex.
        indices: whether the output is the indices.
        variant: of `VARIANTS`: not "device".

    Raises:
        TypeError: complex64, which has no order.
        ValueError: there is no such variant.

    >>> generate_top("float32", False, "long").launch
    Launch(block=(1024, 1, 1), grid=('d0', 1, 1), shared=0, cluster=1)
    """
    element = _element(dtype, indices)
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}")
    params = _params([element], [_stored(dtype, indices)])
    flag = str(indices).lower()
    threads = BLOCK_THREADS.get(variant, _LANE_THREADS)
    body = [
        f"__shared__ SelectMemory<{threads}> memory;",
        "__shared__ u32 bins[kBins];",
    ]
    if variant in BLOCK_THREADS:
        body += [
            "const i64 row = blockIdx.x;",
            f"select_row<{threads}, {flag}>(memory, bins, p0 + row * d1, q0 + row * d2, d1, d2);",
        ]
        grid: Size = "d0"
    else:
        capacity = int(variant.split()[1])
        lanes, items = LANES[capacity]
        per_block = threads // lanes
        body += [
            f"constexpr int kRows = {per_block};",
            "const i64 first = i64(blockIdx.x) * kRows;",
            f"if (d1 <= {capacity}) {{",
            f"    const i64 row = first + threadIdx.x / {lanes}, at = row < d0 ? row : 0;",
            "    const int n = row < d0 ? int(d1) : 0;",
            f"    select_in_lanes<{flag}, {lanes}, {items}>(p0 + at * d1, q0 + at * d2, n, int(d2));",
            "} else {",
            "    for (i64 row = first; row < min_i64(d0, first + kRows); ++row) {",
            f"        select_row<{threads}, {flag}>(memory, bins, p0 + row * d1, q0 + row * d2, d1, d2);",
            "    }",
            "}",
        ]
        grid = ("cdiv", "d0", per_block)
    return _assemble(f"{_name(indices)}_{dtype}_{variant}", params, body, threads, grid)


def generate_device_top(dtype: str, indices: bool) -> Pipeline:
    """What `generate_top` does, by many blocks for each row.

    Bins are cleared; each pass counts 11 bits of the keys in them; then every part of a row counts what it has of the
    selected elements, and writes them. The parameters of each stage, in order: dims 0 to 2, the rows, n and k; its
    operands; its outputs; the number of the pass.

    Args:
        dtype: of the operand, not complex.
        indices: whether the output is the indices.

    Raises:
        TypeError: complex64, which has no order.

    >>> len(generate_device_top("float32", False).stages)
    6
    """
    element = _element(dtype, indices)
    passes = -(-8 * ITEMSIZE[dtype] // _BIN_BITS)
    bins, thresholds, counted = (("temporary", t) for t in range(3))
    temporaries: tuple[Size, ...] = (
        ("mul", "d0", passes * _BINS * 4),
        ("mul", "d0", (passes + 1) * _THRESHOLD),
        ("mul", _parts(), 8),
    )
    row, out = ("operand", 0), ("output", 0)
    flag = str(indices).lower()
    part = [
        f"const i64 parts = ceil_div(d1, {_PART});",
        "i64 row = blockIdx.x;",
        "const i64 part = take_coordinate(row, parts);",
        f"const i64 begin = part * {_PART}, end = min_i64(d1, begin + {_PART});",
    ]
    of_row = (f"row * {passes * _BINS}", f"row * {passes + 1}", "row * parts")

    def stage(what: str, operands: Sequence[str], outputs: Sequence[str], body: Sequence[str]) -> KernelSource:
        params = _params(operands, outputs)
        params.add(("int", 0), "i64 n0")
        label = f"{_name(indices)}_{dtype}_{what}"
        return _assemble(label, params, [*part, *body], _PART_THREADS, _parts())

    clear = _assemble(
        f"clear_bins_{passes}",
        _params([], ["u32"]),
        [f"for (int i = threadIdx.x; i < {_BINS}; i += {_PART_THREADS}) q0[i64(blockIdx.x) * {_BINS} + i] = 0;"],
        _PART_THREADS,
        ("mul", "d0", passes),
    )
    count = stage(
        "count",
        [element],
        ["u32", "Threshold"],
        [
            f"count_part<{_PART_THREADS}>(q0 + {of_row[0]}, q1 + {of_row[1]}, p0 + row * d1, part, begin, end, d2,",
            "    int(n0));",
        ],
    )
    count_selected = stage(
        "count_selected",
        [element, "u32"],
        ["Threshold", "Counted"],
        [
            f"count_selected_of_part<{_PART_THREADS}>(p1 + {of_row[0]}, q0 + {of_row[1]}, q1 + {of_row[2]},",
            "    p0 + row * d1, part, begin, end, d2);",
        ],
    )
    write = stage(
        "write",
        [element, "Threshold", "Counted"],
        [_stored(dtype, indices)],
        [
            f"write_part<{_PART_THREADS}, {flag}>(p1 + {of_row[1]}, p2 + {of_row[2]}, p0 + row * d1, q0 + row * d2,",
            "    part, begin, end);",
        ],
    )
    stages = [Stage(clear, (), (bins,))]
    for number in range(passes):
        stages.append(Stage(count, (row,), (bins, thresholds), (bins, thresholds) if number else (bins,), number))
    stages.append(Stage(count_selected, (row, bins), (thresholds, counted), (thresholds,)))
    stages.append(Stage(write, (row, thresholds, counted), (out,)))
    return Pipeline(tuple(stages), temporaries)


def _parts() -> Size:
    """Parts of all rows."""
    return ("mul", "d0", ("cdiv", "d1", _PART))


def _name(indices: bool) -> str:
    return "argtopk" if indices else "topk"


def _element(dtype: str, indices: bool) -> str:
    if dtype == "complex64" or dtype not in DTYPES:
        raise TypeError(f"[{_name(indices)}] no CUDA kernel for {dtype}: take those of a real number, such as abs(a).")
    return storage(dtype)


def _stored(dtype: str, indices: bool) -> str:
    return "u32" if indices else storage(dtype)


def _params(operands: Sequence[str], outputs: Sequence[str]) -> Params:
    """Dims 0 to 2, and pointers, given by their C types."""
    params = Params()
    params.dims(3)
    for i, text in enumerate(operands):
        params.add(("ptr", i), f"const {text}* p{i}")
    for j, text in enumerate(outputs):
        params.add(("out", j), f"{text}* __restrict__ q{j}")
    return params


def _assemble(label: str, params: Params, body: Sequence[str], threads: int, grid: Size) -> KernelSource:
    return define(label, "select.cuh", params, body, Launch((threads, 1, 1), (grid, 1, 1)))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Every dtype in some variant; by many blocks, some dtypes (`full`: every dtype, variant and output)."""
    names: set[str] = set()
    for k, dtype in enumerate(d for d in DTYPES if d != "complex64"):
        for indices in (False, True) if full else (bool(k % 2),):
            for variant in VARIANTS if full else (VARIANTS[k % len(VARIANTS)],):
                yield generate_top(dtype, indices, variant)
            if full or dtype in ("bool", "float16", "int32", "float64"):
                for stage in generate_device_top(dtype, indices).stages:
                    if stage.kernel.name not in names:
                        names.add(stage.kernel.name)
                        yield stage.kernel
