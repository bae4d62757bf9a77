// One row of x times weights, R rows of them at a time: what a team of threads does in a decoding step.
#pragma once
#include "chunk.cuh"
#include "math.cuh"

// The dot products of x with groups of R rows, each contiguous, by a team of kTeam threads; with kNorm, of x * scale,
// and then `squares` is the sum of x squared: x / rms(x) is a factor of the whole product, so it can wait until the
// end.
//
// The rows do not depend on the kernels before this one, x does: `prefetch` starts copying rows, and `run`, after
// wait_for_producers, takes the dot products of one group, and goes on copying the next ones. `ring` holds R slots a
// stage for each of kThreads threads. x comes from the caches to registers, kAhead chunks at a time, and a short one
// stays there.
//
// A multiprocessor has only 16 warps for this, so what counts is how long a step takes, though not the number of its
// instructions: it holds as many registers as loads side by side need.
template <class T, int R, bool kNorm, int kTeam, int kStages, int kThreads>
struct RowDot {
    using C = compute_t<T>;
    using Rows = const T* [R];
    static constexpr int N = Chunk<T>::kSize, kAhead = 4;
    static constexpr int kStage = R * kThreads, kRing = kStages * kStage;

    uint4* own;  // a thread reads its own slots only, so it need not wait for others
    int from = 0, to = 0;
    i64 k, groups, step;
    int chunks, member;
    bool has_inputs = false;
    C squares = {};
    // What is copied next.
    i64 group;
    int chunk;
    Rows rows;
    // Of x; with kNorm, of x * scale, multiplied.
    Chunk<T> of_x[kAhead];
    C scaled[kNorm ? kAhead : 1][N];

    // For groups first, first + stride and so on, below `count`; `aligned`: whether all rows are.
    DEVICE RowDot(uint4* ring, i64 size, bool aligned, int own_member, i64 first, i64 stride, i64 count)
        : own(ring + threadIdx.x),
          k(size),
          groups(count),
          step(stride),
          chunks(aligned && size < 1ll << 30 ? int(size) / N : 0),
          member(own_member),
          group(own_member < chunks ? first : count),
          chunk(own_member) {}

    static DEVICE int after(int slot) { return slot == kRing - kStage ? 0 : slot + kStage; }

