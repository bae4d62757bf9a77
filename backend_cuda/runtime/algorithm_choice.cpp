#include "backend_cuda/runtime/algorithm_choice.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "backend_cuda/runtime/algorithm_file.h"
#include "backend_cuda/runtime/memory.h"
#include "backend_cuda/runtime/stream.h"

namespace mlxlite::cuda {

ChoiceCounters choice_counters;

namespace {

using Seconds = std::chrono::duration<double>;

constexpr double kLeastOperations = 2e8;
constexpr int kCandidates = 16;
constexpr double kAdvantage = 1.03;      // of what replaces the heuristic's first
constexpr double kNewSizesShare = 0.25;  // of the process's budget, for plans that were launched before
constexpr Seconds kWarmUp{0.06};         // of the host, to load a key's kernels: candidates after that are left out
constexpr double kLongest = 1e-3;        // of one product
constexpr double kTimed = 3e-4;          // a shorter one is launched several times for each time taken
constexpr int kMostLaunches = 24;
constexpr double kHostSeconds = 6e-6;    // to enqueue one, and its part of two events
constexpr double kFillBandwidth = 3e12;  // at most, in bytes a second
constexpr std::size_t kLeastWorkspace = std::size_t{32} << 20;
constexpr std::size_t kFinalists = 4;         // beside the heuristic's first
constexpr std::size_t kPattern = 256 * 3907;  // bytes, repeated over an operand: rows of 2^n elements differ

// Of the process.
Seconds budget() {
    static const Seconds seconds{[] {
        const char* value = std::getenv("MLXLITE_MATMUL_TUNING");
        return !value || !*value ? 2.0 : std::atof(value);
    }()};
    return seconds;
}

bool is_tuned(const MatmulKey& key) {
    bool is_complex = static_cast<MatmulDtype>(key.dtype) == MatmulDtype::complex64;
    double operations = 2.0 * static_cast<double>(key.m) * static_cast<double>(key.n) * static_cast<double>(key.k) *
                        static_cast<double>(key.batch) * (is_complex ? 4 : 1);
    return budget().count() > 0 && operations >= kLeastOperations;
}

// ---- operands to measure on

std::size_t matrix_bytes(const MatmulKey& key, std::int64_t rows, std::int64_t columns, std::int64_t ld,
                         std::int64_t batch_stride) {
    std::int64_t elements = (rows - 1) * std::max(ld, columns) + columns + (key.batch - 1) * batch_stride;
    return static_cast<std::size_t>(elements) * itemsize_of(static_cast<MatmulDtype>(key.dtype));
}

// Numbers of either sign from 1/16 to 1, with random digits: products of zeros take less power, and so less time.
std::vector<std::uint64_t> pattern(MatmulDtype dtype) {
    struct Format {
        int bits, digits;
        std::uint64_t exponent;  // of numbers from 1/2 to 1
    } format{};
    switch (dtype) {
        case MatmulDtype::float16:
            format = {16, 10, 14};
            break;
        case MatmulDtype::bfloat16:
            format = {16, 7, 126};
            break;
        case MatmulDtype::float32:
        case MatmulDtype::complex64:
            format = {32, 23, 126};
            break;
        case MatmulDtype::float64:
            format = {64, 52, 1022};
            break;
    }
    std::uint64_t state = 0x9e3779b97f4a7c15;
    auto random = [&] {  // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        return state ^= state << 17;
    };
    std::vector<std::uint64_t> words(kPattern / 8);
    for (auto& word : words)
        for (int shift = 0; shift < 64; shift += format.bits) {
            std::uint64_t r = random(), sign = r >> 63, smaller = r >> 61 & 3;
            std::uint64_t digits = r & ((std::uint64_t{1} << format.digits) - 1);
            word |= (sign << (format.bits - 1) | (format.exponent - smaller) << format.digits | digits) << shift;
        }
    return words;
}

// Operands and workspace. Memory of the driver's and not of the pool, whose peak and cache are about the user's arrays.
class Operands {
  public:
    CUdeviceptr a = 0, b = 0, c = 0, d = 0, workspace = 0;

