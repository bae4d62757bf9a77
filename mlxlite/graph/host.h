// Host memory is NumPy's: a host buffer owns one ndarray, whose address is asked for only when something needs it.
#pragma once
#include <Python.h>

#include "mlxlite/graph/node.h"

namespace mlxlite {

Buffer* host_buffer(PyObject* ndarray);               // new reference; shares the ndarray
PyObject* ndarray_of(const Buffer* buffer);           // borrowed
bool host_memory_is_exclusive(const Buffer* buffer);  // nobody but this buffer can see the memory
void* host_address(Buffer* buffer);                   // of the first element; the buffer's array becomes contiguous

Node* leaf_from_ndarray(PyObject* ndarray, Dtype dtype, std::span<const std::int64_t> shape);
// The array's values as an ndarray of its shape and dtype: the memory itself on the host, a copy from the GPU.
PyObject* to_ndarray(Node* node);
PyObject* scalar_to_python(Dtype dtype, const Scalar& value);
PyObject* item(Node* node);  // the only element as a Python number

// Move an evaluated array to a device, if it is elsewhere.
void move_to(Node* node, Device device);
void materialize_scalar(Node* node);
PyObject* empty_ndarray(const Node* node);  // of its shape and dtype

}  // namespace mlxlite
