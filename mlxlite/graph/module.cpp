// The Python face of the graph: types, dtypes, devices, evaluation and hooks. It only translates.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <optional>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/bindings.h"
#include "mlxlite/graph/errors.h"
#include "mlxlite/graph/evaluate.h"
#include "mlxlite/graph/host.h"
#include "mlxlite/graph/inspect.h"
#include "mlxlite/graph/observe.h"
#include "mlxlite/graph/primitive.h"
#include "mlxlite/graph/remembered.h"
#include "mlxlite/graph/structure.h"
#include "mlxlite/graph/tape_view.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mlxlite {

namespace {

struct PyDtype {
    Dtype value;
};
struct PyDevice {
    Device type;
    int index = 0;
};
struct PyStream {
    Device type;
    int index = 0;
};

std::array<PyObject*, kDtypeCount> dtype_objects{};
int current_device = -1;
std::array<PyStream, 2> default_streams{PyStream{Device::cpu, 0}, PyStream{Device::gpu, 1}};
int stream_count = 2;

const char* name_of(Device d) { return d == Device::cpu ? "cpu" : "gpu"; }

PyDevice device_from(nb::handle object) {
    PyDevice device;
    if (nb::try_cast(object, device)) return device;
    Device type;
    if (nb::try_cast(object, type)) return {type, 0};
    throw nb::type_error("expected a Device or a device type such as mx.cpu or mx.gpu");
}

// Arrays below nested lists, tuples and dicts. Other leaves are an error unless None.
void flatten(nb::handle tree, std::vector<Node*>& nodes) {
    PyObject* o = tree.ptr();
    if (is_array(o)) {
        nodes.push_back(node_of(o));
    } else if (PyList_Check(o) || PyTuple_Check(o)) {
        for (nb::handle item : nb::borrow<nb::sequence>(tree)) flatten(item, nodes);
    } else if (PyDict_Check(o)) {
        for (nb::handle item : nb::borrow<nb::dict>(tree).values()) flatten(item, nodes);
    }
}

void evaluate_trees(nb::args trees, bool wait) {
    std::vector<Node*> nodes;
    for (nb::handle tree : trees) {
        if (Py_EnterRecursiveCall(" while flattening a tree of arrays")) throw nb::python_error();
        flatten(tree, nodes);
        Py_LeaveRecursiveCall();
    }
    translated([&] {
        std::vector<NodeRef> keep;
        std::vector<Node*> roots;
        for (Node* node : nodes)
            if (node->role != Role::scalar) {
                if (node->role == Role::leaf) keep.push_back(NodeRef::share(node));
                roots.push_back(node);
            }
        evaluate(roots, wait);
    });
}

struct TapeNode {
    std::string role, name, kind;
    nb::object inputs, shape, dtype, statics, ints, floats, strides;
    bool is_output, donatable;
    std::uint32_t size_slot, scalar_slot, n_uses;
};

struct TapeView {
    nb::list nodes;
    nb::list outputs, leaves, sizes, scalars, scalar_dtypes;
    std::string device;
    bool in_cache = false;
};

TapeView view_of(const Tape& tape) {
    TapeView view;
    view.device = name_of(tape.device);
    const std::uint32_t* input = tape.inputs.data();
    for (const TapeEntry& entry : tape.entries) {
        const Node* node = entry.node;
        static const char* const roles[] = {"leaf", "scalar", "op"};
        TapeNode item;
        item.role = roles[static_cast<int>(node->role)];
        item.dtype = nb::steal(dtype_object(node->dtype));
        item.shape = int_tuple(node->dims());
        item.inputs = nb::tuple();
        item.ints = nb::tuple();
        item.floats = nb::tuple();
        item.statics = nb::none();
        item.strides = nb::none();
        item.is_output = entry.flags & kOutput;
        item.donatable = entry.flags & kDonatable;
        item.size_slot = entry.size_slot;
        item.scalar_slot = entry.scalar_slot;
        item.n_uses = entry.uses;
        if (entry.flags & kStrided) item.strides = int_tuple(std::span<const std::int64_t>(node->strides, node->rank));
        if (node->role == Role::op) {
            item.name = node->primitive->c_name;
            item.kind = PyUnicode_AsUTF8(node->primitive->kind_name);
            item.inputs = int_tuple(std::span<const std::uint32_t>(input, node->n_inputs));
            input += node->n_inputs;
            item.statics = nb::borrow(static_value(node->static_id));
            if (node->attributes) {
                item.ints = int_tuple(node->attributes->ints);
                nb::list floats;
                for (double f : node->attributes->floats) floats.append(nb::float_(f));
                item.floats = nb::tuple(floats);
            }
        }
        view.nodes.append(nb::cast(std::move(item)));
    }
    for (auto i : tape.outputs) view.outputs.append(nb::int_(i));
    for (auto i : tape.leaves) view.leaves.append(nb::int_(i));
    for (auto s : tape.sizes) view.sizes.append(nb::int_(s));
    for (std::size_t i = 0; i < tape.scalars.size(); ++i) {
        view.scalars.append(nb::steal(scalar_to_python(tape.scalar_dtypes[i], tape.scalars[i])));
        view.scalar_dtypes.append(nb::steal(dtype_object(tape.scalar_dtypes[i])));
    }
    return view;
}

nb::list tapes_of(nb::handle tree, std::optional<Device> device) {
    std::vector<Node*> roots;
    flatten(tree, roots);
    nb::list views;
    translated([&] {
        inspect(roots, device, [&](const Tape& tape, bool in_cache) {
            TapeView view = view_of(tape);
            view.in_cache = in_cache;
            views.append(nb::cast(std::move(view)));
        });
    });
    return views;
}

nb::dict cache_info_of(Device device) {
    nb::dict info;
    Backend* b = registered(device);
    CacheCounters c = b ? b->plans.counters : CacheCounters{};
    info["plans"] = b ? b->plans.size() : 0;
    info["capacity"] = b ? b->plans.capacity() : 0;
    info["hits"] = c.hits;
    info["misses"] = c.misses;
    info["builds"] = c.builds;
    info["evictions"] = c.evictions;
    return info;
}

Device device_named(const std::string& name) {
    if (name == "cpu") return Device::cpu;
    if (name == "gpu") return Device::gpu;
    throw std::invalid_argument("unknown device '" + name + "': expected 'cpu' or 'gpu'");
}

}  // namespace

