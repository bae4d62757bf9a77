#include "mlxlite/graph/remembered.h"

#include <structmember.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/errors.h"
#include "mlxlite/graph/op_sequence.h"
#include "mlxlite/graph/primitive.h"
#include "mlxlite/graph/trace.h"

namespace mlxlite {

namespace {

// The arrays among the arguments of a call, in order. More of them than fit are not remembered.
class Nodes {
  public:
    static constexpr std::size_t kMost = 64;
    bool add(Node* node) {
        if (size_ == kMost) return false;
        nodes_[size_++] = node;
        return true;
    }
    std::size_t size() const { return size_; }
    std::span<Node* const> all() const { return {nodes_, size_}; }

  private:
    Node* nodes_[kMost];
    std::size_t size_ = 0;
};

// The arguments of one call, positional ones first.
struct Call {
    std::span<PyObject* const> arguments;
    PyObject* names;  // of the last ones, a tuple; nullptr if there are none
};

struct Release {
    void operator()(PyObject* object) const { Py_DECREF(object); }
};
using Reference = std::unique_ptr<PyObject, Release>;

bool read(PyObject* integer, std::int64_t& value) {
    int overflow = 0;
    if (!PyLong_CheckExact(integer)) return false;
    value = PyLong_AsLongLongAndOverflow(integer, &overflow);
    return !overflow;
}

std::int64_t bits_of(PyObject* number) { return std::bit_cast<std::int64_t>(PyFloat_AS_DOUBLE(number)); }

// Of those of which one object stands for a value.
bool is_unique(PyObject* object) {
    static PyTypeObject* const dtype_type = [] {
        Owned one(dtype_object(Dtype::float32));
        return Py_TYPE(one.object);
    }();
    return object == Py_None || object == Py_Ellipsis || PyBool_Check(object) || PyUnicode_CheckExact(object) ||
           Py_TYPE(object) == dtype_type;
}

// What another call must have in the place of an argument to record the same.
class Place {
  public:
    // Nothing if it cannot be told whether another argument is equal. Adds the arrays in it to `arrays`.
    static std::optional<Place> of(PyObject* argument, Nodes& arrays, int depth = 0) {
        Place place;
        if (is_array(argument)) {
            Node* node = node_of(argument);
            place.kind_ = Kind::array;
            place.dtype_ = node->dtype;
            place.rank_ = node->rank;
            std::copy_n(node->shape, node->rank, place.shape_);
            if (!arrays.add(node)) return {};
        } else if (PyFloat_CheckExact(argument)) {
            place.kind_ = Kind::number;
            place.value_ = bits_of(argument);
        } else if (PyLong_CheckExact(argument)) {
            place.kind_ = Kind::integer;
            if (!read(argument, place.value_)) return {};
        } else if (PyTuple_CheckExact(argument) || PyList_CheckExact(argument)) {
            place.kind_ = PyTuple_CheckExact(argument) ? Kind::tuple : Kind::list;
            Py_ssize_t n = PySequence_Fast_GET_SIZE(argument);
            if (n > kItems || depth == kDepth) return {};
            for (Py_ssize_t i = 0; i < n; ++i)
                if (!place.add(PySequence_Fast_GET_ITEM(argument, i), arrays, depth)) return {};
        } else if (PySlice_Check(argument)) {
            place.kind_ = Kind::slice;
            auto* slice = reinterpret_cast<PySliceObject*>(argument);
            for (PyObject* part : {slice->start, slice->stop, slice->step})
                if (!place.add(part, arrays, depth)) return {};
        } else if (is_unique(argument)) {
            place.object_.reset(Py_NewRef(argument));
        } else {
            return {};
        }
        return place;
    }

    // Adds the arrays in the argument to `arrays`.
    bool fits(PyObject* argument, Nodes& arrays) const {
        switch (kind_) {
            case Kind::array: {
                if (!is_array(argument)) return false;
                Node* node = node_of(argument);
                return node->dtype == dtype_ && node->rank == rank_ &&
                       std::equal(shape_, shape_ + rank_, node->shape) && arrays.add(node);
            }
            case Kind::number:
                return PyFloat_CheckExact(argument) && bits_of(argument) == value_;
            case Kind::integer: {
                std::int64_t value;
                return read(argument, value) && value == value_;
            }
            case Kind::tuple:
                return PyTuple_CheckExact(argument) && items_fit(argument, arrays);
            case Kind::list:
                return PyList_CheckExact(argument) && items_fit(argument, arrays);
            case Kind::slice: {
                if (!PySlice_Check(argument)) return false;
                auto* slice = reinterpret_cast<PySliceObject*>(argument);
                return items_[0].fits(slice->start, arrays) && items_[1].fits(slice->stop, arrays) &&
                       items_[2].fits(slice->step, arrays);
            }
            case Kind::object:
                return argument == object_.get();
        }
        return false;
    }

