#include "mlxlite/graph/array_type.h"

#include <structmember.h>

#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "mlxlite/graph/errors.h"
#include "mlxlite/graph/evaluate.h"
#include "mlxlite/graph/host.h"
#include "mlxlite/graph/primitive.h"
#include "mlxlite/graph/structure.h"

namespace mlxlite {

PyTypeObject* array_type = nullptr;

Hooks& hooks() {
    static Hooks value;
    return value;
}

PyObject* wrap(Node* node) {
    auto* self = PyObject_New(ArrayObject, array_type);
    if (!self) {
        release(node);
        throw PythonError{};
    }
    self->node = node;
    add_handle(node);
    self->weakrefs = nullptr;
    return reinterpret_cast<PyObject*>(self);
}

bool is_number(PyObject* object) { return PyFloat_Check(object) || PyLong_Check(object) || PyComplex_Check(object); }

namespace {

[[noreturn]] void overflow(PyObject* number, Dtype dtype) {
    PyObject* text = PyObject_Str(number);
    std::string digits = text ? PyUnicode_AsUTF8(text) : "the number";
    Py_XDECREF(text);
    PyErr_Clear();
    throw std::invalid_argument("Converting " + digits + " to " + name_of(dtype) + " would result in overflow.");
}

Node* integer_scalar(PyObject* number, const Node* like) {
    int overflowed = 0;
    std::int64_t value = PyLong_AsLongLongAndOverflow(number, &overflowed);
    if (value == -1 && !overflowed && PyErr_Occurred()) throw PythonError{};
    bool small = !overflowed && value >= std::numeric_limits<std::int32_t>::min() &&
                 value <= std::numeric_limits<std::int32_t>::max();
    Dtype dtype = like ? like->dtype : small ? Dtype::int32 : Dtype::int64;
    if (dtype == Dtype::bool_) dtype = small ? Dtype::int32 : Dtype::int64;
    Scalar s{};
    if (is_inexact(dtype)) {
        double real = PyLong_AsDouble(number);
        if (real == -1.0 && PyErr_Occurred()) throw PythonError{};
        if (dtype == Dtype::complex64)
            s.c = {static_cast<float>(real), 0.0f};
        else
            s.f = real;
        return new_scalar(dtype, s);
    }
    if (overflowed) {
        if (dtype != Dtype::uint64 || overflowed < 0) overflow(number, dtype);
        s.i = static_cast<std::int64_t>(PyLong_AsUnsignedLongLong(number));
        if (PyErr_Occurred()) overflow(number, dtype);
        return new_scalar(dtype, s);
    }
    int bits = static_cast<int>(size_of(dtype)) * 8;
    bool is_signed = category_of(dtype) == Category::signed_integer;
    std::int64_t low = is_signed ? std::numeric_limits<std::int64_t>::min() >> (64 - bits) : 0;
    std::int64_t high =
        bits == 64 ? std::numeric_limits<std::int64_t>::max() : (std::int64_t{1} << (is_signed ? bits - 1 : bits)) - 1;
    if (value > high || value < low) overflow(number, dtype);
    s.i = value;
    return new_scalar(dtype, s);
}

}  // namespace

NodeRef operand(PyObject* object, const Node* like) {
    if (is_array(object)) return NodeRef::share(node_of(object));
    Scalar s{};
    if (PyBool_Check(object)) {
        bool value = object == Py_True;
        Dtype dtype = like ? like->dtype : Dtype::bool_;
        if (dtype == Dtype::complex64)
            s.c = {value ? 1.0f : 0.0f, 0.0f};
        else if (is_inexact(dtype))
            s.f = value;
        else
            s.i = value;
        return NodeRef(new_scalar(dtype, s));
    }
    if (PyFloat_Check(object)) {
        s.f = PyFloat_AS_DOUBLE(object);
        Dtype dtype = like && is_floating(like->dtype) ? like->dtype : Dtype::float32;
        return NodeRef(new_scalar(dtype, s));
    }
    if (PyLong_Check(object)) return NodeRef(integer_scalar(object, like));
    if (PyComplex_Check(object)) {
        s.c = {static_cast<float>(PyComplex_RealAsDouble(object)), static_cast<float>(PyComplex_ImagAsDouble(object))};
        return NodeRef(new_scalar(Dtype::complex64, s));
    }
    if (object == Py_None) {
        PyErr_SetString(PyExc_TypeError, "None received where an array or a number is expected.");
        throw PythonError{};
    }
    if (PyList_Check(object) || PyTuple_Check(object) || PyUnicode_Check(object) || PyBytes_Check(object) ||
        PyDict_Check(object))
        throw std::invalid_argument(std::string("Invalid type ") + Py_TYPE(object)->tp_name +
                                    " received where an array or a number is expected; make an array with mx.array.");
    PyObject* converted = PyObject_CallFunctionObjArgs(hooks().construct, object, Py_None, nullptr);
    if (!converted) throw PythonError{};
    NodeRef node = NodeRef::share(node_of(converted));
    Py_DECREF(converted);
    return node;
}

namespace {

ArrayObject* self_of(PyObject* object) { return reinterpret_cast<ArrayObject*>(object); }

void replace(PyObject* self, Node* node) {  // takes over one reference
    add_handle(node);
    Node* old = std::exchange(self_of(self)->node, node);
    drop_handle(old);
    release(old);
}

PyObject* array_new(PyTypeObject*, PyObject* args, PyObject* kwargs) {
    static const char* keywords[] = {"val", "dtype", nullptr};
    PyObject *value, *dtype = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O", const_cast<char**>(keywords), &value, &dtype)) return nullptr;
    return PyObject_CallFunctionObjArgs(hooks().construct, value, dtype, nullptr);
}

void array_dealloc(PyObject* object) {
    auto* self = self_of(object);
    if (self->weakrefs) PyObject_ClearWeakRefs(object);
    drop_handle(self->node);
    release(self->node);
    PyTypeObject* type = Py_TYPE(object);
    type->tp_free(object);
    Py_DECREF(type);
}

PyObject* array_repr(PyObject* self) { return PyObject_CallOneArg(hooks().repr, self); }

// ---------------------------------------------------------------- operators

enum Operator {
    op_add,
    op_subtract,
    op_multiply,
    op_divide,
    op_floor_divide,
    op_remainder,
    op_power,
    op_matmul,
    op_and,
    op_or,
    op_xor,
    op_left_shift,
    op_right_shift,
    op_negative,
    op_abs,
    op_invert,
    op_less,
    op_less_equal,
    op_equal,
    op_not_equal,
    op_greater,
    op_greater_equal,
    op_count,
};
constexpr const char* kOperatorNames[op_count] = {
    "add",         "subtract",   "multiply",    "divide",     "floor_divide", "remainder",    "power", "matmul",
    "bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift",  "negative",     "abs",   "invert",
    "less",        "less_equal", "equal",       "not_equal",  "greater",      "greater_equal"};

PyObject* callable_of(Operator op) {
    static PyObject* cache[op_count];
    if (!cache[op]) {
        PyObject* found = hooks().operators ? PyDict_GetItemString(hooks().operators, kOperatorNames[op]) : nullptr;
        if (!found) throw std::runtime_error(std::string("operator ") + kOperatorNames[op] + " is not registered");
        cache[op] = Py_NewRef(found);
    }
    return cache[op];
}

bool usable_operand(PyObject* object) {
    if (is_array(object) || is_number(object)) return true;
    if (PyList_Check(object) || PyTuple_Check(object) || PyUnicode_Check(object) || object == Py_None ||
        PyDict_Check(object))
        return false;
    return PyObject_HasAttrString(object, "__array__") || PyObject_CheckBuffer(object);
}

template <Operator op>
PyObject* binary_slot(PyObject* a, PyObject* b) {
    if (!usable_operand(a) || !usable_operand(b)) Py_RETURN_NOTIMPLEMENTED;
    return guarded([&]() -> PyObject* {
        PyObject* callable = callable_of(op);
        PyObject* args[] = {nullptr, a, b};
        return PyObject_Vectorcall(callable, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
    });
}

PyObject* matmul_slot(PyObject* a, PyObject* b) {
    if (is_array(a) && is_array(b)) {
        PyObject* result = guarded([&]() -> PyObject* {
            Node* node = try_matmul(node_of(a), node_of(b), default_device());
            return node ? finish(node) : nullptr;
        });
        if (result || PyErr_Occurred()) return result;
    }
    return binary_slot<op_matmul>(a, b);
}

template <Operator op>
PyObject* inplace_slot(PyObject* a, PyObject* b) {
    PyObject* result = binary_slot<op>(a, b);
    if (!result || result == Py_NotImplemented || !is_array(result)) return result;
    replace(a, retain(node_of(result)));
    Py_DECREF(result);
    return Py_NewRef(a);
}

// `a /= b` keeps being what `a` is: integers cannot hold the quotient.
PyObject* inplace_divide_slot(PyObject* a, PyObject* b) {
    if (is_array(a) && !is_inexact(node_of(a)->dtype)) {
        PyErr_Format(PyExc_ValueError, "In place division of %s would change its dtype: write a = a / b.",
                     name_of(node_of(a)->dtype));
        return nullptr;
    }
    return inplace_slot<op_divide>(a, b);
}

template <Operator op>
PyObject* unary_slot(PyObject* a) {
    return guarded([&]() -> PyObject* { return PyObject_CallOneArg(callable_of(op), a); });
}

PyObject* power_slot(PyObject* a, PyObject* b, PyObject* modulus) {
    if (modulus != Py_None) Py_RETURN_NOTIMPLEMENTED;
    return binary_slot<op_power>(a, b);
}

PyObject* inplace_power_slot(PyObject* a, PyObject* b, PyObject* modulus) {
    if (modulus != Py_None) Py_RETURN_NOTIMPLEMENTED;
    return inplace_slot<op_power>(a, b);
}

PyObject* compare_slot(PyObject* a, PyObject* b, int which) {
    switch (which) {
        case Py_LT:
            return binary_slot<op_less>(a, b);
        case Py_LE:
            return binary_slot<op_less_equal>(a, b);
        case Py_EQ:
            return binary_slot<op_equal>(a, b);
        case Py_NE:
            return binary_slot<op_not_equal>(a, b);
        case Py_GT:
            return binary_slot<op_greater>(a, b);
        default:
            return binary_slot<op_greater_equal>(a, b);
    }
}

// ---------------------------------------------------------------- conversions

void evaluate_self(PyObject* self) {
    Node* roots[] = {node_of(self)};
    if (roots[0]->role == Role::op) {
        NodeRef keep = NodeRef::share(roots[0]);
        evaluate(roots, true);
    }
}

PyObject* single_item(PyObject* self) {
    if (node_of(self)->size() != 1)
        throw std::invalid_argument("[convert] Only length-1 arrays can be converted to Python scalars.");
    evaluate_self(self);
    return item(node_of(self));
}

PyObject* array_item(PyObject* self, PyObject*) {
    return guarded([&] { return single_item(self); });
}

PyObject* array_float(PyObject* self) {
    return guarded([&]() -> PyObject* {
        PyObject* value = single_item(self);
        PyObject* result = PyNumber_Float(value);
        Py_DECREF(value);
        return result;
    });
}

PyObject* array_int(PyObject* self) {
    return guarded([&]() -> PyObject* {
        PyObject* value = single_item(self);
        PyObject* result = PyNumber_Long(value);
        Py_DECREF(value);
        return result;
    });
}

PyObject* array_index(PyObject* self) {
    return guarded([&]() -> PyObject* {
        if (!is_integral(node_of(self)->dtype))
            throw type_error(std::string("only an integer array of one element can be an index, got ") +
                             name_of(node_of(self)->dtype));
        return array_int(self);
    });
}

int array_bool(PyObject* self) {
    return guarded([&]() -> int {
        PyObject* value = single_item(self);
        int truth = PyObject_IsTrue(value);
        Py_DECREF(value);
        return truth;
    });
}

Py_ssize_t array_length(PyObject* self) {
    return guarded([&]() -> Py_ssize_t {
        if (node_of(self)->rank == 0) throw type_error("len() 0-dimensional array.");
        return node_of(self)->shape[0];
    });
}

PyObject* array_getitem(PyObject* self, PyObject* index) {
    PyObject* result = guarded([&]() -> PyObject* {
        Node* node = try_getitem(node_of(self), index, default_device());
        return node ? finish(node) : nullptr;
    });
    if (result || PyErr_Occurred()) return result;
    return PyObject_CallFunctionObjArgs(hooks().getitem, self, index, nullptr);
}

int array_setitem(PyObject* self, PyObject* index, PyObject* value) {
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "array elements cannot be deleted");
        return -1;
    }
    PyObject* result = !is_array(value) ? nullptr : guarded([&]() -> PyObject* {
        Node* node = try_setitem(node_of(self), index, node_of(value), default_device());
        return node ? finish(node) : nullptr;
    });
    if (!result && !PyErr_Occurred())
        result = PyObject_CallFunctionObjArgs(hooks().setitem, self, index, value, nullptr);
    if (!result) return -1;
    replace(self, retain(node_of(result)));
    Py_DECREF(result);
    return 0;
}

PyObject* array_sequence_item(PyObject* self, Py_ssize_t i) {
    PyObject* index = PyLong_FromSsize_t(i);
    PyObject* result = array_getitem(self, index);
    Py_DECREF(index);
    return result;
}

PyObject* array_iter(PyObject* self) {
    if (node_of(self)->rank == 0) {
        PyErr_SetString(PyExc_TypeError, "iter() 0-dimensional array.");
        return nullptr;
    }
    return PySeqIter_New(self);
}

PyObject* array_tolist(PyObject* self, PyObject*) {
    return guarded([&]() -> PyObject* {
        if (node_of(self)->rank == 0) return single_item(self);
        evaluate_self(self);
        Dtype dtype = node_of(self)->dtype;
        NodeRef wide;
        Node* node = node_of(self);
        if (dtype == Dtype::bfloat16 || dtype == Dtype::float16) {
            wide = NodeRef(record_astype(node, Dtype::float32, node->device));
            node = wide.get();
            Node* roots[] = {node};
            evaluate(roots, true);
        }
        PyObject* values = to_ndarray(node);
        PyObject* list = PyObject_CallMethod(values, "tolist", nullptr);
        Py_DECREF(values);
        return list;
    });
}

PyObject* array_replace(PyObject* self, PyObject* other) {
    if (!is_array(other)) {
        PyErr_SetString(PyExc_TypeError, "expected an array");
        return nullptr;
    }
    replace(self, retain(node_of(other)));
    return Py_NewRef(self);
}

// The integers of f(1, 2) or f((1, 2)): false if there is anything else.
bool small_integers(PyObject* const* args, Py_ssize_t n, std::int64_t* values, int* count) {
    if (n == 1 && PyTuple_CheckExact(args[0])) {
        n = PyTuple_GET_SIZE(args[0]);
        args = &PyTuple_GET_ITEM(args[0], 0);
    } else if (n == 1 && PyList_CheckExact(args[0])) {
        n = PyList_GET_SIZE(args[0]);
        args = reinterpret_cast<PyListObject*>(args[0])->ob_item;
    }
    if (n > kMaxRank) return false;
    for (Py_ssize_t i = 0; i < n; ++i) {
        if (!PyLong_CheckExact(args[i])) return false;
        values[i] = PyLong_AsLongLong(args[i]);
        if (values[i] == -1 && PyErr_Occurred()) {
            PyErr_Clear();
            return false;
        }
    }
    *count = static_cast<int>(n);
    return true;
}

PyObject* call_operator(const char* name, PyObject* self, PyObject* const* args, std::size_t nargsf,
                        PyObject* kwnames) {
    PyObject* function = hooks().operators ? PyDict_GetItemString(hooks().operators, name) : nullptr;
    if (!function) {
        PyErr_Format(PyExc_RuntimeError, "operator %s is not registered", name);
        return nullptr;
    }
    Py_ssize_t n = PyVectorcall_NARGS(nargsf) + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0);
    std::vector<PyObject*> all(static_cast<std::size_t>(n) + 1);
    all[0] = self;
    std::copy(args, args + n, all.begin() + 1);
    return PyObject_Vectorcall(function, all.data(), static_cast<std::size_t>(PyVectorcall_NARGS(nargsf)) + 1, kwnames);
}

