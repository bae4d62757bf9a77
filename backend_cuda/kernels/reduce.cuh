// Reductions as states: identity(), push(state, element, its index), merge(state, state). Merging is symmetric, so that
// shuffles may pair lanes either way; states are a multiple of 4 bytes. Sums of integers wrap: their elements are u32
// or u64, narrowed when stored, which gives what wider sums narrowed would.
#pragma once
#include "chunk.cuh"
#include "math.cuh"

template <class T>
DEVICE T lowest() {
    if constexpr (is_same<T, c64>) {
        return {-float_infinity(), -float_infinity()};
    } else if constexpr (is_float<T>) {
        return T(-double_infinity());
    } else if constexpr (is_signed_integer<T>) {
        return T(T(1) << (sizeof(T) * 8 - 1));
    } else {
        return T(0);
    }
}
template <class T>
DEVICE T highest() {
    if constexpr (is_same<T, c64>) {
        return {float_infinity(), float_infinity()};
    } else if constexpr (is_float<T>) {
        return T(double_infinity());
    } else {
        return T(~lowest<T>());
    }
}

template <class A>
struct Sum {
    using State = A;
    static DEVICE State identity() { return A{}; }
    static DEVICE void push(State& s, A x, i64) { s = s + x; }
    static DEVICE void merge(State& s, State other) { s = s + other; }
    static DEVICE A result(State s) { return s; }
};
template <class A>
struct Prod {
    using State = A;
    static DEVICE State identity() {
        if constexpr (is_same<A, c64>) {
            return {1, 0};
        } else {
            return A(1);
        }
    }
    static DEVICE void push(State& s, A x, i64) { s = s * x; }
    static DEVICE void merge(State& s, State other) { s = s * other; }
    static DEVICE A result(State s) { return s; }
};
// Of floats, one instruction: the greater or less, or NaN if there is one.
template <class A>
DEVICE A greater(A a, A b) {
    return op_maximum(a, b);
}
template <class A>
DEVICE A lesser(A a, A b) {
    return op_minimum(a, b);
}
#ifdef __CUDACC__
DEVICE float greater(float a, float b) {
    float r;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}
DEVICE float lesser(float a, float b) {
    float r;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}
#endif
template <class A>
struct Max {
    using State = A;
    static DEVICE State identity() { return lowest<A>(); }
    static DEVICE void push(State& s, A x, i64) { s = greater(s, x); }
    static DEVICE void merge(State& s, State other) { s = greater(s, other); }
    static DEVICE A result(State s) { return s; }
};
template <class A>
struct Min {
    using State = A;
    static DEVICE State identity() { return highest<A>(); }
    static DEVICE void push(State& s, A x, i64) { s = lesser(s, x); }
    static DEVICE void merge(State& s, State other) { s = lesser(s, other); }
    static DEVICE A result(State s) { return s; }
};
template <class A>
struct Any {
    using State = u32;
    static DEVICE State identity() { return 0; }
    static DEVICE void push(State& s, bool x, i64) { s |= u32(x); }
    static DEVICE void merge(State& s, State other) { s |= other; }
    static DEVICE bool result(State s) { return s != 0; }
};
template <class A>
struct All {
    using State = u32;
    static DEVICE State identity() { return 1; }
    static DEVICE void push(State& s, bool x, i64) { s &= u32(x); }
    static DEVICE void merge(State& s, State other) { s &= other; }
    static DEVICE bool result(State s) { return s != 0; }
};

// e to the power of a difference from a maximum. The product with log2(e) is rounded: the relative error is |d| 2^-24,
// of a term that is e^d of the greatest. What is below float's normal numbers is 0.
DEVICE float exp_of_difference(float d) {
#ifdef __CUDACC__
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d * 1.4426950408889634f));
    return r;
#else
    return exp2f(d * 1.4426950408889634f);
#endif
}
DEVICE double exp_of_difference(double d) { return exp(d); }

