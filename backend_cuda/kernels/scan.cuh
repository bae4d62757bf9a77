// Running reductions along a row, or down columns, with the reductions of reduce.cuh.
#pragma once
#include "normalize.cuh"

// Elements of a pack: 16 bytes of them, or 8 where an element is a byte.
template <class T>
constexpr int kPackWidth = sizeof(T) == 1 ? 8 : 16 / sizeof(T);

// The result at the element x, which comes next and is the row's if it is_own. It is not yet rounded to O, if that has
// 16 bits: `stored` rounds two at a time.
template <class Op, class O, bool kInclusive, class X>
DEVICE compute_t<O> scan_element(typename Op::State& running, X x, bool is_own = true) {
    typename Op::State state = running;
    if (is_own) Op::push(running, x, 0);
    if (kInclusive) state = running;
    if constexpr (is_same<O, f16> || is_same<O, bf16>) {
        return Op::result(state);
    } else {
        return cast<O>(Op::result(state));
    }
}

// The states of the lanes before this one, merged in order; `total` becomes that of all lanes. With kAcross, only lanes
// that many apart belong together.
template <class Op, int kAcross = 1>
DEVICE typename Op::State scan_lanes(typename Op::State& total) {
    using State = typename Op::State;
    const int lane = threadIdx.x % 32;
    State inclusive = total;
#pragma unroll
    for (int distance = kAcross; distance < 32; distance *= 2) {
        State before = shuffle_up(inclusive, distance);
        if (lane >= distance) {
            Op::merge(before, inclusive);
            inclusive = before;
        }
    }
    const State before = shuffle_up(inclusive, kAcross);
    total = shuffle_from(inclusive, 32 - kAcross + lane % kAcross);
    return lane < kAcross ? Op::identity() : before;
}

// The states of the threads before this one in a team of kTeam threads, a warp or a block, merged in order; `total`
// becomes that of the team. `memory` is for a block, and must be another one in the next call.
template <class Op, int kTeam>
DEVICE typename Op::State scan_team(typename Op::State& total, typename Op::State* memory) {
    typename Op::State before = scan_lanes<Op>(total);
    if constexpr (kTeam > 32) {
        constexpr int kWarps = kTeam / 32;
        const int warp = threadIdx.x / 32;
        if (threadIdx.x % 32 == 0) memory[warp] = total;
        __syncthreads();
        typename Op::State warps_before = Op::identity();
        total = Op::identity();
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            if (w == warp) warps_before = total;
            Op::merge(total, memory[w]);
        }
        Op::merge(warps_before, before);
        before = warps_before;
    }
    return before;
}

// q[i] = the elements of p up to i (kInclusive) or before it, reduced; from the end if kReverse. E is the type whose
// elements Op takes, and first_state what precedes all elements. Packs follow memory's boundaries, and each thread
// takes one at a time, the next one on its way.
template <class Op, class E, int kTeam, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_row(const T* p, O* q, i64 n, typename Op::State first_state) {
    constexpr int kWidth = kPackWidth<T>, kWarps = kTeam / 32;
    using State = typename Op::State;
    __shared__ State memory[2][kWarps];
    const int member = threadIdx.x % kTeam, before = elements_past_boundary<kWidth>(p);
    const i64 packs = ceil_div(n + before, kWidth);
    struct Place {
        i64 start;
        int from, to;
    };
    auto place = [&](i64 k) -> Place {
        if (k >= packs) return {0, 0, 0};
        const i64 start = (kReverse ? packs - 1 - k : k) * kWidth - before;
        return {start, start < 0 ? int(-start) : 0, int(min_i64(kWidth, n - start))};
    };
    Place at = place(member);
    Pack<T, kWidth> next = load_range<kWidth>(p + at.start, at.from, at.to);
    State carry = first_state;
    int parity = 0;
    for (i64 first = 0; first < packs; first += kTeam) {
        const Pack<T, kWidth> x = next;
        const Place here = at;
        at = place(first + kTeam + member);
        next = load_range<kWidth>(p + at.start, at.from, at.to);

        // All but a row's first and last pack are whole: nothing is asked of their elements.
        const bool is_whole = here.from == 0 && here.to == kWidth;
        auto at_place = [&](int k) { return kReverse ? kWidth - 1 - k : k; };
        auto is_own = [&](int j) { return j >= here.from && j < here.to; };
        auto element_at = [&](int j) { return cast<E>(to_compute(element(x, j))); };
        State total = Op::identity();
        if (is_whole) {
#pragma unroll
            for (int k = 0; k < kWidth; ++k) Op::push(total, element_at(at_place(k)), 0);
        } else {
#pragma unroll
            for (int k = 0; k < kWidth; ++k) {
                if (is_own(at_place(k))) Op::push(total, element_at(at_place(k)), 0);
            }
        }
        State running = carry;
        Op::merge(running, scan_team<Op, kTeam>(total, memory[parity]));
        Op::merge(carry, total);
        parity ^= 1;

        compute_t<O> made[kWidth];
        auto step = [&](int j, bool wanted) {
            made[j] = scan_element<Op, O, kInclusive>(running, element_at(j), wanted);
        };
        if (is_whole) {
#pragma unroll
            for (int k = 0; k < kWidth; ++k) step(at_place(k), true);
        } else {
#pragma unroll
            for (int k = 0; k < kWidth; ++k) step(at_place(k), is_own(at_place(k)));
        }
        store_range<kWidth>(q + here.start, stored<O>(made), here.from, here.to);
    }
}

