"""Stable sorts of rows, NaN last: by one block a row, or as a fixed number of radix passes by many blocks.

The two zeros are equal. What is written are the elements themselves, so signs and NaN's bits are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .codegen import Params, define
from .kernel import KernelSource, Launch, Size
from .ops import DTYPES, ITEMSIZE, storage

THREADS = 256
CAPACITY = 2048  # elements that are sorted in shared memory
TILE = 4096  # kTile of sort.cuh
_SUM_THREADS = 1024
_TILES: Size = ("cdiv", "d1", TILE)

Variant = Literal["block", "device"]


@dataclass(frozen=True)
class Stage:
    """A kernel of a pipeline: its ("ptr", i) is `operands[i]`, its ("out", j) is `outputs[j]`.

    Each is ("operand", 0), ("output", 0) or ("temporary", t), t counting `Pipeline.temporaries`, and is contiguous. A
    stage without operands updates its output in place.
    """

    kernel: KernelSource
    operands: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Pipeline:
    """Kernels to run one after the other, each over dim 0, the rows, and dim 1, n; and the scratch memory they share.

    Attributes:
        stages: in order; each reads what the ones before it wrote.
        temporaries: bytes of each (a Size of d0 and d1), contents unspecified, 16-byte aligned: keys and indices, twice
            if the passes go from one pair to the other, and last a histogram.
    """

    stages: tuple[Stage, ...]
    temporaries: tuple[Size, ...]


def choose_variant(rows: int, n: int) -> Variant:
    """Which is fast for `rows` rows of n elements: "block", `generate_sort`, or "device", `generate_device_sort`.

    >>> choose_variant(1, 2048), choose_variant(1000, 5000), choose_variant(1, 5000)
    ('block', 'block', 'device')
    """
    return "block" if n <= CAPACITY or (rows >= 132 and n <= 1 << 16) else "device"


def generate_sort(dtype: str, indices: bool) -> KernelSource:
    """Each row of (rows, n) in ascending order, or the uint32 indices that put it in order.

    Any rows and n but 0. Parameters, in order: dim 0, the rows; dim 1, n; operand 0, contiguous; the output,
    contiguous; a workspace for rows of more than `CAPACITY` elements. Model: such a row is read and written once for
    each byte of an element, by one multiprocessor: rows side by side are fast, a single long one is not.

    Args:
        dtype: of the operand, not complex.
        indices: whether the output is the indices.

    Raises:
        TypeError: complex64, which has no order.

    >>> generate_sort("float32", False).launch.grid
    ('d0', 1, 1)
    """
    element, size = _element(dtype, indices), ITEMSIZE[dtype]
    params = _params([element], [_stored(dtype, indices)])
    is_long: Size = ("min", 1, ("div", "d1", CAPACITY + 1))
    scratch: Size = ("mul", ("mul", "d0", "d1"), 2 * (size + 4)) if size > 1 else 0
    params.add(("workspace", ("max", 16, ("mul", is_long, scratch))), "u8* workspace")
    flag = str(indices).lower()
    body = [
        f"using T = {element};",
        "const i64 row = blockIdx.x;",
        "// One or the other: as separate arrays they would be more than a block may have.",
        "union Memory {",
        f"    Elements<T>::type elements[{CAPACITY}];",
        "    RadixMemory radix;",
        "};",
        "__shared__ Memory memory;",
        f"if (d1 <= {CAPACITY}) {{",
        f"    sort_in_block<{flag}, {THREADS}>(p0 + row * d1, q0 + row * d1, int(d1), memory.elements);",
        "} else {",
        "    SortKey<T>* keys = reinterpret_cast<SortKey<T>*>(workspace);",
        "    u32* indices = reinterpret_cast<u32*>(keys + d0 * 2 * d1);",
        f"    radix_sort_row<{flag}>(memory.radix, p0 + row * d1, q0 + row * d1, keys + row * 2 * d1,",
        "                           indices + row * 2 * d1, d1);",
        "}",
    ]
    return _assemble(f"{_name(indices)}_{dtype}", params, body, THREADS, "d0")


def generate_device_sort(dtype: str, indices: bool) -> Pipeline:
    """What `generate_sort` does, by many blocks for each row: three stages for each byte of the dtype.

    A pass takes a digit of 8 bits, from the least significant one: tiles count their digits, the counts are summed,
    tiles place their elements. The number of stages does not depend on n, which may be up to 2^31. The parameters of
    each stage, in order: dim 0, the rows; dim 1, n; its operands; its outputs.

    Args:
        dtype: of the operand, not complex.
        indices: whether the output is the indices.

    Raises:
        TypeError: complex64, which has no order.

    >>> [len(generate_device_sort(d, False).stages) for d in ("bool", "float32")]
    [3, 12]
    """
    _element(dtype, indices)
    size = ITEMSIZE[dtype]
    elements: Size = ("mul", "d0", "d1")
    temporaries: list[Size] = []
    for _ in range(min(2, size - 1)):
        temporaries += [("mul", elements, size), ("mul", elements, 4)]
    temporaries.append(("mul", ("mul", "d0", _TILES), 256 * 4))
    histogram = ("temporary", len(temporaries) - 1)
    row = (("operand", 0),)
    stages: list[Stage] = []
    for number in range(size):
        is_first, is_last = number == 0, number == size - 1
        read, written = 2 * ((number + 1) % 2), 2 * (number % 2)
        before = () if is_first else (("temporary", read), ("temporary", read + 1))
        stages.append(Stage(_histogram_kernel(dtype, number), row if is_first else before[:1], (histogram,)))
        stages.append(Stage(_sum_kernel(), (), (histogram,)))
        operands = (histogram, *(row if is_first or (is_last and not indices) else ()), *before)
        outputs = (("output", 0),) if is_last else (("temporary", written), ("temporary", written + 1))
        stages.append(Stage(_scatter_kernel(dtype, indices, number), operands, outputs))
    return Pipeline(tuple(stages), tuple(temporaries))


def _name(indices: bool) -> str:
    return "argsort" if indices else "sort"


def _element(dtype: str, indices: bool) -> str:
    if dtype == "complex64" or dtype not in DTYPES:
        raise TypeError(f"[{_name(indices)}] no CUDA kernel for {dtype}: sort a real number of it, such as abs(a).")
    return storage(dtype)


def _stored(dtype: str, indices: bool) -> str:
    return "u32" if indices else storage(dtype)


def _params(operands: Sequence[str], outputs: Sequence[str]) -> Params:
    """Dims 0 and 1, and pointers, given by their C types."""
    params = Params()
    params.dims(2)
    for i, text in enumerate(operands):
        params.add(("ptr", i), f"const {text}* p{i}")
    for j, text in enumerate(outputs):
        params.add(("out", j), f"{text}* __restrict__ q{j}")
    return params


def _assemble(label: str, params: Params, body: Sequence[str], threads: int, grid: Size) -> KernelSource:
    return define(label, "sort.cuh", params, body, Launch((threads, 1, 1), (grid, 1, 1)))


_TILE_OF_ROW = (
    f"const i64 tiles = ceil_div(d1, {TILE});",
    "i64 row = blockIdx.x;",
    "const i64 tile = take_coordinate(row, tiles), start = row * d1;",
)


def _histogram_kernel(dtype: str, number: int) -> KernelSource:
    """Operand 0: the row in the first pass, else keys. Output 0: the histogram."""
    is_first, element = number == 0, storage(dtype)
    params = _params([element if is_first else f"SortKey<{element}>"], ["u32"])
    fields = "p0 + start, nullptr" if is_first else "nullptr, p0 + start"
    body = [
        *_TILE_OF_ROW,
        f"const Source<{element}, {str(is_first).lower()}> source{{{fields}, nullptr}};",
        f"histogram_tile(q0 + row * tiles * kDigits, source, tile, tiles, d1, {number});",
    ]
    return _assemble(f"sort_{dtype}_histogram_{number}", params, body, THREADS, ("mul", "d0", _TILES))


def _sum_kernel() -> KernelSource:
    """Output 0: the histogram, which is updated."""
    body = [
        f"const i64 total = ceil_div(d1, {TILE}) * kDigits;",
        f"sum_histogram<{_SUM_THREADS}>(q0 + blockIdx.x * total, total);",
    ]
    return _assemble("sort_sum", _params([], ["u32"]), body, _SUM_THREADS, "d0")


def _scatter_kernel(dtype: str, indices: bool, number: int) -> KernelSource:
    """Operands: the histogram; the row, in the first pass and in the last of a sort; keys and indices, but in the first
    pass. Outputs: the sorted row in the last pass, else keys and indices."""
    element = storage(dtype)
    is_first, is_last = number == 0, number == ITEMSIZE[dtype] - 1
    has_row = is_first or (is_last and not indices)
    key = f"SortKey<{element}>"
    operands = ["u32", *([element] if has_row else []), *([] if is_first else [key, "u32"])]
    params = _params(operands, [_stored(dtype, indices)] if is_last else [key, "u32"])
    at = len(operands) - 2
    fields = "p1 + start, nullptr, nullptr" if is_first else f"nullptr, p{at} + start, p{at + 1} + start"
    if not is_last:
        put = ["    q0[start + to] = key;", "    q1[start + to] = source.index(i);"]
    elif indices:
        put = ["    q0[start + to] = source.index(i);"]
    else:
        put = ["    q0[start + to] = p1[start + source.index(i)];"]
    body = [
        *_TILE_OF_ROW,
        f"const Source<{element}, {str(is_first).lower()}> source{{{fields}}};",
        "const u32* histogram = p0 + row * tiles * kDigits;",
        f"scatter_tile(histogram, source, tile, tiles, d1, {number}, [&](i64 i, {key} key, u32 to) {{",
        *put,
        "});",
    ]
    label = f"{_name(indices and is_last)}_{dtype}_scatter_{number}"
    return _assemble(label, params, body, THREADS, ("mul", "d0", _TILES))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Every dtype by one block; every size of element by many (`full`: every dtype, both outputs)."""
    names: set[str] = set()
    for k, dtype in enumerate(d for d in DTYPES if d != "complex64"):
        for indices in (False, True) if full else (bool(k % 2),):
            yield generate_sort(dtype, indices)
            if full or dtype in ("bool", "float16", "int32", "float64"):
                for stage in generate_device_sort(dtype, indices).stages:
                    if stage.kernel.name not in names:
                        names.add(stage.kernel.name)
                        yield stage.kernel
