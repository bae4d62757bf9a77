"""Stable sorts of rows, NaN last: short ones by lanes of a warp or by a block, others in radix passes by many blocks.

The two zeros are equal. What is written are the elements themselves, so signs and NaN's bits are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .codegen import Params, define
from .kernel import KernelSource, Launch, Size
from .ops import DTYPES, ITEMSIZE, storage
from .pipeline import Pipeline, Stage

# Threads and elements of a thread by how many elements are sorted in registers: by lanes for a row, or by a block.
LANES = {8: (2, 4), 16: (4, 4), 32: (8, 4), 64: (8, 8), 128: (16, 8), 256: (32, 8)}
BLOCKS = {1024: (256, 4), 2048: (256, 8), 4096: (256, 16), 8192: (512, 16)}
THREADS = 256  # of a block whose lanes sort rows
LONG_ITEMS = 4  # of a thread, where a block sorts a longer row than it has room for
TILE_THREADS = 256  # of a block that has a tile of a row
TILE_ITEMS = 16
REGISTERS_FOR = 768  # threads of a multiprocessor, where a thread has a tile's elements in registers
SUM_THREADS = 1024
SUM_COLUMNS = 8  # digits whose counts a block sums
FEW_TILES = 32  # of which a thread sums all counts of a digit


def choose_capacity(dtype: str, n: int) -> int | None:
    """Which is fast for rows of n elements: `generate_sort` of this capacity, or None: `generate_device_sort`.

    >>> choose_capacity("int8", 60), choose_capacity("float32", 5000), choose_capacity("float32", 9000)
    (64, 8192, None)
    """
    for capacity in (*LANES, *BLOCKS):
        if n <= capacity <= capacity_limit(dtype):
            return capacity
    return None


def capacity_limit(dtype: str) -> int:
    """The greatest capacity of `generate_sort`: a block's shared memory holds as many elements."""
    return 4096 if ITEMSIZE[dtype] == 8 else 8192


def generate_sort(dtype: str, indices: bool, capacity: int) -> KernelSource:
    """Each row of (rows, n) in ascending order, or the uint32 indices that put it in order.

    Any rows and n but 0; rows of more than `capacity` elements are sorted, too, each by one block in global memory,
    which is slow for few of them. Parameters, in order: dim 0, the rows; dim 1, n; operand 0, contiguous; the output,
    contiguous; a workspace for such rows.

    Args:
        dtype: of the operand, not complex.
        indices: whether the output is the indices.
        capacity: of `LANES` or `BLOCKS`, at most `capacity_limit(dtype)`.

    Raises:
        TypeError: complex64, which has no order.
        ValueError: there is no such capacity.

    >>> generate_sort("float32", False, 64).launch.grid
    (('cdiv', 'd0', 32), 1, 1)
    """
    element, size = _element(dtype, indices), ITEMSIZE[dtype]
    if capacity not in LANES and (capacity not in BLOCKS or capacity > capacity_limit(dtype)):
        raise ValueError(f"no sort of {dtype} has a capacity of {capacity}")
    params = _params([element], [_stored(dtype, indices)])
    is_long: Size = ("min", 1, ("div", "d1", capacity + 1))
    buffers = 0 if size == 1 else 2 if indices and size > 2 else 1
    scratch: Size = ("mul", ("mul", "d0", "d1"), buffers * size + (4 if indices else 0))
    params.add(("workspace", ("add", 16, ("mul", is_long, scratch))), "u8* workspace")
    flag = str(indices).lower()
    if capacity in LANES:
        lanes, items = LANES[capacity]
        threads, per_block = THREADS, THREADS // lanes
        body = [
            f"constexpr int kRows = {per_block};",
            f"__shared__ TileMemory<{threads}, {LONG_ITEMS}, {element}, {flag}> memory;",
            "const i64 first = i64(blockIdx.x) * kRows;",
            f"if (d1 <= {capacity}) {{",
            f"    const i64 row = first + threadIdx.x / {lanes};",
            "    const i64 start = row < d0 ? row * d1 : 0;",
            f"    sort_row_in_lanes<{flag}, {lanes}, {items}>(p0 + start, q0 + start, row < d0 ? int(d1) : 0);",
            "} else {",
            "    for (i64 row = first; row < min_i64(d0, first + kRows); ++row) {",
            f"        sort_long_row<{flag}>(memory, p0, q0, workspace, row, d0, d1);",
            "    }",
            "}",
        ]
        grid: Size = ("cdiv", "d0", per_block)
    else:
        threads, items = BLOCKS[capacity]
        body = [
            "// One or the other: as separate arrays they would be more than a block may have.",
            "union Memory {",
            f"    TileMemory<{threads}, {items}, {element}, {flag}> row;",
            f"    TileMemory<{threads}, {LONG_ITEMS}, {element}, {flag}> part;",
            "};",
            "__shared__ Memory memory;",
            "const i64 row = blockIdx.x;",
            f"if (d1 <= {capacity}) {{",
            "    sort_short_row(memory.row, p0 + row * d1, q0 + row * d1, int(d1));",
            "} else {",
            f"    sort_long_row<{flag}>(memory.part, p0, q0, workspace, row, d0, d1);",
            "}",
        ]
        grid = "d0"
    return _assemble(f"{_name(indices)}_{dtype}_{capacity}", params, body, threads, grid, many=capacity in BLOCKS)


