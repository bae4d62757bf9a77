// The Python type `array`: one reference to a node.
#pragma once
#include <Python.h>

#include "mlxlite/graph/node.h"

namespace mlxlite {

struct ArrayObject {
    PyObject_HEAD Node* node;
    PyObject* weakrefs;
};

extern PyTypeObject* array_type;
PyObject* make_array_type();
inline bool is_array(PyObject* object) { return PyObject_TypeCheck(object, array_type); }
inline Node* node_of(PyObject* object) { return reinterpret_cast<ArrayObject*>(object)->node; }
PyObject* wrap(Node* node);  // takes over one reference

// Any operand Python code may pass: an array, a number (weak when `like` is given), or what the construct hook accepts.
NodeRef operand(PyObject* object, const Node* like);
bool is_number(PyObject* object);

// Python objects that core/ registers.
struct Hooks {
    PyObject* construct = nullptr;       // (value, dtype or None) -> array
    PyObject* getitem = nullptr;         // (array, index) -> array
    PyObject* setitem = nullptr;         // (array, index, value) -> array
    PyObject* repr = nullptr;            // array -> str
    PyObject* default_device = nullptr;  // () -> "cpu" or "gpu"
    PyObject* empty = nullptr;           // (shape, dtype name) -> ndarray
    PyObject* address = nullptr;         // contiguous ndarray -> int
    PyObject* contiguous = nullptr;      // ndarray -> contiguous ndarray
    PyObject* load_backend = nullptr;    // ("cpu" or "gpu"), registers the backend or raises
    PyObject* operators = nullptr;       // dict: name -> callable
};
Hooks& hooks();

Device default_device();
void set_default_device(Device device);
// The device named by a `stream=` argument: None, a Device or a Stream.
Device device_of(PyObject* stream);

PyObject* dtype_object(Dtype dtype);  // new reference
Dtype dtype_from(PyObject* object);   // throws std::invalid_argument

}  // namespace mlxlite
