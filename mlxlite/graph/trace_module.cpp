// The Python face of traces and templates. It only translates.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/bindings.h"
#include "mlxlite/graph/template.h"
#include "mlxlite/graph/trace.h"

namespace mlxlite {

namespace {

Node* array_node(nb::handle a) {
    if (!is_array(a.ptr())) throw type_error(std::string("expected an array, got ") + Py_TYPE(a.ptr())->tp_name);
    return node_of(a.ptr());
}

std::vector<Node*> array_nodes(nb::list arrays) {
    std::vector<Node*> nodes;
    for (nb::handle a : arrays) nodes.push_back(array_node(a));
    return nodes;
}

nb::object array_of(const NodeRef& node) { return nb::steal(wrap(retain(node.get()))); }

nb::list arrays_of(const std::vector<NodeRef>& nodes) {
    nb::list arrays;
    for (auto& node : nodes) arrays.append(array_of(node));
    return arrays;
}

nb::list finished(std::vector<NodeRef> nodes) {
    nb::list arrays;
    for (auto& node : nodes) arrays.append(nb::steal(finish(node.release())));
    return arrays;
}

}  // namespace

void bind_traces(nb::module_& m) {
    nb::class_<TracedNode>(m, "TracedNode", "An op (or call) that depends on the arguments of a trace.")
        .def_ro("name", &TracedNode::name, "The primitive's name; call for a function with rules of its own.")
        .def_prop_ro("inputs", [](const TracedNode& n) { return translated([&] { return arrays_of(n.inputs); }); })
        .def_prop_ro("sources", [](const TracedNode& n) { return int_tuple(n.sources); })
        .def_ro("first", &TracedNode::first)
        .def_prop_ro("output", [](const TracedNode& n) { return translated([&] { return array_of(n.node); }); })
        .def_prop_ro("outputs", [](const TracedNode& n) { return translated([&] { return arrays_of(n.results); }); })
        .def_prop_ro("info", [](const TracedNode& n) { return n.info ? nb::borrow(n.info) : nb::none(); })
        .def_prop_ro("shape", [](const TracedNode& n) { return int_tuple(n.node->dims()); })
        .def_prop_ro("dtype", [](const TracedNode& n) { return nb::steal(dtype_object(n.node->dtype)); })
        .def_prop_ro("static", [](const TracedNode& n) { return nb::borrow(static_value(n.static_id)); })
        .def_prop_ro("ints", [](const TracedNode& n) { return int_tuple(n.attributes->ints); })
        .def_prop_ro("floats", [](const TracedNode& n) {
            nb::list floats;
            for (double f : n.attributes->floats) floats.append(nb::float_(f));
            return nb::tuple(floats);
        });

    m.def("is_tracing", [] { return tracing(); });
    m.def("begin_trace", [] { begin_trace(); });
    m.def("end_trace", [] { end_trace(); });
    m.def("stand_in",
          [](nb::handle a) { return translated([&] { return nb::steal(wrap(stand_in(array_node(a)))); }); });
    m.def("withdraw", [](nb::list arrays) {
        // Wherever the function left its stand-ins, they become what they stood for.
        translated([&] {
            for (nb::handle a : arrays) {
                Node* node = array_node(a);
                if (!(node->trace & kStandsForArgument) || !node->n_inputs) continue;
                NodeRef argument = NodeRef::share(node->inputs[0]);
                nb::object original = nb::steal(wrap(argument.release()));
                a.attr("_replace")(original);
            }
        });
    });
    m.def("abstract_argument", [](const std::vector<std::int64_t>& shape, nb::handle dtype) {
        return translated([&] { return nb::steal(wrap(abstract_argument(dtype_from(dtype.ptr()), shape))); });
    });
    m.def("stop_gradient",
          [](nb::handle a) { return translated([&] { return nb::steal(wrap(stop_gradient(array_node(a)))); }); });
    m.def("stops_gradients",
          [](nb::handle a) { return translated([&] { return (array_node(a)->trace & kStopsGradients) != 0; }); });
    m.def("record_call", [](nb::handle info, unsigned rules, nb::list arguments, nb::list results) {
        return translated([&] {
            auto given = array_nodes(arguments), made = array_nodes(results);
            return arrays_of(record_call(info.ptr(), rules, given, made));
        });
    });
    nb::class_<TracedGraph>(m, "TracedGraph", "What leads from the arguments of a trace to outputs.")
        .def(
            "take_nodes",
            [](TracedGraph& g) {
                nb::list nodes;
                for (auto& node : g.nodes) nodes.append(nb::cast(std::move(node)));
                g.nodes.clear();
                return nodes;
            },
            "The nodes, producers first; they are taken out of the graph.")
        .def(
            "peek_nodes",
            [](TracedGraph& g) {
                nb::list nodes;
                for (auto& node : g.nodes) nodes.append(nb::cast(&node, nb::rv_policy::reference));
                return nodes;
            },
            "The nodes, as long as the graph has them.")
        .def_prop_ro("outputs", [](const TracedGraph& g) { return int_tuple(g.outputs); })
        .def_prop_ro("n_arguments", [](const TracedGraph& g) { return g.arguments.size(); })
        .def_prop_ro("n_nodes", [](const TracedGraph& g) { return g.nodes.size(); })
        .def_prop_ro("constant_inputs", [](const TracedGraph& g) { return int_tuple(g.constant_inputs); })
        .def("describe",
             [](TracedGraph& g) {
                 std::string text = g.describe();
                 return nb::bytes(text.data(), text.size());
             })
        .def("values", [](const TracedGraph& g) {
            // All that derivatives may read: arguments, constants, and the nodes' results.
            return translated([&] {
                nb::list arrays = arrays_of(g.arguments);
                for (auto& node : g.constants) arrays.append(array_of(node));
                for (auto& traced : g.nodes) arrays.append(array_of(traced.node));
                return arrays;
            });
        });
    m.def("read_trace", [](nb::list outputs, nb::list arguments, unsigned interpretation) {
        return translated([&] {
            auto of_outputs = array_nodes(outputs), of_arguments = array_nodes(arguments);
            return read_trace(of_outputs, of_arguments, static_cast<Interpretation>(interpretation));
        });
    });
    nb::class_<Template>(m, "Template", "A recorded graph that is recorded again for other arguments.")
        .def("__init__",
             [](Template* self, nb::list outputs, nb::list arguments) {
                 translated([&] {
                     auto of_outputs = array_nodes(outputs), of_arguments = array_nodes(arguments);
                     new (self) Template(of_outputs, of_arguments);
                 });
             })
        .def_prop_ro("size", &Template::size, "How many ops a call records.")
        .def("__call__",
             [](const Template& self, nb::list arguments) {
                 return translated([&] { return finished(self.record(array_nodes(arguments))); });
             })
        .def("of_graph", [](const Template& self, const TracedGraph& graph, nb::list more) {
            // The same with the values of a graph for the first arguments, without making Python arrays of them.
            return translated([&] {
                std::vector<Node*> given;
                for (auto& node : graph.arguments) given.push_back(node.get());
                for (auto& node : graph.constants) given.push_back(node.get());
                for (auto& traced : graph.nodes) given.push_back(traced.node.get());
                for (nb::handle a : more) given.push_back(array_node(a));
                return finished(self.record(given));
            });
        });
}

}  // namespace mlxlite
