// Running reductions by many blocks for each row, or for each column, by tiles that are read once.
//
// A block publishes the total of its tile, and adds up those before it. Not all of them: tiles are in groups, the last
// tile of a group publishes the state up to its end, and of the group before only that is read. What is added to what
// depends on sizes alone, never on who is first. A block waits for blocks that took their tickets before it, so they
// run.
#pragma once
#include "scan.cuh"

// The next of `count` numbers from 0 on; the last one leaves the counter at zero.
DEVICE u32 take_ticket(u32* counter, u32 count) {
    const u32 ticket = atomicAdd(counter, 1u);
    if (ticket == count - 1) *counter = 0;
    return ticket;
}
// The next number for the whole block.
DEVICE u32 take_ticket_of_block(u32* counter, u32 blocks) {
    __shared__ u32 ticket;
    if (threadIdx.x == 0) ticket = take_ticket(counter, blocks);
    __syncthreads();
    return ticket;
}

// A published state is a word of 8 bytes for each of its words of 4: that word, and a 1 that says that it is there.
// Each is written at once, so nothing needs to be fenced.
template <class State>
constexpr int kSlotWords = sizeof(State) / 4;

DEVICE void store_relaxed(u64* p, u64 x) {
#ifdef __CUDACC__
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(p), "l"(x) : "memory");
#else
    *p = x;
#endif
}
DEVICE u64 load_relaxed(const u64* p) {
#ifdef __CUDACC__
    u64 x;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(x) : "l"(p) : "memory");
    return x;
#else
    return *p;
#endif
}
template <class State>
DEVICE void publish(u64* slot, State state) {
    u32 words[kSlotWords<State>];
    memcpy(words, &state, sizeof(State));
#pragma unroll
    for (int i = 0; i < kSlotWords<State>; ++i) store_relaxed(slot + i, u64(words[i]) | 1ull << 32);
}
// The first `count` of kCount states that are `stride` words apart, when all of them are there.
template <int kCount, class State>
DEVICE void await_states(State (&states)[kCount], const u64* slots, i64 stride, int count) {
    constexpr int kWords = kSlotWords<State>;
    u32 words[kCount][kWords];
    bool are_there;
    do {
        are_there = true;
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
#pragma unroll
            for (int i = 0; i < kWords; ++i) {
                const u64 word = k < count ? load_relaxed(slots + k * stride + i) : 1ull << 32;
                words[k][i] = u32(word);
                are_there = are_there && word >> 32 != 0;
            }
        }
    } while (!are_there);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
        if (k < count) memcpy(&states[k], words[k], sizeof(State));
    }
}
template <class State>
DEVICE State await_state(const u64* slot) {
    State states[1];
    await_states(states, slot, 0, 1);
    return states[0];
}

// One tile of the rows of p, (rows, n), kPacks packs a thread. A row has so many `tiles`, and slots for their totals
// and for the states up to the end of each group of kThreads of them.
template <class Op, class E, int kThreads, int kPacks, bool kReverse, bool kInclusive, class T, class O>
struct TileOfRow {
    using State = typename Op::State;
    using Row = Packs<T, kReverse>;
    static constexpr int kWarps = kThreads / 32, kWords = kSlotWords<State>;
    i64 row, tile;
    bool is_whole;
    PacksOfWarp<Op, E, kPacks, kReverse, kInclusive, T, O> packs;
    State before[kPacks], warps_before, total;

