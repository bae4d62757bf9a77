#include "mlxlite/graph/primitive.h"

#include <structmember.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/errors.h"
#include "mlxlite/graph/evaluate.h"
#include "mlxlite/graph/trace.h"

namespace mlxlite {

PyTypeObject* primitive_type = nullptr;

namespace {

std::vector<Primitive*>& registry() {
    static auto* list = new std::vector<Primitive*>;
    return *list;
}

// Structural primitives that the core itself records.
Primitive* builtin(const char* name);

[[noreturn]] void reject(const Primitive* p, Dtype dtype, const char* wanted) {
    throw std::invalid_argument("[" + std::string(p->c_name) + "] Not supported for " + name_of(dtype) + "; " + wanted);
}

void check_accepts(const Primitive* p, Dtype dtype) {
    switch (p->accepts) {
        case Accepts::any:
            return;
        case Accepts::numeric:
            if (dtype == Dtype::bool_) reject(p, dtype, "cast to a number first, or use a logical function.");
            return;
        case Accepts::integer:
            if (!is_integral(dtype)) reject(p, dtype, "it takes integers and bool: cast with astype.");
            return;
        case Accepts::real:
            if (dtype == Dtype::complex64) reject(p, dtype, "it takes real numbers: take real() or abs() first.");
            return;
    }
}

std::string shape_text(std::span<const std::int64_t> shape) {
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? "," : "") + std::to_string(shape[i]);
    return text + ")";
}

// Broadcast `shape` (of `rank` dims) with another shape, in place.
void broadcast_into(const Primitive* p, std::int64_t* shape, int& rank, std::span<const std::int64_t> other) {
    int n = static_cast<int>(other.size());
    if (n > rank) {
        std::copy_backward(shape, shape + rank, shape + n);
        std::fill(shape, shape + (n - rank), 1);
        rank = n;
    }
    for (int i = 0; i < n; ++i) {
        std::int64_t& mine = shape[rank - n + i];
        if (mine == other[i] || other[i] == 1) continue;
        if (mine == 1) {
            mine = other[i];
            continue;
        }
        throw std::invalid_argument("[" + std::string(p->c_name) + "] Shapes " +
                                    shape_text({shape, static_cast<std::size_t>(rank)}) + " and " + shape_text(other) +
                                    " cannot be broadcast.");
    }
}

NodeRef cast(Node* a, Dtype dtype, Device device) { return NodeRef(record_astype(a, dtype, device)); }

}  // namespace

Node* record_unary(Primitive* p, Node* a, Device device) {
    check_accepts(p, a->dtype);
    Dtype in = a->dtype, out = in;
    switch (static_cast<UnaryRule>(p->rule)) {
        case UnaryRule::same:
            break;
        case UnaryRule::inexact:
            if (!is_inexact(in)) in = Dtype::float32;
            out = in;
            break;
        case UnaryRule::boolean:
            out = Dtype::bool_;
            break;
        case UnaryRule::real:
            if (in == Dtype::complex64) out = Dtype::float32;
            break;
    }
    NodeRef converted = in == a->dtype ? NodeRef::share(a) : cast(a, in, device);
    Node* inputs[] = {converted.get()};
    return new_op(p, out, device, inputs, a->dims());
}

Node* record_binary(Primitive* p, Node* a, Node* b, Device device) {
    check_accepts(p, a->dtype);
    check_accepts(p, b->dtype);
    Dtype in = promote(a->dtype, b->dtype), out = in;
    switch (static_cast<BinaryRule>(p->rule)) {
        case BinaryRule::promote:
            break;
        case BinaryRule::inexact:
            if (!is_inexact(in)) in = Dtype::float32;
            out = in;
            break;
        case BinaryRule::compare:
            out = Dtype::bool_;
            break;
        case BinaryRule::logical:
            in = out = Dtype::bool_;
            break;
    }
    std::int64_t shape[kMaxRank];
    int rank = a->rank;
    std::copy(a->shape, a->shape + rank, shape);
    broadcast_into(p, shape, rank, b->dims());
    NodeRef ca, cb;
    if (a->dtype != in) a = (ca = cast(a, in, device)).get();
    if (b->dtype != in) b = (cb = cast(b, in, device)).get();
    Node* inputs[] = {a, b};
    return new_op(p, out, device, inputs, {shape, static_cast<std::size_t>(rank)});
}

