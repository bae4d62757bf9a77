// One place where the runtime's C++ exceptions become Python ones.
#pragma once
#include <Python.h>

#include <exception>
#include <stdexcept>

namespace mlxlite::cuda {

// A Python error is already set.
struct PythonError {};

// Runs `function`; true if it threw, with a Python error set.
template <class Function>
bool failed(Function&& function) noexcept {
    try {
        function();
        return false;
    } catch (const PythonError&) {
    } catch (const std::invalid_argument& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::out_of_range& error) {
        PyErr_SetString(PyExc_IndexError, error.what());
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return true;
}

}  // namespace mlxlite::cuda
