// A CUDA driver and a cuBLASLt of host memory, with just what backend_cuda/runtime calls. Graphs record nodes and a
// launch runs them at once, in the order they were added, so that binding, patching and the choice of executables can
// be tested on a machine with no GPU. Tests steer it through the fake_* functions.
#include <cuda.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <complex>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

struct CUfunc_st {
    std::string name;
    std::vector<std::size_t> sizes;
    std::function<void(const CUDA_KERNEL_NODE_PARAMS&, void**)> run;
};
struct CUmod_st {
    std::map<std::string, CUfunc_st>* functions;  // null: the fake driver's own
    std::vector<std::size_t> sizes;
};
struct CUgraphNode_st {
    CUDA_KERNEL_NODE_PARAMS params{};
    std::vector<std::vector<char>> arguments;
    std::function<void()> host;  // a captured library call
    std::unique_ptr<CUgraph_st> child;
    std::vector<CUgraphNode> before;
};
struct CUgraph_st {
    std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
};
struct CUgraphExec_st {
    std::unique_ptr<CUgraph_st> graph;
    std::map<CUgraphNode, std::size_t> index;  // of the template's nodes
};
struct CUstream_st {
    CUgraph capturing = nullptr;
    int number = 0;
};
struct CUevent_st {
    double at = -1;  // us of the device's clock
    bool timed = false;
    int number = 0;
    CUstream on = nullptr;  // where it was recorded
};