Node* record_select(Primitive* p, Node* condition, Node* x, Node* y, Device device) {
    Dtype out = promote(x->dtype, y->dtype);
    std::int64_t shape[kMaxRank];
    int rank = condition->rank;
    std::copy(condition->shape, condition->shape + rank, shape);
    broadcast_into(p, shape, rank, x->dims());
    broadcast_into(p, shape, rank, y->dims());
    NodeRef c = condition->dtype == Dtype::bool_ ? NodeRef::share(condition) : cast(condition, Dtype::bool_, device);
    NodeRef cx = x->dtype == out ? NodeRef::share(x) : cast(x, out, device);
    NodeRef cy = y->dtype == out ? NodeRef::share(y) : cast(y, out, device);
    Node* inputs[] = {c.get(), cx.get(), cy.get()};
    return new_op(p, out, device, inputs, {shape, static_cast<std::size_t>(rank)});
}

Node* record_astype(Node* a, Dtype dtype, Device device) {
    if (a->dtype == dtype) return retain(a);
    Node* inputs[] = {a};
    return new_op(builtin("astype"), dtype, device, inputs, a->dims());
}

Node* record_argument(Dtype dtype, std::span<const std::int64_t> shape) {
    return new_op(builtin("argument"), dtype, Device::cpu, {}, shape);
}

Node* record_copy(Node* a, Device device) {
    Node* inputs[] = {a};
    return new_op(builtin("copy"), a->dtype, device, inputs, a->dims());
}

namespace {

// Runs of input dims and of output dims, four bounds a run: every run has a dim of one or the other.
using Groups = std::array<std::uint8_t, 4 * 2 * kMaxRank + 1>;

// Which runs of input dims make which runs of output dims: the least that must stay the same for a plan to stay valid.
// The number of bounds comes last.
Groups reshape_groups(std::span<const std::int64_t> in, std::span<const std::int64_t> out) {
    Groups flat{};
    std::size_t i = 0, j = 0, n = 0;
    bool empty = std::find(in.begin(), in.end(), 0) != in.end();
    if (empty) {
        for (std::size_t v : {std::size_t{0}, in.size(), std::size_t{0}, out.size()})
            flat[n++] = static_cast<std::uint8_t>(v);
    } else {
        while (i < in.size() || j < out.size()) {
            std::size_t i0 = i, j0 = j;
            std::int64_t pi = i < in.size() ? in[i++] : 1;
            std::int64_t pj = j < out.size() ? out[j++] : 1;
            while (pi != pj) {
                if (pi < pj)
                    pi *= in[i++];
                else
                    pj *= out[j++];
            }
            for (std::size_t v : {i0, i, j0, j}) flat[n++] = static_cast<std::uint8_t>(v);
        }
    }
    flat.back() = static_cast<std::uint8_t>(n);
    return flat;
}

std::uint32_t reshape_static(const Groups& flat) {
    static auto* known = new std::map<Groups, std::uint32_t>;
    if (auto found = known->find(flat); found != known->end()) return found->second;
    std::size_t n = flat.back() / 4;
    PyObject* groups = PyTuple_New(static_cast<Py_ssize_t>(n));
    for (std::size_t g = 0; groups && g < n; ++g)
        PyTuple_SET_ITEM(groups, static_cast<Py_ssize_t>(g),
                         Py_BuildValue("(iiii)", flat[4 * g], flat[4 * g + 1], flat[4 * g + 2], flat[4 * g + 3]));
    PyObject* attributes = groups ? Py_BuildValue("(N)", groups) : nullptr;
    Owned owner(attributes);
    return (*known)[flat] = intern_static(attributes);
}

}  // namespace