    // The tile number `place`: a tile of every row, and then the next one of every row.
    DEVICE void load(const T* p, const O* q, i64 rows, i64 n, i64 place, State empty) {
        tile = place;
        row = take_coordinate(tile, rows);
        const Row elements(p + row * n, n);
        const bool has_start = tile == 0 && elements.lead > 0;
        is_whole = !has_start && tile < elements.whole_parts(kThreads * kPacks) &&
                   is_aligned<kPackWidth<T>>(q + row * n - elements.before);
        const i64 first = (tile * kWarps + threadIdx.x / 32) * 32 * kPacks;
        if (is_whole) {
            packs.template load<true>(elements, first, empty);
        } else {
            packs.template load<false>(elements, first, empty);
        }
    }
    static DEVICE u64* slots_of(u64* slots, i64 row, i64 tiles) {
        return slots + row * (tiles + ceil_div(tiles, kThreads)) * kWords;
    }
    // Publishes the total. `memory` may be used again after the barrier of another call.
    DEVICE void sum(u64* slots, i64 tiles, State (&memory)[kWarps]) {
        const int warp = threadIdx.x / 32;
        const State total_of_warp = packs.scan(before);
        if (threadIdx.x % 32 == 0) memory[warp] = total_of_warp;
        __syncthreads();
        warps_before = total = Op::identity();
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            if (w == warp) warps_before = total;
            Op::merge(total, memory[w]);
        }
        if (threadIdx.x == 0) publish(slots_of(slots, row, tiles) + tile * kWords, total);
    }
    // Waits for the tiles before this one, and writes the scan.
    DEVICE void store(const T* p, O* q, i64 n, u64* slots, i64 tiles, State empty) const {
        const i64 group = tile / kThreads;
        const int in_group = int(tile % kThreads);
        u64* const totals = slots_of(slots, row, tiles);
        u64* const ends = totals + tiles * kWords;
        State sum = Op::identity();
        if (threadIdx.x < in_group) sum = await_state<State>(totals + (group * kThreads + threadIdx.x) * kWords);
        sum = merge_block<Op, kThreads>(sum);
        State start = group > 0 ? await_state<State>(ends + (group - 1) * kWords) : empty;
        Op::merge(start, sum);
        if (threadIdx.x == 0 && in_group == kThreads - 1) {
            State end = start;
            Op::merge(end, total);
            publish(ends + group * kWords, end);
        }
        Op::merge(start, warps_before);
        const Row elements(p + row * n, n);
        if (is_whole) {
            packs.template store_scan<true>(elements, q + row * n, start, before);
        } else {
            packs.template store_scan<false>(elements, q + row * n, start, before);
        }
    }
};

// The scan of each row of p, (rows, n), by all blocks. A block has two tiles at a time: it publishes the total of the
// next one before it waits for the tiles before the first, so that few wait, and loads are always on their way.
template <class Op, class E, int kThreads, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_tiles(const T* p, O* q, i64 rows, i64 n, i64 tiles, u64* slots, u32* counter,
                       typename Op::State empty) {
    using Tile = TileOfRow<Op, E, kThreads, kPacks, kReverse, kInclusive, T, O>;
    // Aligned, or a load of 16 bytes of it would begin in another array.
    alignas(16) __shared__ typename Op::State memory[2][kThreads / 32];
    __shared__ u32 tickets[2];
    const i64 count = rows * tiles;
    if (threadIdx.x == 0) tickets[0] = take_ticket(counter, u32(count) + gridDim.x);
    __syncthreads();
    Tile here, next;
    bool has_one = false;
    for (int turn = 0;; turn ^= 1) {
        const i64 place = tickets[turn];
        const bool is_there = place < count;
        if (is_there) {
            u32 ahead = 0;
            if (threadIdx.x == 0) ahead = take_ticket(counter, u32(count) + gridDim.x);
            next.load(p, q, rows, n, place, empty);
            if (threadIdx.x == 0) tickets[turn ^ 1] = ahead;
            next.sum(slots, tiles, memory[turn]);
        }
        if (has_one) here.store(p, q, n, slots, tiles, empty);
        if (!is_there) break;
        here = next;
        has_one = true;
    }
}

// One tile of a block's columns: kThreads / kAcross * kRows rows of them. p and q are as in scan_columns; `slots` are
// those of these columns, a row of slots for each tile and for each group of kGroup tiles.
template <bool kWhole, class Op, class E, int kThreads, int kAcross, int kRows, int kGroup, bool kReverse,
          bool kInclusive, class T, class O>
