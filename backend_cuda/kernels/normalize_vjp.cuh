// Gradients of normalisations: rows in registers, columns added up as long as a block lives.
#pragma once
#include "reduce.cuh"

// Two sums at a time.
struct TwoSums {
    struct State {
        float first, second;
    };
    static DEVICE State identity() { return {0, 0}; }
    static DEVICE void merge(State& s, State other) {
        s.first += other.first;
        s.second += other.second;
    }
};

// The part of a row of kD elements that one of kTeam threads has. Elements beyond the row are zeros. Where rows are
// kWhole, each pack is aligned, and all of it is of the row or nothing.
template <class T, int kTeam_, int kD_, bool kWhole>
struct RowPart {
    static constexpr int kTeam = kTeam_, kD = kD_, kWidth = 16 / sizeof(T);
    static constexpr int kPacks = (kD + kTeam * kWidth - 1) / (kTeam * kWidth);
    float v[kPacks][kWidth];

    static DEVICE int column(int u) { return (u * kTeam + int(threadIdx.x % kTeam)) * kWidth; }
    static DEVICE bool has(int u, int j) { return kD % (kTeam * kWidth) == 0 || column(u) + (kWhole ? 0 : j) < kD; }

    // As it is stored, in words: half the registers of floats, for elements of 16 bits.
    struct Raw {
        Pack<u32, 4> packs[kPacks];
        DEVICE void forget_floats() {
            if constexpr (sizeof(T) < 4) {
#pragma unroll
                for (int u = 0; u < kPacks; ++u) forget_made_of(packs[u]);
            }
        }
    };
    static DEVICE Raw load(const T* row) {
        Raw raw;
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            const T* const pack = row + column(u);
            if (!kWhole) {
                raw.packs[u] = bits_as<Pack<u32, 4>>(load_pack<kWidth>(pack, kD - column(u)));
            } else if (has(u, 0)) {
                raw.packs[u] = load_aligned<4>(reinterpret_cast<const u32*>(pack));
            } else {
                raw.packs[u] = Pack<u32, 4>{};
            }
        }
        return raw;
    }
    static DEVICE float at(const Raw& raw, int u, int j) {
        return to_compute(element(bits_as<Pack<T, kWidth>>(raw.packs[u]), j));
    }
    static DEVICE float& at(RowPart& part, int u, int j) { return part.v[u][j]; }
    struct Own {};  // whether an element is of the row
    static DEVICE bool at(Own, int u, int j) { return has(u, j); }

    DEVICE RowPart() : v{} {}
    DEVICE explicit RowPart(const Raw& raw) {
        for_each([](float& to, float from) { to = from; }, *this, raw);
    }
    // f(a, b, ...) for the elements that rows have at the same place.
    template <class F, class... Rows>
    static DEVICE void for_each(F f, Rows&... rows) {
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
#pragma unroll
            for (int j = 0; j < kWidth; ++j) f(at(rows, u, j)...);
        }
    }
    // Stores f(a, b, ...).
    template <class F, class... Rows>
    static DEVICE void store_each(T* row, F f, Rows&... rows) {
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            float made[kWidth];
#pragma unroll
            for (int j = 0; j < kWidth; ++j) made[j] = f(at(rows, u, j)...);
            const Pack<T, kWidth> pack = stored<T>(made);
            if (!kWhole) {
                store_pack<kWidth>(row + column(u), pack, kD - column(u));
            } else if (has(u, 0)) {
                store_aligned<kWidth>(row + column(u), pack);
            }
        }
    }
    template <class Op>
    static DEVICE typename Op::State merge(typename Op::State s) {
        return merge_team<Op, kTeam>(s);
    }
    // This block's sums, from those of its teams, to sums[0, kD). `all` is shared memory for those of each team.
    template <int kThreads>
    DEVICE void store_sums(float* sums, float* all) const {
        constexpr int kTeams = kThreads / kTeam;
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                if (has(u, j)) all[threadIdx.x / kTeam * kD + column(u) + j] = v[u][j];
            }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < kD; i += kThreads) {
            float total = 0;
#pragma unroll
            for (int t = 0; t < kTeams; ++t) total += all[t * kD + i];
            sums[i] = total;
        }
    }
};