Node* record_reshape(Node* a, std::span<const std::int64_t> wanted, Device device) {
    if (wanted.size() > kMaxRank) throw std::invalid_argument("[reshape] more than 12 dimensions are not supported.");
    std::int64_t shape[kMaxRank];
    std::int64_t known = 1;
    int hole = -1;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        shape[i] = wanted[i];
        if (wanted[i] == -1 && hole < 0)
            hole = static_cast<int>(i);
        else if (wanted[i] < 0)
            throw std::invalid_argument(wanted[i] == -1 ? "[reshape] Reshape can only infer one dimension."
                                                        : "[reshape] Dimensions must not be negative.");
        else
            known *= wanted[i];
    }
    std::int64_t size = a->size();
    if (hole >= 0) {
        if (known == 0 || size % known)
            throw std::invalid_argument("[reshape] Cannot infer the missing dimension: array of size " +
                                        std::to_string(size) + " into shape " + shape_text(wanted) + ".");
        shape[hole] = size / known;
        known *= shape[hole];
    }
    if (known != size)
        throw std::invalid_argument("[reshape] Cannot reshape array of size " + std::to_string(size) + " into shape " +
                                    shape_text(wanted) + ".");
    std::span<const std::int64_t> out{shape, wanted.size()};
    if (std::ranges::equal(out, a->dims())) return retain(a);
    return new_view(a, out, device);
}

Node* new_view(Node* a, std::span<const std::int64_t> out, Device device) {
    std::uint32_t id = reshape_static(reshape_groups(a->dims(), out));
    static Primitive* reshape = builtin("reshape");
    Node* inputs[] = {a};
    Node* node = new_op(reshape, a->dtype, device, inputs, out);
    node->static_id = id;
    return node;
}

// ---------------------------------------------------------------- static attributes

namespace {

struct StaticTable {
    PyObject* ids = PyDict_New();
    PyObject* ids_by_text = PyDict_New();  // of those that equal an earlier one but differ in a type
    // Of the objects in `values`, which live for ever: callers often pass the same constant.
    std::unordered_map<PyObject*, std::uint32_t> ids_by_address;
    std::vector<PyObject*> values{Py_None};
};
StaticTable& static_table() {
    static auto* table = new StaticTable;
    return *table;
}

}  // namespace

namespace {

// For Python, (True,) == (1,) == (1.0,).
bool same_types(PyObject* a, PyObject* b) {
    if (Py_TYPE(a) != Py_TYPE(b)) return false;
    if (!PyTuple_CheckExact(a)) return true;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a); ++i)
        if (!same_types(PyTuple_GET_ITEM(a, i), PyTuple_GET_ITEM(b, i))) return false;
    return true;
}

std::uint32_t intern_in(PyObject* ids, PyObject* key, PyObject* value) {
    auto& table = static_table();
    auto id = static_cast<std::uint32_t>(table.values.size());
    PyObject* number = PyLong_FromUnsignedLong(id);
    int failed = PyDict_SetItem(ids, key, number);
    Py_DECREF(number);
    if (failed) throw PythonError{};
    table.values.push_back(Py_NewRef(value));
    table.ids_by_address.emplace(value, id);
    return id;
}

}  // namespace

