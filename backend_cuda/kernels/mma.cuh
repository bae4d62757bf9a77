// Products of small matrices of 16-bit floats by tensor cores, a warp at a time.
#pragma once
#include "prelude.cuh"

// Two elements as a word, the first in the lower half.
template <class T>
DEVICE u32 pack_pair(T first, T second) {
    return u32(first.bits) | u32(second.bits) << 16;
}

// Four 8 x 8 matrices from shared memory (PTX ISA, "ldmatrix"): lane l gives the address of row l % 8 of matrix l / 8,
// 16 bytes on a boundary of 16. Of each matrix lane l gets columns t, t + 1 of row g; if transposed, rows t, t + 1 of
// column g.
template <bool kTransposed>
DEVICE void load_matrices(u32 (&to)[4], const void* row) {
#ifdef __CUDACC__
    const u32 at = u32(__cvta_generic_to_shared(row));
    if constexpr (kTransposed) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(at)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(at)
                     : "memory");
    }
#else
    const int lane = threadIdx.x % 32, g = lane / 4, t = 2 * (lane % 4);
    const auto own = static_cast<const u16*>(row);
    for (int m = 0; m < 4; ++m) {
        u32 pair = 0;
        for (int i = 0; i < 2; ++i) {
            const u16* from = shuffle_from(own, 8 * m + (kTransposed ? t + i : g));
            pair |= u32(from[kTransposed ? g : t + i]) << 16 * i;
        }
        to[m] = pair;
    }
#endif
}

// c += a b, with a 16 x 16, b 16 x 8 and c 16 x 8 (PTX ISA, "Matrix Fragments for mma.m16n8k16"). Lane l has, with
// g = l / 4 and t = 2 * (l % 4):
//   a: rows g and g + 8 of columns t, t + 1, then both of columns t + 8, t + 9;
//   b: rows t, t + 1 of column g, then rows t + 8, t + 9;
//   c: columns t, t + 1 of row g, then of row g + 8.
template <class T>
DEVICE void multiply_tiles(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef __CUDACC__
    if constexpr (is_same<T, bf16>) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
#else
    const int lane = threadIdx.x % 32, g = lane / 4, t = 2 * (lane % 4);
    auto half = [](u32 word, int k) { return to_compute(T{u16(word >> 16 * (k % 2))}); };
    for (int k = 0; k < 16; ++k) {
        const int upper = k / 8, column = k % 8 / 2;
        const float rows[2] = {half(shuffle_from(a[2 * upper], 4 * g + column), k),
                               half(shuffle_from(a[2 * upper + 1], 4 * g + column), k)};
        const float columns[2] = {half(shuffle_from(b[upper], 4 * t + column), k),
                                  half(shuffle_from(b[upper], 4 * (t + 1) + column), k)};
        for (int i = 0; i < 4; ++i) c[i] += rows[i / 2] * columns[i % 2];
    }
#endif
}
