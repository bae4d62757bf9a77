// Tickets: numbers for what was enqueued on the compute stream, and how the host learns that it is done.
//
// The stream writes the number of a ticket into a word of host memory once everything before it is done; whoever waits
// reads that word, which needs no call of the driver. A device that cannot write values from a stream records an event
// for each ticket instead, and whoever waits queries it.
#pragma once
#include <cstdint>

#include "backend_cuda/runtime/driver.h"

namespace mlxlite::cuda {

// `stream` is what tickets are about; `by_word`: the device can write values from a stream.
void create_tickets(CUstream stream, bool by_word);

// Something was enqueued that no ticket covers yet.
void mark_enqueued();
// A ticket that covers everything enqueued so far; 0 if nothing ever was.
std::uint64_t ticket_now();
bool is_done(std::uint64_t ticket);
// Waits with the GIL dropped: spins for 50 us, then yields between looks. Throws the error of work that failed.
void wait_for(std::uint64_t ticket);
// The same with the GIL held.
void wait_holding_gil(std::uint64_t ticket);

}  // namespace mlxlite::cuda
