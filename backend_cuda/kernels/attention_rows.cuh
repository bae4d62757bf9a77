// Attention of any number of queries: a block takes a tile of them, and goes over the keys tile by tile.
#pragma once
#include "attention.cuh"

DEVICE float exp2_of(float x) { return exp2f(x); }
DEVICE double exp2_of(double x) { return exp2(x); }
DEVICE float largest(float a, float b) { return fmaxf(a, b); }
DEVICE double largest(double a, double b) { return fmax(a, b); }
DEVICE double reference(double maximum) { return maximum == -double_infinity() ? 0.0 : maximum; }

// 256 threads in 16 rows of 16. A thread has kQ_ queries and kK_ keys of a tile, and value features 16 apart.
template <class T_, int kD_, int kDv_, int kQ_, int kK_>
struct RowsShape {
    using T = T_;
    using C = compute_t<T>;
    static constexpr int kD = kD_, kDv = kDv_, kQ = kQ_, kK = kK_, kThreads = 256;
    static constexpr int kQueries = 16 * kQ, kKeys = 16 * kK;  // of a tile
    static constexpr int kDepth = 32, kColumns = 64;           // features of q and k, and of v, taken at a time
    static constexpr int kValueParts = (kDv + kColumns - 1) / kColumns;
    static constexpr int kFactorElements = (kQueries + kKeys) * (kDepth + 1), kValueElements = kKeys * kColumns;
    static constexpr int kTileElements = kFactorElements > kValueElements ? kFactorElements : kValueElements;
    static constexpr int kSharedElements = kTileElements + kQueries * (kKeys + 1);
};

// Rows [0, rows) and features [first, first + kWidth) of a matrix to shared memory, as computed with; zeros beyond.
template <int kRows, int kWidth, int kPitch, int kThreads, class T, class Row>
DEVICE void load_tile(compute_t<T>* shared, Row row, i64 rows, int first, int size, compute_t<T> factor) {
    constexpr int N = Chunk<T>::kSize, kPacks = kWidth / N;
    for (int i = threadIdx.x; i < kRows * kPacks; i += kThreads) {
        const int r = i / kPacks, at = first + i % kPacks * N;
        const i64 count = r < rows ? size - at : 0;
        const Pack<T, N> x = load_pack<N>(row(r < rows ? r : 0) + (count > 0 ? at : 0), count);
#pragma unroll
        for (int j = 0; j < N; ++j) shared[r * kPitch + i % kPacks * N + j] = to_compute(x.v[j]) * factor;
    }
}

