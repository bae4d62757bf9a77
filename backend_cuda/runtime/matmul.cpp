#include "backend_cuda/runtime/matmul.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <string>

#include "backend_cuda/runtime/algorithm_choice.h"
#include "backend_cuda/runtime/cublaslt.h"
#include "backend_cuda/runtime/memory.h"
#include "backend_cuda/runtime/stream.h"

namespace mlxlite::cuda {

namespace {

// What a key stands for. The operands are swapped: a row-major matrix is the transpose of a column-major one, and
// d^T = b^T a^T, so nothing is ever transposed in memory.
struct Recipe {
    lt::OwnedDesc desc;
    lt::OwnedLayout a, b, c, d;
    Algorithm algorithm;
};

struct Types {
    int data, scale, compute;
};

Types types_of(const MatmulKey& key) {
    switch (static_cast<MatmulDtype>(key.dtype)) {
        case MatmulDtype::float16:
            return {lt::kR16F, lt::kR32F, lt::kCompute32F};
        case MatmulDtype::bfloat16:
            return {lt::kR16BF, lt::kR32F, lt::kCompute32F};
        case MatmulDtype::float64:
            return {lt::kR64F, lt::kR64F, lt::kCompute64F};
        case MatmulDtype::complex64:
            return {lt::kC32F, lt::kC32F, key.tf32 ? lt::kCompute32FFastTf32 : lt::kCompute32F};
        case MatmulDtype::float32:
            break;
    }
    return {lt::kR32F, lt::kR32F, key.tf32 ? lt::kCompute32FFastTf32 : lt::kCompute32F};
}

// Of a row-major (rows, columns) matrix with `ld` elements from row to row.
lt::Layout make_layout(int type, std::int64_t rows, std::int64_t columns, std::int64_t ld, const MatmulKey& key,
                       std::int64_t batch_stride, const char* operand) {
    if (ld < columns) {
        if (rows > 1)
            throw std::invalid_argument(std::string("matmul: rows of operand ") + operand +
                                        " overlap; the lowering must copy it first");
        ld = columns;  // one row: its stride means nothing
    }
    lt::Layout layout = nullptr;
    lt::check(lt::functions().cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(columns),
                                                         static_cast<std::uint64_t>(rows), ld),
              "cublasLtMatrixLayoutCreate");
    lt::OwnedLayout owner(layout);
    if (key.batch > 1) {
        auto batch = static_cast<std::int32_t>(key.batch);
        if (batch != key.batch) throw std::invalid_argument("matmul: more than 2**31 - 1 products in one batch");
        auto set = lt::functions().cublasLtMatrixLayoutSetAttribute;
        lt::check(set(layout, lt::kBatchCount, &batch, sizeof batch), "cublasLtMatrixLayoutSetAttribute");
        lt::check(set(layout, lt::kStridedBatchOffset, &batch_stride, sizeof batch_stride),
                  "cublasLtMatrixLayoutSetAttribute");
    }
    return owner.release();
}

Recipe make_recipe(const MatmulKey& key, bool new_sizes) {
    auto& call = lt::functions();
    Types types = types_of(key);
    Recipe recipe;
    lt::Desc desc = nullptr;
    lt::check(call.cublasLtMatmulDescCreate(&desc, types.compute, types.scale), "cublasLtMatmulDescCreate");
    recipe.desc = decltype(recipe.desc)(desc);
    std::int32_t first = key.trans_b ? lt::kOpT : lt::kOpN;
    std::int32_t second = key.trans_a ? lt::kOpT : lt::kOpN;
    lt::check(call.cublasLtMatmulDescSetAttribute(desc, lt::kTransA, &first, sizeof first),
              "cublasLtMatmulDescSetAttribute");
    lt::check(call.cublasLtMatmulDescSetAttribute(desc, lt::kTransB, &second, sizeof second),
              "cublasLtMatmulDescSetAttribute");
    auto layout = [&](std::int64_t rows, std::int64_t columns, std::int64_t ld, std::int64_t stride, const char* name) {
        return lt::OwnedLayout(make_layout(types.data, rows, columns, ld, key, stride, name));
    };
    recipe.a = key.trans_a ? layout(key.k, key.m, key.lda, key.batch_stride_a, "a")
                           : layout(key.m, key.k, key.lda, key.batch_stride_a, "a");
    recipe.b = key.trans_b ? layout(key.n, key.k, key.ldb, key.batch_stride_b, "b")
                           : layout(key.k, key.n, key.ldb, key.batch_stride_b, "b");
    recipe.d = layout(key.m, key.n, key.ldd, key.batch_stride_d, "d");
    recipe.c = key.has_c ? layout(key.m, key.n, key.ldc, key.batch_stride_c, "c")
                         : layout(key.m, key.n, key.ldd, key.batch_stride_d, "d");

    lt::Preference made = nullptr;
    lt::check(call.cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
    lt::OwnedPreference preference(made);
    auto prefer = [&](int attribute, auto value) {
        lt::check(call.cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
                  "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(lt::kMaxWorkspace, static_cast<std::uint64_t>(key.max_workspace));
    prefer(lt::kMinAlignA, key.align_b);
    prefer(lt::kMinAlignB, key.align_a);
    prefer(lt::kMinAlignC, key.align_c);
    prefer(lt::kMinAlignD, key.align_d);
    lt::Problem problem{desc, recipe.b.get(), recipe.a.get(), recipe.c.get(), recipe.d.get()};
    recipe.algorithm = choose_algorithm(key, problem, preference.get(), new_sizes);
    return recipe;
}

KeyCache<MatmulKey, Recipe>& recipes() {
    static auto* cache = new KeyCache<MatmulKey, Recipe>(4096);
    return *cache;
}

int tf32_state = -1;

}  // namespace

std::size_t itemsize_of(MatmulDtype dtype) {
    switch (dtype) {
        case MatmulDtype::float16:
        case MatmulDtype::bfloat16:
            return 2;
        case MatmulDtype::float32:
            return 4;
        case MatmulDtype::float64:
        case MatmulDtype::complex64:
            break;
    }
    return 8;
}

std::uint32_t alignment_of(CUdeviceptr address) {
    return address % 16 == 0 ? 16 : 1u << std::countr_zero(static_cast<std::uint64_t>(address));
}

bool tf32() {
    if (tf32_state < 0) {
        const char* value = std::getenv("MLX_ENABLE_TF32");
        tf32_state = value && *value ? std::atoi(value) != 0 : 1;
    }
    return tf32_state != 0;
}
void set_tf32(bool allowed) { tf32_state = allowed; }

Graph capture_matmul(const MatmulCall& call, bool new_sizes) {
    Recipe& recipe = recipes().get(call.key, [&] { return make_recipe(call.key, new_sizes); });
    const auto& [algo, workspace_bytes] = recipe.algorithm;
    // Scale factors are read while capturing, so they may live on this stack.
    double alpha64 = std::bit_cast<double>(call.alpha), beta64 = std::bit_cast<double>(call.beta);
    float alpha32[2] = {static_cast<float>(alpha64), 0}, beta32[2] = {static_cast<float>(beta64), 0};
    bool wide = static_cast<MatmulDtype>(call.key.dtype) == MatmulDtype::float64;
    const void* alpha = wide ? static_cast<const void*>(&alpha64) : alpha32;
    const void* beta = wide ? static_cast<const void*>(&beta64) : beta32;
    CUdeviceptr scratch = workspace_bytes ? workspace() + static_cast<CUdeviceptr>(call.workspace_offset) : 0;
    auto pointer = [](CUdeviceptr address) { return reinterpret_cast<void*>(address); };

    ++counters.captures;
    // Relaxed: a capture must not make another thread's allocation an error.
    driver.cuStreamBeginCapture(capture_stream(), CU_STREAM_CAPTURE_MODE_RELAXED);
    int status = lt::functions().cublasLtMatmul(
        lt::handle(), recipe.desc.get(), alpha, pointer(call.b), recipe.b.get(), pointer(call.a), recipe.a.get(), beta,
        pointer(call.key.has_c ? call.c : call.d), recipe.c.get(), pointer(call.d), recipe.d.get(), &algo,
        pointer(scratch), workspace_bytes, capture_stream());
    CUgraph captured = nullptr;
    CUresult ended = driver.cuStreamEndCapture.raw(capture_stream(), &captured);
    Graph graph(captured);
    lt::check(status, "cublasLtMatmul");
    if (ended != CUDA_SUCCESS) fail(ended, "cuStreamEndCapture");
    return graph;
}

const KeyCacheCounters& matmul_counters() { return recipes().counters; }
std::size_t matmul_cache_size() { return recipes().size(); }

}  // namespace mlxlite::cuda
