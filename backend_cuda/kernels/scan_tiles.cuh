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
// The next number of `count` for the whole block; the last one leaves the counter at zero.
DEVICE u32 take_ticket_of_block(u32* counter, u32 count) {
    __shared__ u32 ticket;
    if (threadIdx.x == 0) {
        ticket = atomicAdd(counter, 1u);
        if (ticket == count - 1) *counter = 0;
    }
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
// kCount states that may have been published, of which one looks at those that were not yet there.
template <class State, int kCount>
struct Published {
    static constexpr int kWords = kSlotWords<State>;
    u64 raw[kCount][kWords];

    // Before the first look at state k. One that is not wanted counts as there.
    DEVICE void expect(int k, bool wanted) {
#pragma unroll
        for (int i = 0; i < kWords; ++i) raw[k][i] = wanted ? 0 : 1ull << 32;
    }
    DEVICE void look(int k, const u64* slot) {
#pragma unroll
        for (int i = 0; i < kWords; ++i) {
            if (raw[k][i] >> 32 == 0) raw[k][i] = load_relaxed(slot + i);
        }
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
    state.expect(0, true);
    do state.look(0, slot);
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
    using Memory = State[kWarps];
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
    // Publishes the total as soon as it is known: what comes before each pack is found after that. `memory` may be used
    // again after another barrier.
    DEVICE void sum(const Place& at, Tile& tile, Memory& memory) const {
        OfWarp packs;
        packs.take(tile.x);
        const int warp = threadIdx.x / 32;
        State own = Op::identity();
#pragma unroll
        for (int u = 0; u < kPacks; ++u) Op::merge(own, tile.before[u] = packs.total_of_pack(u));
        own = merge_lanes<Op, 32>(own);
        if (threadIdx.x % 32 == 0) memory[warp] = own;
        __syncthreads();
        State total = Op::identity();
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            if (w == warp) tile.warps_before = total;
            Op::merge(total, memory[w]);
        }
        if (threadIdx.x == 0) publish(totals(at.row) + at.tile * kWords, total);
        OfWarp::scan_packs(tile.before);
    }
    // Waits for the tiles before one; the state up to it.
    DEVICE State await_start(const Place& at) const {
        const i64 group = at.tile / kGroup;
        const int in_group = int(at.tile % kGroup);
        if (in_group == kGroup - 1 && at.tile + 1 < tiles && threadIdx.x < 32) publish_end(at.row, group);
        const bool looks = threadIdx.x < in_group;
        Published<State, 2> found;
        found.expect(0, looks);
        found.expect(1, group > 0);
        do {
            found.look(0, totals(at.row) + (group * kGroup + threadIdx.x) * kWords);
            found.look(1, ends(at.row) + (group - 1) * kWords);
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
        for (int k = 0; k < kEach; ++k) of_lane.expect(k, wanted);
#pragma unroll
        for (int k = 0; k < kEach; ++k) of_lane.look(k, first + k * 32 * kWords);
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

// What each of `blocks` blocks does that scan tiles, `count` in all. A block has two tiles at a time: it publishes the
// total of the next one before it waits for the tiles before the first, so that few wait, and loads are always on their
// way.
template <class Tiles>
DEVICE void scan_two_at_a_time(const Tiles& all, u32 count, u32* counter, u32 blocks) {
    // Aligned, or a load of 16 bytes of it would begin in another array.
    alignas(16) __shared__ typename Tiles::Memory memory;
    // Of the tile that is stored, of the one that is loaded, and of the one after these.
    __shared__ typename Tiles::Place places[3];
    u32 ticket = 0;  // of thread 0
    auto take = [&] {
        if (threadIdx.x == 0) ticket = ask_for_number(counter);
    };
    auto put_place = [&](int at) {
        if (threadIdx.x != 0) return;
        if (ticket == count + blocks - 1) *counter = 0;
        places[at] = all.place(ticket);
    };
    take();
    put_place(0);
    __syncthreads();
    typename Tiles::Tile here, next;
    bool has_one = false;
    for (int last = 2, turn = 0, after = 1;;) {
        const bool is_there = places[turn].tile < all.tiles;
        if (is_there) {
            take();
            all.load(places[turn], next);
            all.sum(places[turn], next, memory);
            put_place(after);
        } else {
            __syncthreads();  // await_start's memory is used again
        }
        if (has_one) {
            all.store(places[last], here, all.await_start(places[last]));
        } else {
            __syncthreads();
        }
        if (!is_there) return;
        here = next;
        has_one = true;
        last = turn;
        turn = after;
        after = 3 - last - turn;
    }
}

// The scan of each row of p, (rows, n), by all blocks but the first `adders`, which add up groups.
template <class Op, class E, int kThreads, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_tiles_of_rows(const T* p, O* q, i64 rows, i64 n, i64 tiles, u64* slots, u32* counter, int adders,
                               typename Op::State empty) {
    constexpr int kWarps = kThreads / 32, kCarries = 64;
    const TilesOfRows<Op, E, kThreads, kPacks, kReverse, kInclusive, T, O> all{p, q, rows, n, tiles, slots, empty};
    if (int(blockIdx.x) < adders) {
        __shared__ typename Op::State carries[kWarps][kCarries];
        const int warp = threadIdx.x / 32, first = blockIdx.x + warp * adders;
        if (first < rows) all.publish_ends(first, adders * kWarps, carries[warp], kCarries);
    } else {
        scan_two_at_a_time(all, u32(rows * tiles), counter, gridDim.x - adders);
    }
}

// Of the totals of a group of tiles of columns, each thread has some of one column.
template <class State, int kThreads, int kColumns, int kGroup>
struct GroupOfColumns {
    static constexpr int kReaders = kThreads / kColumns, kEach = kGroup / kReaders, kWords = kSlotWords<State>;
    static constexpr int kTileWords = kColumns * kWords;
    static_assert(kThreads % kColumns == 0 && kGroup % kReaders == 0);
    int column, first;
    DEVICE GroupOfColumns() : column(threadIdx.x % kColumns), first(int(threadIdx.x) / kColumns * kEach) {}
    DEVICE bool is_first_reader() const { return first == 0; }
    // Of the first `count` tiles.
    template <int kCount>
    DEVICE void expect(Published<State, kCount>& found, int count) const {
#pragma unroll
        for (int k = 0; k < kEach; ++k) found.expect(k, first + k < count);
    }
    template <int kCount>
    DEVICE void look(Published<State, kCount>& found, const u64* slots, i64 group) const {
        const u64* const slot = slots + (group * kGroup + first) * kTileWords + column * kWords;
#pragma unroll
        for (int k = 0; k < kEach; ++k) found.look(k, slot + k * kTileWords);
    }
    // This thread's part of the first `count`.
    template <class Op, int kCount>
    DEVICE State merged(const Published<State, kCount>& found, int count) const {
        State sum = Op::identity();
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
            if (first + k < count) Op::merge(sum, found[k]);
        }
        return sum;
    }
    static DEVICE u64* end(u64* slots, i64 tiles, i64 group) { return slots + (tiles + group) * kTileWords; }
};

// By a block that does nothing else: publishes the states up to the end of each group of some columns' tiles, as soon
// as they can be known. The blocks of last tiles publish the same, but each of them has to see first what another has
// published, which takes longer than a group's tiles do where there are few columns. As in publish_ends, nothing
// depends on it, and it does not look for ever.
template <class Op, int kThreads, int kColumns, int kGroup>
DEVICE void publish_ends_of_columns(i64 tiles, u64* slots, typename Op::State empty) {
    using State = typename Op::State;
    using Group = GroupOfColumns<State, kThreads, kColumns, kGroup>;
    constexpr int kMaxLooks = 1 << 14;
    __shared__ State read[2][Group::kReaders][kColumns];
    __shared__ bool gives_up[2];
    const Group of;
    const i64 groups = (tiles - 1) / kGroup;
    if (threadIdx.x < 2) gives_up[threadIdx.x] = false;
    __syncthreads();
    State end = empty;  // of the first readers
    Published<State, Group::kEach> now, ahead;
    of.expect(ahead, kGroup);
    of.look(ahead, slots, 0);
    for (i64 group = 0; group < groups; ++group) {
        now = ahead;
        of.expect(ahead, group + 1 < groups ? kGroup : 0);
        of.look(ahead, slots, group + 1);
        int looks = 0;
        for (; !now.are_there() && looks < kMaxLooks; ++looks) of.look(now, slots, group);
        if (looks == kMaxLooks) gives_up[group % 2] = true;
        State(&parts)[Group::kReaders][kColumns] = read[group % 2];
        parts[of.first / Group::kEach][of.column] = of.template merged<Op>(now, kGroup);
        __syncthreads();
        if (gives_up[group % 2]) return;
        if (!of.is_first_reader()) continue;
        State sum = Op::identity();
#pragma unroll
        for (int k = 0; k < Group::kReaders; ++k) Op::merge(sum, parts[k][of.column]);
        Op::merge(end, sum);
        publish(Group::end(slots, tiles, group) + of.column * Group::kWords, end);
    }
}

// The columns of p, (outers, n, inner), in tiles of kThreads / kAcross * kRows rows of kAcross packs. Columns have so
// many `tiles`, in groups, and slots as GroupOfColumns has them.
template <class Op, class E, int kThreads, int kAcross, int kRows, int kGroup, bool kReverse, bool kInclusive, class T,
          class O>
struct TilesOfColumns {
    using State = typename Op::State;
    static constexpr int kWidth = kPackWidth<T>, kDown = kThreads / kAcross, kWarps = kThreads / 32;
    static constexpr int kColumns = kAcross * kWidth;
    using Group = GroupOfColumns<State, kThreads, kColumns, kGroup>;
    template <bool kWhole>
    using Columns = PackOfColumns<kWhole, E, kReverse, T, O>;
    // A tile; there is none from tile `tiles` on. `left` columns from its first on are there; where they are whole,
    // packs are, and aligned.
    struct Place {
        i64 tile, left;
        const T* from;
        O* to;
        u64* slots;
        bool is_whole;
    };
    // What a thread has of a tile: its rows of its pack of columns, and the states of what the tile has before.
    struct Tile {
        typename Columns<true>::Words x[kRows];
        State before[kWidth];
    };
    struct Start {
        State of_column[kWidth];
    };
    using Memory = State[kWarps][kColumns];
    const T* p;
    O* q;
    i64 outers, n, inner, across, tiles;
    u64* slots;
    State empty;

    DEVICE TilesOfColumns(const T* from, O* to, i64 outer_size, i64 rows, i64 inner_size, u64* first_slot, State first)
        : p(from),
          q(to),
          outers(outer_size),
          n(rows),
          inner(inner_size),
          across(ceil_div(inner, kColumns)),
          tiles(ceil_div(n, kDown * kRows)),
          slots(first_slot),
          empty(first) {}

    DEVICE i64 strips() const { return outers * across; }
    DEVICE u64* slots_of(i64 strip) const {
        return slots + strip * (tiles + ceil_div(tiles, kGroup)) * Group::kTileWords;
    }
    // Of tile number k: a tile of all columns, and then the next one of all.
    DEVICE Place place(i64 k) const {
        const i64 strip = take_coordinate(k, across), outer = take_coordinate(k, outers);
        const i64 start = outer * n * inner + strip * kColumns;
        Place at = {k, inner - strip * kColumns, p + start, q + start, slots_of(outer * across + strip), false};
        at.is_whole = are_columns_whole(at.from, at.to, inner, at.left / kAcross);
        return at;
    }
    template <bool kWhole>
    DEVICE Columns<kWhole> columns(const Place& at) const {
        const int first = threadIdx.x % kAcross * kWidth, count = int(max_i64(0, min_i64(kWidth, at.left - first)));
        return {at.from + first, at.to + first, n, inner, count};
    }
    DEVICE i64 own_row(const Place& at) const { return (at.tile * kDown + threadIdx.x / kAcross) * kRows; }

    DEVICE void load(const Place& at, Tile& tile) const {
        if (at.is_whole) {
            columns<true>(at).load(tile.x, own_row(at));
        } else {
            columns<false>(at).load(tile.x, own_row(at));
        }
    }
    // Publishes the totals. `memory` may be used again after another barrier.
    DEVICE void sum(const Place& at, Tile& tile, Memory& memory) const {
        const int warp = threadIdx.x / 32, own = threadIdx.x % kAcross * kWidth;
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            State total = Columns<true>::template total<Op>(tile.x, j);
            tile.before[j] = scan_lanes<Op, kAcross>(total);
            if (threadIdx.x % 32 < kAcross) memory[warp][own + j] = total;
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) forget_made_of(tile.x[r]);
        __syncthreads();
        const Group of;
        if (of.is_first_reader()) {
            State total = Op::identity();
#pragma unroll
            for (int w = 0; w < kWarps; ++w) Op::merge(total, memory[w][of.column]);
            publish(at.slots + at.tile * Group::kTileWords + of.column * Group::kWords, total);
        }
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            State all = Op::identity();
#pragma unroll
            for (int w = 0; w < kWarps; ++w) {
                if (w < warp) Op::merge(all, memory[w][own + j]);
            }
            Op::merge(all, tile.before[j]);
            tile.before[j] = all;
        }
    }
    // Waits for the tiles before one; the states up to it. The block of a group's last tile publishes its end. May be
    // called again after another barrier.
    DEVICE Start await_start(const Place& at) const {
        __shared__ State parts[Group::kReaders][kColumns];
        const Group of;
        const i64 group = at.tile / kGroup;
        const int in_group = int(at.tile % kGroup);
        const bool is_last = in_group == kGroup - 1, needs_end = of.is_first_reader() && group > 0;
        Published<State, Group::kEach + 1> found;
        of.expect(found, in_group);
        found.expect(Group::kEach, needs_end);
        do {
            of.look(found, at.slots, group);
            found.look(Group::kEach, Group::end(at.slots, tiles, group - 1) + of.column * Group::kWords);
        } while (!found.are_there());
        parts[of.first / Group::kEach][of.column] = of.template merged<Op>(found, in_group);
        __syncthreads();
        if (of.is_first_reader()) {
            State start = needs_end ? found[Group::kEach] : empty, end = start, sum = Op::identity(), last;
#pragma unroll
            for (int k = 0; k < Group::kReaders; ++k) {
                last = sum;
                Op::merge(sum, parts[k][of.column]);
            }
            if (is_last) {  // to the last bit as publish_ends_of_columns has it
                State part = parts[Group::kReaders - 1][of.column];
                Op::merge(part, await_state<State>(at.slots + at.tile * Group::kTileWords + of.column * Group::kWords));
                Op::merge(last, part);
                Op::merge(end, last);
                publish(Group::end(at.slots, tiles, group) + of.column * Group::kWords, end);
            }
            Op::merge(start, sum);
            parts[0][of.column] = start;
        }
        __syncthreads();
        Start start;
#pragma unroll
        for (int j = 0; j < kWidth; ++j) start.of_column[j] = parts[0][threadIdx.x % kAcross * kWidth + j];
        return start;
    }
    // Writes the scan of a tile, after `start`.
    DEVICE void store(const Place& at, const Tile& tile, Start start) const {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) Op::merge(start.of_column[j], tile.before[j]);
        if (at.is_whole) {
            columns<true>(at).template store_scan<Op, kInclusive>(tile.x, own_row(at), start.of_column);
        } else {
            columns<false>(at).template store_scan<Op, kInclusive>(tile.x, own_row(at), start.of_column);
        }
    }
};

