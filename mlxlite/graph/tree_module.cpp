// The Python face of trees. It only translates.
#include "mlxlite/graph/bindings.h"
#include "mlxlite/graph/trees.h"

namespace mlxlite {

using namespace nb::literals;

void bind_trees(nb::module_& m) {
    m.def(
        "tree_leaves",
        [](nb::handle tree) { return translated([&] { return nb::steal<nb::list>(tree_leaves(tree.ptr(), false)); }); },
        "tree"_a.none());
    m.def(
        "tree_arrays",
        [](nb::handle tree) { return translated([&] { return nb::steal<nb::list>(tree_leaves(tree.ptr(), true)); }); },
        "tree"_a.none());
    m.def(
        "tree_replace",
        [](nb::handle tree, nb::list values, bool only_arrays) {
            return translated([&] { return nb::steal(tree_replaced(tree.ptr(), values.ptr(), only_arrays)); });
        },
        "tree"_a.none(), "values"_a, "only_arrays"_a);
    m.def(
        "tree_map",
        [](nb::handle function, nb::handle tree, nb::tuple rest, nb::handle is_leaf) {
            return translated(
                [&] { return nb::steal(tree_mapped(function.ptr(), tree.ptr(), rest.ptr(), is_leaf.ptr())); });
        },
        "function"_a, "tree"_a.none(), "rest"_a, "is_leaf"_a.none());
    m.def(
        "tree_fill", [](nb::handle tree, nb::list values) { translated([&] { tree_fill(tree.ptr(), values.ptr()); }); },
        "tree"_a.none(), "values"_a);
    m.def(
        "tree_key",
        [](nb::handle tree, nb::handle leaf) {
            return translated([&] { return nb::steal<nb::tuple>(tree_key(tree.ptr(), leaf.ptr())); });
        },
        "tree"_a.none(), "leaf"_a);
    m.def(
        "put_arrays",
        [](nb::handle module, nb::handle values, nb::handle type) {
            return translated([&] { return put_arrays(module.ptr(), values.ptr(), type.ptr()); });
        },
        "module"_a, "values"_a.none(), "type"_a);
    m.def(
        "arrays_of_module",
        [](nb::handle module, bool trainable, nb::handle type) {
            return translated(
                [&] { return nb::steal<nb::dict>(arrays_of_module(module.ptr(), trainable, type.ptr())); });
        },
        "module"_a, "trainable"_a, "type"_a);
}

}  // namespace mlxlite
