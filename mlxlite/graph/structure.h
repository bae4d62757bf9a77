// The common cases of ops with a structure, recorded without Python: transposes, basic indexing, matrix products,
// reductions. A function
// returns nullptr for what is unusual or wrong; the caller then asks the function of core, which also raises the
// errors.
#pragma once
#include <Python.h>

#include "mlxlite/graph/node.h"

namespace mlxlite {

// Dim i of the result is dim order[i]; `order` holds each dim once.
Node* record_transpose(Node* a, const int* order, Device device);
Node* record_reversed(Node* a, Device device);  // all dims in reverse order

// a[index] for integers, slices, None and Ellipsis within bounds.
Node* try_getitem(Node* a, PyObject* index, Device device);
// The array after a[index] = value, for an index as above and a value of the same dtype and just the shape of the part.
Node* try_setitem(Node* a, PyObject* index, Node* value, Device device);

// a @ b for two or more dims each and one inexact dtype.
Node* try_matmul(Node* a, Node* b, Device device);
// beta * c + alpha * (a @ b), likewise, for a c that broadcasts to the product.
Node* try_addmm(Node* c, Node* a, Node* b, double alpha, double beta, Device device);

// A reduction of an array that is not empty over an axis, a tuple of different axes, or (None) all; of the dtype
// `result`.
Node* try_reduce(Primitive* op, Node* a, PyObject* axis, bool keepdims, Dtype result, Device device);

}  // namespace mlxlite
