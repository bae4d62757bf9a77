// What every kernel may use: element types, conversions, 16-byte loads and stores, index arithmetic, atomics.
// No includes: NVRTC compiles this alone, in a few milliseconds.
#pragma once

using i8 = signed char;
using i16 = short;
using i32 = int;
using i64 = long long;
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using f32 = float;
using f64 = double;

#define DEVICE __device__ __forceinline__

// ---- programmatic dependent launch (CUDA programming guide, "Programmatic Dependent Launch"; compute capability 9.0).
// A kernel whose graph edge is programmatic may start while the kernel before it runs. It must not touch what that one
// writes, nor write anything, before wait_for_producers() returns, which every thread calls: a kernel then ends after
// all that came before it, so an edge from the last of them is enough.
DEVICE void wait_for_producers() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the kernel after this one take what room there is once every block of this one has started.
DEVICE void launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// ---- element types as they lie in memory; bool is a byte, of which anything but 0 is true
struct boolean {
    u8 bits;
};
struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};
struct alignas(8) c64 {
    float re, im;
};

template <class To, class From>
DEVICE To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}

constexpr u32 kFloatInfinityBits = 0x7f800000u;
DEVICE float float_infinity() { return __uint_as_float(kFloatInfinityBits); }
DEVICE float float_nan() { return __uint_as_float(0x7fc00000u); }
DEVICE double double_infinity() { return bits_as<double>(0x7ff0000000000000ull); }

// ---- compute types: 16-bit floats are computed in float, bool in bool, the rest in their own type
template <class T>
struct Compute {
    using type = T;
};
template <>
struct Compute<boolean> {
    using type = bool;
};
template <>
struct Compute<f16> {
    using type = float;
};
template <>
struct Compute<bf16> {
    using type = float;
};
template <class T>
using compute_t = typename Compute<T>::type;

