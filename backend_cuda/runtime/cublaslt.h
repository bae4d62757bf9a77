// The part of cuBLASLt's public C interface that matmul nodes need, declared here so that building needs no cuBLAS
// headers. Numbers and layouts are those of its documentation, unchanged from CUDA 11 to 13.
#pragma once
#include <cuda.h>

#include <cstddef>
#include <cstdint>

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
enum PreferenceAttribute : int { kMaxWorkspace = 1, kMinAlignA = 5, kMinAlignB = 6, kMinAlignC = 7, kMinAlignD = 8 };

struct Algo {
    std::uint64_t data[8];
};
struct Heuristic {
    Algo algo;
    std::size_t workspace;
    int status;
    float waves;
    int reserved[4];
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
    X(cublasLtMatmul,                                                                                                  \
      (Handle, Desc, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta, const void* c, \
       Layout, void* d, Layout, const Algo*, void* workspace, std::size_t, CUstream))

}  // namespace mlxlite::cuda::lt
