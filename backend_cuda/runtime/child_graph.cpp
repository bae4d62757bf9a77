#include "backend_cuda/runtime/child_graph.h"

namespace mlxlite::cuda {

namespace {

void append(CUgraph graph, std::vector<std::uint64_t>& words) {
    std::size_t n = 0;
    driver.cuGraphGetNodes(graph, nullptr, &n);
    std::vector<CUgraphNode> nodes(n);
    if (n) driver.cuGraphGetNodes(graph, nodes.data(), &n);
    words.push_back(n);
    for (CUgraphNode node : nodes) {
        CUgraphNodeType type;
        driver.cuGraphNodeGetType(node, &type);
        words.push_back(type);
        if (type == CU_GRAPH_NODE_TYPE_GRAPH) {
            CUgraph child = nullptr;
            driver.cuGraphChildGraphNodeGetGraph(node, &child);
            append(child, words);
        } else if (type == CU_GRAPH_NODE_TYPE_KERNEL) {
            CUDA_KERNEL_NODE_PARAMS kernel{};
            driver.cuGraphKernelNodeGetParams(node, &kernel);
            words.push_back(reinterpret_cast<std::uintptr_t>(kernel.func));
            words.push_back(reinterpret_cast<std::uintptr_t>(kernel.kern));
            for (auto value : {kernel.blockDimX, kernel.blockDimY, kernel.blockDimZ, kernel.sharedMemBytes})
                words.push_back(value);
            CUlaunchAttributeValue cluster{};
            driver.cuGraphKernelNodeGetAttribute(node, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &cluster);
            for (auto value : {cluster.clusterDim.x, cluster.clusterDim.y, cluster.clusterDim.z})
                words.push_back(value);
        }
    }
}

}  // namespace

std::vector<std::uint64_t> kernels_of(CUgraph graph) {
    std::vector<std::uint64_t> words;
    append(graph, words);
    return words;
}

}  // namespace mlxlite::cuda