  private:
    enum class Kind : std::uint8_t { object, array, integer, number, tuple, list, slice };
    static constexpr Py_ssize_t kItems = 64;
    static constexpr int kDepth = 3;  // of tuples and lists in one another

    bool add(PyObject* item, Nodes& arrays, int depth) {
        std::optional<Place> place = of(item, arrays, depth + 1);
        if (place) items_.push_back(std::move(*place));
        return place.has_value();
    }

    bool items_fit(PyObject* sequence, Nodes& arrays) const {
        if (PySequence_Fast_GET_SIZE(sequence) != static_cast<Py_ssize_t>(items_.size())) return false;
        for (std::size_t i = 0; i < items_.size(); ++i)
            if (!items_[i].fits(PySequence_Fast_GET_ITEM(sequence, static_cast<Py_ssize_t>(i)), arrays)) return false;
        return true;
    }

    Kind kind_ = Kind::object;
    Dtype dtype_ = Dtype::float32;
    std::uint8_t rank_ = 0;
    std::int64_t value_ = 0;    // integer, or the bits of a number
    Reference object_;          // compared by its address
    std::vector<Place> items_;  // of a tuple, list or slice
    std::int64_t shape_[kMaxRank];
};

// What a function returned: an array, or a list or tuple of some.
std::span<PyObject* const> arrays_of(PyObject*& result) {
    if (is_array(result)) return {&result, 1};
    if (PyList_CheckExact(result) || PyTuple_CheckExact(result)) {
        std::span<PyObject* const> items{PySequence_Fast_ITEMS(result),
                                         static_cast<std::size_t>(PySequence_Fast_GET_SIZE(result))};
        if (std::ranges::all_of(items, [](PyObject* item) { return is_array(item); })) return items;
    }
    return {};
}

// One call and the ops that it recorded.
class Recorded {
  public:
    // Nothing if the result is more, or something else, than new ops on the call's arrays and on numbers.
    static std::optional<Recorded> of(const Call& call, PyObject* result, Device device) {
        std::span<PyObject* const> results = arrays_of(result);
        if (results.empty() || results.size() > kMostResults) return {};
        Recorded recorded;
        Nodes arrays;
        for (PyObject* argument : call.arguments) {
            std::optional<Place> place = Place::of(argument, arrays);
            if (!place) return {};
            recorded.places_.push_back(std::move(*place));
        }
        if (!recorded.add_ops(arrays.all(), results, device)) return {};
        for (std::size_t i = 0; i < arrays.size(); ++i) recorded.first_.push_back(first_like(arrays.all(), i));
        recorded.form_ = is_array(result) ? Form::array : PyList_CheckExact(result) ? Form::list : Form::tuple;
        recorded.names_.reset(Py_XNewRef(call.names));
        recorded.device_ = device;
        recorded.tracing_ = tracing();
        return recorded;
    }

    // The result of another call; nullptr if that is not like this one.
    PyObject* record(const Call& call, Device device) const {
        if (call.arguments.size() != places_.size() || device != device_ || !has_names(call.names)) return nullptr;
        if (tracing() != tracing_) return nullptr;
        Nodes arrays;
        for (std::size_t i = 0; i < places_.size(); ++i)
            if (!places_[i].fits(call.arguments[i], arrays)) return nullptr;
        // Of an array in two places, which of them an op reads is certain only if it is in the same two again.
        std::size_t n_arrays = arrays.size();
        for (std::size_t i = 0; i < n_arrays; ++i)
            if (first_like(arrays.all(), i) != first_[i]) return nullptr;
        Node* values[Nodes::kMost + kMostNumbers + kMostOps];
        std::ranges::copy(arrays.all(), values);
        RecordedValues made(values, n_arrays);
        for (const Number& number : numbers_) values[made.next++] = new_scalar(number.dtype, number.value);
        ops_.record(values, made.next);
        if (form_ == Form::array) {
            NodeRef result = NodeRef::share(values[results_[0]]);
            made.release();  // an op that we hold would be a result to an evaluation
            return finish(result.release());
        }
        std::vector<NodeRef> results;
        for (std::uint32_t k : results_) results.push_back(NodeRef::share(values[k]));
        made.release();
        Node* last = results.back().get();
        auto n = static_cast<Py_ssize_t>(results.size());
        Owned sequence(form_ == Form::list ? PyList_New(n) : PyTuple_New(n));
        for (Py_ssize_t i = 0; i < n; ++i) {
            PyObject* array = checked(wrap(results[static_cast<std::size_t>(i)].release()));
            if (form_ == Form::list)
                PyList_SET_ITEM(sequence.object, i, array);
            else
                PyTuple_SET_ITEM(sequence.object, i, array);
        }
        keep_budget(last);
        return sequence.release();
    }

