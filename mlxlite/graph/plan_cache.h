// key -> plans, bounded, least recently used first out, with counters anyone can read.
//
// A plan is good for any sizes, and fast for some: a key may have several, for different ranges of sizes.
#pragma once
#include <Python.h>

#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mlxlite/graph/backend_api.h"

namespace mlxlite {

// least <= a polynomial of the tape's sizes <= most.
struct SizeRange {
    struct Term {
        std::int64_t factor;
        std::vector<std::size_t> slots;  // whose sizes are multiplied
    };
    std::int64_t least = 0, most = 0;
    std::vector<Term> terms;
    // How far sizes are from it, by their ratio: 0 inside.
    double distance(std::span<const std::int64_t> sizes) const;
};

struct PlanEntry {
    std::string key;
    PyObject* plan = nullptr;
    std::vector<SizeRange> ranges;  // of the sizes that it is made for
    // The CPU backend is handed the same list object while the sizes stay the same.
    std::vector<std::int64_t> last_sizes;
    PyObject* last_sizes_list = nullptr;

    double distance(std::span<const std::int64_t> sizes) const;  // 0 where it is made for them
};

struct CacheCounters {
    std::uint64_t hits = 0, misses = 0, builds = 0, evictions = 0;
};

class PlanCache {
  public:
    // Plans of one key at most: a program whose sizes go through more ranges takes the nearest of those that there are.
    static constexpr std::size_t kMostOfAKey = 16;

    PlanEntry* find(std::string_view key, std::span<const std::int64_t> sizes);  // nullptr on a miss; counts either way
    PlanEntry* insert(std::string key, PyObject* plan, std::vector<SizeRange> ranges);
    bool contains(std::string_view key, std::span<const std::int64_t> sizes) const;  // counts nothing, changes no order
    void clear();
    void set_capacity(std::size_t capacity);
    std::size_t size() const { return index_.size(); }
    std::size_t capacity() const { return capacity_; }
    CacheCounters counters;

  private:
    using Entries = std::list<PlanEntry>;
    // Where the plan is that these sizes take; nullptr if there is none.
    const Entries::iterator* found(std::string_view key, std::span<const std::int64_t> sizes) const;
    void evict_to(std::size_t bound);
    std::size_t capacity_ = 1024;
    Entries entries_;  // most recent first
    std::unordered_multimap<std::string_view, Entries::iterator> index_;
};

struct Backend {
    PyObject* lower = nullptr;
    const BackendApi* api = nullptr;  // none for the CPU, whose plans are run by plan.run(...)
    PyObject* capsule = nullptr;
    PlanCache plans;
};

}  // namespace mlxlite
