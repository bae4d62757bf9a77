#include "mlxlite/graph/dtype.h"

namespace mlxlite {

namespace {

struct Entry {
    const char* name;
    std::size_t size;
    Category category;
};

constexpr Entry kTable[kDtypeCount] = {
    {"bool", 1, Category::boolean},
    {"uint8", 1, Category::unsigned_integer},
    {"uint16", 2, Category::unsigned_integer},
    {"uint32", 4, Category::unsigned_integer},
    {"uint64", 8, Category::unsigned_integer},
    {"int8", 1, Category::signed_integer},
    {"int16", 2, Category::signed_integer},
    {"int32", 4, Category::signed_integer},
    {"int64", 8, Category::signed_integer},
    {"float16", 2, Category::floating},
    {"float32", 4, Category::floating},
    {"float64", 8, Category::floating},
    {"bfloat16", 2, Category::floating},
    {"complex64", 8, Category::complex},
};

Dtype promote_integers(Dtype a, Dtype b) {
    bool a_signed = category_of(a) == Category::signed_integer;
    bool b_signed = category_of(b) == Category::signed_integer;
    if (a_signed == b_signed) return size_of(a) >= size_of(b) ? a : b;
    Dtype u = a_signed ? b : a;
    Dtype s = a_signed ? a : b;
    if (size_of(s) > size_of(u)) return s;
    switch (size_of(u)) {
        case 1:
            return Dtype::int16;
        case 2:
            return Dtype::int32;
        case 4:
            return Dtype::int64;
        default:
            return Dtype::float32;  // uint64 with a signed type: no integer holds both
    }
}

}  // namespace

const char* name_of(Dtype dtype) { return kTable[static_cast<int>(dtype)].name; }
std::size_t size_of(Dtype dtype) { return kTable[static_cast<int>(dtype)].size; }
Category category_of(Dtype dtype) { return kTable[static_cast<int>(dtype)].category; }

Dtype promote(Dtype a, Dtype b) {
    if (a == b) return a;
    if (a == Dtype::complex64 || b == Dtype::complex64) return Dtype::complex64;
    if (a == Dtype::bool_) return b;
    if (b == Dtype::bool_) return a;
    bool a_float = is_floating(a), b_float = is_floating(b);
    if (!a_float && !b_float) return promote_integers(a, b);
    if (!a_float) return b;
    if (!b_float) return a;
    if (a == Dtype::float64 || b == Dtype::float64) return Dtype::float64;
    return Dtype::float32;  // two different floating types of at most 32 bits
}

}  // namespace mlxlite
