#include "backend_cuda/runtime/plan_parse.h"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <string_view>

#include "backend_cuda/runtime/errors.h"

namespace nb = nanobind;

namespace mlxlite::cuda {

namespace {

constexpr std::size_t kMaxParameterBytes = 4096;  // CUDA programming guide: 4 KB before CUDA 12.1, more since

class Parser {
  public:
    explicit Parser(PlanSpec& spec) : spec_(spec) {}

    void program(nb::handle steps) {
        static constexpr std::pair<std::string_view, SizeOp> kOps[] = {
            {"const", SizeOp::constant}, {"add", SizeOp::add},   {"sub", SizeOp::sub},
            {"mul", SizeOp::mul},        {"cdiv", SizeOp::cdiv}, {"div", SizeOp::div},
            {"mod", SizeOp::mod},        {"max", SizeOp::max},   {"min", SizeOp::min}};
        for (nb::handle step : steps) {
            auto name = nb::cast<std::string>(step[0]);
            const auto* found =
                std::find_if(std::begin(kOps), std::end(kOps), [&](auto& op) { return op.first == name; });
            if (found == std::end(kOps)) throw std::invalid_argument("Plan: no size operation is called " + name);
            SizeStep parsed{found->second, nb::cast<std::int64_t>(step[1]), nb::cast<std::int64_t>(step[2])};
            if (parsed.op != SizeOp::constant) {
                check(parsed.a, spec_.n_registers(), "register");
                check(parsed.b, spec_.n_registers(), "register");
            }
            spec_.program.push_back(parsed);
        }
    }

    void buffers(nb::handle list) {
        using Kind = BufferSpec::Kind;
        for (nb::handle entry : list) {
            auto name = nb::cast<std::string>(entry[0]);
            if (name == "leaf") {
                spec_.buffers.push_back({Kind::leaf, nb::cast<std::uint32_t>(entry[1])});
            } else if (name == "arena") {
                spec_.buffers.push_back({Kind::arena, reg(entry[1])});
                if (nb::len(entry) > 2) spec_.buffers.back().output = nb::cast<std::uint32_t>(entry[2]);
            } else if (name == "output") {
                spec_.buffers.push_back({Kind::output, reg(entry[1])});
            } else if (name == "kept") {
                spec_.buffers.push_back({Kind::kept, reg(entry[1])});
            } else {
                throw std::invalid_argument("Plan: no kind of buffer is called " + name);
            }
        }
        for (const BufferSpec& buffer : spec_.buffers) {
            if (buffer.output == kNone) continue;
            check(buffer.output, spec_.buffers.size(), "buffer");
            if (spec_.buffers[buffer.output].kind != Kind::output)
                throw std::invalid_argument("Plan: a slot of the arena lies in an output or nowhere else");
        }
    }

    void nodes(nb::handle list) {
        for (nb::handle entry : list) {
            auto name = nb::cast<std::string>(entry[0]);
            PlanNode node;
            if (name == "kernel") {
                expect_length(entry, 8, "kernel");
                node.label = nb::cast<std::string>(entry[7]);
                node.work = kernel(entry);
            } else if (name == "matmul") {
                expect_length(entry, 3, "matmul");
                node.label = nb::cast<std::string>(entry[2]);
                node.work = matmul(nb::borrow<nb::dict>(entry[1]));
            } else if (name == "library") {
                expect_length(entry, 6, "library");
                node.label = nb::cast<std::string>(entry[5]);
                node.work = library(entry);
            } else {
                throw std::invalid_argument("Plan: no kind of node is called " + name);
            }
            spec_.nodes.push_back(std::move(node));
        }
    }

    void edges(nb::handle list) {
        for (nb::handle edge : list) {
            auto before = index(edge[0], spec_.nodes.size(), "node");
            auto after = index(edge[1], spec_.nodes.size(), "node");
            if (before == after) throw std::invalid_argument("Plan: an edge from a node to itself");
            spec_.nodes[after].before.push_back(before);
        }
    }

    void outputs(nb::handle list) {
        for (nb::handle entry : list) {
            OutputSpec output;
            output.place = {index(entry[0], spec_.buffers.size(), "buffer"), reg(entry[1])};
            BufferSpec::Kind kind = spec_.buffers[output.place.buffer].kind;
            if (kind == BufferSpec::Kind::arena || kind == BufferSpec::Kind::kept)
                throw std::invalid_argument(
                    "Plan: an output in the arena or in kept memory would be overwritten by the next launch");
            for (nb::handle stride : entry[2]) output.strides.push_back(reg(stride));
            if (output.strides.size() > kMaxRank) throw std::invalid_argument("Plan: an output of more than 12 dims");
            spec_.outputs.push_back(std::move(output));
        }
    }