// q[r][c] = the elements of column c of p up to row r, reduced: as scan_row, of a block's columns. p and q are (n,
// inner) and begin at the block's first column, of which it has kAcross packs, `left` at most; its threads are kAcross
// wide, and each takes kRows rows at a time, the next ones on their way.
template <class Op, class E, int kThreads, int kAcross, int kRows, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_columns(const T* p, O* q, i64 n, i64 inner, i64 left, typename Op::State first_state) {
    constexpr int kWidth = kPackWidth<T>, kDown = kThreads / kAcross, kWarps = kThreads / 32;
    using State = typename Op::State;
    __shared__ State memory[2][kWarps][kAcross][kWidth];
    const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross, warp = threadIdx.x / 32;
    const int count = int(max_i64(0, min_i64(kWidth, left - across * kWidth)));
    p += across * kWidth;
    q += across * kWidth;
    auto row_of = [&](i64 k) { return (kReverse ? n - 1 - k : k) * inner; };
    Pack<T, kWidth> next[kRows];
    auto load = [&](i64 first) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const i64 k = first + down * kRows + r;
            next[r] = load_pack<kWidth>(p + row_of(k), k < n ? count : 0);
        }
    };
    load(0);
    State carry[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) carry[j] = first_state;
    int parity = 0;
    for (i64 first = 0; first < n; first += kDown * kRows) {
        Pack<T, kWidth> x[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) x[r] = next[r];
        load(first + kDown * kRows);
        const i64 own = first + down * kRows;

        State before[kWidth];
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            State total = Op::identity();
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                if (own + r < n) Op::push(total, cast<E>(to_compute(element(x[r], j))), 0);
            }
            before[j] = scan_lanes<Op, kAcross>(total);
            if (threadIdx.x % 32 < kAcross) memory[parity][warp][across][j] = total;
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            State running = carry[j];
#pragma unroll
            for (int w = 0; w < kWarps; ++w) {
                const State total = memory[parity][w][across][j];
                if (w < warp) Op::merge(running, total);
                Op::merge(carry[j], total);
            }
            Op::merge(running, before[j]);
            before[j] = running;
        }
        parity ^= 1;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            compute_t<O> made[kWidth];
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                made[j] = scan_element<Op, O, kInclusive>(before[j], cast<E>(to_compute(element(x[r], j))));
            }
            if (own + r < n) store_pack<kWidth>(q + row_of(own + r), stored<O>(made), count);
        }
    }
}

// n consecutive elements as packs on memory's boundaries, in the order of the scan: place i is element i, or n - 1 - i
// if kReverse. The first pack may begin up to a pack before place 0.
template <class T, bool kReverse>
struct Packs {
    static constexpr int kWidth = kPackWidth<T>;
    const T* p;
    i64 n, count;
    int before, lead;

