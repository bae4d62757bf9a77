// From a pending graph to evaluated arrays: tape, plan, launch.
#pragma once
#include <Python.h>

#include <span>
#include <vector>

#include "mlxlite/graph/plan_cache.h"
#include "mlxlite/graph/tape.h"

namespace mlxlite {

// One evaluation at a time. The lock is taken with the GIL dropped, so that whoever holds it can finish.
class EvaluationLock {
  public:
    EvaluationLock();
    ~EvaluationLock();
    EvaluationLock(const EvaluationLock&) = delete;
    EvaluationLock& operator=(const EvaluationLock&) = delete;
};

// Ops, producers first, in parts that one device can run before another continues; in the order in which they run.
std::vector<std::vector<Node*>> parts_by_device(std::span<Node* const> ops);

// Evaluates the roots and every pending node below them that something else holds. On an exception every array is as
// before, apart from parts on other devices that were already done.
void evaluate(std::span<Node* const> roots, bool wait);
void wait_for(const Node* node);
void synchronize_all();

Backend& backend(Device device);  // throws when none is registered and none can be
void register_backend(Device device, PyObject* lower, PyObject* capsule);
Backend* registered(Device device);

}  // namespace mlxlite
