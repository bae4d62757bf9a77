#include "backend_cuda/runtime/memory.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <map>
#include <memory>
#include <vector>

#include "backend_cuda/runtime/stream.h"

namespace mlxlite::cuda {

namespace {

constexpr std::size_t kSmallStep = 512;
constexpr std::size_t kSmallLinear = 8 << 10;
constexpr std::size_t kSmallMax = 1 << 20;
constexpr std::size_t kLargeStep = 2 << 20;  // also the size of a slab that small blocks are cut from

std::size_t round_up(std::size_t n, std::size_t step) { return (n + step - 1) / step * step; }

struct Slab {
    CUdeviceptr base = 0;
    std::size_t used = 0;  // cut so far
    std::size_t live = 0;  // blocks handed out
};

struct Block {
    CUdeviceptr address = 0;
    std::size_t size = 0;
    Slab* slab = nullptr;  // nullptr: a large block, from the driver as it is
};

class Pool {
  public:
    Block take(std::size_t nbytes) {
        std::size_t size = size_class(nbytes);
        Block block;
        if (!(size <= kSmallMax ? take_small(size, &block) : take_large(size, &block))) block = make(size, nbytes);
        active_ += block.size;
        peak_ = std::max(peak_, active_);
        if (block.slab) ++block.slab->live;
        return block;
    }
    void give(const Block& block) {
        active_ -= block.size;
        if (block.slab) {
            --block.slab->live;
            small_[block.size].push_back(block);
        } else {
            large_[block.size].push_back(block);
            if (cached() > cache_limit) trim(cache_limit);
        }
    }

    // Gives memory back to the driver until no more than `bound` is cached.
    void trim(std::size_t bound) {
        if (cached() <= bound) return;
        while (cached() > bound && !large_.empty()) {
            auto last = std::prev(large_.end());
            std::size_t size = last->first;
            CUdeviceptr address = last->second.back().address;
            last->second.pop_back();
            if (last->second.empty()) large_.erase(last);
            free(address, size);
        }
        for (std::size_t i = slabs_.size(); i-- > 0 && cached() > bound;)
            if (slabs_[i]->live == 0) drop_slab(i);
    }

    std::size_t active() const { return active_; }
    std::size_t peak() const { return peak_; }
    std::size_t cached() const { return reserved_ - active_; }
    void reset_peak() { peak_ = active_; }
    std::size_t limit() {
        if (!limit_) limit_ = static_cast<std::size_t>(device_info().total_memory) / 20 * 19;
        return limit_;
    }
    void set_limit(std::size_t nbytes) { limit_ = nbytes; }
    std::size_t cache_limit = SIZE_MAX;

  private:
    bool take_small(std::size_t size, Block* block) {
        auto& free_blocks = small_[size];
        if (!free_blocks.empty()) {
            *block = free_blocks.back();
            free_blocks.pop_back();
            return true;
        }
        for (auto slab = slabs_.rbegin(); slab != slabs_.rend(); ++slab)
            if (kLargeStep - (*slab)->used >= size) {
                *block = cut(slab->get(), size);
                return true;
            }
        return false;
    }
    bool take_large(std::size_t size, Block* block) {
        auto found = large_.lower_bound(size);
        if (found == large_.end() || found->first - size > found->first / 8) return false;
        *block = found->second.back();
        found->second.pop_back();
        if (found->second.empty()) large_.erase(found);
        return true;
    }
    static Block cut(Slab* slab, std::size_t size) {
        Block block{slab->base + slab->used, size, slab};
        slab->used += size;
        return block;
    }
    Block make(std::size_t size, std::size_t requested) {
        std::size_t from_driver = size <= kSmallMax ? kLargeStep : size;
        if (reserved_ + from_driver > limit()) {
            std::size_t excess = reserved_ + from_driver - limit();
            trim(cached() > excess ? cached() - excess : 0);
        }
        if (reserved_ + from_driver > limit()) throw exhausted(requested, "the memory limit");
        CUdeviceptr address = 0;
        CUresult code = driver.cuMemAlloc.raw(&address, from_driver);
        if (code == CUDA_ERROR_OUT_OF_MEMORY) {
            synchronize();
            sweep();
            trim(0);
            code = driver.cuMemAlloc.raw(&address, from_driver);
        }
        if (code == CUDA_ERROR_OUT_OF_MEMORY) throw exhausted(requested, "the device's memory");
        if (code != CUDA_SUCCESS) fail(code, "cuMemAlloc");
        ++counters.device_allocations;
        reserved_ += from_driver;
        if (size > kSmallMax) return {address, size, nullptr};
        slabs_.push_back(std::make_unique<Slab>(Slab{address}));
        return cut(slabs_.back().get(), size);
    }
    std::runtime_error exhausted(std::size_t requested, const char* what) {
        auto text = [](std::size_t n) { return std::to_string(n); };
        return std::runtime_error("out of memory: " + text(requested) + " bytes were requested, " + text(active_) +
                                  " are in use and " + text(cached()) + " cached of a limit of " + text(limit()) +
                                  "; " + what +
                                  " does not allow more. Free arrays, evaluate in smaller parts, or raise "
                                  "mx.set_memory_limit");
    }
    void free(CUdeviceptr address, std::size_t size) {
        // cuMemFree waits for the device, so nothing in flight loses its memory.
        driver.cuMemFree.raw(address);
        ++counters.device_frees;
        reserved_ -= size;
    }
    void drop_slab(std::size_t index) {
        Slab* slab = slabs_[index].get();
        for (auto& [size, blocks] : small_) std::erase_if(blocks, [&](const Block& b) { return b.slab == slab; });
        free(slab->base, kLargeStep);
        slabs_.erase(slabs_.begin() + static_cast<std::ptrdiff_t>(index));
    }

