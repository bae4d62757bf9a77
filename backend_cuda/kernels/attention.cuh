// Attention of few queries over many keys: keys and values are read once, for all the heads that share them.
//
// Scores are kept in base 2 (scale, additive masks and sinks come multiplied by log2(e)), so that exp2 does. A running
// maximum, the sum of weights and the weighted sum of values are kept for every row, a row being a head and a query.
#pragma once
#include "chunk.cuh"

constexpr double kLog2e64 = 1.4426950408889634;
constexpr float kLog2e = float(kLog2e64);
// The score of a key that a query must not see: finite, so that a query that sees none takes the average, as in MLX.
constexpr float kMasked = -3.0e38f;

// The maximum as a reference for exp2: no infinity is subtracted from an infinity.
DEVICE float reference(float maximum) { return maximum == -float_infinity() ? 0.0f : maximum; }

DEVICE constexpr int power_of_two_from(int n) {
    int p = 1;
    while (p < n) p *= 2;
    return p;
}

// What the parts of a block and of several blocks need to be added up: shared memory for the sums of the warps, for the
// weights of the splits with what is copied of them at a time, and behind these, for what the blocks of a cluster send
// to one another: of each a slice of the sums, and the maximum and total of every row.
template <int kDv_, int kRows_, int kThreads_, int kMaxSplits_, int kCluster_, int kSumStride_ = kDv_>
struct SplitShape {
    static constexpr int kDv = kDv_, kRows = kRows_, kThreads = kThreads_, kWarps = kThreads / 32;
    static constexpr int kMaxSplits = kMaxSplits_;
    static constexpr int kSumStride = kSumStride_;  // floats from one row's sums to the next's
    static constexpr int kSumBytes = kRows * (kWarps * (kSumStride + 2) + 2) * 4;
    static constexpr u32 kCopies = kRows <= 12 ? 2048 : 1024;  // of parts, in flight
    static constexpr u32 kPartsAtOnce = kCopies / kThreads > 2 ? kCopies / kThreads : 2;
    static constexpr int kWeightBytes = (kRows * kMaxSplits * 4 + 15) / 16 * 16;
    static constexpr int kSplitBytes = kWeightBytes + kPartsAtOnce * kThreads * 16;
    static constexpr int kCluster = kHasClusters ? kCluster_ : 1;
    static constexpr int kSlice = (kRows * kDv + kCluster_ - 1) / kCluster_, kSent = kSlice + 2 * kRows;
    static constexpr int kInboxBytes = kCluster_ > 1 ? (kCluster_ * kSent * 4 + 15) / 16 * 16 : 0;
    static DEVICE constexpr int inbox_at(int ring) {
        const int most = ring > kSumBytes ? ring : kSumBytes;
        return (most > kSplitBytes ? most : kSplitBytes) / 16 * 16 + 16;
    }
};

template <class T_, int kD_, int kDv_, int kRows_, int kThreads_, int kKeys_, int kStages_, int kMaxSplits_,
          int kCluster_>
struct DecodeShape : SplitShape<kDv_, kRows_, kThreads_, kMaxSplits_, kCluster_> {
    using T = T_;
    static constexpr int kD = kD_, kDv = kDv_, kThreads = kThreads_, kKeys = kKeys_, kStages = kStages_;
    static constexpr int N = Chunk<T>::kSize;
    static constexpr int kChunks = (kD + N - 1) / N, kValueChunks = (kDv + N - 1) / N;
    static constexpr int kWidest = kChunks > kValueChunks ? kChunks : kValueChunks;
    // Threads that share a key, and the chunks that each of them takes of the key and of the value.
    static constexpr int kLanes = kWidest >= 32 ? 32 : power_of_two_from(kWidest);
    static constexpr int kC = (kChunks + kLanes - 1) / kLanes, kCv = (kValueChunks + kLanes - 1) / kLanes;
    static constexpr int kStreams = kThreads / kLanes;
    static constexpr int kSlots = kKeys * (kC + kCv);
    // Shared memory, used in turn for keys and values in flight, the sums of the warps, and the weights of the splits.
    static constexpr int kInboxAt = DecodeShape::inbox_at(kSlots * kStages * kThreads * 16);
    static constexpr int kSharedBytes = kInboxAt + DecodeShape::kInboxBytes;
};

