// The CUDA driver, opened at run time: a table of its functions, one error type, one device.
//
// Only the types of cuda.h are used; nothing of CUDA's is linked, so the extension imports on a machine with no driver.
#pragma once
#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace mlxlite::cuda {

// What the runtime did, for tests and for people who wonder why something is slow.
struct Counters {
    std::atomic<std::uint64_t> driver_calls{0};  // also counted by wait(), which runs without the GIL
    std::uint64_t launches = 0;                  // cuGraphLaunch
    std::uint64_t evaluations = 0;               // plans run, those with nothing to launch included
    std::uint64_t register_evaluations = 0;
    std::uint64_t signature_hits = 0;  // an executable was launched as it was
    std::uint64_t templates_built = 0;
    std::uint64_t execs_built = 0;
    std::uint64_t execs_rebuilt = 0;  // of those built, because the driver refused a patch
    std::uint64_t execs_evicted = 0;
    std::uint64_t nodes_patched = 0;
    std::uint64_t child_graphs_patched = 0;
    std::uint64_t plans_promoted = 0;  // whose kernels' arguments were moved to memory: arguments.cpp
    std::uint64_t nodes_promoted = 0;
    std::uint64_t captures = 0;
    std::uint64_t library_calls = 0;
    std::uint64_t uploads = 0;
    std::uint64_t downloads = 0;
    std::uint64_t device_allocations = 0;  // cuMemAlloc
    std::uint64_t device_frees = 0;
};
extern Counters counters;

class Error : public std::runtime_error {
  public:
    Error(CUresult code, const std::string& message) : std::runtime_error(message), code(code) {}
    CUresult code;
};

std::string describe(CUresult code);  // "CUDA_ERROR_X (what it means)"
[[noreturn]] void fail(CUresult code, const char* function);

// Adds what was being done to an error on its way out.
template <class Function>
auto labelled(const std::string& label, Function&& function) -> decltype(function()) {
    try {
        return function();
    } catch (const Error& error) {
        throw Error(error.code, std::string(error.what()) + " [" + label + "]");
    }
}

// One function of the driver: call it and errors are thrown; call raw() and the code is yours.
template <class Signature>
struct Entry;
template <class... P>
struct Entry<CUresult(P...)> {
    const char* name;
    CUresult (*address)(P...) = nullptr;

    explicit operator bool() const { return address != nullptr; }
    CUresult raw(P... arguments) const {
        counters.driver_calls.fetch_add(1, std::memory_order_relaxed);
        return address(arguments...);
    }
    void operator()(P... arguments) const {
        if (CUresult code = raw(arguments...); code != CUDA_SUCCESS) fail(code, name);
    }
};

// cuda.h renames some of these to newer versions (cuMemAlloc is cuMemAlloc_v2): the table follows it.
#define MLXLITE_DRIVER_FUNCTIONS(X)       \
    X(cuInit)                             \
    X(cuDriverGetVersion)                 \
    X(cuGetErrorName)                     \
    X(cuGetErrorString)                   \
    X(cuDeviceGet)                        \
    X(cuDeviceGetCount)                   \
    X(cuDeviceGetName)                    \
    X(cuDeviceGetAttribute)               \
    X(cuDeviceTotalMem)                   \
    X(cuDevicePrimaryCtxRetain)           \
    X(cuCtxSetCurrent)                    \
    X(cuCtxSynchronize)                   \
    X(cuModuleLoadData)                   \
    X(cuModuleUnload)                     \
    X(cuModuleGetFunction)                \
    X(cuFuncGetAttribute)                 \
    X(cuFuncSetAttribute)                 \
    X(cuMemAlloc)                         \
    X(cuMemFree)                          \
    X(cuMemGetInfo)                       \
    X(cuMemAllocHost)                     \
    X(cuMemcpyHtoDAsync)                  \
    X(cuMemcpyDtoH)                       \
    X(cuMemcpyDtoHAsync)                  \
    X(cuMemcpyDtoDAsync)                  \
    X(cuStreamCreate)                     \
    X(cuStreamSynchronize)                \
    X(cuStreamQuery)                      \
    X(cuStreamWaitEvent)                  \
    X(cuStreamBeginCapture)               \
    X(cuStreamEndCapture)                 \
    X(cuEventCreate)                      \
    X(cuEventRecord)                      \
    X(cuEventQuery)                       \
    X(cuEventSynchronize)                 \
    X(cuEventElapsedTime)                 \
    X(cuGraphCreate)                      \
    X(cuGraphDestroy)                     \
    X(cuGraphAddKernelNode)               \
    X(cuGraphAddChildGraphNode)           \
    X(cuGraphInstantiateWithFlags)        \
    X(cuGraphExecDestroy)                 \
    X(cuGraphGetNodes)                    \
    X(cuGraphNodeGetType)                 \
    X(cuGraphKernelNodeGetParams)         \
    X(cuGraphKernelNodeGetAttribute)      \
    X(cuGraphChildGraphNodeGetGraph)      \
    X(cuGraphExecKernelNodeSetParams)     \
    X(cuGraphExecChildGraphNodeSetParams) \
    X(cuGraphLaunch)

