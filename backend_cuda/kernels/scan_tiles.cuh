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
