// A plan: what to do for every call with one key, and the executables made of it so far.
//
// Binding splits in two. What a launch depends on from outside (sizes, addresses, scalars) is its *signature*; an
// executable that was last bound to the same signature is launched as it is. Otherwise the *block*, all parameters of
// all nodes in one run of bytes, is computed and the nodes whose bytes differ are patched.
#pragma once
#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "backend_cuda/runtime/driver.h"
#include "backend_cuda/runtime/matmul.h"
#include "backend_cuda/runtime/memory.h"
#include "backend_cuda/runtime/module.h"
#include "mlxlite/graph/backend_api.h"

namespace mlxlite::cuda {

inline constexpr std::uint32_t kNone = UINT32_MAX;

enum class SizeOp : std::uint8_t { constant, add, sub, mul, cdiv, div, mod, max, min };
struct SizeStep {
    SizeOp op;
    std::int64_t a, b;
};

struct BufferSpec {
    enum class Kind : std::uint8_t { leaf, arena, output, kept } kind;
    std::uint32_t index;  // leaf index, or size register
    // Of the arena's: the output in whose memory it lies where it fits there, or kNone.
    std::uint32_t output = kNone;
};

struct Place {
    std::uint32_t buffer;
    std::uint32_t offset;  // register, in bytes
};

struct KernelArgument {
    enum class Kind : std::uint8_t { pointer, i64, i32, f32, f64, s64, c64 } kind;
    std::uint32_t index;   // buffer, register or scalar slot
    std::uint32_t offset;  // pointer: register, in bytes
};

struct KernelWork {
    std::shared_ptr<Function> function;
    std::uint32_t grid[3];  // registers
    std::uint32_t block[3];
    std::uint32_t shared;                   // register
    std::vector<KernelArgument> arguments;  // one word each
    std::vector<std::uint32_t> parameters;  // the first word of each parameter: that of a table has several
    bool pdl = false;  // may start before its only predecessor has finished; the kernel itself waits
    // Of a node that was promoted: the kernel that reads its arguments from memory, and where they lie there.
    std::shared_ptr<Function> from_memory;
    CUdeviceptr arguments_address = 0;
};

struct MatmulWork {
    Place a, b, c, d;  // c.buffer may be kNone
    std::uint32_t m, n, k, batch, lda, ldb, ldc, ldd;
    std::uint32_t batch_stride_a, batch_stride_b, batch_stride_c, batch_stride_d;  // registers
    std::uint32_t alpha, beta;                                                     // scalar slots or kNone
    MatmulDtype dtype;
    bool trans_a, trans_b;
    std::int64_t workspace_offset = 0, workspace_bytes = 0;
};

struct LibraryWork {
    PyObject* callback;  // owned by the plan
    std::vector<Place> places;
    std::vector<std::uint32_t> registers;
    std::vector<std::uint32_t> slots;
};

struct PlanNode {
    std::string label;
    std::variant<KernelWork, MatmulWork, LibraryWork> work;
    std::vector<std::uint32_t> before;
    std::size_t begin = 0, end = 0;  // of its parameters in the block, in 8-byte words
};

struct OutputSpec {
    Place place;
    std::vector<std::uint32_t> strides;  // registers
};

// What Python's tuples are parsed into.
struct PlanSpec {
    std::size_t n_sizes = 0, n_scalars = 0;
    std::vector<SizeStep> program;
    std::vector<BufferSpec> buffers;
    std::vector<PlanNode> nodes;
    std::vector<std::uint32_t> order;  // of the nodes, producers first
    std::vector<OutputSpec> outputs;
    PyObject* promote = nullptr;  // owned by the plan, may be null: see Promotion

    std::size_t n_registers() const { return n_sizes + program.size(); }
};

// Places every node's parameters in the block, and gives every matmul node its share of the workspace: nodes that may
// run at the same time get different shares; where there are more of those than shares, an edge is added.
void lay_out(PlanSpec& spec);

// Kernels that read their arguments from memory, and the one that writes those there, `writer_words` at a time.
struct Promotion {
    std::vector<std::shared_ptr<Function>> functions;  // of the nodes that were asked for
    std::shared_ptr<Function> writer;
    std::uint32_t writer_blocks, writer_threads;
    std::size_t writer_words;
};
// Calls promote(nodes, number of words of their arguments), which returns (functions, (writer, words, blocks,
// threads)), or None as long as these are not there.
std::optional<Promotion> ask_for_promotion(PyObject* promote, std::span<const std::uint32_t> nodes,
                                           std::size_t n_words);

class LaunchNotes;  // profile.h

class Plan {
  public:
    explicit Plan(PlanSpec spec);  // takes over the callbacks
    ~Plan();
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;

