// Tickets: numbers for what was enqueued on the compute stream, and how the host learns that it is done.
//
// A mark has the stream write the number of the last ticket into a word of host memory once everything before it is
// done; whoever waits reads that word, which needs no call of the driver. On a device that cannot write values from a
// stream a mark is an event, and whoever waits queries it.
//
// Between two launches a mark takes 2.7 us of an H100, in which nothing else runs: launches that are queued in a row
// and that nobody waits for have none. Where the mark is still to be made, waiting makes it, and so waits for whatever
// was enqueued since, too. A program that does not wait for its last launch but for one before, as decoding does, is
// hurt by that once: from then on launches are marked at once.
#pragma once
#include <cstdint>

#include "backend_cuda/runtime/driver.h"

namespace mlxlite::cuda {

// `stream` is what tickets are about; `by_word`: the device can write values from a stream.
void create_tickets(CUstream stream, bool by_word);

// Something was enqueued that no ticket covers yet.
void mark_enqueued();
// A ticket that covers everything enqueued so far; 0 if nothing ever was. `marked_at_once`: somebody will wait for
// it, perhaps when more has been enqueued.
std::uint64_t ticket_now(bool marked_at_once = false);
bool is_done(std::uint64_t ticket);
// Waits with the GIL dropped: spins for 50 us, then yields between looks. Throws the error of work that failed.
void wait_for(std::uint64_t ticket);
// The same with the GIL held.
void wait_holding_gil(std::uint64_t ticket);

}  // namespace mlxlite::cuda
