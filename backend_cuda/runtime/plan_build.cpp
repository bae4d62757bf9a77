// What is decided once per plan: where parameters stand, and which matmul nodes share workspace.
#include <algorithm>
#include <array>

#include "backend_cuda/runtime/plan.h"

namespace mlxlite::cuda {

namespace {

constexpr std::size_t kLanes = 4;

std::vector<std::uint32_t> topological_order(const std::vector<PlanNode>& nodes) {
    std::vector<std::uint32_t> missing(nodes.size()), order;
    std::vector<std::vector<std::uint32_t>> after(nodes.size());
    for (std::uint32_t i = 0; i < nodes.size(); ++i) {
        missing[i] = static_cast<std::uint32_t>(nodes[i].before.size());
        for (auto b : nodes[i].before) after[b].push_back(i);
        if (missing[i] == 0) order.push_back(i);
    }
    for (std::size_t done = 0; done < order.size(); ++done)
        for (auto next : after[order[done]])
            if (--missing[next] == 0) order.push_back(next);
    if (order.size() != nodes.size()) throw std::invalid_argument("Plan: the edges form a cycle");
    return order;
}

// A lane is a chain of matmul nodes, each of which has finished before the next starts.
void share_workspace(std::vector<PlanNode>& nodes, const std::vector<std::uint32_t>& order) {
    // finished[node][lane]: how many matmuls of that lane are known to be done when the node starts.
    std::vector<std::array<std::uint32_t, kLanes>> finished(nodes.size());
    std::array<std::uint32_t, kLanes> length{}, last{};
    std::vector<std::uint32_t> lane_of(nodes.size(), kNone), position(nodes.size(), 0);
    std::size_t lanes = 0;
    for (auto index : order) {
        PlanNode& node = nodes[index];
        auto inherit = [&](std::uint32_t before) {
            for (std::size_t lane = 0; lane < kLanes; ++lane)
                finished[index][lane] = std::max(finished[index][lane], finished[before][lane]);
            if (lane_of[before] != kNone) {
                auto& known = finished[index][lane_of[before]];
                known = std::max(known, position[before] + 1);
            }
        };
        for (auto before : node.before) inherit(before);
        if (!std::holds_alternative<MatmulWork>(node.work)) continue;
        std::size_t lane = 0;
        while (lane < lanes && finished[index][lane] != length[lane]) ++lane;
        if (lane == lanes) {
            if (lanes < kLanes) {
                ++lanes;
            } else {
                lane = static_cast<std::size_t>(std::min_element(length.begin(), length.end()) - length.begin());
                node.before.push_back(last[lane]);
                inherit(last[lane]);
            }
        }
        lane_of[index] = static_cast<std::uint32_t>(lane);
        position[index] = length[lane]++;
        last[lane] = index;
    }
    auto share = static_cast<std::int64_t>(kWorkspaceBytes / (lanes <= 2 ? std::max<std::size_t>(lanes, 1) : kLanes));
    for (std::size_t i = 0; i < nodes.size(); ++i)
        if (auto* work = std::get_if<MatmulWork>(&nodes[i].work)) {
            work->workspace_bytes = share;
            work->workspace_offset = share * lane_of[i];
        }
}

std::size_t words_of(const PlanNode& node) {
    if (auto* kernel = std::get_if<KernelWork>(&node.work)) return 2 + kernel->arguments.size();
    if (auto* library = std::get_if<LibraryWork>(&node.work))
        return library->places.size() + library->registers.size() + library->slots.size();
    return sizeof(MatmulCall) / 8;
}

}  // namespace

void lay_out(PlanSpec& spec) {
    static_assert(sizeof(MatmulCall) % 8 == 0);
    std::size_t at = 0;
    for (PlanNode& node : spec.nodes) {
        std::ranges::sort(node.before);
        node.before.erase(std::unique(node.before.begin(), node.before.end()), node.before.end());
        node.begin = at;
        at += words_of(node);
        node.end = at;
    }
    spec.order = topological_order(spec.nodes);
    share_workspace(spec.nodes, spec.order);  // adds edges along that order only
    for (PlanNode& node : spec.nodes)
        if (auto* kernel = std::get_if<KernelWork>(&node.work))
            kernel->pdl = kernel->pdl && node.before.size() == 1 &&
                          std::holds_alternative<KernelWork>(spec.nodes[node.before[0]].work);
}

}  // namespace mlxlite::cuda
