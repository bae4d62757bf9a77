// Few rows of x times a weight that is read once: y[m, n] = sum over k of x[m, k] * w[n, k], or of x[m, k] * w[k, n].
#pragma once
#include "chunk.cuh"
#include "math.cuh"

// ---- rows of w are contiguous along k: a team of threads takes the dot products of R of them with M rows of x

// 16-byte slots of shared memory that a thread needs for `kStages` steps in flight.
template <int M, int R, int kStages>
constexpr int kRingSlots = (R + (M == 1)) * kStages;

// This thread's part of the dot products; sum[m * R + r]. x has `m_left` rows from its first, w has `n_left`; rows
// beyond are taken from the last one, and their sums are of no use. `ring` holds kRingSlots for each of kThreads.
template <class T, int M, int R, int kTeam, int kStages, int kThreads>
DEVICE void dot_rows(compute_t<T> (&sum)[M * R], uint4* ring, const T* x, i64 ldx, i64 m_left, const T* w, i64 ldw,
                     i64 n_left, i64 k, int member) {
    constexpr int N = Chunk<T>::kSize, kSlots = kRingSlots<M, R, 1>;
    const T *xs[M], *ws[R];
#pragma unroll
    for (int m = 0; m < M; ++m) xs[m] = x + (m == 0 ? 0 : min_i64(m, m_left - 1) * ldx);
#pragma unroll
    for (int r = 0; r < R; ++r) ws[r] = w + (r == 0 ? 0 : min_i64(r, n_left - 1) * ldw);
#pragma unroll
    for (int i = 0; i < M * R; ++i) sum[i] = {};

    i64 done = 0;
    if (is_chunk_aligned(w, R > 1 ? ldw : 0) && is_chunk_aligned(x, M > 1 ? ldx : 0)) {
        const i64 chunks = k / N;
        done = chunks * N;
        // A thread reads its own slots only, so it need not wait for others.
        uint4* own = ring + threadIdx.x;
        auto fetch = [&](i64 c, int stage) {
            const bool wanted = c < chunks;
            const i64 at = wanted ? c * N : 0;
#pragma unroll
            for (int r = 0; r < R; ++r) copy_async<true>(own + (stage * kSlots + r) * kThreads, ws[r] + at, wanted);
            // With one row of x there is room to have it in flight as well; more of them come from L1.
            if constexpr (M == 1) copy_async<false>(own + (stage * kSlots + R) * kThreads, xs[0] + at, wanted);
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
                compute_t<T> wf[R][N], xf[N];
#pragma unroll
                for (int r = 0; r < R; ++r) unpack(Chunk<T>{own[(s * kSlots + r) * kThreads]}, wf[r]);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    unpack(M == 1 ? Chunk<T>{own[(s * kSlots + R) * kThreads]} : load_cached(xs[m] + c * N), xf);
#pragma unroll
                    for (int r = 0; r < R; ++r) {
#pragma unroll
                        for (int i = 0; i < N; ++i) sum[m * R + r] = multiply_add(xf[i], wf[r][i], sum[m * R + r]);
                    }
                }
            }
        }
        wait_copy_groups<0>();
    }
#pragma unroll 4
    for (i64 i = done + member; i < k; i += kTeam) {
        compute_t<T> wf[R];
#pragma unroll
        for (int r = 0; r < R; ++r) wf[r] = to_compute(ws[r][i]);
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const compute_t<T> xf = to_compute(xs[m][i]);
#pragma unroll
            for (int r = 0; r < R; ++r) sum[m * R + r] = multiply_add(xf, wf[r], sum[m * R + r]);
        }
    }
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

// This block's sums over k in [begin, end): total[m * kAcross * N + column], N being the elements of a chunk. `ring`
// holds kStages slots for each thread.
template <class T, int M, int kAcross, int kDown, int kStages>
DEVICE void sum_columns(compute_t<T>* total, uint4* ring, const T* x, i64 ldx, i64 m_left, const T* w, i64 ldw,
                        i64 n_left, i64 begin, i64 end) {
    constexpr int N = Chunk<T>::kSize, kColumns = kAcross * N, kThreads = kAcross * kDown;
    static_assert(N * sizeof(compute_t<T>) <= 16 * kStages, "the sums of the threads take the ring's place");
    const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross;
    const i64 count = n_left - across * N;
    const T* xs[M];
#pragma unroll
    for (int m = 0; m < M; ++m) xs[m] = x + (m == 0 ? 0 : min_i64(m, m_left - 1) * ldx);
    const T* columns = w + across * N;

    compute_t<T> sum[M][N] = {};
    auto add = [&](const Chunk<T>& chunk, i64 row) {
        compute_t<T> wf[N];
        unpack(chunk, wf);
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const compute_t<T> xf = to_compute(xs[m][row]);
#pragma unroll
            for (int i = 0; i < N; ++i) sum[m][i] = multiply_add(xf, wf[i], sum[m][i]);
        }
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
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int i = 0; i < N; ++i) shared[down * kColumns + across * N + i] = sum[m][i];
        __syncthreads();
        for (int column = threadIdx.x; column < kColumns; column += kThreads) {
            compute_t<T> t = shared[column];
#pragma unroll
            for (int d = 1; d < kDown; ++d) t = t + shared[d * kColumns + column];
            total[m * kColumns + column] = t;
        }
        __syncthreads();
    }
}
