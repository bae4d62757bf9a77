#include "mlxlite/graph/dlpack.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/dlpack_abi.h"
#include "mlxlite/graph/errors.h"
#include "mlxlite/graph/evaluate.h"
#include "mlxlite/graph/host.h"

namespace mlxlite {

namespace {

dlpack::DataType type_of(Dtype dtype) {
    auto bits = static_cast<std::uint8_t>(8 * size_of(dtype));
    if (dtype == Dtype::bfloat16) return {dlpack::kBfloat, bits, 1};
    switch (category_of(dtype)) {
        case Category::boolean:
            return {dlpack::kBool, bits, 1};
        case Category::unsigned_integer:
            return {dlpack::kUInt, bits, 1};
        case Category::signed_integer:
            return {dlpack::kInt, bits, 1};
        case Category::floating:
            return {dlpack::kFloat, bits, 1};
        case Category::complex:
            return {dlpack::kComplex, bits, 1};
    }
    throw std::logic_error("a dtype without a category");
}

Dtype dtype_of(const dlpack::DataType& type) {
    for (int i = 0; i < kDtypeCount; ++i) {
        auto dtype = static_cast<Dtype>(i);
        dlpack::DataType known = type_of(dtype);
        if (known.code == type.code && known.bits == type.bits && type.lanes == 1) return dtype;
    }
    throw type_error("[from_dlpack] There is no dtype for DLPack's type " + std::to_string(type.code) + " of " +
                     std::to_string(type.bits) + " bits and " + std::to_string(type.lanes) +
                     (type.lanes == 1 ? " lane" : " lanes") + ": cast the tensor first.");
}

const BackendApi& gpu() {
    const BackendApi* api = backend(Device::gpu).api;
    if (!api) throw std::runtime_error("the GPU's backend shares no memory");
    return *api;
}

// What a consumer holds of an array: the memory, and room for the dims that its tensor points to.
struct Loan {
    Buffer* buffer;
    std::uintptr_t stream;  // that it was lent to, for memory of the GPU; 0: not known
    std::int64_t shape[kMaxRank], strides[kMaxRank];

    Loan(const Node* node, std::uintptr_t stream) : buffer(node->buffer), stream(stream) {
        retain(buffer);
        std::int64_t step = 1;
        for (int d = node->rank - 1; d >= 0; --d) {
            shape[d] = node->shape[d];
            strides[d] = node->strides ? node->strides[d] : step;
            step *= shape[d];
        }
    }
    ~Loan() {
        // What the consumer enqueued may still read the memory.
        if (buffer->device == Device::gpu) registered(Device::gpu)->api->take_back(stream);
        release(buffer);
    }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
};

// Consumers give memory back on any thread, and at any time until Python ends.
template <class Capsule>
void end_loan(Capsule* self) {
    if (!Py_IsInitialized()) return;
    PyGILState_STATE state = PyGILState_Ensure();
    delete static_cast<Loan*>(self->context);
    delete self;
    PyGILState_Release(state);
}

template <class Capsule>
void destroy_unused(PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, Capsule::kName)) return;  // taken
    auto* managed = static_cast<Capsule*>(PyCapsule_GetPointer(capsule, Capsule::kName));
    if (managed->deleter) managed->deleter(managed);
}

template <class Capsule>
PyObject* capsule_of(const Node* node, std::uintptr_t stream, std::uint64_t flags) {
    auto managed = std::make_unique<Capsule>();
    if constexpr (std::is_same_v<Capsule, dlpack::ManagedVersioned>) {
        managed->major = dlpack::kMajor;
        managed->minor = dlpack::kMinor;
        managed->flags = flags;
    }
    auto loan = std::make_unique<Loan>(node, stream);
    bool on_host = node->buffer->device == Device::cpu;
    void* data = on_host ? host_address(node->buffer) : node->buffer->ptr;
    if (data) data = static_cast<std::byte*>(data) + node->offset;
    dlpack::Tensor& tensor = managed->tensor;
    tensor = {data, dlpack::kCpu, 0, node->rank, type_of(node->dtype), loan->shape, loan->strides, 0};
    if (!on_host) tensor.device_type = dlpack::kCuda, tensor.device_id = gpu().device_id();
    managed->context = loan.get();
    managed->deleter = end_loan<Capsule>;
    PyObject* capsule = checked(PyCapsule_New(managed.get(), Capsule::kName, destroy_unused<Capsule>));
    loan.release();
    managed.release();
    return capsule;
}

