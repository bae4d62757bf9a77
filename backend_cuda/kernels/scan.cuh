// Running reductions along a row, or down columns, with the reductions of reduce.cuh.
#pragma once
#include "normalize.cuh"

// Elements of a pack: 16 bytes of them, or 8 where an element is a byte.
template <class T>
constexpr int kPackWidth = sizeof(T) == 1 ? 8 : 16 / sizeof(T);

// The result at the element x, which comes next. It is not yet rounded to O, if that has 16 bits: `stored` rounds two
// at a time.
template <class Op, class O, bool kInclusive, class X>
DEVICE compute_t<O> scan_element(typename Op::State& running, X x) {
    typename Op::State state = running;
    Op::push(running, x, 0);
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

// As store_aligned, in as few instructions as there are words. The compiler makes one for each element where it has
// lost sight of the alignment, as it does in loops whose addresses it makes one from another. It may move loads across
// these, so no thread must read what another one, or itself before, has stored in this way.
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
                             "r"(w[3]));
            } else {
                asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(w[0]), "r"(w[1]));
            }
        }
        return;
    }
#endif
    store_aligned<N>(p, x);
}

// n consecutive elements as packs on memory's boundaries, in the order of the scan: place i is element i, or n - 1 - i
// if kReverse. The first pack may begin up to a pack before place 0.
template <class T, bool kReverse>
struct Packs {
    static constexpr int kWidth = kPackWidth<T>, kWords = sizeof(T) * kWidth / 4;
    using Words = Pack<u32, kWords>;
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
    // How many parts of `part` packs each, from pack 0 on, end with whole packs, or with packs behind the row's last.
    DEVICE i64 whole_parts(i64 part) const {
        return (n + lead) % kWidth == 0 ? ceil_div(count, part) : (n + lead) / (part * kWidth);
    }
    // Pack k, of whose elements [from, to) are of the row; in place of the others fillers.
    DEVICE Words load(i64 k, int from, int to, T filler) const {
        const int first = kReverse ? kWidth - to : from, last = kReverse ? kWidth - from : to;
        Words words = bits_as<Words>(load_range<kWidth>(p + offset(k), first, last));
        if (first > 0 || last < kWidth) {
            Pack<T, kWidth> fillers;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) fillers.v[j] = filler;
            mix<sizeof(T)>(words, bits_as<Words>(fillers),
                           bits_between(first > 0 ? first : 0, last < kWidth ? last : kWidth));
        }
        return words;
    }
    DEVICE Words load_whole(i64 k) const { return load_aligned<kWords>(reinterpret_cast<const u32*>(p + offset(k))); }
    template <class O>
    DEVICE void store(O* q, const Pack<O, kWidth>& x, i64 k, int from, int to) const {
        store_range<kWidth>(q + offset(k), x, kReverse ? kWidth - to : from, kReverse ? kWidth - from : to);
    }
};

// kPacks packs of each lane of a warp, which lie next to one another from pack `first` on. Where packs are kWhole, all
// elements of each are of the row, or it lies behind the row's last, and they are aligned in q, too.
template <class Op, class E, int kPacks, bool kReverse, bool kInclusive, class T, class O>
struct PacksOfWarp {
    using State = typename Op::State;
    using Row = Packs<T, kReverse>;
    static constexpr int kWidth = kPackWidth<T>, kElements = 32 * kPacks * kWidth;
    i64 first;      // the first pack of lane 0
    int low, high;  // [low, high) of the warp's elements are of the row
    // Not elements: the compiler would take words apart where those of the row meet the others, and wait for them
    // there.
    typename Row::Words x[kPacks];

