#include "backend_cuda/runtime/stream.h"

#include <Python.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <deque>
#include <thread>

namespace mlxlite::cuda {

namespace {

constexpr std::size_t kTickets = 256;      // events in flight; an older ticket waits for a younger event
constexpr std::size_t kSegment = 1 << 20;  // of the upload ring
constexpr std::size_t kSegments = 8;
constexpr std::size_t kSmallDownload = 1 << 20;

struct Doomed {
    std::uint64_t ticket;
    CUgraphExec exec;
    CUmodule module;
};

// Pinned memory that uploads are staged through. A segment is filled again once the copies out of it are done.
struct UploadRing {
    std::byte* memory = nullptr;
    std::size_t segment = 0;
    std::size_t used = 0;
    std::array<std::uint64_t, kSegments> tickets{};
};

CUstream compute = nullptr;
CUstream copies = nullptr;
CUstream capture = nullptr;
CUevent copy_done = nullptr;
std::array<CUevent, kTickets> events{};
std::uint64_t issued = 0;
std::atomic<std::uint64_t> completed{0};
bool uncovered = false;
UploadRing ring;
std::byte* download_staging = nullptr;
std::deque<Doomed> graveyard;

CUevent event_of(std::uint64_t ticket) {
    // The event of a ticket that fell out of the ring was recorded again since: wait for the oldest one still there.
    std::uint64_t oldest = issued >= kTickets ? issued - kTickets + 1 : 1;
    return events[std::max(ticket, oldest) % kTickets];
}

void note_completed(std::uint64_t ticket) {
    std::uint64_t seen = completed.load(std::memory_order_relaxed);
    while (seen < ticket && !completed.compare_exchange_weak(seen, ticket)) {
    }
}

// Called without the GIL.
CUresult spin(CUevent event) {
    auto start = std::chrono::steady_clock::now();
    for (;;) {
        CUresult code = driver.cuEventQuery.raw(event);
        if (code != CUDA_ERROR_NOT_READY) return code;
        if (std::chrono::steady_clock::now() - start > std::chrono::microseconds(50)) std::this_thread::yield();
    }
}

void destroy(const Doomed& doomed) {
    if (doomed.exec) driver.cuGraphExecDestroy.raw(doomed.exec);
    if (doomed.module) driver.cuModuleUnload.raw(doomed.module);
}

void destroy_later(Doomed doomed) {
    // A destructor must not throw; where no event can be recorded any more nothing is running either.
    try {
        doomed.ticket = ticket_now();
        if (!is_done(doomed.ticket)) {
            graveyard.push_back(doomed);
            return;
        }
    } catch (const std::exception&) {
    }
    destroy(doomed);
}

void* pinned(std::size_t nbytes) {
    void* memory = nullptr;
    driver.cuMemAllocHost(&memory, nbytes);
    return memory;
}

}  // namespace

void create_streams() {
    driver.cuStreamCreate(&compute, CU_STREAM_NON_BLOCKING);
    driver.cuStreamCreate(&copies, CU_STREAM_NON_BLOCKING);
    driver.cuStreamCreate(&capture, CU_STREAM_NON_BLOCKING);
    driver.cuEventCreate(&copy_done, CU_EVENT_DISABLE_TIMING);
    for (CUevent& event : events) driver.cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
}

CUstream compute_stream() { return compute; }
CUstream capture_stream() { return capture; }

void mark_enqueued() { uncovered = true; }

std::uint64_t ticket_now() {
    if (uncovered) {
        driver.cuEventRecord(events[(issued + 1) % kTickets], compute);
        ++issued;
        uncovered = false;
    }
    return issued;
}

bool is_done(std::uint64_t ticket) {
    if (ticket <= completed.load(std::memory_order_relaxed)) return true;
    CUresult code = driver.cuEventQuery.raw(event_of(ticket));
    if (code == CUDA_ERROR_NOT_READY) return false;
    if (code != CUDA_SUCCESS) fail(code, "cuEventQuery, for work launched earlier");
    note_completed(ticket);
    return true;
}

void wait_for(std::uint64_t ticket) {
    if (ticket > issued) throw std::runtime_error("wait: no such ticket");
    if (ticket <= completed.load(std::memory_order_relaxed)) return;
    CUevent event = event_of(ticket);
    CUresult code = driver.cuEventQuery.raw(event);
    if (code == CUDA_ERROR_NOT_READY) {
        Py_BEGIN_ALLOW_THREADS;
        code = spin(event);
        Py_END_ALLOW_THREADS;
    }
    if (code != CUDA_SUCCESS) fail(code, "cuEventQuery, for work launched earlier");
    note_completed(ticket);
}

void synchronize() { wait_for(ticket_now()); }

void sweep() {
    while (!graveyard.empty() && is_done(graveyard.front().ticket)) {
        destroy(graveyard.front());
        graveyard.pop_front();
    }
}

void destroy_exec_later(CUgraphExec exec) { destroy_later({0, exec, nullptr}); }
void unload_module_later(CUmodule module) { destroy_later({0, nullptr, module}); }

void copy_to_device(CUdeviceptr target, const void* source, std::size_t nbytes) {
    ++counters.uploads;
    // All sizes are staged: a large pageable source could be handed to the driver, but if somebody has pinned it the
    // driver would read it after we return.
    if (!ring.memory) ring.memory = static_cast<std::byte*>(pinned(kSegment * kSegments));
    auto* from = static_cast<const std::byte*>(source);
    while (nbytes) {
        if (ring.used == kSegment) {
            ring.tickets[ring.segment] = ticket_now();
            ring.segment = (ring.segment + 1) % kSegments;
            ring.used = 0;
            if (std::uint64_t ticket = ring.tickets[ring.segment]; !is_done(ticket)) {
                // The GIL stays held: another upload must not enter this half-open segment.
                driver.cuEventSynchronize(event_of(ticket));
                note_completed(ticket);
            }
        }
        std::size_t piece = std::min(nbytes, kSegment - ring.used);
        std::byte* staged = ring.memory + ring.segment * kSegment + ring.used;
        std::memcpy(staged, from, piece);
        driver.cuMemcpyHtoDAsync(target, staged, piece, compute);
        mark_enqueued();
        ring.used = std::min(kSegment, ring.used + (piece + 63) / 64 * 64);
        from += piece;
        target += piece;
        nbytes -= piece;
    }
}

void copy_to_host(void* target, CUdeviceptr source, std::size_t nbytes, std::uint64_t ticket) {
    ++counters.downloads;
    // Uploaded arrays carry ticket 0: the copy that made them may be among what no ticket covers yet.
    wait_for(ticket ? ticket : ticket_now());
    if (nbytes <= kSmallDownload) {
        // Short, so the GIL stays held and keeps the staging memory ours.
        if (!download_staging) download_staging = static_cast<std::byte*>(pinned(kSmallDownload));
        driver.cuMemcpyDtoHAsync(download_staging, source, nbytes, copies);
        driver.cuEventRecord(copy_done, copies);
        if (CUresult code = spin(copy_done); code != CUDA_SUCCESS) fail(code, "cuMemcpyDtoHAsync");
        std::memcpy(target, download_staging, nbytes);
        return;
    }
    CUresult code;
    Py_BEGIN_ALLOW_THREADS;
    code = driver.cuMemcpyDtoHAsync.raw(target, source, nbytes, copies);
    if (code == CUDA_SUCCESS) code = driver.cuStreamSynchronize.raw(copies);
    Py_END_ALLOW_THREADS;
    if (code != CUDA_SUCCESS) fail(code, "cuMemcpyDtoHAsync");
}

}  // namespace mlxlite::cuda
