// CUDA's words for a C++ compiler, so that a kernel's logic runs where there is no GPU. Every thread of a block is a
// fiber; barriers and shuffles switch between them. Blocks run one after the other, threads in an order that differs by
// block. A barrier that not all threads reach is an error, as is one in a warp whose lanes wait in different places.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__

struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct Dim3 {
    unsigned x = 1, y = 1, z = 1;
};
inline Dim3 threadIdx, blockIdx, blockDim, gridDim;

// ---- conversions that the prelude leaves to PTX
inline unsigned __float_as_uint(float x) {
    unsigned r;
    memcpy(&r, &x, 4);
    return r;
}
inline float __uint_as_float(unsigned x) {
    float r;
    memcpy(&r, &x, 4);
    return r;
}
inline float f16_bits_to_float(unsigned short bits) {
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                      : exponent     ? ldexpf(float(1024 + mantissa), exponent - 25)
                                     : ldexpf(float(mantissa), -24);
    return bits >> 15 ? -magnitude : magnitude;
}
inline unsigned short double_to_f16_bits(double x) {
    unsigned short sign = signbit(x) ? 0x8000 : 0;
    if (x != x) return 0x7fff;
    x = fabs(x);
    if (x >= 65520.0) return sign | 0x7c00;
    int exponent;
    frexp(x, &exponent);
    int shift = exponent - 11 < -24 ? -24 : exponent - 11;  // the place of the last bit kept
    int mantissa = int(rint(ldexp(x, -shift)));
    if (mantissa == 2048) mantissa = 1024, ++shift;
    return sign | (mantissa < 1024 ? mantissa : ((shift + 25) << 10 | (mantissa - 1024)));
}
inline unsigned short float_to_f16_bits(float x) { return double_to_f16_bits(x); }
inline unsigned short float_to_bf16_bits(float x) {
    if (x != x) return 0x7fff;
    unsigned bits = __float_as_uint(x);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline double erfinv(double x) {
    if (x <= -1 || x >= 1) return x == 1 ? INFINITY : x == -1 ? -INFINITY : NAN;
    double l = log1p(-x * x), t = 2 / (M_PI * 0.147) + l / 2, y = copysign(sqrt(sqrt(t * t - l / 0.147) - t), x);
    for (int i = 0; i < 3; ++i) {
        double e = (erf(y) - x) * (sqrt(M_PI) / 2) * exp(y * y);
        y -= e / (1 + y * e);
    }
    return y;
}
inline float erfinvf(float x) { return float(erfinv(double(x))); }

// ---- threads
// A fiber is started by setcontext, and goes on after a barrier by longjmp, which needs no system call. It runs one
// thread after another, block after block.
struct Fiber {
    Dim3 thread;
    enum { kRunnable, kAtBlock, kAtWarp, kDone } state;
    unsigned shuffles;
    bool is_started;
    jmp_buf resume;
};
inline std::vector<Fiber> fibers;  // the first n_threads are in use
inline unsigned n_threads;
inline std::vector<std::unique_ptr<char[]>> stacks;
inline jmp_buf scheduler;
inline unsigned current;
inline unsigned lane_values[64][2][32];
inline void (*entry)(void*);
inline void* entry_argument;

inline void wait_at(int state) {
    fibers[current].state = decltype(Fiber::state)(state);
    if (_setjmp(fibers[current].resume) == 0) _longjmp(scheduler, 1);
}
inline void fiber_main() {
    for (;;) {
        entry(entry_argument);
        wait_at(Fiber::kDone);
    }
}
// Until fiber t waits. Not inlined: after a longjmp the locals of this function are not to be relied on.
__attribute__((noinline)) inline void go_on(unsigned t) {
    constexpr size_t kStack = 128 << 10;
    if (_setjmp(scheduler)) return;
    if (fibers[t].is_started) _longjmp(fibers[t].resume, 1);
    fibers[t].is_started = true;
    while (stacks.size() <= t) stacks.emplace_back(new char[kStack]);
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks[t].get();
    context.uc_stack.ss_size = kStack;
    context.uc_link = nullptr;
    makecontext(&context, fiber_main, 0);
    setcontext(&context);
}
inline void __syncthreads() { wait_at(Fiber::kAtBlock); }
inline void __syncwarp(unsigned = ~0u) { wait_at(Fiber::kAtWarp); }
inline void __threadfence() {}
inline void __threadfence_block() {}

// What lane `source` of the warp gives. All live lanes take part.
inline unsigned exchange(unsigned x, int source) {
    unsigned warp = current / 32, lane = current % 32, parity = fibers[current].shuffles++ & 1;
    lane_values[warp][parity][lane] = x;
    __syncwarp();
    return source < 0 || source > 31 ? x : lane_values[warp][parity][source];
}
inline unsigned __shfl_xor_sync(unsigned, unsigned x, int mask) { return exchange(x, int(current % 32) ^ mask); }
inline unsigned __shfl_up_sync(unsigned, unsigned x, int delta) { return exchange(x, int(current % 32) - delta); }
inline unsigned __shfl_down_sync(unsigned, unsigned x, int delta) { return exchange(x, int(current % 32) + delta); }
inline unsigned __shfl_sync(unsigned, unsigned x, int lane) { return exchange(x, lane & 31); }
inline unsigned __ballot_sync(unsigned, int predicate) {
    unsigned warp = current / 32, first = warp * 32, parity = fibers[current].shuffles++ & 1, bits = 0;
    lane_values[warp][parity][current % 32] = predicate != 0;
    __syncwarp();
    for (unsigned i = 0; i < 32 && first + i < n_threads; ++i) bits |= lane_values[warp][parity][i] << i;
    return bits;
}
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }

