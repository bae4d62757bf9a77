#include "mlxlite/graph/observe.h"

#include <chrono>

#include "mlxlite/graph/host.h"
#include "mlxlite/graph/tape_view.h"

namespace mlxlite {

namespace {

PyObject* watcher = nullptr;

const char* name_of(Device device) { return device == Device::cpu ? "cpu" : "gpu"; }

// Takes over `result`.
bool reported(PyObject* observer, PyObject* result) {
    if (!result) {
        PyErr_WriteUnraisable(observer);
        return false;
    }
    bool truth = result == Py_True;
    Py_DECREF(result);
    return truth;
}

}  // namespace

bool is_observed() { return watcher != nullptr; }

void set_observer(PyObject* observer) {
    PyObject* before = watcher;
    watcher = observer && observer != Py_None ? Py_NewRef(observer) : nullptr;
    Py_XDECREF(before);
}

// On Linux the steady clock and time.perf_counter are one.
std::int64_t clock_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

Watch::Watch(std::int64_t start) : observer_(Py_XNewRef(watcher)) { times_[0] = start; }

void Watch::lowered(Device device, PyObject* plan, PyObject* tape) {
    if (!observer_) return;
    reported(observer_, PyObject_CallMethod(observer_, "lowered", "sOOLL", name_of(device), plan, tape,
                                            static_cast<long long>(times_[static_cast<std::size_t>(Step::found)]),
                                            static_cast<long long>(times_[static_cast<std::size_t>(Step::lowered)])));
}

void Watch::running(Device device, PyObject* plan, const Tape& tape) {
    if (!observer_) return;
    if (!reported(observer_, PyObject_CallMethod(observer_, "wants_tape", "sO", name_of(device), plan))) return;
    PyObject* view = make_tape_view(tape);
    reported(observer_, PyObject_CallMethod(observer_, "tape", "OO", plan, view));
    Py_DECREF(view);
}

void Watch::evaluated(Device device, PyObject* plan, bool hit, const Tape& tape, std::uint64_t evicted) {
    if (!observer_) return;
    PyObject* sizes = PyTuple_New(static_cast<Py_ssize_t>(tape.sizes.size()));
    for (std::size_t i = 0; sizes && i < tape.sizes.size(); ++i)
        PyTuple_SET_ITEM(sizes, static_cast<Py_ssize_t>(i), PyLong_FromLongLong(tape.sizes[i]));
    PyObject* times = PyTuple_New(static_cast<Py_ssize_t>(times_.size()));
    for (std::size_t i = 0; times && i < times_.size(); ++i)
        PyTuple_SET_ITEM(times, static_cast<Py_ssize_t>(i), PyLong_FromLongLong(times_[i]));
    PyObject* result = nullptr;
    if (sizes && times)
        result = PyObject_CallMethod(observer_, "evaluated", "sOOOKO", name_of(device), plan, hit ? Py_True : Py_False,
                                     sizes, static_cast<unsigned long long>(evicted), times);
    Py_XDECREF(sizes);
    Py_XDECREF(times);
    reported(observer_, result);
}

void report_wait(std::int64_t start) {
    if (!watcher) return;
    PyObject* observer = Py_NewRef(watcher);
    reported(observer, PyObject_CallMethod(observer, "waited", "LL", static_cast<long long>(start),
                                           static_cast<long long>(clock_ns())));
    Py_DECREF(observer);
}

void report_evictions(Device device, std::uint64_t count) {
    if (!watcher || count == 0) return;
    PyObject* observer = Py_NewRef(watcher);
    reported(observer,
             PyObject_CallMethod(observer, "evicted", "sK", name_of(device), static_cast<unsigned long long>(count)));
    Py_DECREF(observer);
}

}  // namespace mlxlite
