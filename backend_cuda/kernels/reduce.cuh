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
template <class A>
struct Max {
    using State = A;
    static DEVICE State identity() { return lowest<A>(); }
    static DEVICE void push(State& s, A x, i64) { s = op_maximum(s, x); }
    static DEVICE void merge(State& s, State other) { s = op_maximum(s, other); }
    static DEVICE A result(State s) { return s; }
};
template <class A>
struct Min {
    using State = A;
    static DEVICE State identity() { return highest<A>(); }
    static DEVICE void push(State& s, A x, i64) { s = op_minimum(s, x); }
    static DEVICE void merge(State& s, State other) { s = op_minimum(s, other); }
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

// e to the power of a difference from a maximum. The product with log2(e) is rounded: the relative error is |d| 2^-24, of
// a term that is e^d of the greatest. What is below float's normal numbers is 0.
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

// The states of kTeam neighbouring lanes, merged, in each of them.
template <class Op, int kTeam>
DEVICE typename Op::State merge_lanes(typename Op::State s) {
#pragma unroll
    for (int lanes = kTeam / 2; lanes > 0; lanes /= 2) Op::merge(s, shuffle_xor(s, lanes));
    return s;
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

// How many elements p is past an address from which packs of kWidth are aligned; 0 if it is one.
template <int kWidth, class T>
DEVICE int elements_past_boundary(const T* p) {
    return int((reinterpret_cast<u64>(p) & (kWordBytes<T, kWidth> - 1)) / sizeof(T));
}

// kWidth elements of which [first, last) are wanted and may be read; the others are zero bytes.
template <int kWidth, class T>
DEVICE Pack<T, kWidth> load_range(const T* p, int first, int last) {
    const bool whole = first <= 0 && last >= kWidth && is_aligned<kWidth>(p);
    return load_whole_or<kWidth>(whole, p, [=](int i) { return i >= first && i < last; });
}
template <int kWidth, class T>
DEVICE Pack<T, kWidth> load_strided_range(const T* p, i64 stride, int first, int last) {
    Pack<T, kWidth> r;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) r.v[i] = i >= first && i < last ? p[i * stride] : T{};
    return r;
}

// The states of the threads of each column group, merged over `down`, in the threads of down 0. Callable again.
template <class Op, int kDown, int kAcross, int kWidth>
DEVICE void merge_columns(typename Op::State (&states)[kWidth], typename Op::State (&memory)[kDown][kAcross][kWidth],
                          int across, int down) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) memory[down][across][j] = states[j];
    __syncthreads();
#pragma unroll
    for (int half = kDown / 2; half > 0; half /= 2) {
        if (down < half) {
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                Op::merge(states[j], memory[down + half][across][j]);
                memory[down][across][j] = states[j];
            }
        }
        __syncthreads();
    }
}
