// Running reductions by many blocks for each row, or for each column, by tiles that are read once.
//
// A block publishes the total of its tile, and adds up those before it. Not all of them: tiles are in groups, the state
// up to the end of a group is published, too, and of the groups before only that of the last one is read. What is added
// to what depends on sizes alone, never on who is first. A block waits for blocks that took their tickets before it, so
// they run.
#pragma once
#include "scan.cuh"

// The next number of a counter. Nothing waits for it until it is used; of an atomicAdd the compiler makes one for all
// lanes that come to it, and code that waits for the result, to give each lane its own.
DEVICE u32 ask_for_number(u32* counter) {
#ifdef __CUDACC__
    u32 before;
    asm volatile("atom.add.relaxed.gpu.global.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(1) : "memory");
    return before;
#else
    return atomicAdd(counter, 1u);
#endif
}
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
// kCount states that may have been published, looked at all at once; of none where it is not wanted.
template <class State, int kCount>
struct Published {
    static constexpr int kWords = kSlotWords<State>;
    u64 raw[kCount][kWords];

    DEVICE void look(int k, const u64* slot, bool wanted) {
#pragma unroll
        for (int i = 0; i < kWords; ++i) raw[k][i] = wanted ? load_relaxed(slot + i) : 1ull << 32;
    }
    DEVICE bool are_there() const {
        u64 all = ~0ull;
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
#pragma unroll
            for (int i = 0; i < kWords; ++i) all &= raw[k][i];
        }
        return all >> 32 != 0;
    }
    DEVICE State operator[](int k) const {
        u32 words[kWords];
#pragma unroll
        for (int i = 0; i < kWords; ++i) words[i] = u32(raw[k][i]);
        State state;
        memcpy(&state, words, sizeof(State));
        return state;
    }
};

template <class State>
DEVICE State await_state(const u64* slot) {
    Published<State, 1> state;
    do state.look(0, slot, true);
    while (!state.are_there());
    return state[0];
}

// The rows of p, (rows, n), in tiles of kPacks packs a thread. A row has so many `tiles`, in groups, and slots for
// their totals and for the states up to the end of each group.
template <class Op, class E, int kThreads, int kPacks, bool kReverse, bool kInclusive, class T, class O>
struct TilesOfRows {
    using State = typename Op::State;
    using Row = Packs<T, kReverse>;
    using Words = typename Row::Words;
    using OfWarp = PacksOfWarp<Op, E, kPacks, kReverse, kInclusive, T, O>;
    static constexpr int kWarps = kThreads / 32, kWidth = Row::kWidth, kWords = kSlotWords<State>;
    static constexpr int kElements = kThreads * kPacks * kWidth;  // of a tile
    static constexpr int kGroup = kThreads, kEach = kGroup / 32;  // tiles of a group, and of it those of a lane
    // A tile of a row; there is none from tile `tiles` on. Where it is full, all its packs are whole, and aligned in q,
    // too: then `from` and `to` are where its first pack is.
    struct Place {
        i64 row, tile;
        const T* from;
        O* to;
        bool is_full;
    };
    // What a thread has of a tile: its packs, and the states of what its warp has before each, and of the warps before.
    struct Tile {
        Words x[kPacks];
        State before[kPacks], warps_before;
    };
    const T* p;
    O* q;
    i64 rows, n, tiles;
    u64* slots;
    State empty;

    // Of tile number k: a tile of every row, and then the next one of every row.
    DEVICE Place place(i64 k) const {
        Place at = {};
        at.row = take_coordinate(k, rows);
        at.tile = k;
        const Row row = elements(at);
        O* const result = q + at.row * n;
        at.is_full =
            (k > 0 || row.lead == 0) && (k + 1) * kElements <= n + row.lead && is_aligned<kWidth>(result - row.before);
        const i64 offset = row.offset(k * kThreads * kPacks);
        at.from = row.p + offset;
        at.to = result + offset;
        return at;
    }
    DEVICE Row elements(const Place& at) const { return Row(p + at.row * n, n); }
    // The packs of a tile that is not full.
    DEVICE OfWarp parts(const Place& at, const Row& row) const {
        OfWarp packs;
        packs.template locate<false>(row, (at.tile * kWarps + threadIdx.x / 32) * 32 * kPacks);
        return packs;
    }
    // From a full tile's first pack to pack u of this thread, in elements.
    static DEVICE int step_to(int u) {
        const int pack = threadIdx.x / 32 * 32 * kPacks + threadIdx.x % 32 + u * 32;
        return kReverse ? -pack * kWidth : pack * kWidth;
    }
    DEVICE u64* totals(i64 row) const { return slots + row * (tiles + ceil_div(tiles, kGroup)) * kWords; }
    DEVICE u64* ends(i64 row) const { return totals(row) + tiles * kWords; }

