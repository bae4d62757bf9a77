// What a library's captured graph launches.
#pragma once
#include <cstdint>
#include <vector>

#include "backend_cuda/runtime/driver.h"

namespace mlxlite::cuda {

// Everything of a graph's nodes that a patch must leave as it is, in words: equal for graphs of the same kernels.
//
// The driver lets a child graph of an executable be exchanged for another of the same shape, whatever its kernels, and
// says that it succeeded; but launched with the attributes of the kernels before (the dims of their clusters, at
// least), they compute nonsense. Seen on driver 580.159 with cuBLASLt's kernels for Hopper.
std::vector<std::uint64_t> kernels_of(CUgraph graph);

}  // namespace mlxlite::cuda
