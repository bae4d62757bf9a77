// What the lazy graph calls (mlxlite/graph/backend_api.h).
#pragma once
#include <Python.h>

#include "mlxlite/graph/backend_api.h"

namespace mlxlite::cuda {

class Plan;

const BackendApi* backend_api();
// How launch() finds the C++ plan in the Python object that lower() returned; nullptr if it is none.
extern Plan* (*plan_of)(PyObject*);

}  // namespace mlxlite::cuda