    DEVICE Packs(const T* first, i64 length) : p(first), n(length), before(elements_past_boundary<kWidth>(first)) {
        count = ceil_div(n + before, kWidth);
        lead = kReverse ? int(count * kWidth - before - n) : before;
    }
    // The place of the first element of pack k, and where in memory the lowest one of it is.
    DEVICE i64 place(i64 k) const { return k * kWidth - lead; }
    DEVICE i64 offset(i64 k) const { return (kReverse ? count - 1 - k : k) * kWidth - before; }
    // In memory, element j of a pack in the order of the scan.
    static DEVICE constexpr int at(int j) { return kReverse ? kWidth - 1 - j : j; }
    // Pack k, of whose elements [from, to) are of the row.
    DEVICE Pack<T, kWidth> load(i64 k, int from, int to) const {
        return load_range<kWidth>(p + offset(k), kReverse ? kWidth - to : from, kReverse ? kWidth - from : to);
    }
    template <class O>
    DEVICE void store(O* q, const Pack<O, kWidth>& x, i64 k, int from, int to) const {
        store_range<kWidth>(q + offset(k), x, kReverse ? kWidth - to : from, kReverse ? kWidth - from : to);
    }
};

// The scan of each of `rows` short rows of n elements, one after the other in memory, by a warp: it goes over them as
// if they were one, kPacks packs a lane at a time, and begins again where a row does.
// Where packs are kWhole, each is of one row and aligned in q, too: then nothing is asked of their elements.
template <bool kWhole, class Op, class E, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_packs_of_rows(const Packs<T, kReverse>& packs, O* q, i64 n, typename Op::State first_state) {
    using State = typename Op::State;
    constexpr int kWidth = kPackWidth<T>;
    const int lane = threadIdx.x % 32;
    const u32 lanes_before = (1u << lane) - 1;
    // Where in its row this lane's pack begins, and how much further the next one does.
    i64 dividend = packs.place(lane) + kWidth * n, stride = 32 * kWidth;
    i64 in_row = take_coordinate(dividend, n);
    const i64 step = take_coordinate(stride, n);
    const int every = int(min_i64(n, kWidth));
    State carry = first_state;
    for (i64 first = 0; first < packs.count; first += 32 * kPacks) {
        const i64 place = packs.place(first);
        const int low = int(max_i64(0, -place)), high = int(min_i64(32 * kPacks * kWidth, packs.n - place));
        Pack<T, kWidth> x[kPacks];
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            const int own = (u * 32 + lane) * kWidth;
            const i64 k = first + u * 32 + lane;
            if (!kWhole) {
                x[u] = packs.load(k, low - own, high - own);
            } else if (own < high) {
                x[u] = load_aligned<kWidth>(packs.p + packs.offset(k));
            } else {
                x[u] = Pack<T, kWidth>{};
            }
        }
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            if (u * 32 * kWidth >= high) break;  // all of the warp
            const int own = (u * 32 + lane) * kWidth, from = low - own, to = high - own;
            const int start = in_row == 0 ? 0 : int(min_i64(n - in_row, kWidth));
            int next = start;
            // Whether a row begins with element j; `next` is where the next one does.
            auto begins = [&](int j) { return kWhole ? j == 0 && start == 0 : j == next; };
            auto is_own = [&](int j) { return kWhole || (j >= from && j < to); };
            State total = Op::identity();
            bool has_start = false;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                if (begins(j)) {
                    next += every;
                    total = Op::identity();
                    has_start = true;
                }
                if (is_own(j)) Op::push(total, cast<E>(to_compute(element(x[u], packs.at(j)))), 0);
            }
            // Each lane's state since the last start of a row up to its end, as far back as the warp goes.
            const u32 starts = __ballot_sync(0xffffffffu, has_start);
            const int head = has_start ? lane : max_i64(0, 31 - __clz(starts & lanes_before));
            State inclusive = total;
