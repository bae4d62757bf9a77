// Stable radix sorting: passes over digits of 8 bits, from the least significant one. What moves is the elements
// themselves, so that equal ones which differ in their bits, as the two zeros do, keep their order; digits are those of
// their keys.
//
// A tile is what a block holds in registers: warp w has 32 * kItems consecutive elements, lane l of it every 32nd.
#pragma once
#include "sort_key.cuh"

constexpr int kDigits = 256;
constexpr int kDigitBits = 8;

template <class T>
DEVICE u32 digit_of(T x, int shift) {
    return u32(sort_key(x) >> shift) & (kDigits - 1);
}

// The lanes of the warp that have the same digit, of those that take part.
DEVICE u32 lanes_with(u32 digit, bool takes_part) {
    u32 lanes = __ballot_sync(0xffffffffu, takes_part);
#pragma unroll
    for (int bit = 0; bit < kDigitBits; ++bit) {
        const bool set = digit >> bit & 1;
        const u32 with = __ballot_sync(0xffffffffu, set);
        lanes &= set ? with : ~with;
    }
    return lanes;
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

// ---- a tile

// kThreads are kDigits at least.
template <int kThreads, int kItems, class T, bool kIndices>
struct TileMemory {
    static constexpr int kSize = kThreads * kItems;
    union {
        u32 counts[kThreads / 32][kDigits];  // of each warp
        T elements[kSize];
        u32 indices[kIndices ? kSize : 1];
    };
    u32 starts[kDigits];  // where in the sorted tile the elements of a digit begin
    u32 sums[kThreads / 32];
};

template <int kItems>
DEVICE int place_in_tile(int k) {
    return (threadIdx.x / 32 * kItems + k) * 32 + threadIdx.x % 32;
}

template <int kItems, class T>
DEVICE void load_tile(T (&x)[kItems], const T* from, int count) {
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const int i = place_in_tile<kItems>(k);
        x[k] = i < count ? from[i] : T{};
    }
}

// Where each of the tile's first `count` elements belongs in the order of a digit. Returns, to the thread of a digit's
// number, how many have it.
template <int kThreads, int kItems, class T, class Memory>
DEVICE u32 rank_tile(Memory& memory, const T (&x)[kItems], int count, int shift, u32 (&places)[kItems]) {
    constexpr int kWarps = kThreads / 32;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    auto& counts = memory.counts;
#pragma unroll
    for (int digit = 0; digit < kDigits; digit += 32) counts[warp][digit + lane] = 0;
    __syncwarp();
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const bool takes_part = place_in_tile<kItems>(k) < count;
        const u32 digit = digit_of(x[k], shift), lanes = lanes_with(digit, takes_part);
        const u32 before = __popc(lanes & ((1u << lane) - 1));
        const u32 earlier = counts[warp][digit];
        __syncwarp();
        if (takes_part && before == 0) counts[warp][digit] = earlier + __popc(lanes);
        __syncwarp();
        places[k] = digit << 16 | (earlier + before);  // so as not to find the digit again
    }
    __syncthreads();
    const bool has_digit = threadIdx.x < kDigits;
    u32 total = 0, earlier[kWarps];
    if (has_digit) {
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            earlier[w] = total;
            total += counts[w][threadIdx.x];
        }
    }
    u32 start = total;
    exclusive_sum<kThreads>(start, memory.sums);
    if (has_digit) {
        memory.starts[threadIdx.x] = start;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) counts[w][threadIdx.x] = start + earlier[w];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kItems; ++k) places[k] = counts[warp][places[k] >> 16] + (places[k] & 0xffff);
    __syncthreads();
    return total;
}

template <int kItems, class T>
DEVICE void exchange(T* shared, T (&x)[kItems], int count, const u32 (&places)[kItems]) {
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        if (place_in_tile<kItems>(k) < count) shared[places[k]] = x[k];
    }
    __syncthreads();
    load_tile(x, shared, count);
    __syncthreads();
}

// Sorts a tile by a digit, and what `indices` are to the elements with it. Returns what `rank_tile` does.
template <int kThreads, int kItems, bool kIndices, class T, class Memory, int kIndexed>
DEVICE u32 sort_tile(Memory& memory, T (&x)[kItems], u32 (&indices)[kIndexed], int count, int shift) {
    u32 places[kItems];
    const u32 total = rank_tile<kThreads>(memory, x, count, shift, places);
    exchange(memory.elements, x, count, places);
    if constexpr (kIndices) exchange(memory.indices, indices, count, places);
    return total;
}

