#include "mlxlite/graph/host.h"

#include <bit>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/errors.h"
#include "mlxlite/graph/evaluate.h"

namespace mlxlite {

namespace {

void destroy_host(Buffer* buffer) {
    Py_XDECREF(static_cast<PyObject*>(buffer->owner));
    delete buffer;
}

void* address_of(PyObject* ndarray) {
    Owned number(PyObject_CallOneArg(hooks().address, ndarray));
    void* address = PyLong_AsVoidPtr(number.object);
    if (!address && PyErr_Occurred()) throw PythonError{};
    return address;
}

PyObject* shape_tuple(const Node* node) {
    PyObject* shape = checked(PyTuple_New(node->rank));
    for (int d = 0; d < node->rank; ++d) PyTuple_SET_ITEM(shape, d, PyLong_FromLongLong(node->shape[d]));
    return shape;
}

float half_to_float(std::uint16_t h) {
    std::uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
    if (exponent == 0) {
        float value = static_cast<float>(mantissa) * 0x1p-24f;
        return sign ? -value : value;
    }
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
    return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

template <class T>
T load(const void* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

PyObject* element_to_python(Dtype dtype, const void* p) {
    switch (dtype) {
        case Dtype::bool_:
            return PyBool_FromLong(load<std::uint8_t>(p));
        case Dtype::uint8:
            return PyLong_FromLong(load<std::uint8_t>(p));
        case Dtype::uint16:
            return PyLong_FromLong(load<std::uint16_t>(p));
        case Dtype::uint32:
            return PyLong_FromUnsignedLong(load<std::uint32_t>(p));
        case Dtype::uint64:
            return PyLong_FromUnsignedLongLong(load<std::uint64_t>(p));
        case Dtype::int8:
            return PyLong_FromLong(load<std::int8_t>(p));
        case Dtype::int16:
            return PyLong_FromLong(load<std::int16_t>(p));
        case Dtype::int32:
            return PyLong_FromLong(load<std::int32_t>(p));
        case Dtype::int64:
            return PyLong_FromLongLong(load<std::int64_t>(p));
        case Dtype::float16:
            return PyFloat_FromDouble(half_to_float(load<std::uint16_t>(p)));
        case Dtype::bfloat16:
            return PyFloat_FromDouble(std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(p)) << 16));
        case Dtype::float32:
            return PyFloat_FromDouble(load<float>(p));
        case Dtype::float64:
            return PyFloat_FromDouble(load<double>(p));
        case Dtype::complex64: {
            auto c = load<std::array<float, 2>>(p);
            return PyComplex_FromDoubles(c[0], c[1]);
        }
    }
    return nullptr;
}

}  // namespace

PyObject* empty_ndarray(const Node* node) {
    Owned shape(shape_tuple(node));
    return checked(PyObject_CallFunction(hooks().empty, "Os", shape.object, name_of(node->dtype)));
}

Buffer* host_buffer(PyObject* ndarray) {
    auto* buffer = new Buffer;
    buffer->device = Device::cpu;
    buffer->destroy = destroy_host;
    buffer->owner = Py_NewRef(ndarray);
    return buffer;
}

PyObject* ndarray_of(const Buffer* buffer) { return static_cast<PyObject*>(buffer->owner); }

bool host_memory_is_exclusive(const Buffer* buffer) {
    PyObject* ndarray = ndarray_of(buffer);
    if (Py_REFCNT(ndarray) != 1) return false;
    PyObject* base = PyObject_GetAttrString(ndarray, "base");
    bool exclusive = base == Py_None;
    Py_XDECREF(base);
    PyErr_Clear();
    return exclusive;
}

void* host_address(Buffer* buffer) {
    if (buffer->ptr) return buffer->ptr;
    PyObject* contiguous = checked(PyObject_CallOneArg(hooks().contiguous, ndarray_of(buffer)));
    Py_SETREF(*reinterpret_cast<PyObject**>(&buffer->owner), contiguous);
    buffer->ptr = address_of(contiguous);
    return buffer->ptr;
}

Node* leaf_from_ndarray(PyObject* ndarray, Dtype dtype, std::span<const std::int64_t> shape) {
    NodeRef node(new_node());
    node->role = Role::leaf;
    node->dtype = dtype;
    node->device = Device::cpu;
    set_shape(node.get(), shape);
    node->buffer = host_buffer(ndarray);
    return node.release();
}

void materialize_scalar(Node* node) {
    Owned array(empty_ndarray(node));
    Owned value(scalar_to_python(node->dtype, node->scalar));
    Owned key(PyTuple_New(0));
    if (PyObject_SetItem(array.object, key.object, value.object)) throw PythonError{};
    node->buffer = host_buffer(array.object);
    node->role = Role::leaf;
    node->device = Device::cpu;
}

PyObject* to_ndarray(Node* node) {
    if (node->role == Role::scalar) materialize_scalar(node);
    if (node->buffer->device == Device::cpu) return Py_NewRef(ndarray_of(node->buffer));
    NodeRef source = NodeRef::share(node);
    if (node->strides) {
        source = NodeRef(record_copy(node, Device::gpu));
        Node* roots[] = {source.get()};
        evaluate(roots, true);
    }
    Owned array(empty_ndarray(node));
    if (node->nbytes()) {
        const BackendApi* api = backend(Device::gpu).api;
        if (api->download(address_of(array.object), source->buffer, static_cast<std::size_t>(source->offset),
                          node->nbytes(), source->ticket))
            throw PythonError{};
    }
    return array.release();
}

PyObject* scalar_to_python(Dtype dtype, const Scalar& value) {
    switch (category_of(dtype)) {
        case Category::boolean:
            return PyBool_FromLong(value.i != 0);
        case Category::unsigned_integer:
            return PyLong_FromUnsignedLongLong(static_cast<std::uint64_t>(value.i));
        case Category::signed_integer:
            return PyLong_FromLongLong(value.i);
        case Category::floating:
            return PyFloat_FromDouble(value.f);
        case Category::complex:
            return PyComplex_FromDoubles(value.c.re, value.c.im);
    }
    return nullptr;
}

PyObject* item(Node* node) {
    if (node->role == Role::scalar) materialize_scalar(node);
    char bytes[16];
    if (node->buffer->device == Device::gpu) {
        if (backend(Device::gpu)
                .api->download(bytes, node->buffer, static_cast<std::size_t>(node->offset), size_of(node->dtype),
                               node->ticket))
            throw PythonError{};
        return checked(element_to_python(node->dtype, bytes));
    }
    return checked(element_to_python(node->dtype, host_address(node->buffer)));
}

void move_to(Node* node, Device device) {
    if (node->buffer->device == device) return;
    if (device == Device::cpu) {
        Owned array(to_ndarray(node));
        release(std::exchange(node->buffer, host_buffer(array.object)));
        node->ticket = 0;
    } else {
        Buffer* moved = backend(device).api->upload(host_address(node->buffer), node->nbytes());
        if (!moved) throw PythonError{};
        release(std::exchange(node->buffer, moved));
    }
    node->offset = 0;
    delete[] std::exchange(node->strides, nullptr);
    node->device = device;
}

}  // namespace mlxlite