    // find(group, rows) sets where a group's rows begin.
    template <class Find>
    DEVICE void fetch(const Find& find) {
        if (group < groups) {
            if (chunk == member) find(group, rows);
#pragma unroll
            for (int r = 0; r < R; ++r) copy_async<true>(own + to + r * kThreads, rows[r] + i64(chunk) * N, true);
            chunk += kTeam;
            if (chunk >= chunks) {
                chunk = member;
                group += step;
            }
        }
        end_copy_group();
        to = after(to);
    }
    template <class Find>
    DEVICE void prefetch(const Find& find) {
#pragma unroll 1
        for (int s = 0; s < kStages - 1; ++s) fetch(find);
    }
    DEVICE void load_input(const T* x, int c, int a) {
        if (c < chunks) of_x[a] = load_cached(x + i64(c) * N);
    }
    // Loads kAhead chunks from c on, and multiplies them.
    DEVICE void load_scaled(const T* x, const T* scale, int c, bool counts) {
        Chunk<T> of_scale[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            of_x[a] = of_scale[a] = Chunk<T>{};
            load_input(x, c + a * kTeam, a);
            if (c + a * kTeam < chunks) of_scale[a] = load_cached(scale + i64(c + a * kTeam) * N);
        }
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            C by[N];
            unpack(of_x[a], scaled[a]);
            unpack(of_scale[a], by);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                if (counts) squares = multiply_add(scaled[a][i], scaled[a][i], squares);
                scaled[a][i] = scaled[a][i] * by[i];
            }
        }
    }
    // Of group `now`, which is below the count; `is_first`: whether it is the first, of which `squares` are taken.
    template <class Find>
    DEVICE void run(C (&sum)[R], const T* x, const T* scale, i64 now, bool is_first, const Find& find) {
#pragma unroll
        for (int r = 0; r < R; ++r) sum[r] = {};
        i64 done = 0;
        if (is_chunk_aligned(x, 0) && (!kNorm || is_chunk_aligned(scale, 0))) {
            done = i64(chunks) * N;
            if (!kNorm && !has_inputs) {
#pragma unroll
                for (int a = 0; a < kAhead; ++a) load_input(x, member + a * kTeam, a);
            }
            for (int base = member; base < chunks; base += kTeam * kAhead) {
                if (kNorm && !has_inputs) load_scaled(x, scale, base, is_first);
#pragma unroll
                for (int a = 0; a < kAhead; ++a) {
                    const int c = base + a * kTeam;
                    if (c >= chunks) break;
                    wait_copy_groups<kStages - 2>();
                    fetch(find);  // into the slots that the step before has read
                    Chunk<T> of_rows[R];
#pragma unroll
                    for (int r = 0; r < R; ++r) of_rows[r] = Chunk<T>{own[from + r * kThreads]};
                    from = after(from);
                    C xf[N], wf[N];
                    if constexpr (!kNorm) {
                        unpack(of_x[a], xf);
                        load_input(x, c + kAhead * kTeam, a);
                    }
#pragma unroll
                    for (int r = 0; r < R; ++r) {
                        unpack(of_rows[r], wf);
#pragma unroll
                        for (int i = 0; i < N; ++i) sum[r] = multiply_add(kNorm ? scaled[a][i] : xf[i], wf[i], sum[r]);
                    }
                }
            }
            has_inputs = chunks <= kAhead * kTeam;
        }
        if (done == k) return;
        Rows rest;
        find(now, rest);
#pragma unroll 2
        for (i64 i = done + member; i < k; i += kTeam) {
            C xf = to_compute(x[i]);
            if constexpr (kNorm) {
                if (is_first) squares = multiply_add(xf, xf, squares);
                xf = xf * to_compute(scale[i]);
            }
#pragma unroll
            for (int r = 0; r < R; ++r) sum[r] = multiply_add(xf, to_compute(rest[r][i]), sum[r]);
        }
    }
};

// Adds up rows between a lane and its neighbours: lane r of each R lanes then has row r's sum of these. R is 1, 2, 4...
template <int kDistance = 1, class C, int R>
DEVICE C share_rows(const C (&sum)[R]) {
    if constexpr (R == 1) {
        return sum[0];
    } else {
        const bool odd = threadIdx.x & kDistance;
        C half[R / 2];
#pragma unroll
        for (int r = 0; r < R / 2; ++r) {
            const C even_row = sum[2 * r], odd_row = sum[2 * r + 1];  // by value, or one is chosen by its address
            half[r] = (odd ? odd_row : even_row) + shuffle_xor(odd ? even_row : odd_row, kDistance);
        }
        return share_rows<2 * kDistance>(half);
    }
}
// The sums of a team's threads: member r < R has row r's. `memory` holds R for each warp.
template <class C, int R, int kTeam>
DEVICE C sum_team(const C (&sum)[R], C* memory) {
    constexpr int kLanes = kTeam > 32 ? 32 : kTeam, kWarps = kTeam / kLanes;
    static_assert(R <= kLanes);
    C total = share_rows(sum);
#pragma unroll
    for (int distance = R; distance < kLanes; distance *= 2) total = total + shuffle_xor(total, distance);
    if constexpr (kWarps > 1) {
        const int lane = threadIdx.x % 32, member = threadIdx.x % kTeam;
        if (lane < R) memory[threadIdx.x / 32 * R + lane] = total;
        __syncthreads();
        if (member < R) {
            const C* of_warp = memory + threadIdx.x / kTeam * kWarps * R + member;
            total = of_warp[0];
#pragma unroll
            for (int w = 1; w < kWarps; ++w) total = total + of_warp[w * R];
        }
    }
    return total;
}
