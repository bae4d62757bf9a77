// Elementwise functions, one overload set per primitive: op_<primitive>(compute types). Semantics are MLX's, which are
// NumPy's nearly everywhere: floor division and remainder round down, maximum and minimum propagate NaN, integers wrap.
#pragma once
#include "prelude.cuh"

template <class T>
constexpr bool is_signed_integer = T(-1) < T(0);
template <class T>
struct Wrapping {  // unsigned arithmetic wraps; signed overflow is undefined
    using type = u32;
};
template <>
struct Wrapping<i64> {
    using type = u64;
};
template <>
struct Wrapping<u64> {
    using type = u64;
};
template <class T>
using wrapping_t = typename Wrapping<T>::type;

// Both floating types, by one expression with the suffix f put on or left off: F(exp) is expf or exp.
#define FLOAT_UNARY(name, expression_f32, expression_f64)      \
    DEVICE float op_##name(float a) { return expression_f32; } \
    DEVICE double op_##name(double a) { return expression_f64; }
#define FLOAT_BINARY(name, expression_f32, expression_f64)              \
    DEVICE float op_##name(float a, float b) { return expression_f32; } \
    DEVICE double op_##name(double a, double b) { return expression_f64; }

DEVICE bool is_nan(float a) { return a != a; }
DEVICE bool is_nan(double a) { return a != a; }
DEVICE bool is_nan(c64 a) { return a.re != a.re || a.im != a.im; }
template <class T>
DEVICE bool is_nan(T) {
    return false;
}

