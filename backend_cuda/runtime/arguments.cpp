// Arguments of kernels in device memory: for a plan of which many kernels get other arguments on every launch.
//
// Patching a kernel is a call of the driver. A plan that has patched many of them several times in a row *promotes*
// them: from then on they take the address of their arguments, and one kernel at the beginning of the graph, the
// writer, has all of the arguments as its parameters and writes them there. Patching the writer is the one call that is
// left. What a kernel's grid and shared memory are still is the node's own.
//
// All executables of the plan share the memory. Launches of graphs on one stream run one after the other, so a writer
// starts when every reader of the launch before is done; and it writes all of the arguments, so nothing depends on
// which executable was launched before.
#include <algorithm>

#include "backend_cuda/runtime/kernel_parameters.h"
#include "backend_cuda/runtime/plan.h"

namespace mlxlite::cuda {

namespace {

constexpr std::size_t kManyNodes = 8;
constexpr std::size_t kLaunchesInARow = 3;

// Like KernelParameters, of a writer.
struct WriterParameters {
    WriterParameters(const Promotion& kernels, CUdeviceptr memory, const std::uint64_t* words) : target(memory) {
        pointers[0] = &target;
        pointers[1] = const_cast<std::uint64_t*>(words);
        params.func = kernels.writer->handle;
        params.gridDimX = kernels.writer_blocks;
        params.blockDimX = kernels.writer_threads;
        params.gridDimY = params.gridDimZ = params.blockDimY = params.blockDimZ = 1;
        params.kernelParams = pointers;
    }
    WriterParameters(const WriterParameters&) = delete;
    CUdeviceptr target;
    void* pointers[2];
    CUDA_KERNEL_NODE_PARAMS params{};
};

}  // namespace

// `nodes`: the kernels of which a launch patched the arguments, and nothing else. One whose grid changes, too, must be
// patched anyway.
void Plan::note_patched(std::span<const std::uint32_t> nodes) {
    if (!spec_.promote || in_memory_) return;
    if (nodes.size() < kManyNodes) {
        patching_launches_ = 0;
        return;
    }
    if (patching_launches_++ == 0) patched_lately_.assign(spec_.nodes.size(), 0);
    for (auto index : nodes) patched_lately_[index] = 1;
}

// Does nothing until launches have patched enough, and nothing once it was done. Every executable is made anew.
void Plan::promote() {
    if (patching_launches_ < kLaunchesInARow || in_memory_) return;
    patching_launches_ = 0;
    ArgumentsInMemory made;
    std::size_t n_words = 0;
    for (std::uint32_t i = 0; i < spec_.nodes.size(); ++i)
        if (patched_lately_[i]) {
            made.nodes.push_back(i);
            n_words += spec_.nodes[i].end - spec_.nodes[i].begin - kHeaderWords;
        }
    auto kernels = ask_for_promotion(spec_.promote, made.nodes, n_words);
    if (!kernels) return;  // they are being compiled: asked again after as many launches
    made.kernels = std::move(*kernels);
    made.n_writers = (n_words + made.kernels.writer_words - 1) / made.kernels.writer_words;
    made.memory = BufferRef(allocate(made.n_writers * made.kernels.writer_words * 8));

    // Nothing fails from here on.
    CUdeviceptr address = made.memory.address();
    for (std::size_t i = 0; i < made.nodes.size(); ++i) {
        PlanNode& node = spec_.nodes[made.nodes[i]];
        auto& work = std::get<KernelWork>(node.work);
        work.from_memory = made.kernels.functions[i];
        work.arguments_address = address;
        address += (node.end - node.begin - kHeaderWords) * 8;
    }
    in_memory_ = std::move(made);
    counters.execs_evicted += executables_.size();
    executables_.clear();
    singles_.clear();
    template_.reset();
    ++counters.plans_promoted;
    counters.nodes_promoted += in_memory_.nodes.size();
}

// What the writers write for a block, up to the end of what the last of them takes.
Plan::Words Plan::argument_words(const Words& block) const {
    Words words(in_memory_.n_writers * in_memory_.kernels.writer_words);
    auto next = words.begin();
    for (auto index : in_memory_.nodes) {
        const PlanNode& node = spec_.nodes[index];
        next = std::copy(block.begin() + static_cast<std::ptrdiff_t>(node.begin + kHeaderWords),
                         block.begin() + static_cast<std::ptrdiff_t>(node.end), next);
    }
    return words;
}

void Plan::add_writers(Template& target, const Words& arguments) const {
    for (std::size_t i = 0; i < in_memory_.n_writers; ++i) {
        std::size_t first = i * in_memory_.kernels.writer_words;
        WriterParameters parameters(in_memory_.kernels, in_memory_.memory.address() + first * 8,
                                    arguments.data() + first);
        CUgraphNode made = nullptr;
        labelled("arguments in memory",
                 [&] { driver.cuGraphAddKernelNode(&made, target.graph.get(), nullptr, 0, &parameters.params); });
        target.writers.push_back(made);
    }
}

// False if the driver refused.
bool Plan::patch_writers(Executable& executable) const {
    if (!in_memory_) return true;
    Words arguments = argument_words(block_);
    std::size_t words = in_memory_.kernels.writer_words;
    for (std::size_t first = 0; first < arguments.size(); first += words) {
        auto begin = arguments.begin() + static_cast<std::ptrdiff_t>(first);
        auto end = begin + static_cast<std::ptrdiff_t>(words);
        if (std::equal(begin, end, executable.arguments.begin() + static_cast<std::ptrdiff_t>(first))) continue;
        WriterParameters parameters(in_memory_.kernels, in_memory_.memory.address() + first * 8,
                                    arguments.data() + first);
        CUgraphNode writer = executable.source->writers[first / words];
        if (driver.cuGraphExecKernelNodeSetParams.raw(executable.exec.get(), writer, &parameters.params)) return false;
        ++counters.nodes_patched;
    }
    executable.arguments = std::move(arguments);
    return true;
}

}  // namespace mlxlite::cuda