PyObject* make_tape_view(const Tape& tape) { return nb::cast(view_of(tape)).release().ptr(); }

PyObject* dtype_object(Dtype dtype) { return Py_NewRef(dtype_objects[static_cast<std::size_t>(dtype)]); }

Dtype dtype_from(PyObject* object) {
    for (std::size_t i = 0; i < dtype_objects.size(); ++i)
        if (dtype_objects[i] == object) return static_cast<Dtype>(i);
    throw type_error(std::string("expected a dtype such as mx.float32, got ") + Py_TYPE(object)->tp_name);
}

Device default_device() {
    if (current_device < 0) {
        std::string name = "cpu";
        if (hooks().default_device) {
            PyObject* result = PyObject_CallNoArgs(hooks().default_device);
            if (!result) throw PythonError{};
            name = PyUnicode_AsUTF8(result);
            Py_DECREF(result);
        }
        current_device = static_cast<int>(device_named(name));
    }
    return static_cast<Device>(current_device);
}

void set_default_device(Device device) {
    backend(device);  // raises here, not at the first evaluation, if there is no such device
    current_device = static_cast<int>(device);
}

Device device_of(PyObject* stream) {
    if (!stream || stream == Py_None) return default_device();
    PyStream s;
    if (nb::try_cast(nb::handle(stream), s)) return s.type;
    PyDevice d;
    if (nb::try_cast(nb::handle(stream), d)) return d.type;
    Device type;
    if (nb::try_cast(nb::handle(stream), type)) return type;
    throw type_error(std::string("stream must be a Stream or a Device, got ") + Py_TYPE(stream)->tp_name);
}

