// The one compute stream, and copies between host and device.
//
// Everything that touches device memory is enqueued on the compute stream in the order of the calls, apart from
// downloads, which start once the host knows that the work they depend on is done. That order is what makes it safe to
// hand freed memory to the next launch at once.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend_cuda/runtime/driver.h"
#include "backend_cuda/runtime/ticket.h"

namespace mlxlite::cuda {

void create_streams(bool tickets_by_word);
CUstream compute_stream();
CUstream capture_stream();  // nothing ever runs on it: library calls are captured there

void synchronize();  // waits for everything enqueued so far, with the GIL dropped
// Destroys what was waiting for work that has finished since.
void sweep();

// Calls `destroy(object)` once everything enqueued so far is done: now, or in a later sweep(). Does not throw.
void destroy_later(void (*destroy)(void* object), void* object);

// What is enqueued on `other` from now on waits for what has been enqueued here.
void lend_to(CUstream other);
// What is enqueued here from now on waits for what has been enqueued on `other`; null: on any stream.
void take_back_from(CUstream other);

// `source` may change or be freed as soon as this returns.
void copy_to_device(CUdeviceptr target, const void* source, std::size_t nbytes);
// Waits for `ticket`, then for the copy.
void copy_to_host(void* target, CUdeviceptr source, std::size_t nbytes, std::uint64_t ticket);

}  // namespace mlxlite::cuda
