// Rows that a team of threads goes over several times: held in registers if they fit, else read again each time.
#pragma once
#include "reduce.cuh"

// Any row: each pass reads it again. Packs lie on 16-byte boundaries of memory, so the first may begin before the row;
// what is of no row is seen as `filler`.
template <class T, int kTeam>
struct ReadRow {
    static constexpr int kWidth = 16 / sizeof(T), kPacks = 0, kAhead = 2;
    static constexpr bool kHoldsVectors = false, kKeepsChanges = false;
    using C = compute_t<T>;

    struct Place {
        i64 start;     // of a pack, in the row
        int from, to;  // its elements that are of the row
        DEVICE bool has(int j) const { return bits_between(from, to) >> j & 1; }
    };

    const T* p;
    i64 n;
    C filler;
    int before, member;

    DEVICE ReadRow(const T* row, i64 length, C fill) : p(row), n(length), filler(fill), member(threadIdx.x % kTeam) {
        before = elements_past_boundary<kWidth>(row);
    }
    DEVICE Place place(i64 pack) const {
        const i64 start = pack * kWidth - before;
        return {start, start < 0 ? int(-start) : 0, int(max_i64(0, min_i64(kWidth, n - start)))};
    }
    template <class V>
    static DEVICE Pack<V, kWidth> load(const V* row, Place at) {
        return load_range<kWidth>(row + at.start, at.from, at.to);
    }
    // f(values, place, -1) for every pack of this thread. Loads go ahead of their use. Not by unrolling: NVRTC takes
    // its time.
    template <class F>
    DEVICE void for_packs(F f) const {
        const i64 packs = ceil_div(n + before, kWidth);
        Pack<T, kWidth> ahead[kAhead];
#pragma unroll
        for (int u = 0; u < kAhead; ++u) ahead[u] = load(p, place(member + u * kTeam));
#pragma unroll 1
        for (i64 pack = member; pack < packs; pack += kTeam) {
            const Place at = place(pack);
            C values[kWidth];
#pragma unroll
            for (int j = 0; j < kWidth; ++j) values[j] = at.has(j) ? to_compute(element(ahead[0], j)) : filler;
#pragma unroll
            for (int u = 0; u + 1 < kAhead; ++u) ahead[u] = ahead[u + 1];
            ahead[kAhead - 1] = load(p, place(pack + kAhead * kTeam));
            f(values, at);
        }
    }
    // f(x, is_own) for every element of this thread's packs, also for those that are of no row.
    template <class F>
    DEVICE void for_elements(F f) const {
        for_packs([&](C(&x)[kWidth], Place at) {
#pragma unroll
            for (int j = 0; j < kWidth; ++j) f(x[j], at.has(j));
        });
    }
    // Writes every element x as g(x, j), where j is its place in the pack and g = f(place, -1).
    template <class O, class F>
    DEVICE void write(O* out, F f) const {
        for_packs([&](C(&x)[kWidth], Place at) {
            if (at.from >= at.to) return;
            const auto of_element = f(at, -1);
            compute_t<O> made[kWidth];
#pragma unroll
            for (int j = 0; j < kWidth; ++j) made[j] = compute_t<O>(of_element(x[j], j));
            store_range<kWidth>(out + at.start, stored<O>(made), at.from, at.to);
        });
    }
    template <class Op>
    static DEVICE typename Op::State merge(typename Op::State s) {
        return merge_team<Op, kTeam>(s);
    }
};

// A row that fits into the registers, in packs that lie on 16-byte boundaries of memory. The common one is of whole
// packs: no question is asked of an element, only of a pack. With kShifted, the first pack may begin before the row,
// and the last end beyond it, so that there may be one pack more: what is of no row is `filler`. With kChanges, what
// for_elements makes of elements stays, and they are held in the compute type; else as they are stored, which for 16
// bits is half as much.
template <class T, int kTeam, int kWholePacks, bool kChanges, bool kShifted>
struct HeldRow {
    static constexpr int kWidth = 16 / sizeof(T), kPacks = kWholePacks + kShifted;
    // There are too few registers for more, and for what is not of whole packs.
    static constexpr bool kHoldsVectors = !kShifted && kWholePacks <= 4, kKeepsChanges = kChanges;
    using C = compute_t<T>;

    using Words = Pack<u32, 4>;
    struct Place {
        int start;     // of a pack, in the row
        bool own;      // whether it has elements of the row
        int from, to;  // its elements that are
    };

    int n, member, before;
    u64 owned;          // a bit for each element of each pack: whether it is of the row
    Words raw[kPacks];  // not elements: the compiler would take words apart where those of the row meet the others
    C values[kPacks][kWidth];