  private:
    static void check(std::int64_t value, std::size_t bound, const char* what) {
        if (value < 0 || static_cast<std::size_t>(value) >= bound)
            throw std::out_of_range("Plan: there is no " + std::string(what) + " " + std::to_string(value));
    }
    static std::uint32_t index(nb::handle object, std::size_t bound, const char* what) {
        auto value = nb::cast<std::int64_t>(object);
        check(value, bound, what);
        return static_cast<std::uint32_t>(value);
    }
    std::uint32_t reg(nb::handle object) const { return index(object, spec_.n_registers(), "register"); }
    std::uint32_t slot(nb::handle object) const { return index(object, spec_.n_scalars, "scalar slot"); }
    Place place(nb::handle pair) const { return {index(pair[0], spec_.buffers.size(), "buffer"), reg(pair[1])}; }

    static void expect_length(nb::handle entry, std::size_t length, const char* kind) {
        if (nb::len(entry) != length)
            throw std::invalid_argument("Plan: a " + std::string(kind) + " node has " + std::to_string(length) +
                                        " entries, not " + std::to_string(nb::len(entry)));
    }

    KernelArgument argument(nb::handle entry) const {
        using Kind = KernelArgument::Kind;
        auto name = nb::cast<std::string>(entry[0]);
        if (name == "ptr") {
            Place where{index(entry[1], spec_.buffers.size(), "buffer"), reg(entry[2])};
            return {Kind::pointer, where.buffer, where.offset};
        }
        if (name == "i64") return {Kind::i64, reg(entry[1]), 0};
        if (name == "i32") return {Kind::i32, reg(entry[1]), 0};
        if (name == "f32") return {Kind::f32, slot(entry[1]), 0};
        if (name == "f64") return {Kind::f64, slot(entry[1]), 0};
        if (name == "s64") return {Kind::s64, slot(entry[1]), 0};
        if (name == "c64") return {Kind::c64, slot(entry[1]), 0};
        throw std::invalid_argument("Plan: no kind of kernel argument is called " + name);
    }

    // An argument, or several that are one parameter: consecutive words of the block.
    void parameter(KernelWork& work, nb::handle entry) const {
        work.parameters.push_back(static_cast<std::uint32_t>(work.arguments.size()));
        if (nb::cast<std::string>(entry[0]) != "table") {
            work.arguments.push_back(argument(entry));
            return;
        }
        for (nb::handle word : entry[1]) work.arguments.push_back(argument(word));
        if (work.parameters.back() == work.arguments.size()) throw std::invalid_argument("Plan: a table of no words");
    }

    KernelWork kernel(nb::handle entry) const {
        KernelWork work;
        work.function = nb::cast<std::shared_ptr<Function>>(entry[1]);
        for (std::size_t d = 0; d < 3; ++d) {
            work.grid[d] = reg(entry[2][d]);
            work.block[d] = nb::cast<std::uint32_t>(entry[3][d]);
            if (work.block[d] == 0 || work.block[d] > 1024)
                throw std::invalid_argument("Plan: block dims are 1 to 1024");
        }
        work.shared = reg(entry[4]);
        for (nb::handle item : entry[5]) parameter(work, item);
        if (work.arguments.size() * 8 > kMaxParameterBytes)
            throw std::invalid_argument("Plan: a kernel has " + std::to_string(work.arguments.size() * 8) +
                                        " bytes of parameters, at most " + std::to_string(kMaxParameterBytes) +
                                        " are possible");
        if (!entry[6].is_none()) {
            auto flags = nb::cast<nb::dict>(entry[6]);
            for (auto [key, value] : flags) {
                if (nb::cast<std::string>(key) != "pdl")
                    throw std::invalid_argument("Plan: no kernel flag is called " + nb::cast<std::string>(key));
                work.pdl = nb::cast<bool>(value);
            }
        }
        return work;
    }

