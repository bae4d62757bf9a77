#include "mlxlite/graph/node.h"

#include <algorithm>
#include <stdexcept>

namespace mlxlite {

namespace {

// Nodes come and go by the thousand per evaluation; a free list makes that a few instructions.
struct FreeList {
    std::vector<void*> blocks;
    static constexpr std::size_t kBound = 1 << 15;
};
FreeList& free_list() {
    static FreeList* list = new FreeList;  // never destroyed: nodes may outlive static destructors
    return *list;
}

void destroy(Node* node, std::vector<Node*>& queue) {
    if (node->role == Role::op) --pending().ops;
    if (node->captive) pending().captive_bytes -= static_cast<std::int64_t>(node->nbytes());
    for (int i = 0; i < node->n_inputs; ++i)
        if (--node->inputs[i]->refs == 0) queue.push_back(node->inputs[i]);
    if (node->inputs != node->inline_inputs) delete[] node->inputs;
    delete[] node->strides;
    release(node->buffer);
    auto& blocks = free_list().blocks;
    node->~Node();
    if (blocks.size() < FreeList::kBound)
        blocks.push_back(node);
    else
        ::operator delete(node);
}

void drain(std::vector<Node*>& queue) {
    while (!queue.empty()) {
        Node* next = queue.back();
        queue.pop_back();
        destroy(next, queue);
    }
}

}  // namespace

Pending& pending() {
    static Pending value;
    return value;
}

Node* new_node() {
    auto& blocks = free_list().blocks;
    void* memory;
    if (!blocks.empty()) {
        memory = blocks.back();
        blocks.pop_back();
    } else {
        memory = ::operator new(sizeof(Node));
    }
    return new (memory) Node;
}

void release(Node* node) {
    if (--node->refs) return;
    std::vector<Node*> queue;
    destroy(node, queue);
    drain(queue);
}

void detach_inputs(Node* node) {
    std::vector<Node*> queue;
    for (int i = 0; i < node->n_inputs; ++i)
        if (--node->inputs[i]->refs == 0) queue.push_back(node->inputs[i]);
    if (node->inputs != node->inline_inputs) delete[] node->inputs;
    node->inputs = node->inline_inputs;
    node->n_inputs = 0;
    node->attributes = {};
    node->static_id = 0;
    if (node->role == Role::op) --pending().ops;
    node->role = Role::leaf;
    node->primitive = nullptr;
    drain(queue);
}

void set_inputs(Node* node, std::span<Node* const> inputs) {
    if (inputs.size() > 0xffff) throw std::invalid_argument("an operation takes at most 65535 arrays");
    if (inputs.size() > std::size(node->inline_inputs)) node->inputs = new Node*[inputs.size()];
    node->n_inputs = static_cast<std::uint16_t>(inputs.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) node->inputs[i] = retain(inputs[i]);
}

void set_shape(Node* node, std::span<const std::int64_t> shape) {
    if (shape.size() > kMaxRank)
        throw std::invalid_argument("arrays have at most " + std::to_string(kMaxRank) + " dimensions, got " +
                                    std::to_string(shape.size()));
    node->rank = static_cast<std::uint8_t>(shape.size());
    std::copy(shape.begin(), shape.end(), node->shape);
}

void set_strides(Node* node, const std::int64_t* strides) {
    std::int64_t expected = 1;
    bool contiguous = true;
    for (int d = node->rank - 1; d >= 0; --d) {
        if (node->shape[d] != 1 && strides[d] != expected) contiguous = false;
        expected *= node->shape[d];
    }
    if (contiguous || node->size() == 0) return;
    node->strides = new std::int64_t[node->rank];
    std::copy(strides, strides + node->rank, node->strides);
}

Node* new_op(Primitive* primitive, Dtype dtype, Device device, std::span<Node* const> inputs,
             std::span<const std::int64_t> shape) {
    NodeRef node(new_node());
    node->role = Role::leaf;  // not yet counted, should a check below throw
    set_shape(node.get(), shape);
    set_inputs(node.get(), inputs);
    node->role = Role::op;
    ++pending().ops;
    node->primitive = primitive;
    node->dtype = dtype;
    node->device = device;
    return node.release();
}

Node* new_scalar(Dtype dtype, Scalar value) {
    Node* node = new_node();
    node->role = Role::scalar;
    node->dtype = dtype;
    node->scalar = value;
    return node;
}

void add_handle(Node* node) {
    ++node->handles;
    if (!node->captive) return;
    node->captive = false;
    pending().captive_bytes -= static_cast<std::int64_t>(node->nbytes());
}

void drop_handle(Node* node) {
    if (--node->handles || node->role != Role::leaf || node->refs == 1) return;
    node->captive = true;
    pending().captive_bytes += static_cast<std::int64_t>(node->nbytes());
}

}  // namespace mlxlite