    static DEVICE bool takes(i64 length) { return length <= kTeam * kWholePacks * kWidth; }

    DEVICE HeldRow(const T* row, i64 length, C filler) : n(int(length)), member(threadIdx.x % kTeam), owned(0) {
        before = kShifted ? elements_past_boundary<kWidth>(row) : 0;
        C fillers[kWidth];
#pragma unroll
        for (int j = 0; j < kWidth; ++j) fillers[j] = filler;
        const Words filled = bits_as<Words>(stored<T>(fillers));
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            const Place at = held_place(u);
            raw[u] = at.own ? load_aligned<4>(reinterpret_cast<const u32*>(row + at.start)) : filled;
            if constexpr (kShifted) {
                const u32 bits = bits_between(at.from, at.to);
                owned |= u64(bits) << (u * kWidth);
                if (at.own && bits != (1u << kWidth) - 1) mix<sizeof(T)>(raw[u], filled, bits);
            }
        }
        if constexpr (kChanges) {
#pragma unroll
            for (int u = 0; u < kPacks; ++u) {
#pragma unroll
                for (int j = 0; j < kWidth; ++j) values[u][j] = at(u, j);
            }
        }
    }
    DEVICE C at(int u, int j) const { return to_compute(element(bits_as<Pack<T, kWidth>>(raw[u]), j)); }
    DEVICE bool is_own(int u, int j) const {
        return kShifted ? bool(owned >> (u * kWidth + j) & 1) : held_place(u).own;
    }
    DEVICE Place held_place(int u) const {
        const int start = (u * kTeam + member) * kWidth - before;
        if constexpr (!kShifted) return {start, start < n, 0, kWidth};
        return {start, start < n, start < 0 ? -start : 0, n - start < kWidth ? n - start : kWidth};
    }
    template <class F>
    DEVICE void for_elements(F f) {
        const bool has_last = !kShifted || n + before > kTeam * kWholePacks * kWidth;
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            if (kShifted && u == kPacks - 1 && !has_last) continue;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                if constexpr (kChanges) {
                    f(values[u][j], is_own(u, j));
                } else {
                    C x = at(u, j);
                    f(x, is_own(u, j));
                }
            }
        }
        if constexpr (!kChanges) forget_values();
    }
    template <class O, class F>
    DEVICE void write(O* out, F f) {
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            const Place place = held_place(u);
            if (!place.own) continue;
            const auto of_element = f(place, u);
            compute_t<O> made[kWidth];
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                if constexpr (kChanges) {
                    made[j] = compute_t<O>(of_element(values[u][j], j));
                } else {
                    made[j] = compute_t<O>(of_element(at(u, j), j));
                }
            }
            if constexpr (kShifted) {
                store_range<kWidth>(out + place.start, stored<O>(made), place.from, place.to);
            } else {
                store_aligned<kWidth>(out + place.start, stored<O>(made));
            }
        }
    }
    template <class Op>
    static DEVICE typename Op::State merge(typename Op::State s) {
        return merge_team<Op, kTeam>(s);
    }
    template <class V>
    static DEVICE Pack<V, kWidth> load(const V* row, Place at) {
        if constexpr (kShifted) return load_unaligned<kWidth>(row + at.start, at.from, at.to);
        Pack<u32, kWidth * sizeof(V) / 4> words{};
        if (at.own) words = load_aligned<kWidth * sizeof(V) / 4>(reinterpret_cast<const u32*>(row + at.start));
        return bits_as<Pack<V, kWidth>>(words);
    }
    DEVICE void forget_values() {
        if constexpr (sizeof(T) < 4) {
#pragma unroll
            for (int u = 0; u < kPacks; ++u) forget_made_of(raw[u]);
        }
    }
};

// A vector along the row, such as a weight. If there are registers for it, it is loaded together with the row, before
// the sums that its use waits for.
template <class T, class R>
struct Companion {
    const T* p;
    Pack<T, R::kWidth> held[R::kHoldsVectors ? R::kPacks : 1];

    DEVICE Companion(const T* vector, const R& row) : p(vector) {
        if constexpr (R::kHoldsVectors) {
#pragma unroll
            for (int u = 0; u < R::kPacks; ++u) held[u] = R::load(p, row.held_place(u));
        }
    }
    DEVICE Pack<T, R::kWidth> pack(typename R::Place at, int u) const {
        if constexpr (R::kHoldsVectors) return held[u];
        return R::load(p, at);
    }
};
