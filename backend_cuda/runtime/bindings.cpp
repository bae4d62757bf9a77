// Python's view of the runtime: names and translations only.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <cstring>
#include <optional>

#include "backend_cuda/runtime/algorithm_choice.h"
#include "backend_cuda/runtime/algorithm_file.h"
#include "backend_cuda/runtime/api.h"
#include "backend_cuda/runtime/cublaslt.h"
#include "backend_cuda/runtime/errors.h"
#include "backend_cuda/runtime/matmul.h"
#include "backend_cuda/runtime/memory.h"
#include "backend_cuda/runtime/module.h"
#include "backend_cuda/runtime/plan.h"
#include "backend_cuda/runtime/plan_parse.h"
#include "backend_cuda/runtime/profile.h"
#include "backend_cuda/runtime/stream.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mlxlite::cuda {

namespace {

constexpr const char* kDoc = R"(The CUDA runtime: device memory, plans, and their replay as graphs.

Importing needs no driver; `initialize()` does. Errors of the driver are RuntimeError.

    def initialize(cublaslt_path: str | None = None, algorithms_directory: str | None = None) -> None
                                   # RuntimeError says what is missing; twice is harmless. Which algorithm of cuBLASLt's
                                   # is fastest for large products is kept in the directory; None: for the process
    def device_info() -> dict      # name, compute_capability (major, minor), multiprocessors, l2_bytes, total_memory,
                                   # driver_version, max_shared_per_block, max_threads_per_multiprocessor,
                                   # memory_bandwidth (bytes a second by clock and width, 0 if unknown)
    class Module:
        def __init__(self, cubin: bytes) -> None
        def function(self, name: str, dynamic_shared_max: int = 0) -> Function
    class Function:                # name, registers, local_bytes, static_shared, max_threads, dynamic_shared_max: int
    class Plan:
        def __init__(self, n_sizes: int, n_scalars: int, size_program: list, buffers: list, nodes: list, edges: list,
                     outputs: list, promote: Callable | None = None) -> None
        n_nodes, n_executables, arena_bytes: int
        labels: list[str]          # of the nodes
    def api_capsule() -> capsule   # for mlxlite._graph.register_backend("gpu", lower, api_capsule())
    def memory_info() -> dict      # active, peak, cache, arena, workspace, limit, cache_limit (bytes)
    def set_memory_limit(nbytes: int) -> int    # the previous limit
    def set_cache_limit(nbytes: int) -> int     # the previous limit
    def clear_cache() -> None
    def reset_peak_memory() -> None
    def set_tf32(allowed: bool) -> None
    def get_tf32() -> bool
    def synchronize() -> None
    def counters() -> dict[str, int]
    def stats_reset() -> None
    def measure(what: str) -> None              # "nodes", "whole" or "off"; starts anew
    def measured() -> list[tuple]  # since the last call, of each launch: (ns to bind, ns to launch, labels,
                                   # [(start, length) in ns, by label]); starts are of time.perf_counter_ns
    def size_class(nbytes: int) -> int          # bytes that a request really takes

A library node's callback is called as callback(sizes: list[int], scalars: list[float], pointers: list[int]) -> int, the
address of a CUgraph that stays the callback's own: it is copied before the next Python code runs.

A plan that keeps patching the arguments of many kernels calls promote(nodes: list[int], n_words: int) -> (functions,
(writer, words, blocks, threads)): for these nodes, Functions that take the address of their arguments, and one that
takes an address and a struct of so many 8-byte words and writes them there, launched with so many blocks and threads.
If it returns None it is asked again after some launches. Without it the arguments are patched for ever.
)";

nb::dict device_info_dict() {
    const DeviceInfo& info = device_info();
    nb::dict d;
    d["name"] = info.name;
    d["compute_capability"] = nb::make_tuple(info.major, info.minor);
    d["multiprocessors"] = info.multiprocessors;
    d["l2_bytes"] = info.l2_bytes;
    d["total_memory"] = info.total_memory;
    d["driver_version"] = info.driver_version;
    d["max_shared_per_block"] = info.max_shared_per_block;
    d["max_threads_per_multiprocessor"] = info.max_threads_per_multiprocessor;
    d["memory_bandwidth"] = info.memory_bandwidth;
    return d;
}

nb::dict memory_info_dict() {
    MemoryInfo info = memory_info();
    nb::dict d;
    d["active"] = info.active;
    d["peak"] = info.peak;
    d["cache"] = info.cache;
    d["arena"] = info.arena;
    d["workspace"] = info.workspace;
    d["limit"] = info.limit;
    d["cache_limit"] = info.cache_limit;
    return d;
}