// What is found of one split: for every row, in shared memory, the weighted sum of values (kDv of kSumStride), the
// maximum and the sum of weights.
template <class S>
struct DecodePart {
    const float* sum;
    const float* maximum;
    const float* total;
};

// What each warp found, in shared memory, and their sum.
template <class S>
struct WarpParts {
    static constexpr int kRows = S::kRows, kDv = S::kDv, kWarps = S::kWarps, kStride = S::kSumStride;
    float* sums;    // [warp][row][feature, of kStride]
    float* maxima;  // [warp][row], then weights
    float* totals;  // [warp][row]

    DEVICE WarpParts(uint4* shared)
        : sums(reinterpret_cast<float*>(shared)),
          maxima(sums + kWarps * kRows * kStride),
          totals(maxima + kWarps * kRows) {}
    DEVICE float* sum(int warp, int row) const { return sums + (warp * kRows + row) * kStride; }
    // To be called by all threads, after their writes.
    DEVICE DecodePart<S> merged() const {
        float* row_maximum = totals + kWarps * kRows;  // [row]
        float* row_total = row_maximum + kRows;        // [row]
        __syncthreads();
        // A lane for each warp's part of a row.
        static_assert(kWarps <= 32);
        const int lane = threadIdx.x % 32;
        for (int r = threadIdx.x / 32; r < kRows; r += kWarps) {
            const float mine = lane < kWarps ? maxima[lane * kRows + r] : -float_infinity();
            float top = mine;
#pragma unroll
            for (int lanes = 16; lanes > 0; lanes /= 2) top = fmaxf(top, shuffle_xor(top, lanes));
            const float weight = exp2f(mine - reference(top));
            float t = lane < kWarps ? weight * totals[lane * kRows + r] : 0;
#pragma unroll
            for (int lanes = 16; lanes > 0; lanes /= 2) t += shuffle_xor(t, lanes);
            if (lane < kWarps) maxima[lane * kRows + r] = weight;
            if (lane == 0) {
                row_maximum[r] = top;
                row_total[r] = t;
            }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < kRows * kDv; i += S::kThreads) {
            const int r = i / kDv, at = r * kStride + i % kDv;
            float t = 0;
#pragma unroll
            for (int w = 0; w < kWarps; ++w) t += maxima[w * kRows + r] * sums[w * kRows * kStride + at];
            sums[at] = t;  // warp 0's, which this thread alone reads
        }
        __syncthreads();
        return {sums, row_maximum, row_total};
    }
};

