#include "backend_cuda/runtime/driver.h"

#include <dlfcn.h>

#include <cstdlib>

#include "backend_cuda/runtime/stream.h"

namespace mlxlite::cuda {

Counters counters;
Driver driver;

namespace {

bool ready = false;
CUcontext context = nullptr;
DeviceInfo info;

#define MLXLITE_TEXT_OF(name) #name
#define MLXLITE_SYMBOL(name) MLXLITE_TEXT_OF(name)

void open_library() {
    const char* chosen = std::getenv("MLXLITE_CUDA_DRIVER");
    const char* path = chosen && *chosen ? chosen : "libcuda.so.1";
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char* reason = dlerror();
        throw std::runtime_error(std::string("no CUDA driver: ") + (reason ? reason : path) +
                                 "; install an NVIDIA driver (580 or newer), or use mx.cpu");
    }
    std::string missing;
#define MLXLITE_LOAD(function) \
    driver.function.address =  \
        reinterpret_cast<decltype(driver.function.address)>(dlsym(library, MLXLITE_SYMBOL(function)));
    MLXLITE_OPTIONAL_DRIVER_FUNCTIONS(MLXLITE_LOAD)
#define MLXLITE_REQUIRE(function) \
    MLXLITE_LOAD(function)        \
    if (!driver.function) missing += " " MLXLITE_SYMBOL(function);
    MLXLITE_DRIVER_FUNCTIONS(MLXLITE_REQUIRE)
    if (!missing.empty()) throw std::runtime_error(std::string(path) + " is too old; it lacks" + missing);
}

int attribute(CUdevice device, CUdevice_attribute which) {
    int value = 0;
    driver.cuDeviceGetAttribute(&value, which, device);
    return value;
}

void read_device_info(CUdevice device) {
    char name[256] = {0};
    driver.cuDeviceGetName(name, sizeof name - 1, device);
    info.name = name;
    info.major = attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    info.minor = attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    info.multiprocessors = attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    info.l2_bytes = attribute(device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
    info.max_shared_per_block = attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    info.max_threads_per_multiprocessor = attribute(device, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
    double kilohertz = attribute(device, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
    double bits = attribute(device, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
    info.memory_bandwidth = 2 * kilohertz * 1e3 * bits / 8;  // two transfers a clock
    std::size_t total = 0;
    driver.cuDeviceTotalMem(&total, device);
    info.total_memory = static_cast<std::int64_t>(total);
    driver.cuDriverGetVersion(&info.driver_version);
}

}  // namespace

std::string describe(CUresult code) {
    const char* name = nullptr;
    const char* text = nullptr;
    if (driver.cuGetErrorName) driver.cuGetErrorName.address(code, &name);
    if (driver.cuGetErrorString) driver.cuGetErrorString.address(code, &text);
    std::string result = name ? name : "CUDA error " + std::to_string(static_cast<int>(code));
    return text ? result + " (" + text + ")" : result;
}

void fail(CUresult code, const char* function) { throw Error(code, std::string(function) + ": " + describe(code)); }

void initialize() {
    if (ready) return;
    if (!driver.cuInit) open_library();
    driver.cuInit(0);
    int count = 0;
    driver.cuDeviceGetCount(&count);
    if (count == 0) throw std::runtime_error("the CUDA driver sees no device; check CUDA_VISIBLE_DEVICES");
    CUdevice device = 0;
    driver.cuDeviceGet(&device, kDevice);
    read_device_info(device);
    driver.cuDevicePrimaryCtxRetain(&context, device);
    driver.cuCtxSetCurrent(context);
    create_streams(driver.cuStreamWriteValue64 && attribute(device, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS));
    ready = true;
}

bool initialized() { return ready; }

void require_initialized() {
    if (!ready)
        throw std::runtime_error("the CUDA runtime is not initialized: call backend_cuda._runtime.initialize()");
}

void make_current() {
    thread_local bool current = false;
    require_initialized();
    if (current) return;
    driver.cuCtxSetCurrent(context);
    current = true;
}

const DeviceInfo& device_info() {
    require_initialized();
    return info;
}

}  // namespace mlxlite::cuda
