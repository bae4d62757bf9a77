// Unsigned keys whose order is the elements': NaN is after all numbers, whatever its bits, and the two zeros are equal.
#pragma once
#include "reduce.cuh"

template <int Bytes>
struct KeyOf;
template <>
struct KeyOf<1> {
    using type = u8;
};
template <>
struct KeyOf<2> {
    using type = u16;
};
template <>
struct KeyOf<4> {
    using type = u32;
};
template <>
struct KeyOf<8> {
    using type = u64;
};
template <class T>
using SortKey = typename KeyOf<sizeof(T)>::type;

template <class K, int kMantissaBits>
DEVICE K float_key(K bits) {
    constexpr K kSign = K(K(1) << (sizeof(K) * 8 - 1)), kInfinity = K(K(kSign - 1) >> kMantissaBits << kMantissaBits);
    const K magnitude = bits & K(kSign - 1);
    if (magnitude > kInfinity) return K(~K(0));
    if (magnitude == 0) return kSign;
    return bits & kSign ? K(~bits) : K(bits | kSign);
}
template <class T>
DEVICE SortKey<T> sort_key(T x) {
    using K = SortKey<T>;
    if constexpr (is_same<T, boolean>) {
        return x.bits != 0;
    } else if constexpr (is_same<T, f16>) {
        return float_key<u16, 10>(x.bits);
    } else if constexpr (is_same<T, bf16>) {
        return float_key<u16, 7>(x.bits);
    } else if constexpr (is_same<T, f32>) {
        return float_key<u32, 23>(bits_as<u32>(x));
    } else if constexpr (is_same<T, f64>) {
        return float_key<u64, 52>(bits_as<u64>(x));
    } else if constexpr (is_signed_integer<T>) {
        return K(K(x) ^ K(K(1) << (sizeof(T) * 8 - 1)));
    } else {
        return x;
    }
}
