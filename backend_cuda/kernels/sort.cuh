// Stable sorting by unsigned keys whose order is the elements': bitonic within shared memory, else by 8-bit digits.
#pragma once
#include "reduce.cuh"

template <int Bytes>
struct KeyOf;
template <>
struct KeyOf<1> {
    using type = u8;
};
template <>
struct KeyOf<2> {
    using type = u16;
};
template <>
struct KeyOf<4> {
    using type = u32;
};
template <>
struct KeyOf<8> {
    using type = u64;
};
template <class T>
using SortKey = typename KeyOf<sizeof(T)>::type;

// NaN is after all numbers, whatever its bits; the two zeros are equal.
template <class K, int kMantissaBits>
DEVICE K float_key(K bits) {
    constexpr K kSign = K(K(1) << (sizeof(K) * 8 - 1)), kInfinity = K(K(kSign - 1) >> kMantissaBits << kMantissaBits);
    const K magnitude = bits & K(kSign - 1);
    if (magnitude > kInfinity) return K(~K(0));
    if (magnitude == 0) return kSign;
    return bits & kSign ? K(~bits) : K(bits | kSign);
}
template <class T>
DEVICE SortKey<T> sort_key(T x) {
    using K = SortKey<T>;
    if constexpr (is_same<T, boolean>) {
        return x.bits != 0;
    } else if constexpr (is_same<T, f16>) {
        return float_key<u16, 10>(x.bits);
    } else if constexpr (is_same<T, bf16>) {
        return float_key<u16, 7>(x.bits);
    } else if constexpr (is_same<T, f32>) {
        return float_key<u32, 23>(bits_as<u32>(x));
    } else if constexpr (is_same<T, f64>) {
        return float_key<u64, 52>(bits_as<u64>(x));
    } else if constexpr (is_signed_integer<T>) {
        return K(K(x) ^ K(K(1) << (sizeof(T) * 8 - 1)));
    } else {
        return x;
    }
}

// ---- a row within shared memory

// Keys with their places in the row, which make every element different and so the order stable.
template <class K>
struct Element {
    K key;
    u32 index;
    DEVICE bool operator>(const Element& other) const {
        return key > other.key || (key == other.key && index > other.index);
    }
};
// One comparison of 64 bits for narrow keys.
struct NarrowElement {
    u64 both;
    DEVICE bool operator>(const NarrowElement& other) const { return both > other.both; }
};
template <bool kFirst, class First, class Second>
struct Choose {
    using type = First;
};
template <class First, class Second>
struct Choose<false, First, Second> {
    using type = Second;
};
template <class T>
struct Elements {
    static constexpr bool kNarrow = sizeof(T) <= 4;
    using K = SortKey<T>;
    using type = typename Choose<kNarrow, NarrowElement, Element<K>>::type;
    static DEVICE type make(K key, u32 index) {
        if constexpr (kNarrow) {
            return {u64(key) << 32 | index};
        } else {
            return {key, index};
        }
    }
    static DEVICE u32 index(const type& x) {
        if constexpr (kNarrow) {
            return u32(x.both);
        } else {
            return x.index;
        }
    }
};

// What is written at a place of the sorted row: the element that belongs there, or its index.
template <bool kIndices, class T>
DEVICE auto sorted_element(const T* row, u32 index) {
    if constexpr (kIndices) {
        return index;
    } else {
        return row[index];
    }
}

// Sorts n elements in `memory`, which has room for the power of two they go into. Bitonic: places beyond n hold what is
// after every element.
template <bool kIndices, int kThreads, class T, class O>
DEVICE void sort_in_block(const T* row, O* out, int n, typename Elements<T>::type* memory) {
    using E = Elements<T>;
    int size = 1;
    while (size < n) size *= 2;
    for (int i = threadIdx.x; i < size; i += kThreads) {
        memory[i] = E::make(i < n ? sort_key(row[i]) : SortKey<T>(~SortKey<T>(0)), u32(i));
    }
    for (int run = 2; run <= size; run *= 2) {
        for (int distance = run / 2; distance > 0; distance /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < size / 2; pair += kThreads) {
                const int low = pair % distance, first = (pair - low) * 2 + low, second = first + distance;
                const typename E::type a = memory[first], b = memory[second];
                const bool descending = (first & run) != 0;
                if ((a > b) != descending) memory[first] = b, memory[second] = a;
            }
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += kThreads) out[i] = sorted_element<kIndices>(row, E::index(memory[i]));
}