// A row of n elements that are no more than a tile.
template <int kThreads, int kItems, bool kIndices, class T, class O>
DEVICE void sort_short_row(TileMemory<kThreads, kItems, T, kIndices>& memory, const T* row, O* out, int n) {
    T x[kItems];
    u32 indices[kIndices ? kItems : 1];
    load_tile(x, row, n);
    if constexpr (kIndices) {
#pragma unroll
        for (int k = 0; k < kItems; ++k) indices[k] = place_in_tile<kItems>(k);
    }
#pragma unroll 1
    for (int shift = 0; shift < int(sizeof(T)) * 8; shift += kDigitBits) {
        sort_tile<kThreads, kItems, kIndices>(memory, x, indices, n, shift);
    }
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const int i = place_in_tile<kItems>(k);
        if (i >= n) continue;
        if constexpr (kIndices) {
            out[i] = indices[k];
        } else {
            out[i] = x[k];
        }
    }
}

// ---- a pass over a longer row

// One tile of a pass: `count` elements go to `to`, of which `base` is where those of the digit of this thread's number
// begin. Pointers to indices may be null, as `to` may: the indices are the elements' places, or nobody wants them.
template <int kThreads, int kItems, bool kIndices, class T>
DEVICE u32 scatter_tile(TileMemory<kThreads, kItems, T, kIndices>& memory, const T* from, const u32* from_indices,
                        i64 begin, int count, int shift, u32 base, T* to, u32* to_indices) {
    T x[kItems];
    u32 indices[kIndices ? kItems : 1];
    load_tile(x, from + begin, count);
    if constexpr (kIndices) {
        if (from_indices) {
            load_tile(indices, from_indices + begin, count);
        } else {
#pragma unroll
            for (int k = 0; k < kItems; ++k) indices[k] = u32(begin) + place_in_tile<kItems>(k);
        }
    }
    const u32 total = sort_tile<kThreads, kItems, kIndices>(memory, x, indices, count, shift);
    // An element's place in the row is its place in the tile and what is the same for all of its digit.
    if (threadIdx.x < kDigits) memory.starts[threadIdx.x] = base - memory.starts[threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const int i = place_in_tile<kItems>(k);
        if (i >= count) continue;
        const u32 place = memory.starts[digit_of(x[k], shift)] + u32(i);
        if (to) to[place] = x[k];
        if constexpr (kIndices) {
            if (to_indices) to_indices[place] = indices[k];
        }
    }
    __syncthreads();
    return total;
}

// Adds the digits of elements [begin, end) to `counts`, in a block's shared memory.
template <int kThreads, class T>
DEVICE void count_digits(u32* counts, const T* from, i64 begin, i64 end, int shift) {
    constexpr int N = sizeof(T) < 4 ? 8 : 16 / sizeof(T), kAhead = 4;
    for (i64 first = begin + threadIdx.x * N; first < end; first += kThreads * N * kAhead) {
        Pack<T, N> x[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            const i64 at = first + a * kThreads * N;
            x[a] = load_pack<N>(from + at, end - at);
        }
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                if (first + a * kThreads * N + i < end) atomicAdd(&counts[digit_of(x[a].v[i], shift)], 1u);
            }
        }
    }
}