// log(sum(exp(x))) as exp(greatest) * total. `greatest` is always finite, so that a difference from it is not NaN: it
// starts at the least finite number, an element of minus infinity adds 0, and one of infinity adds infinity.
template <class A>
struct LogSumExp {
    struct State {
        A greatest, total;
    };
    static DEVICE A most() { return is_same<A, double> ? A(1.7976931348623157e308) : A(3.4028234663852886e38f); }
    static DEVICE State identity() { return {-most(), A(0)}; }
    static DEVICE void push(State& s, A x, i64) {
        const A bounded = x > most() ? most() : x, difference = bounded - s.greatest;
        const A other = exp_of_difference(-op_abs(difference));  // the lesser of the two, of the greater
        s.total = difference > 0 ? s.total * other + 1 : s.total + other;
        if (x > most()) s.total += x;
        s.greatest = difference > 0 ? bounded : s.greatest;
    }
    // Several elements at once: the total is scaled once.
    template <int N>
    static DEVICE void push_all(State& s, const A (&x)[N]) {
        A greatest = s.greatest;
#pragma unroll
        for (int j = 0; j < N; ++j) greatest = fmax(greatest, x[j]);  // of a NaN and a number, the number
        greatest = fmin(greatest, most());
        A total = 0;
#pragma unroll
        for (int j = 0; j < N; ++j) total += exp_of_difference(x[j] - greatest);
        s.total = s.total * exp_of_difference(s.greatest - greatest) + total;
        s.greatest = greatest;
    }
    static DEVICE void merge(State& s, State other) {
        const A greatest = fmax(s.greatest, other.greatest);
        s.total = s.total * exp_of_difference(s.greatest - greatest) +
                  other.total * exp_of_difference(other.greatest - greatest);
        s.greatest = greatest;
    }
    static DEVICE A result(State s) { return op_log(s.total) + s.greatest; }
};
// Complex numbers are ordered as max orders them. The greatest may be infinite: it is told by being equal.
template <>
struct LogSumExp<c64> {
    struct State {
        c64 greatest, total;
    };
    static DEVICE c64 scale(c64 x, c64 greatest) { return x == greatest ? one() : op_exp(x - greatest); }
    static DEVICE c64 one() { return {1, 0}; }
    static DEVICE State identity() { return {{-3.4028234663852886e38f, 0}, {}}; }
    static DEVICE void push(State& s, c64 x, i64) {
        if (x > s.greatest) {
            s.total = s.total * op_exp(s.greatest - x) + one();
            s.greatest = x;
        } else {
            s.total = s.total + scale(x, s.greatest);
        }
    }
    static DEVICE void merge(State& s, State other) {
        const c64 greatest = s.greatest > other.greatest ? s.greatest : other.greatest;
        s.total = s.total * scale(s.greatest, greatest) + other.total * scale(other.greatest, greatest);
        s.greatest = greatest;
    }
    static DEVICE c64 result(State s) { return op_log(s.total) + s.greatest; }
};

// The first of the greatest or least; a NaN is before all others. The index of no element yet is the last of all.
template <class A, bool kGreatest>
struct ArgExtreme {
    struct State {
        A value;
        u32 index;
    };
    static DEVICE bool is_before(State a, State b) {
        if (is_nan(a.value) || is_nan(b.value)) {
            if (is_nan(a.value) != is_nan(b.value)) return is_nan(a.value);
            return a.index < b.index;
        }
        if (a.value == b.value) return a.index < b.index;
        return kGreatest ? a.value > b.value : a.value < b.value;
    }
    static DEVICE State identity() { return {kGreatest ? lowest<A>() : highest<A>(), 0xffffffffu}; }
    static DEVICE void push(State& s, A x, i64 index) { merge(s, {x, u32(index)}); }
    static DEVICE void merge(State& s, State other) { s = is_before(other, s) ? other : s; }
    static DEVICE u32 result(State s) { return s.index; }
};
template <class A>
using ArgMax = ArgExtreme<A, true>;
template <class A>
using ArgMin = ArgExtreme<A, false>;

// The least power of two that is n or more, at most `most`.
DEVICE int power_of_two(int n, int most) {
    const int below = (n < most ? n : most) - 1;
    return below <= 0 ? 1 : 1 << (32 - __clz(below));
}
DEVICE int power_of_two(i64 n, int most) { return power_of_two(int(min_i64(n, most)), most); }
// Threads that take an output of so many packs: as many lanes as have kUnroll packs each, or a block. Blocks share a
// multiprocessor less evenly than warps, so of many outputs they take only longer ones.
template <int kUnroll, int kThreads, int kWarpPacks, int kFewWarpPacks, int kManyOutputs>
DEVICE int team_of(i64 packs, i64 outputs) {
    if (packs > (outputs < kManyOutputs ? kFewWarpPacks : kWarpPacks)) return kThreads;
    return power_of_two((int(packs) + kUnroll - 1) / kUnroll, 32);
}
// Packs of columns that a block's threads lie along: down to 32 where there are enough elements to reduce for the rest.
template <int kUnroll, int kThreads>
DEVICE int columns_across(i64 packs, i64 length) {
    const int most = kThreads / power_of_two(ceil_div(length, kUnroll), kThreads / 32);
    const int all = power_of_two(packs, kThreads);
    return all < most ? all : most;
}

