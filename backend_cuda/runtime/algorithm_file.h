// Choices of algorithms, in memory and on disk: one file for a device, a release of cuBLASLt and a driver, replaced as
// a whole. Memory has them for keys that are built again after their recipe was evicted: a choice is made once.
//
// An entry that is damaged is as if it were not there, and so is a file of another device or release. A file that
// cannot be written is no error.
#pragma once
#include <optional>
#include <string>

#include "backend_cuda/runtime/cublaslt.h"
#include "backend_cuda/runtime/matmul.h"

namespace mlxlite::cuda {

void set_algorithms_directory(std::string path);  // empty, as it is at first: memory only

std::optional<lt::Algo> stored_algorithm(const MatmulKey& key);
// The oldest entries go when there are more than 4096.
void store_algorithm(const MatmulKey& key, const lt::Algo& algo);

}  // namespace mlxlite::cuda
