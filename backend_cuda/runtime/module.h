// Loaded cubins and the functions in them. A function keeps its module loaded; a plan keeps its functions.
#pragma once
#include <cstddef>
#include <memory>
#include <string>

#include "backend_cuda/runtime/driver.h"

namespace mlxlite::cuda {

class Module;

struct Function {
    std::shared_ptr<ModuleHandle> module;
    CUfunction handle = nullptr;
    std::string name;
    int registers = 0;
    int local_bytes = 0;  // per thread: spills and private arrays
    int static_shared = 0;
    int max_threads = 0;  // per block
    int dynamic_shared_max = 0;
};

class Module {
  public:
    explicit Module(const void* cubin);  // a cubin, or PTX ending in 0
    // Allows launches with up to `dynamic_shared_max` bytes of dynamic shared memory.
    std::shared_ptr<Function> function(const std::string& name, int dynamic_shared_max) const;

  private:
    std::shared_ptr<ModuleHandle> handle_;
};

}  // namespace mlxlite::cuda
