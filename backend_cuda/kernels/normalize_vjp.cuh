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

// The part of a row of kD elements that one of kTeam threads has. Elements beyond the row are zeros.
template <class T, int kTeam_, int kD_>
struct RowPart {
    static constexpr int kTeam = kTeam_, kD = kD_, kWidth = 16 / sizeof(T);
    static constexpr int kPacks = (kD + kTeam * kWidth - 1) / (kTeam * kWidth);
    float v[kPacks][kWidth];

    static DEVICE int column(int u) { return (u * kTeam + int(threadIdx.x % kTeam)) * kWidth; }
    static DEVICE bool has(int u, int j) { return column(u) + j < kD; }

    // As it is stored: half the registers of floats, for elements of 16 bits.
    struct Raw {
        Pack<T, kWidth> packs[kPacks];
        DEVICE void forget_floats() {
            if constexpr (sizeof(T) < 4) {
#pragma unroll
                for (int u = 0; u < kPacks; ++u) {
                    auto words = bits_as<Pack<u32, 4>>(packs[u]);
                    forget_made_of(words);
                    packs[u] = bits_as<Pack<T, kWidth>>(words);
                }
            }
        }
    };
    static DEVICE Raw load(const T* row) {
        Raw raw;
#pragma unroll
        for (int u = 0; u < kPacks; ++u) raw.packs[u] = load_pack<kWidth>(row + column(u), kD - column(u));
        return raw;
    }
    static DEVICE float at(const Raw& raw, int u, int j) { return to_compute(element(raw.packs[u], j)); }
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
            Pack<T, kWidth> pack;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) pack.v[j] = from_compute<T>(f(at(rows, u, j)...));
            store_pack<kWidth>(row + column(u), pack, kD - column(u));
        }
    }
    template <class Op>
    static DEVICE typename Op::State merge(typename Op::State s) {
        return merge_team<Op, kTeam>(s);
    }
    // This block's sums, from those of its teams, to sums[0, kD).
    template <int kThreads>
    DEVICE void store_sums(float* sums) const {
        constexpr int kTeams = kThreads / kTeam;
        __shared__ float all[kTeams * kD];
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