    // Which packs these are; the words are yet to come.
    template <bool kWhole>
    DEVICE void locate(const Row& row, i64 first_pack) {
        first = first_pack;
        const i64 place = row.place(first);
        low = kWhole ? 0 : int(max_i64(0, -place));
        high = int(max_i64(0, min_i64(kElements, row.n - place)));
    }
    // Pack u, element by element. `empty` is the state of no elements, of which the result as an element, pushed,
    // changes nothing.
    DEVICE typename Row::Words load_part(const Row& row, int u, State empty) const {
        const int own = own_place(u);
        return row.load(pack(u), low - own, high - own, from_compute<T>(cast<T>(Op::result(empty))));
    }
    template <bool kWhole>
    DEVICE void load(const Row& row, i64 first_pack, State empty) {
        locate<kWhole>(row, first_pack);
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            if (!kWhole) {
                x[u] = load_part(row, u, empty);
            } else if (own_place(u) < high) {
                x[u] = row.load_whole(pack(u));
            } else {
                x[u] = {};
            }
        }
    }
    // Words that were loaded before.
    DEVICE void take(const typename Row::Words (&words)[kPacks]) {
#pragma unroll
        for (int u = 0; u < kPacks; ++u) x[u] = words[u];
    }
    DEVICE i64 pack(int u) const { return first + u * 32 + threadIdx.x % 32; }
    // The place in the warp's elements of the first one of pack u.
    static DEVICE int own_place(int u) { return (u * 32 + int(threadIdx.x % 32)) * kWidth; }
    DEVICE auto at(int u, int j) const {
        return cast<E>(to_compute(element(bits_as<Pack<T, kWidth>>(x[u]), Row::at(j))));
    }

    DEVICE State total_of_pack(int u) const {
        State total = Op::identity();
#pragma unroll
        for (int j = 0; j < kWidth; ++j) Op::push(total, at(u, j), 0);
        return total;
    }
    // The state of the warp's elements, from those of this lane's packs, which become those before them.
    static DEVICE State scan_packs(State (&states)[kPacks]) {
        State all = Op::identity();
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            State total = states[u];
            states[u] = all;
            Op::merge(states[u], scan_lanes<Op>(total));
            Op::merge(all, total);
        }
        return all;
    }
    // The same; before[u] becomes that of those before pack u.
    DEVICE State scan(State (&before)[kPacks]) const {
#pragma unroll
        for (int u = 0; u < kPacks; ++u) before[u] = total_of_pack(u);
        return scan_packs(before);
    }
    // The scan of pack u, after `running`, as it lies in memory.
    DEVICE Pack<O, kWidth> scan_of_pack(int u, State running) const {
        compute_t<O> in_memory[kWidth];
#pragma unroll
        for (int j = 0; j < kWidth; ++j) in_memory[Row::at(j)] = scan_element<Op, O, kInclusive>(running, at(u, j));
        return stored<O>(in_memory);
    }
    template <bool kWhole>
    DEVICE void store(const Row& row, O* q, int u, const Pack<O, kWidth>& made) const {
        const int own = own_place(u);
        if (!kWhole) {
            row.store(q, made, pack(u), low - own, high - own);
        } else if (own < high) {
            store_words<kWidth>(q + row.offset(pack(u)), made);
        }
    }
    // The scan of all packs, after `start`.
    template <bool kWhole>
    DEVICE void store_scan(const Row& row, O* q, State start, const State (&before)[kPacks]) const {
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            State running = start;
            Op::merge(running, before[u]);
            store<kWhole>(row, q, u, scan_of_pack(u, running));
        }
    }
};