// ---- complex numbers
DEVICE c64 operator+(c64 a, c64 b) { return {a.re + b.re, a.im + b.im}; }
DEVICE c64 operator-(c64 a, c64 b) { return {a.re - b.re, a.im - b.im}; }
DEVICE c64 operator-(c64 a) { return {-a.re, -a.im}; }
DEVICE c64 operator*(c64 a, c64 b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
DEVICE c64 operator*(float s, c64 a) { return {s * a.re, s * a.im}; }
DEVICE c64 operator/(c64 a, c64 b) {  // Smith: scale by the larger part so that nothing overflows on the way
    if (b.re == 0 && b.im == 0) return {a.re / fabsf(b.re), a.im / fabsf(b.re)};
    if (fabsf(b.re) >= fabsf(b.im)) {
        float ratio = b.im / b.re, scale = 1.0f / (b.re + b.im * ratio);
        return {(a.re + a.im * ratio) * scale, (a.im - a.re * ratio) * scale};
    }
    float ratio = b.re / b.im, scale = 1.0f / (b.re * ratio + b.im);
    return {(a.re * ratio + a.im) * scale, (a.im * ratio - a.re) * scale};
}
DEVICE bool operator==(c64 a, c64 b) { return a.re == b.re && a.im == b.im; }
DEVICE bool operator!=(c64 a, c64 b) { return !(a == b); }
// Complex order is lexicographic.
DEVICE bool operator<(c64 a, c64 b) { return a.re < b.re || (a.re == b.re && a.im < b.im); }
DEVICE bool operator>(c64 a, c64 b) { return b < a; }
DEVICE bool operator<=(c64 a, c64 b) { return a.re < b.re || (a.re == b.re && a.im <= b.im); }
DEVICE bool operator>=(c64 a, c64 b) { return b <= a; }

DEVICE c64 times_i(c64 a) { return {-a.im, a.re}; }
DEVICE c64 over_i(c64 a) { return {a.im, -a.re}; }
DEVICE c64 op_conjugate(c64 a) { return {a.re, -a.im}; }

// ---- sign and rounding
template <class T>
DEVICE T op_abs(T a) {
    if constexpr (is_signed_integer<T>) return a < 0 ? T(wrapping_t<T>(0) - wrapping_t<T>(a)) : a;
    return a;
}
DEVICE bool op_abs(bool a) { return a; }
FLOAT_UNARY(abs, fabsf(a), fabs(a))
DEVICE float op_abs(c64 a) { return hypotf(a.re, a.im); }

template <class T>
DEVICE T op_negative(T a) {
    return T(wrapping_t<T>(0) - wrapping_t<T>(a));
}
FLOAT_UNARY(negative, -a, -a)
DEVICE c64 op_negative(c64 a) { return -a; }

template <class T>
DEVICE T op_sign(T a) {
    return T(a > T(0)) - T(a < T(0));
}
DEVICE bool op_sign(bool a) { return a; }
DEVICE c64 op_sign(c64 a) {
    float modulus = hypotf(a.re, a.im);
    return a == c64{0, 0} ? a : c64{a.re / modulus, a.im / modulus};
}

#define ROUNDING(name)        \
    template <class T>        \
    DEVICE T op_##name(T a) { \
        return a;             \
    }                         \
    FLOAT_UNARY(name, name##f(a), name(a))
ROUNDING(ceil)
ROUNDING(floor)
ROUNDING(rint)
DEVICE c64 op_rint(c64 a) { return {rintf(a.re), rintf(a.im)}; }

// ---- powers, exponentials, logarithms
template <class T>
DEVICE T op_square(T a) {
    return T(wrapping_t<T>(a) * wrapping_t<T>(a));
}
DEVICE bool op_square(bool a) { return a; }
FLOAT_UNARY(square, a* a, a* a)
DEVICE c64 op_square(c64 a) { return a * a; }
template <class T>
DEVICE T op_cube(T a) {
    return op_square(a) * a;
}

FLOAT_UNARY(sqrt, sqrtf(a), sqrt(a))
DEVICE c64 op_sqrt(c64 a) {
    float modulus = hypotf(a.re, a.im);
    if (modulus == 0) return {0, a.im};
    float t = sqrtf(0.5f * modulus + 0.5f * fabsf(a.re));
    float u = fabsf(a.im) / (2 * t);
    return a.re >= 0 ? c64{t, copysignf(u, a.im)} : c64{u, copysignf(t, a.im)};
}
FLOAT_UNARY(rsqrt, 1.0f / sqrtf(a), 1.0 / sqrt(a))
DEVICE c64 op_rsqrt(c64 a) { return c64{1, 0} / op_sqrt(a); }
FLOAT_UNARY(reciprocal, 1.0f / a, 1.0 / a)
DEVICE c64 op_reciprocal(c64 a) { return c64{1, 0} / a; }

FLOAT_UNARY(exp, expf(a), exp(a))
DEVICE c64 op_exp(c64 a) {
    float modulus = expf(a.re);
    if (a.im == 0) return {modulus, a.im};  // infinity * sin(0) would be NaN
    float s, c;
    sincosf(a.im, &s, &c);
    return {modulus * c, modulus * s};
}
FLOAT_UNARY(expm1, expm1f(a), expm1(a))
DEVICE c64 op_expm1(c64 a) {
    float s, c, half = sinf(0.5f * a.im);
    sincosf(a.im, &s, &c);
    return {expm1f(a.re) * c - 2 * half * half, expf(a.re) * s};
}
FLOAT_UNARY(log, logf(a), log(a))
DEVICE c64 op_log(c64 a) { return {logf(hypotf(a.re, a.im)), atan2f(a.im, a.re)}; }
FLOAT_UNARY(log2, log2f(a), log2(a))
DEVICE c64 op_log2(c64 a) { return 1.4426950408889634f * op_log(a); }
FLOAT_UNARY(log10, log10f(a), log10(a))
DEVICE c64 op_log10(c64 a) { return 0.4342944819032518f * op_log(a); }
FLOAT_UNARY(log1p, log1pf(a), log1p(a))
DEVICE c64 op_log1p(c64 a) {
    float angle = atan2f(a.im, a.re + 1);
    if (hypotf(a.re, a.im) < 0.5f) return {0.5f * log1pf(a.re * (a.re + 2) + a.im * a.im), angle};
    return {logf(hypotf(a.re + 1, a.im)), angle};
}

// ---- trigonometric and hyperbolic functions
FLOAT_UNARY(sin, sinf(a), sin(a))
FLOAT_UNARY(cos, cosf(a), cos(a))
FLOAT_UNARY(tan, tanf(a), tan(a))
FLOAT_UNARY(sinh, sinhf(a), sinh(a))
FLOAT_UNARY(cosh, coshf(a), cosh(a))
FLOAT_UNARY(tanh, tanhf(a), tanh(a))
FLOAT_UNARY(arcsin, asinf(a), asin(a))
FLOAT_UNARY(arccos, acosf(a), acos(a))
FLOAT_UNARY(arctan, atanf(a), atan(a))
FLOAT_UNARY(arcsinh, asinhf(a), asinh(a))
FLOAT_UNARY(arccosh, acoshf(a), acosh(a))
FLOAT_UNARY(arctanh, atanhf(a), atanh(a))
DEVICE c64 op_sinh(c64 a) { return {sinhf(a.re) * cosf(a.im), coshf(a.re) * sinf(a.im)}; }
DEVICE c64 op_cosh(c64 a) { return {coshf(a.re) * cosf(a.im), sinhf(a.re) * sinf(a.im)}; }
DEVICE c64 op_tanh(c64 a) {
    if (fabsf(a.re) > 11) {  // 1 - |tanh| is below float's resolution, and cosh would overflow later
        return {copysignf(1, a.re), 4 * sinf(a.im) * cosf(a.im) * expf(-2 * fabsf(a.re))};
    }
    float t = tanf(a.im), s = sinhf(a.re), beta = 1 + t * t, rho = sqrtf(1 + s * s), scale = 1 + beta * s * s;
    return isinf(t) ? c64{rho / s, 1 / t} : c64{beta * rho * s / scale, t / scale};  // Kahan
}
DEVICE c64 op_sin(c64 a) { return over_i(op_sinh(times_i(a))); }
DEVICE c64 op_cos(c64 a) { return op_cosh(times_i(a)); }
DEVICE c64 op_tan(c64 a) { return over_i(op_tanh(times_i(a))); }
// Kahan, "Branch cuts for complex elementary functions".
DEVICE c64 op_arcsin(c64 a) {
    c64 below = op_sqrt(c64{1 - a.re, -a.im}), above = op_sqrt(c64{1 + a.re, a.im});
    return {atan2f(a.re, below.re * above.re - below.im * above.im), asinhf(below.re * above.im - below.im * above.re)};
}
DEVICE c64 op_arccos(c64 a) {
    c64 below = op_sqrt(c64{1 - a.re, -a.im}), above = op_sqrt(c64{1 + a.re, a.im});
    return {2 * atan2f(below.re, above.re), asinhf(above.re * below.im - above.im * below.re)};
}
DEVICE c64 op_arcsinh(c64 a) { return over_i(op_arcsin(times_i(a))); }
DEVICE c64 op_arccosh(c64 a) {
    c64 below = op_sqrt(c64{a.re - 1, a.im}), above = op_sqrt(c64{a.re + 1, a.im});
    return {asinhf(below.re * above.re + below.im * above.im), 2 * atan2f(below.im, above.re)};
}
DEVICE c64 op_arctanh(c64 a) {
    float from_one = (1 - a.re) * (1 - a.re) + a.im * a.im;
    return {0.25f * log1pf(4 * a.re / from_one), 0.5f * atan2f(2 * a.im, (1 - a.re) * (1 + a.re) - a.im * a.im)};
}
DEVICE c64 op_arctan(c64 a) { return over_i(op_arctanh(times_i(a))); }

FLOAT_UNARY(erf, erff(a), erf(a))
FLOAT_UNARY(erfinv, erfinvf(a), erfinv(a))
FLOAT_UNARY(sigmoid, 1.0f / (1.0f + expf(-a)), 1.0 / (1.0 + exp(-a)))
DEVICE c64 op_sigmoid(c64 a) { return c64{1, 0} / (c64{1, 0} + op_exp(-a)); }
FLOAT_UNARY(degrees, a * 57.29577951308232f, a * 57.29577951308232)
FLOAT_UNARY(radians, a * 0.017453292519943295f, a * 0.017453292519943295)

// ---- functions of 16-bit floats, computed in float by the hardware's approximations (PTX ISA, "Floating Point
// Instructions"). Relative errors are below 2^-21, but for exp and sigmoid, whose argument is rounded after a product
// with log2(e): 2^-18 at the ends of float's range, 2^-20 at those of float16's; and for tanh: 2^-11, where rounding to
// bfloat16 has up to 2^-9 and to float16 2^-12. Infinities, zeros and NaN are those of the exact functions.
#ifdef __CUDACC__
#define HARDWARE(name, instruction)                     \
    DEVICE float hardware_##name(float a) {             \
        float r;                                        \
        asm(instruction " %0, %1;" : "=f"(r) : "f"(a)); \
        return r;                                       \
    }