    DEVICE void load(const Place& at, Tile& tile) const {
        if (at.is_full) {
#pragma unroll
            for (int u = 0; u < kPacks; ++u) {
                tile.x[u] = load_aligned<Row::kWords>(reinterpret_cast<const u32*>(at.from + step_to(u)));
            }
        } else {
            const Row row = elements(at);
            const OfWarp packs = parts(at, row);
#pragma unroll
            for (int u = 0; u < kPacks; ++u) tile.x[u] = packs.load_part(row, u, empty);
        }
    }
    // Publishes the total. `memory` may be used again after another barrier.
    DEVICE void sum(const Place& at, Tile& tile, State (&memory)[kWarps]) const {
        OfWarp packs;
        packs.take(tile.x);
        const int warp = threadIdx.x / 32;
        const State total_of_warp = packs.scan(tile.before);
        if (threadIdx.x % 32 == 0) memory[warp] = total_of_warp;
        __syncthreads();
        State total = Op::identity();
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            if (w == warp) tile.warps_before = total;
            Op::merge(total, memory[w]);
        }
        if (threadIdx.x == 0) publish(totals(at.row) + at.tile * kWords, total);
    }
    // Waits for the tiles before one; the state up to it.
    DEVICE State await_start(const Place& at) const {
        const i64 group = at.tile / kGroup;
        const int in_group = int(at.tile % kGroup);
        if (in_group == kGroup - 1 && at.tile + 1 < tiles && threadIdx.x < 32) publish_end(at.row, group);
        const bool looks = threadIdx.x < in_group;
        Published<State, 2> found;
        do {
            found.look(0, totals(at.row) + (group * kGroup + threadIdx.x) * kWords, looks);
            found.look(1, ends(at.row) + (group - 1) * kWords, group > 0);
        } while (!found.are_there());
        State start = group > 0 ? found[1] : empty;
        Op::merge(start, merge_block<Op, kThreads>(looks ? found[0] : Op::identity()));
        return start;
    }
    // Writes the scan of a tile, after `start`.
    DEVICE void store(const Place& at, const Tile& tile, State start) const {
        Op::merge(start, tile.warps_before);
        if (at.is_full) {
            OfWarp packs;
            packs.take(tile.x);
#pragma unroll
            for (int u = 0; u < kPacks; ++u) {
                State running = start;
                Op::merge(running, tile.before[u]);
                store_words<kWidth>(at.to + step_to(u), packs.scan_of_pack(u, running));
            }
        } else {
            const Row row = elements(at);
            OfWarp packs = parts(at, row);
            packs.take(tile.x);
            packs.template store_scan<false>(row, q + at.row * n, start, tile.before);
        }
    }

    // Of the tiles of a group, those of a lane.
    using OfLane = Published<State, kEach>;
    DEVICE void look(OfLane& of_lane, i64 row, i64 group, bool wanted) const {
        const u64* const first = totals(row) + (group * kGroup + threadIdx.x % 32) * kWords;
#pragma unroll
        for (int k = 0; k < kEach; ++k) of_lane.look(k, first + k * 32 * kWords, wanted);
    }
    static DEVICE State merge_group(const OfLane& of_lane) {
        State total = of_lane[0];
#pragma unroll
        for (int k = 1; k < kEach; ++k) Op::merge(total, of_lane[k]);
        return merge_lanes<Op, 32>(total);
    }
    // By a warp: the state up to the end of a group, from the one before it, and the totals of its tiles. It looks at
    // one after the other, so that the tiles that its threads hold stay in registers.
    DEVICE void publish_end(i64 row, i64 group) const {
        const u64* const first = totals(row) + (group * kGroup + threadIdx.x % 32) * kWords;
        State total = await_state<State>(first);
#pragma unroll 1
        for (int k = 1; k < kEach; ++k) Op::merge(total, await_state<State>(first + k * 32 * kWords));
        State end = group > 0 ? await_state<State>(ends(row) + (group - 1) * kWords) : empty;
        Op::merge(end, merge_lanes<Op, 32>(total));
        if (threadIdx.x % 32 == 0) publish(ends(row) + group * kWords, end);
    }
    // By a warp that does nothing else: publishes those states of some rows, `first`, first + stride and so on, as soon
    // as they can be known. The blocks of last tiles publish the same, so nothing depends on a warp that waits for
    // blocks that may not have begun; but they come to it only between their tiles, and each has to see first what
    // another has published, which takes longer than a group's tiles do, if they are all of one row. `carries` are for
    // the states before the rows' next groups, of which it looks at two at a time; it leaves further rows alone. Nor
    // does it look for ever: the blocks it looks for may need the place of its own to begin.
    DEVICE void publish_ends(i64 first, i64 stride, State* carries, i64 n_carries) const {
        constexpr int kAhead = 2, kMaxLooks = 1 << 14;  // a look takes about as long as a group's tiles
        const i64 own = min_i64(ceil_div(rows - first, stride), n_carries), groups = (tiles - 1) / kGroup;
        // A group of each of this warp's rows, and then the next one of each.
        struct Item {
            i64 index, group;
        };
        auto after = [&](Item item) {
            return item.index + 1 < own ? Item{item.index + 1, item.group} : Item{0, item.group + 1};
        };
        int looks = 0;  // since a group was there
        for (Item item = {0, 0}; item.group < groups && looks < kMaxLooks; ++looks) {
            OfLane of_lane[kAhead];
            Item ahead = item;
#pragma unroll
            for (int a = 0; a < kAhead; ++a) {
                look(of_lane[a], first + ahead.index * stride, ahead.group, ahead.group < groups);
                ahead = after(ahead);
            }
#pragma unroll
            for (int a = 0; a < kAhead; ++a) {
                if (!__all_sync(0xffffffffu, item.group < groups && of_lane[a].are_there())) break;
                looks = 0;
                const State total = merge_group(of_lane[a]);
                if (threadIdx.x % 32 == 0) {
                    State end = item.group > 0 ? carries[item.index] : empty;
                    Op::merge(end, total);
                    carries[item.index] = end;
                    publish(ends(first + item.index * stride) + item.group * kWords, end);
                }
                item = after(item);
            }
        }
    }
};

