// The contract between the lazy graph and a backend. Plain data and function pointers: a backend includes this header
// and nothing else of the graph's, and hands the graph a BackendApi inside a capsule named kBackendCapsule.
#pragma once
#include <cstddef>
#include <cstdint>

struct _object;

namespace mlxlite {

inline constexpr int kBackendAbi = 3;
inline constexpr int kMaxRank = 12;
inline constexpr const char* kBackendCapsule = "mlxlite.backend";

enum class Device : std::uint8_t { cpu = 0, gpu = 1 };

// A block of memory with an intrusive count. Counts change only under the GIL.
struct Buffer {
    void* ptr = nullptr;
    std::size_t nbytes = 0;
    std::uint32_t refs = 1;
    Device device = Device::cpu;
    bool is_foreign = false;             // another library's memory, which is never written
    void (*destroy)(Buffer*) = nullptr;  // called when refs reaches 0; frees the memory and the struct
    void* owner = nullptr;               // the backend's own bookkeeping
};

inline void retain(Buffer* b) {
    if (b) ++b->refs;
}
inline void release(Buffer* b) {
    if (b && --b->refs == 0) b->destroy(b);
}

// A Python number that entered the graph, or a floating-point attribute of an op. Which member holds the value follows
// from the dtype: bool and integers use i, real floats f, complex64 c.
union Scalar {
    std::int64_t i;
    double f;
    struct {
        float re, im;
    } c;
};
static_assert(sizeof(Scalar) == 8);

// Where an evaluated output lies. `buffer` is a new reference.
struct OutputBinding {
    Buffer* buffer = nullptr;
    std::int64_t offset = 0;               // bytes from buffer->ptr
    std::int64_t strides[kMaxRank] = {0};  // in elements
};

// One evaluation of one plan. Arrays are owned by the caller and valid during the call only.
struct LaunchRequest {
    const std::int64_t* sizes;  // the tape's sizes, in tape order
    std::size_t n_sizes;
    const Scalar* scalars;  // the tape's scalars, in tape order
    std::size_t n_scalars;
    Buffer* const* leaves;             // one per leaf, in tape order
    const std::int64_t* leaf_offsets;  // bytes from leaves[i]->ptr
    std::size_t n_leaves;
    OutputBinding* outputs;  // one per output, in tape order; filled by the backend
    std::size_t n_outputs;
    bool is_awaited;       // wait() follows at once
    std::uint64_t ticket;  // filled by the backend: what wait() takes to wait for this evaluation
};

// Functions return 0, or -1 with a Python exception set. All are called with the GIL held; wait and synchronize may
// drop it.
struct BackendApi {
    int abi;
    int (*launch)(_object* plan, LaunchRequest* request);
    Buffer* (*upload)(const void* source, std::size_t nbytes);  // nullptr on error
    int (*download)(void* target, const Buffer* source, std::size_t offset, std::size_t nbytes, std::uint64_t ticket);
    int (*wait)(std::uint64_t ticket);
    int (*synchronize)();

    // Memory shared with other libraries on the same device. Streams are handles of the driver's; 1 is its legacy
    // default stream, 2 that of the thread.
    int (*device_id)();                     // the driver's number of the device
    int (*stream)(std::uintptr_t* stream);  // of the backend's own work
    // What is enqueued on `stream` from now on waits for the backend's work so far; after take_back(), the other way
    // round. 0 for a stream that is not known, in take_back() only, which cannot fail.
    int (*lend)(std::uintptr_t stream);
    void (*take_back)(std::uintptr_t stream);
    // Calls `give_back(owner)` when nobody holds the buffer and no work may read it any more. nullptr on error.
    Buffer* (*adopt)(void* ptr, std::size_t nbytes, void* owner, void (*give_back)(void* owner));
};

}  // namespace mlxlite