// A row of any length by one block, in global memory. `elements` has room for two rows where there are indices, else
// for one; `indices` for one.
template <bool kIndices, int kThreads, int kItems, class T, class O>
DEVICE void sort_long_row(TileMemory<kThreads, kItems, T, kIndices>& memory, const T* row, O* out, T* elements,
                          u32* indices, i64 n) {
    constexpr int kPasses = sizeof(T);
    __shared__ u32 bases[kDigits];
    const T* from = row;
    const u32* from_indices = nullptr;
#pragma unroll 1
    for (int pass = 0; pass < kPasses; ++pass) {
        const bool is_last = pass == kPasses - 1, to_out = (kPasses - 1 - pass) % 2 == 0;
        T* to;
        u32* to_indices = nullptr;
        if constexpr (kIndices) {
            to = is_last ? nullptr : elements + (pass % 2 ? n : 0);
            to_indices = to_out ? out : indices;
        } else {
            to = to_out ? out : elements;
        }
        const int shift = pass * kDigitBits;
        for (int d = threadIdx.x; d < kDigits; d += kThreads) bases[d] = 0;
        __syncthreads();
        count_digits<kThreads>(bases, from, 0, n, shift);
        __syncthreads();
        u32 base = threadIdx.x < kDigits ? bases[threadIdx.x] : 0;
        exclusive_sum<kThreads>(base, memory.sums);
        constexpr int kTile = kThreads * kItems;
#pragma unroll 1
        for (i64 begin = 0; begin < n; begin += kTile) {
            base += scatter_tile(memory, from, from_indices, begin, int(min_i64(n - begin, kTile)), shift, base, to,
                                 to_indices);
        }
        from = to;
        from_indices = to_indices;
    }
}
// The same, of one of `rows` rows, with a workspace for all of them.
template <bool kIndices, int kThreads, int kItems, class T, class O>
DEVICE void sort_long_row(TileMemory<kThreads, kItems, T, kIndices>& memory, const T* rows, O* out, u8* workspace,
                          i64 row, i64 n_rows, i64 n) {
    constexpr int kBuffers = sizeof(T) == 1 ? 0 : kIndices && sizeof(T) > 2 ? 2 : 1;
    T* elements = reinterpret_cast<T*>(workspace) + row * n * kBuffers;
    u32* indices = reinterpret_cast<u32*>(workspace + ceil_div(n_rows * n * kBuffers * sizeof(T), 8) * 8) + row * n;
    sort_long_row<kIndices>(memory, rows + row * n, out + row * n, elements, indices, n);
}

// ---- a pass by many blocks, three kernels: tiles count their digits, the counts are summed, tiles place their
// elements

// Counts the digits of a tile: histogram[tile][digit].
template <int kThreads, int kTile, class T>
DEVICE void histogram_tile(u32* histogram, const T* row, i64 tile, i64 n, int shift) {
    __shared__ u32 counts[kDigits];
    for (int d = threadIdx.x; d < kDigits; d += kThreads) counts[d] = 0;
    __syncthreads();
    count_digits<kThreads>(counts, row, tile * kTile, min_i64(n, (tile + 1) * kTile), shift);
    __syncthreads();
    for (int d = threadIdx.x; d < kDigits; d += kThreads) histogram[tile * kDigits + d] = counts[d];
}

// Makes kColumns columns of a row's histogram exclusive sums over its tiles, and writes the totals of those digits.
template <int kThreads, int kColumns>
DEVICE void sum_histogram(u32* histogram, u32* totals, i64 first_digit, i64 tiles) {
    constexpr int kParts = kThreads / kColumns, kAhead = 8;
    __shared__ u32 sums[kParts][kColumns];
    const int column = threadIdx.x % kColumns, part = threadIdx.x / kColumns;
    const i64 each = ceil_div(tiles, kParts), begin = part * each, end = min_i64(tiles, begin + each);
    u32* counts = histogram + first_digit + column;
    u32 sum = 0;
    for (i64 tile = begin; tile < end; tile += kAhead) {
#pragma unroll
        for (int a = 0; a < kAhead; ++a) sum += tile + a < end ? counts[(tile + a) * kDigits] : 0;
    }
    sums[part][column] = sum;
    __syncthreads();
    u32 before = 0;
#pragma unroll 8
    for (int p = 0; p < part; ++p) before += sums[p][column];
    if (part == kParts - 1) totals[first_digit + column] = before + sum;
    for (i64 tile = begin; tile < end; tile += kAhead) {
        u32 x[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) x[a] = tile + a < end ? counts[(tile + a) * kDigits] : 0;
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            if (tile + a < end) counts[(tile + a) * kDigits] = before;
            before += x[a];
        }
    }
}

// Puts a tile's elements where the sums say.
template <int kThreads, int kItems, bool kIndices, class T>
DEVICE void scatter_by_histogram(const u32* histogram, const u32* totals, const T* from, const u32* from_indices, T* to,
                                 u32* to_indices, i64 tile, i64 n, int shift) {
    constexpr int kTile = kThreads * kItems;
    __shared__ TileMemory<kThreads, kItems, T, kIndices> memory;
    const bool has_digit = threadIdx.x < kDigits;
    const u32 earlier = has_digit ? histogram[tile * kDigits + threadIdx.x] : 0;
    u32 base = has_digit ? totals[threadIdx.x] : 0;
    exclusive_sum<kThreads>(base, memory.sums);
    const i64 begin = tile * kTile;
    scatter_tile(memory, from, from_indices, begin, int(min_i64(n - begin, kTile)), shift, base + earlier, to,
                 to_indices);
}