template <class T>
DEVICE T to_compute(T x) {
    return x;
}
DEVICE bool to_compute(boolean x) { return x.bits != 0; }
#ifdef __CUDACC__
DEVICE float f16_bits_to_float(u16 bits) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(bits));
    return r;
}
DEVICE u16 float_to_f16_bits(float x) {
    u16 r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return r;
}
DEVICE u16 double_to_f16_bits(double x) {
    u16 r;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(r) : "d"(x));
    return r;
}
DEVICE u16 float_to_bf16_bits(float x) {
    u32 r;  // two at a time have an instruction that is as fast as others
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(0.0f), "f"(x));
    return u16(r);
}
#endif
DEVICE float to_compute(f16 x) { return f16_bits_to_float(x.bits); }
DEVICE f16 to_f16(float x) { return {float_to_f16_bits(x)}; }
DEVICE f16 to_f16(double x) { return {double_to_f16_bits(x)}; }
DEVICE bf16 to_bf16(float x) { return {float_to_bf16_bits(x)}; }
DEVICE float to_compute(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

// from_compute<T>(x): x, of T's compute type, as it is stored.
template <class T>
struct Store {
    static DEVICE T from(T x) { return x; }
};
template <>
struct Store<boolean> {
    static DEVICE boolean from(bool x) { return {u8(x)}; }
};
template <>
struct Store<f16> {
    static DEVICE f16 from(float x) { return to_f16(x); }
};
template <>
struct Store<bf16> {
    static DEVICE bf16 from(float x) { return to_bf16(x); }
};
template <class T>
DEVICE T from_compute(compute_t<T> x) {
    return Store<T>::from(x);
}
// x rounded to what T can hold, still in the compute type.
template <class T>
DEVICE compute_t<T> rounded(compute_t<T> x) {
    return to_compute(from_compute<T>(x));
}

template <class T>
constexpr bool is_float = false;
template <>
inline constexpr bool is_float<float> = true;
template <>
inline constexpr bool is_float<double> = true;
template <class A, class B>
constexpr bool is_same = false;
template <class A>
inline constexpr bool is_same<A, A> = true;

// cast<T>(x): x, of any compute type, as the compute type of T. A float goes to an integer by way of int32 or int64 and
// then wraps; out of that range the result is unspecified, as in C. A complex number loses its imaginary part.
template <class T, class From>
DEVICE compute_t<T> cast(From x) {
    using To = compute_t<T>;
    if constexpr (is_same<From, c64>) {
        if constexpr (is_same<T, c64>) {
            return x;
        } else if constexpr (is_same<T, boolean>) {
            return x.re != 0 || x.im != 0;
        } else {
            return cast<T>(x.re);
        }
    } else if constexpr (is_same<T, c64>) {
        return {float(x), 0.0f};
    } else if constexpr (is_same<T, boolean>) {
        return x != From(0);
    } else if constexpr (is_same<T, f16> && is_same<From, double>) {
        return to_compute(to_f16(x));
    } else if constexpr (is_same<T, f16> || is_same<T, bf16>) {
        return rounded<T>(float(x));
    } else if constexpr (is_float<From> && !is_float<To>) {
        if constexpr (sizeof(To) < 4) return To(i32(x));
        if constexpr (is_same<To, u32>) return To(i64(x));
        if constexpr (is_same<To, u64>) return x < From(0) ? To(i64(x)) : To(x);
        return To(x);
    } else {
        return To(x);
    }
}

// ---- several elements at once
template <class T, int N>
struct Pack {
    T v[N];
};

// Element j, for to_compute.
template <class T, int N>
DEVICE T element(const Pack<T, N>& pack, int j) {
    return pack.v[j];
}
// A bfloat16 is the upper half of a float: one instruction of its word, where taking out 16 bits first would be two.
struct UpperHalf {
    u32 bits;
};
DEVICE float to_compute(UpperHalf x) { return __uint_as_float(x.bits); }
template <int N>
DEVICE UpperHalf element(const Pack<bf16, N>& pack, int j) {
    if constexpr (N % 2) {
        return {u32(pack.v[j].bits) << 16};
    } else {
        u32 words[N / 2];
        memcpy(words, &pack, sizeof(words));
        return {j % 2 ? words[j / 2] & 0xffff0000u : words[j / 2] << 16};
    }
}

// Elements as they are stored.
template <class T, int N>
DEVICE Pack<T, N> stored(const compute_t<T> (&x)[N]) {
    Pack<T, N> pack;
#ifdef __CUDACC__
    if constexpr ((is_same<T, bf16> || is_same<T, f16>) && N % 2 == 0) {  // two at a time is one instruction
        u32 words[N / 2];
#pragma unroll
        for (int k = 0; k < N / 2; ++k) {
            if constexpr (is_same<T, bf16>) {
                asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[k]) : "f"(x[2 * k + 1]), "f"(x[2 * k]));
            } else {
                asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(words[k]) : "f"(x[2 * k + 1]), "f"(x[2 * k]));
            }
        }
        memcpy(&pack, words, sizeof(pack));
    } else
#endif
    {
#pragma unroll
        for (int j = 0; j < N; ++j) pack.v[j] = from_compute<T>(x[j]);
    }
    return pack;
}

template <int Bytes>
struct Word;
template <>
struct Word<1> {
    using type = u8;
};
template <>
struct Word<2> {
    using type = u16;
};
template <>
struct Word<4> {
    using type = u32;
};
template <>
struct Word<8> {
    using type = uint2;
};
template <>
struct Word<16> {
    using type = uint4;
};

// Bytes of one memory instruction for N elements of T: at most 16, and N * sizeof(T) is a power of two.
template <class T, int N>
constexpr int kWordBytes = sizeof(T) * N < 16 ? sizeof(T) * N : 16;

template <int N, class T>
DEVICE bool is_aligned(const T* p) {
    return (reinterpret_cast<u64>(p) & (kWordBytes<T, N> - 1)) == 0;
}

// Whether p is aligned, and so is what lies any number of strides from it.
template <int N, class T>
DEVICE bool are_aligned(const T* p, i64 stride) {
    return ((reinterpret_cast<u64>(p) | u64(stride) * sizeof(T)) & (kWordBytes<T, N> - 1)) == 0;
}

