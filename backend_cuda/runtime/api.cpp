#include "backend_cuda/runtime/api.h"

#include "backend_cuda/runtime/errors.h"
#include "backend_cuda/runtime/memory.h"
#include "backend_cuda/runtime/plan.h"
#include "backend_cuda/runtime/stream.h"

namespace mlxlite::cuda {

Plan* (*plan_of)(PyObject*) = nullptr;

namespace {

int launch(PyObject* object, LaunchRequest* request) {
    return failed([&] {
        Plan* plan = plan_of(object);
        if (!plan) {
            PyErr_Format(PyExc_TypeError, "the CUDA backend launches Plan objects, not %s", Py_TYPE(object)->tp_name);
            throw PythonError{};
        }
        plan->launch(*request);
    })
               ? -1
               : 0;
}

Buffer* upload(const void* source, std::size_t nbytes) {
    BufferRef buffer;
    bool broke = failed([&] {
        make_current();
        buffer = BufferRef(allocate(nbytes));
        if (nbytes) copy_to_device(buffer.address(), source, nbytes);
    });
    return broke ? nullptr : buffer.release();
}

int download(void* target, const Buffer* source, std::size_t offset, std::size_t nbytes, std::uint64_t ticket) {
    return failed([&] {
        make_current();
        if (offset > source->nbytes || nbytes > source->nbytes - offset)
            throw std::out_of_range("download: past the end of the buffer");
        if (nbytes == 0) return;
        // Waiting drops the GIL: another thread may let go of the array meanwhile.
        auto* shared = const_cast<Buffer*>(source);
        retain(shared);
        BufferRef keep(shared);
        copy_to_host(target, keep.address() + offset, nbytes, ticket);
    })
               ? -1
               : 0;
}

int wait(std::uint64_t ticket) {
    return failed([&] {
        make_current();
        wait_for(ticket);
    })
               ? -1
               : 0;
}

int synchronize_device() {
    return failed([] {
        make_current();
        synchronize();
    })
               ? -1
               : 0;
}

int device_id() { return kDevice; }

int stream(std::uintptr_t* stream) {
    return failed([&] {
        make_current();
        *stream = reinterpret_cast<std::uintptr_t>(compute_stream());
    })
               ? -1
               : 0;
}

int lend(std::uintptr_t stream) {
    return failed([&] {
        make_current();
        lend_to(reinterpret_cast<CUstream>(stream));
    })
               ? -1
               : 0;
}

void take_back(std::uintptr_t stream) {
    try {
        make_current();
        take_back_from(reinterpret_cast<CUstream>(stream));
    } catch (const std::exception&) {  // a device that fails: whatever is done next says so
    }
}

Buffer* adopt_memory(void* ptr, std::size_t nbytes, void* owner, void (*give_back)(void*)) {
    Buffer* buffer = nullptr;
    bool broke = failed([&] {
        make_current();
        buffer = adopt(ptr, nbytes, owner, give_back);
    });
    return broke ? nullptr : buffer;
}

constexpr BackendApi kApi{kBackendAbi, launch, upload, download,  wait,        synchronize_device,
                          device_id,   stream, lend,   take_back, adopt_memory};

}  // namespace

const BackendApi* backend_api() { return &kApi; }

}  // namespace mlxlite::cuda
