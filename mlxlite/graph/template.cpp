#include "mlxlite/graph/template.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "mlxlite/graph/tape.h"

namespace mlxlite {

Template::Template(std::span<Node* const> outputs, std::span<Node* const> arguments) {
    std::vector<Node*> order = pending_below(outputs);
    // How often the graph itself holds each node; more holders are outside of it.
    std::uint32_t epoch = next_epoch();
    auto count = [&](Node* node) {
        if (node->epoch != epoch) {
            node->epoch = epoch;
            node->tape_uses = 0;
            node->level = 0;  // 1: depends on an argument
        }
        ++node->tape_uses;
    };
    for (Node* node : arguments) count(node), node->level = 1;
    for (Node* node : outputs) count(node);
    for (Node* op : order)
        for (int i = 0; i < op->n_inputs; ++i) count(op->inputs[i]);
    std::vector<std::uint8_t> wanted(order.size(), 0), recorded(order.size(), 0);
    for (std::size_t k = 0; k < order.size(); ++k) {
        order[k]->tape_index = static_cast<std::uint32_t>(k);
        for (int i = 0; i < order[k]->n_inputs; ++i) order[k]->level |= order[k]->inputs[i]->level & 1;
    }
    for (Node* output : outputs)
        if (output->role == Role::op) wanted[output->tape_index] = 1;
    for (std::size_t k = order.size(); k-- > 0;) {
        Node* op = order[k];
        bool argument = op->trace & kAbstract;
        recorded[k] = wanted[k] && !argument && (op->level & 1 || op->refs <= op->tape_uses);
        if (!recorded[k]) continue;
        for (int i = 0; i < op->n_inputs; ++i)
            if (op->inputs[i]->role == Role::op) wanted[op->inputs[i]->tape_index] = 1;
    }
    // The count is done: scratch is free for the numbers of values.
    epoch = next_epoch();
    auto set = [&](Node* node, std::uint32_t value) {
        node->epoch = epoch;
        node->tape_index = value;
        return value;
    };
    auto n_ops = static_cast<std::uint32_t>(std::ranges::count(recorded, 1));
    std::uint32_t first_shared = static_cast<std::uint32_t>(arguments.size()) + n_ops;
    auto value_of = [&](Node* node) {
        if (node->epoch == epoch) return node->tape_index;
        if (node->trace & kAbstract)
            throw std::invalid_argument(
                "[compile] The function uses an argument of another function that is being transformed: pass it in.");
        shared_.push_back(NodeRef::share(node));
        return set(node, first_shared + static_cast<std::uint32_t>(shared_.size() - 1));
    };
    std::uint32_t next = 0;
    for (Node* node : arguments) {
        arguments_.push_back({node->dtype, {node->shape, node->shape + node->rank}});
        set(node, next++);
    }
    std::vector<std::uint32_t> inputs;
    for (std::size_t k = 0; k < order.size(); ++k) {
        if (!recorded[k]) continue;
        Node* op = order[k];
        inputs.clear();
        for (int i = 0; i < op->n_inputs; ++i) inputs.push_back(value_of(op->inputs[i]));
        ops_.add(op, inputs);
        set(op, next++);
    }
    for (Node* output : outputs) outputs_.push_back(value_of(output));
}

std::vector<NodeRef> Template::record(std::span<Node* const> given) const {
    if (given.size() != arguments_.size())
        throw std::invalid_argument("[compile] another number of arrays than traced");
    for (std::size_t i = 0; i < given.size(); ++i)
        if (given[i]->dtype != arguments_[i].dtype || !std::ranges::equal(given[i]->dims(), arguments_[i].shape))
            throw std::invalid_argument("[compile] an array has another shape or dtype than was traced");
    std::vector<Node*> values(given.size() + ops_.size() + shared_.size());
    std::ranges::copy(given, values.begin());
    for (std::size_t i = 0; i < shared_.size(); ++i) values[given.size() + ops_.size() + i] = shared_[i].get();
    RecordedValues made(values, given.size());  // each op is held until its consumers do
    ops_.record(values, made.next);
    std::vector<NodeRef> results;
    for (std::uint32_t output : outputs_) results.push_back(NodeRef::share(values[output]));
    return results;
}

}  // namespace mlxlite
