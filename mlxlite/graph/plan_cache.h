// key -> plan, bounded, least recently used first out, with counters anyone can read.
#pragma once
#include <Python.h>

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mlxlite/graph/backend_api.h"

namespace mlxlite {

struct PlanEntry {
    std::string key;
    PyObject* plan = nullptr;
    // The CPU backend is handed the same list object while the sizes stay the same.
    std::vector<std::int64_t> last_sizes;
    PyObject* last_sizes_list = nullptr;
};

struct CacheCounters {
    std::uint64_t hits = 0, misses = 0, builds = 0, evictions = 0;
};

class PlanCache {
  public:
    PlanEntry* find(std::string_view key);  // nullptr on a miss; counts either way
    PlanEntry* insert(std::string key, PyObject* plan);
    bool contains(std::string_view key) const { return index_.contains(key); }  // counts nothing, changes no order
    void clear();
    void set_capacity(std::size_t capacity);
    std::size_t size() const { return index_.size(); }
    std::size_t capacity() const { return capacity_; }
    CacheCounters counters;

  private:
    void evict_to(std::size_t bound);
    std::size_t capacity_ = 1024;
    std::list<PlanEntry> entries_;  // most recent first
    std::unordered_map<std::string_view, std::list<PlanEntry>::iterator> index_;
};

struct Backend {
    PyObject* lower = nullptr;
    const BackendApi* api = nullptr;  // none for the CPU, whose plans are run by plan.run(...)
    PyObject* capsule = nullptr;
    PlanCache plans;
};

}  // namespace mlxlite