// A tensor that was taken over from its producer, who gets it back at the end.
template <class Capsule>
class Taken {
  public:
    explicit Taken(PyObject* capsule) : managed_(static_cast<Capsule*>(PyCapsule_GetPointer(capsule, Capsule::kName))) {
        if (!managed_ || PyCapsule_SetName(capsule, Capsule::kTakenName)) throw PythonError{};
    }
    ~Taken() {
        if (managed_) give_back(managed_);
    }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;
    const dlpack::Tensor& tensor() const { return managed_->tensor; }
    // From now on `give_back(release())` is somebody else's to call.
    Capsule* release() { return std::exchange(managed_, nullptr); }

    static void give_back(void* managed) {
        auto* self = static_cast<Capsule*>(managed);
        if (self->deleter) self->deleter(self);
    }

  private:
    Capsule* managed_;
};

// Where the elements of a tensor lie.
struct Extent {
    std::byte* first;                // the element at index 0 of all dims
    std::int64_t strides[kMaxRank];  // in elements
    std::int64_t lowest = 0;         // in elements, from `first`
    std::int64_t highest = 0;
    bool empty = false;
};

Extent extent_of(const dlpack::Tensor& tensor) {
    if (tensor.ndim < 0 || tensor.ndim > kMaxRank)
        throw std::invalid_argument("[from_dlpack] arrays have at most " + std::to_string(kMaxRank) +
                                    " dimensions, got " + std::to_string(tensor.ndim));
    Extent extent;
    extent.first = static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
    std::int64_t step = 1;
    for (int d = tensor.ndim - 1; d >= 0; --d) {
        std::int64_t n = tensor.shape[d];
        extent.strides[d] = tensor.strides ? tensor.strides[d] : step;
        step *= n;
        extent.empty = extent.empty || n == 0;
        (extent.strides[d] < 0 ? extent.lowest : extent.highest) += (n - 1) * extent.strides[d];
    }
    if (extent.empty) extent.lowest = 0, extent.highest = -1;
    return extent;
}

void copy_strided(std::byte*& target, const std::byte* source, const dlpack::Tensor& tensor, const Extent& extent,
                  std::size_t itemsize, int d) {
    if (d == tensor.ndim) {
        std::memcpy(target, source, itemsize);
        target += itemsize;
        return;
    }
    for (std::int64_t i = 0; i < tensor.shape[d]; ++i)
        copy_strided(target, source + i * extent.strides[d] * static_cast<std::int64_t>(itemsize), tensor, extent,
                     itemsize, d + 1);
}

NodeRef new_leaf(const dlpack::Tensor& tensor, Dtype dtype, Device device) {
    NodeRef node(new_node());
    node->role = Role::leaf;
    node->dtype = dtype;
    node->device = device;
    set_shape(node.get(), {tensor.shape, static_cast<std::size_t>(tensor.ndim)});
    return node;
}

Node* copy_from_host(const dlpack::Tensor& tensor, Dtype dtype) {
    Extent extent = extent_of(tensor);
    NodeRef node = new_leaf(tensor, dtype, Device::cpu);
    node->buffer = host_buffer(Owned(empty_ndarray(node.get())).object);
    if (!extent.empty) {
        auto* target = static_cast<std::byte*>(host_address(node->buffer));
        copy_strided(target, extent.first, tensor, extent, size_of(dtype), 0);
    }
    return node.release();
}

template <class Capsule>
NodeRef shared_from_device(Taken<Capsule>& taken, Dtype dtype) {
    const dlpack::Tensor& tensor = taken.tensor();
    const BackendApi& api = gpu();
    if (tensor.device_id != api.device_id())
        throw std::invalid_argument("[from_dlpack] The tensor is on GPU " + std::to_string(tensor.device_id) +
                                    ", arrays are on GPU " + std::to_string(api.device_id()) +
                                    ": copy it there, or set CUDA_VISIBLE_DEVICES.");
    Extent extent = extent_of(tensor);
    auto itemsize = static_cast<std::int64_t>(size_of(dtype));
    if (!extent.empty && reinterpret_cast<std::uintptr_t>(extent.first) % size_of(dtype))
        throw std::invalid_argument("[from_dlpack] The tensor's memory is not aligned to its elements: copy it first.");
    NodeRef node = new_leaf(tensor, dtype, Device::gpu);
    std::byte* lowest = extent.empty ? nullptr : extent.first + extent.lowest * itemsize;
    auto nbytes = static_cast<std::size_t>((extent.highest - extent.lowest + 1) * itemsize);
    set_strides(node.get(), extent.strides);
    node->offset = -extent.lowest * itemsize;
    Capsule* owner = taken.release();
    node->buffer = api.adopt(lowest, nbytes, owner, Taken<Capsule>::give_back);
    if (!node->buffer) {
        Taken<Capsule>::give_back(owner);
        throw PythonError{};
    }
    return node;
}