#define MLXLITE_COUNTERS(X) \
    X(launches)             \
    X(evaluations)          \
    X(register_evaluations) \
    X(signature_hits)       \
    X(templates_built)      \
    X(execs_built)          \
    X(execs_rebuilt)        \
    X(execs_evicted)        \
    X(nodes_patched)        \
    X(child_graphs_patched) \
    X(plans_promoted)       \
    X(nodes_promoted)       \
    X(captures)             \
    X(library_calls)        \
    X(uploads)              \
    X(downloads)            \
    X(device_allocations)   \
    X(device_frees)

std::int64_t live_plans = 0;
KeyCacheCounters matmul_baseline;
ChoiceCounters choice_baseline;

nb::dict counters_dict() {
    nb::dict d;
    d["plans"] = live_plans;
    d["driver_calls"] = counters.driver_calls.load();
#define MLXLITE_PUT(name) d[#name] = counters.name;
    MLXLITE_COUNTERS(MLXLITE_PUT)
#undef MLXLITE_PUT
    const KeyCacheCounters& matmul = matmul_counters();
    d["matmul_keys"] = matmul_cache_size();
    d["matmul_hits"] = matmul.hits - matmul_baseline.hits;
    d["matmul_misses"] = matmul.misses - matmul_baseline.misses;
    d["matmul_builds"] = matmul.builds - matmul_baseline.builds;
    d["matmul_evictions"] = matmul.evictions - matmul_baseline.evictions;
    d["matmul_measured"] = choice_counters.measured - choice_baseline.measured;
    d["matmul_from_disk"] = choice_counters.from_disk - choice_baseline.from_disk;
    d["matmul_unmeasured"] = choice_counters.unmeasured - choice_baseline.unmeasured;
    d["matmul_measuring_us"] = choice_counters.microseconds - choice_baseline.microseconds;
    return d;
}

Measuring measuring_named(const std::string& name) {
    if (name == "nodes") return Measuring::nodes;
    if (name == "whole") return Measuring::whole;
    if (name == "off") return Measuring::off;
    throw std::invalid_argument("measure: expected 'nodes', 'whole' or 'off', got '" + name + "'");
}

nb::list measured_list() {
    nb::list launches;
    for (const MeasuredLaunch& launch : take_measured()) {
        nb::list labels, times;
        for (const std::string& label : launch.labels) labels.append(label);
        for (auto [start, length] : launch.times) times.append(nb::make_tuple(start, length));
        launches.append(nb::make_tuple(launch.bind, launch.launch, labels, times));
    }
    return launches;
}

void reset_counters() {
    counters.driver_calls = 0;
#define MLXLITE_ZERO(name) counters.name = 0;
    MLXLITE_COUNTERS(MLXLITE_ZERO)
#undef MLXLITE_ZERO
    matmul_baseline = matmul_counters();
    choice_baseline = choice_counters;
}

// Fills the stack with `value` before a key is built on it, so that padding would show in the key's hash.
[[gnu::noinline]] void dirty_stack(int value) {
    volatile unsigned char garbage[4096];
    for (auto& byte : garbage) byte = static_cast<unsigned char>(value);
}
[[gnu::noinline]] std::uint64_t example_key_hash(int flipped_field) {
    MatmulKey key;
    int field = 0;
#define MLXLITE_SET(type, name) key.name = static_cast<type>(field + 1 + (field == flipped_field ? 100 : 0)), ++field;
    MLXLITE_MATMUL_KEY_FIELDS(MLXLITE_SET)
#undef MLXLITE_SET
    return hash_of(key);
}
constexpr int kKeyFields = 0
#define MLXLITE_COUNT(type, name) +1
    MLXLITE_MATMUL_KEY_FIELDS(MLXLITE_COUNT)
#undef MLXLITE_COUNT
    ;

struct PythonPlan : Plan {
    using Plan::Plan;
    explicit PythonPlan(PlanSpec spec) : Plan(std::move(spec)) { ++live_plans; }
    ~PythonPlan() { --live_plans; }
};

int traverse_plan(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (!nb::inst_ready(self)) return 0;
    for (PyObject* callback : nb::inst_ptr<PythonPlan>(self)->callbacks()) Py_VISIT(callback);
    return 0;
}
int clear_plan(PyObject* self) {
    nb::inst_ptr<PythonPlan>(self)->clear_callbacks();
    return 0;
}
PyType_Slot plan_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_plan)},
                            {Py_tp_clear, reinterpret_cast<void*>(clear_plan)},
                            {0, nullptr}};

