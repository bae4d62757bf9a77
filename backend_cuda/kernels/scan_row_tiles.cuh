// Tiles of rows (see scan_tiles.cuh).
#pragma once
#include "scan_tiles.cuh"

// The rows of p, (rows, n), in tiles of kPacks packs a thread. A row has so many `tiles`, in groups, and slots for
// their totals and for the states up to the end of each group.
template <class Op, class E, int kThreads, int kPacks, int kBand, bool kReverse, bool kInclusive, class T, class O>
struct TilesOfRows {
    using State = typename Op::State;
    using Row = Packs<T, kReverse>;
    using Words = typename Row::Words;
    using OfWarp = PacksOfWarp<Op, E, kPacks, kReverse, kInclusive, T, O>;
    static constexpr int kWarps = kThreads / 32, kWidth = Row::kWidth, kWords = kSlotWords<State>;
    static constexpr int kElements = kThreads * kPacks * kWidth;  // of a tile
    static constexpr int kGroup = kThreads, kEach = kGroup / 32;  // tiles of a group, and of it those of a lane
    // A tile of a row; there is none from tile `tiles` on. Where it is whole, so are the packs that it has, and aligned
    // in q, too: then `from` and `to` are where the first one is, and it has those that begin before element `length`.
    struct Place {
        i64 row, tile;
        const T* from;
        O* to;
        int length;
        bool is_whole;
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
    u32 launch;
    State empty;

    // Of tile number k: a tile of each of kBand rows, and then the next one of each; then further rows.
    DEVICE Place place(i64 k) const {
        Place at = {};
        at.tile = tiles;
        if (k >= rows * tiles) return at;
        i64 in_band = take_coordinate(k, kBand * tiles);
        at.row = k * kBand + take_coordinate(in_band, min_i64(kBand, rows - k * kBand));
        at.tile = in_band;
        const Row row = elements(at);
        O* const result = q + at.row * n;
        const i64 left = n + row.lead - at.tile * kElements;
        at.length = int(min_i64(left, kElements));
        at.is_whole = (at.tile > 0 || row.lead == 0) && (left >= kElements || left % kWidth == 0) &&
                      is_aligned<kWidth>(result - row.before);
        const i64 offset = row.offset(at.tile * kThreads * kPacks);
        at.from = row.p + offset;
        at.to = result + offset;
        return at;
    }
    DEVICE Row elements(const Place& at) const { return Row(p + at.row * n, n); }
    // The packs of a tile that is not whole.
    DEVICE OfWarp parts(const Place& at, const Row& row) const {
        OfWarp packs;
        packs.template locate<false>(row, (at.tile * kWarps + threadIdx.x / 32) * 32 * kPacks);
        return packs;
    }
    // The element of a tile with which pack u of this thread begins, and where in memory that pack is, from the first.
    static DEVICE int element_of(int u) {
        return (threadIdx.x / 32 * 32 * kPacks + threadIdx.x % 32 + u * 32) * kWidth;
    }
    static DEVICE int step_to(int u) { return kReverse ? -element_of(u) : element_of(u); }
    DEVICE u64* totals(i64 row) const { return slots + row * (tiles + ceil_div(tiles, kGroup)) * kWords; }
    DEVICE u64* ends(i64 row) const { return totals(row) + tiles * kWords; }

