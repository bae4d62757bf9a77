// Decoding's attention with tensor cores: few rows are padded to the 16 of a tile, which costs nothing that is short.
//
// A warp takes tiles of 16 keys, the next ones on their way into shared memory: with few keys for each, all of them
// from the start. Rows there are one chunk longer than they need be, an odd number of them, so that the lanes of a warp
// read from different banks; so do the rows of sums, by 8 floats.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

template <class T_, int kD_, int kDv_, int kRows_, int kThreads_, int kStages_, int kMaxSplits_, int kCluster_>
struct MmaShape : SplitShape<kDv_, kRows_, kThreads_, kMaxSplits_, kCluster_, kDv_ + 8> {
    using T = T_;
    static constexpr int kD = kD_, kDv = kDv_, kStages = kStages_, kKeys = 16;
    static_assert(kD % 16 == 0 && kDv % 16 == 0 && kRows_ <= 16 && sizeof(T) == 2);
    static constexpr int kKeyChunks = kD / 8, kValueChunks = kDv / 8;
    static constexpr int kKeyStride = kKeyChunks + 1, kValueStride = kValueChunks + 1;  // chunks from row to row
    static constexpr int kTileChunks = kKeys * (kKeyStride + kValueStride);
    static constexpr int kRingChunks = MmaShape::kWarps * kStages * kTileChunks;  // queries lie behind them
    static constexpr int kInboxAt = MmaShape::inbox_at((kRingChunks + kRows_ * kKeyStride) * 16);
    static constexpr int kSharedBytes = kInboxAt + MmaShape::kInboxBytes;
};

// Starts copying rows of kChunks chunks into a tile, zeros for those from `end` on; by a warp.
template <int kRows, int kChunks, class T>
DEVICE void fetch_tile(uint4* to, const T* from, i64 stride, i64 first, i64 end, bool aligned) {
    const int lane = threadIdx.x % 32;
    if (!aligned) {
#pragma unroll 1  // seldom: few instructions are worth more than speed
        for (int c = lane; c < kRows * kChunks; c += 32) {
            const int row = c / kChunks, column = c % kChunks;
            const bool wanted = first + row < end;
            const T* place = from + (wanted ? first + row : 0) * stride + column * 8;
            to[row * (kChunks + 1) + column] = load_elements(place, wanted ? 8 : 0).raw;
        }
    } else if constexpr (32 % kChunks == 0) {  // a lane stays in its column
        constexpr int kStep = 32 / kChunks;
        const int row = lane / kChunks, column = lane % kChunks;
        const T* place = from + (first + row) * stride + column * 8;
        uint4* slot = to + row * (kChunks + 1) + column;
        const int rows = int(min_i64(end - first, kRows)) - row;
#pragma unroll
        for (int r = 0; r < kRows; r += kStep) {
            copy_async<true>(slot + r * (kChunks + 1), r < rows ? place : from, r < rows);
            place += kStep * stride;
        }
    } else {
#pragma unroll
        for (int c = lane; c < kRows * kChunks; c += 32) {
            const int row = c / kChunks, column = c % kChunks;
            const bool wanted = first + row < end;
            const T* place = from + (wanted ? first + row : 0) * stride + column * 8;
            copy_async<true>(to + row * (kChunks + 1) + column, place, wanted);
        }
    }
}