// The scan of the middle axis of p, (outers, n, inner), by a block for each tile.
template <class Op, class E, int kThreads, int kAcross, int kRows, int kGroup, bool kReverse, bool kInclusive, class T,
          class O>
DEVICE void scan_tiles_of_columns(const T* p, O* q, i64 outers, i64 n, i64 inner, u64* slots, u32* counter,
                                  typename Op::State empty) {
    using Tiles = TilesOfColumns<Op, E, kThreads, kAcross, kRows, kGroup, kReverse, kInclusive, T, O>;
    const Tiles all(p, q, outers, n, inner, slots, empty);
    __shared__ typename Tiles::Memory memory;
    const typename Tiles::Place at = all.place(take_ticket_of_block(counter, gridDim.x));
    typename Tiles::Tile tile;
    all.load(at, tile);
    all.sum(at, tile, memory);
    all.store(at, tile, all.await_start(at));
}
// The same where columns are few, so that most tiles wait for all others: by blocks that have two at a time, and by the
// first `adders` blocks, each of which adds up the groups of a strip of columns.
template <class Op, class E, int kThreads, int kAcross, int kRows, int kGroup, bool kReverse, bool kInclusive, class T,
          class O>
DEVICE void scan_tiles_of_few_columns(const T* p, O* q, i64 outers, i64 n, i64 inner, u64* slots, u32* counter,
                                      int adders, typename Op::State empty) {
    using Tiles = TilesOfColumns<Op, E, kThreads, kAcross, kRows, kGroup, kReverse, kInclusive, T, O>;
    const Tiles all(p, q, outers, n, inner, slots, empty);
    if (int(blockIdx.x) < adders) {
        publish_ends_of_columns<Op, kThreads, Tiles::kColumns, kGroup>(all.tiles, all.slots_of(blockIdx.x), empty);
    } else {
        scan_two_at_a_time(all, u32(all.strips() * all.tiles), counter, gridDim.x - adders);
    }
}