// The states of `team` neighbouring lanes, a power of two, merged, in each of them.
template <class Op>
DEVICE typename Op::State merge_lanes(typename Op::State s, int team) {
    for (int lanes = team / 2; lanes > 0; lanes /= 2) Op::merge(s, shuffle_xor(s, lanes));
    return s;
}
// The states of kTeam neighbouring lanes, merged, in each of them.
template <class Op, int kTeam>
DEVICE typename Op::State merge_lanes(typename Op::State s) {
#pragma unroll
    for (int lanes = kTeam / 2; lanes > 0; lanes /= 2) Op::merge(s, shuffle_xor(s, lanes));
    return s;
}

// The states of each `span` neighbours, a power of two, merged, in the first of them.
template <class Op, int kSlots>
DEVICE void merge_slots(typename Op::State (&states)[kSlots], int span) {
#pragma unroll
    for (int half = 1; half < kSlots; half *= 2) {
        if (half >= span) continue;
#pragma unroll
        for (int u = 0; u < kSlots; u += 2 * half) Op::merge(states[u], states[u + half]);
    }
}

// The states of a block's threads, merged, in each of them. May be called again: the shared memory is free on return.
template <class Op, int kThreads>
DEVICE typename Op::State merge_block(typename Op::State s) {
    constexpr int kWarps = kThreads / 32;
    __shared__ typename Op::State warps[kWarps];
    s = merge_lanes<Op, 32>(s);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = s;
    __syncthreads();
    s = merge_lanes<Op, kWarps>(warps[threadIdx.x % kWarps]);
    __syncthreads();
    return s;
}

// What the threads of a team, lanes of a warp or a whole block, merge of what each of them has.
template <class Op, int kTeam>
DEVICE typename Op::State merge_team(typename Op::State s) {
    if constexpr (kTeam <= 32) {
        return merge_lanes<Op, kTeam>(s);
    } else {
        return merge_block<Op, kTeam>(s);
    }
}

// How many elements p is past an address from which packs of kWidth are aligned; 0 if it is one.
template <int kWidth, class T>
DEVICE int elements_past_boundary(const T* p) {
    return int((reinterpret_cast<u64>(p) & (kWordBytes<T, kWidth> - 1)) / sizeof(T));
}

// The compiler forgets what it has made of words, floats for instance: to make them again costs less than to keep them.
template <int N>
DEVICE void forget_made_of(Pack<u32, N>& words) {
#ifdef __CUDACC__
#pragma unroll
    for (int k = 0; k < N; ++k) asm volatile("" : "+r"(words.v[k]));
#endif
}

// A bit for each place of a pack from `first`, which is not negative, to before `last`.
DEVICE u32 bits_between(int first, int last) { return last <= first ? 0 : ((1u << last) - 1) & (0xffffffffu << first); }

// The words, in which elements of kSize bytes without a bit are those of `others`.
template <int kSize, int N>
DEVICE void mix(Pack<u32, N>& words, const Pack<u32, N>& others, u32 bits) {
#pragma unroll
    for (int k = 0; k < N; ++k) {
        u32 mask = 0;
#pragma unroll
        for (int byte = 0; byte < 4; ++byte) mask |= bits >> ((4 * k + byte) / kSize) & 1 ? 0xffu << (8 * byte) : 0;
        words.v[k] = (words.v[k] & mask) | (others.v[k] & ~mask);
    }
}

// Where a pack starts in a row that has elements, `before` elements past a boundary; in place of one beyond the row's
// end the last one again, not used: no load is behind a branch.
template <int kWidth, class I>
DEVICE I start_inside(I start, I length, int before) {
    const I last = (length - 1 + before) / kWidth * kWidth - before;
    return start < last ? start : last;
}

