// Tiles of columns (see scan_tiles.cuh).
#pragma once
#include "scan_tiles.cuh"

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
DEVICE void publish_ends_of_columns(i64 tiles, u64* slots, u32 launch, typename Op::State empty) {
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
    Published<State, Group::kEach> now(launch), ahead(launch);
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
        publish(Group::end(slots, tiles, group) + of.column * Group::kWords, end, launch);
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
    u32 launch;
    State empty;

    DEVICE TilesOfColumns(const T* from, O* to, i64 outer_size, i64 rows, i64 inner_size, u64* first_slot,
                          u32 of_launch, State first)
        : p(from),
          q(to),
          outers(outer_size),
          n(rows),
          inner(inner_size),
          across(ceil_div(inner, kColumns)),
          tiles(tiles_of(n)),
          slots(first_slot),
          launch(of_launch),
          empty(first) {}

    static DEVICE i64 strips(i64 outers, i64 inner) { return outers * ceil_div(inner, kColumns); }
    static DEVICE i64 tiles_of(i64 n) { return ceil_div(n, kDown * kRows); }
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
        if (threadIdx.x * kLineWords < Group::kTileWords) {
            keep_near(at.slots + at.tile * Group::kTileWords + threadIdx.x * kLineWords);
            keep_near(Group::end(at.slots, tiles, at.tile / kGroup) + threadIdx.x * kLineWords);
        }
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
            publish(at.slots + at.tile * Group::kTileWords + of.column * Group::kWords, total, launch);
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
        Published<State, Group::kEach + 1> found(launch);
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
                const u64* const own = at.slots + at.tile * Group::kTileWords + of.column * Group::kWords;
                Op::merge(part, await_state<State>(own, launch));
                Op::merge(last, part);
                Op::merge(end, last);
                publish(Group::end(at.slots, tiles, group) + of.column * Group::kWords, end, launch);
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

// The scan of the middle axis of p, (outers, n, inner), by a block for each tile. A block waits for those of lower
// numbers. These begin first, which CUB's scans rely on, too: if tickets chose the tiles, 16-bit floats would take 7%
// longer. So tickets only tell which launch this is. `kept` is for tickets and slots.
template <class Op, class E, int kThreads, int kAcross, int kRows, int kGroup, bool kReverse, bool kInclusive, class T,
          class O>
DEVICE void scan_tiles_of_columns(const T* p, O* q, i64 outers, i64 n, i64 inner, u64* kept, typename Op::State empty) {
    using Tiles = TilesOfColumns<Op, E, kThreads, kAcross, kRows, kGroup, kReverse, kInclusive, T, O>;
    const Tickets tickets{kept, gridDim.x};
    __shared__ u32 launch;
    u64 answer = 0;  // of thread 0
    if (threadIdx.x == 0) answer = tickets.ask();
    Tiles all(p, q, outers, n, inner, kept + kCounterWords, 0, empty);
    __shared__ typename Tiles::Memory memory;
    const typename Tiles::Place at = all.place(blockIdx.x);
    typename Tiles::Tile tile;
    all.load(at, tile);
    if (threadIdx.x == 0) {
        tickets.number_of(answer);
        launch = Tickets::launch_of(answer);
    }
    __syncthreads();
    all.launch = launch;
    all.sum(at, tile, memory);
    all.store(at, tile, all.await_start(at));
}
// The same where columns are few, so that most tiles wait for all others: by blocks that have two at a time, and by the
// first `adders` blocks that begin, each of which adds up the groups of a strip of columns.
template <class Op, class E, int kThreads, int kAcross, int kRows, int kGroup, bool kReverse, bool kInclusive, class T,
          class O>
DEVICE void scan_tiles_of_few_columns(const T* p, O* q, i64 outers, i64 n, i64 inner, u64* kept, u32 adders,
                                      typename Op::State empty) {
    using Tiles = TilesOfColumns<Op, E, kThreads, kAcross, kRows, kGroup, kReverse, kInclusive, T, O>;
    const i64 tiles = Tiles::strips(outers, inner) * Tiles::tiles_of(n);
    const Tickets tickets{kept, u32(tiles) + gridDim.x};
    const u64 answer = tickets.take();
    const u32 number = u32(answer);
    const Tiles all(p, q, outers, n, inner, kept + kCounterWords, Tickets::launch_of(answer), empty);
    if (number < adders) {
        publish_ends_of_columns<Op, kThreads, Tiles::kColumns, kGroup>(all.tiles, all.slots_of(number), all.launch,
                                                                       empty);
    } else {
        scan_two_at_a_time(all, tickets, number, adders);
    }
}
