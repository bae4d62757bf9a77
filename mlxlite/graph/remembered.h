// The Python type `Remembered`: a function that records ops, and is run only for arguments that are new to it.
//
// What such a function does follows from the shapes and dtypes of its arrays and from its other arguments. So what it
// recorded for some is kept, and a later call with equal ones records the same ops for its own arrays: a loop over the
// layers of a model pays once for reading arguments, looking for mistakes, and working out shapes.
#pragma once
#include <Python.h>

namespace mlxlite {

PyObject* make_remembered_type();

}  // namespace mlxlite
