#include "backend_cuda/runtime/cublaslt.h"

#include <dlfcn.h>

#include <string>

namespace mlxlite::cuda::lt {

namespace {

std::string chosen_path;
Functions loaded;
std::size_t (*get_version)() = nullptr;
Handle the_handle = nullptr;

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

void load() {
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
#define MLXLITE_LOAD(name, parameters)                                           \
    loaded.name = reinterpret_cast<decltype(loaded.name)>(dlsym(opened, #name)); \
    if (!loaded.name) throw std::runtime_error("cuBLASLt lacks " #name "; it is too old");
    MLXLITE_CUBLASLT_FUNCTIONS(MLXLITE_LOAD)
#undef MLXLITE_LOAD
    get_version = reinterpret_cast<std::size_t (*)()>(dlsym(opened, "cublasLtGetVersion"));
    check(loaded.cublasLtCreate(&the_handle), "cublasLtCreate");
}

}  // namespace

void check(int status, const char* function) {
    if (status == 0) return;
    throw Error(CUDA_ERROR_UNKNOWN,
                std::string(function) + ": " + status_name(status) + " (" + std::to_string(status) + ")");
}

void set_path(const char* path) {
    if (the_handle) throw std::runtime_error("cuBLASLt is already loaded");
    chosen_path = path;
}

const Functions& functions() {
    if (!the_handle) load();
    return loaded;
}

Handle handle() {
    if (!the_handle) load();
    return the_handle;
}

std::int64_t version() { return get_version ? static_cast<std::int64_t>(get_version()) : 0; }

}  // namespace mlxlite::cuda::lt
