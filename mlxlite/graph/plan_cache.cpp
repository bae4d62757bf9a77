#include "mlxlite/graph/plan_cache.h"

namespace mlxlite {

PlanEntry* PlanCache::find(std::string_view key) {
    auto found = index_.find(key);
    if (found == index_.end()) {
        ++counters.misses;
        return nullptr;
    }
    ++counters.hits;
    entries_.splice(entries_.begin(), entries_, found->second);
    return &entries_.front();
}

PlanEntry* PlanCache::insert(std::string key, PyObject* plan) {
    evict_to(capacity_ - 1);
    entries_.push_front({std::move(key), Py_NewRef(plan), {}, nullptr});
    index_.emplace(entries_.front().key, entries_.begin());
    ++counters.builds;
    return &entries_.front();
}

void PlanCache::evict_to(std::size_t bound) {
    while (index_.size() > bound) {
        PlanEntry& last = entries_.back();
        index_.erase(last.key);
        Py_XDECREF(last.last_sizes_list);
        Py_XDECREF(last.plan);
        entries_.pop_back();
        ++counters.evictions;
    }
}

void PlanCache::clear() {
    auto evictions = counters.evictions;
    evict_to(0);
    counters.evictions = evictions;
}

void PlanCache::set_capacity(std::size_t capacity) {
    capacity_ = capacity ? capacity : 1;
    evict_to(capacity_);
}

}  // namespace mlxlite