NB_MODULE(_graph, m) {
    nb::set_leak_warnings(false);  // dtypes, primitives and cached plans live as long as the process
    m.doc() = "The lazy graph: arrays, primitives, tapes, the plan cache.";

    nb::class_<PyDtype>(m, "Dtype", "An element type.")
        .def_prop_ro("name", [](const PyDtype& d) { return std::string(mlxlite::name_of(d.value)); })
        .def_prop_ro(
            "size", [](const PyDtype& d) { return size_of(d.value); }, "Bytes of one element.")
        .def_prop_ro("category",
                     [](const PyDtype& d) {
                         static const char* const names[] = {"bool", "unsigned", "signed", "floating", "complex"};
                         return std::string(names[static_cast<int>(category_of(d.value))]);
                     })
        .def("__repr__", [](const PyDtype& d) { return std::string("mlxlite.core.") + mlxlite::name_of(d.value); })
        .def("__reduce__", [](const PyDtype& d) {
            return nb::make_tuple(nb::module_::import_("mlxlite._graph").attr("dtype_named"),
                                  nb::make_tuple(std::string(mlxlite::name_of(d.value))));
        });
    for (int i = 0; i < kDtypeCount; ++i) {
        auto dtype = static_cast<Dtype>(i);
        nb::object object = nb::cast(PyDtype{dtype});
        dtype_objects[static_cast<std::size_t>(i)] = object.inc_ref().ptr();
        m.attr(dtype == Dtype::bool_ ? "bool_" : mlxlite::name_of(dtype)) = object;
    }
    m.def("dtype_named", [](const std::string& name) {
        for (int i = 0; i < kDtypeCount; ++i)
            if (name == mlxlite::name_of(static_cast<Dtype>(i)))
                return nb::borrow(dtype_objects[static_cast<std::size_t>(i)]);
        throw std::invalid_argument("unknown dtype '" + name + "'");
    });
    m.def("promote_types", [](nb::handle a, nb::handle b) {
        return translated([&] { return nb::steal(dtype_object(promote(dtype_from(a.ptr()), dtype_from(b.ptr())))); });
    });

    nb::enum_<Device>(m, "DeviceType").value("cpu", Device::cpu).value("gpu", Device::gpu).export_values();
    nb::class_<PyDevice>(m, "Device", "A device: a type and an index.")
        .def(nb::init<Device, int>(), "type"_a, "index"_a = 0)
        .def_ro("type", &PyDevice::type)
        .def_ro("index", &PyDevice::index)
        .def("__eq__",
             [](const PyDevice& a, nb::handle b) {
                 PyDevice d;
                 Device type;
                 if (nb::try_cast(b, d)) return d.type == a.type && d.index == a.index;
                 return nb::try_cast(b, type) && type == a.type;
             })
        .def("__hash__", [](const PyDevice& d) { return static_cast<int>(d.type) * 64 + d.index; })
        .def("__repr__", [](const PyDevice& d) {
            return std::string("Device(") + name_of(d.type) + ", " + std::to_string(d.index) + ")";
        });
    nb::class_<PyStream>(m, "Stream", "An order of execution on a device.")
        .def_prop_ro("device", [](const PyStream& s) { return PyDevice{s.type, 0}; })
        .def_ro("index", &PyStream::index)
        .def("__eq__",
             [](const PyStream& a, nb::handle b) {
                 PyStream s;
                 return nb::try_cast(b, s) && s.type == a.type && s.index == a.index;
             })
        .def("__hash__", [](const PyStream& s) { return s.index; })
        .def("__repr__", [](const PyStream& s) {
            return std::string("Stream(Device(") + name_of(s.type) + ", 0), " + std::to_string(s.index) + ")";
        });
    m.def("default_device", [] { return translated([] { return PyDevice{default_device(), 0}; }); });
    m.def("set_default_device", [](nb::handle d) {
        PyDevice device = device_from(d);
        if (device.index != 0) throw std::invalid_argument("there is one device of each type: index must be 0");
        translated([&] { set_default_device(device.type); });
    });
    m.def("default_stream",
          [](nb::handle d) { return default_streams[static_cast<std::size_t>(device_from(d).type)]; });
    m.def("new_stream", [](nb::handle d) { return PyStream{device_from(d).type, stream_count++}; });
    m.def("set_default_stream", [](const PyStream& s) { default_streams[static_cast<std::size_t>(s.type)] = s; });

    m.attr("array") = nb::steal(make_array_type());
    m.attr("Primitive") = nb::steal(make_primitive_type());
    m.attr("Remembered") = nb::steal(make_remembered_type());

    m.def("set_hooks", [](nb::kwargs kwargs) {
        Hooks& h = hooks();
        const std::pair<const char*, PyObject**> slots[] = {{"construct", &h.construct},
                                                            {"getitem", &h.getitem},
                                                            {"setitem", &h.setitem},
                                                            {"repr", &h.repr},
                                                            {"default_device", &h.default_device},
                                                            {"empty", &h.empty},
                                                            {"address", &h.address},
                                                            {"contiguous", &h.contiguous},
                                                            {"load_backend", &h.load_backend},
                                                            {"operators", &h.operators}};
        for (auto [key, value] : kwargs) {
            bool found = false;
            for (auto& [name, slot] : slots)
                if (nb::cast<std::string>(key) == name) {
                    Py_XSETREF(*slot, Py_NewRef(value.ptr()));
                    found = true;
                }
            if (!found) throw nb::type_error("unknown hook");
        }
    });
    m.def(
        "register_backend",
        [](const std::string& device, nb::handle lower, nb::handle capsule) {
            translated([&] { register_backend(device_named(device), lower.ptr(), capsule.ptr()); });
        },
        "device"_a, "lower"_a, "capsule"_a = nb::none());
    m.def("is_registered", [](const std::string& device) { return registered(device_named(device)) != nullptr; });

    m.def("eval", [](nb::args trees) { evaluate_trees(trees, true); });
    m.def(
        "tapes",
        [](nb::handle tree, std::optional<std::string> device) {
            std::optional<Device> where;
            if (device) where = device_named(*device);
            return tapes_of(tree, where);
        },
        "tree"_a, "device"_a = nb::none(),
        "What evaluating a tree of arrays would run, without running it: the tape of each part, in order.");
    m.def(
        "set_observer",
        [](nb::handle observer) {
            EvaluationLock between_evaluations;  // each is observed from its start to its end, or not at all
            set_observer(observer.ptr());
        },
        "observer"_a.none(),
        "Install the object that is told of evaluations (observe.h has its methods); None for nobody.");
    m.def(
        "try_matmul",
        [](nb::handle a, nb::handle b, nb::handle stream) -> nb::object {
            // None for what is unusual or wrong, here and in the two functions after it: the caller then says what is.
            if (!is_array(a.ptr()) || !is_array(b.ptr())) return nb::none();
            return translated([&]() -> nb::object {
                Node* found = try_matmul(node_of(a.ptr()), node_of(b.ptr()), device_of(stream.ptr()));
                return found ? nb::steal(finish(found)) : nb::none();
            });
        },
        "a"_a.none(), "b"_a.none(), "stream"_a.none());
    m.def(
        "try_addmm",
        [](nb::handle c, nb::handle a, nb::handle b, double alpha, double beta, nb::handle stream) -> nb::object {
            if (!is_array(c.ptr()) || !is_array(a.ptr()) || !is_array(b.ptr())) return nb::none();
            return translated([&]() -> nb::object {
                Device device = device_of(stream.ptr());
                Node* found = try_addmm(node_of(c.ptr()), node_of(a.ptr()), node_of(b.ptr()), alpha, beta, device);
                return found ? nb::steal(finish(found)) : nb::none();
            });
        },
        "c"_a.none(), "a"_a.none(), "b"_a.none(), "alpha"_a, "beta"_a, "stream"_a.none());
    m.def(
        "try_reduce",
        [](nb::handle op, nb::handle a, nb::handle axis, nb::handle keepdims, nb::handle dtype,
           nb::handle stream) -> nb::object {
            if (!is_primitive(op.ptr())) throw nb::type_error("[try_reduce] expects a primitive");
            if (!is_array(a.ptr()) || !PyBool_Check(keepdims.ptr())) return nb::none();
            return translated([&]() -> nb::object {
                Node* node = node_of(a.ptr());
                if (dtype.is_none() && !is_inexact(node->dtype)) return nb::none();
                Dtype result = dtype.is_none() ? node->dtype : dtype_from(dtype.ptr());
                auto* primitive = reinterpret_cast<Primitive*>(op.ptr());
                Device device = device_of(stream.ptr());
                Node* found = try_reduce(primitive, node, axis.ptr(), keepdims.ptr() == Py_True, result, device);
                return found ? nb::steal(finish(found)) : nb::none();
            });
        },
        "op"_a, "a"_a.none(), "axis"_a.none(), "keepdims"_a.none(), "dtype"_a.none(), "stream"_a.none());
    m.def("async_eval", [](nb::args trees) { evaluate_trees(trees, false); });
    m.def("synchronize", [] { translated([] { synchronize_all(); }); });
    m.def("is_evaluated", [](nb::handle a) { return is_array(a.ptr()) && node_of(a.ptr())->role != Role::op; });
    m.def("wait", [](nb::handle a) { translated([&] { wait_for(node_of(a.ptr())); }); });
    m.def("device_of", [](nb::handle a) { return PyDevice{node_of(a.ptr())->device, 0}; });

    m.def(
        "reshape",
        [](nb::handle a, const std::vector<std::int64_t>& shape, nb::handle stream) {
            if (!is_array(a.ptr())) throw nb::type_error("[reshape] expects an array");
            return translated(
                [&] { return nb::steal(wrap(record_reshape(node_of(a.ptr()), shape, device_of(stream.ptr())))); });
        },
        "a"_a, "shape"_a, "stream"_a = nb::none());
    m.def(
        "astype",
        [](nb::handle a, nb::handle dtype, nb::handle stream) {
            if (!is_array(a.ptr())) throw nb::type_error("[astype] expects an array");
            return translated([&] {
                return nb::steal(
                    wrap(record_astype(node_of(a.ptr()), dtype_from(dtype.ptr()), device_of(stream.ptr()))));
            });
        },
        "a"_a, "dtype"_a, "stream"_a = nb::none());
    m.def(
        "contiguous",
        [](nb::handle a, nb::handle stream) {
            if (!is_array(a.ptr())) throw nb::type_error("[contiguous] expects an array");
            return translated([&] { return nb::steal(wrap(record_copy(node_of(a.ptr()), device_of(stream.ptr())))); });
        },
        "a"_a, "stream"_a = nb::none());
    m.def("as_array", [](nb::handle value) {
        return translated([&] { return nb::steal(wrap(operand(value.ptr(), nullptr).release())); });
    });
    m.def("weak_operand", [](nb::handle value, nb::handle like) {
        return translated([&] { return nb::steal(wrap(operand(value.ptr(), node_of(like.ptr())).release())); });
    });
    m.def("scalar", [](nb::handle value, nb::handle dtype) {
        // A number of a given dtype that stays data: it never enters a key.
        return translated([&] {
            Node like;
            like.dtype = dtype_from(dtype.ptr());
            NodeRef node = operand(value.ptr(), &like);
            if (node->dtype == like.dtype) return nb::steal(wrap(node.release()));
            return nb::steal(wrap(record_astype(node.get(), like.dtype, default_device())));
        });
    });
    m.def("from_numpy", [](nb::handle ndarray, nb::handle dtype) {
        auto shape = nb::cast<std::vector<std::int64_t>>(ndarray.attr("shape"));
        return translated(
            [&] { return nb::steal(wrap(leaf_from_ndarray(ndarray.ptr(), dtype_from(dtype.ptr()), shape))); });
    });
    m.def("to_numpy", [](nb::handle a) {
        return translated([&] {
            NodeRef node = NodeRef::share(node_of(a.ptr()));
            Node* roots[] = {node.get()};
            if (node->role == Role::op) evaluate(roots, true);
            return nb::steal(to_ndarray(node.get()));
        });
    });

    m.def("cache_info", [] {
        nb::dict info;
        info["cpu"] = cache_info_of(Device::cpu);
        info["gpu"] = cache_info_of(Device::gpu);
        return info;
    });
    m.def("clear_plans", [] {
        for (Device d : {Device::cpu, Device::gpu})
            if (Backend* b = registered(d)) b->plans.clear();
    });
    m.def("set_plan_capacity", [](const std::string& device, std::size_t capacity) {
        translated([&] {
            Device where = device_named(device);
            PlanCache& plans = backend(where).plans;
            auto before = plans.counters.evictions;
            plans.set_capacity(capacity);
            report_evictions(where, plans.counters.evictions - before);
        });
    });
    m.def("pending", [] {
        nb::dict info;
        info["ops"] = pending().ops;
        info["captive_bytes"] = pending().captive_bytes;
        return info;
    });
    m.def(
        "set_budget",
        [](std::int64_t ops, std::int64_t bytes) {
            if (ops < 1 || bytes < 1) throw std::invalid_argument("the budget must be positive");
            budget() = {ops, bytes};
        },
        "ops"_a, "bytes"_a);
    m.def("budget", [] {
        nb::dict info;
        info["ops"] = budget().ops;
        info["bytes"] = budget().bytes;
        return info;
    });

    bind_dlpack(m);
    bind_traces(m);
    bind_trees(m);

    nb::class_<TapeNode>(m, "TapeNode")
        .def_ro("role", &TapeNode::role)
        .def_ro("name", &TapeNode::name)
        .def_ro("kind", &TapeNode::kind)
        .def_ro("inputs", &TapeNode::inputs)
        .def_ro("shape", &TapeNode::shape)
        .def_ro("dtype", &TapeNode::dtype)
        .def_ro("static", &TapeNode::statics)
        .def_ro("ints", &TapeNode::ints)
        .def_ro("floats", &TapeNode::floats)
        .def_ro("strides", &TapeNode::strides)
        .def_ro("is_output", &TapeNode::is_output)
        .def_ro("donatable", &TapeNode::donatable)
        .def_ro("size_slot", &TapeNode::size_slot)
        .def_ro("scalar_slot", &TapeNode::scalar_slot)
        .def_ro("n_uses", &TapeNode::n_uses);
    nb::class_<TapeView>(m, "Tape")
        .def_ro("nodes", &TapeView::nodes)
        .def_ro("outputs", &TapeView::outputs)
        .def_ro("leaves", &TapeView::leaves)
        .def_ro("sizes", &TapeView::sizes)
        .def_ro("scalars", &TapeView::scalars)
        .def_ro("scalar_dtypes", &TapeView::scalar_dtypes)
        .def_ro("device", &TapeView::device)
        .def_ro("in_cache", &TapeView::in_cache)
        .def_prop_ro("n_sizes", [](const TapeView& t) { return t.sizes.size(); })
        .def_prop_ro("n_scalars", [](const TapeView& t) { return t.scalars.size(); });
}

}  // namespace mlxlite
