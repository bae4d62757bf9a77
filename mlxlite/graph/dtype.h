// Element types, in one table: names, sizes, categories and MLX's promotion rules.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mlxlite {

enum class Dtype : std::uint8_t {
    bool_,
    uint8,
    uint16,
    uint32,
    uint64,
    int8,
    int16,
    int32,
    int64,
    float16,
    float32,
    float64,
    bfloat16,
    complex64,
};
inline constexpr int kDtypeCount = 14;

enum class Category : std::uint8_t { boolean, unsigned_integer, signed_integer, floating, complex };

const char* name_of(Dtype dtype);
std::size_t size_of(Dtype dtype);
Category category_of(Dtype dtype);
Dtype promote(Dtype a, Dtype b);

inline bool is_integral(Dtype d) { return category_of(d) < Category::floating; }
inline bool is_floating(Dtype d) { return category_of(d) == Category::floating; }
inline bool is_inexact(Dtype d) { return category_of(d) >= Category::floating; }

}  // namespace mlxlite
