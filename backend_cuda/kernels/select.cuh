// The k greatest elements of a row, in the order in which they lie there; where some are equal, those that lie last.
//
// Radix selection: the elements' keys are counted by their leading bits, which tells the leading bits of the k-th
// greatest; then, of those that have these, by the next bits. Once it is known, greater elements are all taken, and as
// many of its equals as are wanted.
#pragma once
#include "sort.cuh"

constexpr int kBinBits = 11;
constexpr int kBins = 1 << kBinBits;

// The k-th greatest key as far as it is known.
struct Threshold {
    u64 key;     // its leading bits; the others are zero
    u64 mask;    // which those are
    u32 wanted;  // elements that have these bits and are among the k
    u32 equal;   // elements that have them
};
DEVICE Threshold first_threshold(i64 k) { return {0, 0, u32(k), ~0u}; }

// Whether all that have the known bits are wanted, so that nothing is left to tell.
DEVICE bool is_settled(const Threshold& t) { return t.wanted == t.equal; }

template <class K>
constexpr int kSelectPasses = (sizeof(K) * 8 + kBinBits - 1) / kBinBits;

// The bits of a key that a pass counts begin at this one; a pass counts those below the bits of the pass before.
template <class K>
DEVICE int shift_of_pass(int pass) {
    const int bits = int(sizeof(K)) * 8 - (pass + 1) * kBinBits;
    return bits > 0 ? bits : 0;
}

template <class T>
constexpr int kSelectWidth = sizeof(T) < 4 ? 8 : 16 / sizeof(T);  // elements that are read at a time

// Adds the elements [begin, end) that have the known bits to the block's bins.
template <int kThreads, class T>
DEVICE void count_bins(u32* bins, const T* row, i64 begin, i64 end, const Threshold& t, int pass) {
    using K = SortKey<T>;
    constexpr int N = kSelectWidth<T>, kAhead = 4;
    const K key = K(t.key), mask = K(t.mask), free = K(~mask);
    const int shift = shift_of_pass<K>(pass);
    for (i64 first = begin + threadIdx.x * N; first < end; first += kThreads * N * kAhead) {
        Pack<T, N> x[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            const i64 at = first + a * kThreads * N;
            x[a] = load_pack<N>(row + at, end - at);
        }
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const K own = sort_key(x[a].v[i]);
                if ((own & mask) == key && first + a * kThreads * N + i < end) {
                    atomicAdd(&bins[u32((own & free) >> shift) & (kBins - 1)], 1u);
                }
            }
        }
    }
}

// Shared by a block of kThreads threads.
template <int kThreads>
struct SelectMemory {
    u32 sums[kThreads / 32];
    u32 bin, above, equal;
    u32 warp_above[kThreads / 32], warp_equal[kThreads / 32];
};

// The threshold with the bits that a pass counted. The counts are the block's bins, or those of all its row's blocks.
template <int kThreads, class K>
DEVICE Threshold choose_bin(SelectMemory<kThreads>& memory, const u32* counts, Threshold t, int pass) {
    constexpr int N = kBins / kThreads;
    const int first = kBins - 1 - threadIdx.x * N;
    u32 own[N], total = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) total += own[i] = counts[first - i];
    u32 above = total;
    exclusive_sum<kThreads>(above, memory.sums);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (above < t.wanted && t.wanted <= above + own[i]) {
            memory.bin = first - i;
            memory.above = above;
            memory.equal = own[i];
        }
        above += own[i];
    }
    __syncthreads();
    const int shift = shift_of_pass<K>(pass);
    t.key |= u64(memory.bin) << shift;
    t.mask = ~((u64(1) << shift) - 1);
    t.wanted -= memory.above;
    t.equal = memory.equal;
    __syncthreads();
    return t;
}

// Of some elements, how many are above the threshold and how many have its known bits.
struct Counted {
    u32 above, equal;
};

// Of the elements [begin, end) that a warp reads.
template <class T>
DEVICE Counted count_selected(const T* row, i64 begin, i64 end, const Threshold& t) {
    using K = SortKey<T>;
    constexpr int N = kSelectWidth<T>, kAhead = 4;
    const K key = K(t.key), mask = K(t.mask);
    Counted found{0, 0};
    for (i64 first = begin + threadIdx.x % 32 * N; first < end; first += 32 * N * kAhead) {
        Pack<T, N> x[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            const i64 at = first + a * 32 * N;
            x[a] = load_pack<N>(row + at, end - at);
        }
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const K own = sort_key(x[a].v[i]) & mask;
                const bool inside = first + a * 32 * N + i < end;
                found.above += inside && own > key;
                found.equal += inside && own == key;
            }
        }
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        found.above += shuffle_xor(found.above, lanes);
        found.equal += shuffle_xor(found.equal, lanes);
    }
    return found;
}