PyObject* array_transpose(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
    if (!kwnames) {
        PyObject* result = guarded([&]() -> PyObject* {
            Node* a = node_of(self);
            if (n == 0) {
                Node* node = record_reversed(a, default_device());
                return node ? finish(node) : nullptr;
            }
            std::int64_t values[kMaxRank];
            int order[kMaxRank], count = 0;
            unsigned seen = 0;
            if (!small_integers(args, n, values, &count) || count != a->rank) return nullptr;
            for (int i = 0; i < count; ++i) {
                if (values[i] < 0) values[i] += count;
                if (values[i] < 0 || values[i] >= count || seen >> values[i] & 1) return nullptr;
                seen |= 1u << values[i];
                order[i] = static_cast<int>(values[i]);
            }
            Node* node = record_transpose(a, order, default_device());
            return node ? finish(node) : nullptr;
        });
        if (result || PyErr_Occurred()) return result;
    }
    return call_operator("transpose_method", self, args, static_cast<std::size_t>(n), kwnames);
}

PyObject* array_reshape(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
    std::int64_t shape[kMaxRank];
    int rank = 0;
    if (!kwnames && small_integers(args, n, shape, &rank))
        return guarded([&]() -> PyObject* {
            return finish(record_reshape(node_of(self), {shape, static_cast<std::size_t>(rank)}, default_device()));
        });
    return call_operator("reshape_method", self, args, static_cast<std::size_t>(n), kwnames);
}