DEVICE void scan_rows_of_tile(const T* p, O* q, i64 n, i64 inner, i64 left, i64 tile, i64 tiles, u64* slots,
                              typename Op::State empty) {
    using State = typename Op::State;
    using Columns = PackOfColumns<kWhole, E, kReverse, T, O>;
    constexpr int kWidth = Columns::kWidth, kDown = kThreads / kAcross, kWarps = kThreads / 32;
    constexpr int kColumns = kAcross * kWidth, kReaders = kThreads / kColumns, kEach = kGroup / kReaders;
    constexpr int kWords = kSlotWords<State>, kTileWords = kColumns * kWords;
    static_assert(kThreads % kColumns == 0 && kGroup % kReaders == 0);
    __shared__ State memory[kWarps][kColumns], read[kReaders][kColumns];
    const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross, warp = threadIdx.x / 32;
    const int count = int(max_i64(0, min_i64(kWidth, left - across * kWidth)));
    const Columns columns{p + across * kWidth, q + across * kWidth, n, inner, count};
    const i64 own = (tile * kDown + down) * kRows;
    typename Columns::Words x[kRows];
    columns.load(x, own);
    State before[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
        State total = Columns::template total<Op>(x, j);
        before[j] = scan_lanes<Op, kAcross>(total);
        if (threadIdx.x % 32 < kAcross) memory[warp][across * kWidth + j] = total;
    }
    __syncthreads();

    // From here to the next barrier a thread has one column, and some of the tiles before this one.
    const int column = threadIdx.x % kColumns, reader = threadIdx.x / kColumns;
    const i64 group = tile / kGroup;
    const int in_group = int(tile % kGroup);
    u64* const slot = slots + column * kWords;
    State total = Op::identity();
    if (reader == 0) {
#pragma unroll
        for (int w = 0; w < kWarps; ++w) Op::merge(total, memory[w][column]);
        publish(slot + tile * kTileWords, total);
    }
    State states[kEach], sum = Op::identity();
    const int first = reader * kEach, to_read = in_group - first < kEach ? in_group - first : kEach;
    await_states(states, slot + (group * kGroup + first) * kTileWords, kTileWords, to_read);
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
        if (k < to_read) Op::merge(sum, states[k]);
    }
    State start = empty;
    if (reader == 0 && group > 0) start = await_state<State>(slot + (tiles + group - 1) * kTileWords);
    read[reader][column] = sum;
    __syncthreads();
    if (reader == 0) {
        sum = Op::identity();
#pragma unroll
        for (int k = 0; k < kReaders; ++k) Op::merge(sum, read[k][column]);
        Op::merge(start, sum);
        read[0][column] = start;
        if (in_group == kGroup - 1) {
            Op::merge(start, total);
            publish(slot + (tiles + group) * kTileWords, start);
        }
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
        State running = read[0][across * kWidth + j];
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            if (w < warp) Op::merge(running, memory[w][across * kWidth + j]);
        }
        Op::merge(running, before[j]);
        before[j] = running;
    }
    columns.template store_scan<Op, kInclusive>(x, own, before);
}
template <class Op, class E, int kThreads, int kAcross, int kRows, int kGroup, bool kReverse, bool kInclusive, class T,
          class O>
DEVICE void scan_tile_of_columns(const T* p, O* q, i64 n, i64 inner, i64 left, i64 tile, i64 tiles, u64* slots,
                                 typename Op::State empty) {
    if (are_columns_whole(p, q, inner, left / kAcross)) {
        scan_rows_of_tile<true, Op, E, kThreads, kAcross, kRows, kGroup, kReverse, kInclusive>(
            p, q, n, inner, left, tile, tiles, slots, empty);
    } else {
        scan_rows_of_tile<false, Op, E, kThreads, kAcross, kRows, kGroup, kReverse, kInclusive>(
            p, q, n, inner, left, tile, tiles, slots, empty);
    }
}
