#include "mlxlite/graph/trees.h"

#include <cstring>
#include <string>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/errors.h"

namespace mlxlite {

namespace {

void check(int status) {
    if (status < 0) throw PythonError{};
}

// One level down a tree, which may hold itself.
struct Level {
    Level() { check(Py_EnterRecursiveCall(" while going over a tree") ? -1 : 0); }
    ~Level() { Py_LeaveRecursiveCall(); }
};

bool is_sequence(PyObject* o) { return PyList_Check(o) || PyTuple_Check(o); }

// Calls visit(child, position) for a list or tuple. A list that changes its length is followed as it is.
template <class Visit>
void for_each_item(PyObject* sequence, Visit&& visit) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence); ++i) {
        Owned child(Py_NewRef(PySequence_Fast_GET_ITEM(sequence, i)));
        visit(child.object, i);
    }
}

// Calls visit(key, value) for a dict, which may get other values meanwhile, but no other keys.
template <class Visit>
void for_each_entry(PyObject* dict, Visit&& visit) {
    Py_ssize_t position = 0, n = PyDict_GET_SIZE(dict);
    PyObject *key, *value;
    while (PyDict_Next(dict, &position, &key, &value)) {
        Owned held_key(Py_NewRef(key)), held_value(Py_NewRef(value));
        visit(key, value);
        if (PyDict_GET_SIZE(dict) != n) {
            PyErr_SetString(PyExc_RuntimeError, "dictionary changed size during iteration");
            throw PythonError{};
        }
    }
}

void collect(PyObject* node, bool only_arrays, PyObject* found) {
    if (is_array(node)) {
        check(PyList_Append(found, node));
    } else if (is_sequence(node)) {
        Level level;
        for_each_item(node, [&](PyObject* child, Py_ssize_t) { collect(child, only_arrays, found); });
    } else if (PyDict_Check(node)) {
        Level level;
        for_each_entry(node, [&](PyObject*, PyObject* child) { collect(child, only_arrays, found); });
    } else if (!only_arrays) {
        check(PyList_Append(found, node));
    }
}

// A list, tuple or named tuple of the type of `like`; `exact_type`: of subclasses' types too. Takes over `children`.
PyObject* rebuilt(PyObject* like, PyObject* children, bool exact_type) {
    Owned list(children);
    if (PyList_CheckExact(like) || (PyList_Check(like) && !exact_type)) return list.release();
    if (PyTuple_CheckExact(like)) return checked(PyList_AsTuple(list.object));
    auto* type = reinterpret_cast<PyObject*>(Py_TYPE(like));
    if (PyObject_HasAttrString(type, "_fields")) {
        Owned arguments(PyList_AsTuple(list.object));
        return checked(PyObject_Call(type, arguments.object, nullptr));
    }
    return checked(exact_type ? PyObject_CallOneArg(type, list.object) : PyList_AsTuple(list.object));
}

// The same list, tuple or dict of what map(child, position or key) gives, a new reference, for each child.
template <class Map>
PyObject* mapped_sequence(PyObject* node, bool exact_type, Map&& map) {
    Owned children(PyList_New(0));
    for_each_item(node, [&](PyObject* child, Py_ssize_t i) {
        Owned value(map(child, i));
        check(PyList_Append(children.object, value.object));
    });
    return rebuilt(node, children.release(), exact_type);
}

template <class Map>
PyObject* mapped_dict(PyObject* node, Map&& map) {
    Owned children(PyDict_New());
    for_each_entry(node, [&](PyObject* key, PyObject* child) {
        Owned value(map(child, key));
        check(PyDict_SetItem(children.object, key, value.object));
    });
    return children.release();
}

// Values that are taken one after another.
struct Rest {
    PyObject* values;
    Py_ssize_t at = 0;

    PyObject* next() {  // borrowed
        if (at == PyList_GET_SIZE(values)) {
            PyErr_Format(PyExc_ValueError, "the tree has more leaves than the %zd values for them", at);
            throw PythonError{};
        }
        return PyList_GET_ITEM(values, at++);
    }
};

PyObject* replaced(PyObject* node, bool only_arrays, Rest& rest) {
    if (is_array(node)) return Py_NewRef(rest.next());
    if (is_sequence(node)) {
        Level level;
        return mapped_sequence(node, false,
                               [&](PyObject* child, Py_ssize_t) { return replaced(child, only_arrays, rest); });
    }
    if (PyDict_Check(node)) {
        Level level;
        return mapped_dict(node, [&](PyObject* child, PyObject*) { return replaced(child, only_arrays, rest); });
    }
    return Py_NewRef(only_arrays ? node : rest.next());
}