// The scan of each row of p, (rows, n), by all blocks but the first `adders`, which add up groups. A block has two
// tiles at a time: it publishes the total of the next one before it waits for the tiles before the first, so that few
// wait, and loads are always on their way.
template <class Op, class E, int kThreads, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_tiles(const T* p, O* q, i64 rows, i64 n, i64 tiles, u64* slots, u32* counter, int adders,
                       typename Op::State empty) {
    using Tiles = TilesOfRows<Op, E, kThreads, kPacks, kReverse, kInclusive, T, O>;
    using State = typename Op::State;
    constexpr int kWarps = kThreads / 32;
    const Tiles all{p, q, rows, n, tiles, slots, empty};
    if (int(blockIdx.x) < adders) {
        constexpr int kCarries = 64;
        __shared__ State carries[kWarps][kCarries];
        const int warp = threadIdx.x / 32, first = blockIdx.x + warp * adders;
        if (first < rows) all.publish_ends(first, adders * kWarps, carries[warp], kCarries);
        return;
    }
    // Aligned, or a load of 16 bytes of it would begin in another array.
    alignas(16) __shared__ State memory[kWarps];
    // Of the tile that is stored, of the one that is loaded, and of the one after these.
    __shared__ typename Tiles::Place places[3];
    const u32 count = u32(rows * tiles), tickets = count + gridDim.x - adders;
    u32 ticket = 0;  // of thread 0
    auto take = [&] {
        if (threadIdx.x == 0) ticket = ask_for_number(counter);
    };
    auto put_place = [&](int at) {
        if (threadIdx.x != 0) return;
        if (ticket == tickets - 1) *counter = 0;
        places[at] = all.place(ticket);
    };
    take();
    put_place(0);
    __syncthreads();
    typename Tiles::Tile here, next;
    bool has_one = false;
    for (int last = 2, turn = 0, after = 1;;) {
        const bool is_there = places[turn].tile < tiles;
        if (is_there) {
            take();
            all.load(places[turn], next);
            all.sum(places[turn], next, memory);
            put_place(after);
        }
        if (has_one) {
            all.store(places[last], here, all.await_start(places[last]));
        } else {
            __syncthreads();
        }
        if (!is_there) break;
        here = next;
        has_one = true;
        last = turn;
        turn = after;
        after = 3 - last - turn;
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
    const int first = reader * kEach;
    const bool needs_end = reader == 0 && group > 0;
    Published<State, kEach + 1> found;
    do {
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
            found.look(k, slot + (group * kGroup + first + k) * kTileWords, first + k < in_group);
        }
        found.look(kEach, slot + (tiles + group - 1) * kTileWords, needs_end);
    } while (!found.are_there());
    State sum = Op::identity(), start = needs_end ? found[kEach] : empty;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
        if (first + k < in_group) Op::merge(sum, found[k]);
    }
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
