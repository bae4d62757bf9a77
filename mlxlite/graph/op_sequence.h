// Ops kept to be recorded again, for other arrays: what a template and a remembered call have in common.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mlxlite/graph/node.h"

namespace mlxlite {

// Values are numbered. Which numbers the arrays have that are given to a recording, and the ops, is the owner's choice;
// those of the ops follow one another.
class OpSequence {
  public:
    // `inputs`: the numbers of the values that the op reads.
    void add(const Node* op, std::span<const std::uint32_t> inputs);
    std::size_t size() const { return ops_.size(); }

    // Records the ops into values[next], values[next + 1], ..., each with one reference; `next` tells how far it came.
    void record(std::span<Node*> values, std::size_t& next) const;

  private:
    struct Op {
        Primitive* primitive;
        std::uint32_t static_id, inputs, shape;  // the last two: where they begin in inputs_ and dims_
        std::uint16_t n_inputs;
        std::uint8_t rank;
        Dtype dtype;
        Device device;
        AttributesRef attributes;
    };
    std::vector<Op> ops_;
    std::vector<std::uint32_t> inputs_;
    std::vector<std::int64_t> dims_;
    std::size_t most_inputs_ = 0;
};

// Releases values[first] to values[next - 1] at the end of the scope, or before.
struct RecordedValues {
    std::span<Node*> values;
    std::size_t first, next;
    RecordedValues(std::span<Node*> all, std::size_t begin) : values(all), first(begin), next(begin) {}
    RecordedValues(const RecordedValues&) = delete;
    RecordedValues& operator=(const RecordedValues&) = delete;
    ~RecordedValues() { release(); }
    void release() {
        while (next > first) mlxlite::release(values[--next]);
    }
};

}  // namespace mlxlite