// Absent from older drivers; what needs them is left out there.
#define MLXLITE_OPTIONAL_DRIVER_FUNCTIONS(X) \
    X(cuGraphAddDependencies)                \
    X(cuMemsetD8Async)                       \
    X(cuStreamWriteValue64)

struct Driver {
#define MLXLITE_DECLARE(function) Entry<std::remove_pointer_t<decltype(&::function)>> function{#function};
    MLXLITE_DRIVER_FUNCTIONS(MLXLITE_DECLARE)
    MLXLITE_OPTIONAL_DRIVER_FUNCTIONS(MLXLITE_DECLARE)
#undef MLXLITE_DECLARE
};
extern Driver driver;

inline constexpr int kDevice = 0;  // the one in use, of those that are visible

struct DeviceInfo {
    std::string name;
    int major = 0, minor = 0;
    int multiprocessors = 0;
    std::int64_t l2_bytes = 0;
    std::int64_t total_memory = 0;
    int driver_version = 0;
    int max_shared_per_block = 0;  // with opt-in
    int max_threads_per_multiprocessor = 0;
    double memory_bandwidth = 0;  // bytes a second, by the memory's clock and width; 0 if the driver does not tell
};

// Opens the driver (MLXLITE_CUDA_DRIVER names another library, for tests) and takes the first device's primary context.
// Throws std::runtime_error saying what is missing. Does nothing the second time.
void initialize();
bool initialized();
void require_initialized();
// The context belongs to a thread; every entry from Python passes through here.
void make_current();
const DeviceInfo& device_info();

// Owner of a driver handle. Errors of the destroying call are dropped: there is nobody left to tell, and at exit the
// driver may be gone already.
template <class T, void (*Destroy)(T)>
class Handle {
  public:
    Handle() = default;
    explicit Handle(T value) : value_(value) {}
    Handle(Handle&& other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
    Handle& operator=(Handle&& other) noexcept {
        std::swap(value_, other.value_);
        return *this;
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() {
        if (value_) Destroy(value_);
    }
    T get() const { return value_; }
    T release() { return std::exchange(value_, nullptr); }
    explicit operator bool() const { return value_ != nullptr; }

  private:
    T value_ = nullptr;
};

inline void destroy_graph(CUgraph graph) { driver.cuGraphDestroy.raw(graph); }
// Work in flight may still use these: they are destroyed once everything launched so far is done (stream.cpp).
void destroy_exec_later(CUgraphExec exec);
void unload_module_later(CUmodule module);

using Graph = Handle<CUgraph, destroy_graph>;
using GraphExec = Handle<CUgraphExec, destroy_exec_later>;
using ModuleHandle = Handle<CUmodule, unload_module_later>;

}  // namespace mlxlite::cuda
