#include "mlxlite/graph/trace.h"

#include <bit>
#include <memory>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "mlxlite/graph/primitive.h"
#include "mlxlite/graph/tape.h"

namespace mlxlite {

namespace {

struct State {
    int open = 0;
    std::vector<NodeRef> kept;  // evaluated, with their graphs
    std::vector<std::shared_ptr<Call>> calls;
    std::unordered_map<const Node*, Call*> call_of;
};
State& state() {
    static auto* value = new State;
    return *value;
}

Call* call_of(const Node* node) {
    if (!(node->trace & kResultOfCall)) return nullptr;
    auto found = state().call_of.find(node);
    return found == state().call_of.end() ? nullptr : found->second;
}

[[noreturn]] void no_value() {
    throw std::invalid_argument(
        "[eval] An array has no value while a function is being transformed by vmap or compile, nor later if it was "
        "kept: return it from the function instead of evaluating, printing or branching on it inside.");
}

}  // namespace

bool tracing() { return state().open > 0; }

void begin_trace() { ++state().open; }

void end_trace() {
    State& s = state();
    if (s.open == 0) throw std::runtime_error("no trace is open");
    if (--s.open) return;
    auto kept = std::exchange(s.kept, {});
    for (auto& node : kept) {
        node->trace &= static_cast<std::uint8_t>(~kDependent);
        detach_inputs(node.get());
    }
    s.call_of.clear();
    auto calls = std::exchange(s.calls, {});  // whose destruction may run Python
}

Node* stand_in(Node* argument) {
    Node* node = new_view(argument, argument->dims(), argument->device);
    node->trace = kStandsForArgument;
    return node;
}

Node* abstract_argument(Dtype dtype, std::span<const std::int64_t> shape) {
    Node* node = record_argument(dtype, shape);
    node->trace = kAbstract;
    return node;
}

Node* stop_gradient(Node* a) {
    if (!tracing()) return retain(a);
    Node* node = new_view(a, a->dims(), a->device);
    node->trace = kStopsGradients;
    return node;
}

void reject_abstract(const Node* op) {
    if (op->trace & kAbstract) no_value();
}

void mark_dependent(std::span<Node* const> ops) {
    for (Node* op : ops) {
        reject_abstract(op);
        bool dependent = op->trace & (kStandsForArgument | kDependent);
        for (int i = 0; i < op->n_inputs && !dependent; ++i) dependent = op->inputs[i]->trace & kDependent;
        if (dependent) op->trace |= kDependent;
    }
}

void keep_graph(Node* evaluated) {
    evaluated->role = Role::leaf;
    --pending().ops;
    state().kept.push_back(NodeRef::share(evaluated));
}

std::vector<NodeRef> record_call(PyObject* info, unsigned rules, std::span<Node* const> arguments,
                                 std::span<Node* const> results) {
    auto call = std::make_shared<Call>();
    call->info = Py_NewRef(info);
    call->rules = rules;
    for (Node* argument : arguments) call->arguments.push_back(NodeRef::share(argument));
    std::vector<NodeRef> marked;
    for (Node* result : results) {
        NodeRef node(new_view(result, result->dims(), result->device));
        node->trace = kResultOfCall;
        call->results.push_back(NodeRef::share(node.get()));
        marked.push_back(std::move(node));
    }
    for (auto& node : marked) state().call_of[node.get()] = call.get();
    state().calls.push_back(std::move(call));
    return marked;
}

TracedNode::TracedNode(TracedNode&& other) noexcept
    : node(std::move(other.node)),
      name(other.name),
      primitive(other.primitive),
      static_id(other.static_id),
      attributes(std::move(other.attributes)),
      inputs(std::move(other.inputs)),
      sources(std::move(other.sources)),
      first(other.first),
      info(std::exchange(other.info, nullptr)),
      results(std::move(other.results)) {}

namespace {

// The walk of one reading. Node::epoch marks what was met, Node::tape_index holds the number of its value.
class Reader {
  public:
    Reader(std::span<Node* const> arguments, Interpretation interpretation)
        : arguments_(arguments), interpretation_(interpretation), epoch_(next_epoch()) {
        for (std::size_t i = 0; i < arguments.size(); ++i) number(arguments[i], static_cast<int>(i));
        values_ = static_cast<int>(arguments.size());
    }

    TracedGraph read(std::span<Node* const> outputs) {
        for (Node* output : outputs) visit(output);
        for (Node* output : outputs) graph_.outputs.push_back(value_of(output));
        for (Node* argument : arguments_) graph_.arguments.push_back(NodeRef::share(resolved(argument)));
        return std::move(graph_);
    }

  private:
    void number(Node* node, int value) {
        node->epoch = epoch_;
        node->tape_index = static_cast<std::uint32_t>(value);
    }
    int value_of(const Node* node) const { return node->epoch == epoch_ ? static_cast<int>(node->tape_index) : -1; }

    Call* opaque_call(const Node* node) const {
        Call* call = call_of(node);
        return call && call->rules & interpretation_ ? call : nullptr;
    }