namespace {

#ifdef WITHOUT_STREAM_VALUES
constexpr bool kWritesValues = false;
#else
constexpr bool kWritesValues = true;
#endif
long capacity = 1L << 40, in_use = 0, refuse = 0, child_nodes = 1, child_kernel = 1, live_execs = 0,
     programmatic_edges = 0;
// While work is held, it is as if nothing enqueued were done yet. Work that failed is never done.
std::atomic<bool> held{false}, broken{false};
std::map<std::uint64_t*, std::uint64_t> held_values;  // that a stream is to write
// What ran on the device, one word each: a kernel's name, "host" for a library call, "fill", "e3" for event 3. Kept
// while a test asks for it.
bool journal_on = false;
std::string journal;
double device_clock = 0;  // us; a kernel takes 10, a library call 100, a fill 25
int timed_events = 0;
std::map<CUdeviceptr, std::size_t> blocks;
long lt_workspace = 0;
std::set<std::uintptr_t> scratch_seen;
// Of cuBLASLt's algorithms, in the heuristic's order: us that one takes on the device, negative if it cannot be
// launched.
std::vector<double> lt_times = {100};
long lt_version = 130000, lt_refused = -1;  // an algorithm that the check refuses
bool lt_computes = true;                    // else captured products do nothing
int lt_captured = -1, lt_launched = 0;      // the algorithm captured last; products launched, not captured
long lt_host_us = 0;                        // of the host, for each of those

void note(const std::string& word) {
    if (journal_on) journal += journal.empty() ? word : " " + word;
}

std::string name_of(CUstream stream) {
    return stream == CU_STREAM_LEGACY ? "legacy" : "stream" + std::to_string(stream->number);
}

template <class T>
T value(void** arguments, int i) {
    T result;
    std::memcpy(&result, arguments[i], sizeof result);
    return result;
}

std::map<std::string, CUfunc_st>& kernels() {
    static std::map<std::string, CUfunc_st> all = {
        {"fill_f32",
         {"fill_f32",
          {8, 8, 4},
          [](auto&, void** a) { std::fill_n(value<float*>(a, 0), value<long long>(a, 1), value<float>(a, 2)); }}},
        {"add_f32",
         {"add_f32",
          {8, 8, 8, 8},
          [](auto&, void** a) {
              for (long long i = 0; i < value<long long>(a, 3); ++i)
                  value<float*>(a, 0)[i] = value<float*>(a, 1)[i] + value<float*>(a, 2)[i];
          }}},
        // A table of two rows (counts, outputs, inputs, scalars), then what is added to all.
        {"scale_rows_f32",
         {"scale_rows_f32",
          {64, 4},
          [](auto&, void** a) {
              struct Table {
                  long long n[2];
                  float* out[2];
                  const float* in[2];
                  double scale[2];
              };
              auto t = value<Table>(a, 0);
              for (int row = 0; row < 2; ++row)
                  for (long long i = 0; i < t.n[row]; ++i)
                      t.out[row][i] = static_cast<float>(t.scale[row]) * t.in[row][i] + value<float>(a, 1);
          }}},
        {"probe",
         {"probe",
          {8, 8, 4, 4, 8, 8, 8},
          [](auto& params, void** a) {
              auto* out = value<double*>(a, 0);
              out[0] = static_cast<double>(value<long long>(a, 1));
              out[1] = value<int>(a, 2);
              out[2] = value<float>(a, 3);
              out[3] = value<double>(a, 4);
              out[4] = static_cast<double>(value<long long>(a, 5));
              auto c = value<std::complex<float>>(a, 6);
              out[5] = c.real();
              out[6] = c.imag();
              const unsigned shape[] = {params.gridDimX,  params.gridDimY,  params.gridDimZ,      params.blockDimX,
                                        params.blockDimY, params.blockDimZ, params.sharedMemBytes};
              std::copy(std::begin(shape), std::end(shape), out + 7);
          }}},
        {"idle", {"idle", {}, [](auto&, void**) {}}},  // stands for any kernel, whatever its arguments
    };
    static bool complete = [] {
        for (std::string name : {"fill_f32", "add_f32", "probe"}) {
            CUfunc_st& direct = all[name];
            // The same with its arguments in memory, in a word each.
            all[name + "_from_memory"] = {name + "_from_memory", {8}, [&direct](auto& params, void** a) {
                                              std::vector<void*> arguments;
                                              for (std::size_t i = 0; i < direct.sizes.size(); ++i)
                                                  arguments.push_back(value<std::uint64_t*>(a, 0) + i);
                                              direct.run(params, arguments.data());
                                          }};
        }
        for (std::size_t words : {4, 256}) {
            std::string name = "write_" + std::to_string(words);
            all[name] = {
                name, {8, 8 * words}, [words](auto&, void** a) { std::memcpy(value<char*>(a, 0), a[1], 8 * words); }};
        }
        return true;
    }();
    static_cast<void>(complete);
    return all;
}

std::unique_ptr<CUgraph_st> clone(CUgraph graph, std::map<CUgraphNode, std::size_t>* index = nullptr);

void set_kernel(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS* params) {
    node->params = *params;
    node->arguments.clear();
    for (std::size_t i = 0; i < params->func->sizes.size(); ++i) {
        auto* bytes = static_cast<char*>(params->kernelParams[i]);
        node->arguments.emplace_back(bytes, bytes + params->func->sizes[i]);
    }
}

std::unique_ptr<CUgraph_st> clone(CUgraph graph, std::map<CUgraphNode, std::size_t>* index) {
    auto copy = std::make_unique<CUgraph_st>();
    std::map<CUgraphNode, CUgraphNode> copies;
    for (auto& node : graph->nodes) {
        if (index) (*index)[node.get()] = copy->nodes.size();
        auto made = std::make_unique<CUgraphNode_st>();
        made->params = node->params;
        made->arguments = node->arguments;
        made->host = node->host;
        if (node->child) made->child = clone(node->child.get());
        copies[node.get()] = made.get();
        copy->nodes.push_back(std::move(made));
    }
    for (auto& node : graph->nodes)
        for (CUgraphNode before : node->before) copies.at(node.get())->before.push_back(copies.at(before));
    return copy;
}

// An order that respects the edges, and as little else as can be: of the nodes that may run, the one added last.
std::vector<CUgraphNode> order_of(CUgraph graph) {
    std::map<CUgraphNode, std::size_t> number;
    for (auto& node : graph->nodes) number.emplace(node.get(), number.size());
    std::vector<std::vector<std::size_t>> after(graph->nodes.size());
    std::vector<std::size_t> waits_for(graph->nodes.size());
    std::set<std::size_t> ready;
    for (std::size_t i = 0; i < graph->nodes.size(); ++i) {
        for (CUgraphNode before : graph->nodes[i]->before) after[number.at(before)].push_back(i);
        waits_for[i] = graph->nodes[i]->before.size();
        if (!waits_for[i]) ready.insert(i);
    }
    std::vector<CUgraphNode> order;
    while (!ready.empty()) {
        const std::size_t next = *ready.rbegin();
        ready.erase(next);
        order.push_back(graph->nodes[next].get());
        for (std::size_t i : after[next])
            if (--waits_for[i] == 0) ready.insert(i);
    }
    if (order.size() != graph->nodes.size()) std::abort();
    return order;
}

void run(CUgraph graph) {
    for (CUgraphNode node : order_of(graph)) {
        if (node->child) run(node->child.get());
        if (node->host) {
            note("host");
            device_clock += 100;
            node->host();
        }
        if (!node->params.func) continue;
        note(node->params.func->name);
        device_clock += 10;
        std::vector<void*> pointers;
        for (auto& argument : node->arguments) pointers.push_back(argument.data());
        node->params.func->run(node->params, pointers.data());
    }
}

CUgraphNode add(CUgraph graph, const CUgraphNode* before, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
        if (std::none_of(graph->nodes.begin(), graph->nodes.end(), [&](auto& x) { return x.get() == before[i]; }))
            std::abort();
    graph->nodes.push_back(std::make_unique<CUgraphNode_st>());
    graph->nodes.back()->before.assign(before, before + n);
    return graph->nodes.back().get();
}

}  // namespace