// Parts [from, to) of a row, each of kPacks packs of each of kTeam threads, a warp's next to one another, and the next
// part on its way. `carry` is the state of the parts before, and becomes that of these, too.
template <bool kWhole, class Op, class E, int kTeam, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_parts(const Packs<T, kReverse>& row, O* q, i64 from, i64 to, typename Op::State empty,
                       typename Op::State& carry) {
    using State = typename Op::State;
    using Part = PacksOfWarp<Op, E, kPacks, kReverse, kInclusive, T, O>;
    constexpr int kWarps = kTeam / 32;
    alignas(16) __shared__ State memory[2][kWarps];
    const int warp = threadIdx.x % kTeam / 32;
    Part next;
    if (from < to) next.template load<kWhole>(row, from * kTeam * kPacks + warp * 32 * kPacks, empty);
    for (i64 part = from; part < to; ++part) {
        const Part here = next;
        if (part + 1 < to) next.template load<kWhole>(row, here.first + kTeam * kPacks, empty);
        State before[kPacks], start = carry;
        const State total = here.scan(before);
        if constexpr (kWarps == 1) {
            Op::merge(carry, total);
        } else {
            if (threadIdx.x % 32 == 0) memory[part % 2][warp] = total;
            __syncthreads();
#pragma unroll
            for (int w = 0; w < kWarps; ++w) {
                const State other = memory[part % 2][w];
                if (w < warp) Op::merge(start, other);
                Op::merge(carry, other);
            }
        }
        here.template store_scan<kWhole>(row, q, start, before);
    }
}

// q[i] = the elements of p up to i (kInclusive) or before it, reduced; from the end if kReverse. E is the type whose
// elements Op takes, and `empty` what precedes all elements. A team of kTeam threads has a row.
template <class Op, class E, int kTeam, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_row(const T* p, O* q, i64 n, typename Op::State empty) {
    const Packs<T, kReverse> row(p, n);
    const i64 parts = ceil_div(row.count, kTeam * kPacks);
    // Nothing is asked of the elements of parts [first, last).
    const i64 first = row.lead > 0 ? 1 : 0;
    i64 last = is_aligned<kPackWidth<T>>(q - row.before) ? row.whole_parts(kTeam * kPacks) : first;
    if (last < first) last = first;
    typename Op::State carry = empty;
#pragma unroll 1
    for (i64 from = 0; from < parts;) {
        if (from >= first && from < last) {
            scan_parts<true, Op, E, kTeam, kPacks, kReverse, kInclusive>(row, q, from, last, empty, carry);
            from = last;
        } else {
            const i64 to = from < first ? first : parts;
            scan_parts<false, Op, E, kTeam, kPacks, kReverse, kInclusive>(row, q, from, to, empty, carry);
            from = to;
        }
        if constexpr (kTeam > 32) __syncthreads();
    }
}

// The scan of each of some short rows of n elements, one after the other in memory, by a warp: it goes over them as if
// they were one, kPacks packs a lane at a time, and begins again where a row does. Where packs are kWhole, each is of
// one row and aligned in q, too: then nothing is asked of their elements.
template <bool kWhole, class Op, class E, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_packs_of_rows(const Packs<T, kReverse>& row, O* q, i64 n, typename Op::State empty) {
    using State = typename Op::State;
    using Row = Packs<T, kReverse>;
    constexpr int kWidth = kPackWidth<T>;
    const int lane = threadIdx.x % 32;
    const u32 lanes_before = (1u << lane) - 1;
    // Where in its row this lane's pack begins, and how much further the next one does.
    i64 dividend = row.place(lane) + kWidth * n, stride = 32 * kWidth;
    i64 in_row = take_coordinate(dividend, n);
    const i64 step = take_coordinate(stride, n);
    const int every = int(min_i64(n, kWidth));
    State carry = empty;
    for (i64 first = 0; first < row.count; first += 32 * kPacks) {
        PacksOfWarp<Op, E, kPacks, kReverse, kInclusive, T, O> packs;
        packs.template load<kWhole>(row, first, empty);
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            if (u * 32 * kWidth >= packs.high) break;  // all of the warp
            const int start = in_row == 0 ? 0 : int(min_i64(n - in_row, kWidth));
            int next = start;
            // Whether a row begins with element j; `next` is where the next one does.
            auto begins = [&](int j) { return kWhole ? j == 0 && start == 0 : j == next; };
            State total = Op::identity();
            bool has_start = false;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                if (begins(j)) {
                    next += every;
                    total = Op::identity();
                    has_start = true;
                }
                Op::push(total, packs.at(u, j), 0);
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
            State running = starts & lanes_before ? empty : carry;
            if (lane > 0) Op::merge(running, earlier);
            if (starts) carry = empty;
            Op::merge(carry, last);

            compute_t<O> made[kWidth];
            next = start;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                if (begins(j)) {
                    next += every;
                    running = empty;
                }
                made[Row::at(j)] = scan_element<Op, O, kInclusive>(running, packs.at(u, j));
            }
            packs.template store<kWhole>(row, q, u, stored<O>(made));
            in_row += step;
            if (in_row >= n) in_row -= n;
        }
    }
}
template <class Op, class E, int kPacks, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_short_rows(const T* p, O* q, i64 rows, i64 n, typename Op::State empty) {
    constexpr int kWidth = kPackWidth<T>;
    const Packs<T, kReverse> row(p, rows * n);
    if (n % kWidth == 0 && row.before == 0 && is_aligned<kWidth>(q)) {
        scan_packs_of_rows<true, Op, E, kPacks, kReverse, kInclusive>(row, q, n, empty);
    } else {
        scan_packs_of_rows<false, Op, E, kPacks, kReverse, kInclusive>(row, q, n, empty);
    }
}