// The same as decode_part. Weights are rounded to T where they multiply the values.
template <class S, class Query, class Adjust>
DEVICE DecodePart<S> decode_part_mma(uint4* shared, Query query, float scale, const typename S::T* k, i64 k_stride,
                                     const typename S::T* v, i64 v_stride, i64 begin, i64 end, Adjust adjust) {
    using T = typename S::T;
    constexpr int kRows = S::kRows, kStages = S::kStages, kHalves = kRows > 8 ? 2 : 1;  // of the tile's rows, in use
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = 2 * (lane % 4);
    uint4* ring = shared + warp * kStages * S::kTileChunks;
    const bool aligned = is_chunk_aligned(k, k_stride) && is_chunk_aligned(v, v_stride);

    const i64 tiles = ceil_div(end - begin, S::kKeys);
    const i64 steps = tiles > warp ? ceil_div(tiles - warp, S::kWarps) : 0;
    auto first_key = [&](i64 step) { return begin + (step * S::kWarps + warp) * S::kKeys; };
    auto fetch = [&](i64 step, int stage) {
        if (step < steps) {
            uint4* to = ring + stage * S::kTileChunks;
            const i64 first = first_key(step);
            fetch_tile<S::kKeys, S::kKeyChunks>(to, k, k_stride, first, end, aligned);
            fetch_tile<S::kKeys, S::kValueChunks>(to + S::kKeys * S::kKeyStride, v, v_stride, first, end, aligned);
        }
        end_copy_group();
    };
#pragma unroll 1
    for (int s = 0; s < kStages; ++s) fetch(s, s);

    uint4* queries = shared + S::kRingChunks;
    for (int c = threadIdx.x; c < kRows * S::kKeyChunks; c += S::kThreads) {
        const int row = c / S::kKeyChunks, column = c % S::kKeyChunks;
        queries[row * S::kKeyStride + column] = load_elements(query(row) + column * 8, 8).raw;
    }
    __syncthreads();
    // Of four matrices to be loaded, the one that this lane has a row of, and which.
    const int matrix = lane / 8, matrix_row = lane % 8;
    const int query_row = 8 * (matrix % 2) + matrix_row;  // the products of rows from kRows on are not used
    const uint4* own_query = queries + (query_row < kRows ? query_row : 0) * S::kKeyStride + matrix / 2;
    u32 q[S::kD / 16][4];
#pragma unroll
    for (int d = 0; d < S::kD / 16; ++d) load_matrices<false>(q[d], own_query + 2 * d);

    float sum[S::kDv / 8][4] = {}, maximum[2] = {-float_infinity(), -float_infinity()}, total[2] = {};
    int stage = 0;
    for (i64 step = 0; step < steps; ++step) {
        wait_copy_groups<kStages - 1>();
        __syncwarp();
        const uint4* keys = ring + stage * S::kTileChunks;
        const uint4* values = keys + S::kKeys * S::kKeyStride;

        float score[2][4] = {};  // of keys 8 j + t, t + 1
#pragma unroll
        for (int d = 0; d < S::kD / 16; ++d) {
            u32 b[4];  // 8 keys with features 16 d and 16 d + 8 on, then the other 8
            load_matrices<false>(b, keys + (8 * (matrix / 2) + matrix_row) * S::kKeyStride + 2 * d + matrix % 2);
#pragma unroll
            for (int j = 0; j < 2; ++j) multiply_tiles<T>(score[j], q[d], {b[2 * j], b[2 * j + 1]});
        }
        const i64 first = first_key(step);
        u32 weights[4] = {};
        float shrink[2] = {1, 1};
#pragma unroll
        for (int h = 0; h < kHalves; ++h) {
            const int row = g + 8 * h < kRows ? g + 8 * h : kRows - 1;
            float top = maximum[h];
#pragma unroll
            for (int j = 0; j < 2; ++j) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float& s = score[j][2 * h + i];
                    const i64 key = first + 8 * j + t + i;
                    s = key < end ? adjust(row, key, s * scale) : -float_infinity();
                    top = fmaxf(top, s);  // a NaN shows in the total
                }
            }
            top = fmaxf(top, shuffle_xor(top, 1));
            top = fmaxf(top, shuffle_xor(top, 2));
            const float zero = reference(top);
            shrink[h] = exp2f(maximum[h] - zero);
            maximum[h] = top;
            total[h] *= shrink[h];
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float w0 = exp2f(score[j][2 * h] - zero), w1 = exp2f(score[j][2 * h + 1] - zero);
                total[h] += w0 + w1;
                weights[h + 2 * j] = pack_pair(from_compute<T>(w0), from_compute<T>(w1));
            }
        }
#pragma unroll
        for (int n = 0; n < S::kDv / 8; n += 2) {
            u32 b[4];  // both 8 keys with features 8 n on, then with 8 n + 8 on
            load_matrices<true>(b, values + (8 * (matrix % 2) + matrix_row) * S::kValueStride + n + matrix / 2);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
#pragma unroll
                for (int i = 0; i < 2 * kHalves; ++i) sum[n + j][i] *= shrink[i / 2];
                multiply_tiles<T>(sum[n + j], weights, {b[2 * j], b[2 * j + 1]});
            }
        }
        __syncwarp();
        fetch(step + kStages, stage);  // into the slots that have been read
        stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    wait_copy_groups<0>();
    __syncthreads();  // the ring's memory is used anew

    const WarpParts<S> parts(shared);
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
        const int row = g + 8 * h;
        total[h] += shuffle_xor(total[h], 1);
        total[h] += shuffle_xor(total[h], 2);
        if (row >= kRows) continue;
#pragma unroll
        for (int n = 0; n < S::kDv / 8; ++n) {
            *reinterpret_cast<Pack<float, 2>*>(parts.sum(warp, row) + 8 * n + t) = {sum[n][2 * h], sum[n][2 * h + 1]};
        }
        if (t == 0) {
            parts.maxima[warp * kRows + row] = maximum[h];
            parts.totals[warp * kRows + row] = total[h];
        }
    }
    return parts.merged();
}