EXPORT void fake_set_capacity(long nbytes) { capacity = nbytes; }
EXPORT void fake_refuse_patches(long n) { refuse = n; }
EXPORT int fake_writes_values() { return kWritesValues; }
EXPORT void fake_hold(int on) {
    if (!on)
        for (auto [address, value] : held_values) std::atomic_ref(*address).store(value, std::memory_order_release);
    held_values.clear();
    held = on;
}
EXPORT void fake_break(int on) { broken = on; }
EXPORT void fake_child_nodes(long n) { child_nodes = n; }
EXPORT void fake_child_kernel(long number) { child_kernel = number; }
EXPORT void fake_lt_workspace(long nbytes) { lt_workspace = nbytes; }
EXPORT void fake_lt_times(const double* times, long n) { lt_times.assign(times, times + n); }
EXPORT void fake_lt_version(long version) { lt_version = version; }
EXPORT void fake_lt_refuse(long algorithm) { lt_refused = algorithm; }
EXPORT void fake_lt_computes(int on) { lt_computes = on; }
EXPORT void fake_lt_host_us(long us) { lt_host_us = us; }
EXPORT int fake_lt_captured() { return lt_captured; }
EXPORT int fake_lt_launched() { return lt_launched; }
EXPORT void fake_journal(int on) {
    journal_on = on;
    if (on) journal.clear();
}
EXPORT const char* fake_journal_text() { return journal.c_str(); }
EXPORT int fake_timed_events() { return timed_events; }
EXPORT long fake_in_use() { return in_use; }
EXPORT long fake_live_execs() { return live_execs; }
EXPORT long fake_programmatic_edges() { return programmatic_edges; }
EXPORT long fake_scratch_blocks() { return static_cast<long>(scratch_seen.size()); }
// A graph that a library node's callback may return: adds `amount` to n floats, and has child_nodes nodes.
EXPORT CUgraph fake_make_graph(float* target, const float* source, long n, double amount) {
    auto* graph = new CUgraph_st;
    for (long i = 0; i < child_nodes; ++i) add(graph, nullptr, 0);
    graph->nodes[0]->params.kern = reinterpret_cast<CUkernel>(child_kernel);
    graph->nodes[0]->host = [=] {
        for (long i = 0; i < n; ++i) target[i] = source[i] + static_cast<float>(amount);
    };
    return graph;
}

#define OK return CUDA_SUCCESS

