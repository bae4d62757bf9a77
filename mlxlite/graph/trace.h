// Tracing: what the transforms of Python ask of the graph.
//
// A transform calls a function on arrays that stand for its arguments, and then reads the graph that the function
// recorded. A stand-in is either the identity of an argument, which can be evaluated, or abstract: a shape and a dtype.
// While any trace is open, an array that depends on a stand-in keeps its graph when it is evaluated.
#pragma once
#include <Python.h>

#include <span>
#include <string>
#include <vector>

#include "mlxlite/graph/node.h"

namespace mlxlite {

bool tracing();
void begin_trace();
void end_trace();  // the last one lets go of the graphs and calls that were kept

Node* stand_in(Node* argument);
Node* abstract_argument(Dtype dtype, std::span<const std::int64_t> shape);
Node* stop_gradient(Node* a);  // `a` itself when nothing traces

// For evaluation, while tracing. `ops` come producers first.
void mark_dependent(std::span<Node* const> ops);  // std::invalid_argument if one is abstract
void reject_abstract(const Node* op);
void keep_graph(Node* evaluated);

// A derivative that a call brings; a walk for another one sees through the call.
enum Interpretation : unsigned { kVjp = 1, kJvp = 2, kVmap = 4 };

// A function called while tracing, with rules of its own. `info` is Python's.
struct Call {
    PyObject* info = nullptr;
    unsigned rules = 0;  // Interpretations
    std::vector<NodeRef> arguments;
    std::vector<NodeRef> results;
    ~Call() { Py_XDECREF(info); }
};

// The results of a call, marked as such.
std::vector<NodeRef> record_call(PyObject* info, unsigned rules, std::span<Node* const> arguments,
                                 std::span<Node* const> results);

// A node (or call) that depends on the arguments of a trace. Values are numbered: the arguments first, then results.
struct TracedNode {
    NodeRef node;
    // Of the node when it was read: it may have been evaluated since.
    const char* name = "";
    std::uint32_t primitive = 0;  // its id
    std::uint32_t static_id = 0;
    AttributesRef attributes;
    std::vector<NodeRef> inputs;
    std::vector<int> sources;  // of each input: the number of its value, -1 if it does not depend on an argument
    int first = 0;             // the number of the first result
    PyObject* info = nullptr;  // of a call; owned
    std::vector<NodeRef> results;

    TracedNode() = default;
    TracedNode(TracedNode&& other) noexcept;
    ~TracedNode() { Py_XDECREF(info); }
};

struct TracedGraph {
    std::vector<NodeRef> arguments;  // what the stand-ins stood for; themselves if they are abstract
    std::vector<TracedNode> nodes;   // producers first
    std::vector<int> outputs;        // of each output: the number of its value, -1 if it depends on no argument
    // Filled by `describe`: the arrays that the nodes read and that depend on no argument, each once, and which of
    // these each such input is, node after node.
    std::vector<NodeRef> constants;
    std::vector<int> constant_inputs;

    // All that rules can see of the graph, as bytes: graphs with equal bytes have equal derivatives, but for the
    // arrays. Empty if a call is among the nodes.
    std::string describe();

    TracedGraph() = default;
    TracedGraph(TracedGraph&&) = default;
    TracedGraph(const TracedGraph&) = delete;
};

// Reads the graph from `outputs` to `arguments` (stand-ins). Ops then read the arguments themselves instead.
TracedGraph read_trace(std::span<Node* const> outputs, std::span<Node* const> arguments, Interpretation interpretation);

}  // namespace mlxlite