std::uint32_t intern_static(PyObject* value) {
    if (value == Py_None) return 0;
    auto& table = static_table();
    if (auto known = table.ids_by_address.find(value); known != table.ids_by_address.end()) return known->second;
    if (PyObject* found = PyDict_GetItemWithError(table.ids, value)) {
        auto id = static_cast<std::uint32_t>(PyLong_AsUnsignedLong(found));
        if (same_types(table.values[id], value)) return id;
        PyObject* text = PyObject_Repr(value);
        Owned drop(text);
        found = PyDict_GetItemWithError(table.ids_by_text, text);
        if (found) return static_cast<std::uint32_t>(PyLong_AsUnsignedLong(found));
        if (PyErr_Occurred()) throw PythonError{};
        return intern_in(table.ids_by_text, text, value);
    }
    if (PyErr_Occurred()) throw PythonError{};
    return intern_in(table.ids, value, value);
}

PyObject* static_value(std::uint32_t id) { return static_table().values[id]; }

Primitive* primitive_from_id(std::uint16_t id) { return registry()[id]; }

Primitive* primitive_named(const char* name) {
    for (Primitive* p : registry())
        if (!std::strcmp(p->c_name, name)) return p;
    return nullptr;
}

Budget& budget() {
    static Budget value;
    return value;
}

void keep_budget(Node* node) {
    if (pending().ops <= budget().ops && pending().captive_bytes <= budget().bytes) return;
    if (tracing()) return;  // what depends on a traced argument keeps its graph: nothing would be freed
    // After an evaluation that could not shrink the pending graph (its nodes belong to other results), wait for it to
    // grow by a whole budget again rather than evaluating at every op.
    static std::int64_t op_threshold = 0, byte_threshold = 0;
    auto& p = pending();
    if (p.ops < budget().ops) op_threshold = budget().ops;
    if (p.captive_bytes < budget().bytes) byte_threshold = budget().bytes;
    if (p.ops < op_threshold && p.captive_bytes < byte_threshold) return;
    Node* roots[] = {node};
    evaluate(roots, /*wait=*/false);
    op_threshold = std::max(budget().ops, p.ops + budget().ops);
    byte_threshold = std::max(budget().bytes, p.captive_bytes + budget().bytes);
}

PyObject* finish(Node* node) {
    NodeRef owned(node);
    keep_budget(node);
    return wrap(owned.release());
}

// ---------------------------------------------------------------- the Python type