EXPORT CUresult cuInit(unsigned) { OK; }
EXPORT CUresult cuDriverGetVersion(int* v) {
    *v = 13000;
    OK;
}
EXPORT CUresult cuGetErrorName(CUresult code, const char** text) {
    *text = code == CUDA_ERROR_OUT_OF_MEMORY     ? "CUDA_ERROR_OUT_OF_MEMORY"
            : code == CUDA_ERROR_NOT_FOUND       ? "CUDA_ERROR_NOT_FOUND"
            : code == CUDA_ERROR_ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                                                 : "CUDA_ERROR_FAKE";
    OK;
}
EXPORT CUresult cuGetErrorString(CUresult, const char** text) {
    *text = "from the fake driver";
    OK;
}
EXPORT CUresult cuDeviceGet(CUdevice* d, int) {
    *d = 0;
    OK;
}
EXPORT CUresult cuDeviceGetCount(int* n) {
    *n = 1;
    OK;
}
EXPORT CUresult cuDeviceGetName(char* name, int n, CUdevice) {
    std::strncpy(name, "Fake GPU", static_cast<std::size_t>(n));
    OK;
}
EXPORT CUresult cuDeviceGetAttribute(int* v, CUdevice_attribute which, CUdevice) {
    *v = which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR        ? 9
         : which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR      ? 0
         : which == CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS ? kWritesValues
                                                                      : 128;
    OK;
}
EXPORT CUresult cuDeviceTotalMem(std::size_t* n, CUdevice) {
    *n = std::size_t{1} << 30;
    OK;
}
EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* c, CUdevice) {
    *c = reinterpret_cast<CUcontext>(8);
    OK;
}
EXPORT CUresult cuCtxSetCurrent(CUcontext) { OK; }
// A module "sizes 8 4 ..." has every function, of parameters of these sizes, which does nothing.
EXPORT CUresult cuModuleLoadData(CUmodule* m, const void* image) {
    *m = new CUmod_st{};
    std::istringstream text(static_cast<const char*>(image));
    std::string word;
    if (text >> word && word == "sizes") {
        (*m)->functions = new std::map<std::string, CUfunc_st>;
        for (std::size_t size; text >> size;) (*m)->sizes.push_back(size);
    }
    OK;
}
EXPORT CUresult cuModuleUnload(CUmodule m) {
    delete m->functions;
    delete m;
    OK;
}
EXPORT CUresult cuModuleGetFunction(CUfunction* f, CUmodule m, const char* name) {
    if (m->functions) {
        *f = &(*m->functions)[name];
        **f = {name, m->sizes, [](auto&, void**) {}};
        OK;
    }
    auto found = kernels().find(name);
    if (found == kernels().end()) return CUDA_ERROR_NOT_FOUND;
    *f = &found->second;
    OK;
}
EXPORT CUresult cuFuncGetAttribute(int* v, CUfunction_attribute, CUfunction) {
    *v = 32;
    OK;
}
EXPORT CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { OK; }
EXPORT CUresult cuMemAlloc(CUdeviceptr* p, std::size_t n) {
    if (in_use + static_cast<long>(n) > capacity) return CUDA_ERROR_OUT_OF_MEMORY;
    *p = reinterpret_cast<CUdeviceptr>(std::aligned_alloc(512, (n + 511) / 512 * 512));
    blocks[*p] = n;
    in_use += static_cast<long>(n);
    OK;
}
EXPORT CUresult cuMemFree(CUdeviceptr p) {
    in_use -= static_cast<long>(blocks.at(p));
    blocks.erase(p);
    std::free(reinterpret_cast<void*>(p));
    OK;
}
EXPORT CUresult cuMemGetInfo(std::size_t* f, std::size_t* t) {
    *f = 1 << 29;
    *t = 1 << 30;
    OK;
}
EXPORT CUresult cuMemAllocHost(void** p, std::size_t n) {
    *p = std::malloc(n);
    OK;
}
EXPORT CUresult cuMemcpyHtoDAsync(CUdeviceptr d, const void* s, std::size_t n, CUstream) {
    std::memcpy(reinterpret_cast<void*>(d), s, n);
    OK;
}
EXPORT CUresult cuMemcpyDtoHAsync(void* d, CUdeviceptr s, std::size_t n, CUstream) {
    std::memcpy(d, reinterpret_cast<void*>(s), n);
    OK;
}
EXPORT CUresult cuMemcpyDtoH(void* d, CUdeviceptr s, std::size_t n) {
    std::memcpy(d, reinterpret_cast<void*>(s), n);
    OK;
}
EXPORT CUresult cuMemcpyDtoDAsync(CUdeviceptr d, CUdeviceptr s, std::size_t n, CUstream) {
    std::memcpy(reinterpret_cast<void*>(d), reinterpret_cast<void*>(s), n);
    OK;
}
EXPORT CUresult cuStreamWriteValue64(CUstream, CUdeviceptr target, cuuint64_t value, unsigned) {
    if (!kWritesValues) return CUDA_ERROR_NOT_SUPPORTED;
    auto* address = reinterpret_cast<std::uint64_t*>(target);
    if (broken) OK;
    if (held)
        held_values[address] = value;
    else
        std::atomic_ref(*address).store(value, std::memory_order_release);
    OK;
}
EXPORT CUresult cuStreamQuery(CUstream) {
    return broken ? CUDA_ERROR_ILLEGAL_ADDRESS : held ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}
