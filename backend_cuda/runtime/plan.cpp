// Launching a plan: registers, outputs, the choice of an executable.
#include "backend_cuda/runtime/plan.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend_cuda/runtime/profile.h"
#include "backend_cuda/runtime/stream.h"

namespace mlxlite::cuda {

namespace {

constexpr std::size_t kHistory = 16;
constexpr std::size_t kSlotAlignment = 256;
constexpr std::size_t kInOutput = ~std::size_t{0};

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
    if (b == 0) throw std::invalid_argument("Plan: the size program divides by zero");
    std::int64_t quotient = a / b;
    return quotient - ((a % b != 0) && ((a < 0) != (b < 0)));
}

std::int64_t apply(SizeOp op, std::int64_t a, std::int64_t b) {
    switch (op) {
        case SizeOp::constant:
            return a;
        case SizeOp::add:
            return a + b;
        case SizeOp::sub:
            return a - b;
        case SizeOp::mul:
            return a * b;
        case SizeOp::cdiv:
            return -floor_div(-a, b);
        case SizeOp::div:
            return floor_div(a, b);
        case SizeOp::mod:
            return a - floor_div(a, b) * b;
        case SizeOp::max:
            return std::max(a, b);
        case SizeOp::min:
            return std::min(a, b);
    }
    return 0;
}

std::size_t byte_count(std::int64_t value) {
    if (value < 0) throw std::invalid_argument("Plan: a buffer has a negative size");
    return static_cast<std::size_t>(value);
}

}  // namespace

Plan::Plan(PlanSpec spec) : spec_(std::move(spec)) {
    for (PlanNode& node : spec_.nodes)
        if (auto* library = std::get_if<LibraryWork>(&node.work)) callbacks_.push_back(library->callback);
    if (spec_.promote) callbacks_.push_back(spec_.promote);
    block_words_ = spec_.nodes.empty() ? 0 : spec_.nodes.back().end;
    registers_.resize(spec_.n_registers());
    bases_.resize(spec_.buffers.size());
    kept_.resize(spec_.buffers.size());
    arena_offsets_.resize(spec_.buffers.size());
}

Plan::~Plan() { clear_callbacks(); }

void Plan::clear_callbacks() {
    for (PlanNode& node : spec_.nodes)
        if (auto* library = std::get_if<LibraryWork>(&node.work)) library->callback = nullptr;
    spec_.promote = nullptr;
    auto owned = std::move(callbacks_);
    callbacks_.clear();
    for (PyObject* callback : owned) Py_DECREF(callback);
}

