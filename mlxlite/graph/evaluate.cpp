#include "mlxlite/graph/evaluate.h"

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/errors.h"
#include "mlxlite/graph/host.h"
#include "mlxlite/graph/observe.h"
#include "mlxlite/graph/primitive.h"
#include "mlxlite/graph/tape_view.h"
#include "mlxlite/graph/trace.h"

namespace mlxlite {

namespace {

std::array<Backend, 2>& backends() {
    static auto* all = new std::array<Backend, 2>;
    return *all;
}

std::recursive_mutex& evaluation_mutex() {
    static auto* m = new std::recursive_mutex;
    return *m;
}

PyObject* sizes_list(PlanEntry* entry, const Tape& tape) {
    if (!entry->last_sizes_list || entry->last_sizes != tape.sizes) {
        PyObject* list = PyList_New(static_cast<Py_ssize_t>(tape.sizes.size()));
        if (!list) throw PythonError{};
        for (std::size_t i = 0; i < tape.sizes.size(); ++i)
            PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), PyLong_FromLongLong(tape.sizes[i]));
        Py_XSETREF(entry->last_sizes_list, list);
        entry->last_sizes = tape.sizes;
    }
    return entry->last_sizes_list;
}

void become_leaf(Node* node, Buffer* buffer, std::uint64_t ticket) {
    node->buffer = buffer;
    node->ticket = ticket;
}

void run_on_host(PyObject* plan, PlanEntry* entry, const Tape& tape) {
    PyObject* scalars = PyList_New(static_cast<Py_ssize_t>(tape.scalars.size()));
    for (std::size_t i = 0; i < tape.scalars.size(); ++i)
        PyList_SET_ITEM(scalars, static_cast<Py_ssize_t>(i), scalar_to_python(tape.scalar_dtypes[i], tape.scalars[i]));
    PyObject* leaves = PyList_New(static_cast<Py_ssize_t>(tape.leaves.size()));
    for (std::size_t i = 0; i < tape.leaves.size(); ++i)
        PyList_SET_ITEM(leaves, static_cast<Py_ssize_t>(i),
                        Py_NewRef(ndarray_of(tape.entries[tape.leaves[i]].node->buffer)));
    PyObject* sizes = Py_NewRef(sizes_list(entry, tape));
    static PyObject* run = PyUnicode_InternFromString("run");
    PyObject* results = PyObject_CallMethodObjArgs(plan, run, sizes, scalars, leaves, nullptr);
    Py_DECREF(sizes);
    Py_DECREF(scalars);
    Py_DECREF(leaves);
    if (!results) throw PythonError{};
    if (!PyList_CheckExact(results) || static_cast<std::size_t>(PyList_GET_SIZE(results)) != tape.outputs.size()) {
        Py_DECREF(results);
        throw std::runtime_error("the CPU plan returned a wrong number of results");
    }
    for (std::size_t i = 0; i < tape.outputs.size(); ++i)
        become_leaf(tape.entries[tape.outputs[i]].node,
                    host_buffer(PyList_GET_ITEM(results, static_cast<Py_ssize_t>(i))), 0);
    Py_DECREF(results);
}

void run_on_device(const BackendApi* api, PyObject* plan, const Tape& tape, bool wait) {
    std::vector<Buffer*> leaves(tape.leaves.size());
    std::vector<std::int64_t> offsets(tape.leaves.size());
    for (std::size_t i = 0; i < leaves.size(); ++i) {
        leaves[i] = tape.entries[tape.leaves[i]].node->buffer;
        offsets[i] = tape.entries[tape.leaves[i]].node->offset;
    }
    std::vector<OutputBinding> outputs(tape.outputs.size());
    LaunchRequest request{tape.sizes.data(),
                          tape.sizes.size(),
                          tape.scalars.data(),
                          tape.scalars.size(),
                          leaves.data(),
                          offsets.data(),
                          leaves.size(),
                          outputs.data(),
                          outputs.size(),
                          wait,
                          0};
    if (api->launch(plan, &request)) throw PythonError{};
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        Node* node = tape.entries[tape.outputs[i]].node;
        become_leaf(node, outputs[i].buffer, request.ticket);
        node->offset = outputs[i].offset;
        set_strides(node, outputs[i].strides);
    }
}

// A tape whose vectors have grown to what evaluations need. Several only where a backend's callback evaluates arrays.
struct TapeLoan {
    std::unique_ptr<Tape> tape;
    TapeLoan() {
        if (spare().empty()) spare().push_back(std::make_unique<Tape>());
        tape = std::move(spare().back());
        spare().pop_back();
    }
    ~TapeLoan() {
        tape->clear();
        spare().push_back(std::move(tape));
    }
    TapeLoan(const TapeLoan&) = delete;
    TapeLoan& operator=(const TapeLoan&) = delete;

