"""Random bits by threefry2x32 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011), laid out as by MLX.

A key fills n 32-bit words. Counter i of the first half pairs with counter i + ceil(n / 2), and the two hashed words go
to these places; when n is odd the middle word is hashed alone, paired with 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from .kernel import KernelSource, Launch, kernel

THREADS = 256
_STORAGE = {1: "u8", 2: "u16", 4: "u32"}

_SOURCE = """#include "prelude.cuh"
DEVICE void threefry_round(u32& x0, u32& x1, int turn) {
    x0 += x1;
    x1 = (x1 << turn) | (x1 >> (32 - turn));
    x1 ^= x0;
}
DEVICE void threefry(u32 k0, u32 k1, u32& x0, u32& x1) {
    const u32 keys[3] = {k0, k1, k0 ^ k1 ^ 0x1bd11bdau};
    const int turns[8] = {13, 15, 26, 6, 17, 29, 16, 24};
    x0 += keys[0];
    x1 += keys[1];
#pragma unroll
    for (int block = 0; block < 5; ++block) {
#pragma unroll
        for (int i = 0; i < 4; ++i) threefry_round(x0, x1, turns[block % 2 * 4 + i]);
        x0 += keys[(block + 1) % 3];
        x1 += keys[(block + 2) % 3] + u32(block + 1);
    }
}
// Word `index` of a row of `count` elements; what is beyond the row is dropped.
template <class T>
DEVICE void store_word(T* row, i64 index, i64 count, u32 word) {
    constexpr int per_word = 4 / sizeof(T);
#pragma unroll
    for (int i = 0; i < per_word; ++i) {
        const i64 at = index * per_word + i;
        if (at < count) row[at] = T(word >> (8 * sizeof(T) * i));
    }
}
extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(KERNEL_PARAMETERS) {
    launch_dependents();
    wait_for_producers();
    const i64 n = ceil_div(d1 * i64(sizeof(STORAGE)), 4), half = n / 2, upper = n - half;
    i64 key = i64(blockIdx.x) * THREADS + threadIdx.x;
    const i64 i = take_coordinate(key, upper);
    if (key >= d0) return;
    u32 x0 = u32(i), x1 = i < half ? u32(i + upper) : 0;
    threefry(p0[2 * key], p0[2 * key + 1], x0, x1);
    STORAGE* row = q0 + key * d1;
    store_word(row, i, d1, x0);
    if (i < half) store_word(row, upper + i, d1, x1);
}
"""


def generate_random_bits(width: int) -> KernelSource:
    """For each of d0 keys d1 unsigned integers of `width` bytes.

    Parameters: dim 0, the keys; dim 1, the elements for each, not 0; operand 0, uint32 (keys, 2), contiguous; the
    output, (keys, elements), contiguous.

    Args:
        width: 1, 2 or 4.

    >>> generate_random_bits(4).launch.block
    (256, 1, 1)
    """
    source = _SOURCE.replace("THREADS", str(THREADS)).replace("STORAGE", _STORAGE[width])
    words = ("cdiv", ("mul", "d1", width), 4)
    upper = ("cdiv", words, 2)
    params = [("dim", 0), ("dim", 1), ("ptr", 0), ("out", 0)]
    declarations = ["i64 d0", "i64 d1", "const u32* p0", f"{_STORAGE[width]}* __restrict__ q0"]
    grid = ("cdiv", ("mul", "d0", upper), THREADS)
    return kernel(f"random_bits_{8 * width}", source, params, Launch((THREADS, 1, 1), (grid, 1, 1)), declarations)


def catalogue(full: bool) -> Iterator[KernelSource]:
    """Every width."""
    for width in _STORAGE:
        yield generate_random_bits(width)
