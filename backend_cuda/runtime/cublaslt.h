// The part of cuBLASLt's public C interface that matmul nodes need, declared here so that building needs no cuBLAS
// headers. Numbers and layouts are those of its documentation, unchanged from CUDA 11 to 13.
#pragma once
#include <cuda.h>

#include <cstddef>
#include <cstdint>

#include "backend_cuda/runtime/driver.h"

namespace mlxlite::cuda::lt {

using Handle = struct HandleTag*;
using Desc = struct DescTag*;
using Layout = struct LayoutTag*;
using Preference = struct PreferenceTag*;

enum ComputeType : int { kCompute32F = 68, kCompute32FFastTf32 = 77, kCompute64F = 70 };
enum DataType : int { kR32F = 0, kR64F = 1, kR16F = 2, kC32F = 4, kR16BF = 14 };
enum Operation : int { kOpN = 0, kOpT = 1 };
enum DescAttribute : int { kTransA = 3, kTransB = 4 };
enum LayoutAttribute : int { kBatchCount = 5, kStridedBatchOffset = 6 };
enum PreferenceAttribute : int {
    kMaxWorkspace = 1,
    kReductions = 3,
    kMinAlignA = 5,
    kMinAlignB = 6,
    kMinAlignC = 7,
    kMinAlignD = 8
};
enum Reduction : std::uint32_t { kInComputeType = 2 };  // of the parts of a sum over k

struct Algo {
    std::uint64_t data[8];
};
static_assert(sizeof(Algo) == 64);
struct Heuristic {
    Algo algo;
    std::size_t workspace;
    int status;
    float waves;
    int reserved[4];
};

// A product as cuBLASLt is told of it: d = alpha a b + beta c, all of them column-major.
struct Problem {
    Desc desc;
    Layout a, b, c, d;
};

#define MLXLITE_CUBLASLT_FUNCTIONS(X)                                                                                  \
    X(cublasLtCreate, (Handle*))                                                                                       \
    X(cublasLtMatmulDescCreate, (Desc*, int compute_type, int scale_type))                                             \
    X(cublasLtMatmulDescDestroy, (Desc))                                                                               \
    X(cublasLtMatmulDescSetAttribute, (Desc, int attribute, const void* value, std::size_t))                           \
    X(cublasLtMatrixLayoutCreate, (Layout*, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t ld))     \
    X(cublasLtMatrixLayoutDestroy, (Layout))                                                                           \
    X(cublasLtMatrixLayoutSetAttribute, (Layout, int attribute, const void* value, std::size_t))                       \
    X(cublasLtMatmulPreferenceCreate, (Preference*))                                                                   \
    X(cublasLtMatmulPreferenceDestroy, (Preference))                                                                   \
    X(cublasLtMatmulPreferenceSetAttribute, (Preference, int attribute, const void* value, std::size_t))               \
    X(cublasLtMatmulAlgoGetHeuristic,                                                                                  \
      (Handle, Desc, Layout, Layout, Layout, Layout, Preference, int wanted, Heuristic*, int* found))                  \
    X(cublasLtMatmulAlgoCheck, (Handle, Desc, Layout, Layout, Layout, Layout, const Algo*, Heuristic*))                \
    X(cublasLtMatmul,                                                                                                  \
      (Handle, Desc, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta, const void* c, \
       Layout, void* d, Layout, const Algo*, void* workspace, std::size_t, CUstream))

struct Functions {
#define MLXLITE_DECLARE(name, parameters) int(*name) parameters = nullptr;
    MLXLITE_CUBLASLT_FUNCTIONS(MLXLITE_DECLARE)
#undef MLXLITE_DECLARE
};

// Throws an Error that names the function, unless the status is that of success.
void check(int status, const char* function);

void set_path(const char* path);  // before the first call; otherwise the loader's search finds the library
const Functions& functions();     // loads it; throws std::runtime_error saying what is missing
Handle handle();                  // the same
std::int64_t version();           // 0 while it is not loaded

inline void destroy_desc(Desc desc) { functions().cublasLtMatmulDescDestroy(desc); }
inline void destroy_layout(Layout layout) { functions().cublasLtMatrixLayoutDestroy(layout); }
inline void destroy_preference(Preference preference) { functions().cublasLtMatmulPreferenceDestroy(preference); }

using OwnedDesc = cuda::Handle<Desc, destroy_desc>;
using OwnedLayout = cuda::Handle<Layout, destroy_layout>;
using OwnedPreference = cuda::Handle<Preference, destroy_preference>;

}  // namespace mlxlite::cuda::lt
