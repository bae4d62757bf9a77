// The gradient of attention, a warp for each query or key. For what cuDNN declines: correct for any size, and no more.
#pragma once
#include "attention.cuh"

// By one thread.
template <int kSize, class T>
DEVICE float dot(const T* a, const T* b) {
    float sum = 0;
#pragma unroll 8
    for (int i = 0; i < kSize; ++i) sum = multiply_add(to_compute(a[i]), to_compute(b[i]), sum);
    return sum;
}

DEVICE float warp_total(float x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x += shuffle_xor(x, lanes);
    return x;
}

// Features of a row that is added up by a warp: those of a thread are 32 apart.
template <int kSize>
struct WarpRow {
    static constexpr int kEach = (kSize + 31) / 32;
    float sum[kEach] = {};
    template <class T>
    DEVICE void add(float factor, const T* row) {
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
            const int feature = threadIdx.x % 32 + 32 * i;
            if (feature < kSize) sum[i] = multiply_add(factor, to_compute(row[feature]), sum[i]);
        }
    }
    template <class T>
    DEVICE void store(T* row) const {
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
            const int feature = threadIdx.x % 32 + 32 * i;
            if (feature < kSize) row[feature] = from_compute<T>(sum[i]);
        }
    }
};

// The logarithm of the sum of exp(score(key)) over keys [0, end).
template <class Score>
DEVICE float log_of_sum(i64 end, Score score) {
    float maximum = -float_infinity(), total = 0;
    for (i64 key = threadIdx.x % 32; key < end; key += 32) {
        const float s = score(key), top = fmaxf(maximum, s), zero = reference(top);
        total = total * expf(maximum - zero) + expf(s - zero);
        maximum = top;
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        const float other = shuffle_xor(maximum, lanes), its_total = shuffle_xor(total, lanes);
        const float top = fmaxf(maximum, other), zero = reference(top);
        total = total * expf(maximum - zero) + its_total * expf(other - zero);
        maximum = top;
    }
    return maximum + logf(total);
}

struct Two {
    float first, second;
};

// Calls use(i, values of i) for i in [first, end), in order and by all threads of the warp; a thread computes the
// values of every 32nd by compute(i).
template <class Compute, class Use>
DEVICE void for_each(i64 first, i64 end, Compute compute, Use use) {
    for (i64 base = first; base < end; base += 32) {
        const i64 own = base + threadIdx.x % 32;
        Two values = {0, 0};
        if (own < end) values = compute(own);
        const int count = int(min_i64(32, end - base));
        for (int r = 0; r < count; ++r) use(base + r, shuffle_from(values.first, r), shuffle_from(values.second, r));
    }
}