def generate_device_sort(dtype: str, indices: bool, few_tiles: bool = False) -> Pipeline:
    """What `generate_sort` does, by many blocks for each row: three stages for each byte of the dtype.

    A pass takes a digit of 8 bits, from the least significant one: tiles count their digits, the counts are summed,
    tiles place their elements. The number of stages does not depend on n, which may be up to 2^31. The parameters of
    each stage, in order: dim 0, the rows; dim 1, n; its operands; its outputs; the number of the pass.

    Args:
        dtype: of the operand, not complex.
        indices: whether the output is the indices.
        few_tiles: whether it is for rows of `FEW_TILES` tiles at most, which only its speed depends on.

    Raises:
        TypeError: complex64, which has no order.

    >>> [len(generate_device_sort(d, False).stages) for d in ("bool", "float32")]
    [3, 12]
    """
    _element(dtype, indices)
    size = ITEMSIZE[dtype]
    elements: Size = ("mul", "d0", "d1")
    tiles: Size = ("mul", "d0", ("cdiv", "d1", tile_size(dtype)))
    temporaries: list[Size] = []

    def temporary(nbytes: Size) -> tuple[str, int]:
        temporaries.append(nbytes)
        return "temporary", len(temporaries) - 1

    histogram, totals = temporary(("mul", tiles, 256 * 4)), temporary(("mul", "d0", 256 * 4))
    row, out = ("operand", 0), ("output", 0)
    # Passes write by turns to one and the other, so that the last one writes the output.
    if size == 1:
        sorted_into = index_into = (out, out)
    elif indices:
        buffers = [temporary(("mul", elements, size)) for _ in range(min(2, size - 1))]
        sorted_into = (buffers[0], buffers[-1])
        index_into = (temporary(("mul", elements, 4)), out)
    else:
        sorted_into = index_into = (temporary(("mul", elements, size)), out)
    stages: list[Stage] = []
    from_elements, from_indices = row, None
    for number in range(size):
        is_first, is_last = number == 0, number == size - 1
        to_elements, to_indices = sorted_into[number % 2], index_into[number % 2]
        stages.append(Stage(_histogram_kernel(dtype), (from_elements,), (histogram,), number=number))
        stages.append(Stage(_sum_kernel(dtype, few_tiles), (), (histogram, totals), (histogram,)))
        operands = [histogram, totals, from_elements]
        outputs = [to_elements] if not indices or not is_last else []
        if indices:
            operands += [] if from_indices is None else [from_indices]
            outputs += [to_indices]
        kernel = _scatter_kernel(dtype, indices, not indices or is_first, not indices or is_last)
        stages.append(Stage(kernel, tuple(operands), tuple(outputs), number=number))
        from_elements, from_indices = to_elements, to_indices
    return Pipeline(tuple(stages), tuple(temporaries))


def tile_size(dtype: str) -> int:
    """Elements of a row that a block of `generate_device_sort` takes."""
    return TILE_THREADS * _tile_items(dtype)


def has_few_tiles(dtype: str, n: int) -> bool:
    """Whether rows of n elements are for `few_tiles`.

    >>> has_few_tiles("float32", 20_000), has_few_tiles("float32", 10_000_000)
    (True, False)
    """
    return n <= FEW_TILES * tile_size(dtype)