  private:
    enum class Form : std::uint8_t { array, list, tuple };
    static constexpr std::size_t kMostOps = 48, kMostNumbers = 16, kMostResults = 32;

    struct Number {
        Dtype dtype;
        Scalar value;
    };
    static std::size_t first_like(std::span<Node* const> arrays, std::size_t i) {
        return static_cast<std::size_t>(
            std::find(arrays.begin(), arrays.begin() + static_cast<std::ptrdiff_t>(i), arrays[i]) - arrays.begin());
    }

    // Ops in an order in which each comes after what it reads. Values are numbered: arrays, numbers, ops.
    bool add_ops(std::span<Node* const> arrays, std::span<PyObject* const> results, Device device) {
        std::vector<const Node*> order, numbers;
        std::vector<std::pair<const Node*, int>> stack;
        auto is_known = [&](const Node* node) {
            return std::ranges::find(arrays, node) != arrays.end() || std::ranges::find(order, node) != order.end() ||
                   std::ranges::find(numbers, node) != numbers.end();
        };
        for (PyObject* result : results) {
            if (is_known(node_of(result))) return false;  // an argument itself, or a result twice
            stack.emplace_back(node_of(result), 0);
            while (!stack.empty()) {
                auto& [node, next] = stack.back();
                if (node->role == Role::scalar && stack.size() > 1) {
                    if (numbers.size() == kMostNumbers) return false;
                    numbers.push_back(node);
                    stack.pop_back();
                    continue;
                }
                if (node->role != Role::op || node->trace || node->device != device ||
                    order.size() + stack.size() > kMostOps)
                    return false;
                if (next < node->n_inputs) {
                    const Node* input = node->inputs[next++];
                    if (!is_known(input)) stack.emplace_back(input, 0);
                    continue;
                }
                order.push_back(node);
                stack.pop_back();
            }
        }
        // What somebody else holds was there before the call, or went somewhere.
        auto is_held_elsewhere = [&](const Node* node) {
            std::uint32_t uses = 0;
            for (const Node* op : order)
                uses += static_cast<std::uint32_t>(std::count(op->inputs, op->inputs + op->n_inputs, node));
            for (PyObject* result : results) uses += node_of(result) == node;
            return node->refs != uses;
        };
        if (std::ranges::any_of(order, is_held_elsewhere) || std::ranges::any_of(numbers, is_held_elsewhere))
            return false;
        std::vector<const Node*> values(arrays.begin(), arrays.end());
        values.insert(values.end(), numbers.begin(), numbers.end());
        values.insert(values.end(), order.begin(), order.end());
        auto number_of = [&](const Node* node) {
            return static_cast<std::uint32_t>(std::ranges::find(values, node) - values.begin());
        };
        for (const Node* node : numbers) numbers_.push_back({node->dtype, node->scalar});
        std::vector<std::uint32_t> inputs;
        for (const Node* node : order) {
            inputs.clear();
            for (int i = 0; i < node->n_inputs; ++i) inputs.push_back(number_of(node->inputs[i]));
            ops_.add(node, inputs);
        }
        for (PyObject* result : results) results_.push_back(number_of(node_of(result)));
        return true;
    }

    bool has_names(PyObject* names) const {
        if (names == names_.get()) return true;
        if (!names || !names_ || PyTuple_GET_SIZE(names) != PyTuple_GET_SIZE(names_.get())) return false;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i)  // names in code are interned
            if (PyTuple_GET_ITEM(names, i) != PyTuple_GET_ITEM(names_.get(), i)) return false;
        return true;
    }

