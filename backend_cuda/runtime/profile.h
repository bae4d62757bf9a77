// Measuring what plans take: on the host with its clock, on the device with events on the compute stream.
//
// Measured node by node, a plan is bound as always, so that counters tell the truth; then every node is launched as an
// executable of its own between two events, in an order that respects the edges. That order on one stream is what the
// edges ask for and more, so that results are the same.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "backend_cuda/runtime/driver.h"

namespace mlxlite::cuda {

enum class Measuring : std::uint8_t { off, whole, nodes };

Measuring measuring();
// Starts anew, or stops; what was not taken yet is dropped. Waits for the device.
void set_measuring(Measuring mode);

// One launch, as it was measured. Times in ns: of the host's steady clock, the device's fitted to it.
struct MeasuredLaunch {
    std::int64_t bind = 0, launch = 0;
    std::vector<std::string> labels;  // of what was measured; empty for a plan with nothing to do
    std::vector<std::pair<std::int64_t, std::int64_t>> times;  // (start, length), by label
};
// All launches since the last call, in order. Waits for those that still run.
std::vector<MeasuredLaunch> take_measured();

// Notes one launch while it is made. Does nothing unless measuring is on.
class LaunchNotes {
  public:
    LaunchNotes();
    ~LaunchNotes();
    LaunchNotes(const LaunchNotes&) = delete;
    LaunchNotes& operator=(const LaunchNotes&) = delete;

    void bound();                                                 // what follows is the launch
    void before(std::size_t position, const std::string& label);  // of `label`, whose times go to `position`
    void after();
    void commit();  // the launch was made

  private:
    struct Pair {
        std::size_t position;
        std::string label;
        CUevent start, end;
    };
    bool active_;
    std::int64_t start_ = 0, bound_ = 0;
    std::vector<Pair> pairs_;
};

// Keeps the device busy for about as long as the host needs to enqueue `launches` of them, so that it does not wait for
// the host between two events.
void delay_device(std::size_t launches);

}  // namespace mlxlite::cuda
