// The tuples of docs/internals.md ("Plans"), checked and turned into a PlanSpec.
#pragma once
#include <nanobind/nanobind.h>

#include "backend_cuda/runtime/plan.h"

namespace mlxlite::cuda {

// Throws std::invalid_argument (ValueError), std::out_of_range (IndexError) for an index of nothing,
// nanobind::type_error.
PlanSpec parse_plan(std::size_t n_sizes, std::size_t n_scalars, nanobind::handle size_program, nanobind::handle buffers,
                    nanobind::handle nodes, nanobind::handle edges, nanobind::handle outputs, nanobind::handle promote);

}  // namespace mlxlite::cuda
