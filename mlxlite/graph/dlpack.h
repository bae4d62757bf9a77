// Arrays in other libraries, and their tensors here, by DLPack.
#pragma once
#include <Python.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "mlxlite/graph/node.h"

namespace mlxlite {

// DLPack's type and number of the device where an array is handed out: the GPU if it is there, or will be when it is
// evaluated, or if that is the default device, where operations would move it.
std::pair<int, int> dlpack_device(const Node* node);

struct DlpackRequest {
    bool on_host;    // wherever the array is
    bool versioned;  // the consumer knows versions, and so the flag that memory is read-only
    bool copy;       // memory that nobody else has, which may be written
    // Of the consumer, for memory of the GPU. None: it will see to the order itself.
    std::optional<std::uintptr_t> stream;
};

// A capsule with the values of `node`, which is evaluated.
PyObject* to_dlpack(Node* node, const DlpackRequest& request);

// The stream that a producer of a tensor on the GPU is to give the tensor's memory to.
std::uintptr_t dlpack_stream();

// The tensor in a capsule, which is used up: a copy, complete when this returns; or, on the GPU, with `share`, the
// memory itself. Throws std::invalid_argument for a device that cannot be read, TypeError for a dtype that is none of
// ours.
Node* from_dlpack(PyObject* capsule, bool share);

}  // namespace mlxlite
