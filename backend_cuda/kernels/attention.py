"""Attention kernels of our own: `generate_decode` for few queries over many keys, `generate_rows` for anything.

Loop dims: 0 batch, 1 query head, 2 query, 3 key. q, k and v are contiguous along features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from .codegen import Params, define
from .kernel import KernelSource, Launch, Size, product
from .ops import ITEMSIZE, storage
from .target import target

Mask = Literal["none", "bool", "additive", "causal"]
MASKS: tuple[Mask, ...] = ("none", "bool", "additive", "causal")

DECODE_DTYPES = ("bfloat16", "float16", "float32")
ROWS_DTYPES = (*DECODE_DTYPES, "float64")
MAX_HEAD_DIM = 512
_WORKING_SHARED = 47 << 10  # of a block without tensor cores: four of them find room on a multiprocessor
_WORTH_A_CLUSTER = 1024  # keys of a block, for another cluster to be worth what meeting in memory takes
# Elements of a head's keys from which on small clusters are faster (H100): of 8 heads of 128 features with 12,288 keys
# 29.2 us for 40.9, and as long with 8,192; of 64 features with 24,576 keys 26.8 for 27.8, with 16,384 29.8 for 21.4; of
# 2 heads of 128 features with 16,384 keys 23.3 for 24.8.
_LONG = 12288 * 128
_MMA_KEYS = 16
_ROW_REGISTERS = 72  # floats of queries, and as many of sums, that a thread holds


@dataclass(frozen=True)
class DecodeVariant:
    """How decoding is cut up.

    Attributes:
        heads: of those that share a key, how many a block takes; it reads the keys once for them all.
        threads: of a block.
        keys: taken by a thread at a time; by a warp, 16, with tensor cores.
        stages: such times in flight, and one more being used.
        blocks: that a long row of keys is split over, for the whole grid.
        cluster: blocks that add up what they found in shared memory, a power of two up to 8; a row is split over one
            cluster, or over several if it is very long. Where there are no clusters, memory serves.
        tensor_cores: for 16-bit floats, up to 16 rows, and head dims that are multiples of 16.
    """

    heads: int
    threads: int = 128
    keys: int = 2
    stages: int = 4
    blocks: int = 264
    cluster: int = 1
    tensor_cores: bool = False


def _lanes(dtype: str, head_dim: int, value_dim: int) -> tuple[int, int, int]:
    """Threads that share a key, and chunks of 16 bytes of the key and of the value that each takes."""
    width = 16 // ITEMSIZE[dtype]
    key, value = -(-head_dim // width), -(-value_dim // width)
    lanes = min(32, 1 << (max(key, value) - 1).bit_length())
    return lanes, -(-key // lanes), -(-value // lanes)


def _shared_bytes(dtype: str, head_dim: int, value_dim: int, rows: int, variant: DecodeVariant) -> int:
    """What DecodeShape and MmaShape ask for: kSharedBytes."""
    slices = -(-rows * value_dim // variant.cluster) + 2 * rows
    inbox = -(-variant.cluster * slices * 4 // 16) * 16 if variant.cluster > 1 else 0
    return _working_bytes(dtype, head_dim, value_dim, rows, variant) + inbox


def _working_bytes(dtype: str, head_dim: int, value_dim: int, rows: int, variant: DecodeVariant) -> int:
    """What they use before the blocks of a cluster meet: kInboxAt."""
    if variant.tensor_cores:
        ring = variant.threads // 32 * variant.stages * _MMA_KEYS * (head_dim // 8 + value_dim // 8 + 2) * 16
        ring += rows * (head_dim // 8 + 1) * 16
    else:
        _, c, cv = _lanes(dtype, head_dim, value_dim)
        ring = variant.keys * (c + cv) * variant.stages * variant.threads * 16
    stride = value_dim + 8 if variant.tensor_cores else value_dim
    sums = rows * (variant.threads // 32 * (stride + 2) + 2) * 4
    copies = 2048 if rows <= 12 else 1024
    splits = -(-rows * _most_splits(variant) * 4 // 16) * 16
    splits += max(2, copies // variant.threads) * variant.threads * 16
    return max(ring, sums, splits) // 16 * 16 + 16


def _most_splits(variant: DecodeVariant) -> int:
    return max(variant.blocks, variant.cluster)


def choose_decode_variant(
    dtype: str, head_dim: int, value_dim: int, group: int, queries: int = 1, kv_heads: int = 8, n_keys: int = 2048
) -> DecodeVariant:
    """A fast variant where the batch has `kv_heads` heads of so many keys in all; any is correct.

    >>> choose_decode_variant("bfloat16", 128, 128, 4)
    DecodeVariant(heads=4, threads=256, keys=16, stages=2, blocks=132, cluster=8, tensor_cores=True)
    """

    def with_cluster(variant: DecodeVariant) -> DecodeVariant:
        tiles = kv_heads * -(-group // variant.heads)
        cluster = target.max_cluster
        while cluster > 1 and tiles * cluster > 2 * target.multiprocessors:
            cluster //= 2
        if n_keys * head_dim >= _LONG and variant.tensor_cores and cluster > 2:
            # Small clusters on every multiprocessor: where each has that much to read, meeting in memory is cheap.
            return replace(variant, blocks=target.multiprocessors, cluster=2)
        blocks = 2 * target.multiprocessors * 128 // max(variant.threads, 128)
        return replace(variant, blocks=blocks, cluster=cluster)

    most = 16 // queries
    if ITEMSIZE[dtype] == 2 and head_dim % 16 == value_dim % 16 == 0 and max(head_dim, value_dim) <= 128 and most:
        heads = -(-group // -(-group // most))
        # Of small heads, shared memory has room for more warps: a block takes its keys in fewer turns.
        threads = 384 if head_dim + value_dim <= 128 else 256
        while True:
            variant = with_cluster(DecodeVariant(heads, threads, _MMA_KEYS, 2, tensor_cores=True))
            if threads == 32 or _shared_bytes(dtype, head_dim, value_dim, heads * queries, variant) <= target.shared:
                return variant
            threads = threads // 64 * 32
    _, c, cv = _lanes(dtype, head_dim, value_dim)
    most = max(1, _ROW_REGISTERS // (max(c, cv) * (16 // ITEMSIZE[dtype]) * queries))
    heads = -(-group // -(-group // most))
    rows = heads * queries
    # One row is a chain of dependent steps, so two keys go side by side; several rows are side by side already.
    threads, keys = (256, 2) if rows <= 2 else (512, 1)
    while True:
        stage = keys * (c + cv) * threads * 16
        variant = with_cluster(DecodeVariant(heads, threads, keys, max(2, min(6, (40 << 10) // stage))))
        if threads == 32 or _working_bytes(dtype, head_dim, value_dim, rows, variant) <= _WORKING_SHARED:
            return variant
        threads //= 2


def generate_decode(
    dtype: str,
    head_dim: int,
    value_dim: int,
    group: int,
    mask: Mask = "none",
    has_sinks: bool = False,
    *,
    queries: int = 1,
    mask_dtype: str | None = None,
    variant: DecodeVariant | None = None,
) -> KernelSource:
    """softmax(scale * q @ k.T + mask) @ v for few queries, reading keys and values once.

    q is (B, H, Tq, head_dim), k (B, H / group, Tk, head_dim), v (B, H / group, Tk, value_dim), the result
    (B, H, Tq, value_dim); at least one key. Computed in float. One kernel: the keys are split over blocks, of which the
    last to finish adds up what they found.

    Parameters, in order: dims 0, 1, 2 (if queries > 1) and 3; operand 0, q, with strides along dims 0, 1 and 2; operand
    1, k, and 2, v, with strides along dims 0, 1 (from one of *their* heads to the next) and 3; if mask is "bool" or
    "additive", operand 3, the mask, with strides along dims 0 to 3; if has_sinks, the next operand, H contiguous
    logits; output 0, contiguous along features, with strides along dims 0, 1 and 2; scalar 0, the scale, f32;
    workspace; counters. With queries = 1 there are no strides along dim 2.

    Args:
        dtype: of q, k, v, sinks and the result: bfloat16, float16 or float32.
        head_dim: features of q and k, at most 512.
        value_dim: features of v, at most 512.
        group: query heads for each head of k and v.
        mask: "causal" lets query i see keys up to i + Tk - Tq. A query that sees no key gets the average of all.
        has_sinks: whether a logit for each head is added to the denominator.
        queries: taken at a time. 1 means that Tq is 1; otherwise it is any number at run time.
        mask_dtype: of an additive mask; `dtype` if None.
        variant: from `choose_decode_variant`.

    Raises:
        TypeError: the dtype has no such kernel.
        ValueError: a number makes no sense, or the variant needs more shared memory than there is.

    >>> generate_decode("bfloat16", 64, 64, 3).launch.block
    (384, 1, 1)
    """
    if dtype not in DECODE_DTYPES:
        raise TypeError(f"[scaled_dot_product_attention] no CUDA decoding kernel for {dtype}; use {DECODE_DTYPES}.")
    _check(head_dim, value_dim, mask)
    if group < 1 or queries < 1:
        raise ValueError(f"a group has heads and a tile has queries, not {group} and {queries}")
    variant = variant or choose_decode_variant(dtype, head_dim, value_dim, group, queries)
    rows = variant.heads * queries
    if variant.cluster not in (1, 2, 4, 8):
        raise ValueError(f"a cluster is 1, 2, 4 or 8 blocks: {variant}")
    if variant.tensor_cores and (
        ITEMSIZE[dtype] != 2 or head_dim % 16 or value_dim % 16 or rows > 16 or variant.keys != _MMA_KEYS
    ):
        raise ValueError(
            f"tensor cores take 16-bit floats, multiples of 16 features, up to 16 rows, 16 keys: {variant}"
        )
    if variant.threads % 32 or not 32 <= variant.threads <= 1024 or variant.keys < 1 or variant.stages < 2:
        raise ValueError(f"a block is whole warps, with 2 stages or more: {variant}")
    shared = _shared_bytes(dtype, head_dim, value_dim, rows, variant)
    if shared > target.shared:
        raise ValueError(f"{shared} bytes of shared memory are more than the {target.shared} of a block: {variant}")

    parts = -(-group // variant.heads)
    kv_heads: Size = ("cdiv", "d1", group)  # exact
    tiles = product(
        ["d0", kv_heads] + ([parts] if parts > 1 else []) + ([("cdiv", "d2", queries)] if queries > 1 else [])
    )
    lanes, _, _ = _lanes(dtype, head_dim, value_dim)
    step = _MMA_KEYS if variant.tensor_cores else variant.threads // lanes * variant.keys
    # Splits that are not of one cluster meet in memory, which takes as long as hundreds of keys do.
    worth = max(64, step) if variant.cluster == 1 else max(_WORTH_A_CLUSTER, step) * variant.cluster
    room: Size = ("div", variant.blocks, ("mul", tiles, variant.cluster))
    clusters: Size = ("max", 1, ("min", room, ("cdiv", "d3", worth)))
    splits: Size = ("mul", variant.cluster, clusters)

    params = _attention_params(dtype, mask, mask_dtype or dtype, has_sinks, one_query=queries == 1)
    part_bytes = (rows * (value_dim + 2) + 3) // 4 * 16
    is_split: Size = ("min", 1, ("sub", splits, 1))
    params.add(
        ("workspace", ("max", 16, ("mul", is_split, ("mul", ("mul", tiles, splits), part_bytes)))), "f32* workspace"
    )
    params.add(("counters", variant.blocks), "u32* counters")  # of tiles that are split over several clusters
    sinks = 3 + (mask in ("bool", "additive"))
    sink = f"to_compute(p{sinks}[head_of(r)]) * kLog2e" if has_sinks else "-float_infinity()"
    row_strides = "" if queries == 1 else " + query_of(r) * t0_2"
    most = _most_splits(variant)
    part = "decode_part_mma" if variant.tensor_cores else "decode_part"
    shape = f"{storage(dtype)}, {head_dim}, {value_dim}, {rows}, {variant.threads}"
    if variant.tensor_cores:
        shape = f"MmaShape<{shape}, {variant.stages}, {most}, {variant.cluster}>"
    else:
        shape = f"DecodeShape<{shape}, {variant.keys}, {variant.stages}, {most}, {variant.cluster}>"
    body = [
        f"using S = {shape};",
        f"static_assert(S::kSharedBytes == {shared});",
        "DYNAMIC_SHARED(memory, S::kSharedBytes);",
        "if constexpr (S::kCluster > 1) cluster_arrive();",
        f"const i64 n_queries = {'1' if queries == 1 else 'd2'};",
        "i64 tile = blockIdx.x;",
        f"const i64 first_head = {f'take_coordinate(tile, {parts}) * {variant.heads}' if parts > 1 else '0'};",
        f"const i64 first_query = "
        f"{'0' if queries == 1 else f'take_coordinate(tile, ceil_div(n_queries, {queries})) * {queries}'};",
        f"const i64 kv_head = take_coordinate(tile, d1 / {group});",
        "const i64 batch = tile;",
        "auto head_of = [&](int r) {",
        f"    return kv_head * {group} + min_i64(first_head + r / {queries}, {group - 1});",
        "};",
        f"auto query_of = [&](int r) {{ return min_i64(first_query + r % {queries}, n_queries - 1); }};",
        f"auto query = [&](int r) {{ return p0 + batch * t0_0 + head_of(r) * t0_1{row_strides}; }};",
        "auto adjust = [&](int r, i64 key, float score) {",
        f"    {_adjust(mask, 'head_of(r)', 'query_of(r)', one_query=queries == 1)}",
        "};",
        f"auto sink = [&](int r) {{ return {sink}; }};",
        "auto store = [&](int r, int feature, float value) {",
        f"    if (first_head + r / {queries} >= {group} || first_query + r % {queries} >= n_queries) return;",
        f"    q0[batch * u0_0 + head_of(r) * u0_1{'' if queries == 1 else ' + query_of(r) * u0_2'} + feature] = "
        f"from_compute<{storage(dtype)}>(value);",
        "};",
        "const i64 splits = gridDim.y;",
        f"const i64 per_split = ceil_div(ceil_div(d3, splits), {step}) * {step};",
        "const i64 begin = min_i64(d3, blockIdx.y * per_split), end = min_i64(d3, begin + per_split);",
        f"const auto part = {part}<S>(memory, query, s0_f32 * kLog2e, p1 + batch * t1_0 + kv_head * t1_1, t1_3, "
        "p2 + batch * t2_0 + kv_head * t2_1, t2_3, begin, end, adjust);",
        "decode_finish<S>(memory, part, workspace, counters + blockIdx.x, blockIdx.x, u32(splits), sink, store);",
    ]
    label = f"decode_{dtype}_{head_dim}_{value_dim}_{mask}" + ("_sinks" if has_sinks else "")
    label += "_mma" if variant.tensor_cores else ""
    launch = Launch((variant.threads, 1, 1), (tiles, splits, 1), shared, variant.cluster)
    header = "attention_mma.cuh" if variant.tensor_cores else "attention.cuh"
    return define(label, header, params, body, launch)


def _check(head_dim: int, value_dim: int, mask: str) -> None:
    if not 1 <= head_dim <= MAX_HEAD_DIM or not 1 <= value_dim <= MAX_HEAD_DIM:
        raise ValueError(f"head dims are 1 to {MAX_HEAD_DIM}, not {head_dim} and {value_dim}")
    if mask not in MASKS:
        raise ValueError(f"unknown mask {mask!r}")


def _attention_params(dtype: str, mask: str, mask_dtype: str, has_sinks: bool, *, one_query: bool) -> Params:
    params = Params()
    for d in (0, 1, 3) if one_query else (0, 1, 2, 3):
        params.add(("dim", d), f"i64 d{d}")
    arrays: list[tuple[str, tuple[int, ...]]] = [
        (dtype, (0, 1) if one_query else (0, 1, 2)),
        (dtype, (0, 1, 3)),
        (dtype, (0, 1, 3)),
    ]
    if mask in ("bool", "additive"):
        arrays.append(("bool" if mask == "bool" else mask_dtype, (0, 1, 3) if one_query else (0, 1, 2, 3)))
    if has_sinks:
        arrays.append((dtype, ()))
    for i, (array_dtype, strides) in enumerate(arrays):
        params.add(("ptr", i), f"const {storage(array_dtype)}* p{i}")
        for d in strides:
            params.add(("stride", i, d), f"i64 t{i}_{d}")
    params.add(("out", 0), f"{storage(dtype)}* __restrict__ q0")
    for d in (0, 1) if one_query else (0, 1, 2):
        params.add(("out_stride", 0, d), f"i64 u0_{d}")
    params.scalar(0, "f64" if dtype == "float64" else "f32")
    return params


def _adjust(mask: str, head: str, query: str, *, one_query: bool, to_base_2: str = "kLog2e") -> str:
    """The statement that returns `score` of `key` after the mask."""
    place = f"batch * t3_0 + {head} * t3_1{'' if one_query else f' + {query} * t3_2'} + key * t3_3"
    if mask == "bool":
        return f"return to_compute(p3[{place}]) ? score : kMasked;"
    if mask == "additive":
        return f"return score + to_compute(p3[{place}]) * {to_base_2};"
    if mask == "causal" and not one_query:
        return f"return key <= {query} + d3 - n_queries ? score : kMasked;"
    return "return score;"


def generate_rows(
    dtype: str,
    head_dim: int,
    value_dim: int,
    group: int,
    mask: Mask = "none",
    has_sinks: bool = False,
    *,
    mask_dtype: str | None = None,
) -> KernelSource:
    """The same attention for any number of queries, and for float64: a block takes a tile of queries of one head.

    Parameters: those of `generate_decode` with several queries, without workspace and counters. For float64 the scale
    is f64, and all is computed in double.

    Args:
        dtype: bfloat16, float16, float32 or float64.
        head_dim, value_dim, group, mask, has_sinks, mask_dtype: as for `generate_decode`.

    Raises:
        TypeError: the dtype has no such kernel.
        ValueError: a number makes no sense.

    >>> generate_rows("float32", 64, 64, 1).launch.grid
    (('mul', ('mul', ('cdiv', 'd2', 64), 'd1'), 'd0'), 1, 1)
    """
    if dtype not in ROWS_DTYPES:
        raise TypeError(f"[scaled_dot_product_attention] no CUDA kernel for {dtype}; use one of {ROWS_DTYPES}.")
    _check(head_dim, value_dim, mask)
    if group < 1:
        raise ValueError(f"a group has heads, not {group}")
    # What fits into registers: sums for each feature of each query of a thread.
    wide = dtype == "float64"
    queries = (4 if value_dim <= 128 else 2 if value_dim <= 256 else 1) // (2 if wide else 1) or 1
    keys = 2 if wide else 4
    params = _attention_params(dtype, mask, mask_dtype or dtype, has_sinks, one_query=False)
    scale = "s0_f64 * kLog2e64" if wide else "s0_f32 * kLog2e"
    to_base_2 = "kLog2e64" if wide else "kLog2e"
    sinks = 3 + (mask in ("bool", "additive"))
    sink = f"S::C(to_compute(p{sinks}[head])) * {to_base_2}" if has_sinks else "-S::C(float_infinity())"
    body = [
        f"using S = RowsShape<{storage(dtype)}, {head_dim}, {value_dim}, {queries}, {keys}>;",
        "__shared__ S::C memory[S::kSharedElements];",
        "const i64 n_queries = d2;",
        "i64 tile = blockIdx.x;",
        "const i64 first_query = take_coordinate(tile, ceil_div(n_queries, S::kQueries)) * S::kQueries;",
        "const i64 head = take_coordinate(tile, d1);",
        "const i64 batch = tile;",
        f"const i64 kv_head = head / {group};",
        f"const S::C sink = {sink};",
        "// Rows beyond the last query are computed with its mask, and not stored.",
        "auto query_of = [&](int i) { return min_i64(first_query + i, n_queries - 1); };",
        "auto query = [&](i64 i) { return p0 + batch * t0_0 + head * t0_1 + (first_query + i) * t0_2; };",
        "auto key_row = [&](i64 i) { return p1 + batch * t1_0 + kv_head * t1_1 + i * t1_3; };",
        "auto value_row = [&](i64 i) { return p2 + batch * t2_0 + kv_head * t2_1 + i * t2_3; };",
        "auto adjust = [&](int i, i64 key, S::C score) -> S::C {",
        f"    {_adjust(mask, 'head', 'query_of(i)', one_query=False, to_base_2=to_base_2)}",
        "};",
        "auto store = [&](int i, int feature, S::C value) {",
        "    q0[batch * u0_0 + head * u0_1 + (first_query + i) * u0_2 + feature] = "
        f"from_compute<{storage(dtype)}>(value);",
        "};",
        "i64 end = d3;",
    ]
    if mask == "causal":
        body += [
            "// Keys that no query of the tile sees, unless there is one that sees none and takes the average of all.",
            "if (first_query + d3 >= n_queries) end = query_of(S::kQueries - 1) + d3 - n_queries + 1;",
        ]
    body.append(
        f"attend_rows<S>(memory, query, n_queries - first_query, key_row, value_row, end, {scale}, sink, "
        "adjust, store);"
    )
    label = f"attention_{dtype}_{head_dim}_{value_dim}_{mask}" + ("_sinks" if has_sinks else "")
    tiles: Size = product([("cdiv", "d2", 16 * queries), "d1", "d0"])
    return define(label, "attention_rows.cuh", params, body, Launch((256, 1, 1), (tiles, 1, 1)))


def catalogue(full: bool) -> Iterator[KernelSource]:
    """For the head dims and groups of well-known models, every mask, one query and several."""
    h = "bfloat16"
    for head_dim, group in ((64, 3), (64, 1), (128, 4), (128, 8), (256, 2), (80, 1), (96, 1)):
        yield generate_decode(h, head_dim, head_dim, group)
    for dtype in DECODE_DTYPES:
        for k, mask in enumerate(MASKS):
            for queries in (1, 2, 4) if full else (1 + 3 * (k % 2),):
                yield generate_decode(dtype, 64, 64, 2, mask, bool(k % 2), queries=queries, mask_dtype="float32")
    yield generate_decode("float16", 192, 128, 16, queries=2)
    yield generate_decode("float32", 512, 512, 8)
    yield generate_decode("float16", 33, 7, 5, "bool", True)
    for k, dtype in enumerate(ROWS_DTYPES):
        for j, mask in enumerate(MASKS):
            for head_dim in (64, 128, 256) if full else ((64, 128, 80, 256)[(k + j) % 4],):
                yield generate_rows(dtype, head_dim, head_dim, 2, mask, bool(j % 2), mask_dtype="float32")
    yield generate_rows("float32", 512, 512, 1)
    yield generate_rows("float64", 33, 500, 3, "causal", True)
