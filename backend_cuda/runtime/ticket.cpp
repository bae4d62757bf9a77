#include "backend_cuda/runtime/ticket.h"

#include <Python.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

namespace mlxlite::cuda {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kEvents = 256;   // in flight; an older ticket waits for a younger event
constexpr int kMarkedAfterwards = 64;  // launches, once a program has waited for one that was not its last
constexpr auto kSpin = std::chrono::microseconds(50);
constexpr auto kAsk = std::chrono::milliseconds(1);  // how often a waiter asks whether the stream has failed

CUstream compute = nullptr;
std::uint64_t* written = nullptr;  // the last ticket that the device is done with; null: events tell
std::uint64_t issued = 0;
std::uint64_t marked = 0;  // the last ticket that a mark covers
bool uncovered = false;
int to_be_marked = 0;                     // launches, from now on
std::atomic<std::uint64_t> completed{0};  // by events

struct EventMark {
    CUevent event = nullptr;
    std::uint64_t ticket = 0;
};
std::array<EventMark, kEvents> events{};
std::uint64_t n_events = 0;  // recorded so far; they take turns

// The first event that covers a ticket which has a mark. One that fell out of the ring was recorded again since: then
// it is the oldest that is still there.
CUevent event_of(std::uint64_t ticket) {
    std::uint64_t oldest = n_events > kEvents ? n_events - kEvents : 0;
    std::uint64_t found = n_events - 1;
    while (found > oldest && events[(found - 1) % kEvents].ticket >= ticket) --found;
    return events[found % kEvents].event;
}

// Of everything enqueued so far.
CUresult mark() {
    CUresult code;
    if (written) {
        // By default the write is ordered after all that the stream wrote before.
        code = driver.cuStreamWriteValue64.raw(compute, reinterpret_cast<CUdeviceptr>(written), issued,
                                               CU_STREAM_WRITE_VALUE_DEFAULT);
    } else {
        EventMark& next = events[n_events % kEvents];
        code = driver.cuEventRecord.raw(next.event, compute);
        if (code == CUDA_SUCCESS) {
            next.ticket = issued;
            ++n_events;
        }
    }
    if (code == CUDA_SUCCESS) marked = issued;
    return code;
}

void note_completed(std::uint64_t ticket) {
    std::uint64_t seen = completed.load(std::memory_order_relaxed);
    while (seen < ticket && !completed.compare_exchange_weak(seen, ticket)) {
    }
}

// Makes no call of the driver.
bool is_known_done(std::uint64_t ticket) {
    if (written) return std::atomic_ref(*written).load(std::memory_order_acquire) >= ticket;
    return completed.load(std::memory_order_relaxed) >= ticket;
}

// May be called without the GIL. `event` is the ticket's, or null where the word tells.
CUresult spin(std::uint64_t ticket, CUevent event) {
    const auto start = Clock::now();
    auto asked = start;
    for (;;) {
        const auto now = Clock::now();
        if (event) {
            if (CUresult code = driver.cuEventQuery.raw(event); code != CUDA_ERROR_NOT_READY) return code;
        } else {
            if (is_known_done(ticket)) return CUDA_SUCCESS;
            if (now - asked > kAsk) {
                // Nothing is written after a kernel that failed: only the stream tells. An empty stream is done.
                asked = now;
                if (CUresult code = driver.cuStreamQuery.raw(compute); code != CUDA_ERROR_NOT_READY) return code;
            }
        }
        if (now - start > kSpin) std::this_thread::yield();
    }
}

[[noreturn]] void fail_for_earlier_work(CUresult code) {
    fail(code, written ? "cuStreamQuery, for work launched earlier" : "cuEventQuery, for work launched earlier");
}

void ensure_mark(std::uint64_t ticket) {
    if (ticket <= marked) return;
    if (CUresult code = mark(); code != CUDA_SUCCESS) fail_for_earlier_work(code);
}

void wait(std::uint64_t ticket, bool drop_gil) {
    if (ticket > issued) throw std::runtime_error("wait: no such ticket");
    if (is_known_done(ticket)) return;
    if (ticket < issued) to_be_marked = kMarkedAfterwards;
    ensure_mark(ticket);
    CUevent event = written ? nullptr : event_of(ticket);
    CUresult code = event ? driver.cuEventQuery.raw(event) : CUDA_ERROR_NOT_READY;
    if (code == CUDA_ERROR_NOT_READY) {
        PyThreadState* thread = drop_gil ? PyEval_SaveThread() : nullptr;
        code = spin(ticket, event);
        if (thread) PyEval_RestoreThread(thread);
    }
    if (code != CUDA_SUCCESS) fail_for_earlier_work(code);
    if (!written) note_completed(ticket);
}

}  // namespace

void create_tickets(CUstream stream, bool by_word) {
    compute = stream;
    if (by_word) {
        void* memory = nullptr;
        // The device has the host's address for it (unified addressing, as on every 64-bit Linux).
        driver.cuMemAllocHost(&memory, sizeof *written);
        written = new (memory) std::uint64_t(0);
        return;
    }
    for (EventMark& made : events) driver.cuEventCreate(&made.event, CU_EVENT_DISABLE_TIMING);
}

void mark_enqueued() { uncovered = true; }

std::uint64_t ticket_now(bool marked_at_once) {
    if (uncovered) {
        ++issued;
        uncovered = false;
        if (to_be_marked) {
            --to_be_marked;
            marked_at_once = true;
        }
    }
    if (marked_at_once) ensure_mark(issued);
    return issued;
}

bool is_done(std::uint64_t ticket) {
    if (is_known_done(ticket)) return true;
    ensure_mark(ticket);
    if (written) return false;
    CUresult code = driver.cuEventQuery.raw(event_of(ticket));
    if (code == CUDA_ERROR_NOT_READY) return false;
    if (code != CUDA_SUCCESS) fail_for_earlier_work(code);
    note_completed(ticket);
    return true;
}

void wait_for(std::uint64_t ticket) { wait(ticket, true); }
void wait_holding_gil(std::uint64_t ticket) { wait(ticket, false); }

}  // namespace mlxlite::cuda
