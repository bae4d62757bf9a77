#include "mlxlite/graph/op_sequence.h"

#include <algorithm>

namespace mlxlite {

void OpSequence::add(const Node* op, std::span<const std::uint32_t> inputs) {
    ops_.push_back({op->primitive, op->static_id, static_cast<std::uint32_t>(inputs_.size()),
                    static_cast<std::uint32_t>(dims_.size()), op->n_inputs, op->rank, op->dtype, op->device,
                    op->attributes});
    inputs_.insert(inputs_.end(), inputs.begin(), inputs.end());
    dims_.insert(dims_.end(), op->shape, op->shape + op->rank);
    most_inputs_ = std::max(most_inputs_, inputs.size());
}

void OpSequence::record(std::span<Node*> values, std::size_t& next) const {
    Node* few[8];
    std::vector<Node*> many;
    Node** inputs = few;
    if (most_inputs_ > std::size(few)) {
        many.resize(most_inputs_);
        inputs = many.data();
    }
    for (const Op& op : ops_) {
        for (std::size_t i = 0; i < op.n_inputs; ++i) inputs[i] = values[inputs_[op.inputs + i]];
        Node* node =
            new_op(op.primitive, op.dtype, op.device, {inputs, op.n_inputs}, {dims_.data() + op.shape, op.rank});
        values[next++] = node;
        node->static_id = op.static_id;
        node->attributes = op.attributes;
    }
}

}  // namespace mlxlite