PyObject* mapped(PyObject* function, PyObject* node, PyObject* rest, PyObject* is_leaf) {
    Py_ssize_t n_rest = PyTuple_GET_SIZE(rest);
    bool leaf = !is_sequence(node) && !PyDict_Check(node);
    if (!leaf && is_leaf != Py_None) {
        Owned answer(PyObject_CallOneArg(is_leaf, node));
        int holds = PyObject_IsTrue(answer.object);
        check(holds);
        leaf = holds;
    }
    if (leaf) {
        Owned arguments(PyTuple_New(1 + n_rest));
        PyTuple_SET_ITEM(arguments.object, 0, Py_NewRef(node));
        for (Py_ssize_t k = 0; k < n_rest; ++k)
            PyTuple_SET_ITEM(arguments.object, 1 + k, Py_NewRef(PyTuple_GET_ITEM(rest, k)));
        return checked(PyObject_Call(function, arguments.object, nullptr));
    }
    Level level;
    auto child_of = [&](PyObject* child, PyObject* key) {
        Owned below(PyTuple_New(n_rest));
        for (Py_ssize_t k = 0; k < n_rest; ++k)
            PyTuple_SET_ITEM(below.object, k, checked(PyObject_GetItem(PyTuple_GET_ITEM(rest, k), key)));
        return mapped(function, child, below.object, is_leaf);
    };
    if (PyDict_Check(node)) return mapped_dict(node, child_of);
    return mapped_sequence(node, true, [&](PyObject* child, Py_ssize_t i) {
        Owned key(PyLong_FromSsize_t(i));
        return child_of(child, key.object);
    });
}

void replace_in_place(PyObject* array, PyObject* value) {
    Owned none(PyObject_CallMethod(array, "_replace", "O", value));
}

void fill(PyObject* node, Rest& rest) {
    if (is_sequence(node)) {
        Level level;
        for_each_item(node, [&](PyObject* child, Py_ssize_t i) {
            if (!is_array(child))
                fill(child, rest);
            else if (PyTuple_Check(node))
                replace_in_place(child, rest.next());
            else
                check(PySequence_SetItem(node, i, rest.next()));
        });
    } else if (PyDict_Check(node)) {
        Level level;
        for_each_entry(node, [&](PyObject* key, PyObject* child) {
            if (!is_array(child))
                fill(child, rest);
            else
                check(PyObject_SetItem(node, key, rest.next()));
        });
    }
}

// What is told of a tree: `text` by a prefix code, and the objects that it mentions.
struct Key {
    std::string text;
    PyObject* others;
    PyObject* leaf;

    void number(std::uint64_t n) { text.append(reinterpret_cast<const char*>(&n), sizeof n); }

    void start(char kind, Py_ssize_t n) {
        text += kind;
        number(static_cast<std::uint64_t>(n));
    }

    void other(PyObject* object) {
        text += 'o';
        check(PyList_Append(others, object));
    }

    void add_key(PyObject* key) {
        Py_ssize_t n;
        const char* utf8 = PyUnicode_CheckExact(key) ? PyUnicode_AsUTF8AndSize(key, &n) : nullptr;
        if (!utf8) {
            PyErr_Clear();  // of text that is no UTF-8
            other(key);
            return;
        }
        start('s', n);
        text.append(utf8, static_cast<std::size_t>(n));
    }

    void add(PyObject* node) {
        if (is_array(node)) {
            const Node* array = node_of(node);
            text += 'a';
            text += static_cast<char>(array->dtype);
            auto dims = array->dims();
            text += static_cast<char>(dims.size());
            text.append(reinterpret_cast<const char*>(dims.data()), dims.size_bytes());
        } else if (is_sequence(node)) {
            Level level;
            start(PyList_Check(node) ? 'l' : 't', PySequence_Fast_GET_SIZE(node));
            if (!PyList_CheckExact(node) && !PyTuple_CheckExact(node))
                other(reinterpret_cast<PyObject*>(Py_TYPE(node)));
            for_each_item(node, [&](PyObject* child, Py_ssize_t) { add(child); });
        } else if (PyDict_Check(node)) {
            Level level;
            start('d', PyDict_GET_SIZE(node));
            for_each_entry(node, [&](PyObject* key, PyObject* child) {
                add_key(key);
                add(child);
            });
        } else {
            Owned told(PyObject_CallOneArg(leaf, node));
            other(told.object);
        }
    }
};

bool put(PyObject* place, PyObject* values, PyObject* type);

// Puts a value in the place of an array, or into what is there.
template <class Set>
bool put_at(PyObject* current, PyObject* value, PyObject* type, Set&& set) {
    if (!is_array(current)) return put(current, value, type);
    if (!is_array(value)) return false;
    set();
    return true;
}

void set_entry(PyObject* place, PyObject* key, PyObject* value, PyObject* type) {
    if (PyDict_CheckExact(place)) {
        check(PyDict_SetItem(place, key, value));
        return;
    }
    if (PyObject_TypeCheck(place, reinterpret_cast<PyTypeObject*>(type))) {
        Owned attributes(PyObject_GenericGetDict(place, nullptr));
        int known = PyDict_Contains(attributes.object, key);
        check(known);
        if (known) {  // as __setitem__ does where an array takes the place of an array
            check(PyDict_SetItem(place, key, value));
            check(PyDict_SetItem(attributes.object, key, value));
            return;
        }
    }
    check(PyObject_SetItem(place, key, value));
}