    MatmulWork matmul(const nb::dict& spec) const {
        static constexpr std::pair<std::string_view, MatmulDtype> kDtypes[] = {{"float32", MatmulDtype::float32},
                                                                               {"float16", MatmulDtype::float16},
                                                                               {"bfloat16", MatmulDtype::bfloat16},
                                                                               {"float64", MatmulDtype::float64},
                                                                               {"complex64", MatmulDtype::complex64}};
        auto get = [&](const char* name) -> nb::object {
            if (!spec.contains(name)) throw std::invalid_argument(std::string("Plan: a matmul needs ") + name);
            return spec[name];
        };
        auto optional = [&](const char* name) -> nb::object { return spec.contains(name) ? get(name) : nb::none(); };
        for (const char* reserved : {"bias", "epilogue"})
            if (!optional(reserved).is_none())
                throw std::invalid_argument(std::string("Plan: a matmul's ") + reserved +
                                            " is reserved; leave it None");
        MatmulWork work{};
        work.a = place(get("a"));
        work.b = place(get("b"));
        work.d = place(get("d"));
        nb::object c = optional("c");
        work.c = c.is_none() ? Place{kNone, 0} : place(c);
        bool has_c = !c.is_none();
        work.m = reg(get("m"));
        work.n = reg(get("n"));
        work.k = reg(get("k"));
        work.batch = reg(get("batch"));
        work.lda = reg(get("lda"));
        work.ldb = reg(get("ldb"));
        work.ldd = reg(get("ldd"));
        work.ldc = has_c ? reg(get("ldc")) : work.ldd;
        work.batch_stride_a = reg(get("batch_stride_a"));
        work.batch_stride_b = reg(get("batch_stride_b"));
        work.batch_stride_d = reg(get("batch_stride_d"));
        work.batch_stride_c = has_c ? reg(get("batch_stride_c")) : work.batch_stride_d;
        work.trans_a = nb::cast<int>(get("trans_a")) != 0;
        work.trans_b = nb::cast<int>(get("trans_b")) != 0;
        auto factor = [&](const char* name) { return optional(name).is_none() ? kNone : slot(get(name)); };
        work.alpha = factor("alpha");
        work.beta = factor("beta");
        auto name = nb::cast<std::string>(get("dtype"));
        const auto* found =
            std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](auto& dtype) { return dtype.first == name; });
        if (found == std::end(kDtypes))
            throw std::invalid_argument("matmul: " + name +
                                        " is not supported on the GPU; cast to float32 or evaluate on mx.cpu");
        work.dtype = found->second;
        return work;
    }

    LibraryWork library(nb::handle entry) const {
        LibraryWork work{};
        if (!PyCallable_Check(nb::object(entry[1]).ptr()))
            throw nb::type_error("Plan: a library node needs a callable");
        for (nb::handle item : entry[2]) work.places.push_back(place(item));
        for (nb::handle item : entry[3]) work.registers.push_back(reg(item));
        for (nb::handle item : entry[4]) work.slots.push_back(slot(item));
        work.callback = nb::object(entry[1]).ptr();  // borrowed until the whole plan has been parsed
        return work;
    }

    PlanSpec& spec_;
};

}  // namespace

PlanSpec parse_plan(std::size_t n_sizes, std::size_t n_scalars, nb::handle size_program, nb::handle buffers,
                    nb::handle nodes, nb::handle edges, nb::handle outputs, nb::handle promote) {
    PlanSpec spec;
    spec.n_sizes = n_sizes;
    spec.n_scalars = n_scalars;
    Parser parser(spec);
    parser.program(size_program);
    parser.buffers(buffers);
    parser.nodes(nodes);
    parser.edges(edges);
    parser.outputs(outputs);
    lay_out(spec);
    if (!promote.is_none()) {
        if (!PyCallable_Check(promote.ptr())) throw nb::type_error("Plan: promote needs a callable or None");
        spec.promote = promote.inc_ref().ptr();
    }
    for (PlanNode& node : spec.nodes)
        if (auto* library = std::get_if<LibraryWork>(&node.work)) Py_INCREF(library->callback);
    return spec;
}

std::optional<Promotion> ask_for_promotion(PyObject* promote, std::span<const std::uint32_t> nodes,
                                           std::size_t n_words) {
    try {
        auto callback = nb::borrow(promote);
        nb::list indices;
        for (auto node : nodes) indices.append(node);
        nb::object result = callback(indices, n_words);
        if (result.is_none()) return std::nullopt;
        Promotion made;
        for (nb::handle function : result[0]) made.functions.push_back(nb::cast<std::shared_ptr<Function>>(function));
        made.writer = nb::cast<std::shared_ptr<Function>>(result[1][0]);
        made.writer_words = nb::cast<std::size_t>(result[1][1]);
        made.writer_blocks = nb::cast<std::uint32_t>(result[1][2]);
        made.writer_threads = nb::cast<std::uint32_t>(result[1][3]);
        if (made.functions.size() != nodes.size() || made.writer_words == 0)
            throw std::invalid_argument("Plan: promote returned kernels for other nodes than were asked for");
        return made;
    } catch (nb::python_error& error) {
        error.restore();
        throw PythonError{};
    }
}

}  // namespace mlxlite::cuda
