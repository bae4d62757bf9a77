// Stable sorting of short rows by lanes of a warp, several elements a lane: bitonic, in registers. Longer ones:
// radix.cuh.
#pragma once
#include "radix.cuh"

// ---- what a network compares: no two are equal, or equal ones are the same

struct KeyAndIndex {
    u64 key;
    u32 index;
    DEVICE bool operator>(const KeyAndIndex& other) const {
        return key > other.key || (key == other.key && index > other.index);
    }
};
template <class E>
DEVICE E with_index(u64 key, u32 index) {
    if constexpr (is_same<E, u32>) {
        return u32(key) << 16 | index;
    } else if constexpr (is_same<E, u64>) {
        return key << 32 | index;
    } else {
        return {key, index};
    }
}
DEVICE u32 index_of(u32 x) { return x & 0xffff; }
DEVICE u32 index_of(u64 x) { return u32(x); }
DEVICE u32 index_of(const KeyAndIndex& x) { return x.index; }

template <int Bytes>
struct Indexed;
template <>
struct Indexed<1> {
    using type = u32;
};
template <>
struct Indexed<2> {
    using type = u32;
};
template <>
struct Indexed<4> {
    using type = u64;
};
template <>
struct Indexed<8> {
    using type = KeyAndIndex;
};

// ---- the network: element j of lane l is number l * kItems + j. Every step leaves the lesser of two at the lower
// number.

template <class E>
DEVICE void order(E& low, E& high) {
    const E a = low, b = high;
    const bool swap = a > b;
    low = swap ? b : a;
    high = swap ? a : b;
}
template <int kLanes, int kItems, class E>
DEVICE void sort_in_lanes(E (&x)[kItems]) {
    const int lane = threadIdx.x % kLanes;
#pragma unroll
    for (int run = 2; run <= kLanes * kItems; run *= 2) {
#pragma unroll
        for (int distance = run / 2; distance > 0; distance /= 2) {
            // The first step of a run meets its upper half, which is in order, from the end.
            const bool mirrored = distance == run / 2;
            if (distance < kItems) {
                const int with = mirrored ? run - 1 : distance;
#pragma unroll
                for (int j = 0; j < kItems; ++j) {
                    if ((j & distance) == 0) order(x[j], x[j ^ with]);
                }
            } else {
                const int lanes = distance / kItems, with = mirrored ? 2 * lanes - 1 : lanes;
                const bool keeps_lesser = (lane & lanes) == 0;
                E other[kItems];
#pragma unroll
                for (int j = 0; j < kItems; ++j) other[j] = shuffle_xor(x[mirrored ? kItems - 1 - j : j], with);
#pragma unroll
                for (int j = 0; j < kItems; ++j) x[j] = (x[j] > other[j]) == keeps_lesser ? other[j] : x[j];
            }
        }
    }
}

// ---- elements from their keys, where a row has zeros of one sign and NaN of one kind at most

template <class T>
constexpr bool has_equals = is_same<T, f16> || is_same<T, bf16> || is_float<T>;

// Of the elements whose keys do not tell them: the bits that some and that all of them have.
template <class K>
struct Equals {
    K some_zero = 0, every_zero = K(~K(0)), some_nan = 0, every_nan = K(~K(0));
    static constexpr K kZero = K(K(1) << (sizeof(K) * 8 - 1)), kNan = K(~K(0));
    DEVICE void add(K key, K bits) {
        if (key == kZero) some_zero |= bits, every_zero &= bits;
        if (key == kNan) some_nan |= bits, every_nan &= bits;
    }
    DEVICE bool any() const { return every_zero != kNan || some_nan != 0; }
    DEVICE bool differ() const {
        return (every_zero != kNan && some_zero != every_zero) || (some_nan != 0 && some_nan != every_nan);
    }
};
template <int kLanes, class K>
DEVICE void merge_lanes(Equals<K>& x) {
#pragma unroll
    for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
        x.some_zero |= shuffle_xor(x.some_zero, lanes);
        x.every_zero &= shuffle_xor(x.every_zero, lanes);
        x.some_nan |= shuffle_xor(x.some_nan, lanes);
        x.every_nan &= shuffle_xor(x.every_nan, lanes);
    }
}
template <class T, class K>
DEVICE T element_of(K key, const Equals<K>& equals) {
    if constexpr (has_equals<T>) {
        constexpr K kSign = Equals<K>::kZero;
        if (key == kSign) return bits_as<T>(equals.some_zero);
        if (key == Equals<K>::kNan) return bits_as<T>(equals.some_nan);
        return bits_as<T>(K(key & kSign ? key ^ kSign : ~key));
    } else if constexpr (is_signed_integer<T>) {
        return T(key ^ K(K(1) << (sizeof(T) * 8 - 1)));
    } else {
        return key;
    }
}

// A row of n elements by kLanes lanes that have room for them; all lanes of a warp take part, some perhaps with no row,
// n = 0.
template <bool kIndices, int kLanes, int kItems, class T, class O>
DEVICE void sort_row_in_lanes(const T* row, O* out, int n) {
    using K = SortKey<T>;
    const int first = threadIdx.x % kLanes * kItems;
    const Pack<T, kItems> own = load_pack<kItems>(row + first, n - first);
    Pack<O, kItems> sorted;
    K keys[kItems];
#pragma unroll
    for (int j = 0; j < kItems; ++j) keys[j] = first + j < n ? sort_key(own.v[j]) : K(~K(0));
    bool by_index = kIndices || sizeof(T) < 4;  // where an index takes no room, or is what is wanted
    if constexpr (!kIndices && sizeof(T) >= 4) {
        Equals<K> equals;
        if constexpr (has_equals<T>) {
#pragma unroll
            for (int j = 0; j < kItems; ++j) {
                if (first + j < n) equals.add(keys[j], bits_as<K>(own.v[j]));
            }
            if (__any_sync(0xffffffffu, equals.any())) {
                merge_lanes<kLanes>(equals);
                by_index = __any_sync(0xffffffffu, equals.differ());
            }
        }
        if (!by_index) {
            sort_in_lanes<kLanes>(keys);
#pragma unroll
            for (int j = 0; j < kItems; ++j) sorted.v[j] = element_of<T>(keys[j], equals);
        }
    }
    if constexpr (kIndices || sizeof(T) < 4 || has_equals<T>) {
        if (by_index) {
            using E = typename Indexed<sizeof(T)>::type;
            E x[kItems];
#pragma unroll
            for (int j = 0; j < kItems; ++j) x[j] = with_index<E>(keys[j], u32(first + j));
            sort_in_lanes<kLanes>(x);
#pragma unroll
            for (int j = 0; j < kItems; ++j) {
                if constexpr (kIndices) {
                    sorted.v[j] = index_of(x[j]);
                } else {
                    sorted.v[j] = first + j < n ? row[index_of(x[j])] : T{};
                }
            }
        }
    }
    store_pack<kItems>(out + first, sorted, n - first);
}