EXPORT CUresult cuStreamCreate(CUstream* s, unsigned) {
    static int streams = 0;
    *s = new CUstream_st;
    (*s)->number = ++streams;
    OK;
}
EXPORT CUresult cuStreamSynchronize(CUstream) { OK; }
EXPORT CUresult cuCtxSynchronize() {
    note("context");
    OK;
}
EXPORT CUresult cuStreamWaitEvent(CUstream after, CUevent e, unsigned) {
    note(name_of(after) + "-after-" + name_of(e->on));
    OK;
}
EXPORT CUresult cuStreamBeginCapture(CUstream s, CUstreamCaptureMode) {
    s->capturing = new CUgraph_st;
    OK;
}
EXPORT CUresult cuStreamEndCapture(CUstream s, CUgraph* g) {
    *g = s->capturing;
    s->capturing = nullptr;
    OK;
}
EXPORT CUresult cuEventCreate(CUevent* e, unsigned flags) {
    *e = new CUevent_st;
    (*e)->timed = !(flags & CU_EVENT_DISABLE_TIMING);
    if ((*e)->timed) (*e)->number = ++timed_events;
    OK;
}
EXPORT CUresult cuEventRecord(CUevent e, CUstream on) {
    e->at = device_clock;
    e->on = on;
    if (e->timed) note("e" + std::to_string(e->number));
    OK;
}
EXPORT CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    if (!start->timed || !end->timed || start->at < 0 || end->at < 0) return CUDA_ERROR_INVALID_HANDLE;
    *milliseconds = static_cast<float>((end->at - start->at) / 1e3);
    OK;
}
EXPORT CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char value, std::size_t n, CUstream) {
    std::memset(reinterpret_cast<void*>(p), value, std::min<std::size_t>(n, 4096));  // enough for a test to see
    note("fill");
    device_clock += 25;
    OK;
}
EXPORT CUresult cuEventQuery(CUevent) {
    return broken ? CUDA_ERROR_ILLEGAL_ADDRESS : held ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}
