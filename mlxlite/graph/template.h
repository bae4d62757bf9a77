// A recorded graph kept to be recorded again: what compile() calls instead of the function it was given.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mlxlite/graph/op_sequence.h"

namespace mlxlite {

class Template {
  public:
    // `arguments` are abstract. Arrays that others hold too are read as they are; the ops that only this graph has are
    // recorded anew by every call, so that they can be fused, and nothing is kept in memory for them.
    Template(std::span<Node* const> outputs, std::span<Node* const> arguments);
    Template(const Template&) = delete;
    Template& operator=(const Template&) = delete;

    // The outputs for other arguments of the same shapes and dtypes. std::invalid_argument if they differ.
    std::vector<NodeRef> record(std::span<Node* const> arguments) const;
    std::size_t size() const { return ops_.size(); }

  private:
    struct Argument {
        Dtype dtype;
        std::vector<std::int64_t> shape;
    };

    // Values are numbered: arguments, ops, and arrays that are read as they are.
    std::vector<Argument> arguments_;
    OpSequence ops_;
    std::vector<NodeRef> shared_;
    std::vector<std::uint32_t> outputs_;
};

}  // namespace mlxlite