#pragma unroll
            for (int distance = 1; distance < 32; distance *= 2) {
                State earlier = shuffle_up(inclusive, distance);
                if (lane - distance >= head) {
                    Op::merge(earlier, inclusive);
                    inclusive = earlier;
                }
            }
            const State earlier = shuffle_up(inclusive, 1), last = shuffle_from(inclusive, 31);
            State running = starts & lanes_before ? first_state : carry;
            if (lane > 0) Op::merge(running, earlier);
            if (starts) carry = first_state;
            Op::merge(carry, last);

            compute_t<O> made[kWidth];
            next = start;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                if (begins(j)) {
                    next += every;
                    running = first_state;
                }
                const auto next_x = cast<E>(to_compute(element(x[u], packs.at(j))));
                made[packs.at(j)] = scan_element<Op, O, kInclusive>(running, next_x, is_own(j));
            }
            const i64 k = first + u * 32 + lane;
            if (!kWhole) {
                packs.store(q, stored<O>(made), k, from, to);
            } else if (to > 0) {
                store_words<kWidth>(q + packs.offset(k), stored<O>(made));
            }
            in_row += step;
            if (in_row >= n) in_row -= n;
        }
    }
}
template <class Op, class E, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_short_rows(const T* p, O* q, i64 rows, i64 n, typename Op::State first_state) {
    constexpr int kWidth = kPackWidth<T>;
    const Packs<T, kReverse> packs(p, rows * n);
    if (n % kWidth == 0 && packs.before == 0 && is_aligned<kWidth>(q)) {
        scan_packs_of_rows<true, Op, E, kPacks, kReverse, kInclusive>(packs, q, n, first_state);
    } else {
        scan_packs_of_rows<false, Op, E, kPacks, kReverse, kInclusive>(packs, q, n, first_state);
    }
}

// As scan_columns, of the `count` columns that one thread takes, kRows rows at a time, the next ones on their way.
template <class Op, class E, int kRows, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_own_columns(const T* p, O* q, i64 n, i64 inner, int count, typename Op::State first_state) {
    constexpr int kWidth = kPackWidth<T>;
    auto row_of = [&](i64 k) { return (kReverse ? n - 1 - k : k) * inner; };
    Pack<T, kWidth> next[kRows];
    auto load = [&](i64 first) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) next[r] = load_pack<kWidth>(p + row_of(first + r), first + r < n ? count : 0);
    };
    load(0);
    typename Op::State running[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) running[j] = first_state;
    for (i64 first = 0; first < n; first += kRows) {
        Pack<T, kWidth> x[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) x[r] = next[r];
        load(first + kRows);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            compute_t<O> made[kWidth];
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                made[j] = scan_element<Op, O, kInclusive>(running[j], cast<E>(to_compute(element(x[r], j))));
            }
            if (first + r < n) store_pack<kWidth>(q + row_of(first + r), stored<O>(made), count);
        }
    }
}

// ---- tiles of a row by many blocks, each read once
//
// A block publishes the total of its tile, and adds up those before it. Not all of them: tiles are in groups, the last
// tile of a group publishes the state up to its end, and of the group before only that is read. What is added to what
// depends on sizes alone, never on who is first. A block waits for blocks that took their tickets before it, so they
// run.

// The next number from 0 to blocks - 1, for the whole block; the last one leaves the counter at zero.
DEVICE u32 take_ticket(u32* counter, u32 blocks) {
    __shared__ u32 ticket;
    if (threadIdx.x == 0) {
        ticket = atomicAdd(counter, 1u);
        if (ticket == blocks - 1) *counter = 0;
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

// As store_aligned, in as few instructions as there are words. The compiler makes one for each element where it has
// lost sight of the alignment, as it does in loops whose addresses it makes one from another. In return it moves no
// load across these, so loops whose loads it should begin early are better off with store_aligned.
template <int N, class T>
DEVICE void store_words(T* p, const Pack<T, N>& x) {
#ifdef __CUDACC__
    if constexpr (kWordBytes<T, N> >= 8) {
        constexpr int kPerWord = kWordBytes<T, N> / 4, words = sizeof(T) * N / kWordBytes<T, N>;
        u32 raw[words * kPerWord];
        memcpy(raw, &x, sizeof(raw));
#pragma unroll
        for (int i = 0; i < words; ++i) {
            const u32* w = raw + i * kPerWord;
            u32* to = reinterpret_cast<u32*>(p) + i * kPerWord;
            if constexpr (kPerWord == 4) {
                asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w[0]), "r"(w[1]), "r"(w[2]),
                             "r"(w[3])
                             : "memory");
            } else {
                asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(w[0]), "r"(w[1]) : "memory");
            }
        }
        return;
    }