PyObject* get_transposed(PyObject* self, void*) {
    return guarded([&]() -> PyObject* {
        Node* node = record_reversed(node_of(self), default_device());
        if (!node) throw std::runtime_error("the primitive transpose is not registered");
        return finish(node);
    });
}

PyObject* get_shape(PyObject* self, void*) {
    Node* node = node_of(self);
    PyObject* shape = PyTuple_New(node->rank);
    for (int d = 0; shape && d < node->rank; ++d) PyTuple_SET_ITEM(shape, d, PyLong_FromLongLong(node->shape[d]));
    return shape;
}
PyObject* get_ndim(PyObject* self, void*) { return PyLong_FromLong(node_of(self)->rank); }
PyObject* get_size(PyObject* self, void*) { return PyLong_FromLongLong(node_of(self)->size()); }
PyObject* get_itemsize(PyObject* self, void*) { return PyLong_FromSize_t(size_of(node_of(self)->dtype)); }
PyObject* get_nbytes(PyObject* self, void*) { return PyLong_FromSize_t(node_of(self)->nbytes()); }
PyObject* get_dtype(PyObject* self, void*) { return dtype_object(node_of(self)->dtype); }

PyGetSetDef getset[] = {
    {"shape", get_shape, nullptr, "The dimensions, a tuple of ints.", nullptr},
    {"ndim", get_ndim, nullptr, "The number of dimensions.", nullptr},
    {"size", get_size, nullptr, "The number of elements.", nullptr},
    {"itemsize", get_itemsize, nullptr, "Bytes of one element.", nullptr},
    {"nbytes", get_nbytes, nullptr, "Bytes of all elements.", nullptr},
    {"dtype", get_dtype, nullptr, "The element type.", nullptr},
    {"T", get_transposed, nullptr, "The axes in reverse order.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMethodDef methods[] = {
    {"item", array_item, METH_NOARGS, "The only element as a Python number; evaluates. ValueError if size is not 1."},
    {"reshape", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(array_reshape)), METH_FASTCALL | METH_KEYWORDS,
     "The same elements in another shape, given as a tuple or as separate integers; see `reshape`."},
    {"transpose", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(array_transpose)),
     METH_FASTCALL | METH_KEYWORDS,
     "The axes in another order, given as a tuple or as separate integers; reversed if none are given."},
    {"tolist", array_tolist, METH_NOARGS, "Nested lists of Python numbers; evaluates."},
    {"_replace", array_replace, METH_O, "Make this object refer to another array's value (in-place semantics)."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ArrayObject, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

Py_hash_t array_hash(PyObject* self) { return static_cast<Py_hash_t>(reinterpret_cast<std::uintptr_t>(self) >> 4); }

// The buffer is that of the ndarray of the values: evaluates, and shares memory on the host. The view owns the ndarray,
// so there is nothing to release here.
int array_getbuffer(PyObject* self, Py_buffer* view, int flags) {
    view->obj = nullptr;
    PyObject* values = guarded([&]() -> PyObject* {
        NodeRef node = NodeRef::share(node_of(self));
        Node* roots[] = {node.get()};
        if (node->role == Role::op) evaluate(roots, true);
        return to_ndarray(node.get());
    });
    if (!values) return -1;
    int status = PyObject_GetBuffer(values, view, flags);
    Py_DECREF(values);
    return status;
}

template <class F>
void* slot(F* function) {
    return reinterpret_cast<void*>(function);
}

}  // namespace

