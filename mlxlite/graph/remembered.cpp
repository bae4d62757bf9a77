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
#include "mlxlite/graph/primitive.h"

namespace mlxlite {

namespace {

using Nodes = std::vector<Node*>;

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
    return object == Py_None || PyBool_Check(object) || PyUnicode_CheckExact(object) || Py_TYPE(object) == dtype_type;
}

// What another call must have in the place of an argument to record the same.
class Place {
  public:
    // Nothing if it cannot be told whether another argument is equal. Adds the arrays in it to `arrays`.
    static std::optional<Place> of(PyObject* argument, Nodes& arrays) {
        Place place;
        if (is_array(argument)) {
            Node* node = node_of(argument);
            place.kind_ = Kind::array;
            place.dtype_ = node->dtype;
            place.rank_ = node->rank;
            std::copy_n(node->shape, node->rank, place.shape_);
            arrays.push_back(node);
        } else if (PyFloat_CheckExact(argument)) {
            place.kind_ = Kind::number;
            place.value_ = bits_of(argument);
        } else if (PyLong_CheckExact(argument)) {
            place.kind_ = Kind::integer;
            if (!read(argument, place.value_)) return {};
        } else if (PyTuple_CheckExact(argument) || PyList_CheckExact(argument)) {
            place.kind_ = PyTuple_CheckExact(argument) ? Kind::tuple : Kind::list;
            if (PySequence_Fast_GET_SIZE(argument) > kItems) return {};
            for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(argument); ++i) {
                PyObject* item = PySequence_Fast_GET_ITEM(argument, i);
                std::optional<Place> of_item;
                if (is_array(item) || PyLong_CheckExact(item)) of_item = of(item, arrays);
                if (!of_item) return {};
                place.items_.push_back(std::move(*of_item));
            }
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
                arrays.push_back(node);
                return node->dtype == dtype_ && node->rank == rank_ && std::equal(shape_, shape_ + rank_, node->shape);
            }
            case Kind::number:
                return PyFloat_CheckExact(argument) && bits_of(argument) == value_;
            case Kind::integer: {
                std::int64_t value;
                return read(argument, value) && value == value_;
            }
            case Kind::tuple:
                return PyTuple_CheckExact(argument) && fit_items(argument, arrays);
            case Kind::list:
                return PyList_CheckExact(argument) && fit_items(argument, arrays);
            case Kind::object:
                return argument == object_.get();
        }
        return false;
    }

  private:
    enum class Kind : std::uint8_t { object, array, integer, number, tuple, list };
    static constexpr Py_ssize_t kItems = 64;

    bool fit_items(PyObject* sequence, Nodes& arrays) const {
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
    std::vector<Place> items_;  // of a tuple or list
    std::int64_t shape_[kMaxRank];
};

// One call and the op that it recorded.
class Recorded {
  public:
    // Nothing if the result is not an op of just the call's arrays, or which input is which of them is not certain.
    static std::optional<Recorded> of(const Call& call, const Node* result, Device device) {
        if (result->role != Role::op || result->refs != 1 || result->trace || result->device != device) return {};
        Recorded recorded;
        Nodes arrays;
        for (PyObject* argument : call.arguments) {
            std::optional<Place> place = Place::of(argument, arrays);
            if (!place) return {};
            recorded.places_.push_back(std::move(*place));
        }
        for (auto node = arrays.begin(); node != arrays.end(); ++node)
            if (std::find(arrays.begin(), node, *node) != node) return {};
        for (int i = 0; i < result->n_inputs; ++i) {
            auto found = std::ranges::find(arrays, result->inputs[i]);
            if (found == arrays.end()) return {};
            recorded.inputs_.push_back(static_cast<std::size_t>(found - arrays.begin()));
        }
        recorded.names_.reset(Py_XNewRef(call.names));
        recorded.primitive_ = result->primitive;
        recorded.dtype_ = result->dtype;
        recorded.device_ = device;
        recorded.static_id_ = result->static_id;
        recorded.attributes_ = result->attributes;
        recorded.shape_.assign(result->shape, result->shape + result->rank);
        return recorded;
    }

    // The op of another call; nullptr if that is not like this one.
    Node* record(const Call& call, Device device) const {
        if (call.arguments.size() != places_.size() || device != device_ || !has_names(call.names)) return nullptr;
        Nodes arrays, inputs;
        arrays.reserve(4);
        for (std::size_t i = 0; i < places_.size(); ++i)
            if (!places_[i].fits(call.arguments[i], arrays)) return nullptr;
        inputs.reserve(inputs_.size());
        for (std::size_t i : inputs_) inputs.push_back(arrays[i]);
        Node* node = new_op(primitive_, dtype_, device_, inputs, shape_);
        node->static_id = static_id_;
        node->attributes = attributes_;
        return node;
    }

  private:
    bool has_names(PyObject* names) const {
        if (names == names_.get()) return true;
        if (!names || !names_ || PyTuple_GET_SIZE(names) != PyTuple_GET_SIZE(names_.get())) return false;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i)  // names in code are interned
            if (PyTuple_GET_ITEM(names, i) != PyTuple_GET_ITEM(names_.get(), i)) return false;
        return true;
    }

    std::vector<Place> places_;
    Reference names_;
    Primitive* primitive_ = nullptr;
    Dtype dtype_ = Dtype::float32;
    Device device_ = Device::cpu;
    std::uint32_t static_id_ = 0;
    AttributesRef attributes_;
    std::vector<std::int64_t> shape_;
    std::vector<std::size_t> inputs_;  // which of the arrays
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
            Node* node = recorded[k].record(call, device);
            if (!node) continue;
            self->last = k;
            return finish(node);
        }
        Owned result(PyObject_Vectorcall(self->function, args, nargsf, names));
        if (!is_array(result.object)) return result.release();
        if (std::optional<Recorded> made = Recorded::of(call, node_of(result.object), device)) {
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
