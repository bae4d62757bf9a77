// Which of cuBLASLt's algorithms computes a product: the one that was fastest on this device, for large products.
//
// The heuristic orders its candidates by a model, whose first can take twice as long as the best. So a key of at least
// 0.2 gigaflops is measured when it is first built, on scratch memory, and the choice is kept on disk
// (algorithm_file.h). A choice is made once in a process: equal products have equal bits. The heuristic's first is kept
// - for smaller products;
// - unless another takes 3% less, so that noise chooses nothing;
// - for products of more than 1 ms: the clocks of those fall, unseen by a short look;
// - once the process has measured for 2 s (MLXLITE_MATMUL_TUNING seconds, 0 for none), of which a quarter may go to
//   keys that a plan meets when it is launched again with other sizes: a program with new sizes in every call is not
//   held up by more than that;
// - where there is no memory for scratch operands within the limit.
// The last two are counted as `unmeasured`.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend_cuda/runtime/cublaslt.h"
#include "backend_cuda/runtime/matmul.h"

namespace mlxlite::cuda {

struct Algorithm {
    lt::Algo algo{};
    std::size_t workspace = 0;
};

struct ChoiceCounters {
    std::uint64_t measured = 0, from_disk = 0, unmeasured = 0;  // of the keys that are large enough
    std::uint64_t microseconds = 0;                             // of the host, for all that was measured
};
extern ChoiceCounters choice_counters;

// May measure: waits for the device with the GIL held, and must not be called while a stream is captured.
Algorithm choose_algorithm(const MatmulKey& key, const lt::Problem& problem, lt::Preference preference, bool new_sizes);

}  // namespace mlxlite::cuda