    explicit Operands(const MatmulKey& key) {
        auto size = [&](std::int64_t rows, std::int64_t columns, std::int64_t ld, std::int64_t stride) {
            return (matrix_bytes(key, rows, columns, ld, stride) + 255) / 256 * 256;
        };
        std::size_t na = key.trans_a ? size(key.k, key.m, key.lda, key.batch_stride_a)
                                     : size(key.m, key.k, key.lda, key.batch_stride_a);
        std::size_t nb = key.trans_b ? size(key.n, key.k, key.ldb, key.batch_stride_b)
                                     : size(key.k, key.n, key.ldb, key.batch_stride_b);
        std::size_t nd = size(key.m, key.n, key.ldd, key.batch_stride_d);
        std::size_t nc = key.has_c && !key.c_is_d ? size(key.m, key.n, key.ldc, key.batch_stride_c) : 0;
        workspace_bytes_ = std::max(static_cast<std::size_t>(key.max_workspace), kLeastWorkspace);
        std::size_t total = na + nb + nc + nd + workspace_bytes_;
        MemoryInfo info = memory_info();
        if (info.active + info.cache + total > info.limit) return;
        if (driver.cuMemAlloc.raw(&memory_, total) != CUDA_SUCCESS) {
            memory_ = 0;
            return;
        }
        ++counters.device_allocations;
        a = memory_;
        b = a + na;
        c = b + nb;
        d = c + nc;
        if (nc == 0) c = d;
        workspace = d + nd;
        fill(static_cast<MatmulDtype>(key.dtype), total - workspace_bytes_);
    }
    ~Operands() {
        if (!memory_) return;
        driver.cuMemFree.raw(memory_);
        ++counters.device_frees;
    }
    Operands(const Operands&) = delete;
    Operands& operator=(const Operands&) = delete;
    explicit operator bool() const { return memory_ != 0; }

    // Keeps the device busy while the host enqueues so many launches, so that no time is one of waiting for the host.
    void delay(std::size_t launches) const {
        if (!driver.cuMemsetD8Async) return;
        double fills =
            static_cast<double>(launches) * kHostSeconds * kFillBandwidth / static_cast<double>(workspace_bytes_);
        for (int i = 0; i <= std::min(static_cast<int>(fills), 64); ++i)
            driver.cuMemsetD8Async(workspace, 0, workspace_bytes_, compute_stream());
    }

  private:
    void fill(MatmulDtype dtype, std::size_t total) {
        auto words = pattern(dtype);
        std::size_t done = std::min(total, kPattern);
        copy_to_device(memory_, words.data(), done);
        while (done < total) {
            std::size_t n = std::min(done, total - done);
            driver.cuMemcpyDtoDAsync(memory_ + done, memory_, n, compute_stream());
            done += n;
        }
    }
    CUdeviceptr memory_ = 0;
    std::size_t workspace_bytes_ = 0;
};

// ---- measuring

struct Candidate {
    Algorithm algorithm;
    CUevent start = nullptr, end = nullptr;
    double seconds = std::numeric_limits<double>::infinity();
};

class Contest {
  public:
    Contest(const MatmulKey& key, const lt::Problem& problem, const Operands& operands)
        : key_(key), problem_(problem), operands_(operands) {
        if (static_cast<MatmulDtype>(key.dtype) == MatmulDtype::float64) {
            double one = 1;
            std::memcpy(one_, &one, sizeof one);
        } else {
            float one = 1;
            std::memcpy(one_, &one, sizeof one);
        }
    }

    // The fastest of the candidates that can be launched, or nothing if none can.
    std::optional<Algorithm> winner(std::span<const Algorithm> candidates) {
        warm_up(candidates);
        if (live_.empty()) return std::nullopt;
        if (live_.size() == 1) return live_.front().algorithm;
        int launches = std::clamp(static_cast<int>(kTimed / live_.front().seconds + 0.5), 1, kMostLaunches);
        for (Candidate& candidate : live_) candidate.seconds = std::numeric_limits<double>::infinity();
        take_times(launches);
        auto rest = live_.begin() + 1;
        std::sort(rest, live_.end(), [](auto& x, auto& y) { return x.seconds < y.seconds; });
        if (live_.size() > kFinalists + 1) live_.resize(kFinalists + 1);
        for (int round = 0; round < 2; ++round) take_times(launches);
        const Candidate& best =
            *std::min_element(live_.begin(), live_.end(), [](auto& x, auto& y) { return x.seconds < y.seconds; });
        const Candidate& first = live_.front();
        return (best.seconds * kAdvantage < first.seconds ? best : first).algorithm;
    }

  private:
    int launch(const Algorithm& algorithm) {
        auto pointer = [](CUdeviceptr address) { return reinterpret_cast<void*>(address); };
        const void* beta = key_.has_c ? one_ : zero_;
        return lt::functions().cublasLtMatmul(
            lt::handle(), problem_.desc, one_, pointer(operands_.b), problem_.a, pointer(operands_.a), problem_.b, beta,
            pointer(operands_.c), problem_.c, pointer(operands_.d), problem_.d, &algorithm.algo,
            pointer(algorithm.workspace ? operands_.workspace : 0), algorithm.workspace, compute_stream());
    }

    // Loads kernels; tells how long the first takes, once it is loaded: if that is too long, the others are left out,
    // and so is what cannot be launched.
    void warm_up(std::span<const Algorithm> candidates) {
        auto begun = std::chrono::steady_clock::now();
        for (const Algorithm& algorithm : candidates) {
            if (live_.size() > 1 && std::chrono::steady_clock::now() - begun > kWarmUp) break;
            if (launch(algorithm) != 0) continue;
            live_.push_back({algorithm, event(2 * live_.size()), event(2 * live_.size() + 1)});
            if (live_.size() == 1) take_times(1);
            driver.cuStreamSynchronize(compute_stream());
            if (live_.front().seconds > kLongest) break;
        }
    }