// A pack's width of columns of p and q, or the first `count` of them, that have n rows, `inner` elements apart; row 0
// is the scan's first, the last one in memory if kReverse. Where columns are kWhole, there are kWidth, and packs are
// aligned in p and in q.
template <bool kWhole, class E, bool kReverse, class T, class O>
struct PackOfColumns {
    static constexpr int kWidth = kPackWidth<T>, kWords = sizeof(T) * kWidth / 4;
    using Words = Pack<u32, kWords>;
    const T* p;
    O* q;
    i64 n, inner;
    int count;

    DEVICE i64 offset(i64 row) const { return (kReverse ? n - 1 - row : row) * inner; }
    // How many of the kRows rows from `first` on there are.
    template <int kRows>
    DEVICE int rows_from(i64 first) const {
        return int(max_i64(0, min_i64(kRows, n - first)));
    }
    // Rows from `first` on; those that are not there are zeros, and as they are the last, it does not matter what their
    // states are.
    template <int kRows>
    DEVICE void load(Words (&x)[kRows], i64 first) const {
        const int rows = rows_from<kRows>(first);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const T* const pack = p + offset(first + r);
            if (!kWhole) {
                x[r] = bits_as<Words>(load_pack<kWidth>(pack, r < rows ? count : 0));
            } else if (r < rows) {
                x[r] = load_aligned<kWords>(reinterpret_cast<const u32*>(pack));
            } else {
                x[r] = {};
            }
        }
    }
    static DEVICE auto at(const Words& x, int j) {
        return cast<E>(to_compute(element(bits_as<Pack<T, kWidth>>(x), j)));
    }
    // The states of each column's elements in kRows rows.
    template <class Op, int kRows>
    static DEVICE typename Op::State total(const Words (&x)[kRows], int column) {
        typename Op::State state = Op::identity();
#pragma unroll
        for (int r = 0; r < kRows; ++r) Op::push(state, at(x[r], column), 0);
        return state;
    }
    // The scan of rows from `first` on, after the states `running`, which become those after these rows.
    template <class Op, bool kInclusive, int kRows>
    DEVICE void store_scan(const Words (&x)[kRows], i64 first, typename Op::State (&running)[kWidth]) const {
        const int rows = rows_from<kRows>(first);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            compute_t<O> made[kWidth];
#pragma unroll
            for (int j = 0; j < kWidth; ++j) made[j] = scan_element<Op, O, kInclusive>(running[j], at(x[r], j));
            if (r >= rows) continue;
            if (kWhole) {
                store_words<kWidth>(q + offset(first + r), stored<O>(made));
            } else {
                store_pack<kWidth>(q + offset(first + r), stored<O>(made), count);
            }
        }
    }
};
template <class T, class O>
DEVICE bool are_columns_whole(const T* p, const O* q, i64 inner, i64 count) {
    constexpr int kWidth = kPackWidth<T>;
    return count >= kWidth && are_aligned<kWidth>(p, inner) && are_aligned<kWidth>(q, inner);
}