  private:
    static std::vector<std::unique_ptr<Tape>>& spare() {  // under the evaluation lock
        static auto* tapes = new std::vector<std::unique_ptr<Tape>>;
        return *tapes;
    }
};

// Of a list of (least, most, ((factor, (slot, ...)), ...)).
std::vector<SizeRange> size_ranges(PyObject* list, std::size_t n_sizes) {
    std::vector<SizeRange> ranges;
    Owned items(PySequence_Fast(list, "ranges of sizes are a sequence"));
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.object); ++i) {
        SizeRange& range = ranges.emplace_back();
        long long least, most;
        PyObject* terms;
        if (!PyArg_ParseTuple(PySequence_Fast_GET_ITEM(items.object, i), "LLO!", &least, &most, &PyTuple_Type, &terms))
            throw PythonError{};
        range.least = least, range.most = most;
        for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(terms); ++k) {
            long long factor;
            PyObject* slots;
            if (!PyArg_ParseTuple(PyTuple_GET_ITEM(terms, k), "LO!", &factor, &PyTuple_Type, &slots))
                throw PythonError{};
            SizeRange::Term& term = range.terms.emplace_back(factor);
            for (Py_ssize_t s = 0; s < PyTuple_GET_SIZE(slots); ++s) {
                std::size_t slot = PyLong_AsSize_t(PyTuple_GET_ITEM(slots, s));
                if (PyErr_Occurred()) throw PythonError{};
                if (slot >= n_sizes) throw std::runtime_error("a range is of a size that the tape does not have");
                term.slots.push_back(slot);
            }
        }
    }
    return ranges;
}

void run_segment(std::span<Node* const> ops, std::span<Node* const> roots, bool wait, std::int64_t start) {
    Device device = ops.front()->device;
    Watch watch(start);
    watch.mark(Step::listed);
    Backend& where = backend(device);
    for (Node* op : ops)
        for (int i = 0; i < op->n_inputs; ++i)
            if (Node* input = op->inputs[i]; input->role == Role::leaf) move_to(input, device);
    watch.mark(Step::moved);
    TapeLoan loan;
    Tape& tape = *loan.tape;
    tape.device = device;
    build_tape(tape, ops, roots);
    watch.mark(Step::walked);
    PlanEntry* entry = where.plans.find(tape.key, tape.sizes);
    bool hit = entry != nullptr;
    std::uint64_t evictions = where.plans.counters.evictions;
    watch.mark(Step::found);
    if (!hit) {
        for (Node* op : ops) reject_abstract(op);
        PyObject* view = make_tape_view(tape);
        Owned held_view(view);
        Owned lowered(PyObject_CallOneArg(where.lower, view));
        watch.mark(Step::lowered);
        // A plan, or a tuple of one and the ranges of sizes that it is made for.
        bool has_ranges = PyTuple_CheckExact(lowered.object);
        if (has_ranges && PyTuple_GET_SIZE(lowered.object) != 2)
            throw std::runtime_error("a backend lowers to a plan, or to a plan and ranges of sizes");
        PyObject* plan = has_ranges ? PyTuple_GET_ITEM(lowered.object, 0) : lowered.object;
        std::vector<SizeRange> ranges;
        if (has_ranges) ranges = size_ranges(PyTuple_GET_ITEM(lowered.object, 1), tape.sizes.size());
        watch.lowered(device, plan, view);
        entry = where.plans.insert(tape.key, plan, std::move(ranges));
    } else {
        watch.mark(Step::lowered);
    }
    evictions = where.plans.counters.evictions - evictions;
    PyObject* plan = Py_NewRef(entry->plan);
    try {
        watch.running(device, plan, tape);
        watch.mark(Step::bound);
        if (where.api)
            run_on_device(where.api, plan, tape, wait);
        else
            run_on_host(plan, entry, tape);
    } catch (...) {
        Py_DECREF(plan);
        throw;
    }
    watch.mark(Step::ran);
    std::vector<NodeRef> outputs;  // detaching one output may otherwise free the next
    for (auto index : tape.outputs) outputs.push_back(NodeRef::share(tape.entries[index].node));
    for (auto& output : outputs) {
        if (tracing() && output->trace & kDependent) {
            keep_graph(output.get());
            continue;
        }
        output->trace &= static_cast<std::uint8_t>(~kDependent);  // of a trace that has ended
        detach_inputs(output.get());
    }
    watch.mark(Step::done);
    watch.evaluated(device, plan, hit, tape, evictions);
    Py_DECREF(plan);
}

