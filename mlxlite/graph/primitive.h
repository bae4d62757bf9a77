// The Python type `Primitive`: a name, a kind, and how its result's shape and dtype follow from its operands.
#pragma once
#include <Python.h>

#include <span>
#include <string>

#include "mlxlite/graph/node.h"

namespace mlxlite {

enum class Kind : std::uint8_t { unary, binary, select, other };
enum class UnaryRule : std::uint8_t { same, inexact, boolean, real };
enum class BinaryRule : std::uint8_t { promote, inexact, compare, logical };
enum class Accepts : std::uint8_t { any, numeric, integer, real };

struct Primitive {
    PyObject_HEAD vectorcallfunc vectorcall;
    Kind kind;
    std::uint8_t rule;  // UnaryRule or BinaryRule
    Accepts accepts;
    std::uint16_t id;
    PyObject* name;       // str
    PyObject* kind_name;  // str
    PyObject* doc;        // str
    const char* c_name;   // of `name`
};

// All functions below set no Python error: they throw, and the callers that face Python translate.
Node* record_unary(Primitive* primitive, Node* a, Device device);
Node* record_binary(Primitive* primitive, Node* a, Node* b, Device device);
Node* record_select(Primitive* primitive, Node* condition, Node* x, Node* y, Device device);
Node* record_astype(Node* a, Dtype dtype, Device device);
Node* record_reshape(Node* a, std::span<const std::int64_t> shape, Device device);
Node* new_view(Node* a, std::span<const std::int64_t> shape, Device device);  // a reshape, even to the same shape
Node* record_argument(Dtype dtype, std::span<const std::int64_t> shape);  // stands for an array; no backend takes it
Node* record_copy(Node* a, Device device);

Primitive* primitive_from_id(std::uint16_t id);
Primitive* primitive_named(const char* name);  // nullptr if there is none

// The array of a node that was just recorded; takes over the reference. Bounds the pending graph.
PyObject* finish(Node* node);

// Evaluates `node` asynchronously when the pending graph has outgrown its budget. `finish` does so.
void keep_budget(Node* node);
struct Budget {
    std::int64_t ops = 20000;
    std::int64_t bytes = std::int64_t{1} << 31;
};
Budget& budget();

// Static attributes, interned: equal objects of equal types have equal ids. 0 is None.
std::uint32_t intern_static(PyObject* value);
PyObject* static_value(std::uint32_t id);  // borrowed

PyObject* make_primitive_type();
extern PyTypeObject* primitive_type;
inline bool is_primitive(PyObject* object) { return Py_TYPE(object) == primitive_type; }

// A Python error is already set.
struct PythonError {};

}  // namespace mlxlite