PyTypeObject* plan_type = nullptr;
Plan* find_plan(PyObject* object) { return Py_TYPE(object) == plan_type ? nb::inst_ptr<PythonPlan>(object) : nullptr; }

}  // namespace

}  // namespace mlxlite::cuda

NB_MODULE(_runtime, m) {
    using namespace mlxlite::cuda;
    m.doc() = kDoc;

    m.def(
        "initialize",
        [](std::optional<std::string> cublaslt_path, std::optional<std::string> algorithms_directory) {
            if (cublaslt_path) lt::set_path(cublaslt_path->c_str());
            if (algorithms_directory) set_algorithms_directory(*algorithms_directory);
            initialize();
        },
        "cublaslt_path"_a = nb::none(), "algorithms_directory"_a = nb::none());
    m.def("device_info", device_info_dict);

    nb::class_<Function>(m, "Function")
        .def_ro("name", &Function::name)
        .def_ro("registers", &Function::registers)
        .def_ro("local_bytes", &Function::local_bytes)
        .def_ro("static_shared", &Function::static_shared)
        .def_ro("max_threads", &Function::max_threads)
        .def_ro("dynamic_shared_max", &Function::dynamic_shared_max);
    nb::class_<Module>(m, "Module")
        .def(
            "__init__", [](Module* self, nb::bytes cubin) { new (self) Module(cubin.c_str()); }, "cubin"_a)
        .def("function", &Module::function, "name"_a, "dynamic_shared_max"_a = 0);
    auto plan =
        nb::class_<PythonPlan>(m, "Plan", nb::type_slots(plan_slots), nb::is_final())
            .def(
                "__init__",
                [](PythonPlan* self, std::size_t n_sizes, std::size_t n_scalars, nb::handle size_program,
                   nb::handle buffers, nb::handle nodes, nb::handle edges, nb::handle outputs, nb::handle promote) {
                    new (self) PythonPlan(
                        parse_plan(n_sizes, n_scalars, size_program, buffers, nodes, edges, outputs, promote));
                },
                "n_sizes"_a, "n_scalars"_a, "size_program"_a, "buffers"_a, "nodes"_a, "edges"_a, "outputs"_a,
                "promote"_a = nb::none())
            .def_prop_ro("n_nodes", [](const PythonPlan& p) { return p.n_nodes(); })
            .def_prop_ro("labels",
                         [](const PythonPlan& p) {
                             nb::list labels;
                             for (std::size_t i = 0; i < p.n_nodes(); ++i) labels.append(p.label(i));
                             return labels;
                         })
            .def_prop_ro("n_executables", [](const PythonPlan& p) { return p.n_executables(); })
            .def_prop_ro("arena_bytes", [](const PythonPlan& p) { return p.arena_bytes(); });
    plan_type = reinterpret_cast<PyTypeObject*>(plan.ptr());
    plan_of = find_plan;

    m.def("api_capsule", [] {
        return nb::steal(
            PyCapsule_New(const_cast<mlxlite::BackendApi*>(backend_api()), mlxlite::kBackendCapsule, nullptr));
    });
    m.def("memory_info", memory_info_dict);
    m.def("set_memory_limit", set_memory_limit, "nbytes"_a);
    m.def("set_cache_limit", set_cache_limit, "nbytes"_a);
    m.def("clear_cache", clear_cache);
    m.def("reset_peak_memory", reset_peak_memory);
    m.def("set_tf32", set_tf32, "allowed"_a);
    m.def("get_tf32", tf32);
    m.def("synchronize", [] {
        make_current();
        synchronize();
    });
    m.def("counters", counters_dict);
    m.def("stats_reset", reset_counters);
    m.def("measure", [](const std::string& what) { set_measuring(measuring_named(what)); }, "what"_a);
    m.def("measured", measured_list);
    m.def("size_class", size_class, "nbytes"_a);
    m.def("cublaslt_version", lt::version, "0 until a matmul has loaded it.");

    m.attr("_bytes_key_fields") = kKeyFields;
    m.def(
        "_bytes_key_selftest",
        [](int dirty) {
            dirty_stack(dirty);
            return example_key_hash(-1);
        },
        "dirty"_a, "Hash of one matmul key, built on a stack filled with the byte `dirty`.");
    m.def(
        "_bytes_key_flip", [](int field) { return example_key_hash(field); }, "field"_a,
        "Hash of the same key with one field changed.");
}
