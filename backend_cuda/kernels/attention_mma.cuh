// Decoding's attention with tensor cores: few rows are padded to the 16 of a tile, which costs nothing that is short.
//
// A warp takes tiles of 16 keys, the next ones on their way into shared memory. Rows there are one chunk longer than
// they need be, an odd number of them, so that the lanes of a warp read from different banks.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

template <class T_, int kD_, int kDv_, int kRows_, int kThreads_, int kStages_, int kMaxSplits_>
struct MmaShape : SplitShape<kDv_, kRows_, kThreads_, kMaxSplits_> {
    using T = T_;
    static constexpr int kD = kD_, kDv = kDv_, kStages = kStages_, kKeys = 16;
    static_assert(kD % 16 == 0 && kDv % 16 == 0 && kRows_ <= 16 && sizeof(T) == 2);
    static constexpr int kKeyChunks = kD / 8, kValueChunks = kDv / 8;
    static constexpr int kKeyStride = kKeyChunks + 1, kValueStride = kValueChunks + 1;  // chunks from row to row
    static constexpr int kTileChunks = kKeys * (kKeyStride + kValueStride);
    static constexpr int kSharedBytes = MmaShape::shared_bytes(MmaShape::kWarps * kStages * kTileChunks * 16);
};

// Starts copying rows of kChunks chunks into a tile, zeros for those from `end` on; by a warp.
template <int kRows, int kChunks, class T>
DEVICE void fetch_tile(uint4* to, const T* from, i64 stride, i64 first, i64 end, bool aligned) {
#pragma unroll
    for (int c = threadIdx.x % 32; c < kRows * kChunks; c += 32) {
        const int row = c / kChunks, column = c % kChunks;
        const bool wanted = first + row < end;
        const T* place = from + (wanted ? first + row : 0) * stride + column * 8;
        uint4* slot = to + row * (kChunks + 1) + column;
        if (aligned) {
            copy_async<true>(slot, place, wanted);
        } else {
            *slot = load_elements(place, wanted ? 8 : 0).raw;
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

    auto first_key = [&](i64 step) { return begin + (step * S::kWarps + warp) * S::kKeys; };
    auto fetch = [&](i64 step, int stage) {
        uint4* to = ring + stage * S::kTileChunks;
        const i64 first = first_key(step);
        fetch_tile<S::kKeys, S::kKeyChunks>(to, k, k_stride, first, end, aligned);
        fetch_tile<S::kKeys, S::kValueChunks>(to + S::kKeys * S::kKeyStride, v, v_stride, first, end, aligned);
        end_copy_group();
    };
#pragma unroll 1
    for (int s = 0; s < kStages - 1; ++s) fetch(s, s);

    u32 q[S::kD / 16][4];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = g + 8 * h;
        const T* from = row < kRows ? query(row) : nullptr;
#pragma unroll
        for (int d = 0; d < S::kD / 16; ++d) {
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                const int at = 16 * d + 8 * c + t;
                q[d][h + 2 * c] = h < kHalves && from ? pack_pair(from[at], from[at + 1]) : 0;
            }
        }
    }

    float sum[S::kDv / 8][4] = {}, maximum[2] = {-float_infinity(), -float_infinity()}, total[2] = {};
    const i64 tiles = ceil_div(end - begin, S::kKeys);
    const i64 steps = tiles > warp ? ceil_div(tiles - warp, S::kWarps) : 0;
    int stage = 0;
    for (i64 step = 0; step < steps; ++step) {
        wait_copy_groups<kStages - 2>();
        __syncwarp();
        // Into the slots that the step before has read.
        fetch(step + kStages - 1, stage == 0 ? kStages - 1 : stage - 1);
        const T* keys = reinterpret_cast<const T*>(ring + stage * S::kTileChunks);
        const T* values = keys + S::kKeys * S::kKeyStride * 8;

        float score[2][4] = {};  // of keys 8 j + t, t + 1
#pragma unroll
        for (int d = 0; d < S::kD / 16; ++d) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const T* from = keys + (8 * j + g) * S::kKeyStride * 8 + 16 * d + t;
                const u32 b[2] = {*reinterpret_cast<const u32*>(from), *reinterpret_cast<const u32*>(from + 8)};
                multiply_tiles<T>(score[j], q[d], b);
            }
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
        for (int n = 0; n < S::kDv / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 2 * kHalves; ++i) sum[n][i] *= shrink[i / 2];
            const T* from = values + t * S::kValueStride * 8 + 8 * n + g;
            constexpr int kNext = S::kValueStride * 8;
            const u32 b[2] = {pack_pair(from[0], from[kNext]), pack_pair(from[8 * kNext], from[9 * kNext])};
            multiply_tiles<T>(sum[n], weights, b);
        }
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
#pragma unroll
            for (int i = 0; i < 2; ++i) parts.sum(warp, row)[8 * n + t + i] = sum[n][2 * h + i];
        }
        if (t == 0) {
            parts.maxima[warp * kRows + row] = maximum[h];
            parts.totals[warp * kRows + row] = total[h];
        }
    }
    return parts.merged();
}