bool put(PyObject* place, PyObject* values, PyObject* type) {
    Level level;
    bool all = true;
    if (PyDict_Check(values)) {
        if (!PyDict_Check(place)) return PyDict_GET_SIZE(values) == 0;
        for_each_entry(values, [&](PyObject* key, PyObject* value) {
            if (!all) return;
            PyObject* found = PyDict_GetItemWithError(place, key);
            if (!found) {
                if (PyErr_Occurred()) throw PythonError{};
                all = false;
                return;
            }
            Owned current(Py_NewRef(found));
            all = put_at(current.object, value, type, [&] { set_entry(place, key, value, type); });
        });
        return all;
    }
    if (!PyList_Check(values) || !PyList_CheckExact(place) || PyList_GET_SIZE(values) > PyList_GET_SIZE(place))
        return false;
    for_each_item(values, [&](PyObject* value, Py_ssize_t i) {
        if (!all || i >= PyList_GET_SIZE(place)) return;
        Owned current(Py_NewRef(PyList_GET_ITEM(place, i)));
        all = put_at(current.object, value, type, [&] { check(PyList_SetItem(place, i, Py_NewRef(value))); });
    });
    return all;
}

// Which parameters of modules are wanted.
struct Parameters {
    bool trainable;
    PyObject* type;

    bool is_module(PyObject* o) const { return PyObject_TypeCheck(o, reinterpret_cast<PyTypeObject*>(type)); }

    // The names that a module leaves out, if there are any; a new reference or null.
    PyObject* left_out(PyObject* module) const {
        if (!trainable) return nullptr;
        Owned names(PyObject_GetAttrString(module, "_no_grad"));
        Py_ssize_t n = PyObject_Size(names.object);
        check(n < 0 ? -1 : 0);
        return n ? names.release() : nullptr;
    }

    static bool contains(PyObject* names, PyObject* name) {
        int found = names ? PySequence_Contains(names, name) : 0;
        check(found);
        return found;
    }

    static bool can_hold_arrays(PyObject* o) { return is_array(o) || PyDict_Check(o) || PyList_Check(o); }

    PyObject* of_module(PyObject* module) const {
        Level level;
        Owned found(PyDict_New());
        struct Names {
            PyObject* set;
            ~Names() { Py_XDECREF(set); }
        } names{left_out(module)};
        for_each_entry(module, [&](PyObject* key, PyObject* value) {
            bool hidden = PyUnicode_Check(key) && PyUnicode_GET_LENGTH(key) && PyUnicode_READ_CHAR(key, 0) == '_';
            if (!can_hold_arrays(value) || hidden || contains(names.set, key)) return;
            Owned part(of_item(key, value, names.set));
            check(PyDict_SetItem(found.object, key, part.object));
        });
        return found.release();
    }

    // Of an item of a module, by its name there; `names` are those that the module leaves out.
    PyObject* of_item(PyObject* name, PyObject* value, PyObject* names) const {
        if (is_array(value)) return Py_NewRef(value);
        if (is_module(value)) return of_module(value);
        Level level;
        auto part = [&](PyObject* child, PyObject* key) -> PyObject* {
            if (!can_hold_arrays(child)) return checked(PyDict_New());
            if (!names) return of_item(name, child, names);
            Owned below(PyUnicode_FromFormat("%S.%S", name, key));
            return contains(names, below.object) ? checked(PyDict_New()) : of_item(below.object, child, names);
        };
        if (PyDict_Check(value)) return mapped_dict(value, part);
        return mapped_sequence(value, false, [&](PyObject* child, Py_ssize_t i) {
            Owned key(PyLong_FromSsize_t(i));
            return part(child, key.object);
        });
    }
};

}  // namespace

PyObject* tree_leaves(PyObject* tree, bool only_arrays) {
    Owned found(PyList_New(0));
    collect(tree, only_arrays, found.object);
    return found.release();
}

PyObject* tree_replaced(PyObject* tree, PyObject* values, bool only_arrays) {
    Rest rest{values};
    return replaced(tree, only_arrays, rest);
}

PyObject* tree_mapped(PyObject* function, PyObject* tree, PyObject* rest, PyObject* is_leaf) {
    return mapped(function, tree, rest, is_leaf);
}

void tree_fill(PyObject* tree, PyObject* values) {
    Rest rest{values};
    fill(tree, rest);
}

PyObject* tree_key(PyObject* tree, PyObject* leaf) {
    Owned others(PyList_New(0));
    Key key{{}, others.object, leaf};
    key.add(tree);
    Owned mentioned(PyList_AsTuple(others.object));
    Owned text(PyBytes_FromStringAndSize(key.text.data(), static_cast<Py_ssize_t>(key.text.size())));
    return checked(PyTuple_Pack(2, text.object, mentioned.object));
}

bool put_arrays(PyObject* module, PyObject* values, PyObject* type) { return put(module, values, type); }

PyObject* arrays_of_module(PyObject* module, bool trainable, PyObject* type) {
    return Parameters{trainable, type}.of_module(module);
}

}  // namespace mlxlite
