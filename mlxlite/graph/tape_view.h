// What a backend's lowering sees of a tape: Python objects, made on a plan cache miss only.
#pragma once
#include <Python.h>

#include "mlxlite/graph/tape.h"

namespace mlxlite {

PyObject* make_tape_view(const Tape& tape);  // new reference, throws PythonError

}  // namespace mlxlite
