// Who watches evaluations: one Python object, and most of the time none. Then a watch costs one test a step.
//
// The observer has these methods; what one raises is reported as unraisable, since a watcher must not change a result:
//   lowered(device, plan, tape, start_ns, end_ns)   a plan was made
//   wants_tape(device, plan) -> bool                before a run; if true, then
//   tape(plan, tape)
//   evaluated(device, plan, hit, sizes, evicted, times)   times: of the Steps, in ns
//   waited(start_ns, end_ns)
//   evicted(device, count)                          plans were dropped because the capacity was lowered
// Times are those of time.perf_counter_ns.
#pragma once
#include <Python.h>

#include <array>
#include <cstdint>

#include "mlxlite/graph/tape.h"

namespace mlxlite {

// The moments of an evaluation that are noted. What lies between lowered and bound is the observer's own.
enum class Step { start, listed, moved, walked, found, lowered, bound, ran, done, count };

bool is_observed();
void set_observer(PyObject* observer);  // None or nullptr for nobody
std::int64_t clock_ns();

class Watch {
  public:
    explicit Watch(std::int64_t start);
    ~Watch() { Py_XDECREF(observer_); }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    explicit operator bool() const { return observer_ != nullptr; }
    void mark(Step step) {
        if (observer_) times_[static_cast<std::size_t>(step)] = clock_ns();
    }
    void lowered(Device device, PyObject* plan, PyObject* tape);
    void running(Device device, PyObject* plan, const Tape& tape);
    void evaluated(Device device, PyObject* plan, bool hit, const Tape& tape, std::uint64_t evicted);

  private:
    PyObject* observer_;
    std::array<std::int64_t, static_cast<std::size_t>(Step::count)> times_{};
};

void report_wait(std::int64_t start);
void report_evictions(Device device, std::uint64_t count);

}  // namespace mlxlite