// Writes what is selected of the elements [begin, end) that a warp reads; `before` counts those of the row before them.
template <bool kIndices, class T, class O>
DEVICE void write_selected(const T* row, O* out, i64 begin, i64 end, const Threshold& t, Counted before) {
    using K = SortKey<T>;
    constexpr int N = kSelectWidth<T>, kAhead = 2;
    const K key = K(t.key), mask = K(t.mask);
    const u32 skipped = t.equal - t.wanted;  // equal ones that are not wanted come first
    const u32 earlier_lanes = (1u << threadIdx.x % 32) - 1;
    for (i64 first = begin; first < end; first += 32 * N * kAhead) {
        Pack<T, N> x[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            const i64 at = first + (a * 32 + threadIdx.x % 32) * N;
            x[a] = load_pack<N>(row + at, end - at);
        }
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            const i64 at = first + (a * 32 + threadIdx.x % 32) * N;
            bool above[N], equal[N], some = false;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const K own = sort_key(x[a].v[i]) & mask;
                above[i] = at + i < end && own > key;
                equal[i] = at + i < end && own == key;
                some |= above[i] || equal[i];
            }
            if (!__any_sync(0xffffffffu, some)) continue;
            Counted rank = before;  // of this lane's next element
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const u32 lanes_above = __ballot_sync(0xffffffffu, above[i]);
                const u32 lanes_equal = __ballot_sync(0xffffffffu, equal[i]);
                before.above += __popc(lanes_above);
                before.equal += __popc(lanes_equal);
                rank.above += __popc(lanes_above & earlier_lanes);
                rank.equal += __popc(lanes_equal & earlier_lanes);
            }
#pragma unroll
            for (int i = 0; i < N; ++i) {
                if (above[i] || (equal[i] && rank.equal >= skipped)) {
                    const u32 place = rank.above + (rank.equal > skipped ? rank.equal - skipped : 0);
                    if constexpr (kIndices) {
                        out[place] = u32(at + i);
                    } else {
                        out[place] = x[a].v[i];
                    }
                }
                rank.above += above[i];
                rank.equal += equal[i];
            }
        }
    }
}

// Of elements [begin, end), those that this warp of the block reads.
template <int kThreads, class T>
DEVICE void part_of_warp(i64& begin, i64& end) {
    constexpr int kStep = 32 * kSelectWidth<T>;
    const i64 each = ceil_div(end - begin, i64(kThreads / 32) * kStep) * kStep;
    begin = min_i64(end, begin + threadIdx.x / 32 * each);
    end = min_i64(end, begin + each);
}

// Writes what is selected of the elements [begin, end) that a block reads; `before` counts those of the row before
// them.
template <int kThreads, bool kIndices, class T, class O>
DEVICE void write_selected_by_block(SelectMemory<kThreads>& memory, const T* row, O* out, i64 begin, i64 end,
                                    const Threshold& t, Counted before) {
    part_of_warp<kThreads, T>(begin, end);
    const int warp = threadIdx.x / 32;
    const Counted own = count_selected(row, begin, end, t);
    if (threadIdx.x % 32 == 0) {
        memory.warp_above[warp] = own.above;
        memory.warp_equal[warp] = own.equal;
    }
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) {
        if (w < warp) {
            before.above += memory.warp_above[w];
            before.equal += memory.warp_equal[w];
        }
    }
    if (own.above + own.equal) write_selected<kIndices>(row, out, begin, end, t, before);
    __syncthreads();
}

// A row of n elements by one block.
template <int kThreads, bool kIndices, class T, class O>
DEVICE void select_row(SelectMemory<kThreads>& memory, u32* bins, const T* row, O* out, i64 n, i64 k) {
    using K = SortKey<T>;
    Threshold t = first_threshold(k);
#pragma unroll 1
    for (int pass = 0; pass < kSelectPasses<K> && !is_settled(t); ++pass) {
        for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
        __syncthreads();
        count_bins<kThreads>(bins, row, 0, n, t, pass);
        __syncthreads();
        t = choose_bin<kThreads, K>(memory, bins, t, pass);
    }
    write_selected_by_block<kThreads, kIndices>(memory, row, out, 0, n, t, Counted{0, 0});
}

// ---- by many blocks a row