    DEVICE void load(const Place& at, Tile& tile) const {
        if (threadIdx.x == 0) {
            keep_near(totals(at.row) + at.tile * kWords);
            keep_near(ends(at.row) + at.tile / kGroup * kWords);
        }
        if (at.is_whole) {
#pragma unroll
            for (int u = 0; u < kPacks; ++u) {
                tile.x[u] = {};
                if (element_of(u) >= at.length) continue;
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
        if (threadIdx.x == 0) publish(totals(at.row) + at.tile * kWords, total, launch);
        OfWarp::scan_packs(tile.before);
    }
    // Waits for the tiles before one; the state up to it. One thread asks for the end of the group before: if all of a
    // block did, what they ask for would come late.
    DEVICE State await_start(const Place& at) const {
        const i64 group = at.tile / kGroup;
        const int in_group = int(at.tile % kGroup);
        if (in_group == kGroup - 1 && at.tile + 1 < tiles && threadIdx.x < 32) publish_end(at.row, group);
        const bool looks = threadIdx.x < in_group;
        Published<State, 2> found(launch);
        found.expect(0, looks);
        found.expect(1, group > 0 && threadIdx.x == 0);
        for (;; wait_a_little()) {
            found.look(0, totals(at.row) + (group * kGroup + threadIdx.x) * kWords);
            found.look(1, ends(at.row) + (group - 1) * kWords);
            if (found.are_there()) break;
        }
        State part = looks ? found[0] : Op::identity();
        if (threadIdx.x == 0) {
            State start = group > 0 ? found[1] : empty;
            Op::merge(start, part);
            part = start;
        }
        return merge_block<Op, kThreads>(part);
    }
    // Writes the scan of a tile, after `start`.
    DEVICE void store(const Place& at, const Tile& tile, State start) const {
        Op::merge(start, tile.warps_before);
        if (at.is_whole) {
            OfWarp packs;
            packs.take(tile.x);
#pragma unroll
            for (int u = 0; u < kPacks; ++u) {
                if (element_of(u) >= at.length) continue;
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
        State total = await_state<State>(first, launch);
#pragma unroll 1
        for (int k = 1; k < kEach; ++k) Op::merge(total, await_state<State>(first + k * 32 * kWords, launch));
        State end = group > 0 ? await_state<State>(ends(row) + (group - 1) * kWords, launch) : empty;
        Op::merge(end, merge_lanes<Op, 32>(total));
        if (threadIdx.x % 32 == 0) publish(ends(row) + group * kWords, end, launch);
    }
    // By a warp that does nothing else: publishes those states of some rows, `first`, first + stride and so on, as soon
    // as they can be known. The blocks of last tiles publish the same, so nothing depends on a warp that waits for
    // blocks that may not have begun; but they come to it only between their tiles, and each has to see first what
    // another has published, which takes longer than a group's tiles do, if they are all of one row. It looks at two
    // groups at a time, and not for ever: the blocks it looks for may need the place of its own to begin.
    DEVICE void publish_ends(i64 first, i64 stride) const {
        constexpr int kAhead = 2, kMaxLooks = 1 << 14;  // a look takes about as long as a group's tiles
        const i64 groups = (tiles - 1) / kGroup;
        struct Item {
            i64 row, group;
        };
        auto after = [&](Item item) {
            return item.group + 1 < groups ? Item{item.row, item.group + 1} : Item{item.row + stride, 0};
        };
        State end = empty;
        int looks = 0;  // since a group was there
        for (Item item = {first, 0}; item.row < rows && looks < kMaxLooks; ++looks) {
            OfLane of_lane[kAhead] = {OfLane(launch), OfLane(launch)};
            Item ahead = item;
#pragma unroll
            for (int a = 0; a < kAhead; ++a) {
                look(of_lane[a], ahead.row, ahead.group, ahead.row < rows);
                ahead = after(ahead);
            }
#pragma unroll
            for (int a = 0; a < kAhead; ++a) {
                if (!__all_sync(0xffffffffu, item.row < rows && of_lane[a].are_there())) break;
                looks = 0;
                if (item.group == 0) end = empty;
                Op::merge(end, merge_group(of_lane[a]));
                if (threadIdx.x % 32 == 0) publish(ends(item.row) + item.group * kWords, end, launch);
                item = after(item);
            }
        }
    }
};

// The scan of each row of p, (rows, n), by all blocks but the first `adders` that begin, which add up groups. `kept` is
// for tickets and slots.
template <class Op, class E, int kThreads, int kPacks, int kBand, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_tiles_of_rows(const T* p, O* q, i64 rows, i64 n, i64 tiles, u64* kept, u32 adders,
                               typename Op::State empty) {
    constexpr int kWarps = kThreads / 32;
    const Tickets tickets{kept, u32(rows * tiles) + gridDim.x};
    const u64 answer = tickets.take();
    const u32 number = u32(answer);
    const TilesOfRows<Op, E, kThreads, kPacks, kBand, kReverse, kInclusive, T, O> all{
        p, q, rows, n, tiles, kept + kCounterWords, Tickets::launch_of(answer), empty};
    if (number < adders) {
        all.publish_ends(number + threadIdx.x / 32 * adders, adders * kWarps);
    } else {
        scan_two_at_a_time(all, tickets, number, adders);
    }
}