template <class T>
T atomicAdd(T* p, T x) {
    T old = *p;
    *p = old + x;
    return old;
}
template <class T>
T atomicMax(T* p, T x) {
    T old = *p;
    *p = old > x ? old : x;
    return old;
}
template <class T>
T atomicMin(T* p, T x) {
    T old = *p;
    *p = old < x ? old : x;
    return old;
}
template <class T>
T atomicCAS(T* p, T expected, T x) {
    T old = *p;
    if (old == expected) *p = x;
    return old;
}
template <class T>
T atomicExch(T* p, T x) {
    T old = *p;
    *p = x;
    return old;
}

// Runs one block; false if its threads can never all go on.
inline bool run_block(unsigned order) {
    const unsigned n = n_threads = blockDim.x * blockDim.y * blockDim.z;
    if (fibers.size() < n) fibers.resize(n);
    for (unsigned t = 0; t < n; ++t) {
        fibers[t].thread = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
        fibers[t].state = Fiber::kRunnable;
        fibers[t].shuffles = 0;
    }
    const unsigned step = order % 2 ? n - 1 : 1, start = order * 37 % n;  // backwards in every second block
    for (;;) {
        bool ran = false;
        unsigned done = 0, at_block = 0;
        for (unsigned k = 0, t = start; k < n; ++k, t = (t + step) % n) {
            if (fibers[t].state != Fiber::kRunnable) continue;
            current = t;
            threadIdx = fibers[t].thread;
            go_on(t);
            ran = true;
        }
        for (unsigned first = 0; first < n; first += 32) {
            unsigned live = 0, waiting = 0;
            for (unsigned t = first; t < first + 32 && t < n; ++t) {
                done += fibers[t].state == Fiber::kDone;
                at_block += fibers[t].state == Fiber::kAtBlock;
                live += fibers[t].state != Fiber::kDone;
                waiting += fibers[t].state == Fiber::kAtWarp;
            }
            if (waiting == 0 || waiting != live) continue;
            ran = true;
            for (unsigned t = first; t < first + 32 && t < n; ++t) {
                if (fibers[t].state == Fiber::kAtWarp) fibers[t].state = Fiber::kRunnable;
            }
        }
        if (done == n) return true;
        if (at_block + done == n) {
            for (unsigned t = 0; t < n; ++t) {
                if (fibers[t].state == Fiber::kAtBlock) fibers[t].state = Fiber::kRunnable;
            }
        } else if (!ran) {
            fibers.clear();  // they are somewhere inside the kernel
            return false;
        }
    }
}

// args: addresses of the arguments, as cuLaunchKernel takes them. 0, or 1 if a block's threads got stuck.
template <class... Args, size_t... I>
int launch(void (*kernel)(Args...), const unsigned* grid, const unsigned* block, void** args,
           std::index_sequence<I...>) {
    struct Call {
        void (*kernel)(Args...);
        void** args;
    } call{kernel, args};
    entry_argument = &call;
    entry = [](void* p) {
        auto* c = static_cast<Call*>(p);
        c->kernel(*static_cast<std::remove_reference_t<Args>*>(c->args[I])...);
    };
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const u_int64_t blocks = u_int64_t(grid[0]) * grid[1] * grid[2];
    for (u_int64_t k = 0; k < blocks; ++k) {
        // From both ends, unless the kernel says that it relies on the order in which blocks begin. The last one first:
        // the first ones of a scan wait for others.
        const u_int64_t b = grid[3] ? k : k % 2 ? k / 2 : blocks - 1 - k / 2;
        blockIdx = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
        if (!run_block(unsigned(k))) return 1;
    }
    return 0;
}
#define EMULATED(name)                                                                    \
    extern "C" int run_##name(const unsigned* grid, const unsigned* block, void** args) { \
        return launch_any(name, grid, block, args);                                       \
    }
template <class... Args>
int launch_any(void (*kernel)(Args...), const unsigned* grid, const unsigned* block, void** args) {
    return launch(kernel, grid, block, args, std::index_sequence_for<Args...>{});
}