void run_parts(std::span<Node* const> ops, std::span<Node* const> roots, bool wait, std::int64_t start) {
    // The roots keep all ops alive. The ops themselves are not held: to the tape, whoever holds one wants its value.
    std::vector<NodeRef> keep;
    for (Node* root : roots) keep.push_back(NodeRef::share(root));
    for (std::vector<Node*>& part : parts_by_device(ops)) {
        std::erase_if(part, [](Node* op) { return op->role != Role::op; });
        if (!part.empty()) run_segment(part, roots, wait, start);
        if (is_observed()) start = clock_ns();
    }
}

}  // namespace

EvaluationLock::EvaluationLock() {
    if (evaluation_mutex().try_lock()) return;
    Py_BEGIN_ALLOW_THREADS;
    evaluation_mutex().lock();
    Py_END_ALLOW_THREADS;
}
EvaluationLock::~EvaluationLock() { evaluation_mutex().unlock(); }

std::vector<std::vector<Node*>> parts_by_device(std::span<Node* const> ops) {
    // A level counts the changes of device on the way to an op.
    std::uint32_t deepest = 0;
    for (Node* op : ops) {
        op->level = 0;
        for (int i = 0; i < op->n_inputs; ++i)
            if (Node* input = op->inputs[i]; input->role == Role::op)
                op->level = std::max(op->level, input->level + (input->device != op->device ? 1 : 0));
        deepest = std::max(deepest, op->level);
    }
    std::vector<std::vector<Node*>> parts;
    for (std::uint32_t level = 0; level <= deepest; ++level)
        for (Device device : {Device::cpu, Device::gpu}) {
            std::vector<Node*> part;
            for (Node* op : ops)
                if (op->level == level && op->device == device) part.push_back(op);
            if (!part.empty()) parts.push_back(std::move(part));
        }
    return parts;
}

Backend* registered(Device device) {
    Backend& b = backends()[static_cast<int>(device)];
    return b.lower ? &b : nullptr;
}

Backend& backend(Device device) {
    if (Backend* b = registered(device)) return *b;
    const char* name = device == Device::cpu ? "cpu" : "gpu";
    if (hooks().load_backend) {
        PyObject* result = PyObject_CallFunction(hooks().load_backend, "s", name);
        if (!result) throw PythonError{};
        Py_DECREF(result);
    }
    if (Backend* b = registered(device)) return *b;
    throw std::runtime_error(std::string("no backend is registered for the device ") + name);
}

void register_backend(Device device, PyObject* lower, PyObject* capsule) {
    const BackendApi* api = nullptr;
    if (capsule && capsule != Py_None) {
        api = static_cast<const BackendApi*>(PyCapsule_GetPointer(capsule, kBackendCapsule));
        if (!api) throw PythonError{};
        if (api->abi != kBackendAbi) throw std::runtime_error("the backend was built for another version of mlxlite");
        Py_INCREF(capsule);
    }
    Backend& b = backends()[static_cast<int>(device)];
    b.plans.clear();
    Py_XSETREF(b.lower, Py_NewRef(lower));
    b.api = api;
    b.capsule = capsule;
}

void evaluate(std::span<Node* const> roots, bool wait) {
    {
        EvaluationLock lock;
        std::int64_t start = is_observed() ? clock_ns() : 0;
        std::vector<Node*> ops = pending_below(roots);
        if (!ops.empty()) {
            if (tracing()) mark_dependent(ops);
            bool one_device = std::ranges::all_of(ops, [&](Node* op) { return op->device == ops[0]->device; });
            if (one_device)
                run_segment(ops, roots, wait, start);
            else
                run_parts(ops, roots, wait, start);
        }
    }
    if (!wait) return;
    const Node* last = nullptr;
    for (const Node* root : roots)
        if (root->role == Role::leaf && root->ticket && (!last || root->ticket > last->ticket)) last = root;
    if (last) wait_for(last);
}

void wait_for(const Node* node) {
    if (!node->ticket || !node->buffer || node->buffer->device != Device::gpu) return;
    std::int64_t start = is_observed() ? clock_ns() : 0;
    if (backend(Device::gpu).api->wait(node->ticket)) throw PythonError{};
    if (start) report_wait(start);
}

void synchronize_all() {
    if (Backend* gpu = registered(Device::gpu))
        if (gpu->api && gpu->api->synchronize()) throw PythonError{};
}

}  // namespace mlxlite
