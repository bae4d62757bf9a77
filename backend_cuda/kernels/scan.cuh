// Running reductions along a row, or down columns, with the reductions of reduce.cuh.
#pragma once
#include "normalize.cuh"

// The states of the lanes before this one, merged in order; `total` becomes that of all lanes. With kAcross, only lanes
// that many apart belong together.
template <class Op, int kAcross = 1>
DEVICE typename Op::State scan_lanes(typename Op::State& total) {
    using State = typename Op::State;
    const int lane = threadIdx.x % 32;
    State inclusive = total;
#pragma unroll
    for (int distance = kAcross; distance < 32; distance *= 2) {
        State before = shuffle_up(inclusive, distance);
        if (lane >= distance) {
            Op::merge(before, inclusive);
            inclusive = before;
        }
    }
    const State before = shuffle_up(inclusive, kAcross);
    total = shuffle_from(inclusive, 32 - kAcross + lane % kAcross);
    return lane < kAcross ? Op::identity() : before;
}

// The states of the threads before this one in a team of kTeam threads, a warp or a block, merged in order; `total`
// becomes that of the team. `memory` is for a block, and must be another one in the next call.
template <class Op, int kTeam>
DEVICE typename Op::State scan_team(typename Op::State& total, typename Op::State* memory) {
    typename Op::State before = scan_lanes<Op>(total);
    if constexpr (kTeam > 32) {
        constexpr int kWarps = kTeam / 32;
        const int warp = threadIdx.x / 32;
        if (threadIdx.x % 32 == 0) memory[warp] = total;
        __syncthreads();
        typename Op::State warps_before = Op::identity();
        total = Op::identity();
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            if (w == warp) warps_before = total;
            Op::merge(total, memory[w]);
        }
        Op::merge(warps_before, before);
        before = warps_before;
    }
    return before;
}

// q[i] = the elements of p up to i (kInclusive) or before it, reduced; from the end if kReverse. E is the type whose
// elements Op takes, and first_state what precedes all elements. Packs follow memory's boundaries, and each thread
// takes one at a time, the next one on its way.
template <class Op, class E, int kTeam, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_row(const T* p, O* q, i64 n, typename Op::State first_state) {
    constexpr int kWidth = sizeof(T) == 1 ? 8 : 16 / sizeof(T), kWarps = kTeam / 32;
    using State = typename Op::State;
    __shared__ State memory[2][kWarps];
    const int member = threadIdx.x % kTeam, before = elements_past_boundary<kWidth>(p);
    const i64 packs = ceil_div(n + before, kWidth);
    struct Place {
        i64 start;
        int from, to;
    };
    auto place = [&](i64 k) -> Place {
        if (k >= packs) return {0, 0, 0};
        const i64 start = (kReverse ? packs - 1 - k : k) * kWidth - before;
        return {start, start < 0 ? int(-start) : 0, int(min_i64(kWidth, n - start))};
    };
    Place at = place(member);
    Pack<T, kWidth> next = load_range<kWidth>(p + at.start, at.from, at.to);
    State carry = first_state;
    int parity = 0;
    for (i64 first = 0; first < packs; first += kTeam) {
        const Pack<T, kWidth> x = next;
        const Place here = at;
        at = place(first + kTeam + member);
        next = load_range<kWidth>(p + at.start, at.from, at.to);

        State total = Op::identity();
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
            const int j = kReverse ? kWidth - 1 - k : k;
            if (j >= here.from && j < here.to) Op::push(total, cast<E>(to_compute(element(x, j))), 0);
        }
        State running = carry;
        Op::merge(running, scan_team<Op, kTeam>(total, memory[parity]));
        Op::merge(carry, total);
        parity ^= 1;

        Pack<O, kWidth> out;
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
            const int j = kReverse ? kWidth - 1 - k : k;
            if (!kInclusive) out.v[j] = from_compute<O>(cast<O>(Op::result(running)));
            if (j >= here.from && j < here.to) Op::push(running, cast<E>(to_compute(element(x, j))), 0);
            if (kInclusive) out.v[j] = from_compute<O>(cast<O>(Op::result(running)));
        }
        store_range<kWidth>(q + here.start, out, here.from, here.to);
    }
}

// q[r][c] = the elements of column c of p up to row r, reduced: as scan_row, of a block's columns. p and q are (n, inner)
// and begin at the block's first column, of which it has kAcross packs, `left` at most; its threads are kAcross wide,
// and each takes kRows rows at a time, the next ones on their way.
template <class Op, class E, int kThreads, int kAcross, int kRows, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_columns(const T* p, O* q, i64 n, i64 inner, i64 left, typename Op::State first_state) {
    constexpr int kWidth = sizeof(T) == 1 ? 8 : 16 / sizeof(T), kDown = kThreads / kAcross, kWarps = kThreads / 32;
    using State = typename Op::State;
    __shared__ State memory[2][kWarps][kAcross][kWidth];
    const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross, warp = threadIdx.x / 32;
    const int count = int(max_i64(0, min_i64(kWidth, left - across * kWidth)));
    p += across * kWidth;
    q += across * kWidth;
    auto row_of = [&](i64 k) { return (kReverse ? n - 1 - k : k) * inner; };
    Pack<T, kWidth> next[kRows];
    auto load = [&](i64 first) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const i64 k = first + down * kRows + r;
            next[r] = load_pack<kWidth>(p + row_of(k), k < n ? count : 0);
        }
    };
    load(0);
    State carry[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) carry[j] = first_state;
    int parity = 0;
    for (i64 first = 0; first < n; first += kDown * kRows) {
        Pack<T, kWidth> x[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) x[r] = next[r];
        load(first + kDown * kRows);
        const i64 own = first + down * kRows;

        State before[kWidth];
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            State total = Op::identity();
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                if (own + r < n) Op::push(total, cast<E>(to_compute(element(x[r], j))), 0);
            }
            before[j] = scan_lanes<Op, kAcross>(total);
            if (threadIdx.x % 32 < kAcross) memory[parity][warp][across][j] = total;
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            State running = carry[j];
#pragma unroll
            for (int w = 0; w < kWarps; ++w) {
                const State total = memory[parity][w][across][j];
                if (w < warp) Op::merge(running, total);
                Op::merge(carry[j], total);
            }
            Op::merge(running, before[j]);
            before[j] = running;
        }
        parity ^= 1;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            Pack<O, kWidth> out;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                if (!kInclusive) out.v[j] = from_compute<O>(cast<O>(Op::result(before[j])));
                Op::push(before[j], cast<E>(to_compute(element(x[r], j))), 0);
                if (kInclusive) out.v[j] = from_compute<O>(cast<O>(Op::result(before[j])));
            }
            if (own + r < n) store_pack<kWidth>(q + row_of(own + r), out, count);
        }
    }
}