// N elements from an aligned pointer.
template <int N, class T>
DEVICE Pack<T, N> load_aligned(const T* p) {
    using W = typename Word<kWordBytes<T, N>>::type;
    constexpr int words = sizeof(T) * N / sizeof(W);
    Pack<T, N> r;
    W raw[words];
#pragma unroll
    for (int i = 0; i < words; ++i) raw[i] = reinterpret_cast<const W*>(p)[i];
    memcpy(&r, raw, sizeof(raw));
    return r;
}
template <int N, class T>
DEVICE void store_aligned(T* p, const Pack<T, N>& x) {
    using W = typename Word<kWordBytes<T, N>>::type;
    constexpr int words = sizeof(T) * N / sizeof(W);
    W raw[words];
    memcpy(raw, &x, sizeof(raw));
#pragma unroll
    for (int i = 0; i < words; ++i) reinterpret_cast<W*>(p)[i] = raw[i];
}

// N consecutive elements: all of them and aligned, or those for which wanted(i) (the others are zero bytes), at any
// alignment.
//
// Where elements are smaller than a word, both ways make words. Were they elements where the ways meet, the first would
// take its words apart before that, so wait for its load, and no load would be under way beside another.
template <int N, class T, class Wanted>
DEVICE Pack<T, N> load_whole_or(bool whole, const T* p, Wanted wanted) {
    Pack<T, N> r;
    if constexpr (sizeof(T) < 4 && sizeof(T) * N >= 4) {
        using Bits = typename Word<sizeof(T)>::type;
        constexpr int kPerWord = 4 / sizeof(T), kWords = N / kPerWord;
        u32 words[kWords];
        if (whole) {
            const Pack<u32, kWords> all = load_aligned<kWords>(reinterpret_cast<const u32*>(p));
#pragma unroll
            for (int k = 0; k < kWords; ++k) words[k] = all.v[k];
        } else {
#pragma unroll
            for (int k = 0; k < kWords; ++k) {
                words[k] = 0;
#pragma unroll
                for (int i = 0; i < kPerWord; ++i) {
                    const int at = k * kPerWord + i;
                    words[k] |= wanted(at) ? u32(bits_as<Bits>(p[at])) << (8 * sizeof(T) * i) : 0;
                }
            }
        }
        memcpy(&r, words, sizeof(r));
    } else {
        if (whole) return load_aligned<N>(p);
#pragma unroll
        for (int i = 0; i < N; ++i) r.v[i] = wanted(i) ? p[i] : T{};
    }
    return r;
}
// The first `count` of N consecutive elements (the others are zero bytes); any alignment, any count, even a negative
// one.
template <int N, class T, class Count>
DEVICE Pack<T, N> load_pack(const T* p, Count count) {
    return load_whole_or<N>(count >= N && is_aligned<N>(p), p, [count](int i) { return i < count; });
}
template <int N, class T>
DEVICE Pack<T, N> load_strided(const T* p, i64 stride, i64 count) {
    Pack<T, N> r;
#pragma unroll
    for (int i = 0; i < N; ++i) r.v[i] = i < count ? p[i * stride] : T{};
    return r;
}
// The same element N times.
template <int N, class T>
DEVICE Pack<T, N> load_splat(const T* p) {
    Pack<T, N> r;
    T x = *p;
#pragma unroll
    for (int i = 0; i < N; ++i) r.v[i] = x;
    return r;
}
template <int N, class T, class Count>
DEVICE void store_pack(T* p, const Pack<T, N>& x, Count count) {
    if (count >= N && is_aligned<N>(p)) return store_aligned<N>(p, x);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (i < count) p[i] = x.v[i];
    }
}
template <int N, class T>
DEVICE void store_strided(T* p, i64 stride, const Pack<T, N>& x, i64 count) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (i < count) p[i * stride] = x.v[i];
    }
}

// ---- shared memory whose size is the launch's
#ifdef __CUDACC__
#define DYNAMIC_SHARED(name, bytes) extern __shared__ uint4 name[]
#else
#define DYNAMIC_SHARED(name, bytes) __shared__ uint4 name[(bytes) / 16]
#endif

// ---- clusters (compute capability 9.0): blocks that run at the same time and read one another's shared memory
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define CLUSTER_DIMS(x, y, z) __cluster_dims__(x, y, z)
constexpr bool kHasClusters = true;
#else
#define CLUSTER_DIMS(x, y, z)
constexpr bool kHasClusters = false;
#endif
// Says that this thread has come, and waits until all of the cluster have: what they wrote before they came, to any
// block's shared memory, can be read after.
DEVICE void cluster_arrive() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
DEVICE void cluster_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// Writes the word at the same place of another block's shared memory.
DEVICE void cluster_store(float* own, u32 rank, float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(u32(__cvta_generic_to_shared(own))), "r"(rank));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(x) : "memory");
#else
    *own = x;