    // All results of a call are met as one: its first.
    Node* unit_of(Node* node) const {
        Call* call = opaque_call(node);
        return call ? call->results[0].get() : node;
    }

    void visit(Node* root) {
        push(unit_of(root));
        while (!stack_.empty()) {
            auto& [node, next] = stack_.back();
            Call* call = opaque_call(node);
            std::size_t count = call ? call->arguments.size() : node->n_inputs;
            if (next < count) {
                Node* input = call ? call->arguments[next].get() : node->inputs[next];
                ++next;
                push(unit_of(input));
                continue;
            }
            Node* done = node;
            stack_.pop_back();
            finish(done, call);
        }
    }

    void push(Node* node) {
        if (node->epoch == epoch_) return;
        number(node, -1);
        if (node->trace & kStopsGradients && interpretation_ != kVmap) return;
        if (node->n_inputs || opaque_call(node)) stack_.emplace_back(node, 0);
    }

    // What the op shall read: the argument itself and not its stand-in.
    Node* resolved(Node* input) const {
        bool mine = value_of(input) >= 0 && value_of(input) < static_cast<int>(arguments_.size());
        return mine && input->trace & kStandsForArgument && input->n_inputs ? input->inputs[0] : input;
    }

    void finish(Node* node, Call* call) {
        std::size_t count = call ? call->arguments.size() : node->n_inputs;
        auto input = [&](std::size_t i) { return call ? call->arguments[i].get() : node->inputs[i]; };
        bool dependent = false;
        for (std::size_t i = 0; i < count && !dependent; ++i) dependent = value_of(input(i)) >= 0;
        if (!dependent) return;
        TracedNode traced;
        traced.node = NodeRef::share(node);
        traced.name = call ? "call" : node->trace & kStopsGradients ? "stop_gradient" : node->primitive->c_name;
        traced.primitive = call ? 0 : node->primitive->id;
        traced.static_id = node->static_id;
        traced.attributes = node->attributes;
        traced.first = values_;
        for (std::size_t i = 0; i < count; ++i) {
            Node* given = input(i);
            Node* wanted = resolved(given);
            traced.sources.push_back(value_of(given));
            traced.inputs.push_back(NodeRef::share(wanted));
            if (wanted == given) continue;
            if (call) {
                call->arguments[i] = NodeRef::share(wanted);
            } else {
                node->inputs[i] = retain(wanted);
                release(given);
            }
        }
        if (call) {
            traced.info = Py_NewRef(call->info);
            for (auto& result : call->results) {
                number(result.get(), values_++);
                traced.results.push_back(NodeRef::share(result.get()));
            }
        } else {
            number(node, values_++);
        }
        graph_.nodes.push_back(std::move(traced));
    }

    std::span<Node* const> arguments_;
    Interpretation interpretation_;
    std::uint32_t epoch_;
    int values_ = 0;
    std::vector<std::pair<Node*, std::size_t>> stack_;
    TracedGraph graph_;
};

}  // namespace

std::string TracedGraph::describe() {
    std::string text;
    auto number = [&](std::int64_t value) { text.append(reinterpret_cast<const char*>(&value), sizeof value); };
    auto kind = [&](const Node* node) {
        number(static_cast<std::int64_t>(node->dtype) << 8 | node->rank);
        for (std::int64_t n : node->dims()) number(n);
    };
    number(static_cast<std::int64_t>(arguments.size()));
    for (auto& argument : arguments) kind(argument.get());
    number(static_cast<std::int64_t>(outputs.size()));
    for (int output : outputs) number(output);
    constants.clear();
    constant_inputs.clear();
    std::uint32_t epoch = next_epoch();
    for (auto& traced : nodes) {
        if (traced.info) return {};
        number(static_cast<std::int64_t>(traced.primitive) << 32 | traced.static_id);
        kind(traced.node.get());
        number(static_cast<std::int64_t>(traced.attributes->ints.size() << 32 | traced.attributes->floats.size()));
        for (std::int64_t value : traced.attributes->ints) number(value);
        for (double value : traced.attributes->floats) number(std::bit_cast<std::int64_t>(value));
        number(static_cast<std::int64_t>(traced.inputs.size()));
        for (std::size_t i = 0; i < traced.inputs.size(); ++i) {
            if (traced.sources[i] >= 0) {
                number(traced.sources[i]);
                continue;
            }
            Node* constant = traced.inputs[i].get();
            if (constant->epoch != epoch) {
                constant->epoch = epoch;
                constant->tape_index = static_cast<std::uint32_t>(constants.size());
                constants.push_back(NodeRef::share(constant));
            }
            constant_inputs.push_back(static_cast<int>(constant->tape_index));
            number(-1 - static_cast<std::int64_t>(constant->tape_index));
            kind(constant);
        }
    }
    return text;
}

TracedGraph read_trace(std::span<Node* const> outputs, std::span<Node* const> arguments,
                       Interpretation interpretation) {
    return Reader(arguments, interpretation).read(outputs);
}

}  // namespace mlxlite