#endif
    store_aligned<N>(p, x);
}

// One tile of a row of n elements, kPacks packs a thread, a warp's packs next to one another. `slots` are the row's:
// the totals of its tiles, then the states up to the end of each group of kThreads of them. Where the tile is kWhole,
// all of its elements are of the row, and packs are aligned in q, too: then nothing is asked of them.
template <bool kWhole, class Op, class E, int kThreads, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_packs_of_tile(const Packs<T, kReverse>& packs, O* q, i64 tile, i64 tiles, u64* slots,
                               typename Op::State first_state) {
    using State = typename Op::State;
    constexpr int kWidth = kPackWidth<T>, kWarps = kThreads / 32, kWords = kSlotWords<State>;
    alignas(16) __shared__ State memory[kWarps];  // or a load of 16 bytes of it would begin in another array
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const i64 first = (tile * kWarps + warp) * 32 * kPacks, place = packs.place(first);
    const int low = int(max_i64(0, -place)), high = int(max_i64(0, min_i64(32 * kPacks * kWidth, packs.n - place)));
    auto is_own = [=](int u, int j) {
        const int at = (u * 32 + lane) * kWidth + j;
        return kWhole || (at >= low && at < high);
    };
    Pack<T, kWidth> x[kPacks];
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
        const i64 k = first + u * 32 + lane;
        const int own = (u * 32 + lane) * kWidth;
        x[u] = kWhole ? load_aligned<kWidth>(packs.p + packs.offset(k)) : packs.load(k, low - own, high - own);
    }
    State before[kPacks], total_of_warp = Op::identity();
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
        State total = Op::identity();
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            if (is_own(u, j)) Op::push(total, cast<E>(to_compute(element(x[u], packs.at(j)))), 0);
        }
        before[u] = total_of_warp;
        Op::merge(before[u], scan_lanes<Op>(total));
        Op::merge(total_of_warp, total);
    }
    if (lane == 0) memory[warp] = total_of_warp;
    __syncthreads();
    State warps_before = Op::identity(), total = Op::identity();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
        if (w == warp) warps_before = total;
        Op::merge(total, memory[w]);
    }
    if (threadIdx.x == 0) publish(slots + tile * kWords, total);

    const i64 group = tile / kThreads;
    const int in_group = int(tile % kThreads);
    State running = Op::identity();
    if (threadIdx.x < in_group) running = await_state<State>(slots + (group * kThreads + threadIdx.x) * kWords);
    running = merge_block<Op, kThreads>(running);
    State start = group > 0 ? await_state<State>(slots + (tiles + group - 1) * kWords) : first_state;
    Op::merge(start, running);
    if (threadIdx.x == 0 && in_group == kThreads - 1) {
        State end = start;
        Op::merge(end, total);
        publish(slots + (tiles + group) * kWords, end);
    }
    Op::merge(start, warps_before);
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
        State running = start;
        Op::merge(running, before[u]);
        compute_t<O> made[kWidth];
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            const auto next = cast<E>(to_compute(element(x[u], packs.at(j))));
            made[packs.at(j)] = scan_element<Op, O, kInclusive>(running, next, is_own(u, j));
        }
        const i64 k = first + u * 32 + lane;
        const int own = (u * 32 + lane) * kWidth;
        if (kWhole) {
            store_words<kWidth>(q + packs.offset(k), stored<O>(made));
        } else {
            packs.store(q, stored<O>(made), k, low - own, high - own);
        }
    }
}
template <class Op, class E, int kThreads, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_tile(const T* p, O* q, i64 n, i64 tile, i64 tiles, u64* slots, typename Op::State first_state) {
    constexpr int kWidth = kPackWidth<T>;
    const Packs<T, kReverse> packs(p, n);
    const i64 place = packs.place(tile * kThreads * kPacks);
    if (place >= 0 && place + kThreads * kPacks * kWidth <= n && is_aligned<kWidth>(q - packs.before)) {
        scan_packs_of_tile<true, Op, E, kThreads, kPacks, kReverse, kInclusive>(packs, q, tile, tiles, slots,
                                                                                first_state);
    } else {
        scan_packs_of_tile<false, Op, E, kThreads, kPacks, kReverse, kInclusive>(packs, q, tile, tiles, slots,
                                                                                 first_state);
    }
}