// ---- radix sort: passes from the least significant digit, each of them stable

constexpr int kDigits = 256;
constexpr int kTile = 4096;       // elements that one of many blocks takes
constexpr int kShortTile = 2048;  // that a block takes at a time which goes over a whole row

// Shared by a block of kDigits threads.
struct RadixMemory {
    u32 counts[kDigits / 32][kDigits];  // of each warp
    u32 bases[kDigits];
    u32 sums[kDigits / 32];
};

template <class K>
DEVICE u32 digit_of(K key, int pass) {
    return u32(key >> (pass * 8)) & 255;
}

// The lanes of the warp that have the same digit, of those that take part.
DEVICE u32 lanes_with(u32 digit, bool takes_part) {
    u32 lanes = __ballot_sync(0xffffffffu, takes_part);
#pragma unroll
    for (int bit = 0; bit < 8; ++bit) {
        const bool set = digit >> bit & 1;
        const u32 with = __ballot_sync(0xffffffffu, set);
        lanes &= set ? with : ~with;
    }
    return lanes;
}

// Where a pass reads: the row itself, or what the pass before wrote.
template <class T, bool kFirst>
struct Source {
    const T* row;
    const SortKey<T>* keys;
    const u32* indices;
    DEVICE SortKey<T> key(i64 i) const {
        if constexpr (kFirst) {
            return sort_key(row[i]);
        } else {
            return keys[i];
        }
    }
    DEVICE u32 index(i64 i) const {
        if constexpr (kFirst) {
            return u32(i);
        } else {
            return indices[i];
        }
    }
};

// Counts the digits of elements [begin, end) into `counts`, of a block's shared memory.
template <int kThreads, class S>
DEVICE void count_digits(u32* counts, const S& source, i64 begin, i64 end, int pass) {
    for (int d = threadIdx.x; d < kDigits; d += kThreads) counts[d] = 0;
    __syncthreads();
    for (i64 i = begin + threadIdx.x; i < end; i += kThreads) atomicAdd(&counts[digit_of(source.key(i), pass)], 1u);
    __syncthreads();
}

// A tile of at most kSize elements from `begin`: each warp takes consecutive ones, 32 at a time, and put(i, key, place)
// is called for each with where it belongs: bases[digit] and on. The bases are then those of the next tile.
template <int kSize, class S, class Put>
DEVICE void place_tile(RadixMemory& memory, const S& source, i64 begin, i64 end, int pass, Put put) {
    constexpr int kWarps = kDigits / 32, kItems = kSize / kDigits;
    auto& counts = memory.counts;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) counts[w][threadIdx.x] = 0;
    __syncthreads();
    decltype(source.key(0)) keys[kItems];
    u16 ranks[kItems];  // among the equal digits of this warp
    const i64 start = begin + warp * 32 * kItems + lane;
#pragma unroll
    for (int k = 0; k < kItems; ++k) keys[k] = start + k * 32 < end ? source.key(start + k * 32) : 0;
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const bool takes_part = start + k * 32 < end;
        const u32 digit = digit_of(keys[k], pass), lanes = lanes_with(digit, takes_part);
        const u32 before = __popc(lanes & ((1u << lane) - 1));
        const u32 earlier = counts[warp][digit];
        __syncwarp();
        if (takes_part && before == 0) counts[warp][digit] = earlier + __popc(lanes);
        __syncwarp();
        ranks[k] = u16(earlier + before);
    }
    __syncthreads();
    u32 base = memory.bases[threadIdx.x];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
        const u32 count = counts[w][threadIdx.x];
        counts[w][threadIdx.x] = base;
        base += count;
    }
    memory.bases[threadIdx.x] = base;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const i64 i = start + k * 32;
        if (i < end) put(i, keys[k], counts[warp][digit_of(keys[k], pass)] + ranks[k]);
    }
    __syncthreads();
}

// Exclusive sums of `values`, whose total is returned: each of the kThreads threads has one. A u32 of `memory` a warp.
template <int kThreads>
DEVICE u32 exclusive_sum(u32& value, u32* memory) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 inclusive = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const u32 before = shuffle_up(inclusive, distance);
        if (lane >= distance) inclusive += before;
    }
    if (lane == 31) memory[warp] = inclusive;
    __syncthreads();
    u32 total = 0, warps_before = 0;
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) {
        if (w == warp) warps_before = total;
        total += memory[w];
    }
    __syncthreads();
    value = warps_before + inclusive - value;
    return total;
}