// Counts one part of a row for a pass, in `bins` of all passes and all the row's parts. `thresholds` are what is known
// before each pass; that of this one is written for those after it.
template <int kThreads, class T>
DEVICE Threshold threshold_of_pass(SelectMemory<kThreads>& memory, const u32* bins, Threshold* thresholds, i64 part,
                                   i64 k, int pass) {
    Threshold t = first_threshold(k);
    if (pass > 0) {
        if (pass > 1) t = thresholds[pass - 1];
        if (!is_settled(t)) {
            t = choose_bin<kThreads, SortKey<T>>(memory, bins + (pass - 1) * kBins, t, pass - 1);
        }
    }
    if (part == 0 && threadIdx.x == 0) thresholds[pass] = t;
    return t;
}
template <int kThreads, class T>
DEVICE void count_part(u32* bins, Threshold* thresholds, const T* row, i64 part, i64 begin, i64 end, i64 k, int pass) {
    __shared__ SelectMemory<kThreads> memory;
    __shared__ u32 own[kBins];
    for (int i = threadIdx.x; i < kBins; i += kThreads) own[i] = 0;
    const Threshold t = threshold_of_pass<kThreads, T>(memory, bins, thresholds, part, k, pass);
    if (is_settled(t)) return;
    __syncthreads();
    count_bins<kThreads>(own, row, begin, end, t, pass);
    __syncthreads();
    for (int i = threadIdx.x; i < kBins; i += kThreads) {
        if (own[i]) atomicAdd(&bins[pass * kBins + i], own[i]);
    }
}
// After all passes: how much of a part is selected.
template <int kThreads, class T>
DEVICE void count_selected_of_part(const u32* bins, Threshold* thresholds, Counted* counted, const T* row, i64 part,
                                   i64 begin, i64 end, i64 k) {
    __shared__ SelectMemory<kThreads> memory;
    constexpr int kPasses = kSelectPasses<SortKey<T>>;
    const Threshold t = threshold_of_pass<kThreads, T>(memory, bins, thresholds, part, k, kPasses);
    part_of_warp<kThreads, T>(begin, end);
    const Counted own = count_selected(row, begin, end, t);
    if (threadIdx.x % 32 == 0) {
        memory.warp_above[threadIdx.x / 32] = own.above;
        memory.warp_equal[threadIdx.x / 32] = own.equal;
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    Counted all{0, 0};
    for (int w = 0; w < kThreads / 32; ++w) {
        all.above += memory.warp_above[w];
        all.equal += memory.warp_equal[w];
    }
    counted[part] = all;
}
template <int kThreads, bool kIndices, class T, class O>
DEVICE void write_part(const Threshold* thresholds, const Counted* counted, const T* row, O* out, i64 part, i64 begin,
                       i64 end) {
    __shared__ SelectMemory<kThreads> memory;
    const Threshold t = thresholds[kSelectPasses<SortKey<T>>];
    const Counted own = counted[part];
    if (own.above + own.equal == 0) return;
    Counted before{0, 0};
    for (i64 p = threadIdx.x; p < part; p += kThreads) {
        before.above += counted[p].above;
        before.equal += counted[p].equal;
    }
    before.above = exclusive_sum<kThreads>(before.above, memory.sums);
    before.equal = exclusive_sum<kThreads>(before.equal, memory.sums);
    write_selected_by_block<kThreads, kIndices>(memory, row, out, begin, end, t, before);
}

// ---- a short row by lanes of a warp, as `sort_row_in_lanes` sorts it

template <bool kIndices, int kLanes, int kItems, class T, class O>
DEVICE void select_in_lanes(const T* row, O* out, int n, int k) {
    using E = typename Indexed<sizeof(T)>::type;
    const int lane = threadIdx.x % 32, first = lane % kLanes * kItems;
    const Pack<T, kItems> own = load_pack<kItems>(row + first, n - first);
    E x[kItems], sorted[kItems];
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
        x[j] = with_index<E>(first + j < n ? sort_key(own.v[j]) : SortKey<T>(~SortKey<T>(0)), u32(first + j));
        sorted[j] = x[j];
    }
    sort_in_lanes<kLanes>(sorted);
    const int least = n > k ? n - k : 0;  // the place of the least that is wanted
    E threshold = sorted[0];
#pragma unroll
    for (int j = 1; j < kItems; ++j) {
        if (least % kItems == j) threshold = sorted[j];
    }
    threshold = shuffle_from(threshold, lane / kLanes * kLanes + least / kItems);
    const u32 team = (kLanes == 32 ? ~0u : (1u << kLanes % 32) - 1) << (lane / kLanes * kLanes);
    const u32 earlier_lanes = team & ((1u << lane) - 1);
    bool taken[kItems];
    int place = 0;
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
        taken[j] = first + j < n && !(threshold > x[j]);
        place += __popc(__ballot_sync(0xffffffffu, taken[j]) & earlier_lanes);
    }
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
        if (!taken[j]) continue;
        if constexpr (kIndices) {
            out[place] = u32(first + j);
        } else {
            out[place] = own.v[j];
        }
        ++place;
    }
}
