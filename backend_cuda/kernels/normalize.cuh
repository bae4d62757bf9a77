// A row that a team of threads goes over several times: held in registers if it fits, else read again each time.
#pragma once
#include "reduce.cuh"

// A store of the elements [first, last) of a pack.
template <int kWidth, class T>
DEVICE void store_range(T* p, const Pack<T, kWidth>& x, int first, int last) {
    if (first <= 0 && last >= kWidth && is_aligned<kWidth>(p)) return store_aligned<kWidth>(p, x);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
        if (i >= first && i < last) p[i] = x.v[i];
    }
}

// kTeam threads, a few lanes, a warp or a block, with room for kElements each. Packs lie on 16-byte boundaries of
// memory, so the first may begin before the row; what is of no row is seen as `filler`.
template <class T, int kTeam, int kElements>
struct Row {
    static constexpr int kWidth = 16 / sizeof(T), kPacks = kElements / kWidth, kThreads = kTeam, kAhead = 2;
    using C = compute_t<T>;

    struct Place {
        i64 start;     // of a pack, in the row
        int from, to;  // its elements that are of the row
        DEVICE bool has(int j) const { return j >= from && j < to; }
    };

    const T* p;
    i64 n;
    C filler;
    int before, member;
    bool fits;
    C values[kPacks][kWidth];

    DEVICE Row(const T* row, i64 length, C fill) : p(row), n(length), filler(fill), member(threadIdx.x % kTeam) {
        before = elements_past_boundary<kWidth>(row);
        fits = n <= kTeam * kElements - before;
        if (!fits) return;
        Pack<T, kWidth> raw[kPacks];
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            const Place at = held_place(u);
            raw[u] = load_range<kWidth>(p + at.start, at.from, at.to);
        }
#pragma unroll
        for (int u = 0; u < kPacks; ++u) convert(values[u], raw[u], held_place(u));
    }
    // Of a pack in registers: 32 bits are enough.
    DEVICE Place held_place(int u) const {
        const int start = (u * kTeam + member) * kWidth - before, left = int(n) - start;
        return {start, start < 0 ? -start : 0, left < kWidth ? left : kWidth};
    }
    DEVICE Place place(i64 pack) const {
        const i64 start = pack * kWidth - before;
        return {start, start < 0 ? int(-start) : 0, int(max_i64(0, min_i64(kWidth, n - start)))};
    }
    DEVICE void convert(C (&to)[kWidth], const Pack<T, kWidth>& from, Place at) const {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) to[j] = at.has(j) ? to_compute(element(from, j)) : filler;
    }

    // f(values, place, u) for every pack of this thread; u is its number in the registers, or -1.
    template <class F>
    DEVICE void for_packs(F f) {
        if (fits) {
#pragma unroll
            for (int u = 0; u < kPacks; ++u) f(values[u], held_place(u), u);
            return;
        }
        // Loads go ahead of their use. Not by unrolling: f stands here twice as it is, and NVRTC takes its time.
        const i64 packs = ceil_div(n + before, kWidth);
        Pack<T, kWidth> ahead[kAhead];
#pragma unroll
        for (int u = 0; u < kAhead; ++u) ahead[u] = load(member + u * kTeam);
#pragma unroll 1
        for (i64 pack = member; pack < packs; pack += kTeam) {
            const Place at = place(pack);
            C streamed[kWidth];
            convert(streamed, ahead[0], at);
#pragma unroll
            for (int u = 0; u + 1 < kAhead; ++u) ahead[u] = ahead[u + 1];
            ahead[kAhead - 1] = load(pack + kAhead * kTeam);
            f(streamed, at, -1);
        }
    }
    DEVICE Pack<T, kWidth> load(i64 pack) const {
        const Place at = place(pack);
        return load_range<kWidth>(p + at.start, at.from, at.to);
    }
    // f(x, is_own) for every element of this thread's packs, also for those that are of no row. What it makes of x
    // stays if the row is in registers.
    template <class F>
    DEVICE void for_elements(F f) {
        for_packs([&](C(&x)[kWidth], Place at, int) {
#pragma unroll
            for (int j = 0; j < kWidth; ++j) f(x[j], at.has(j));
        });
    }
    // Writes every element x as g(x, j), where j is its place in the pack and g = f(place, u).
    template <class O, class F>
    DEVICE void write(O* out, F f) {
        for_packs([&](C(&x)[kWidth], Place at, int u) {
            if (at.from >= at.to) return;
            const auto element = f(at, u);
            Pack<O, kWidth> stored;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) stored.v[j] = from_compute<O>(cast<O>(element(x[j], j)));
            store_range<kWidth>(out + at.start, stored, at.from, at.to);
        });
    }
    template <class Op>
    static DEVICE typename Op::State merge(typename Op::State s) {
        if constexpr (kTeam <= 32) {
            return merge_lanes<Op, kTeam>(s);
        } else {
            return merge_block<Op, kTeam>(s);
        }
    }
};

// A vector along the row, such as a weight: loaded together with the row, before the sums that its use waits for.
template <class T, class R>
struct Companion {
    const T* p;
    Pack<T, R::kWidth> held[R::kPacks];

    DEVICE Companion(const T* vector, const R& row) : p(vector) {
        if (!row.fits) return;
#pragma unroll
        for (int u = 0; u < R::kPacks; ++u) {
            const auto at = row.held_place(u);
            held[u] = load_range<R::kWidth>(p + at.start, at.from, at.to);
        }
    }
    DEVICE Pack<T, R::kWidth> pack(typename R::Place at, int u) const {
        return u >= 0 ? held[u] : load_range<R::kWidth>(p + at.start, at.from, at.to);
    }
};
