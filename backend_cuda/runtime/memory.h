// Device memory: a cache over cuMemAlloc, and the arena that all plans share.
//
// Memory given back is reused by the next request of its class, last in first out, while the work that used it may
// still run: the one compute stream orders the two. A loop therefore sees the same addresses again, and its graphs need
// no patch.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend_cuda/runtime/driver.h"
#include "mlxlite/graph/backend_api.h"

namespace mlxlite::cuda {

struct MemoryInfo {
    std::size_t active = 0;     // handed out, arena and workspace included
    std::size_t peak = 0;       // of active, since the start or reset_peak_memory()
    std::size_t cache = 0;      // held from the driver and not handed out
    std::size_t arena = 0;      // part of active
    std::size_t workspace = 0;  // part of active
    std::size_t limit = 0;
    std::size_t cache_limit = 0;
};

// What a request of this size really takes: multiples of 512 B up to 8 KiB, then eight steps a doubling up to 1 MiB,
// then multiples of 2 MiB. A cached large block serves requests down to 7/8 of it.
std::size_t size_class(std::size_t nbytes);

// One reference, with `destroy` returning the memory here. Zero bytes have a null pointer. Throws std::runtime_error
// when the limit or the device is exhausted, after giving the cache back and trying again.
Buffer* allocate(std::size_t nbytes);

// Memory of another library, which gets it back by `give_back(owner)` once nothing enqueued may read it.
Buffer* adopt(void* ptr, std::size_t nbytes, void* owner, void (*give_back)(void* owner));

// At least this many bytes for the launch being prepared. The address is that of last time unless it had to grow.
CUdeviceptr arena(std::size_t nbytes);
// Held while a launch is being prepared: the arena's address stays good. A second one is an error, since a library
// node's callback may run any Python code, but the plan it belongs to is half bound.
class ArenaLease {
  public:
    ArenaLease();
    ~ArenaLease();
    ArenaLease(const ArenaLease&) = delete;
    ArenaLease& operator=(const ArenaLease&) = delete;
};
// cuBLASLt's workspace, of a fixed size and for good: captured nodes hold its address.
inline constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
CUdeviceptr workspace();

MemoryInfo memory_info();
std::size_t set_memory_limit(std::size_t nbytes);  // both return the previous limit
std::size_t set_cache_limit(std::size_t nbytes);
void clear_cache();  // the arena too, unless a launch is being prepared; waits for the device
void reset_peak_memory();

// For code that may throw between allocating and handing on.
class BufferRef {
  public:
    BufferRef() = default;
    explicit BufferRef(Buffer* buffer) : buffer_(buffer) {}
    BufferRef(BufferRef&& other) noexcept : buffer_(std::exchange(other.buffer_, nullptr)) {}
    BufferRef& operator=(BufferRef&& other) noexcept {
        std::swap(buffer_, other.buffer_);
        return *this;
    }
    ~BufferRef() { mlxlite::release(buffer_); }
    Buffer* get() const { return buffer_; }
    CUdeviceptr address() const { return reinterpret_cast<CUdeviceptr>(buffer_->ptr); }
    Buffer* release() { return std::exchange(buffer_, nullptr); }
    explicit operator bool() const { return buffer_ != nullptr; }

  private:
    Buffer* buffer_ = nullptr;
};

}  // namespace mlxlite::cuda
