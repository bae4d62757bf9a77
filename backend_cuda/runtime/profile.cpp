#include "backend_cuda/runtime/profile.h"

#include <Python.h>

#include <algorithm>
#include <chrono>
#include <deque>

#include "backend_cuda/runtime/memory.h"
#include "backend_cuda/runtime/plan.h"
#include "backend_cuda/runtime/stream.h"

namespace mlxlite::cuda {

namespace {

constexpr std::size_t kEventsInFlight = 8192;  // beyond these, launches in flight are waited for and their times read
constexpr std::size_t kLaunchNanoseconds = 7000;  // of the host: two events and a graph
constexpr std::size_t kFillNanoseconds = 25000;   // of the device: the workspace filled once
constexpr std::size_t kMostFills = 64;

struct Pair {
    std::size_t position;
    CUevent start, end;
};
struct Pending {
    MeasuredLaunch launch;
    std::vector<Pair> pairs;
};

Measuring mode = Measuring::off;
std::vector<CUevent> spare;
std::size_t in_flight = 0;  // events
std::deque<Pending> pending;
std::vector<MeasuredLaunch> settled;
CUevent origin = nullptr;  // recorded when measuring began, at this time of the host
std::int64_t origin_time = 0;

std::int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

CUevent take_event() {
    ++in_flight;
    if (!spare.empty()) {
        CUevent event = spare.back();
        spare.pop_back();
        return event;
    }
    CUevent event = nullptr;
    driver.cuEventCreate(&event, CU_EVENT_DEFAULT);
    return event;
}

void give_back(CUevent event) {
    --in_flight;
    spare.push_back(event);
}

void wait_on(CUevent event) {
    CUresult code;
    Py_BEGIN_ALLOW_THREADS;
    code = driver.cuEventSynchronize.raw(event);
    Py_END_ALLOW_THREADS;
    if (code != CUDA_SUCCESS) fail(code, "cuEventSynchronize, for work that is measured");
}

std::int64_t elapsed(CUevent start, CUevent end) {
    float milliseconds = 0;
    driver.cuEventElapsedTime(&milliseconds, start, end);
    return static_cast<std::int64_t>(static_cast<double>(milliseconds) * 1e6);
}

// Reads the times of everything that was launched.
void settle() {
    while (!pending.empty()) {
        // Waiting drops the GIL: what is waited for must not stay where another thread finds it.
        Pending next = std::move(pending.front());
        pending.pop_front();
        if (!next.pairs.empty()) wait_on(next.pairs.back().end);
        next.launch.times.resize(next.pairs.size());
        for (const Pair& pair : next.pairs) {
            // A float's digits: starts are told from the first of the launch, which is told from the origin.
            std::int64_t first = origin_time + elapsed(origin, next.pairs.front().start);
            next.launch.times[pair.position] = {first + elapsed(next.pairs.front().start, pair.start),
                                                elapsed(pair.start, pair.end)};
        }
        for (const Pair& pair : next.pairs) {
            give_back(pair.start);
            give_back(pair.end);
        }
        settled.push_back(std::move(next.launch));
    }
}

}  // namespace

Measuring measuring() { return mode; }

void set_measuring(Measuring wanted) {
    make_current();
    settle();
    settled.clear();
    mode = wanted;
    if (mode == Measuring::off) return;
    synchronize();
    if (!origin) driver.cuEventCreate(&origin, CU_EVENT_DEFAULT);
    driver.cuEventRecord(origin, compute_stream());
    wait_on(origin);
    origin_time = now();
}

std::vector<MeasuredLaunch> take_measured() {
    make_current();
    settle();
    return std::exchange(settled, {});
}

LaunchNotes::LaunchNotes() : active_(mode != Measuring::off) {
    if (active_) start_ = bound_ = now();
}

LaunchNotes::~LaunchNotes() {
    // Of a launch that failed halfway.
    for (auto& pair : pairs_) {
        give_back(pair.start);
        if (pair.end) give_back(pair.end);
    }
}

void LaunchNotes::bound() {
    if (active_) bound_ = now();
}

void LaunchNotes::before(std::size_t position, const std::string& label) {
    if (!active_) return;
    pairs_.push_back({position, label, take_event(), nullptr});
    driver.cuEventRecord(pairs_.back().start, compute_stream());
}

void LaunchNotes::after() {
    if (!active_) return;
    pairs_.back().end = take_event();
    driver.cuEventRecord(pairs_.back().end, compute_stream());
}

void LaunchNotes::commit() {
    if (!active_) return;
    Pending made;
    made.launch.bind = bound_ - start_;
    made.launch.launch = pairs_.empty() ? 0 : now() - bound_;
    made.launch.labels.resize(pairs_.size());
    for (auto& pair : pairs_) {
        made.launch.labels[pair.position] = std::move(pair.label);
        made.pairs.push_back({pair.position, pair.start, pair.end});
    }
    pairs_.clear();
    pending.push_back(std::move(made));
    if (in_flight > kEventsInFlight) settle();
}

void delay_device(std::size_t launches) {
    if (!driver.cuMemsetD8Async) return;
    // The workspace's contents mean nothing between two nodes.
    std::size_t fills = std::min(kMostFills, launches * kLaunchNanoseconds / kFillNanoseconds + 1);
    for (std::size_t i = 0; i < fills; ++i) driver.cuMemsetD8Async(workspace(), 0, kWorkspaceBytes, compute_stream());
    mark_enqueued();
}

// ---- plans, node by node

void Plan::launch_whole(const Executable& executable, LaunchNotes& notes) {
    singles_.clear();
    notes.before(0, "whole plan");
    driver.cuGraphLaunch(executable.exec.get(), compute_stream());
    notes.after();
    ++counters.launches;
}

void Plan::launch_nodes(const Executable& executable, LaunchNotes& notes) {
    // Written by a copy, which is in order with the launches: a writer would be one more node to measure.
    if (in_memory_)
        copy_to_device(in_memory_.memory.address(), executable.arguments.data(), executable.arguments.size() * 8);
    singles_.resize(spec_.nodes.size());
    for (std::size_t i = 0; i < spec_.nodes.size(); ++i) {
        const PlanNode& node = spec_.nodes[i];
        // The arguments of a promoted node are not kept up to date here, so it is not made anew for others.
        auto first = executable.block.begin() + static_cast<std::ptrdiff_t>(node.begin);
        Words words(first, first + static_cast<std::ptrdiff_t>(node.end - node.begin));
        Single& single = singles_[i];
        if (single.exec && single.words == words) continue;
        CUgraph graph = nullptr;
        driver.cuGraphCreate(&graph, 0);
        Graph owner(graph);
        add_node(graph, node, words.data(), {});
        CUgraphExec exec = nullptr;
        driver.cuGraphInstantiateWithFlags(&exec, graph, 0);
        single.exec = GraphExec(exec);
        single.words = std::move(words);
    }
    delay_device(spec_.nodes.size());
    for (auto index : spec_.order) {
        notes.before(index, spec_.nodes[index].label);
        driver.cuGraphLaunch(singles_[index].exec.get(), compute_stream());
        notes.after();
        ++counters.launches;
    }
}

}  // namespace mlxlite::cuda
