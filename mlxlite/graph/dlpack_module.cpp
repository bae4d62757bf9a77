// The Python face of DLPack. It only translates.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "mlxlite/graph/array_type.h"
#include "mlxlite/graph/bindings.h"
#include "mlxlite/graph/dlpack.h"

namespace mlxlite {

using namespace nb::literals;

void bind_dlpack(nb::module_& m) {
    m.def(
        "dlpack_device",
        [](nb::handle a) {
            if (!is_array(a.ptr())) throw nb::type_error("[dlpack_device] expects an array");
            return translated([&] { return dlpack_device(node_of(a.ptr())); });
        },
        "a"_a);
    m.def(
        "to_dlpack",
        [](nb::handle a, bool on_host, bool versioned, bool copy, std::optional<std::uintptr_t> stream) {
            if (!is_array(a.ptr())) throw nb::type_error("[to_dlpack] expects an array");
            return translated(
                [&] { return nb::steal(to_dlpack(node_of(a.ptr()), {on_host, versioned, copy, stream})); });
        },
        "a"_a, "on_host"_a, "versioned"_a, "copy"_a, "stream"_a.none());
    m.def("dlpack_stream", [] { return translated([] { return dlpack_stream(); }); });
    m.def(
        "from_dlpack",
        [](nb::handle capsule, bool share) {
            return translated([&] { return nb::steal(wrap(from_dlpack(capsule.ptr(), share))); });
        },
        "capsule"_a, "share"_a);
}

}  // namespace mlxlite
