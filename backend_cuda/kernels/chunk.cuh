// 16 bytes of elements: how they are streamed from memory, and taken apart for arithmetic.
#pragma once
#include "prelude.cuh"

template <class T>
struct Chunk {
    static constexpr int kSize = 16 / sizeof(T);
    uint4 raw;
};

// Elements as they are computed with.
template <class T>
DEVICE void unpack(const Chunk<T>& chunk, compute_t<T> (&out)[Chunk<T>::kSize]) {
    T stored[Chunk<T>::kSize];
    memcpy(stored, &chunk.raw, 16);
#pragma unroll
    for (int i = 0; i < Chunk<T>::kSize; ++i) out[i] = to_compute(stored[i]);
}
// A bfloat16 is the upper half of a float: one instruction an element, where taking out 16 bits first would be two.
DEVICE void unpack(const Chunk<bf16>& chunk, float (&out)[8]) {
    const u32 words[4] = {chunk.raw.x, chunk.raw.y, chunk.raw.z, chunk.raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out[2 * i] = __uint_as_float(words[i] << 16);
        out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

// 16 bytes from an aligned pointer.
template <class T>
DEVICE Chunk<T> load_cached(const T* p) {
    return {*reinterpret_cast<const uint4*>(p)};
}

// ---- copies to shared memory that a thread has in flight without holding registers. However often a loop of loads is
// unrolled, ptxas may move each load to where its result is used; these stay where they are.

// 16 bytes, both sides aligned; zeros if not wanted. Streaming: around L1, so that what is read often stays there.
template <bool kStreaming>
DEVICE void copy_async(uint4* shared, const void* global, bool wanted) {
#ifdef __CUDACC__
    const u32 address = u32(__cvta_generic_to_shared(shared));
    if constexpr (kStreaming) {
        asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                     "r"(wanted ? 16 : 0)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(wanted ? 16 : 0)
                     : "memory");
    }
#else
    *shared = wanted ? *static_cast<const uint4*>(global) : uint4{};
#endif
}
// Copies since the last call are a group.
DEVICE void end_copy_group() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most kPending of this thread's groups, the last ones, are under way.
template <int kPending>
DEVICE void wait_copy_groups() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// The first `count` elements of a chunk that may lie anywhere, zeros after them.
template <class T>
DEVICE Chunk<T> load_elements(const T* p, i64 count) {
    T stored[Chunk<T>::kSize];
#pragma unroll
    for (int i = 0; i < Chunk<T>::kSize; ++i) stored[i] = i < count ? p[i] : T{};
    Chunk<T> r;
    memcpy(&r.raw, stored, 16);
    return r;
}

template <class T>
DEVICE bool is_chunk_aligned(const T* p, i64 stride) {
    return ((reinterpret_cast<u64>(p) | u64(stride) * sizeof(T)) & 15) == 0;
}

DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE double multiply_add(double a, double b, double c) { return fma(a, b, c); }
DEVICE c64 multiply_add(c64 a, c64 b, c64 c) {
    return {fmaf(a.re, b.re, fmaf(-a.im, b.im, c.re)), fmaf(a.re, b.im, fmaf(a.im, b.re, c.im))};
}

// What another block wrote before it arrived at a counter: not from L1, which may hold an older state. 4, 8 or 16
// bytes, aligned.
template <class T>
DEVICE T load_fresh(const T* p) {
#ifdef __CUDACC__
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
    u32 words[sizeof(T) / 4];
    if constexpr (sizeof(T) == 4) {
        asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(words[0]) : "l"(p) : "memory");
    } else if constexpr (sizeof(T) == 8) {
        asm volatile("ld.global.cg.v2.u32 {%0, %1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "l"(p) : "memory");
    } else {
        asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "l"(p)
                     : "memory");
    }
    T r;
    memcpy(&r, words, sizeof(T));
    return r;
#else
    return *p;
#endif
}

// What the counter was before; what this block wrote before its last barrier is seen by whom sees the sum.
DEVICE u32 add_acquire_release(u32* counter, u32 n) {
#ifdef __CUDACC__
    u32 before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(n) : "memory");
    return before;
#else
    return atomicAdd(counter, n);
#endif
}
// Whether this block is the last of `blocks` to arrive at a counter, which it then leaves at zero. To be called by all
// threads, after their writes; what the other blocks wrote can then be read with load_fresh.
DEVICE bool is_last_block(u32* counter, u32 blocks) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        last = add_acquire_release(counter, 1) == blocks - 1;
        if (last) *counter = 0;
    }
    __syncthreads();
    return last;
}