    std::vector<Place> places_;
    Reference names_;
    Form form_ = Form::array;
    Device device_ = Device::cpu;
    bool tracing_ = false;            // stop_gradient records something only for a transform
    std::vector<std::size_t> first_;  // of each array, where it stands first
    std::vector<Number> numbers_;
    OpSequence ops_;
    std::vector<std::uint32_t> results_;
};

// The layers of a model have few shapes, and numbers that change from step to step, such as positions, make calls
// stale.
constexpr std::size_t kRemembered = 16;

struct Remembered {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject* function;
    PyObject* dict;  // __doc__, __wrapped__ and the like
    std::vector<Recorded>* recorded;
    std::size_t last;    // found there
    std::size_t oldest;  // replaced next
};

PyObject* call(PyObject* object, PyObject* const* args, std::size_t nargsf, PyObject* names) {
    auto* self = reinterpret_cast<Remembered*>(object);
    return guarded([&]() -> PyObject* {
        auto n = static_cast<std::size_t>(PyVectorcall_NARGS(nargsf));
        if (names) n += static_cast<std::size_t>(PyTuple_GET_SIZE(names));
        Call call{{args, n}, names};
        Device device = default_device();
        std::vector<Recorded>& recorded = *self->recorded;
        for (std::size_t i = 0; i < recorded.size(); ++i) {
            std::size_t k = self->last + i;
            if (k >= recorded.size()) k -= recorded.size();
            PyObject* result = recorded[k].record(call, device);
            if (!result) continue;
            self->last = k;
            return result;
        }
        if (PyErr_Occurred()) return nullptr;
        Owned result(PyObject_Vectorcall(self->function, args, nargsf, names));
        if (std::optional<Recorded> made = Recorded::of(call, result.object, device)) {
            self->last = self->oldest;
            if (recorded.size() < kRemembered)
                recorded.push_back(std::move(*made));
            else
                recorded[self->oldest] = std::move(*made);
            self->oldest = (self->oldest + 1) % kRemembered;
        }
        return result.release();
    });
}

PyObject* remembered_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
    PyObject* function;
    static const char* keywords[] = {"function", nullptr};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", const_cast<char**>(keywords), &function)) return nullptr;
    if (!PyCallable_Check(function))
        return PyErr_Format(PyExc_TypeError, "expected a function, got %s", Py_TYPE(function)->tp_name);
    PyObject* object = type->tp_alloc(type, 0);
    if (!object) return nullptr;
    auto* self = reinterpret_cast<Remembered*>(object);
    self->vectorcall = call;
    self->function = Py_NewRef(function);
    self->recorded = new std::vector<Recorded>;
    return object;
}

void remembered_dealloc(PyObject* object) {
    auto* self = reinterpret_cast<Remembered*>(object);
    PyTypeObject* type = Py_TYPE(object);
    delete self->recorded;
    Py_CLEAR(self->function);
    Py_CLEAR(self->dict);
    type->tp_free(object);
    Py_DECREF(type);
}

// On a class it is a method, as a function would be.
PyObject* remembered_get(PyObject* self, PyObject* instance, PyObject*) {
    return instance && instance != Py_None ? PyMethod_New(self, instance) : Py_NewRef(self);
}

PyObject* remembered_repr(PyObject* object) { return PyObject_Repr(reinterpret_cast<Remembered*>(object)->function); }

// A function is pickled, and copied, by its name.
PyObject* remembered_reduce(PyObject* object, PyObject*) { return PyObject_GetAttrString(object, "__qualname__"); }

PyMethodDef remembered_methods[] = {
    {"__reduce__", remembered_reduce, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef remembered_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Remembered, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(Remembered, dict), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef remembered_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

PyObject* make_remembered_type() {
    static PyType_Slot slots[] = {
        {Py_tp_new, reinterpret_cast<void*>(remembered_new)},
        {Py_tp_dealloc, reinterpret_cast<void*>(remembered_dealloc)},
        {Py_tp_repr, reinterpret_cast<void*>(remembered_repr)},
        {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
        {Py_tp_descr_get, reinterpret_cast<void*>(remembered_get)},
        {Py_tp_methods, remembered_methods},
        {Py_tp_members, remembered_members},
        {Py_tp_getset, remembered_getset},
        {0, nullptr},
    };
    static PyType_Spec spec = {"mlxlite._graph.Remembered", sizeof(Remembered), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, slots};
    return PyType_FromSpec(&spec);
}

}  // namespace mlxlite
