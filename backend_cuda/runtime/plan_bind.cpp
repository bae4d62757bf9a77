// From registers, scalars and addresses to the parameters of every node, and from those to graphs.
#include <algorithm>
#include <bit>
#include <cstring>

#include "backend_cuda/runtime/child_graph.h"
#include "backend_cuda/runtime/errors.h"
#include "backend_cuda/runtime/kernel_parameters.h"
#include "backend_cuda/runtime/plan.h"
#include "backend_cuda/runtime/stream.h"

namespace mlxlite::cuda {

namespace {

std::uint64_t pack(std::int64_t first, std::int64_t second) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(first)) |
           static_cast<std::uint64_t>(static_cast<std::uint32_t>(second)) << 32;
}

PyObject* checked(PyObject* object) {
    if (!object) throw PythonError{};
    return object;
}

template <class Make>
PyObject* make_list(std::size_t n, Make&& make) {
    PyObject* list = checked(PyList_New(static_cast<Py_ssize_t>(n)));
    for (std::size_t i = 0; i < n; ++i) {
        PyObject* item = make(i);
        if (!item) {
            Py_DECREF(list);
            throw PythonError{};
        }
        PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), item);
    }
    return list;
}

CUgraph call_library(const LibraryWork& work, const std::uint64_t* words) {
    struct Owned {
        PyObject* object;
        ~Owned() { Py_XDECREF(object); }
    };
    const std::uint64_t* registers = words;
    const std::uint64_t* slots = registers + work.registers.size();
    const std::uint64_t* pointers = slots + work.slots.size();
    ++counters.library_calls;
    Owned sizes{make_list(work.registers.size(),
                          [&](std::size_t i) { return PyLong_FromLongLong(static_cast<std::int64_t>(registers[i])); })};
    Owned scalars{make_list(work.slots.size(),
                            [&](std::size_t i) { return PyFloat_FromDouble(std::bit_cast<double>(slots[i])); })};
    Owned addresses{
        make_list(work.places.size(), [&](std::size_t i) { return PyLong_FromUnsignedLongLong(pointers[i]); })};
    Owned callback{Py_NewRef(work.callback)};
    Owned result{checked(
        PyObject_CallFunctionObjArgs(callback.object, sizes.object, scalars.object, addresses.object, nullptr))};
    void* graph = PyLong_AsVoidPtr(result.object);
    if (!graph) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, "a library node's callback returned a null graph");
        throw PythonError{};
    }
    return static_cast<CUgraph>(graph);
}

}  // namespace

void Plan::write_kernel(const KernelWork& work, const LaunchRequest& request, std::uint64_t* words) const {
    std::int64_t grid[3];
    for (int d = 0; d < 3; ++d) {
        grid[d] = registers_[work.grid[d]];
        if (grid[d] <= 0 || grid[d] > (d == 0 ? INT32_MAX : 65535))
            throw std::invalid_argument("a grid of " + std::to_string(grid[d]) + " blocks in dim " + std::to_string(d) +
                                        " cannot be launched");
    }
    std::int64_t shared = registers_[work.shared];
    if (shared < 0 || shared > INT32_MAX) throw std::invalid_argument("a shared memory size that is no size");
    words[0] = pack(grid[0], grid[1]);
    words[1] = pack(grid[2], shared);
    words += kHeaderWords;
    using Kind = KernelArgument::Kind;
    for (const KernelArgument& argument : work.arguments) {
        std::uint64_t word = 0;
        switch (argument.kind) {
            case Kind::pointer:
                word = address({argument.index, argument.offset});
                break;
            case Kind::i64:
                word = static_cast<std::uint64_t>(registers_[argument.index]);
                break;
            case Kind::i32: {
                std::int64_t value = registers_[argument.index];
                if (value != static_cast<std::int32_t>(value))
                    throw std::invalid_argument("the size " + std::to_string(value) + " does not fit an int argument");
                word = static_cast<std::uint32_t>(value);
                break;
            }
            case Kind::f32:
                word = std::bit_cast<std::uint32_t>(static_cast<float>(request.scalars[argument.index].f));
                break;
            case Kind::f64:
            case Kind::s64:
            case Kind::c64:  // all three are the scalar's eight bytes
                std::memcpy(&word, &request.scalars[argument.index], sizeof word);
                break;
        }
        *words++ = word;
    }
}