// query(i), key(i) and value(i) are pointers to rows; adjust(i, key, score) applies a mask; sink is the score of the
// sink, -infinity for none; store(i, feature, value) writes the result. `queries` of the tile exist, and keys [0, end)
// are seen.
template <class S, class Query, class Key, class Value, class Adjust, class Store>
DEVICE void attend_rows(typename S::C* shared, Query query, i64 queries, Key key, Value value, i64 end,
                        typename S::C scale, typename S::C sink, Adjust adjust, Store store) {
    using T = typename S::T;
    using C = typename S::C;
    constexpr int kQ = S::kQ, kK = S::kK, kPitch = S::kDepth + 1, kColumns = S::kColumns / 16;
    const int across = threadIdx.x % 16, down = threadIdx.x / 16;
    C* q_tile = shared;
    C* k_tile = shared + S::kQueries * kPitch;
    C* v_tile = shared;  // in the place of both
    C* weights = shared + S::kTileElements;

    C sum[kQ][S::kValueParts][kColumns] = {}, maximum[kQ], total[kQ] = {};
#pragma unroll
    for (int i = 0; i < kQ; ++i) maximum[i] = -C(float_infinity());

    for (i64 first = 0; first < end; first += S::kKeys) {
        C score[kQ][kK] = {};
        for (int depth = 0; depth < S::kD; depth += S::kDepth) {
            __syncthreads();
            load_tile<S::kQueries, S::kDepth, kPitch, S::kThreads, T>(q_tile, query, queries, depth, S::kD, scale);
            load_tile<S::kKeys, S::kDepth, kPitch, S::kThreads, T>(
                k_tile, [&](i64 r) { return key(first + r); }, end - first, depth, S::kD, C(1));
            __syncthreads();
#pragma unroll 8
            for (int d = 0; d < S::kDepth; ++d) {
                C a[kQ], b[kK];
#pragma unroll
                for (int i = 0; i < kQ; ++i) a[i] = q_tile[(down * kQ + i) * kPitch + d];
#pragma unroll
                for (int j = 0; j < kK; ++j) b[j] = k_tile[(across + 16 * j) * kPitch + d];
#pragma unroll
                for (int i = 0; i < kQ; ++i) {
#pragma unroll
                    for (int j = 0; j < kK; ++j) score[i][j] = multiply_add(a[i], b[j], score[i][j]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kQ; ++i) {
            C top = maximum[i];
#pragma unroll
            for (int j = 0; j < kK; ++j) {
                const i64 at = first + across + 16 * j;
                score[i][j] = at < end ? adjust(down * kQ + i, at, score[i][j]) : -C(float_infinity());
                top = largest(top, score[i][j]);
            }
#pragma unroll
            for (int lanes = 8; lanes > 0; lanes /= 2) top = largest(top, shuffle_xor(top, lanes));
            const C zero = reference(top), shrink = exp2_of(maximum[i] - zero);
            maximum[i] = top;
            total[i] *= shrink;  // this thread's keys only
#pragma unroll
            for (int j = 0; j < kK; ++j) {
                const C weight = exp2_of(score[i][j] - zero);
                total[i] += weight;
                weights[(down * kQ + i) * (S::kKeys + 1) + across + 16 * j] = weight;
            }
#pragma unroll
            for (int p = 0; p < S::kValueParts; ++p) {
#pragma unroll
                for (int c = 0; c < kColumns; ++c) sum[i][p][c] *= shrink;
            }
        }
#pragma unroll
        for (int p = 0; p < S::kValueParts; ++p) {
            __syncthreads();
            load_tile<S::kKeys, S::kColumns, S::kColumns, S::kThreads, T>(
                v_tile, [&](i64 r) { return value(first + r); }, end - first, p * S::kColumns, S::kDv, C(1));
            __syncthreads();
            const int keys = int(min_i64(S::kKeys, end - first));
#pragma unroll 4
            for (int r = 0; r < keys; ++r) {
                C a[kQ], b[kColumns];
#pragma unroll
                for (int i = 0; i < kQ; ++i) a[i] = weights[(down * kQ + i) * (S::kKeys + 1) + r];
#pragma unroll
                for (int c = 0; c < kColumns; ++c) b[c] = v_tile[r * S::kColumns + across + 16 * c];
#pragma unroll
                for (int i = 0; i < kQ; ++i) {
#pragma unroll
                    for (int c = 0; c < kColumns; ++c) sum[i][p][c] = multiply_add(a[i], b[c], sum[i][p][c]);
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < kQ; ++i) {
#pragma unroll
        for (int lanes = 8; lanes > 0; lanes /= 2) total[i] += shuffle_xor(total[i], lanes);
        const C zero = reference(largest(maximum[i], sink)), factor = exp2_of(maximum[i] - zero);
        const C scaled = factor / (total[i] * factor + exp2_of(sink - zero));
        if (down * kQ + i >= queries) continue;
#pragma unroll
        for (int p = 0; p < S::kValueParts; ++p) {
#pragma unroll
            for (int c = 0; c < kColumns; ++c) {
                const int feature = p * S::kColumns + across + 16 * c;
                if (feature < S::kDv) store(down * kQ + i, feature, sum[i][p][c] * scaled);
            }
        }
    }
}