// kWidth elements of which [first, last) are wanted. The others are zero bytes, or what lies there: aligned 16 bytes
// that hold an element of an allocation are inside of it.
template <int kWidth, class T>
DEVICE Pack<T, kWidth> load_range(const T* p, int first, int last) {
    const int from = first > 0 ? first : 0, to = last < kWidth ? last : kWidth;
    const bool inside = sizeof(T) * kWidth <= 16 ? from < to : from == 0 && to == kWidth;
    return load_whole_or<kWidth>(inside && is_aligned<kWidth>(p), p, [=](int i) { return i >= from && i < to; });
}
template <int kWidth, class T>
DEVICE Pack<T, kWidth> load_strided_range(const T* p, i64 stride, int first, int last) {
    Pack<T, kWidth> r;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) r.v[i] = i >= first && i < last ? p[i * stride] : T{};
    return r;
}
// The same from anywhere: of a vector that rows off boundaries share. Elements of 2 bytes are taken out of words, since
// a load costs as much whatever it loads.
template <int kWidth, class T>
DEVICE Pack<T, kWidth> load_unaligned(const T* p, int first, int last) {
    const bool whole = first <= 0 && last >= kWidth;
    if constexpr (sizeof(T) == 2 && kWidth % 2 == 0) {
        using Words = Pack<u32, kWidth / 2>;
        Words r;
        if (whole) {
            const int odd = elements_past_boundary<2>(p);
            const u32* words = reinterpret_cast<const u32*>(p - odd);
            u32 loaded[kWidth / 2 + 1];
#pragma unroll
            for (int k = 0; k < kWidth / 2; ++k) loaded[k] = words[k];
            loaded[kWidth / 2] = words[kWidth / 2 - 1 + odd];
#pragma unroll
            for (int k = 0; k < kWidth / 2; ++k) r.v[k] = u32((u64(loaded[k + 1]) << 32 | loaded[k]) >> (16 * odd));
        } else {
            r = bits_as<Words>(load_whole_or<kWidth>(false, p, [=](int i) { return i >= first && i < last; }));
        }
        return bits_as<Pack<T, kWidth>>(r);
    } else {
        Pack<T, kWidth> r;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) r.v[i] = whole || (i >= first && i < last) ? p[i] : T{};
        return r;
    }
}
// A store of the elements [first, last) of a pack.
template <int kWidth, class T>
DEVICE void store_range(T* p, const Pack<T, kWidth>& x, int first, int last) {
    if (first <= 0 && last >= kWidth && is_aligned<kWidth>(p)) return store_aligned<kWidth>(p, x);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
        if (i >= first && i < last) p[i] = x.v[i];
    }
}

// The states of each of a block's columns, merged: state i of thread t becomes that of column i * kThreads + t, if
// there are so many. Before, a thread has kWidth neighbouring columns, and all columns have the same number of threads,
// which follow one another column by column. All threads merge, and none of a warp meets another in a bank. Callable
// again after a barrier.
template <class Op, int kThreads, int kWidth>
DEVICE void merge_columns(typename Op::State (&states)[kWidth], typename Op::State (&memory)[kThreads][kWidth],
                          int columns) {
    const int t = threadIdx.x;
    typename Op::State* in_order = &memory[0][0];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) memory[t][j] = states[j];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kWidth; ++i) states[i] = in_order[i * kThreads + t];
#pragma unroll
    for (int half = kWidth / 2; half > 0; half /= 2) {
        if (half * kThreads < columns) continue;
#pragma unroll
        for (int i = 0; i < half; ++i) Op::merge(states[i], states[i + half]);
    }
    if (columns >= kThreads) return;
    __syncthreads();
    in_order[t] = states[0];
    __syncthreads();
    for (int half = kThreads / 2; half >= columns; half /= 2) {
        if (t < half) {
            Op::merge(states[0], in_order[t + half]);
            in_order[t] = states[0];
        }
        __syncthreads();
    }
}
// Merges into `states` those that other blocks left: of every `stride`-th part from `first` on, with several loads
// under way. Parts are `step` states apart, and aligned.
template <class Op, int kWidth>
DEVICE void merge_parts(typename Op::State (&states)[kWidth], const typename Op::State* parts, i64 first, i64 n_parts,
                        i64 stride, i64 step) {
    using State = typename Op::State;
    constexpr int kBytes = sizeof(State) * kWidth, kUnroll = kBytes <= 16 ? 8 : kBytes <= 32 ? 4 : 2;
    constexpr int kPerWord = kBytes % 16 == 0 ? 16 / sizeof(State) : 1;
    using Word = Pack<State, kPerWord>;
    for (i64 from = first; from < n_parts; from += kUnroll * stride) {
        Word words[kUnroll][kWidth / kPerWord];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
            // Where there is no part, the last one again, not used: no load is behind a branch.
            const State* part = parts + min_i64(from + u * stride, n_parts - 1) * step;
#pragma unroll
            for (int k = 0; k < kWidth / kPerWord; ++k) {
                words[u][k] = load_fresh(reinterpret_cast<const Word*>(part) + k);
            }
        }
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
            const bool is_part = from + u * stride < n_parts;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                Op::merge(states[j], is_part ? words[u][j / kPerWord].v[j % kPerWord] : Op::identity());
            }
        }
    }
}