void Plan::write_matmul(const MatmulWork& work, const LaunchRequest& request, std::uint64_t* words) const {
    MatmulCall call{};
    MatmulKey& key = call.key;
    auto value = [&](std::uint32_t index) { return registers_[index]; };
    key.m = value(work.m);
    key.n = value(work.n);
    key.k = value(work.k);
    key.batch = value(work.batch);
    key.lda = value(work.lda);
    key.ldb = value(work.ldb);
    key.ldd = value(work.ldd);
    // The stride from product to product means nothing where there is one.
    bool batched = key.batch > 1;
    key.batch_stride_a = batched ? value(work.batch_stride_a) : 0;
    key.batch_stride_b = batched ? value(work.batch_stride_b) : 0;
    key.batch_stride_d = batched ? value(work.batch_stride_d) : 0;
    key.max_workspace = work.workspace_bytes;
    key.dtype = static_cast<std::uint32_t>(work.dtype);
    key.trans_a = work.trans_a;
    key.trans_b = work.trans_b;
    key.tf32 = (work.dtype == MatmulDtype::float32 || work.dtype == MatmulDtype::complex64) && tf32();
    call.a = address(work.a);
    call.b = address(work.b);
    call.d = address(work.d);
    call.c = call.d;
    key.align_a = alignment_of(call.a);
    key.align_b = alignment_of(call.b);
    key.align_d = alignment_of(call.d);
    key.align_c = key.align_d;
    key.c_is_d = 1;
    auto factor = [&](std::uint32_t slot, double otherwise) {
        return std::bit_cast<std::uint64_t>(slot == kNone ? otherwise : request.scalars[slot].f);
    };
    call.alpha = factor(work.alpha, 1.0);
    call.beta = std::bit_cast<std::uint64_t>(0.0);
    if (work.c.buffer != kNone) {
        call.c = address(work.c);
        call.beta = factor(work.beta, 1.0);
        key.has_c = 1;
        key.ldc = value(work.ldc);
        key.batch_stride_c = batched ? value(work.batch_stride_c) : 0;
        key.align_c = alignment_of(call.c);
        key.c_is_d = call.c == call.d;
    }
    call.workspace_offset = work.workspace_offset;
    std::memcpy(words, &call, sizeof call);
}

void Plan::compute_block(const LaunchRequest& request) {
    block_.resize(block_words_);
    for (const PlanNode& node : spec_.nodes) {
        std::uint64_t* words = block_.data() + node.begin;
        try {
            if (auto* kernel = std::get_if<KernelWork>(&node.work)) {
                write_kernel(*kernel, request, words);
            } else if (auto* matmul = std::get_if<MatmulWork>(&node.work)) {
                write_matmul(*matmul, request, words);
            } else {
                auto& library = std::get<LibraryWork>(node.work);
                for (auto index : library.registers) *words++ = static_cast<std::uint64_t>(registers_[index]);
                for (auto slot : library.slots) *words++ = std::bit_cast<std::uint64_t>(request.scalars[slot].f);
                for (const Place& place : library.places) *words++ = address(place);
            }
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(std::string(error.what()) + " [" + node.label + "]");
        }
    }
}

CUgraph Plan::child_graph(const PlanNode& node, const std::uint64_t* words, Graph* owner) const {
    if (auto* library = std::get_if<LibraryWork>(&node.work)) return call_library(*library, words);
    MatmulCall call;
    std::memcpy(&call, words, sizeof call);
    *owner = capture_matmul(call, clock_ > 0);
    return owner->get();
}

CUgraphNode Plan::add_node(CUgraph graph, const PlanNode& node, const std::uint64_t* words,
                           std::span<const CUgraphNode> before, Words* kernels) const {
    CUgraphNode made = nullptr;
    labelled(node.label, [&] {
        auto* kernel = std::get_if<KernelWork>(&node.work);
        if (!kernel) {
            Graph owner;
            CUgraph child = child_graph(node, words, &owner);
            if (kernels) *kernels = kernels_of(child);
            driver.cuGraphAddChildGraphNode(&made, graph, before.data(), before.size(), child);
            return;
        }
        KernelParameters parameters(*kernel, words);
        if (kernel->pdl && before.size() == 1 && driver.cuGraphAddDependencies) {
            driver.cuGraphAddKernelNode(&made, graph, nullptr, 0, &parameters.params);
            CUgraphEdgeData edge{};
            edge.from_port = CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC;
            edge.type = CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
            driver.cuGraphAddDependencies(graph, before.data(), &made, &edge, 1);
            return;
        }
        driver.cuGraphAddKernelNode(&made, graph, before.data(), before.size(), &parameters.params);
    });
    return made;
}