// One tile of a block's columns: kThreads / kAcross * kRows rows of them. p and q are as in scan_columns; `slots` are
// those of these columns, a row of slots for each tile and for each group of kGroup tiles. Where the tile is kWhole, it
// has all of its rows and columns, in aligned packs: then nothing is asked of them.
template <bool kWhole, class Op, class E, int kThreads, int kAcross, int kRows, int kGroup, bool kReverse,
          bool kInclusive, class T, class O>
DEVICE void scan_rows_of_tile(const T* p, O* q, i64 n, i64 inner, i64 left, i64 tile, i64 tiles, u64* slots,
                              typename Op::State first_state) {
    using State = typename Op::State;
    constexpr int kWidth = kPackWidth<T>, kDown = kThreads / kAcross, kWarps = kThreads / 32;
    constexpr int kColumns = kAcross * kWidth, kReaders = kThreads / kColumns, kEach = kGroup / kReaders;
    constexpr int kWords = kSlotWords<State>, kTileWords = kColumns * kWords;
    static_assert(kThreads % kColumns == 0 && kGroup % kReaders == 0);
    __shared__ State memory[kWarps][kColumns], read[kReaders][kColumns];
    const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross, warp = threadIdx.x / 32;
    const int count = int(max_i64(0, min_i64(kWidth, left - across * kWidth)));
    const i64 own = (tile * kDown + down) * kRows;
    auto row_of = [&](i64 k) { return (kReverse ? n - 1 - k : k) * inner + across * kWidth; };
    Pack<T, kWidth> x[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        const T* const pack = p + row_of(own + r);
        x[r] = kWhole ? load_aligned<kWidth>(pack) : load_pack<kWidth>(pack, own + r < n ? count : 0);
    }
    State before[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
        State total = Op::identity();
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            if (kWhole || own + r < n) Op::push(total, cast<E>(to_compute(element(x[r], j))), 0);
        }
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
    State start = first_state;
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
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        compute_t<O> made[kWidth];
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            made[j] = scan_element<Op, O, kInclusive>(before[j], cast<E>(to_compute(element(x[r], j))));
        }
        if (kWhole) {
            store_words<kWidth>(q + row_of(own + r), stored<O>(made));
        } else if (own + r < n) {
            store_pack<kWidth>(q + row_of(own + r), stored<O>(made), count);
        }
    }
}
template <class Op, class E, int kThreads, int kAcross, int kRows, int kGroup, bool kReverse, bool kInclusive, class T,
          class O>
DEVICE void scan_tile_of_columns(const T* p, O* q, i64 n, i64 inner, i64 left, i64 tile, i64 tiles, u64* slots,
                                 typename Op::State first_state) {
    constexpr int kWidth = kPackWidth<T>;
    const bool aligned = is_aligned<kWidth>(p) && is_aligned<kWidth>(q) && inner % kWidth == 0;
    if (aligned && left >= kAcross * kWidth && (tile + 1) * (kThreads / kAcross) * kRows <= n) {
        scan_rows_of_tile<true, Op, E, kThreads, kAcross, kRows, kGroup, kReverse, kInclusive>(
            p, q, n, inner, left, tile, tiles, slots, first_state);
    } else {
        scan_rows_of_tile<false, Op, E, kThreads, kAcross, kRows, kGroup, kReverse, kInclusive>(
            p, q, n, inner, left, tile, tiles, slots, first_state);
    }
}