// One split: the keys in [begin, end).
//
// query(row) is a pointer to a row's kD features; adjust(row, key, score) applies a mask.
template <class S, class Query, class Adjust>
DEVICE DecodePart<S> decode_part(uint4* shared, Query query, float scale, const typename S::T* k, i64 k_stride,
                                 const typename S::T* v, i64 v_stride, i64 begin, i64 end, Adjust adjust) {
    using T = typename S::T;
    constexpr int N = S::N, kRows = S::kRows, kKeys = S::kKeys, kThreads = S::kThreads, kStages = S::kStages;
    const int lane = threadIdx.x % S::kLanes, stream = threadIdx.x / S::kLanes;

    float q[kRows][S::kC][N], sum[kRows][S::kCv][N] = {}, maximum[kRows], total[kRows] = {};

    uint4* own = shared + threadIdx.x;
    const bool aligned =
        S::kD % N == 0 && S::kDv % N == 0 && is_chunk_aligned(k, k_stride) && is_chunk_aligned(v, v_stride);
    auto fetch_row = [&](const T* row, int size, int chunks, int slot, bool inside) {
        const int first = lane * N;
#pragma unroll
        for (int c = 0; c < chunks; ++c) {
            const int at = first + c * S::kLanes * N;
            const bool wanted = inside && at < size;
            uint4* to = own + (slot + c) * kThreads;
            if (aligned) {
                copy_async<true>(to, row + (wanted ? at : 0), wanted);
            } else {
                *to = load_elements(row + at, wanted ? size - at : 0).raw;
            }
        }
    };
    auto key_of = [&](i64 step, int u) { return begin + (step * kKeys + u) * S::kStreams + stream; };
    auto fetch = [&](i64 step, int stage) {
#pragma unroll
        for (int u = 0; u < kKeys; ++u) {
            const i64 key = key_of(step, u);
            const i64 at = key < end ? key : begin;
            const int slot = stage * S::kSlots + u * (S::kC + S::kCv);
            fetch_row(k + at * k_stride, S::kD, S::kC, slot, key < end);
            fetch_row(v + at * v_stride, S::kDv, S::kCv, slot + S::kC, key < end);
        }
        end_copy_group();
    };

    const i64 steps = ceil_div(end - begin, S::kStreams * kKeys);  // the same for all threads, which meet in shuffles
#pragma unroll 1
    for (int s = 0; s < kStages - 1; ++s) fetch(s, s);
    // After the first copies are under way.
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        maximum[r] = -float_infinity();
        const T* from = query(r);
#pragma unroll
        for (int c = 0; c < S::kC; ++c) {
            const int first = (c * S::kLanes + lane) * N;
            unpack(load_elements(from + first, S::kD - first), q[r][c]);
#pragma unroll
            for (int i = 0; i < N; ++i) q[r][c][i] *= scale;
        }
    }

    int stage = 0;
    for (i64 step = 0; step < steps; ++step) {
        wait_copy_groups<kStages - 2>();
        // Into the slots that the step before has read.
        fetch(step + kStages - 1, stage == 0 ? kStages - 1 : stage - 1);
        float score[kKeys][kRows] = {};
#pragma unroll
        for (int u = 0; u < kKeys; ++u) {
            const int slot = stage * S::kSlots + u * (S::kC + S::kCv);
#pragma unroll
            for (int c = 0; c < S::kC; ++c) {
                float x[N];
                unpack(Chunk<T>{own[(slot + c) * kThreads]}, x);
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
#pragma unroll
                    for (int i = 0; i < N; ++i) score[u][r] = fmaf(q[r][c][i], x[i], score[u][r]);
                }
            }
        }
#pragma unroll
        for (int lanes = S::kLanes / 2; lanes > 0; lanes /= 2) {
#pragma unroll
            for (int u = 0; u < kKeys; ++u) {
#pragma unroll
                for (int r = 0; r < kRows; ++r) score[u][r] += shuffle_xor(score[u][r], lanes);
            }
        }
        float shrink[kRows];
        bool grown = false;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            float top = maximum[r];
#pragma unroll
            for (int u = 0; u < kKeys; ++u) {
                const i64 key = key_of(step, u);
                score[u][r] = key < end ? adjust(r, key, score[u][r]) : -float_infinity();
                top = fmaxf(top, score[u][r]);  // a NaN shows in the total
            }
            const float zero = reference(top);
            shrink[r] = exp2f(maximum[r] - zero);
            grown = grown || top != maximum[r];
            maximum[r] = top;
            total[r] *= shrink[r];
#pragma unroll
            for (int u = 0; u < kKeys; ++u) {
                score[u][r] = exp2f(score[u][r] - zero);
                total[r] += score[u][r];
            }
        }
        if (__any_sync(0xffffffffu, grown)) {  // seldom, after the first keys
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
#pragma unroll
                for (int c = 0; c < S::kCv; ++c) {
#pragma unroll
                    for (int i = 0; i < N; ++i) sum[r][c][i] *= shrink[r];
                }
            }
        }
#pragma unroll
        for (int u = 0; u < kKeys; ++u) {
            const int slot = stage * S::kSlots + u * (S::kC + S::kCv) + S::kC;
#pragma unroll
            for (int c = 0; c < S::kCv; ++c) {
                float x[N];
                unpack(Chunk<T>{own[(slot + c) * kThreads]}, x);
#pragma unroll
                for (int r = 0; r < kRows; ++r) {
#pragma unroll
                    for (int i = 0; i < N; ++i) sum[r][c][i] = fmaf(score[u][r], x[i], sum[r][c][i]);
                }
            }
        }
        stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    wait_copy_groups<0>();
    __syncthreads();  // the ring's memory is used anew

    // The streams of a warp, then the warps.