    std::size_t active_ = 0, peak_ = 0, reserved_ = 0, limit_ = 0;
    std::map<std::size_t, std::vector<Block>> small_, large_;
    std::vector<std::unique_ptr<Slab>> slabs_;
};

// Never destroyed: buffers may outlive every other static.
Pool& pool() {
    static auto* the_pool = new Pool;
    return *the_pool;
}
Block arena_block;
Block workspace_block;
bool leased = false;

struct PooledBuffer : Buffer {
    Block block;
};

struct AdoptedBuffer : Buffer {
    void (*give_back)(void* owner);
};

void return_to_owner(Buffer* buffer) {
    auto* adopted = static_cast<AdoptedBuffer*>(buffer);
    destroy_later(adopted->give_back, adopted->owner);
    delete adopted;
}

void give_back(Buffer* buffer) {
    auto* pooled = static_cast<PooledBuffer*>(buffer);
    if (pooled->block.size) pool().give(pooled->block);
    delete pooled;
}

}  // namespace

std::size_t size_class(std::size_t nbytes) {
    if (nbytes == 0) return 0;
    if (nbytes <= kSmallLinear) return round_up(nbytes, kSmallStep);
    if (nbytes <= kSmallMax) return round_up(nbytes, std::bit_floor(nbytes - 1) / 8);
    if (nbytes > SIZE_MAX - kLargeStep) throw std::runtime_error("out of memory: a size overflows");
    return round_up(nbytes, kLargeStep);
}

Buffer* allocate(std::size_t nbytes) {
    auto pooled = std::make_unique<PooledBuffer>();
    if (nbytes) pooled->block = pool().take(nbytes);
    pooled->ptr = reinterpret_cast<void*>(pooled->block.address);
    pooled->nbytes = nbytes;
    pooled->device = Device::gpu;
    pooled->destroy = give_back;
    return pooled.release();
}

Buffer* adopt(void* ptr, std::size_t nbytes, void* owner, void (*give_back)(void* owner)) {
    auto* adopted = new AdoptedBuffer;
    adopted->ptr = ptr;
    adopted->nbytes = nbytes;
    adopted->device = Device::gpu;
    adopted->is_foreign = true;
    adopted->destroy = return_to_owner;
    adopted->owner = owner;
    adopted->give_back = give_back;
    mark_enqueued();  // its owner may have made our stream wait for what writes it
    return adopted;
}

ArenaLease::ArenaLease() {
    if (leased)
        throw std::runtime_error("a library node's callback, run while a plan is launched, must not evaluate arrays");
    leased = true;
}
ArenaLease::~ArenaLease() { leased = false; }

CUdeviceptr arena(std::size_t nbytes) {
    if (nbytes > arena_block.size) {
        // The old one goes first, so that growing needs no room for both.
        if (arena_block.size) pool().give(std::exchange(arena_block, Block{}));
        arena_block = pool().take(std::max(nbytes, kSmallMax + 1));
    }
    return arena_block.address;
}

CUdeviceptr workspace() {
    if (!workspace_block.size) workspace_block = pool().take(kWorkspaceBytes);
    return workspace_block.address;
}

MemoryInfo memory_info() {
    require_initialized();
    Pool& p = pool();
    return {p.active(), p.peak(), p.cached(), arena_block.size, workspace_block.size, p.limit(), p.cache_limit};
}

std::size_t set_memory_limit(std::size_t nbytes) {
    require_initialized();
    std::size_t previous = pool().limit();
    pool().set_limit(nbytes);
    return previous;
}

std::size_t set_cache_limit(std::size_t nbytes) {
    std::size_t previous = std::exchange(pool().cache_limit, nbytes);
    if (initialized()) pool().trim(nbytes);
    return previous;
}

void clear_cache() {
    if (!initialized()) return;
    synchronize();
    sweep();
    if (arena_block.size && !leased) pool().give(std::exchange(arena_block, Block{}));
    pool().trim(0);
}

void reset_peak_memory() { pool().reset_peak(); }

}  // namespace mlxlite::cuda