namespace {

Primitive* make_primitive(const char* name, Kind kind, std::uint8_t rule, Accepts accepts, const char* kind_name,
                          PyObject* doc);

Primitive* builtin(const char* name) {
    static Primitive* astype = make_primitive("astype", Kind::other, 0, Accepts::any, "unary", nullptr);
    static Primitive* reshape = make_primitive("reshape", Kind::other, 0, Accepts::any, "view", nullptr);
    static Primitive* copy = make_primitive("copy", Kind::other, 0, Accepts::any, "unary", nullptr);
    static Primitive* argument = make_primitive("argument", Kind::other, 0, Accepts::any, "argument", nullptr);
    if (!std::strcmp(name, "argument")) return argument;
    if (!std::strcmp(name, "astype")) return astype;
    return !std::strcmp(name, "reshape") ? reshape : copy;
}

PyObject* primitive_vectorcall(PyObject* self, PyObject* const* args, std::size_t nargsf, PyObject* kwnames) {
    auto* p = reinterpret_cast<Primitive*>(self);
    return guarded([&]() -> PyObject* {
        auto n = PyVectorcall_NARGS(nargsf);
        PyObject* stream = nullptr;
        PyObject* operands[3] = {nullptr, nullptr, nullptr};
        int wanted = p->kind == Kind::unary ? 1 : p->kind == Kind::binary ? 2 : 3;
        static const char* const names[3][3] = {{"a", "", ""}, {"a", "b", ""}, {"condition", "x", "y"}};
        if (p->kind == Kind::other)
            throw type_error(std::string(p->c_name) + " is recorded by its function, not called");
        if (n > wanted)
            throw type_error(std::string(p->c_name) + "() takes " + std::to_string(wanted) + " arrays, got " +
                             std::to_string(n) + "; stream= is keyword-only");
        for (Py_ssize_t i = 0; i < n; ++i) operands[i] = args[i];
        for (Py_ssize_t k = 0; kwnames && k < PyTuple_GET_SIZE(kwnames); ++k) {
            PyObject* key = PyTuple_GET_ITEM(kwnames, k);
            if (PyUnicode_CompareWithASCIIString(key, "stream") == 0) {
                stream = args[n + k];
                continue;
            }
            int slot = -1;
            for (int i = 0; i < wanted; ++i)
                if (PyUnicode_CompareWithASCIIString(key, names[wanted - 1][i]) == 0) slot = i;
            if (slot < 0 || operands[slot])
                throw type_error(std::string(p->c_name) + "() got an unexpected keyword argument '" +
                                 PyUnicode_AsUTF8(key) + "'");
            operands[slot] = args[n + k];
        }
        for (int i = 0; i < wanted; ++i)
            if (!operands[i])
                throw type_error(std::string(p->c_name) + "() missing required argument '" + names[wanted - 1][i] +
                                 "'");
        Device device = device_of(stream);
        if (wanted == 1) {
            NodeRef a = operand(operands[0], nullptr);
            return finish(record_unary(p, a.get(), device));
        }
        int first = wanted - 2;  // the two operands that are promoted together
        Node* like_x = is_array(operands[first + 1]) ? node_of(operands[first + 1]) : nullptr;
        NodeRef x = operand(operands[first], is_array(operands[first]) ? nullptr : like_x);
        NodeRef y = operand(operands[first + 1],
                            x.get()->role == Role::scalar && !is_array(operands[first]) ? nullptr : x.get());
        if (wanted == 2) return finish(record_binary(p, x.get(), y.get(), device));
        NodeRef condition = operand(operands[0], nullptr);
        return finish(record_select(p, condition.get(), x.get(), y.get(), device));
    });
}

std::vector<std::int64_t> integers(PyObject* sequence, const char* what) {
    PyObject* fast = PySequence_Fast(sequence, what);
    if (!fast) throw PythonError{};
    std::vector<std::int64_t> values(static_cast<std::size_t>(PySequence_Fast_GET_SIZE(fast)));
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = PyLong_AsLongLong(PySequence_Fast_GET_ITEM(fast, static_cast<Py_ssize_t>(i)));
        if (values[i] == -1 && PyErr_Occurred()) {
            Py_DECREF(fast);
            throw PythonError{};
        }
    }
    Py_DECREF(fast);
    return values;
}

// Arguments of a vectorcall by name; false, with TypeError set, for one that does not fit. Parsing a format string, as
// PyArg_ParseTupleAndKeywords does, takes longer than recording the op.
template <std::size_t N>
bool parse_named(const char* function, PyObject* const (&names)[N], std::size_t n_required, PyObject* const* args,
                 Py_ssize_t n_args, PyObject* kwnames, PyObject* (&values)[N]) {
    if (n_args > static_cast<Py_ssize_t>(N)) {
        PyErr_Format(PyExc_TypeError, "%s takes at most %zu arguments, got %zd", function, N, n_args);
        return false;
    }
    std::copy(args, args + n_args, values);
    for (Py_ssize_t k = 0; kwnames && k < PyTuple_GET_SIZE(kwnames); ++k) {
        PyObject* name = PyTuple_GET_ITEM(kwnames, k);
        std::size_t i = 0;
        while (i < N && names[i] != name) ++i;  // names in code are interned
        for (std::size_t j = 0; i == N && j < N; ++j)
            if (PyUnicode_Compare(names[j], name) == 0) i = j;
        if (i == N || values[i]) {
            PyErr_Format(PyExc_TypeError, i == N ? "%s takes no argument called %R" : "%s got %R twice", function,
                         name);
            return false;
        }
        values[i] = args[n_args + k];
    }
    for (std::size_t i = 0; i < n_required; ++i)
        if (!values[i]) {
            PyErr_Format(PyExc_TypeError, "%s needs %R", function, names[i]);
            return false;
        }
    return true;
}