EXPORT CUresult cuEventSynchronize(CUevent) { OK; }
EXPORT CUresult cuGraphCreate(CUgraph* g, unsigned) {
    *g = new CUgraph_st;
    OK;
}
EXPORT CUresult cuGraphDestroy(CUgraph g) {
    delete g;
    OK;
}
EXPORT CUresult cuGraphGetNodes(CUgraph g, CUgraphNode* nodes, std::size_t* n) {
    if (nodes) std::transform(g->nodes.begin(), g->nodes.end(), nodes, [](auto& node) { return node.get(); });
    *n = g->nodes.size();
    OK;
}
EXPORT CUresult cuGraphNodeGetType(CUgraphNode n, CUgraphNodeType* type) {
    *type = n->child ? CU_GRAPH_NODE_TYPE_GRAPH : CU_GRAPH_NODE_TYPE_KERNEL;
    OK;
}
EXPORT CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode n, CUgraph* g) {
    *g = n->child.get();
    OK;
}
EXPORT CUresult cuGraphKernelNodeGetParams(CUgraphNode n, CUDA_KERNEL_NODE_PARAMS* p) {
    *p = n->params;
    OK;
}
EXPORT CUresult cuGraphKernelNodeGetAttribute(CUgraphNode, CUkernelNodeAttrID, CUkernelNodeAttrValue* value) {
    *value = {};
    OK;
}
EXPORT CUresult cuGraphAddKernelNode(CUgraphNode* n, CUgraph g, const CUgraphNode* before, std::size_t count,
                                     const CUDA_KERNEL_NODE_PARAMS* p) {
    *n = add(g, before, count);
    set_kernel(*n, p);
    OK;
}
EXPORT CUresult cuGraphAddChildGraphNode(CUgraphNode* n, CUgraph g, const CUgraphNode* before, std::size_t count,
                                         CUgraph child) {
    *n = add(g, before, count);
    (*n)->child = clone(child);
    OK;
}
EXPORT CUresult cuGraphAddDependencies(CUgraph, const CUgraphNode* from, const CUgraphNode* to,
                                       const CUgraphEdgeData* edge, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
        to[i]->before.push_back(from[i]);
        programmatic_edges += edge && edge[i].type == CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
    }
    OK;
}
EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec* e, CUgraph g, unsigned long long) {
    *e = new CUgraphExec_st;
    (*e)->graph = clone(g, &(*e)->index);
    ++live_execs;
    OK;
}
EXPORT CUresult cuGraphExecDestroy(CUgraphExec e) {
    delete e;
    --live_execs;
    OK;
}
EXPORT CUresult cuGraphExecKernelNodeSetParams(CUgraphExec e, CUgraphNode n, const CUDA_KERNEL_NODE_PARAMS* p) {
    if (refuse > 0) {
        --refuse;
        return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    }
    set_kernel(e->graph->nodes[e->index.at(n)].get(), p);
    OK;
}
EXPORT CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec e, CUgraphNode n, CUgraph child) {
    auto& node = e->graph->nodes[e->index.at(n)];
    if (node->child->nodes.size() != child->nodes.size()) return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    for (std::size_t i = 0; i < child->nodes.size(); ++i)
        if (node->child->nodes[i]->params.kern != child->nodes[i]->params.kern) OK;  // as if it had: nothing is changed
    node->child = clone(child);
    OK;
}
EXPORT CUresult cuGraphLaunch(CUgraphExec e, CUstream) {
    run(e->graph.get());
    OK;
}