#endif
}

// ---- indices
DEVICE i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
DEVICE i64 min_i64(i64 a, i64 b) { return a < b ? a : b; }
DEVICE i64 max_i64(i64 a, i64 b) { return a > b ? a : b; }

// Takes the innermost coordinate off a linear index: returns index % dim and leaves index / dim. Both non-negative.
// A 64-bit division is some hundred instructions, a 32-bit one twenty, and most indices are small.
DEVICE i64 take_coordinate(i64& index, i64 dim) {
    if (((index | dim) >> 32) == 0) {
        u32 quotient = u32(index) / u32(dim);
        u32 rest = u32(index) - quotient * u32(dim);
        index = quotient;
        return rest;
    }
    i64 quotient = index / dim;
    i64 rest = index - quotient * dim;
    index = quotient;
    return rest;
}

// ---- lanes: any type whose size is a multiple of four bytes, or a smaller one, moves between the lanes of a warp
template <class T>
DEVICE T shuffle_xor(T x, int mask) {
    constexpr int words = (sizeof(T) + 3) / 4;
    u32 raw[words] = {};
    memcpy(raw, &x, sizeof(T));
#pragma unroll
    for (int i = 0; i < words; ++i) raw[i] = __shfl_xor_sync(0xffffffffu, raw[i], mask);
    memcpy(&x, raw, sizeof(T));
    return x;
}
template <class T>
DEVICE T shuffle_up(T x, int delta) {
    constexpr int words = (sizeof(T) + 3) / 4;
    u32 raw[words] = {};
    memcpy(raw, &x, sizeof(T));
#pragma unroll
    for (int i = 0; i < words; ++i) raw[i] = __shfl_up_sync(0xffffffffu, raw[i], delta);
    memcpy(&x, raw, sizeof(T));
    return x;
}
template <class T>
DEVICE T shuffle_from(T x, int lane) {
    constexpr int words = (sizeof(T) + 3) / 4;
    u32 raw[words] = {};
    memcpy(raw, &x, sizeof(T));
#pragma unroll
    for (int i = 0; i < words; ++i) raw[i] = __shfl_sync(0xffffffffu, raw[i], lane);
    memcpy(&x, raw, sizeof(T));
    return x;
}

// ---- atomics: *p = update(*p) for a stored type of any size, by compare-and-swap on the word around it
template <class T, class Update>
DEVICE void atomic_update(T* p, Update update) {
    if constexpr (sizeof(T) == 8) {
        u64* word = reinterpret_cast<u64*>(p);
        u64 seen = *reinterpret_cast<volatile u64*>(word), expected;
        do {
            expected = seen;
            seen = atomicCAS(word, expected, bits_as<u64>(T(update(bits_as<T>(expected)))));
        } while (seen != expected);
    } else if constexpr (sizeof(T) == 4) {
        u32* word = reinterpret_cast<u32*>(p);
        u32 seen = *reinterpret_cast<volatile u32*>(word), expected;
        do {
            expected = seen;
            seen = atomicCAS(word, expected, bits_as<u32>(T(update(bits_as<T>(expected)))));
        } while (seen != expected);
    } else {
        // A smaller element shares its word with neighbours. Device allocations are 256-byte aligned and padded, so the
        // word lies inside one.
        using Bits = typename Word<sizeof(T)>::type;
        u64 address = reinterpret_cast<u64>(p);
        u32* word = reinterpret_cast<u32*>(address & ~u64(3));
        const u32 shift = u32(address & 3) * 8;
        const u32 mask = (sizeof(T) == 1 ? 0xffu : 0xffffu) << shift;
        u32 seen = *reinterpret_cast<volatile u32*>(word), expected;
        do {
            expected = seen;
            T updated = update(bits_as<T>(Bits((expected & mask) >> shift)));
            seen = atomicCAS(word, expected, (expected & ~mask) | (u32(bits_as<Bits>(updated)) << shift));
        } while (seen != expected);
    }
}
