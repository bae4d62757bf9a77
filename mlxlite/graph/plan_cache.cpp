#include "mlxlite/graph/plan_cache.h"

#include <algorithm>
#include <cmath>

namespace mlxlite {

double SizeRange::distance(std::span<const std::int64_t> sizes) const {
    std::int64_t total = 0;
    for (const Term& term : terms) {
        std::int64_t product = term.factor;
        for (std::size_t slot : term.slots) product *= sizes[slot];
        total += product;
    }
    if (least <= total && total <= most) return 0;
    auto bound = total < least ? least : most;
    return std::abs(std::log2(std::max(total, std::int64_t{1})) - std::log2(std::max(bound, std::int64_t{1}))) + 1e-9;
}

double PlanEntry::distance(std::span<const std::int64_t> sizes) const {
    double sum = 0;
    for (const SizeRange& range : ranges) sum += range.distance(sizes);
    return sum;
}

const PlanCache::Entries::iterator* PlanCache::found(std::string_view key, std::span<const std::int64_t> sizes) const {
    auto [first, last] = index_.equal_range(key);
    std::size_t count = 0;
    const Entries::iterator* nearest = nullptr;
    double least = 0;
    for (auto it = first; it != last; ++it, ++count) {
        double distance = it->second->distance(sizes);
        if (distance == 0) return &it->second;
        if (!nearest || distance < least) nearest = &it->second, least = distance;
    }
    return count < kMostOfAKey ? nullptr : nearest;
}

PlanEntry* PlanCache::find(std::string_view key, std::span<const std::int64_t> sizes) {
    // Most programs evaluate the same again: comparing keys takes a third of what hashing one does.
    if (!entries_.empty() && entries_.front().key == key && entries_.front().distance(sizes) == 0) {
        ++counters.hits;
        return &entries_.front();
    }
    const Entries::iterator* entry = found(key, sizes);
    if (!entry) {
        ++counters.misses;
        return nullptr;
    }
    ++counters.hits;
    entries_.splice(entries_.begin(), entries_, *entry);
    return &entries_.front();
}

bool PlanCache::contains(std::string_view key, std::span<const std::int64_t> sizes) const {
    return found(key, sizes) != nullptr;
}

PlanEntry* PlanCache::insert(std::string key, PyObject* plan, std::vector<SizeRange> ranges) {
    evict_to(capacity_ - 1);
    entries_.push_front({std::move(key), Py_NewRef(plan), std::move(ranges), {}, nullptr});
    index_.emplace(entries_.front().key, entries_.begin());
    ++counters.builds;
    return &entries_.front();
}

void PlanCache::evict_to(std::size_t bound) {
    while (index_.size() > bound) {
        auto last = std::prev(entries_.end());
        auto [it, end] = index_.equal_range(last->key);
        while (it != end && it->second != last) ++it;
        index_.erase(it);
        Py_XDECREF(last->last_sizes_list);
        Py_XDECREF(last->plan);
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