template <class Capsule>
Node* array_of(PyObject* capsule, bool share) {
    Taken<Capsule> taken(capsule);
    const dlpack::Tensor& tensor = taken.tensor();
    Dtype dtype = dtype_of(tensor.dtype);
    switch (tensor.device_type) {
        case dlpack::kCpu:
        case dlpack::kCudaHost:
            if (share) throw std::invalid_argument("[from_dlpack] Memory of the host is always copied.");
            return copy_from_host(tensor, dtype);
        case dlpack::kCuda:
        case dlpack::kCudaManaged: {
            NodeRef shared = shared_from_device(taken, dtype);
            if (share) return shared.release();
            NodeRef copy(record_copy(shared.get(), Device::gpu));
            Node* roots[] = {copy.get()};
            evaluate(roots, true);  // its owner may write it as soon as we return
            return copy.release();
        }
        default:
            throw std::invalid_argument("[from_dlpack] Tensors of DLPack's device type " +
                                        std::to_string(tensor.device_type) +
                                        " cannot be taken: copy it to the CPU or a CUDA device first.");
    }
}

}  // namespace

std::pair<int, int> dlpack_device(const Node* node) {
    Device device = node->role == Role::leaf ? node->buffer->device : node->device;
    if (device == Device::cpu && default_device() == Device::cpu) return {dlpack::kCpu, 0};
    return {dlpack::kCuda, gpu().device_id()};
}

PyObject* to_dlpack(Node* node, const DlpackRequest& request) {
    if (node->role == Role::scalar) materialize_scalar(node);
    Node* roots[] = {node};
    evaluate(roots, false);
    NodeRef source = NodeRef::share(node);
    bool is_own = false;  // nobody else has the memory
    if (request.on_host && node->buffer->device == Device::gpu) {
        Owned values(to_ndarray(node));
        source = NodeRef(leaf_from_ndarray(values.object, node->dtype, node->dims()));
        is_own = true;
    } else if (!request.on_host) {
        move_to(node, Device::gpu);
    }
    if (request.copy && !is_own) {
        source = NodeRef(record_copy(node, node->buffer->device));
        roots[0] = source.get();
        evaluate(roots, false);
        is_own = true;
    }
    if (!request.on_host && request.stream && gpu().lend(*request.stream)) throw PythonError{};
    std::uintptr_t stream = request.on_host ? 0 : request.stream.value_or(0);
    if (!request.versioned) return capsule_of<dlpack::Managed>(source.get(), stream, 0);
    std::uint64_t flags = is_own ? dlpack::kIsCopied : dlpack::kReadOnly;
    return capsule_of<dlpack::ManagedVersioned>(source.get(), stream, flags);
}

std::uintptr_t dlpack_stream() {
    std::uintptr_t stream = 0;
    if (gpu().stream(&stream)) throw PythonError{};
    return stream;
}

Node* from_dlpack(PyObject* capsule, bool share) {
    if (PyCapsule_IsValid(capsule, dlpack::ManagedVersioned::kName)) {
        auto* managed =
            static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(capsule, dlpack::ManagedVersioned::kName));
        if (managed->major > dlpack::kMajor)
            throw std::invalid_argument("[from_dlpack] The tensor is of DLPack " + std::to_string(managed->major) +
                                        ", and " + std::to_string(dlpack::kMajor) + " is the newest that is known.");
        return array_of<dlpack::ManagedVersioned>(capsule, share);
    }
    if (PyCapsule_IsValid(capsule, dlpack::Managed::kName)) return array_of<dlpack::Managed>(capsule, share);
    throw type_error("[from_dlpack] __dlpack__ returned no capsule of a tensor, or one that was used before");
}

}  // namespace mlxlite
