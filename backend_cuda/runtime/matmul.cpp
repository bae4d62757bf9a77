#include "backend_cuda/runtime/matmul.h"

#include <dlfcn.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <string>

#include "backend_cuda/runtime/cublaslt.h"
#include "backend_cuda/runtime/memory.h"
#include "backend_cuda/runtime/stream.h"

namespace mlxlite::cuda {

namespace {

struct Library {
#define MLXLITE_DECLARE(name, parameters) int(*name) parameters = nullptr;
    struct Functions {
        using Handle = lt::Handle;
        using Desc = lt::Desc;
        using Layout = lt::Layout;
        using Preference = lt::Preference;
        using Heuristic = lt::Heuristic;
        using Algo = lt::Algo;
        MLXLITE_CUBLASLT_FUNCTIONS(MLXLITE_DECLARE)
    } call;
#undef MLXLITE_DECLARE
    std::size_t (*version)() = nullptr;
    lt::Handle handle = nullptr;
};

std::string chosen_path;
Library library;

const char* status_name(int status) {
    switch (status) {
        case 1:
            return "CUBLAS_STATUS_NOT_INITIALIZED";
        case 3:
            return "CUBLAS_STATUS_ALLOC_FAILED";
        case 7:
            return "CUBLAS_STATUS_INVALID_VALUE";
        case 8:
            return "CUBLAS_STATUS_ARCH_MISMATCH";
        case 13:
            return "CUBLAS_STATUS_EXECUTION_FAILED";
        case 14:
            return "CUBLAS_STATUS_INTERNAL_ERROR";
        case 15:
            return "CUBLAS_STATUS_NOT_SUPPORTED";
        default:
            return "an unknown status";
    }
}

void check(int status, const char* function) {
    if (status == 0) return;
    throw Error(CUDA_ERROR_UNKNOWN,
                std::string(function) + ": " + status_name(status) + " (" + std::to_string(status) + ")");
}

Library& loaded() {
    if (library.handle) return library;
    void* opened = nullptr;
    std::string tried;
    std::string names[] = {chosen_path, "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    for (const std::string& name : names) {
        if (name.empty() || opened) continue;
        opened = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!opened) tried += " " + name;
    }
    if (!opened)
        throw std::runtime_error("matmul needs cuBLASLt; tried" + tried + ". Install mlxlite[cuda] (nvidia-cublas)");
#define MLXLITE_LOAD(name, parameters)                                                       \
    library.call.name = reinterpret_cast<decltype(library.call.name)>(dlsym(opened, #name)); \
    if (!library.call.name) throw std::runtime_error("cuBLASLt lacks " #name "; it is too old");
    MLXLITE_CUBLASLT_FUNCTIONS(MLXLITE_LOAD)
#undef MLXLITE_LOAD
    library.version = reinterpret_cast<std::size_t (*)()>(dlsym(opened, "cublasLtGetVersion"));
    check(library.call.cublasLtCreate(&library.handle), "cublasLtCreate");
    return library;
}

void destroy_desc(lt::Desc desc) { library.call.cublasLtMatmulDescDestroy(desc); }
void destroy_layout(lt::Layout layout) { library.call.cublasLtMatrixLayoutDestroy(layout); }
void destroy_preference(lt::Preference preference) { library.call.cublasLtMatmulPreferenceDestroy(preference); }

// What a key stands for. The operands are swapped: a row-major matrix is the transpose of a column-major one, and
// d^T = b^T a^T, so nothing is ever transposed in memory.
struct Recipe {
    Handle<lt::Desc, destroy_desc> desc;
    Handle<lt::Layout, destroy_layout> a, b, c, d;
    lt::Algo algo{};
    std::size_t workspace = 0;
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
    check(loaded().call.cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(columns),
                                                   static_cast<std::uint64_t>(rows), ld),
          "cublasLtMatrixLayoutCreate");
    Handle<lt::Layout, destroy_layout> owner(layout);
    if (key.batch > 1) {
        auto batch = static_cast<std::int32_t>(key.batch);
        if (batch != key.batch) throw std::invalid_argument("matmul: more than 2**31 - 1 products in one batch");
        auto set = loaded().call.cublasLtMatrixLayoutSetAttribute;
        check(set(layout, lt::kBatchCount, &batch, sizeof batch), "cublasLtMatrixLayoutSetAttribute");
        check(set(layout, lt::kStridedBatchOffset, &batch_stride, sizeof batch_stride),
              "cublasLtMatrixLayoutSetAttribute");
    }
    return owner.release();
}

Recipe make_recipe(const MatmulKey& key) {
    auto& call = loaded().call;
    Types types = types_of(key);
    Recipe recipe;
    lt::Desc desc = nullptr;
    check(call.cublasLtMatmulDescCreate(&desc, types.compute, types.scale), "cublasLtMatmulDescCreate");
    recipe.desc = decltype(recipe.desc)(desc);
    std::int32_t first = key.trans_b ? lt::kOpT : lt::kOpN;
    std::int32_t second = key.trans_a ? lt::kOpT : lt::kOpN;
    check(call.cublasLtMatmulDescSetAttribute(desc, lt::kTransA, &first, sizeof first),
          "cublasLtMatmulDescSetAttribute");
    check(call.cublasLtMatmulDescSetAttribute(desc, lt::kTransB, &second, sizeof second),
          "cublasLtMatmulDescSetAttribute");
    auto layout = [&](std::int64_t rows, std::int64_t columns, std::int64_t ld, std::int64_t stride, const char* name) {
        return Handle<lt::Layout, destroy_layout>(make_layout(types.data, rows, columns, ld, key, stride, name));
    };
    recipe.a = key.trans_a ? layout(key.k, key.m, key.lda, key.batch_stride_a, "a")
                           : layout(key.m, key.k, key.lda, key.batch_stride_a, "a");
    recipe.b = key.trans_b ? layout(key.n, key.k, key.ldb, key.batch_stride_b, "b")
                           : layout(key.k, key.n, key.ldb, key.batch_stride_b, "b");
    recipe.d = layout(key.m, key.n, key.ldd, key.batch_stride_d, "d");
    recipe.c = key.has_c ? layout(key.m, key.n, key.ldc, key.batch_stride_c, "c")
                         : layout(key.m, key.n, key.ldd, key.batch_stride_d, "d");

    lt::Preference made = nullptr;
    check(call.cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
    Handle<lt::Preference, destroy_preference> preference(made);
    auto prefer = [&](int attribute, auto value) {
        check(call.cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
              "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(lt::kMaxWorkspace, static_cast<std::uint64_t>(key.max_workspace));
    prefer(lt::kMinAlignA, key.align_b);
    prefer(lt::kMinAlignB, key.align_a);
    prefer(lt::kMinAlignC, key.align_c);
    prefer(lt::kMinAlignD, key.align_d);
    lt::Heuristic best{};
    int found = 0;
    check(call.cublasLtMatmulAlgoGetHeuristic(loaded().handle, desc, recipe.b.get(), recipe.a.get(), recipe.c.get(),
                                              recipe.d.get(), preference.get(), 1, &best, &found),
          "cublasLtMatmulAlgoGetHeuristic");
    if (found == 0) throw Error(CUDA_ERROR_NOT_SUPPORTED, "cuBLASLt has no algorithm for this product");
    recipe.algo = best.algo;
    recipe.workspace = best.workspace;
    return recipe;
}

KeyCache<MatmulKey, Recipe>& recipes() {
    static auto* cache = new KeyCache<MatmulKey, Recipe>(4096);
    return *cache;
}

int tf32_state = -1;

}  // namespace

std::uint32_t alignment_of(CUdeviceptr address) {
    return address % 16 == 0 ? 16 : 1u << std::countr_zero(static_cast<std::uint64_t>(address));
}

void set_cublaslt_path(const char* path) {
    if (library.handle) throw std::runtime_error("cuBLASLt is already loaded");
    chosen_path = path;
}

bool tf32() {
    if (tf32_state < 0) {
        const char* value = std::getenv("MLX_ENABLE_TF32");
        tf32_state = value && *value ? std::atoi(value) != 0 : 1;
    }
    return tf32_state != 0;
}
void set_tf32(bool allowed) { tf32_state = allowed; }

Graph capture_matmul(const MatmulCall& call) {
    Recipe& recipe = recipes().get(call.key, [&] { return make_recipe(call.key); });
    // Scale factors are read while capturing, so they may live on this stack.
    double alpha64 = std::bit_cast<double>(call.alpha), beta64 = std::bit_cast<double>(call.beta);
    float alpha32[2] = {static_cast<float>(alpha64), 0}, beta32[2] = {static_cast<float>(beta64), 0};
    bool wide = static_cast<MatmulDtype>(call.key.dtype) == MatmulDtype::float64;
    const void* alpha = wide ? static_cast<const void*>(&alpha64) : alpha32;
    const void* beta = wide ? static_cast<const void*>(&beta64) : beta32;
    CUdeviceptr scratch = recipe.workspace ? workspace() + static_cast<CUdeviceptr>(call.workspace_offset) : 0;
    auto pointer = [](CUdeviceptr address) { return reinterpret_cast<void*>(address); };

    ++counters.captures;
    // Relaxed: a capture must not make another thread's allocation an error.
    driver.cuStreamBeginCapture(capture_stream(), CU_STREAM_CAPTURE_MODE_RELAXED);
    int status = loaded().call.cublasLtMatmul(
        loaded().handle, recipe.desc.get(), alpha, pointer(call.b), recipe.b.get(), pointer(call.a), recipe.a.get(),
        beta, pointer(call.key.has_c ? call.c : call.d), recipe.c.get(), pointer(call.d), recipe.d.get(), &recipe.algo,
        pointer(scratch), recipe.workspace, capture_stream());
    CUgraph captured = nullptr;
    CUresult ended = driver.cuStreamEndCapture.raw(capture_stream(), &captured);
    Graph graph(captured);
    check(status, "cublasLtMatmul");
    if (ended != CUDA_SUCCESS) fail(ended, "cuStreamEndCapture");
    return graph;
}

const KeyCacheCounters& matmul_counters() { return recipes().counters; }
std::size_t matmul_cache_size() { return recipes().size(); }
std::int64_t cublaslt_version() { return library.version ? static_cast<std::int64_t>(library.version()) : 0; }

}  // namespace mlxlite::cuda