def _tile_items(dtype: str) -> int:
    return min(TILE_ITEMS, TILE_ITEMS * 4 // ITEMSIZE[dtype])


def _name(indices: bool) -> str:
    return "argsort" if indices else "sort"


def _element(dtype: str, indices: bool) -> str:
    if dtype == "complex64" or dtype not in DTYPES:
        raise TypeError(f"[{_name(indices)}] no CUDA kernel for {dtype}: sort a real number of it, such as abs(a).")
    return storage(dtype)


def _stored(dtype: str, indices: bool) -> str:
    return "u32" if indices else storage(dtype)


def _params(operands: Sequence[str], outputs: Sequence[str], is_pass: bool = False) -> Params:
    """Dims 0 and 1, and pointers, given by their C types; for a pass its number."""
    params = Params()
    params.dims(2)
    for i, text in enumerate(operands):
        params.add(("ptr", i), f"const {text}* p{i}")
    for j, text in enumerate(outputs):
        params.add(("out", j), f"{text}* __restrict__ q{j}")
    if is_pass:
        params.add(("int", 0), "i64 n0")
    return params


def _assemble(
    label: str, params: Params, body: Sequence[str], threads: int, grid: Size, many: bool = False
) -> KernelSource:
    together = max(1, REGISTERS_FOR // threads) if many else 1
    return define(label, "sort.cuh", params, body, Launch((threads, 1, 1), (grid, 1, 1)), together=together)


def _tile_of_row(dtype: str) -> list[str]:
    return [
        f"const i64 tiles = ceil_div(d1, {tile_size(dtype)});",
        "i64 row = blockIdx.x;",
        "const i64 tile = take_coordinate(row, tiles), start = row * d1;",
    ]


def _tile_grid(dtype: str) -> Size:
    return ("mul", "d0", ("cdiv", "d1", tile_size(dtype)))


def _histogram_kernel(dtype: str) -> KernelSource:
    """Operand 0: elements. Output 0: the histogram."""
    params = _params([storage(dtype)], ["u32"], is_pass=True)
    body = [
        *_tile_of_row(dtype),
        f"histogram_tile<{TILE_THREADS}, {tile_size(dtype)}>"
        "(q0 + row * tiles * kDigits, p0 + start, tile, d1, int(n0) * kDigitBits);",
    ]
    return _assemble(f"sort_{dtype}_histogram", params, body, TILE_THREADS, _tile_grid(dtype))


def _sum_kernel(dtype: str, few_tiles: bool) -> KernelSource:
    """Outputs: the histogram, which is updated, and the totals."""
    threads, columns = (256, 256) if few_tiles else (SUM_THREADS, SUM_COLUMNS)
    blocks = 256 // columns
    body = [
        f"const i64 tiles = ceil_div(d1, {tile_size(dtype)}), row = blockIdx.x / {blocks};",
        f"sum_histogram<{threads}, {columns}>"
        f"(q0 + row * tiles * kDigits, q1 + row * kDigits, blockIdx.x % {blocks} * {columns}, tiles);",
    ]
    grid: Size = ("mul", "d0", blocks) if blocks > 1 else "d0"
    return _assemble(f"sort_sum_{threads // columns}", _params([], ["u32", "u32"]), body, threads, grid)


def _scatter_kernel(dtype: str, indices: bool, is_first: bool, is_last: bool) -> KernelSource:
    """Operands: the histogram, the totals, elements and, in other passes of an argsort than the first, indices.
    Outputs: elements, but in the last pass of an argsort, and indices."""
    element = storage(dtype)
    reads_indices, writes_elements = indices and not is_first, not indices or not is_last
    operands = ["u32", "u32", element, *(["u32"] if reads_indices else [])]
    outputs = [*([element] if writes_elements else []), *(["u32"] if indices else [])]
    params = _params(operands, outputs, is_pass=True)
    from_indices = "p3 + start" if reads_indices else "nullptr"
    to = "q0 + start" if writes_elements else f"static_cast<{element}*>(nullptr)"
    to_indices = f"q{len(outputs) - 1} + start" if indices else "nullptr"
    body = [
        *_tile_of_row(dtype),
        f"scatter_by_histogram<{TILE_THREADS}, {_tile_items(dtype)}, {str(indices).lower()}>"
        "(p0 + row * tiles * kDigits, p1 + row * kDigits,",
        f"    p2 + start, {from_indices}, {to}, {to_indices}, tile, d1, int(n0) * kDigitBits);",
    ]
    place = f"{'_first' if is_first else ''}{'_last' if is_last else ''}" if indices else ""
    label = f"{_name(indices)}_{dtype}_scatter{place}"
    return _assemble(label, params, body, TILE_THREADS, _tile_grid(dtype), many=True)


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Every dtype in some capacity; every size of element by many blocks (`full`: every dtype, capacity and output)."""
    names: set[str] = set()
    capacities = (*LANES, *BLOCKS)
    for k, dtype in enumerate(d for d in DTYPES if d != "complex64"):
        possible = [c for c in capacities if c <= capacity_limit(dtype)]
        for indices in (False, True) if full else (bool(k % 2),):
            for capacity in possible if full else (possible[k % len(possible)],):
                yield generate_sort(dtype, indices, capacity)
            if full or dtype in ("bool", "float16", "int32", "float64"):
                for stage in generate_device_sort(dtype, indices, few_tiles=k % 2 == 0).stages:
                    if stage.kernel.name not in names:
                        names.add(stage.kernel.name)
                        yield stage.kernel