HARDWARE(exp2, "ex2.approx.f32")
HARDWARE(sqrt, "sqrt.approx.f32")
HARDWARE(rsqrt, "rsqrt.approx.f32")
HARDWARE(reciprocal, "rcp.approx.f32")
HARDWARE(tanh, "tanh.approx.f32")
DEVICE float near_divide(float a, float b) {
    float r;
    asm("div.full.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}
#else
DEVICE float hardware_exp2(float a) { return exp2f(a); }
DEVICE float hardware_sqrt(float a) { return sqrtf(a); }
DEVICE float hardware_rsqrt(float a) { return 1.0f / sqrtf(a); }
DEVICE float hardware_reciprocal(float a) { return 1.0f / a; }
DEVICE float hardware_tanh(float a) { return tanhf(a); }
DEVICE float near_divide(float a, float b) { return a / b; }
#endif
DEVICE float near_reciprocal(float a) { return hardware_reciprocal(a); }
DEVICE float near_sqrt(float a) { return hardware_sqrt(a); }
DEVICE float near_rsqrt(float a) { return hardware_rsqrt(a); }
DEVICE float near_exp(float a) { return hardware_exp2(a * 1.4426950408889634f); }
DEVICE float near_sigmoid(float a) { return hardware_reciprocal(1.0f + near_exp(-a)); }
DEVICE float near_tanh(float a) { return hardware_tanh(a); }

// ---- questions about one number
template <class T>
DEVICE bool op_logical_not(T a) {
    return a == T(0);
}
DEVICE bool op_logical_not(c64 a) { return a == c64{0, 0}; }
template <class T>
DEVICE T op_bitwise_invert(T a) {
    return T(~a);
}
DEVICE bool op_bitwise_invert(bool a) { return !a; }
template <class T>
DEVICE bool op_isnan(T a) {
    return is_nan(a);
}
template <class T>
DEVICE bool op_isinf(T a) {
    if constexpr (is_float<T>) return isinf(a);
    return false;
}
DEVICE bool op_isinf(c64 a) { return isinf(a.re) || isinf(a.im); }
template <class T>
DEVICE bool op_isfinite(T a) {
    return !op_isnan(a) && !op_isinf(a);
}
template <class T>
DEVICE bool op_isposinf(T a) {
    return op_isinf(a) && a > T(0);
}
DEVICE bool op_isposinf(c64 a) { return a == c64{float_infinity(), 0}; }
template <class T>
DEVICE bool op_isneginf(T a) {
    return op_isinf(a) && a < T(0);
}
DEVICE bool op_isneginf(c64 a) { return a == c64{-float_infinity(), 0}; }
template <class T>
DEVICE T op_real(T a) {
    return a;
}
DEVICE float op_real(c64 a) { return a.re; }
template <class T>
DEVICE T op_imag(T) {
    return T(0);
}
DEVICE float op_imag(c64 a) { return a.im; }
template <class T>
DEVICE T op_conjugate(T a) {
    return a;
}

// ---- arithmetic of two numbers; bool adds by or, subtracts by xor, multiplies by and
#define WRAPPING_BINARY(name, op, boolean_expression)                    \
    template <class T>                                                   \
    DEVICE T op_##name(T a, T b) {                                       \
        return T(wrapping_t<T>(a) op wrapping_t<T>(b));                  \
    }                                                                    \
    DEVICE bool op_##name(bool a, bool b) { return boolean_expression; } \
    FLOAT_BINARY(name, a op b, a op b)                                   \
    DEVICE c64 op_##name(c64 a, c64 b) { return a op b; }
WRAPPING_BINARY(add, +, a || b)
WRAPPING_BINARY(subtract, -, a != b)
WRAPPING_BINARY(multiply, *, a&& b)
FLOAT_BINARY(divide, a / b, a / b)
DEVICE c64 op_divide(c64 a, c64 b) { return a / b; }

template <class T>
DEVICE T op_floor_divide(T a, T b) {
    if (b == 0) return 0;
    if constexpr (is_signed_integer<T>) {
        if (b == T(-1)) return op_negative(a);  // the quotient of the least integer does not fit
        T quotient = T(a / b);
        return T(quotient - T(a % b != 0 && (a < 0) != (b < 0)));
    } else {
        return T(a / b);
    }
}
DEVICE bool op_floor_divide(bool a, bool b) { return a && b; }
FLOAT_BINARY(floor_divide, floorf(a / b), floor(a / b))
DEVICE c64 op_floor_divide(c64 a, c64 b) { return a / b; }

template <class T>
DEVICE T op_remainder(T a, T b) {
    if (b == 0) return a;
    if constexpr (is_signed_integer<T>) {
        if (b == T(-1)) return 0;
        T rest = T(a % b);
        return rest != 0 && (rest < 0) != (b < 0) ? T(rest + b) : rest;
    } else {
        return T(a % b);
    }
}
DEVICE bool op_remainder(bool a, bool b) { return a && !b; }
DEVICE float op_remainder(float a, float b) {
    float rest = fmodf(a, b);
    if (rest == 0) return copysignf(0.0f, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}
DEVICE double op_remainder(double a, double b) {
    double rest = fmod(a, b);
    if (rest == 0) return copysign(0.0, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}

template <class T>
DEVICE T op_power(T a, T b) {
    if constexpr (is_signed_integer<T>) {
        if (b < 0) return 0;
    }
    wrapping_t<T> base = wrapping_t<T>(a), result = 1;
    for (wrapping_t<T> rest = wrapping_t<T>(b); rest; rest >>= 1) {
        if (rest & 1) result *= base;
        base *= base;
    }
    return T(result);
}
DEVICE bool op_power(bool a, bool b) { return a || !b; }
// Squares and cubes by products: powf takes some hundred instructions, and polynomials are written with powers.
FLOAT_BINARY(power, b == 2 ? a * a : b == 3 ? a * a * a : powf(a, b), b == 2 ? a * a : b == 3 ? a * a * a : pow(a, b))
DEVICE c64 op_power(c64 a, c64 b) {
    if (b == c64{0, 0}) return {1, 0};
    if (a == c64{0, 0}) return b.re > 0 ? c64{0, 0} : c64{float_nan(), float_nan()};
    if (b.im == 0 && b.re == rintf(b.re) && fabsf(b.re) <= 64) {  // by squaring: exact where logarithms are not
        c64 base = a, result = {1, 0};
        for (int rest = int(fabsf(b.re)); rest; rest >>= 1) {
            if (rest & 1) result = result * base;
            base = base * base;
        }
        return b.re < 0 ? c64{1, 0} / result : result;
    }
    return op_exp(b * op_log(a));
}

template <class T>
DEVICE T op_maximum(T a, T b) {
    return a > b || is_nan(a) ? a : b;
}
template <class T>
DEVICE T op_minimum(T a, T b) {
    return a < b || is_nan(a) ? a : b;
}
FLOAT_BINARY(arctan2, atan2f(a, b), atan2(a, b))

DEVICE float op_logaddexp(float a, float b) {
    if (is_nan(a) || is_nan(b)) return a + b;
    float greater = a > b ? a : b, lesser = a > b ? b : a;
    return isinf(greater) || isinf(lesser) ? greater : greater + log1pf(expf(lesser - greater));
}
DEVICE double op_logaddexp(double a, double b) {
    if (is_nan(a) || is_nan(b)) return a + b;
    double greater = a > b ? a : b, lesser = a > b ? b : a;
    return isinf(greater) || isinf(lesser) ? greater : greater + log1p(exp(lesser - greater));
}
DEVICE c64 op_logaddexp(c64 a, c64 b) {
    if (is_nan(a) || is_nan(b)) return a + b;
    c64 greater = a > b ? a : b, lesser = a > b ? b : a;
    return lesser.re == -float_infinity() || greater.re == float_infinity()
               ? greater
               : greater + op_log1p(op_exp(lesser - greater));
}

// ---- comparison, logic, bits
#define COMPARISON(name, op)          \
    template <class T>                \
    DEVICE bool op_##name(T a, T b) { \
        return a op b;                \
    }
COMPARISON(equal, ==)
COMPARISON(not_equal, !=)
COMPARISON(less, <)
COMPARISON(less_equal, <=)
COMPARISON(greater, >)
COMPARISON(greater_equal, >=)
DEVICE bool op_logical_and(bool a, bool b) { return a && b; }
DEVICE bool op_logical_or(bool a, bool b) { return a || b; }
template <class T>
DEVICE T op_bitwise_and(T a, T b) {
    return T(a & b);
}
template <class T>
DEVICE T op_bitwise_or(T a, T b) {
    return T(a | b);
}
template <class T>
DEVICE T op_bitwise_xor(T a, T b) {
    return T(a ^ b);
}
// A count is taken modulo the width of the operation, 32 bits for narrow types: what C compilers make of x86 and CUDA.
template <class T>
DEVICE T op_left_shift(T a, T b) {
    if constexpr (sizeof(T) == 8) return T(u64(a) << (b & 63));
    return T(u32(i32(a)) << (u32(i32(b)) & 31));
}
template <class T>
DEVICE T op_right_shift(T a, T b) {
    if constexpr (sizeof(T) == 8) return T(a >> (b & 63));
    if constexpr (is_same<T, u32>) return a >> (b & 31);
    return T(i32(a) >> (u32(i32(b)) & 31));
}
template <class T>
DEVICE T op_where(bool condition, T x, T y) {
    return condition ? x : y;
}

// ---- combining atomically, for scatters: the updates of `mode` in add, prod, max, min
template <class T>
DEVICE void atomic_add(T* p, compute_t<T> x) {
    atomic_update(p, [x](T old) { return from_compute<T>(op_add(to_compute(old), x)); });
}
DEVICE void atomic_add(i32* p, i32 x) { atomicAdd(p, x); }
DEVICE void atomic_add(u32* p, u32 x) { atomicAdd(p, x); }
DEVICE void atomic_add(i64* p, i64 x) { atomicAdd(reinterpret_cast<u64*>(p), u64(x)); }
DEVICE void atomic_add(u64* p, u64 x) { atomicAdd(p, x); }
DEVICE void atomic_add(f32* p, f32 x) { atomicAdd(p, x); }
DEVICE void atomic_add(f64* p, f64 x) { atomicAdd(p, x); }
DEVICE void atomic_add(c64* p, c64 x) {
    atomicAdd(&p->re, x.re);
    atomicAdd(&p->im, x.im);
}
template <class T>
DEVICE void atomic_prod(T* p, compute_t<T> x) {
    atomic_update(p, [x](T old) { return from_compute<T>(op_multiply(to_compute(old), x)); });
}
template <class T>
DEVICE void atomic_max(T* p, compute_t<T> x) {
    atomic_update(p, [x](T old) { return from_compute<T>(op_maximum(to_compute(old), x)); });
}
DEVICE void atomic_max(i32* p, i32 x) { atomicMax(p, x); }
DEVICE void atomic_max(u32* p, u32 x) { atomicMax(p, x); }
DEVICE void atomic_max(i64* p, i64 x) { atomicMax(p, x); }
DEVICE void atomic_max(u64* p, u64 x) { atomicMax(p, x); }
template <class T>
DEVICE void atomic_min(T* p, compute_t<T> x) {
    atomic_update(p, [x](T old) { return from_compute<T>(op_minimum(to_compute(old), x)); });
}
DEVICE void atomic_min(i32* p, i32 x) { atomicMin(p, x); }
DEVICE void atomic_min(u32* p, u32 x) { atomicMin(p, x); }
DEVICE void atomic_min(i64* p, i64 x) { atomicMin(p, x); }
DEVICE void atomic_min(u64* p, u64 x) { atomicMin(p, x); }
