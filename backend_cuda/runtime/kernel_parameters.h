// A kernel node's words in the block, as the driver takes them.
#pragma once
#include <cstdint>
#include <vector>

#include "backend_cuda/runtime/plan.h"

namespace mlxlite::cuda {

// Block words of a kernel: grid x and y, grid z and shared bytes, then its arguments.
inline constexpr std::size_t kHeaderWords = 2;

// Arguments are read from the block itself and from `work`, which therefore must outlive the call the parameters are
// passed to.
struct KernelParameters {
    KernelParameters(const KernelWork& work, const std::uint64_t* words) {
        auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
        auto high = [](std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); };
        if (work.from_memory) {
            pointers.push_back(const_cast<CUdeviceptr*>(&work.arguments_address));
        } else {
            for (auto first : work.parameters)
                pointers.push_back(const_cast<std::uint64_t*>(words + kHeaderWords + first));
        }
        params.func = (work.from_memory ? work.from_memory : work.function)->handle;
        params.gridDimX = low(words[0]);
        params.gridDimY = high(words[0]);
        params.gridDimZ = low(words[1]);
        params.sharedMemBytes = high(words[1]);
        params.blockDimX = work.block[0];
        params.blockDimY = work.block[1];
        params.blockDimZ = work.block[2];
        params.kernelParams = pointers.data();
    }
    std::vector<void*> pointers;
    CUDA_KERNEL_NODE_PARAMS params{};
};

}  // namespace mlxlite::cuda
