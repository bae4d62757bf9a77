// What the files of Python bindings share.
#pragma once
#include <nanobind/nanobind.h>

#include "mlxlite/graph/errors.h"

namespace mlxlite {

namespace nb = nanobind;

// For code called through nanobind: our exceptions, as Python's.
template <class Function>
auto translated(Function&& function) {
    try {
        return function();
    } catch (const PythonError&) {
        throw nb::python_error();
    } catch (const TypeError& e) {
        throw nb::type_error(e.what());
    }
}

template <class Range>
nb::tuple int_tuple(const Range& values) {
    nb::list list;
    for (auto v : values) list.append(nb::int_(v));
    return nb::tuple(list);
}

void bind_dlpack(nb::module_& m);  // dlpack_module.cpp
void bind_traces(nb::module_& m);  // trace_module.cpp
void bind_trees(nb::module_& m);   // tree_module.cpp

}  // namespace mlxlite
