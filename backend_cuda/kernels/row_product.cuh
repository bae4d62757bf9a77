// One row of x times R rows of weights: what a team of threads does between the loads of a decoding step.
#pragma once
#include "math.cuh"
#include "matvec.cuh"

// The dot products of x with R rows, each contiguous, by a team of kTeam threads; with kNorm, of x * scale, and then
// sum[R] is that of x squared: x / rms(x) is a factor of the whole product, so it can wait until the end.
//
// The rows do not depend on the kernels before this one, x does: `prefetch` starts copying the rows, and `run`, after
// wait_for_producers, does the rest. `ring` holds kSlots slots a stage for each of kThreads threads.
template <class T, int R, bool kNorm, int kTeam, int kStages, int kThreads>
struct RowDot {
    using C = compute_t<T>;
    static constexpr int N = Chunk<T>::kSize, kSums = R + kNorm, kSlots = R + 1 + kNorm;
    static constexpr int kRing = kSlots * kStages * kThreads;

    uint4* own;  // a thread reads its own slots only, so it need not wait for others
    const T* rows[R];
    i64 k, chunks;
    int member;

    DEVICE RowDot(uint4* ring, const T* const (&starts)[R], i64 size, int own_member)
        : own(ring + threadIdx.x), k(size), member(own_member) {
        bool aligned = true;
#pragma unroll
        for (int r = 0; r < R; ++r) {
            rows[r] = starts[r];
            aligned = aligned && is_chunk_aligned(rows[r], 0);
        }
        chunks = aligned ? k / N : 0;
    }
    DEVICE void fetch_rows(i64 c, int stage) {
        const bool wanted = c < chunks;
#pragma unroll
        for (int r = 0; r < R; ++r) {
            copy_async<true>(own + (stage * kSlots + r) * kThreads, rows[r] + (wanted ? c * N : 0), wanted);
        }
    }
    DEVICE void fetch_inputs(const T* x, const T* scale, i64 c, int stage) {
        const bool wanted = c < chunks;
        const i64 at = wanted ? c * N : 0;
        copy_async<false>(own + (stage * kSlots + R) * kThreads, x + at, wanted);
        if constexpr (kNorm) copy_async<false>(own + (stage * kSlots + R + 1) * kThreads, scale + at, wanted);
        end_copy_group();
    }
    DEVICE void prefetch() {
#pragma unroll
        for (int s = 0; s < kStages - 1; ++s) fetch_rows(member + s * kTeam, s);
    }
    DEVICE void run(C (&sum)[kSums], const T* x, const T* scale) {
#pragma unroll
        for (int i = 0; i < kSums; ++i) sum[i] = {};
        i64 done = 0;
        if (is_chunk_aligned(x, 0) && (!kNorm || is_chunk_aligned(scale, 0))) {
            done = chunks * N;
            // What prefetch started belongs to the first group.
#pragma unroll
            for (int s = 0; s < kStages - 1; ++s) fetch_inputs(x, scale, member + s * kTeam, s);
            for (i64 base = member; base < chunks; base += kTeam * kStages) {
#pragma unroll
                for (int s = 0; s < kStages; ++s) {
                    const i64 c = base + s * kTeam;
                    if (c >= chunks) break;
                    wait_copy_groups<kStages - 2>();
                    // Into the slots that the step before has read.
                    const i64 next = c + (kStages - 1) * kTeam;
                    fetch_rows(next, (s + kStages - 1) % kStages);
                    fetch_inputs(x, scale, next, (s + kStages - 1) % kStages);
                    C xf[N], wf[N];
                    unpack(Chunk<T>{own[(s * kSlots + R) * kThreads]}, xf);
                    if constexpr (kNorm) {
                        unpack(Chunk<T>{own[(s * kSlots + R + 1) * kThreads]}, wf);
#pragma unroll
                        for (int i = 0; i < N; ++i) {
                            sum[R] = multiply_add(xf[i], xf[i], sum[R]);
                            xf[i] = xf[i] * wf[i];
                        }
                    }
#pragma unroll
                    for (int r = 0; r < R; ++r) {
                        unpack(Chunk<T>{own[(s * kSlots + r) * kThreads]}, wf);
#pragma unroll
                        for (int i = 0; i < N; ++i) sum[r] = multiply_add(xf[i], wf[i], sum[r]);
                    }
                }
            }
        }
        wait_copy_groups<0>();
#pragma unroll 4
        for (i64 i = done + member; i < k; i += kTeam) {
            C xf = to_compute(x[i]);
            if constexpr (kNorm) {
                sum[R] = multiply_add(xf, xf, sum[R]);
                xf = xf * to_compute(scale[i]);
            }
#pragma unroll
            for (int r = 0; r < R; ++r) sum[r] = multiply_add(xf, to_compute(rows[r][i]), sum[r]);
        }
    }
};