// One pass over a whole row by one block: for rows that one block sorts though shared memory has no room for them.
template <bool kFirst, bool kLast, bool kIndices, class T, class O>
DEVICE void radix_pass(RadixMemory& memory, const T* row, O* out, const SortKey<T>* keys, const u32* indices,
                       SortKey<T>* next_keys, u32* next_indices, i64 n, int pass) {
    const Source<T, kFirst> source{row, keys, indices};
    count_digits<kDigits>(memory.bases, source, 0, n, pass);
    u32 base = memory.bases[threadIdx.x];
    exclusive_sum<kDigits>(base, memory.sums);
    memory.bases[threadIdx.x] = base;
    __syncthreads();
#pragma unroll 1
    for (i64 begin = 0; begin < n; begin += kShortTile) {
        place_tile<kShortTile>(memory, source, begin, min_i64(n, begin + kShortTile), pass,
                               [&](i64 i, SortKey<T> key, u32 to) {
                                   if constexpr (kLast) {
                                       out[to] = sorted_element<kIndices>(row, source.index(i));
                                   } else {
                                       next_keys[to] = key;
                                       next_indices[to] = source.index(i);
                                   }
                               });
    }
}
// All passes. `keys` and `indices` have room for two rows of n each, unless T is one byte.
template <bool kIndices, class T, class O>
DEVICE void radix_sort_row(RadixMemory& memory, const T* row, O* out, SortKey<T>* keys, u32* indices, i64 n) {
    constexpr int kPasses = sizeof(T);
    if constexpr (kPasses == 1) {
        radix_pass<true, true, kIndices>(memory, row, out, keys, indices, keys, indices, n, 0);
    } else {
        radix_pass<true, false, kIndices>(memory, row, out, keys, indices, keys, indices, n, 0);
        i64 from = 0;
#pragma unroll 1
        for (int pass = 1; pass + 1 < kPasses; ++pass, from = n - from) {
            radix_pass<false, false, kIndices>(memory, row, out, keys + from, indices + from, keys + (n - from),
                                               indices + (n - from), n, pass);
        }
        radix_pass<false, true, kIndices>(memory, row, out, keys + from, indices + from, keys, indices, n, kPasses - 1);
    }
}

// ---- radix sort by many blocks: three kernels a pass

// Counts the digits of one tile of a row: histogram[digit * tiles + tile].
template <class S>
DEVICE void histogram_tile(u32* histogram, const S& source, i64 tile, i64 tiles, i64 n, int pass) {
    __shared__ u32 counts[kDigits];
    count_digits<kDigits>(counts, source, tile * kTile, min_i64(n, (tile + 1) * kTile), pass);
    histogram[threadIdx.x * tiles + tile] = counts[threadIdx.x];
}
// Makes a row's histogram, of which there are `total` numbers, exclusive sums: where each tile's digits begin.
template <int kThreads>
DEVICE void sum_histogram(u32* histogram, i64 total) {
    constexpr int N = 8;
    __shared__ u32 sums[kThreads / 32];
    u32 carry = 0;
    Pack<u32, N> next = load_pack<N>(histogram + threadIdx.x * N, total - threadIdx.x * N);
    for (i64 first = 0; first < total; first += kThreads * N) {
        const i64 at = first + threadIdx.x * N, after = at + kThreads * N;
        Pack<u32, N> x = next;
        next = load_pack<N>(histogram + after, total - after);
        u32 before = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) before += x.v[i];
        const u32 all = exclusive_sum<kThreads>(before, sums);
        before += carry;
        carry += all;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const u32 count = x.v[i];
            x.v[i] = before;
            before += count;
        }
        store_pack<N>(histogram + at, x, total - at);
    }
}
// Puts one tile's elements where the summed histogram says.
template <class S, class Put>
DEVICE void scatter_tile(const u32* histogram, const S& source, i64 tile, i64 tiles, i64 n, int pass, Put put) {
    __shared__ RadixMemory memory;
    memory.bases[threadIdx.x] = histogram[threadIdx.x * tiles + tile];
    place_tile<kTile>(memory, source, tile * kTile, min_i64(n, (tile + 1) * kTile), pass, put);
}