std::shared_ptr<Plan::Template> Plan::build_template() {
    auto made = std::make_shared<Template>();
    CUgraph graph = nullptr;
    driver.cuGraphCreate(&graph, 0);
    made->graph = Graph(graph);
    made->nodes.resize(spec_.nodes.size());
    made->kernels.resize(spec_.nodes.size());
    made->block = block_;
    // Writers come before every node that has no other predecessor, by whole edges. So each of these starts when the
    // arguments are there, and every other node starts after one of these has started: also one with a programmatic
    // edge, which may start while its predecessor runs but not before.
    if (in_memory_) add_writers(*made, argument_words(made->block));
    // Nodes are added producers first, whatever their order in the plan.
    std::vector<char> added(spec_.nodes.size(), 0);
    std::vector<std::uint32_t> stack;
    std::vector<CUgraphNode> before;
    auto add = [&](std::uint32_t index) {
        const PlanNode& node = spec_.nodes[index];
        const std::uint64_t* words = made->block.data() + node.begin;
        before.clear();
        for (auto b : node.before) before.push_back(made->nodes[b]);
        if (before.empty()) before = made->writers;
        made->nodes[index] = add_node(graph, node, words, before, &made->kernels[index]);
        added[index] = 1;
    };
    for (std::uint32_t root = 0; root < spec_.nodes.size(); ++root) {
        stack.push_back(root);
        while (!stack.empty()) {
            std::uint32_t index = stack.back();
            bool ready = true;
            if (!added[index])
                for (auto b : spec_.nodes[index].before)
                    if (!added[b]) {
                        stack.push_back(b);
                        ready = false;
                    }
            if (!ready) continue;
            stack.pop_back();
            if (!added[index]) add(index);
        }
    }
    ++counters.templates_built;
    return made;
}

Plan::Executable& Plan::instantiate(std::shared_ptr<Template> source) {
    CUgraphExec exec = nullptr;
    driver.cuGraphInstantiateWithFlags(&exec, source->graph.get(), 0);
    ++counters.execs_built;
    Executable executable;
    executable.exec = GraphExec(exec);
    executable.block = source->block;
    if (in_memory_) executable.arguments = argument_words(source->block);
    executable.source = std::move(source);
    executables_.push_back(std::move(executable));
    return executables_.back();
}

// Whether a library is asked for the same as when the executable was bound last, but for addresses: it launches the
// same kernels then.
bool Plan::has_same_calls(const PlanNode& node, const Executable& executable) const {
    std::size_t n_words = 0;
    if (std::holds_alternative<MatmulWork>(node.work)) n_words = sizeof(MatmulKey) / sizeof(std::uint64_t);
    if (auto* library = std::get_if<LibraryWork>(&node.work))
        n_words = library->registers.size() + library->slots.size();
    const std::uint64_t* words = block_.data() + node.begin;
    return std::equal(words, words + n_words, executable.block.data() + node.begin);
}

bool Plan::patch(Executable& executable) {
    patched_.clear();
    for (std::uint32_t i = 0; i < spec_.nodes.size(); ++i) {
        const PlanNode& node = spec_.nodes[i];
        const std::uint64_t* words = block_.data() + node.begin;
        std::uint64_t* bound = executable.block.data() + node.begin;
        auto* kernel = std::get_if<KernelWork>(&node.work);
        std::size_t n_words = kernel && kernel->from_memory ? kHeaderWords : node.end - node.begin;
        if (std::equal(words, words + n_words, bound)) continue;
        CUgraphNode handle = executable.source->nodes[i];
        CUresult code;
        if (kernel) {
            KernelParameters parameters(*kernel, words);
            code = driver.cuGraphExecKernelNodeSetParams.raw(executable.exec.get(), handle, &parameters.params);
            // Each thread would read a whole table: it stays a parameter.
            bool has_table = kernel->parameters.size() < kernel->arguments.size();
            if (!has_table && std::equal(words, words + kHeaderWords, bound)) patched_.push_back(i);
        } else {
            code = labelled(node.label, [&] {
                Graph owner;
                CUgraph child = child_graph(node, words, &owner);
                if (!has_same_calls(node, executable) && kernels_of(child) != executable.source->kernels[i])
                    return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
                return driver.cuGraphExecChildGraphNodeSetParams.raw(executable.exec.get(), handle, child);
            });
            counters.child_graphs_patched += code == CUDA_SUCCESS;
        }
        if (code != CUDA_SUCCESS) return false;
        ++counters.nodes_patched;
        std::copy(words, words + n_words, bound);
    }
    note_patched(patched_);
    return patch_writers(executable);
}

}  // namespace mlxlite::cuda
