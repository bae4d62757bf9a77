// A row of x times a weight that is read once: y[n] = sum over k of x[k] * w[n, k], or of x[k] * w[k, n].
#pragma once
#include "chunk.cuh"
#include "math.cuh"

// ---- rows of w are contiguous along k: a team of threads takes the dot product of one with x

// This thread's part of the dot product. `ring` holds two slots for each stage and each of kThreads.
template <class T, int kTeam, int kStages, int kThreads>
DEVICE compute_t<T> dot_row(uint4* ring, const T* x, const T* w, i64 k, int member) {
    constexpr int N = Chunk<T>::kSize;
    compute_t<T> sum = {};
    i64 done = 0;
    if (is_chunk_aligned(w, 0) && is_chunk_aligned(x, 0)) {
        const i64 chunks = k / N;
        done = chunks * N;
        // A thread reads its own slots only, so it need not wait for others.
        uint4* own = ring + threadIdx.x;
        auto fetch = [&](i64 c, int stage) {
            const bool wanted = c < chunks;
            const i64 at = wanted ? c * N : 0;
            copy_async<true>(own + 2 * stage * kThreads, w + at, wanted);
            copy_async<false>(own + (2 * stage + 1) * kThreads, x + at, wanted);
            end_copy_group();
        };
#pragma unroll
        for (int s = 0; s < kStages - 1; ++s) fetch(member + s * kTeam, s);
        for (i64 base = member; base < chunks; base += kTeam * kStages) {
#pragma unroll
            for (int s = 0; s < kStages; ++s) {
                const i64 c = base + s * kTeam;
                if (c >= chunks) break;
                wait_copy_groups<kStages - 2>();
                // Into the slots that the step before has read.
                fetch(c + (kStages - 1) * kTeam, (s + kStages - 1) % kStages);
                compute_t<T> wf[N], xf[N];
                unpack(Chunk<T>{own[2 * s * kThreads]}, wf);
                unpack(Chunk<T>{own[(2 * s + 1) * kThreads]}, xf);
#pragma unroll
                for (int i = 0; i < N; ++i) sum = multiply_add(xf[i], wf[i], sum);
            }
        }
        wait_copy_groups<0>();
    }
#pragma unroll 4
    for (i64 i = done + member; i < k; i += kTeam) sum = multiply_add(to_compute(x[i]), to_compute(w[i]), sum);
    return sum;
}

// Adds up the parts of a team. Member i may then ask for total(i), total(i + kTeam)... of `kSums`.
template <class C, int kSums, int kTeam, int kThreads>
struct TeamTotals {
    static constexpr int kWarps = kTeam > 32 ? kTeam / 32 : 1;  // of a team
    C (&sum)[kSums];
    C* shared;  // kSums for each warp of the block

    DEVICE TeamTotals(C (&parts)[kSums], C* memory) : sum(parts), shared(memory) {
#pragma unroll
        for (int lanes = (kTeam > 32 ? 32 : kTeam) / 2; lanes > 0; lanes /= 2) {
#pragma unroll
            for (int i = 0; i < kSums; ++i) sum[i] = sum[i] + shuffle_xor(sum[i], lanes);
        }
        if constexpr (kWarps > 1) {
            if (threadIdx.x % 32 == 0) {
#pragma unroll
                for (int i = 0; i < kSums; ++i) shared[threadIdx.x / 32 * kSums + i] = sum[i];
            }
            __syncthreads();
        }
    }
    DEVICE C total(int i) const {
        if constexpr (kWarps > 1) {
            const C* mine = shared + threadIdx.x / kTeam * kWarps * kSums + i;
            C t = mine[0];
#pragma unroll
            for (int w = 1; w < kWarps; ++w) t = t + mine[w * kSums];
            return t;
        } else {
            C t = sum[0];  // chosen by comparison: an index known only at run time would move `sum` to memory
#pragma unroll
            for (int j = 1; j < kSums; ++j) {
                if (j == i) t = sum[j];
            }
            return t;
        }
    }
};

// ---- rows of w are contiguous along n: a thread takes 16 bytes of columns, for every kDown-th k of a range

// This block's sums over k in [begin, end), of kAcross * N columns, N being the elements of a chunk. `ring` holds
// kStages slots for each thread.
template <class T, int kAcross, int kDown, int kStages>
DEVICE void sum_columns(compute_t<T>* total, uint4* ring, const T* x, const T* w, i64 ldw, i64 n_left, i64 begin,
                        i64 end) {
    constexpr int N = Chunk<T>::kSize, kColumns = kAcross * N, kThreads = kAcross * kDown;
    static_assert(N * sizeof(compute_t<T>) <= 16 * kStages, "the sums of the threads take the ring's place");
    const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross;
    const i64 count = n_left - across * N;
    const T* columns = w + across * N;

    compute_t<T> sum[N] = {};
    auto add = [&](const Chunk<T>& chunk, i64 row) {
        compute_t<T> wf[N];
        unpack(chunk, wf);
        const compute_t<T> xf = to_compute(x[row]);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] = multiply_add(xf, wf[i], sum[i]);
    };
    if (count >= N && is_chunk_aligned(columns, ldw)) {
        uint4* own = ring + threadIdx.x;  // a thread reads its own slots only, so it need not wait for others
        auto fetch = [&](i64 row, int stage) {
            const bool wanted = row < end;
            copy_async<true>(own + stage * kThreads, columns + (wanted ? row : begin) * ldw, wanted);
            end_copy_group();
        };
#pragma unroll
        for (int s = 0; s < kStages - 1; ++s) fetch(begin + down + s * kDown, s);
        int stage = 0;
        for (i64 row = begin + down; row < end; row += kDown) {
            wait_copy_groups<kStages - 2>();
            // Into the slot that the step before has read.
            fetch(row + (kStages - 1) * kDown, stage == 0 ? kStages - 1 : stage - 1);
            add(Chunk<T>{own[stage * kThreads]}, row);
            stage = stage == kStages - 1 ? 0 : stage + 1;
        }
        wait_copy_groups<0>();
    } else {
#pragma unroll 2
        for (i64 row = begin + down; row < end; row += kDown) add(load_elements(columns + row * ldw, count), row);
    }
    __syncthreads();
    auto* shared = reinterpret_cast<compute_t<T>*>(ring);
#pragma unroll
    for (int i = 0; i < N; ++i) shared[down * kColumns + across * N + i] = sum[i];
    __syncthreads();
    for (int column = threadIdx.x; column < kColumns; column += kThreads) {
        compute_t<T> t = shared[column];
#pragma unroll
        for (int d = 1; d < kDown; ++d) t = t + shared[d * kColumns + column];
        total[column] = t;
    }
    __syncthreads();
}
