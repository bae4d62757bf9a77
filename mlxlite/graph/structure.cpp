#include "mlxlite/graph/structure.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "mlxlite/graph/errors.h"
#include "mlxlite/graph/primitive.h"

namespace mlxlite {

namespace {

// Primitives of the families of core, by name; nullptr until they are made.
struct Named {
    const char* name;
    Primitive* found = nullptr;
    Primitive* get() {
        if (!found) found = primitive_named(name);
        return found;
    }
};
Named transpose_op{"transpose"}, slice_op{"slice"}, slice_update_op{"slice_update"}, matmul_op{"matmul"},
    addmm_op{"addmm"};

// A short tuple of small integers, four bits each, and its length.
struct Packed {
    std::uint64_t bits = 0;
    int length = 0;
    void push(int value) { bits |= static_cast<std::uint64_t>(value) << (4 * length++); }
    int operator[](int i) const { return static_cast<int>(bits >> (4 * i) & 15); }
    std::uint64_t key() const { return bits | static_cast<std::uint64_t>(length) << 56; }
};
static_assert(4 * kMaxRank <= 56);

PyObject* tuple_of(const Packed& packed) {
    PyObject* tuple = PyTuple_New(packed.length);
    for (int i = 0; tuple && i < packed.length; ++i) PyTuple_SET_ITEM(tuple, i, PyLong_FromLong(packed[i]));
    if (!tuple) throw PythonError{};
    return tuple;
}

// The id of the static attributes made of `packed`; `make` builds them as core's functions do.
template <class Make>
std::uint32_t static_id_of(std::unordered_map<std::uint64_t, std::uint32_t>& known, const Packed& packed, Make&& make) {
    auto found = known.find(packed.key());
    if (found != known.end()) return found->second;
    PyObject* attributes = make(tuple_of(packed));
    if (!attributes) throw PythonError{};
    std::uint32_t id = intern_static(attributes);
    Py_DECREF(attributes);
    known.emplace(packed.key(), id);
    return id;
}

std::uint32_t transpose_static(const Packed& order) {
    static auto* known = new std::unordered_map<std::uint64_t, std::uint32_t>;
    return static_id_of(*known, order, [](PyObject* tuple) { return Py_BuildValue("(N)", tuple); });
}

std::uint32_t slice_static(const Packed& mask) {
    static auto* known = new std::unordered_map<std::uint64_t, std::uint32_t>;
    return static_id_of(*known, mask, [](PyObject* tuple) { return Py_BuildValue("(N)", tuple); });
}

std::uint32_t update_static(const Packed& mask) {
    static auto* known = new std::unordered_map<std::uint64_t, std::uint32_t>;
    return static_id_of(*known, mask, [](PyObject* tuple) { return Py_BuildValue("(Ns)", tuple, "none"); });
}

// What an index means: the part of every dim, and the shape of the result.
struct Layout {
    std::int64_t starts[kMaxRank], counts[kMaxRank], steps[kMaxRank], shape[kMaxRank];
    Packed mask;
    int rank = 0;  // of the result
    bool partial = false, reshaped = false;