PyObject* make_array_type() {
    static PyType_Slot slots[] = {
        {Py_tp_new, slot(array_new)},
        {Py_tp_dealloc, slot(array_dealloc)},
        {Py_tp_repr, slot(array_repr)},
        {Py_tp_hash, slot(array_hash)},
        {Py_tp_richcompare, slot(compare_slot)},
        {Py_tp_iter, slot(array_iter)},
        {Py_tp_getset, getset},
        {Py_tp_methods, methods},
        {Py_tp_members, members},
        {Py_tp_doc, const_cast<char*>("array(val, dtype=None)\n\nA lazy n-dimensional array.")},
        {Py_nb_add, slot(binary_slot<op_add>)},
        {Py_nb_subtract, slot(binary_slot<op_subtract>)},
        {Py_nb_multiply, slot(binary_slot<op_multiply>)},
        {Py_nb_true_divide, slot(binary_slot<op_divide>)},
        {Py_nb_floor_divide, slot(binary_slot<op_floor_divide>)},
        {Py_nb_remainder, slot(binary_slot<op_remainder>)},
        {Py_nb_power, slot(power_slot)},
        {Py_nb_matrix_multiply, slot(matmul_slot)},
        {Py_nb_and, slot(binary_slot<op_and>)},
        {Py_nb_or, slot(binary_slot<op_or>)},
        {Py_nb_xor, slot(binary_slot<op_xor>)},
        {Py_nb_lshift, slot(binary_slot<op_left_shift>)},
        {Py_nb_rshift, slot(binary_slot<op_right_shift>)},
        {Py_nb_inplace_add, slot(inplace_slot<op_add>)},
        {Py_nb_inplace_subtract, slot(inplace_slot<op_subtract>)},
        {Py_nb_inplace_multiply, slot(inplace_slot<op_multiply>)},
        {Py_nb_inplace_true_divide, slot(inplace_divide_slot)},
        {Py_nb_inplace_floor_divide, slot(inplace_slot<op_floor_divide>)},
        {Py_nb_inplace_remainder, slot(inplace_slot<op_remainder>)},
        {Py_nb_inplace_power, slot(inplace_power_slot)},
        {Py_nb_inplace_matrix_multiply, slot(inplace_slot<op_matmul>)},
        {Py_nb_inplace_and, slot(inplace_slot<op_and>)},
        {Py_nb_inplace_or, slot(inplace_slot<op_or>)},
        {Py_nb_inplace_xor, slot(inplace_slot<op_xor>)},
        {Py_nb_inplace_lshift, slot(inplace_slot<op_left_shift>)},
        {Py_nb_inplace_rshift, slot(inplace_slot<op_right_shift>)},
        {Py_nb_negative, slot(unary_slot<op_negative>)},
        {Py_nb_absolute, slot(unary_slot<op_abs>)},
        {Py_nb_invert, slot(unary_slot<op_invert>)},
        {Py_nb_bool, slot(array_bool)},
        {Py_nb_float, slot(array_float)},
        {Py_nb_int, slot(array_int)},
        {Py_nb_index, slot(array_index)},
        {Py_mp_length, slot(array_length)},
        {Py_mp_subscript, slot(array_getitem)},
        {Py_mp_ass_subscript, slot(array_setitem)},
        {Py_sq_length, slot(array_length)},
        {Py_sq_item, slot(array_sequence_item)},
        {Py_bf_getbuffer, slot(array_getbuffer)},
        {0, nullptr},
    };
    static PyType_Spec spec = {"mlxlite.core.array", sizeof(ArrayObject), 0, Py_TPFLAGS_DEFAULT, slots};
    PyObject* type = PyType_FromSpec(&spec);
    array_type = reinterpret_cast<PyTypeObject*>(type);
    return type;
}

}  // namespace mlxlite
