// A node of the lazy graph: an operation still to be done, a number, or an evaluated array.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "mlxlite/graph/backend_api.h"
#include "mlxlite/graph/dtype.h"

namespace mlxlite {

struct Primitive;

enum class Role : std::uint8_t { leaf = 0, scalar = 1, op = 2 };

// What a node is to the transforms that are tracing: see trace.h. All clear for nodes recorded outside of them.
enum TraceFlags : std::uint8_t {
    kStandsForArgument = 1,  // the identity of the array it stands for
    kAbstract = 2,           // an argument that has a shape and a dtype, and no value
    kStopsGradients = 4,
    kResultOfCall = 8,  // of a function that brings its own derivatives
    kDependent = 16,    // evaluated while traced: its graph is kept until the trace ends
};

// Ints and floats that change from call to call without changing what is done.
struct Attributes {
    std::vector<std::int64_t> ints;
    std::vector<double> floats;
};

// The attributes of a node, which do not change: nodes recorded alike share them. By default there are none.
class AttributesRef {
  public:
    AttributesRef() = default;
    explicit AttributesRef(Attributes values) : held_(new Held{std::move(values)}) {}
    AttributesRef(const AttributesRef& other) : held_(other.held_) {
        if (held_) ++held_->refs;
    }
    AttributesRef(AttributesRef&& other) noexcept : held_(std::exchange(other.held_, nullptr)) {}
    AttributesRef& operator=(AttributesRef other) noexcept {
        std::swap(held_, other.held_);
        return *this;
    }
    ~AttributesRef() {
        if (held_ && --held_->refs == 0) delete held_;
    }
    explicit operator bool() const { return held_; }
    const Attributes& operator*() const { return held_ ? held_->values : none(); }
    const Attributes* operator->() const { return &**this; }

  private:
    struct Held {
        Attributes values;
        std::uint32_t refs = 1;
    };
    static const Attributes& none() {
        static const Attributes empty;
        return empty;
    }
    Held* held_ = nullptr;
};

struct Node {
    std::uint32_t refs = 1;
    std::uint32_t handles = 0;  // how many of the references are Python's arrays
    Role role = Role::op;
    Dtype dtype = Dtype::float32;
    std::uint8_t rank = 0;
    Device device = Device::cpu;
    bool captive = false;    // an evaluated array that only the pending graph still holds
    std::uint8_t trace = 0;  // TraceFlags
    std::uint16_t n_inputs = 0;
    std::uint32_t static_id = 0;     // interned static attributes, 0 for none
    Primitive* primitive = nullptr;  // op only
    Node* inline_inputs[3] = {nullptr, nullptr, nullptr};
    Node** inputs = inline_inputs;
    AttributesRef attributes;
    Scalar scalar{};  // scalar only
    // leaf only
    Buffer* buffer = nullptr;
    std::int64_t offset = 0;          // bytes
    std::int64_t* strides = nullptr;  // elements; nullptr when row-major contiguous
    std::uint64_t ticket = 0;         // evaluation that writes the buffer
    // scratch of the tape walk
    std::uint32_t epoch = 0;
    std::uint32_t tape_index = 0;
    std::uint32_t tape_uses = 0;
    std::uint32_t level = 0;
    std::int64_t shape[kMaxRank];

    std::int64_t size() const {
        std::int64_t n = 1;
        for (int d = 0; d < rank; ++d) n *= shape[d];
        return n;
    }
    std::size_t nbytes() const { return static_cast<std::size_t>(size()) * size_of(dtype); }
    std::span<const std::int64_t> dims() const { return {shape, rank}; }
};

Node* new_node();          // one reference, everything else unset
void release(Node* node);  // iterative: a chain of any length is freed without recursion
inline Node* retain(Node* node) {
    ++node->refs;
    return node;
}

// Drop what an op needed to be computed, once it has been.
void detach_inputs(Node* node);
void set_inputs(Node* node, std::span<Node* const> inputs);  // takes new references
void set_shape(Node* node, std::span<const std::int64_t> shape);
void set_strides(Node* node, const std::int64_t* strides);  // in elements, of a leaf without any

// An op recorded by a primitive; counts it as pending.
Node* new_op(Primitive* primitive, Dtype dtype, Device device, std::span<Node* const> inputs,
             std::span<const std::int64_t> shape);
Node* new_scalar(Dtype dtype, Scalar value);

// What the graph holds that has not been evaluated.
struct Pending {
    std::int64_t ops = 0;            // recorded and unevaluated
    std::int64_t captive_bytes = 0;  // evaluated arrays kept alive by unevaluated ops alone
};
Pending& pending();
// An array of Python's refers to the node, or does so no longer.
void add_handle(Node* node);
void drop_handle(Node* node);  // before the reference itself is released

// Owning pointer for code that may throw between making a node and handing it on.
class NodeRef {
  public:
    NodeRef() = default;
    explicit NodeRef(Node* node) : node_(node) {}  // takes over one reference
    NodeRef(NodeRef&& other) noexcept : node_(other.node_) { other.node_ = nullptr; }
    NodeRef& operator=(NodeRef&& other) noexcept {
        std::swap(node_, other.node_);
        return *this;
    }
    NodeRef(const NodeRef&) = delete;
    NodeRef& operator=(const NodeRef&) = delete;
    ~NodeRef() {
        if (node_) mlxlite::release(node_);
    }
    Node* get() const { return node_; }
    Node* operator->() const { return node_; }
    Node* release() {
        Node* node = node_;
        node_ = nullptr;
        return node;
    }
    static NodeRef share(Node* node) { return NodeRef(retain(node)); }

  private:
    Node* node_ = nullptr;
};

}  // namespace mlxlite
