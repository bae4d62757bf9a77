// Trees of arrays: nested lists, tuples and dicts, as transforms, optimizers and modules go over them several times a
// step. A dict's subclass counts as a dict; what is none of the three is a leaf.
#pragma once
#include <Python.h>

namespace mlxlite {

// All functions return new references and throw PythonError, RecursionError for a tree that holds itself among others.

// The leaves in order, as a list; only those that are arrays if asked for.
PyObject* tree_leaves(PyObject* tree, bool only_arrays);

// The same tree with other leaves (arrays, if only those are replaced), taken from a list in order. A named tuple
// remains one; other subclasses become a plain list, tuple or dict.
PyObject* tree_replaced(PyObject* tree, PyObject* values, bool only_arrays);

// The same tree with function(leaf, leaves of the trees `rest`) at the leaves; where is_leaf(node), if it is not None,
// holds, the node counts as a leaf.
PyObject* tree_mapped(PyObject* function, PyObject* tree, PyObject* rest, PyObject* is_leaf);

// Puts values into the places of a tree's arrays, in order, in its own lists and dicts. An array that stands in a tuple
// is itself made to have the value.
void tree_fill(PyObject* tree, PyObject* values);

// Hashable, and equal for trees of one structure whose arrays have the same shapes and dtypes, and for whose other
// leaves leaf(x) is equal. The order of a dict's keys is part of it.
PyObject* tree_key(PyObject* tree, PyObject* leaf);

// A module is a dict that also keeps its items in __dict__, for a quick look-up as attributes. `type` is its class.

// Puts the arrays of `values` in the place of those of a module. False if not all of `values` has such a place, and
// some of it may have been put: the caller says what is wrong.
bool put_arrays(PyObject* module, PyObject* values, PyObject* type);

// The arrays of a module and of those below it, in dicts and lists, without names that begin with an underscore; nor,
// if `trainable`, those that a module has in its set `_no_grad`. What is no array leaves {} in dicts and lists of a
// module.
PyObject* arrays_of_module(PyObject* module, bool trainable, PyObject* type);

}  // namespace mlxlite