    void part(int d, std::int64_t start, std::int64_t count, std::int64_t step, std::int64_t n) {
        bool whole = count == n && (step == 1 || n == 1) && (n != 1 || start == 0);
        starts[d] = whole ? 0 : start;
        counts[d] = count;
        steps[d] = whole ? 1 : step;
        mask.push(whole ? 0 : step == 1 ? 1 : step > 1 ? 2 : 3);
        partial = partial || !whole;
    }
    std::vector<std::int64_t> ints(int ndim) const {
        std::vector<std::int64_t> values(starts, starts + ndim);
        values.insert(values.end(), steps, steps + ndim);
        return values;
    }
};

bool bound(PyObject* object) { return object == Py_None || PyLong_CheckExact(object); }

// False if the index is not for here.
bool read(const Node* a, PyObject* index, Layout& layout) {
    PyObject* const* items = &index;
    Py_ssize_t n_items = 1;
    if (PyTuple_CheckExact(index)) {
        items = &PyTuple_GET_ITEM(index, 0);
        n_items = PyTuple_GET_SIZE(index);
    }
    int used = 0, ellipses = 0, fresh = 0;
    for (Py_ssize_t i = 0; i < n_items; ++i) {
        if (items[i] == Py_None)
            ++fresh;
        else if (items[i] == Py_Ellipsis)
            ++ellipses;
        else if (PySlice_Check(items[i]) || PyLong_CheckExact(items[i]))
            ++used;
        else
            return false;
    }
    int ndim = a->rank;
    if (used > ndim || ellipses > 1 || ndim + fresh > kMaxRank) return false;
    int d = 0;
    auto whole = [&] {
        layout.part(d, 0, a->shape[d], 1, a->shape[d]);
        layout.shape[layout.rank++] = a->shape[d++];
    };
    for (Py_ssize_t i = 0; i < n_items; ++i) {
        PyObject* item = items[i];
        if (item == Py_None) {
            layout.shape[layout.rank++] = 1;
            layout.reshaped = true;
        } else if (item == Py_Ellipsis) {
            for (int skipped = ndim - used; skipped > 0; --skipped) whole();
        } else if (PyLong_CheckExact(item)) {
            std::int64_t at = PyLong_AsLongLong(item);
            if (at == -1 && PyErr_Occurred()) {
                PyErr_Clear();
                return false;
            }
            std::int64_t n = a->shape[d];
            if (at < 0) at += n;
            if (at < 0 || at >= n) return false;
            layout.part(d++, at, 1, 1, n);
            layout.reshaped = true;
        } else {
            auto* slice = reinterpret_cast<PySliceObject*>(item);
            if (!bound(slice->start) || !bound(slice->stop) || !bound(slice->step)) return false;
            if (slice->start == Py_None && slice->stop == Py_None && slice->step == Py_None) {
                whole();
                continue;
            }
            Py_ssize_t start, stop, step;
            if (PySlice_Unpack(item, &start, &stop, &step) < 0) {
                PyErr_Clear();
                return false;
            }
            Py_ssize_t count = PySlice_AdjustIndices(a->shape[d], &start, &stop, step);
            // The layout of a part that is not whole keeps its start, even if it is empty.
            layout.part(d, start, count, step, a->shape[d]);
            layout.shape[layout.rank++] = count;
            ++d;
        }
    }
    while (d < ndim) whole();
    return true;
}

// The bits of the axes that a reduction goes over; 0 if they are unusual or wrong.
unsigned reduced_axes(PyObject* axis, int rank) {
    if (axis == Py_None) return (1u << rank) - 1;
    PyObject* const* items = &axis;
    Py_ssize_t n = 1;
    if (PyTuple_CheckExact(axis)) items = &PyTuple_GET_ITEM(axis, 0), n = PyTuple_GET_SIZE(axis);
    unsigned axes = 0;
    for (Py_ssize_t i = 0; i < n; ++i) {
        int overflow = 0;
        if (!PyLong_CheckExact(items[i])) return 0;
        long d = PyLong_AsLongAndOverflow(items[i], &overflow);
        if (d < 0) d += rank;
        if (overflow || d < 0 || d >= rank || axes >> d & 1) return 0;
        axes |= 1u << d;
    }
    return axes;
}

// The shape of a @ b, and its rank; 0 for what is unusual or wrong.
std::size_t product_shape(const Node* a, const Node* b, std::int64_t* shape) {
    if (a->rank < 2 || b->rank < 2 || a->dtype != b->dtype || !is_inexact(a->dtype)) return 0;
    if (a->shape[a->rank - 1] != b->shape[b->rank - 2]) return 0;
    int rank = std::max(a->rank, b->rank);
    for (int i = 0; i < rank - 2; ++i) {
        int ia = i - (rank - a->rank), ib = i - (rank - b->rank);
        std::int64_t m = ia < 0 ? 1 : a->shape[ia], n = ib < 0 ? 1 : b->shape[ib];
        if (m != n && m != 1 && n != 1) return 0;
        shape[i] = m == 1 ? n : m;
    }
    shape[rank - 2] = a->shape[a->rank - 2];
    shape[rank - 1] = b->shape[b->rank - 1];
    return static_cast<std::size_t>(rank);
}

std::uint32_t reduction_static(unsigned axes, bool keepdims) {
    static auto* known = new std::unordered_map<std::uint64_t, std::uint32_t>;
    Packed packed;
    for (int d = 0; axes >> d; ++d) {
        if (axes >> d & 1) packed.push(d);
    }
    std::uint32_t& id = (*known)[packed.key() << 1 | static_cast<std::uint64_t>(keepdims)];
    if (!id) {
        Owned attributes(Py_BuildValue("(NO)", tuple_of(packed), keepdims ? Py_True : Py_False));
        id = intern_static(attributes.object) + 1;
    }
    return id - 1;
}

}  // namespace

Node* record_transpose(Node* a, const int* order, Device device) {
    std::int64_t shape[kMaxRank];
    Packed packed;
    bool identity = true;
    for (int i = 0; i < a->rank; ++i) {
        shape[i] = a->shape[order[i]];
        packed.push(order[i]);
        identity = identity && order[i] == i;
    }
    if (identity) return retain(a);
    if (!transpose_op.get()) return nullptr;
    Node* inputs[] = {a};
    NodeRef node(new_op(transpose_op.get(), a->dtype, device, inputs, {shape, a->rank}));
    node->static_id = transpose_static(packed);
    return node.release();
}

Node* record_reversed(Node* a, Device device) {
    int order[kMaxRank];
    for (int i = 0; i < a->rank; ++i) order[i] = a->rank - 1 - i;
    return record_transpose(a, order, device);
}

Node* try_getitem(Node* a, PyObject* index, Device device) {
    Layout layout;
    if (!slice_op.get() || !read(a, index, layout)) return nullptr;
    NodeRef result = NodeRef::share(a);
    if (layout.partial) {
        Node* inputs[] = {a};
        result = NodeRef(new_op(slice_op.get(), a->dtype, device, inputs, {layout.counts, a->rank}));
        result->static_id = slice_static(layout.mask);
        result->attributes = AttributesRef({layout.ints(a->rank), {}});
    }
    if (!layout.reshaped) return result.release();
    return record_reshape(result.get(), {layout.shape, static_cast<std::size_t>(layout.rank)}, device);
}

Node* try_setitem(Node* a, PyObject* index, Node* value, Device device) {
    Layout layout;
    if (!slice_update_op.get() || value->dtype != a->dtype || !read(a, index, layout)) return nullptr;
    if (!layout.partial || value->rank != layout.rank ||
        !std::equal(layout.shape, layout.shape + layout.rank, value->shape))
        return nullptr;
    NodeRef update = NodeRef::share(value);
    if (layout.reshaped) update = NodeRef(record_reshape(value, {layout.counts, a->rank}, device));
    Node* inputs[] = {a, update.get()};
    NodeRef result(new_op(slice_update_op.get(), a->dtype, device, inputs, a->dims()));
    result->static_id = update_static(layout.mask);
    result->attributes = AttributesRef({layout.ints(a->rank), {}});
    return result.release();
}

Node* try_matmul(Node* a, Node* b, Device device) {
    std::int64_t shape[kMaxRank];
    std::size_t rank = product_shape(a, b, shape);
    if (!rank || !matmul_op.get()) return nullptr;
    Node* inputs[] = {a, b};
    return new_op(matmul_op.get(), a->dtype, device, inputs, {shape, rank});
}

Node* try_addmm(Node* c, Node* a, Node* b, double alpha, double beta, Device device) {
    std::int64_t shape[kMaxRank];
    std::size_t rank = product_shape(a, b, shape);
    if (!rank || c->dtype != a->dtype || c->rank > rank || !addmm_op.get()) return nullptr;
    for (std::size_t d = 0; d < c->rank; ++d) {
        std::int64_t n = c->shape[d];
        if (n != 1 && n != shape[rank - c->rank + d]) return nullptr;
    }
    Node* inputs[] = {c, a, b};
    NodeRef node(new_op(addmm_op.get(), a->dtype, device, inputs, {shape, rank}));
    node->attributes = AttributesRef({{}, {alpha, beta}});
    return node.release();
}

Node* try_reduce(Primitive* op, Node* a, PyObject* axis, bool keepdims, Dtype result, Device device) {
    unsigned axes = reduced_axes(axis, a->rank);
    if (!axes) return nullptr;
    std::int64_t shape[kMaxRank];
    std::size_t rank = 0;
    for (int d = 0; d < a->rank; ++d) {
        if (a->shape[d] == 0) return nullptr;
        bool reduced = axes >> d & 1;
        if (!reduced || keepdims) shape[rank++] = reduced ? 1 : a->shape[d];
    }
    Node* inputs[] = {a};
    NodeRef node(new_op(op, result, device, inputs, {shape, rank}));
    node->static_id = reduction_static(axes, keepdims);
    return node.release();
}

}  // namespace mlxlite