// q[r][c] = the elements of column c of p up to row r, reduced: as scan_row, of a block's columns. p and q are (n,
// inner) and begin at the block's first column, of which it has kAcross packs, `left` at most; its threads are kAcross
// wide, and each takes kRows rows at a time, the next ones on their way.
template <bool kWhole, class Op, class E, int kThreads, int kAcross, int kRows, bool kReverse, bool kInclusive, class T,
          class O>
DEVICE void scan_packs_of_columns(const T* p, O* q, i64 n, i64 inner, i64 left, typename Op::State empty) {
    using State = typename Op::State;
    using Columns = PackOfColumns<kWhole, E, kReverse, T, O>;
    constexpr int kWidth = Columns::kWidth, kDown = kThreads / kAcross, kWarps = kThreads / 32;
    __shared__ State memory[2][kWarps][kAcross][kWidth];
    const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross, warp = threadIdx.x / 32;
    const int count = int(max_i64(0, min_i64(kWidth, left - across * kWidth)));
    const Columns columns{p + across * kWidth, q + across * kWidth, n, inner, count};
    typename Columns::Words next[kRows], x[kRows];
    columns.load(next, down * kRows);
    State carry[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) carry[j] = empty;
    int parity = 0;
    for (i64 first = 0; first < n; first += kDown * kRows) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) x[r] = next[r];
        columns.load(next, first + (kDown + down) * kRows);
        State before[kWidth];
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            State total = Columns::template total<Op>(x, j);
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
        columns.template store_scan<Op, kInclusive>(x, first + down * kRows, before);
    }
}
template <class Op, class E, int kThreads, int kAcross, int kRows, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_columns(const T* p, O* q, i64 n, i64 inner, i64 left, typename Op::State empty) {
    if (are_columns_whole(p, q, inner, left / kAcross)) {
        scan_packs_of_columns<true, Op, E, kThreads, kAcross, kRows, kReverse, kInclusive>(p, q, n, inner, left, empty);
    } else {
        scan_packs_of_columns<false, Op, E, kThreads, kAcross, kRows, kReverse, kInclusive>(p, q, n, inner, left,
                                                                                            empty);
    }
}

// As scan_columns, of the `count` columns that one thread takes, kRows rows at a time, the next ones on their way.
template <bool kWhole, class Op, class E, int kRows, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_pack_of_columns(const T* p, O* q, i64 n, i64 inner, int count, typename Op::State empty) {
    using Columns = PackOfColumns<kWhole, E, kReverse, T, O>;
    const Columns columns{p, q, n, inner, count};
    typename Columns::Words next[kRows], x[kRows];
    columns.load(next, 0);
    typename Op::State running[Columns::kWidth];
#pragma unroll
    for (int j = 0; j < Columns::kWidth; ++j) running[j] = empty;
    for (i64 first = 0; first < n; first += kRows) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) x[r] = next[r];
        columns.load(next, first + kRows);
        columns.template store_scan<Op, kInclusive>(x, first, running);
    }
}
template <class Op, class E, int kRows, bool kReverse, bool kInclusive, class T, class O>
DEVICE void scan_own_columns(const T* p, O* q, i64 n, i64 inner, int count, typename Op::State empty) {
    if (are_columns_whole(p, q, inner, count)) {
        scan_pack_of_columns<true, Op, E, kRows, kReverse, kInclusive>(p, q, n, inner, count, empty);
    } else {
        scan_pack_of_columns<false, Op, E, kRows, kReverse, kInclusive>(p, q, n, inner, count, empty);
    }
}
