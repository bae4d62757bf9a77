#include "backend_cuda/runtime/stream.h"

#include <Python.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>

namespace mlxlite::cuda {

namespace {

constexpr std::size_t kSegment = 1 << 20;  // of the upload ring
constexpr std::size_t kSegments = 8;
constexpr std::size_t kSmallDownload = 1 << 20;

struct Doomed {
    std::uint64_t ticket;
    void (*destroy)(void* object);
    void* object;
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
UploadRing ring;
std::byte* download_staging = nullptr;
CUevent handover = nullptr;  // recorded on one stream and waited for by another, within one call
std::deque<Doomed> graveyard;

// The driver keeps what an event stood for when a stream was told to wait for it.
void order(CUstream before, CUstream after) {
    if (!handover) driver.cuEventCreate(&handover, CU_EVENT_DISABLE_TIMING);
    driver.cuEventRecord(handover, before);
    driver.cuStreamWaitEvent(after, handover, 0);
}

void* pinned(std::size_t nbytes) {
    void* memory = nullptr;
    driver.cuMemAllocHost(&memory, nbytes);
    return memory;
}

}  // namespace

void create_streams(bool tickets_by_word) {
    driver.cuStreamCreate(&compute, CU_STREAM_NON_BLOCKING);
    driver.cuStreamCreate(&copies, CU_STREAM_NON_BLOCKING);
    driver.cuStreamCreate(&capture, CU_STREAM_NON_BLOCKING);
    create_tickets(compute, tickets_by_word);
}

CUstream compute_stream() { return compute; }
CUstream capture_stream() { return capture; }

void synchronize() { wait_for(ticket_now()); }

void sweep() {
    while (!graveyard.empty() && is_done(graveyard.front().ticket)) {
        Doomed doomed = graveyard.front();
        graveyard.pop_front();
        doomed.destroy(doomed.object);
    }
}

void destroy_later(void (*destroy)(void*), void* object) {
    // Where no ticket can be made any more nothing is running either.
    try {
        std::uint64_t ticket = ticket_now(true);
        if (!is_done(ticket)) {
            graveyard.push_back({ticket, destroy, object});
            return;
        }
    } catch (const std::exception&) {
    }
    destroy(object);
}

void destroy_exec_later(CUgraphExec exec) {
    destroy_later([](void* object) { driver.cuGraphExecDestroy.raw(static_cast<CUgraphExec>(object)); }, exec);
}
void unload_module_later(CUmodule module) {
    destroy_later([](void* object) { driver.cuModuleUnload.raw(static_cast<CUmodule>(object)); }, module);
}

void lend_to(CUstream other) { order(compute, other); }

void take_back_from(CUstream other) {
    if (other != CU_STREAM_LEGACY) {
        // Since it was named its owner may have destroyed it, and then it must not be passed to the driver; and the
        // default stream of a thread is another one on this thread.
        CUresult code;
        Py_BEGIN_ALLOW_THREADS;  // what is waited for may need the GIL: a callback of Python's on the host
        code = driver.cuCtxSynchronize.raw();
        Py_END_ALLOW_THREADS;
        if (code != CUDA_SUCCESS) fail(code, "cuCtxSynchronize");
        return;
    }
    order(other, compute);
    mark_enqueued();
}

void copy_to_device(CUdeviceptr target, const void* source, std::size_t nbytes) {
    ++counters.uploads;
    // All sizes are staged: a large pageable source could be handed to the driver, but if somebody has pinned it the
    // driver would read it after we return.
    if (!ring.memory) ring.memory = static_cast<std::byte*>(pinned(kSegment * kSegments));
    auto* from = static_cast<const std::byte*>(source);
    while (nbytes) {
        if (ring.used == kSegment) {
            ring.tickets[ring.segment] = ticket_now(true);
            ring.segment = (ring.segment + 1) % kSegments;
            ring.used = 0;
            wait_holding_gil(ring.tickets[ring.segment]);  // another upload must not enter this half-open segment
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
        // Short, so the GIL stays held and keeps the staging memory ours. One call: it returns when the bytes are here,
        // and waits for no other work, since all our streams are non-blocking.
        if (!download_staging) download_staging = static_cast<std::byte*>(pinned(kSmallDownload));
        driver.cuMemcpyDtoH(download_staging, source, nbytes);
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