#pragma unroll
    for (int lanes = S::kLanes; lanes < 32; lanes *= 2) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const float other = shuffle_xor(maximum[r], lanes);
            const float top = fmaxf(other, maximum[r]);
            const float mine = exp2f(maximum[r] - reference(top)), theirs = exp2f(other - reference(top));
            maximum[r] = top;
            total[r] = total[r] * mine + shuffle_xor(total[r], lanes) * theirs;
#pragma unroll
            for (int c = 0; c < S::kCv; ++c) {
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    sum[r][c][i] = sum[r][c][i] * mine + shuffle_xor(sum[r][c][i], lanes) * theirs;
                }
            }
        }
    }
    const WarpParts<S> parts(shared);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 < S::kLanes) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < S::kCv; ++c) {
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    const int feature = (c * S::kLanes + lane) * N + i;
                    if (feature < S::kDv) parts.sum(warp, r)[feature] = sum[r][c][i];
                }
            }
            if (lane == 0) {
                parts.maxima[warp * kRows + r] = maximum[r];
                parts.totals[warp * kRows + r] = total[r];
            }
        }
    }
    return parts.merged();
}

// Words of workspace for one split: sums, and the maximum and total of each row. A multiple of 4.
template <class S>
constexpr int kPartWords = (S::kRows * (S::kDv + 2) + 3) / 4 * 4;

// Adds up what the blocks of a cluster found, each block a slice of the sums. Blocks send their parts, so that they
// meet once and then read their own memory alone; they have arrived at the cluster's barrier when they began, since
// memory can be written once its block runs.
// give(row, feature, sum, maximum, total) gets the sums as of one split.
template <class S, class Give>
DEVICE void combine_cluster(uint4* shared, const DecodePart<S>& part, Give give) {
    constexpr int kCluster = S::kCluster, kElements = S::kRows * S::kDv, kSlice = S::kSlice, kSent = S::kSent;
    float* inbox = reinterpret_cast<float*>(shared + S::kInboxAt / 16);  // [block][sums, maxima, totals]
    const int rank = int(blockIdx.y % kCluster);
    cluster_wait();
#pragma unroll
    for (int base = 0; base < kSlice * kCluster; base += S::kThreads) {
        const int i = base + int(threadIdx.x), to = i / kSlice;
        const float x = i < kElements ? part.sum[i / S::kDv * S::kSumStride + i % S::kDv] : 0;
        if (to < kCluster) cluster_store(inbox + rank * kSent + i % kSlice, to, x);
    }
    for (int i = threadIdx.x; i < 2 * S::kRows * kCluster; i += S::kThreads) {
        const int to = i % kCluster, row = i / kCluster % S::kRows;
        const bool is_total = i / kCluster >= S::kRows;
        cluster_store(inbox + rank * kSent + kSlice + i / kCluster, to, (is_total ? part.total : part.maximum)[row]);
    }
    cluster_arrive();
    cluster_wait();
    for (int j = threadIdx.x; j < kSlice && rank * kSlice + j < kElements; j += S::kThreads) {
        const int i = rank * kSlice + j, row = i / S::kDv;
        const float* maxima = inbox + kSlice + row;
        float top = -float_infinity(), sum = 0, total = 0;
#pragma unroll
        for (int b = 0; b < kCluster; ++b) top = fmaxf(top, maxima[b * kSent]);
#pragma unroll
        for (int b = 0; b < kCluster; ++b) {
            const float weight = exp2f(maxima[b * kSent] - reference(top));
            sum = fmaf(weight, inbox[b * kSent + j], sum);
            total = fmaf(weight, maxima[b * kSent + S::kRows], total);
        }
        give(row, i % S::kDv, sum, top, total);
    }
}

