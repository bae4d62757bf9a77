// A tape: the unevaluated graph below some roots, in topological order, split into key, sizes, scalars and leaves.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mlxlite/graph/node.h"

namespace mlxlite {

// What is done by one node, as bytes. Only integers, no padding: equal work has equal bytes.
struct NodeKey {
    std::uint32_t static_id;
    std::uint32_t dim_classes;       // two bits a dim: 0, 1, or larger (2)
    std::uint32_t layout_classes;    // two bits a dim of a strided leaf: stride 0, 1, other (2)
    std::uint32_t attribute_counts;  // ints in the low half, floats in the high half
    std::uint16_t primitive;
    std::uint16_t n_inputs;
    std::uint8_t role;
    std::uint8_t dtype;
    std::uint8_t rank;
    std::uint8_t flags;
};
static_assert(std::has_unique_object_representations_v<NodeKey>);
static_assert(kMaxRank * 2 <= 32);

enum NodeFlags : std::uint8_t { kOutput = 1, kDonatable = 2, kStrided = 4 };

struct TapeEntry {
    Node* node;
    std::uint8_t flags = 0;
    std::uint32_t uses = 0;
    std::uint32_t size_slot = 0;
    std::uint32_t scalar_slot = 0;
};

struct Tape {
    Device device = Device::cpu;
    std::vector<TapeEntry> entries;
    std::vector<std::uint32_t> inputs;   // of all entries, one after the other
    std::vector<std::uint32_t> outputs;  // entry indices
    std::vector<std::uint32_t> leaves;
    std::vector<std::int64_t> sizes;
    std::vector<Scalar> scalars;
    std::vector<Dtype> scalar_dtypes;
    std::string key;

    void clear();
};

// A number no walk has left in Node::epoch.
std::uint32_t next_epoch();

// All unevaluated ops below the roots, producers first.
std::vector<Node*> pending_below(std::span<Node* const> roots);

// `ops` are producers first and all of one device; every other node they read is a leaf or a scalar.
void build_tape(Tape& tape, std::span<Node* const> ops, std::span<Node* const> roots);

}  // namespace mlxlite
