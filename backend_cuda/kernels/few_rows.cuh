// A few rows of x times weights that are read once, by tensor cores: a decoding step of several texts.
#pragma once
#include "chunk.cuh"
#include "mma.cuh"

// The products of kRows rows of x, 8 or 16, with groups of 8 R rows of w. Rows of both are contiguous along k, which
// the warps of a block share: of every 4 kWarps chunks of a row, 8 elements each, a warp has 4, and a lane one. Which
// of 16 columns of a tile an element is makes no difference to a sum, if it is the same in x and in w: so lanes load
// whole chunks, and what a tensor core takes for columns 2t, 2t + 1, 2t + 8 and 2t + 9 are elements of one.
//
// w does not depend on the kernels before this one, x does: `prefetch` starts copying w, to the ring; x comes from the
// caches to registers after wait_for_producers, kAhead chunks at a time, so that all of the ring is on its way from
// memory.
template <class T, int kRows, int R, int kWarps, int kStages>
struct FewRows {
    static_assert(sizeof(T) == 2);
    static constexpr int N = Chunk<T>::kSize, kThreads = 32 * kWarps, kOfX = kRows / 8, kAhead = 4;
    static constexpr int kStage = R * kThreads, kRing = kStages * kStage;
    static constexpr int kElements = kRows * 8 * R, kSums = kWarps * kElements;
    static constexpr i64 kStep = 4 * kWarps * N;

    uint4* own;  // a thread reads its own slots of the ring only, so it need not wait for others
    const T *x, *w;
    i64 m, n, k, x_length, w_length, groups, stride;
    i64 begins;  // this lane's first element of a row
    int steps, lane, from = 0, to = 0;
    bool is_x_aligned, is_w_aligned, has_inputs = false;
    // What is copied next.
    i64 group;
    int step = 0;
    // Of x, rows g and g + 8.
    uint4 of_x[kAhead][2];

    // For groups `first`, first + gap and so on; rows of x and w are so many elements apart.
    DEVICE FewRows(uint4* ring, const T* left, const T* right, i64 rows, i64 columns, i64 size, i64 left_length,
                   i64 right_length, i64 first, i64 gap)
        : own(ring + threadIdx.x),
          x(left),
          w(right),
          m(rows),
          n(columns),
          k(size),
          x_length(left_length),
          w_length(right_length),
          groups(ceil_div(columns, 8 * R)),
          stride(gap),
          begins((threadIdx.x / 32 * 4 + threadIdx.x % 4) * N),
          steps(int(ceil_div(size, kStep))),
          lane(threadIdx.x % 32),
          is_x_aligned(is_chunk_aligned(left, left_length)),
          is_w_aligned(is_chunk_aligned(right, right_length)),
          group(first) {}

    static DEVICE int after(int slot) { return slot == kRing - kStage ? 0 : slot + kStage; }
    // Zeros where w ends.
    DEVICE void fetch() {
        if (group < groups) {
            const i64 first = group * R * 8 + lane / 4, at = begins + step * kStep;
            const T* row = w + first * w_length + at;
            if (is_w_aligned && (at + N <= k || at >= k)) {
#pragma unroll
                for (int r = 0; r < R; ++r, row += 8 * w_length) {
                    const bool wanted = first + 8 * r < n && at < k;
                    copy_async<true>(own + to + r * kThreads, wanted ? row : w, wanted);
                }
            } else {
#pragma unroll 1
                for (int r = 0; r < R; ++r, row += 8 * w_length) {
                    const bool wanted = first + 8 * r < n && at < k;
                    own[to + r * kThreads] = wanted ? load_elements(row, k - at).raw : uint4{};
                }
            }
            if (++step == steps) step = 0, group += stride;
        }
        end_copy_group();
        to = after(to);
    }
    DEVICE void prefetch() {
#pragma unroll 1
        for (int s = 0; s < kStages - 1; ++s) fetch();
    }
    DEVICE void load_input(int s, int a) {
        const i64 at = begins + s * kStep;
#pragma unroll
        for (int u = 0; u < kOfX; ++u) {
            const T* chunk = x + (lane / 4 + 8 * u) * x_length + at;
            of_x[a][u] = uint4{};
            if (lane / 4 + 8 * u >= m || at >= k) continue;
            of_x[a][u] = (is_x_aligned && at + N <= k ? load_cached(chunk) : load_elements(chunk, k - at)).raw;
        }
    }
    // This warp's part of the next group's products: a lane has rows g and g + 8 of columns t and t + 1 of each 8, with
    // g = lane / 4 and t = 2 * (lane % 4).
    DEVICE void run(float (&sum)[R][4]) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[r][i] = 0;
        }
        if (!has_inputs) {
#pragma unroll
            for (int a = 0; a < kAhead; ++a) {
                of_x[a][1] = uint4{};
                load_input(a, a);
            }
        }
        for (int base = 0; base < steps; base += kAhead) {
#pragma unroll
            for (int a = 0; a < kAhead; ++a) {
                if (base + a >= steps) break;
                wait_copy_groups<kStages - 2>();
                fetch();  // into the slots that the step before has read
                const u32 left[2][4] = {{of_x[a][0].x, of_x[a][1].x, of_x[a][0].y, of_x[a][1].y},
                                        {of_x[a][0].z, of_x[a][1].z, of_x[a][0].w, of_x[a][1].w}};
#pragma unroll
                for (int r = 0; r < R; ++r) {
                    const uint4 of_w = own[from + r * kThreads];
                    const u32 right[2][2] = {{of_w.x, of_w.y}, {of_w.z, of_w.w}};
                    multiply_tiles<T>(sum[r], left[0], right[0]);
                    multiply_tiles<T>(sum[r], left[1], right[1]);
                }
                from = after(from);
                if (steps > kAhead) load_input(base + a + kAhead, a);
            }
        }
        has_inputs = steps <= kAhead;
    }

    // Adds up what the warps have: give(row, column, sum), once for each. `memory` has room for kSums, and may be
    // written again after another barrier.
    template <class Give>
    DEVICE void combine(const float (&sum)[R][4], float* memory, const Give& give) const {
        constexpr int kTile = kRows * 8;
        const int g = lane / 4, t = 2 * (lane % 4);
        float* const of_warp = memory + threadIdx.x / 32 * kElements;
#pragma unroll
        for (int r = 0; r < R; ++r) {
#pragma unroll
            for (int i = 0; i < kRows / 4; ++i) of_warp[r * kTile + (g + i / 2 * 8) * 8 + t + i % 2] = sum[r][i];
        }
        __syncthreads();
#pragma unroll
        for (int i = threadIdx.x; i < kElements; i += kThreads) {
            const int row = i / (8 * R), column = i % (8 * R);
            const float* const part = memory + column / 8 * kTile + row * 8 + column % 8;
            float total = part[0];
#pragma unroll
            for (int v = 1; v < kWarps; ++v) total = total + part[v * kElements];
            give(row, column, total);
        }
    }
};
