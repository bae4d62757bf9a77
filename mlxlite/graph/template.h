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
    struct Argument {
        Dtype dtype;
        std::vector<std::int64_t> shape;
    };
    struct Op {
        Primitive* primitive;
        std::uint32_t static_id;
        std::uint32_t shape;  // where in dims_ its shape begins
        std::uint16_t n_inputs;
        std::uint8_t rank;
        Dtype dtype;
        Device device;
        AttributesRef attributes;
    };
    void add(const Node* op);

    // Values are numbered: arguments, then ops. An array that is read as it is has a number of its own kind.
    std::vector<Argument> arguments_;
    std::vector<Op> ops_;
    std::vector<NodeRef> shared_;
    std::vector<std::uint32_t> inputs_;  // of all ops, one after the other
    std::vector<std::int64_t> dims_;
    std::vector<std::uint32_t> outputs_;
};

}  // namespace mlxlite
