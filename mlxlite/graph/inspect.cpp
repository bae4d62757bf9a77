#include "mlxlite/graph/inspect.h"

#include <ranges>
#include <utility>
#include <vector>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/errors.h"
#include "mlxlite/graph/evaluate.h"

namespace mlxlite {

namespace {

// Makes nodes look as they will when their turn comes, for as long as it lives: results of earlier parts like arrays,
// arrays of other devices like contiguous ones of this device that nobody else holds.
class Disguise {
  public:
    // `exclusive`: a block that nobody else holds.
    explicit Disguise(Buffer* exclusive) : exclusive_(exclusive) {}
    Disguise(const Disguise&) = delete;
    Disguise& operator=(const Disguise&) = delete;
    ~Disguise() {
        // A node may wear two: what it was first is restored last.
        for (Before& b : std::views::reverse(before_)) {
            b.node->role = b.role;
            b.node->buffer = b.buffer;
            b.node->strides = b.strides;
            b.node->device = b.device;
        }
    }
    void as_result(Node* node) {
        as_moved(node, node->device);
        node->role = Role::leaf;
    }
    void as_moved(Node* node, Device device) {
        remember(node);
        node->buffer = exclusive_;
        node->strides = nullptr;
        node->device = device;
    }

  private:
    struct Before {
        Node* node;
        Role role;
        Buffer* buffer;
        std::int64_t* strides;
        Device device;
    };
    void remember(Node* node) { before_.push_back({node, node->role, node->buffer, node->strides, node->device}); }
    Buffer* exclusive_;
    std::vector<Before> before_;
};

// Memory that looks like a result just made. It is looked at, and never read.
Buffer* exclusive_block() {
    static Buffer* block = [] {
        PyObject* ndarray = PyObject_CallFunction(hooks().empty, "(i)s", 0, "float32");
        if (!ndarray) throw PythonError{};
        auto* made = new Buffer;
        made->owner = ndarray;
        return made;
    }();
    return block;
}

// Disguised nodes must be seen by nobody else: no Python code may run, and the collector could run some.
class NoCollection {
  public:
    NoCollection() : was_enabled_(PyGC_Disable()) {}
    ~NoCollection() {
        if (was_enabled_) PyGC_Enable();
    }
    NoCollection(const NoCollection&) = delete;
    NoCollection& operator=(const NoCollection&) = delete;

  private:
    bool was_enabled_;
};

}  // namespace

void inspect(std::span<Node* const> roots, std::optional<Device> device,
             const std::function<void(const Tape&, bool)>& visit) {
    EvaluationLock lock;
    std::vector<Node*> ops = pending_below(roots);
    if (ops.empty()) return;
    std::vector<std::vector<Node*>> parts;
    if (device)
        parts.push_back(ops);
    else
        parts = parts_by_device(ops);
    Disguise disguise(exclusive_block());
    NoCollection quiet;
    Tape tape;
    for (auto& part : parts) {
        tape.device = device ? *device : part.front()->device;
        for (Node* op : part)
            for (int i = 0; i < op->n_inputs; ++i) {
                Node* input = op->inputs[i];
                if (input->role == Role::leaf && input->buffer && input->device != tape.device)
                    disguise.as_moved(input, tape.device);
            }
        build_tape(tape, part, roots);
        Backend* where = registered(tape.device);
        visit(tape, where && where->plans.contains(tape.key, tape.sizes));
        for (Node* op : part) disguise.as_result(op);
    }
}

}  // namespace mlxlite