    void launch(LaunchRequest& request);

    std::size_t n_nodes() const { return spec_.nodes.size(); }
    const std::string& label(std::size_t node) const { return spec_.nodes[node].label; }
    std::size_t n_executables() const { return executables_.size(); }
    std::size_t arena_bytes() const { return arena_bytes_; }
    std::span<PyObject* const> callbacks() const { return callbacks_; }
    void clear_callbacks();

    static constexpr std::size_t kMaxExecutables = 4;

  private:
    using Words = std::vector<std::uint64_t>;
    // The graph an executable was made from; its node handles name the nodes when patching.
    struct Template {
        Graph graph;
        std::vector<CUgraphNode> nodes;
        std::vector<Words> kernels;        // of child graphs
        std::vector<CUgraphNode> writers;  // of arguments in memory
        Words block;
    };
    struct Executable {
        GraphExec exec;
        std::shared_ptr<Template> source;
        Words block;
        Words arguments;  // that its writers write; those of promoted nodes in the block are not kept up to date
        Words signature;
        std::uint64_t addresses = 0;  // the hash of the signature's sizes and addresses
        std::uint64_t last_use = 0;
    };

    // Arguments of kernels that lie in device memory (arguments.cpp).
    struct ArgumentsInMemory {
        BufferRef memory;
        std::vector<std::uint32_t> nodes;  // whose arguments they are, in their order
        Promotion kernels;
        std::size_t n_writers = 0;

        explicit operator bool() const { return n_writers > 0; }
    };

    // What launches leave for the next.
    struct Kept {
        BufferRef memory;
        std::size_t capacity = 0;
    };

    // A node as an executable of its own, for measuring.
    struct Single {
        GraphExec exec;
        Words words;
    };

    void launch_whole(const Executable& executable, LaunchNotes& notes);
    void launch_nodes(const Executable& executable, LaunchNotes& notes);
    void evaluate_registers(const std::int64_t* sizes);
    void compute_signature(const LaunchRequest& request);
    void compute_block(const LaunchRequest& request);
    void write_kernel(const KernelWork& work, const LaunchRequest& request, std::uint64_t* words) const;
    void write_matmul(const MatmulWork& work, const LaunchRequest& request, std::uint64_t* words) const;
    Executable& choose(std::uint64_t addresses);
    Executable& instantiate(std::shared_ptr<Template> source);
    std::shared_ptr<Template> build_template();
    bool patch(Executable& executable);
    bool has_same_calls(const PlanNode& node, const Executable& executable) const;
    void note_patched(std::span<const std::uint32_t> nodes);
    CUdeviceptr keep(Kept& kept, std::size_t nbytes);
    void promote();
    Words argument_words(const Words& block) const;
    void add_writers(Template& target, const Words& arguments) const;
    bool patch_writers(Executable& executable) const;
    CUgraphNode add_node(CUgraph graph, const PlanNode& node, const std::uint64_t* words,
                         std::span<const CUgraphNode> before, Words* kernels = nullptr) const;
    CUgraph child_graph(const PlanNode& node, const std::uint64_t* words, Graph* owner) const;
    CUdeviceptr address(const Place& place) const {
        return bases_[place.buffer] + static_cast<CUdeviceptr>(registers_[place.offset]);
    }

    PlanSpec spec_;
    std::vector<PyObject*> callbacks_;
    std::vector<Kept> kept_;  // by buffer; of others nothing
    std::size_t block_words_ = 0;

    bool evaluated_ = false;
    std::vector<std::int64_t> registers_;     // the first n_sizes are the sizes of the last call
    std::vector<std::size_t> arena_offsets_;  // kInOutput for what lies in an output
    std::size_t arena_bytes_ = 0;

    // Of the call in progress.
    std::vector<CUdeviceptr> bases_;
    Words signature_;
    std::size_t signature_addresses_ = 0;  // the words before this one are sizes and addresses, those after it scalars
    Words block_;

    std::vector<Executable> executables_;
    std::shared_ptr<Template> template_;
    std::vector<Single> singles_;
    std::uint64_t clock_ = 0;
    ArgumentsInMemory in_memory_;
    std::size_t patching_launches_ = 0;   // in a row, that patched the arguments of many kernels
    std::vector<char> patched_lately_;    // by node: whether one of these did
    std::vector<std::uint32_t> patched_;  // by the call in progress: kernels with the same grid and other arguments
    // Hashes of sizes and addresses that were patched away lately. One that comes back deserves an executable of its
    // own.
    std::vector<std::uint64_t> patched_away_;
};

}  // namespace mlxlite::cuda
