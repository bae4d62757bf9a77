// The one compute stream, tickets for what was enqueued on it, and copies between host and device.
//
// Everything that touches device memory is enqueued on the compute stream in the order of the calls, apart from
// downloads, which run on a stream of their own after the work they depend on. That order is what makes it safe to hand
// freed memory to the next launch at once.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend_cuda/runtime/driver.h"

namespace mlxlite::cuda {

void create_streams();
CUstream compute_stream();
CUstream capture_stream();  // nothing ever runs on it: library calls are captured there

// Something was enqueued that no ticket covers yet.
void mark_enqueued();
// A ticket that covers everything enqueued so far; 0 if nothing ever was.
std::uint64_t ticket_now();
bool is_done(std::uint64_t ticket);
// Waits with the GIL dropped: spins for 50 us, then yields between queries.
void wait_for(std::uint64_t ticket);
void synchronize();
// Destroys what was waiting for work that has finished since.
void sweep();

// `source` may change or be freed as soon as this returns.
void copy_to_device(CUdeviceptr target, const void* source, std::size_t nbytes);
// Waits for `ticket`, then for the copy.
void copy_to_host(void* target, CUdeviceptr source, std::size_t nbytes, std::uint64_t ticket);

}  // namespace mlxlite::cuda