    void take_times(int launches) {
        operands_.delay(live_.size() * static_cast<std::size_t>(launches));
        for (Candidate& candidate : live_) {
            driver.cuEventRecord(candidate.start, compute_stream());
            for (int i = 0; i < launches; ++i) lt::check(launch(candidate.algorithm), "cublasLtMatmul");
            driver.cuEventRecord(candidate.end, compute_stream());
        }
        driver.cuStreamSynchronize(compute_stream());
        for (Candidate& candidate : live_) {
            float milliseconds = 0;
            driver.cuEventElapsedTime(&milliseconds, candidate.start, candidate.end);
            candidate.seconds = std::min(candidate.seconds, 1e-3 * static_cast<double>(milliseconds) / launches);
        }
    }

    static CUevent event(std::size_t index) {
        static CUevent events[2 * kCandidates] = {};
        if (!events[index]) driver.cuEventCreate(&events[index], CU_EVENT_DEFAULT);
        return events[index];
    }

    const MatmulKey& key_;
    const lt::Problem& problem_;
    const Operands& operands_;
    alignas(8) unsigned char one_[8] = {}, zero_[8] = {};  // of the scale type, which may be complex
    std::vector<Candidate> live_;                          // the heuristic's first, then the others
};

std::optional<Algorithm> measured(const MatmulKey& key, const lt::Problem& problem,
                                  std::span<const Algorithm> candidates, bool new_sizes) {
    static Seconds spent{0}, spent_on_new_sizes{0};
    if (spent >= budget() || (new_sizes && spent_on_new_sizes >= kNewSizesShare * budget())) return std::nullopt;
    wait_holding_gil(ticket_now());  // a library node's launch is half bound: no other thread may come between
    auto begun = std::chrono::steady_clock::now();
    std::optional<Algorithm> chosen;
    if (Operands operands(key); operands) chosen = Contest(key, problem, operands).winner(candidates);
    Seconds took = std::chrono::steady_clock::now() - begun;
    spent += took;
    if (new_sizes) spent_on_new_sizes += took;
    choice_counters.microseconds += static_cast<std::uint64_t>(1e6 * took.count());
    return chosen;
}

std::optional<Algorithm> from_disk(const MatmulKey& key, const lt::Problem& problem) {
    auto algo = stored_algorithm(key);
    if (!algo) return std::nullopt;
    lt::Heuristic checked{};
    int status = lt::functions().cublasLtMatmulAlgoCheck(lt::handle(), problem.desc, problem.a, problem.b, problem.c,
                                                         problem.d, &*algo, &checked);
    if (status != 0 || checked.workspace > static_cast<std::size_t>(key.max_workspace)) return std::nullopt;
    return Algorithm{*algo, checked.workspace};
}

}  // namespace

Algorithm choose_algorithm(const MatmulKey& key, const lt::Problem& problem, lt::Preference preference,
                           bool new_sizes) {
    auto& call = lt::functions();
    bool tuned = is_tuned(key);
    if (tuned) {
        if (auto found = from_disk(key, problem)) {
            ++choice_counters.from_disk;
            return *found;
        }
        // A sum whose parts were rounded to 16 bits before they are added would be fast, and less exact.
        std::uint32_t reductions = lt::kInComputeType;
        lt::check(
            call.cublasLtMatmulPreferenceSetAttribute(preference, lt::kReductions, &reductions, sizeof reductions),
            "cublasLtMatmulPreferenceSetAttribute");
    }
    lt::Heuristic found[kCandidates] = {};
    int n = 0;
    lt::check(call.cublasLtMatmulAlgoGetHeuristic(lt::handle(), problem.desc, problem.a, problem.b, problem.c,
                                                  problem.d, preference, tuned ? kCandidates : 1, found, &n),
              "cublasLtMatmulAlgoGetHeuristic");
    std::vector<Algorithm> candidates;
    for (int i = 0; i < n; ++i)
        if (found[i].status == 0) candidates.push_back({found[i].algo, found[i].workspace});
    if (candidates.empty()) throw Error(CUDA_ERROR_NOT_SUPPORTED, "cuBLASLt has no algorithm for this product");
    if (!tuned || candidates.size() == 1) return candidates.front();
    auto chosen = measured(key, problem, candidates, new_sizes);
    if (!chosen) {
        ++choice_counters.unmeasured;
        return candidates.front();
    }
    ++choice_counters.measured;
    store_algorithm(key, chosen->algo);
    return *chosen;
}

}  // namespace mlxlite::cuda
