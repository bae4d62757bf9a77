// What would be evaluated, without evaluating it.
#pragma once
#include <Python.h>

#include <functional>
#include <optional>
#include <span>

#include "mlxlite/graph/tape.h"

namespace mlxlite {

// Calls `visit` with the tape of each part that one device would run, in the order in which they would run. With a
// `device` everything is one part of that device, and arrays that lie elsewhere look as they would after their move.
// `visit` must not evaluate anything.
void inspect(std::span<Node* const> roots, std::optional<Device> device,
             const std::function<void(const Tape&, bool in_cache)>& visit);

}  // namespace mlxlite