// cuBLASLt, column-major, float32 and float64.
struct Layout {
    std::uint64_t rows, columns;
    std::int64_t ld;
    std::int32_t batch = 1;
    std::int64_t stride = 0;
};
struct Desc {
    int compute;
    std::int32_t transpose[2] = {0, 0};
};
struct Heuristic {
    std::uint64_t algo[8];
    std::size_t workspace;
    int status;
    float waves;
    int reserved[4];
};
EXPORT int cublasLtCreate(void** h) {
    *h = reinterpret_cast<void*>(8);
    return 0;
}
EXPORT std::size_t cublasLtGetVersion() { return static_cast<std::size_t>(lt_version); }
EXPORT int cublasLtMatmulDescCreate(Desc** d, int compute, int) {
    *d = new Desc{compute};
    return 0;
}
EXPORT int cublasLtMatmulDescDestroy(Desc* d) {
    delete d;
    return 0;
}
EXPORT int cublasLtMatmulDescSetAttribute(Desc* d, int attribute, const void* v, std::size_t n) {
    if ((attribute != 3 && attribute != 4) || n != 4) return 7;
    std::memcpy(&d->transpose[attribute - 3], v, 4);
    return 0;
}
EXPORT int cublasLtMatrixLayoutCreate(Layout** l, int, std::uint64_t rows, std::uint64_t columns, std::int64_t ld) {
    if (ld < static_cast<std::int64_t>(rows)) return 7;
    *l = new Layout{rows, columns, ld};
    return 0;
}
EXPORT int cublasLtMatrixLayoutDestroy(Layout* l) {
    delete l;
    return 0;
}
EXPORT int cublasLtMatrixLayoutSetAttribute(Layout* l, int attribute, const void* v, std::size_t n) {
    if (attribute == 5 && n == 4)
        std::memcpy(&l->batch, v, 4);
    else if (attribute == 6 && n == 8)
        std::memcpy(&l->stride, v, 8);
    else
        return 7;
    return 0;
}
EXPORT int cublasLtMatmulPreferenceCreate(void** p) {
    *p = std::malloc(8);
    return 0;
}
EXPORT int cublasLtMatmulPreferenceDestroy(void* p) {
    std::free(p);
    return 0;
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(void*, int attribute, const void*, std::size_t n) {
    return n == (attribute == 1 ? 8u : 4u) ? 0 : 7;
}
EXPORT int cublasLtMatmulAlgoGetHeuristic(void*, Desc*, Layout*, Layout*, Layout*, Layout*, void*, int wanted,
                                          Heuristic* h, int* found) {
    *found = std::min(wanted, static_cast<int>(lt_times.size()));
    for (int i = 0; i < *found; ++i) {
        h[i] = {};
        h[i].algo[0] = static_cast<std::uint64_t>(i);
        h[i].workspace = static_cast<std::size_t>(lt_workspace);
    }
    return 0;
}
EXPORT int cublasLtMatmulAlgoCheck(void*, Desc*, Layout*, Layout*, Layout*, Layout*, const std::uint64_t* algo,
                                   Heuristic* h) {
    if (static_cast<long>(algo[0]) == lt_refused) return 15;
    *h = {};
    h->workspace = static_cast<std::size_t>(lt_workspace);
    return 0;
}

template <class T>
static std::function<void()> product(Desc d, T alpha, const T* a, Layout la, const T* b, Layout lb, T beta, const T* c,
                                     Layout lc, T* out, Layout ld) {
    return [=] {
        auto depth = d.transpose[0] ? la.rows : la.columns;
        for (int batch = 0; batch < ld.batch; ++batch)
            for (std::uint64_t i = 0; i < ld.rows; ++i)
                for (std::uint64_t j = 0; j < ld.columns; ++j) {
                    T sum = 0;
                    auto at = [&](const T* m, const Layout& l, std::uint64_t row, std::uint64_t column) {
                        return m[batch * l.stride + static_cast<std::int64_t>(row) +
                                 static_cast<std::int64_t>(column) * l.ld];
                    };
                    for (std::uint64_t k = 0; k < depth; ++k)
                        sum += (d.transpose[0] ? at(a, la, k, i) : at(a, la, i, k)) *
                               (d.transpose[1] ? at(b, lb, j, k) : at(b, lb, k, j));
                    T old = beta == T(0) ? T(0) : beta * at(c, lc, i, j);
                    out[batch * ld.stride + static_cast<std::int64_t>(i) + static_cast<std::int64_t>(j) * ld.ld] =
                        alpha * sum + old;
                }
    };
}

EXPORT int cublasLtMatmul(void*, Desc* d, const void* alpha, const void* a, Layout* la, const void* b, Layout* lb,
                          const void* beta, const void* c, Layout* lc, void* out, Layout* ld, const std::uint64_t* algo,
                          void* scratch, std::size_t scratch_bytes, CUstream stream) {
    double time = lt_times.at(algo[0]);
    if (time < 0) return 15;
    if (!stream->capturing) {  // it computes nothing: its operands are nobody's
        ++lt_launched;
        std::this_thread::sleep_for(std::chrono::microseconds(lt_host_us));
        device_clock += time;
        return 0;
    }
    lt_captured = static_cast<int>(algo[0]);
    if (scratch_bytes) scratch_seen.insert(reinterpret_cast<std::uintptr_t>(scratch));
    CUgraphNode node = add(stream->capturing, nullptr, 0);
    auto make = [&](auto zero) {
        using T = decltype(zero);
        return product<T>(*d, *static_cast<const T*>(alpha), static_cast<const T*>(a), *la, static_cast<const T*>(b),
                          *lb, *static_cast<const T*>(beta), static_cast<const T*>(c), *lc, static_cast<T*>(out), *ld);
    };
    if (lt_computes)
        node->host = d->compute == 70 ? make(0.0) : make(0.0f);
    else
        node->host = [] {};
    return 0;
}
