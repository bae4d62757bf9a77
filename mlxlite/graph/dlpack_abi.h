// The structs by which libraries share tensors in memory: DLPack 1.1 (https://dmlc.github.io/dlpack).
#pragma once
#include <cstdint>

namespace mlxlite::dlpack {

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };

enum TypeCode : std::uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kComplex = 5, kBool = 6 };

struct DataType {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};

struct Tensor {
    void* data;
    std::int32_t device_type;
    std::int32_t device_id;
    std::int32_t ndim;
    DataType dtype;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: row-major
    std::uint64_t byte_offset;
};

// In a capsule named "dltensor", which whoever takes it renames.
struct Managed {
    Tensor tensor;
    void* context;
    void (*deleter)(Managed* self);
    static constexpr const char* kName = "dltensor";
    static constexpr const char* kTakenName = "used_dltensor";
};

enum Flags : std::uint64_t { kReadOnly = 1, kIsCopied = 2 };

// In a capsule named "dltensor_versioned".
struct ManagedVersioned {
    std::uint32_t major, minor;
    void* context;
    void (*deleter)(ManagedVersioned* self);
    std::uint64_t flags;
    Tensor tensor;
    static constexpr const char* kName = "dltensor_versioned";
    static constexpr const char* kTakenName = "used_dltensor_versioned";
};

inline constexpr std::uint32_t kMajor = 1, kMinor = 1;

}  // namespace mlxlite::dlpack