void Plan::evaluate_registers(const std::int64_t* sizes) {
    if (evaluated_ && std::equal(sizes, sizes + spec_.n_sizes, registers_.begin())) return;
    evaluated_ = false;
    ++counters.register_evaluations;
    std::copy(sizes, sizes + spec_.n_sizes, registers_.begin());
    std::size_t next = spec_.n_sizes;
    for (const SizeStep& step : spec_.program) {
        bool constant = step.op == SizeOp::constant;
        registers_[next++] = constant ? step.a
                                      : apply(step.op, registers_[static_cast<std::size_t>(step.a)],
                                              registers_[static_cast<std::size_t>(step.b)]);
    }
    arena_bytes_ = 0;
    for (std::size_t i = 0; i < spec_.buffers.size(); ++i)
        if (const BufferSpec& buffer = spec_.buffers[i]; buffer.kind == BufferSpec::Kind::arena) {
            std::size_t slot = byte_count(registers_[buffer.index]);
            arena_offsets_[i] = kInOutput;
            if (buffer.output != kNone && slot <= byte_count(registers_[spec_.buffers[buffer.output].index])) continue;
            arena_offsets_[i] = arena_bytes_;
            arena_bytes_ += (slot + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
        }
    evaluated_ = true;
}

// Kept memory of so many bytes at least. Where it is too small, there is more of it, and zeros, so that it is seldom
// made again for sizes that grow step by step.
CUdeviceptr Plan::keep(Kept& kept, std::size_t nbytes) {
    if (!kept.memory || nbytes > kept.capacity) {
        std::size_t capacity = kept.memory ? std::max(nbytes, 2 * kept.capacity) : nbytes;
        BufferRef memory(allocate(capacity));
        std::vector<std::byte> zeros(capacity);
        copy_to_device(memory.address(), zeros.data(), capacity);
        kept.memory = std::move(memory);
        kept.capacity = capacity;
    }
    return kept.memory.address();
}

void Plan::compute_signature(const LaunchRequest& request) {
    signature_.clear();
    signature_.push_back(tf32());
    signature_.insert(signature_.end(), request.sizes, request.sizes + request.n_sizes);
    signature_.insert(signature_.end(), bases_.begin(), bases_.end());
    signature_addresses_ = signature_.size();
    signature_.resize(signature_addresses_ + request.n_scalars);
    if (request.n_scalars)
        std::memcpy(signature_.data() + signature_addresses_, request.scalars, request.n_scalars * sizeof(Scalar));
}

void Plan::launch(LaunchRequest& request) {
    make_current();
    if (request.n_sizes != spec_.n_sizes || request.n_scalars != spec_.n_scalars ||
        request.n_outputs != spec_.outputs.size())
        throw std::invalid_argument("Plan: the launch does not fit the plan (sizes, scalars or outputs)");
    ArenaLease lease;
    LaunchNotes notes;
    sweep();
    evaluate_registers(request.sizes);
    ++counters.evaluations;

    // Outputs before the arena: growing the arena must not take memory that an output was to reuse.
    std::vector<BufferRef> fresh(spec_.buffers.size());
    for (std::size_t i = 0; i < spec_.buffers.size(); ++i) {
        const BufferSpec& buffer = spec_.buffers[i];
        switch (buffer.kind) {
            case BufferSpec::Kind::leaf:
                if (buffer.index >= request.n_leaves || request.leaves[buffer.index]->device != Device::gpu)
                    throw std::invalid_argument("Plan: leaf " + std::to_string(buffer.index) + " is not on the GPU");
                bases_[i] = reinterpret_cast<CUdeviceptr>(request.leaves[buffer.index]->ptr) +
                            static_cast<CUdeviceptr>(request.leaf_offsets[buffer.index]);
                break;
            case BufferSpec::Kind::output:
                fresh[i] = BufferRef(allocate(byte_count(registers_[buffer.index])));
                bases_[i] = fresh[i].address();
                break;
            case BufferSpec::Kind::kept:
                bases_[i] = keep(kept_[i], byte_count(registers_[buffer.index]));
                break;
            case BufferSpec::Kind::arena:
                break;
        }
    }
    CUdeviceptr base = arena_bytes_ ? arena(arena_bytes_) : 0;
    for (std::size_t i = 0; i < spec_.buffers.size(); ++i)
        if (const BufferSpec& buffer = spec_.buffers[i]; buffer.kind == BufferSpec::Kind::arena)
            bases_[i] = arena_offsets_[i] == kInOutput ? bases_[buffer.output] : base + arena_offsets_[i];

    if (!spec_.nodes.empty()) {
        compute_signature(request);
        Executable* executable = nullptr;
        for (Executable& candidate : executables_)
            if (candidate.signature == signature_) executable = &candidate;
        if (executable) {
            ++counters.signature_hits;
            patching_launches_ = 0;
        } else {
            promote();
            compute_block(request);
            // A signature may be tens of kilobytes long: its sizes and addresses are hashed once.
            std::uint64_t addresses = hash_bytes(signature_.data(), signature_addresses_ * sizeof(std::uint64_t));
            executable = &choose(addresses);
            executable->signature = signature_;
            executable->addresses = addresses;
        }
        executable->last_use = ++clock_;
        notes.bound();
        if (measuring() == Measuring::nodes)
            launch_nodes(*executable, notes);
        else
            launch_whole(*executable, notes);
        mark_enqueued();
    }
    notes.commit();
    request.ticket = ticket_now(request.is_awaited);

    for (std::size_t i = 0; i < spec_.outputs.size(); ++i) {
        const OutputSpec& output = spec_.outputs[i];
        const BufferSpec& buffer = spec_.buffers[output.place.buffer];
        OutputBinding& binding = request.outputs[i];
        binding.offset = registers_[output.place.offset];
        if (buffer.kind == BufferSpec::Kind::leaf) {
            binding.buffer = request.leaves[buffer.index];
            binding.offset += request.leaf_offsets[buffer.index];
        } else {
            binding.buffer = fresh[output.place.buffer].get();
        }
        retain(binding.buffer);
        for (std::size_t d = 0; d < output.strides.size(); ++d) binding.strides[d] = registers_[output.strides[d]];
    }
}

Plan::Executable& Plan::choose(std::uint64_t addresses) {
    Executable* victim = nullptr;
    // Only scalars differ: that executable has the fewest nodes to patch.
    for (Executable& candidate : executables_)
        if (!candidate.signature.empty() && candidate.addresses == addresses) victim = &candidate;
    bool recurs = std::ranges::find(patched_away_, addresses) != patched_away_.end();
    if (!victim && (executables_.empty() || (recurs && executables_.size() < kMaxExecutables))) {
        if (!template_) template_ = build_template();
        victim = &instantiate(template_);
    } else if (!victim) {
        // One of the same products if there is one: it has the kernels that are wanted, so it can be patched.
        auto rank = [&](const Executable& candidate) {
            bool fits = std::ranges::all_of(spec_.nodes, [&](auto& node) { return has_same_calls(node, candidate); });
            return std::pair(!fits, candidate.last_use);
        };
        victim = &*std::ranges::min_element(executables_, {}, rank);
        if (!victim->signature.empty()) {
            patched_away_.push_back(victim->addresses);
            if (patched_away_.size() > kHistory) patched_away_.erase(patched_away_.begin());
        }
    }
    victim->signature.clear();  // until it is bound again: a failure halfway must not leave an old name on it
    if (patch(*victim)) return *victim;

    // Other kernels in a child graph, or another number of them. One is made anew for these parameters; that which was
    // not patched waits for such as it can take.
    ++counters.execs_rebuilt;
    std::size_t index = static_cast<std::size_t>(victim - executables_.data());
    template_ = build_template();
    if (executables_.size() == kMaxExecutables) {
        ++counters.execs_evicted;
        executables_.erase(executables_.begin() + static_cast<std::ptrdiff_t>(index));
    }
    return instantiate(template_);
}

}  // namespace mlxlite::cuda
