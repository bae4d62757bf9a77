// A recorded graph kept to be recorded again: what compile() calls instead of the function it was given.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mlxlite/graph/node.h"

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
    // Values are numbered: arguments, then ops, then arrays that are read as they are.
    std::vector<NodeRef> arguments_, ops_, shared_;
    std::vector<std::uint32_t> inputs_;  // of all ops, one after the other
    std::vector<std::uint32_t> outputs_;
};

}  // namespace mlxlite