PyObject* primitive_record(PyObject* self, PyObject* const* args, Py_ssize_t n_args, PyObject* kwnames) {
    auto name = [](const char* text) { return PyUnicode_InternFromString(text); };
    static PyObject* const names[] = {name("inputs"), name("shape"),  name("dtype"), name("static"),
                                      name("ints"),   name("floats"), name("stream")};
    PyObject* values[7] = {};
    if (!parse_named("record", names, 3, args, n_args, kwnames, values)) return nullptr;
    auto [inputs, shape, dtype, statics, ints, floats, stream] = values;
    if (!statics) statics = Py_None;
    return guarded([&]() -> PyObject* {
        auto* p = reinterpret_cast<Primitive*>(self);
        PyObject* fast = checked(PySequence_Fast(inputs, "inputs must be a sequence of arrays"));
        Owned keeps_nodes(fast);
        std::vector<Node*> nodes(static_cast<std::size_t>(PySequence_Fast_GET_SIZE(fast)));
        bool all_arrays = true;
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            PyObject* item = PySequence_Fast_GET_ITEM(fast, static_cast<Py_ssize_t>(i));
            all_arrays = all_arrays && is_array(item);
            nodes[i] = all_arrays ? node_of(item) : nullptr;
        }
        if (!all_arrays) throw type_error("[" + std::string(p->c_name) + "] expects arrays");
        auto dims = integers(shape, "shape must be a sequence of integers");
        for (auto d : dims)
            if (d < 0) throw std::invalid_argument("[" + std::string(p->c_name) + "] Dimensions must not be negative.");
        std::uint32_t static_id = intern_static(statics);
        NodeRef node(new_op(p, dtype_from(dtype), device_of(stream), nodes, dims));
        node->static_id = static_id;
        bool some_ints = ints && PyObject_IsTrue(ints) == 1, some_floats = floats && PyObject_IsTrue(floats) == 1;
        if (some_ints || some_floats) {
            Attributes attributes;
            if (some_ints) attributes.ints = integers(ints, "ints must be a sequence of integers");
            if (some_floats) {
                PyObject* values = PySequence_Fast(floats, "floats must be a sequence of numbers");
                Owned drop_values(values);
                for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(values); ++i) {
                    double v = PyFloat_AsDouble(PySequence_Fast_GET_ITEM(values, i));
                    if (v == -1.0 && PyErr_Occurred()) throw PythonError{};
                    attributes.floats.push_back(v);
                }
            }
            node->attributes = AttributesRef(std::move(attributes));
        }
        return finish(node.release());
    });
}

template <class Enum>
Enum lookup(const char* what, const std::string& value, std::initializer_list<std::pair<const char*, Enum>> table) {
    for (auto& [name, result] : table)
        if (value == name) return result;
    throw std::invalid_argument(std::string("unknown ") + what + " '" + value + "'");
}

PyObject* primitive_new(PyTypeObject*, PyObject* args, PyObject* kwargs) {
    static const char* keywords[] = {"name", "kind", "dtype", "accepts", "doc", nullptr};
    const char *name, *kind, *rule = "", *accepts = "any";
    PyObject* doc = nullptr;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ss|ssO", const_cast<char**>(keywords), &name, &kind, &rule,
                                     &accepts, &doc))
        return nullptr;
    return guarded([&]() -> PyObject* {
        std::string k = kind, r = rule;
        Kind parsed = k == "unary"    ? Kind::unary
                      : k == "binary" ? Kind::binary
                      : k == "select" ? Kind::select
                                      : Kind::other;
        std::uint8_t rule_value = 0;
        if (parsed == Kind::unary)
            rule_value = static_cast<std::uint8_t>(lookup<UnaryRule>("dtype rule", r.empty() ? "same" : r,
                                                                     {{"same", UnaryRule::same},
                                                                      {"inexact", UnaryRule::inexact},
                                                                      {"bool", UnaryRule::boolean},
                                                                      {"real", UnaryRule::real}}));
        if (parsed == Kind::binary)
            rule_value = static_cast<std::uint8_t>(lookup<BinaryRule>("dtype rule", r.empty() ? "promote" : r,
                                                                      {{"promote", BinaryRule::promote},
                                                                       {"inexact", BinaryRule::inexact},
                                                                       {"compare", BinaryRule::compare},
                                                                       {"logical", BinaryRule::logical}}));
        auto accepted = lookup<Accepts>("accepts", accepts,
                                        {{"any", Accepts::any},
                                         {"numeric", Accepts::numeric},
                                         {"integer", Accepts::integer},
                                         {"real", Accepts::real}});
        return reinterpret_cast<PyObject*>(make_primitive(name, parsed, rule_value, accepted, kind, doc));
    });
}

