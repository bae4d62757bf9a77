// One place where C++ exceptions become Python ones.
#pragma once
#include <Python.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "mlxlite/graph/primitive.h"

namespace mlxlite {

struct TypeError : std::runtime_error {
    using std::runtime_error::runtime_error;
};
inline TypeError type_error(const std::string& message) { return TypeError(message); }

// What a Python call returned; PythonError if it failed.
inline PyObject* checked(PyObject* object) {
    if (!object) throw PythonError{};
    return object;
}

// A reference that is given up at the end of the scope.
struct Owned {
    PyObject* object;
    explicit Owned(PyObject* o) : object(checked(o)) {}
    ~Owned() { Py_XDECREF(object); }
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    PyObject* release() { return std::exchange(object, nullptr); }
};

template <class Function>
auto guarded(Function&& function) noexcept -> decltype(function()) {
    try {
        return function();
    } catch (const PythonError&) {
    } catch (const TypeError& e) {
        PyErr_SetString(PyExc_TypeError, e.what());
    } catch (const std::invalid_argument& e) {
        PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const std::out_of_range& e) {
        PyErr_SetString(PyExc_IndexError, e.what());
    } catch (const std::overflow_error& e) {
        PyErr_SetString(PyExc_OverflowError, e.what());
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& e) {
        PyErr_SetString(PyExc_RuntimeError, e.what());
    }
    using Result = decltype(function());
    if constexpr (std::is_pointer_v<Result>)
        return nullptr;
    else
        return static_cast<Result>(-1);
}

}  // namespace mlxlite
