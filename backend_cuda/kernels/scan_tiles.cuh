// Running reductions by many blocks for each row, or for each column, by tiles that are read once.
//
// A block publishes the total of its tile, and adds up those before it. Not all of them: tiles are in groups, the state
// up to the end of a group is published, too, and of the groups before only that of the last one is read. What is added
// to what depends on sizes alone, never on who is first. A block waits for blocks that took their tickets before it, so
// they run; scan_tiles_of_columns says what it relies on instead.
#pragma once
#include "scan.cuh"

// The numbers that the blocks of a launch take, one after the other: those below `total`. The counter's upper half
// counts launches, the lower one numbers. It begins with zeros, and whoever takes the last number sets it for the next
// launch. What is kept from launch to launch begins with it; slots are behind it, in another line of memory.
constexpr int kLineWords = 16, kCounterWords = kLineWords;
struct Tickets {
    u64* counter;
    u32 total;
    // Nothing waits for the answer until it is used; of an atomicAdd the compiler makes one for all lanes that come to
    // it, and code that waits for the result, to give each lane its own.
    DEVICE u64 ask() const {
#ifdef __CUDACC__
        u64 before;
        asm volatile("atom.add.relaxed.gpu.global.u64 %0, [%1], %2;"
                     : "=l"(before)
                     : "l"(counter), "l"(1ull)
                     : "memory");
        return before;
#else
        return atomicAdd(counter, 1ull);
#endif
    }
    // Of each answer, once.
    DEVICE u32 number_of(u64 answer) const {
        if (u32(answer) == total - 1) *counter = u64(launch_of(answer) % ~0u) << 32;
        return u32(answer);
    }
    // What marks all that this launch publishes. Never 0.
    static DEVICE u32 launch_of(u64 answer) { return u32(answer >> 32) + 1; }
    // For the whole block.
    DEVICE u64 take() const {
        __shared__ u64 answer;
        if (threadIdx.x == 0) {
            answer = ask();
            number_of(answer);
        }
        __syncthreads();
        return answer;
    }
};

// A published state is a word of 8 bytes for each of its words of 4: that word, and the launch's mark, by which it is
// told from what earlier launches have left there. Each is written at once, so nothing needs to be fenced.
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
DEVICE void publish(u64* slot, State state, u32 launch) {
    u32 words[kSlotWords<State>];
    memcpy(words, &state, sizeof(State));
#pragma unroll
    for (int i = 0; i < kSlotWords<State>; ++i) store_relaxed(slot + i, u64(words[i]) | u64(launch) << 32);
}
// kCount states that may have been published, of which one looks at those that were not yet there.
template <class State, int kCount>
struct Published {
    static constexpr int kWords = kSlotWords<State>;
    u32 launch;
    u64 raw[kCount][kWords];

    DEVICE explicit Published(u32 of_launch) : launch(of_launch) {}
    // Before the first look at state k. One that is not wanted counts as there.
    DEVICE void expect(int k, bool wanted) {
#pragma unroll
        for (int i = 0; i < kWords; ++i) raw[k][i] = wanted ? 0 : u64(launch) << 32;
    }
    DEVICE void look(int k, const u64* slot) {
#pragma unroll
        for (int i = 0; i < kWords; ++i) {
            if (u32(raw[k][i] >> 32) != launch) raw[k][i] = load_relaxed(slot + i);
        }
    }
    DEVICE bool are_there() const {
        u32 missing = 0;
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
#pragma unroll
            for (int i = 0; i < kWords; ++i) missing |= u32(raw[k][i] >> 32) ^ launch;
        }
        return missing == 0;
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

// Has a line of slots fetched before something is published there, so that who looks for it does not wait for memory.
DEVICE void keep_near(const u64* slot) {
#ifdef __CUDACC__
    asm volatile("prefetch.global.L2::evict_last [%0];" ::"l"(slot));
#endif
}
// Between two looks: what is asked for without a pause comes later, for all.
DEVICE void wait_a_little() {
#ifdef __CUDACC__
    __nanosleep(20);
#endif
}
template <class State>
DEVICE State await_state(const u64* slot, u32 launch) {
    Published<State, 1> state(launch);
    state.expect(0, true);
    do state.look(0, slot);
    while (!state.are_there());
    return state[0];
}

// By a block that has taken number `first`, and takes others until there are no more tiles; the first `before` numbers
// are no tiles'. It has two tiles at a time: it publishes the total of the next one before it waits for the tiles
// before the first, so that few wait, and loads are always on their way.
template <class Tiles>
DEVICE void scan_two_at_a_time(const Tiles& all, const Tickets& tickets, u32 first, u32 before) {
    // Aligned, or a load of 16 bytes of it would begin in another array.
    alignas(16) __shared__ typename Tiles::Memory memory;
    // Of the tile that is stored, of the one that is loaded, and of the one after these.
    __shared__ typename Tiles::Place places[3];
    u64 answer = 0;  // of thread 0
    auto ask = [&] {
        if (threadIdx.x == 0) answer = tickets.ask();
    };
    auto put_place = [&](int at) {
        if (threadIdx.x == 0) places[at] = all.place(tickets.number_of(answer) - before);
    };
    if (threadIdx.x == 0) places[0] = all.place(first - before);
    __syncthreads();
    typename Tiles::Tile here, next;
    bool has_one = false;
    for (int last = 2, turn = 0, after = 1;;) {
        const bool is_there = places[turn].tile < all.tiles;
        if (is_there) {
            ask();
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
