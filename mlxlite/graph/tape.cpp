#include "mlxlite/graph/tape.h"

#include <cstring>
#include <utility>

#include "mlxlite/graph/host.h"
#include "mlxlite/graph/primitive.h"
#include "mlxlite/graph/trace.h"

namespace mlxlite {

namespace {

template <class T>
void append(std::string& key, const T& value) {
    static_assert(std::has_unique_object_representations_v<T>);
    key.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

std::uint32_t classes(const std::int64_t* values, int n) {
    std::uint32_t bits = 0;
    for (int d = 0; d < n; ++d) {
        std::uint32_t c = values[d] == 0 ? 0u : values[d] == 1 ? 1u : values[d] > 0 ? 2u : 3u;
        bits |= c << (2 * d);
    }
    return bits;
}

bool donatable(const Node* node, std::uint32_t uses) {
    // An op that is evaluated while traced stays, and may read the array again.
    if (tracing()) return false;
    if (node->refs != uses || !node->buffer || node->buffer->refs != 1 || node->buffer->is_foreign) return false;
    // What takes the place of a small part of a block would keep all of the block.
    if (node->device == Device::gpu) return node->buffer->nbytes / 2 <= node->nbytes();
    return host_memory_is_exclusive(node->buffer);
}

}  // namespace

std::uint32_t next_epoch() {
    static std::uint32_t epoch = 0;
    return ++epoch;
}

void Tape::clear() {
    entries.clear();
    inputs.clear();
    outputs.clear();
    leaves.clear();
    sizes.clear();
    scalars.clear();
    scalar_dtypes.clear();
    key.clear();
}

std::vector<Node*> pending_below(std::span<Node* const> roots) {
    std::vector<Node*> order;
    std::vector<std::pair<Node*, std::uint32_t>> stack;
    std::uint32_t epoch = next_epoch();
    for (Node* root : roots) {
        if (root->role != Role::op || root->epoch == epoch) continue;
        root->epoch = epoch;
        stack.emplace_back(root, 0);
        while (!stack.empty()) {
            auto& [node, next] = stack.back();
            if (next < node->n_inputs) {
                Node* input = node->inputs[next++];
                if (input->role == Role::op && input->epoch != epoch) {
                    input->epoch = epoch;
                    stack.emplace_back(input, 0);
                }
                continue;
            }
            order.push_back(node);
            stack.pop_back();
        }
    }
    return order;
}

void build_tape(Tape& tape, std::span<Node* const> ops, std::span<Node* const> roots) {
    tape.clear();
    std::uint32_t epoch = next_epoch();
    auto add = [&](Node* node) {
        node->epoch = epoch;
        node->tape_index = static_cast<std::uint32_t>(tape.entries.size());
        node->tape_uses = 0;
        tape.entries.push_back({node});
        return node->tape_index;
    };
    for (Node* op : ops) {
        // Operands that are not ops of this tape enter just before their first use.
        for (int i = 0; i < op->n_inputs; ++i) {
            Node* input = op->inputs[i];
            if (input->epoch != epoch) {
                add(input);
                if (input->role != Role::scalar) tape.leaves.push_back(input->tape_index);
            }
            ++input->tape_uses;
        }
        for (int i = 0; i < op->n_inputs; ++i) tape.inputs.push_back(op->inputs[i]->tape_index);
        add(op);
    }
    for (Node* root : roots)
        if (root->role == Role::op && root->epoch == epoch) tape.entries[root->tape_index].flags |= kOutput;

    const std::uint32_t* input = tape.inputs.data();
    tape.key.reserve(tape.entries.size() * (sizeof(NodeKey) + 8));
    tape.key.push_back(static_cast<char>(tape.device));
    for (std::size_t index = 0; index < tape.entries.size(); ++index) {
        TapeEntry& entry = tape.entries[index];
        Node* node = entry.node;
        entry.uses = node->tape_uses;
        if (node->role == Role::op && node->refs > entry.uses) entry.flags |= kOutput;
        if (node->role == Role::leaf && donatable(node, entry.uses)) entry.flags |= kDonatable;
        if (node->role == Role::leaf && node->strides) entry.flags |= kStrided;
        if (entry.flags & kOutput) tape.outputs.push_back(static_cast<std::uint32_t>(index));

        entry.size_slot = static_cast<std::uint32_t>(tape.sizes.size());
        entry.scalar_slot = static_cast<std::uint32_t>(tape.scalars.size());
        tape.sizes.insert(tape.sizes.end(), node->shape, node->shape + node->rank);
        NodeKey key;
        std::memset(&key, 0, sizeof key);
        key.role = static_cast<std::uint8_t>(node->role);
        key.dtype = static_cast<std::uint8_t>(node->dtype);
        key.rank = node->rank;
        key.flags = entry.flags;
        key.dim_classes = classes(node->shape, node->rank);
        if (entry.flags & kStrided) {
            tape.sizes.insert(tape.sizes.end(), node->strides, node->strides + node->rank);
            key.layout_classes = classes(node->strides, node->rank);
        }
        if (node->role == Role::scalar) {
            tape.scalars.push_back(node->scalar);
            tape.scalar_dtypes.push_back(node->dtype);
        }
        if (node->role == Role::op) {
            key.static_id = node->static_id;
            key.primitive = node->primitive->id;
            key.n_inputs = node->n_inputs;
            if (node->attributes) {
                auto& ints = node->attributes->ints;
                auto& floats = node->attributes->floats;
                key.attribute_counts = static_cast<std::uint32_t>(ints.size() | floats.size() << 16);
                tape.sizes.insert(tape.sizes.end(), ints.begin(), ints.end());
                for (double f : floats) {
                    Scalar s;
                    s.f = f;
                    tape.scalars.push_back(s);
                    tape.scalar_dtypes.push_back(Dtype::float64);
                }
            }
        }
        append(tape.key, key);
        if (node->role == Role::op)
            for (int i = 0; i < node->n_inputs; ++i) append(tape.key, static_cast<std::uint32_t>(index) - *input++);
    }
}

}  // namespace mlxlite