// Writes the result of one split, or of all if this block is the last of `blocks` that share its rows. A split is what
// a block found, or a cluster of them.
//
// sink(row) is the score of a row's sink, -infinity for none; store(row, feature, value) writes the result.
template <class S, class Sink, class Store>
DEVICE void decode_finish(uint4* shared, const DecodePart<S>& part, float* workspace, u32* counter, i64 tile,
                          u32 blocks, Sink sink, Store store) {
    constexpr int kRows = S::kRows, kDv = S::kDv, kThreads = S::kThreads, kCluster = S::kCluster;
    const u32 splits = blocks / kCluster;
    auto finish = [&](int r, int feature, float sum, float maximum, float total) {
        const float s = sink(r);
        const float zero = reference(fmaxf(s, maximum)), factor = exp2f(maximum - zero);
        store(r, feature, sum * factor / (total * factor + exp2f(s - zero)));
    };
    float* first = workspace + tile * splits * kPartWords<S>;
    float* own = first + i64(blockIdx.y / kCluster) * kPartWords<S>;
    auto keep = [&](int r, int feature, float sum, float maximum, float total) {
        own[r * kDv + feature] = sum;
        if (feature == 0) {
            own[kRows * kDv + r] = maximum;
            own[kRows * (kDv + 1) + r] = total;
        }
    };
    if constexpr (kCluster > 1) {
        if (splits == 1) return combine_cluster(shared, part, finish);
        combine_cluster(shared, part, keep);
    } else {
        for (int i = threadIdx.x; i < kRows * kDv; i += kThreads) {
            const int r = i / kDv;
            const float sum = part.sum[r * S::kSumStride + i % kDv];
            if (splits == 1) {
                finish(r, i % kDv, sum, part.maximum[r], part.total[r]);
            } else {
                keep(r, i % kDv, sum, part.maximum[r], part.total[r]);
            }
        }
        if (splits == 1) return;
    }
    if (!is_last_block(counter, blocks)) return;

    float* weights = reinterpret_cast<float*>(shared);  // [row][split]
    const int lane = threadIdx.x % 32;
    for (int r = threadIdx.x / 32; r < kRows; r += S::kWarps) {
        float* mine = weights + r * S::kMaxSplits;
        float top = sink(r);
        for (u32 s = lane; s < splits; s += 32) {
            const float m = load_fresh(first + i64(s) * kPartWords<S> + kRows * kDv + r);
            mine[s] = m;
            top = fmaxf(top, m);
        }
        for (int lanes = 16; lanes > 0; lanes /= 2) {
            top = fmaxf(top, shuffle_xor(top, lanes));
        }
        float t = 0;
        for (u32 s = lane; s < splits; s += 32) {
            mine[s] = exp2f(mine[s] - reference(top));
            t += mine[s] * load_fresh(first + i64(s) * kPartWords<S> + kRows * (kDv + 1) + r);
        }
        for (int lanes = 16; lanes > 0; lanes /= 2) t += shuffle_xor(t, lanes);
        t += exp2f(sink(r) - reference(top));
        for (u32 s = lane; s < splits; s += 32) mine[s] /= t;
    }
    __syncthreads();
    if constexpr (kDv % 4 == 0) {
        uint4* own = shared + S::kWeightBytes / 16 + threadIdx.x;
        for (int i = threadIdx.x * 4; i < kRows * kDv; i += kThreads * 4) {
            const float* mine = weights + i / kDv * S::kMaxSplits;
            float t[4] = {};
            for (u32 base = 0; base < splits; base += S::kPartsAtOnce) {
#pragma unroll
                for (u32 s = 0; s < S::kPartsAtOnce; ++s) {
                    const bool wanted = base + s < splits;
                    copy_async<true>(own + s * kThreads, first + i64(wanted ? base + s : 0) * kPartWords<S> + i,
                                     wanted);
                }
                end_copy_group();
                wait_copy_groups<0>();
                const u32 n = splits - base < S::kPartsAtOnce ? splits - base : S::kPartsAtOnce;
                for (u32 s = 0; s < n; ++s) {
                    const auto x = bits_as<Pack<float, 4>>(own[s * kThreads]);
#pragma unroll
                    for (int j = 0; j < 4; ++j) t[j] = fmaf(mine[base + s], x.v[j], t[j]);
                }
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) store(i / kDv, i % kDv + j, t[j]);
        }
    } else {
        for (int i = threadIdx.x; i < kRows * kDv; i += kThreads) {
            const float* mine = weights + i / kDv * S::kMaxSplits;
            float t = 0;
#pragma unroll 8
            for (u32 s = 0; s < splits; ++s) t = fmaf(mine[s], load_fresh(first + i64(s) * kPartWords<S> + i), t);
            store(i / kDv, i % kDv, t);
        }
    }
}