Primitive* make_primitive(const char* name, Kind kind, std::uint8_t rule, Accepts accepts, const char* kind_name,
                          PyObject* doc) {
    auto* p = PyObject_New(Primitive, primitive_type);
    if (!p) throw PythonError{};
    p->vectorcall = primitive_vectorcall;
    p->kind = kind;
    p->rule = rule;
    p->accepts = accepts;
    p->id = static_cast<std::uint16_t>(registry().size());
    p->name = PyUnicode_InternFromString(name);
    p->kind_name = PyUnicode_InternFromString(kind_name);
    p->doc = doc && doc != Py_None ? Py_NewRef(doc) : PyUnicode_FromString("");
    p->c_name = PyUnicode_AsUTF8(p->name);
    Py_INCREF(p);  // the registry's own: ids stand in keys for ever
    registry().push_back(p);
    return p;
}

void primitive_dealloc(PyObject* self) { Py_TYPE(self)->tp_free(self); }  // unreachable while the registry holds it

PyObject* primitive_repr(PyObject* self) {
    auto* p = reinterpret_cast<Primitive*>(self);
    return PyUnicode_FromFormat("<%U primitive '%U'>", p->kind_name, p->name);
}

// Bound like a function when stored on a class, so that `array.exp` is a method.
PyObject* primitive_get(PyObject* self, PyObject* instance, PyObject*) {
    if (!instance || instance == Py_None) return Py_NewRef(self);
    return PyMethod_New(self, instance);
}

PyMemberDef primitive_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Primitive, vectorcall), READONLY, nullptr},
    {"name", T_OBJECT, offsetof(Primitive, name), READONLY, "The primitive's name."},
    {"__name__", T_OBJECT, offsetof(Primitive, name), READONLY, nullptr},
    {"kind", T_OBJECT, offsetof(Primitive, kind_name), READONLY, "Its kind."},
    {"__doc__", T_OBJECT, offsetof(Primitive, doc), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyMethodDef primitive_methods[] = {
    {"record", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(primitive_record)), METH_FASTCALL | METH_KEYWORDS,
     "record(inputs, shape, dtype, static=None, ints=(), floats=(), stream=None) -> array"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyObject* make_primitive_type() {
    static PyType_Slot slots[] = {
        {Py_tp_new, reinterpret_cast<void*>(primitive_new)},
        {Py_tp_dealloc, reinterpret_cast<void*>(primitive_dealloc)},
        {Py_tp_repr, reinterpret_cast<void*>(primitive_repr)},
        {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
        {Py_tp_descr_get, reinterpret_cast<void*>(primitive_get)},
        {Py_tp_members, primitive_members},
        {Py_tp_methods, primitive_methods},
        {0, nullptr},
    };
    static PyType_Spec spec = {"mlxlite._graph.Primitive", sizeof(Primitive), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, slots};
    PyObject* type = PyType_FromSpec(&spec);
    primitive_type = reinterpret_cast<PyTypeObject*>(type);
    return type;
}

}  // namespace mlxlite
