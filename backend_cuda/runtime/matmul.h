// Matmul nodes: a key of everything cuBLASLt's choice depends on, and a capture of its launch into a graph.
#pragma once
#include <cstdint>

#include "backend_cuda/runtime/bytes_key.h"
#include "backend_cuda/runtime/driver.h"

namespace mlxlite::cuda {

enum class MatmulDtype : std::uint32_t { float32, float16, bfloat16, float64, complex64 };

// In row-major terms: d (m, n) = alpha a (m, k) b (k, n) + beta c (m, n), `batch` times.
#define MLXLITE_MATMUL_KEY_FIELDS(X) \
    X(std::int64_t, m)               \
    X(std::int64_t, n)               \
    X(std::int64_t, k)               \
    X(std::int64_t, batch)           \
    X(std::int64_t, lda)             \
    X(std::int64_t, ldb)             \
    X(std::int64_t, ldc)             \
    X(std::int64_t, ldd)             \
    X(std::int64_t, batch_stride_a)  \
    X(std::int64_t, batch_stride_b)  \
    X(std::int64_t, batch_stride_c)  \
    X(std::int64_t, batch_stride_d)  \
    X(std::int64_t, max_workspace)   \
    X(std::uint32_t, dtype)          \
    X(std::uint32_t, trans_a)        \
    X(std::uint32_t, trans_b)        \
    X(std::uint32_t, has_c)          \
    X(std::uint32_t, c_is_d)         \
    X(std::uint32_t, tf32)           \
    X(std::uint32_t, align_a)        \
    X(std::uint32_t, align_b)        \
    X(std::uint32_t, align_c)        \
    X(std::uint32_t, align_d)

struct MatmulKey {
#define MLXLITE_DECLARE(type, name) type name;
    MLXLITE_MATMUL_KEY_FIELDS(MLXLITE_DECLARE)
#undef MLXLITE_DECLARE
};
static_assert(std::has_unique_object_representations_v<MatmulKey>);

// All that one matmul node's child graph depends on. Compared as bytes, too.
struct MatmulCall {
    MatmulKey key;
    CUdeviceptr a, b, c, d;
    std::uint64_t alpha, beta;      // bits of doubles
    std::int64_t workspace_offset;  // of the node's share of the one workspace
};
static_assert(std::has_unique_object_representations_v<MatmulCall>);

std::size_t itemsize_of(MatmulDtype dtype);
std::uint32_t alignment_of(CUdeviceptr address);  // a power of two, at most 16

void set_tf32(bool allowed);  // float32 products on tensor cores; on unless MLX_ENABLE_TF32=0
bool tf32();

// `new_sizes`: the plan has been launched before, with other sizes. See algorithm_choice.h.
Graph capture_matmul(const MatmulCall& call, bool new_sizes);

const KeyCacheCounters& matmul_counters();
std::size_t matmul_cache_size();

}  // namespace mlxlite::cuda
