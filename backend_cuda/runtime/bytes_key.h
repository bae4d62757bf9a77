// Keys compared and hashed as bytes, and a bounded cache over them.
//
// A key with padding would compare whatever the stack held before: such a struct does not satisfy the concept and so
// does not compile. Flags are integers of the same width as their neighbours, never `bool` beside `int64_t`.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <list>
#include <string_view>
#include <type_traits>
#include <unordered_map>

namespace mlxlite::cuda {

template <class T>
concept BytesKey = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>;

// Four sums side by side: one multiplication waits for the one before it, four are under way in the same time.
inline std::uint64_t hash_bytes(const void* data, std::size_t nbytes) {
    constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;
    constexpr std::size_t kLanes = 4, kChunk = kLanes * sizeof(std::uint64_t);
    std::uint64_t sums[kLanes] = {1, 2, 3, 4}, words[kLanes];
    auto* bytes = static_cast<const char*>(data);
    std::size_t done = 0;
    for (; done + kChunk <= nbytes; done += kChunk) {
        std::memcpy(words, bytes + done, kChunk);
        for (std::size_t k = 0; k < kLanes; ++k) sums[k] = std::rotl((sums[k] ^ words[k]) * kOdd, 29);
    }
    std::uint64_t hash = std::hash<std::string_view>{}({bytes + done, nbytes - done}) ^ nbytes;
    for (std::uint64_t sum : sums) {
        hash = (hash ^ sum) * kOdd;
        hash ^= hash >> 32;
    }
    return hash;
}
template <BytesKey Key>
std::uint64_t hash_of(const Key& key) {
    return hash_bytes(&key, sizeof key);
}

struct KeyCacheCounters {
    std::uint64_t hits = 0, misses = 0, builds = 0, evictions = 0;
};

// Least recently used first out. Running out of room costs a rebuild, never the process.
template <BytesKey Key, class Value>
class KeyCache {
  public:
    explicit KeyCache(std::size_t capacity) : capacity_(capacity) {}

    // `build()` makes the value on a miss; if it throws nothing is kept. The reference is good until the next call.
    template <class Build>
    Value& get(const Key& key, Build&& build) {
        if (auto found = index_.find(key); found != index_.end()) {
            ++counters.hits;
            entries_.splice(entries_.begin(), entries_, found->second);
            return entries_.front().second;
        }
        ++counters.misses;
        entries_.emplace_front(key, build());
        ++counters.builds;
        index_.emplace(key, entries_.begin());
        if (entries_.size() > capacity_) {
            index_.erase(entries_.back().first);
            entries_.pop_back();
            ++counters.evictions;
        }
        return entries_.front().second;
    }
    std::size_t size() const { return entries_.size(); }
    std::size_t capacity() const { return capacity_; }

    KeyCacheCounters counters;

  private:
    struct Hash {
        std::size_t operator()(const Key& key) const { return hash_of(key); }
    };
    struct Equal {
        bool operator()(const Key& a, const Key& b) const { return std::memcmp(&a, &b, sizeof(Key)) == 0; }
    };
    std::size_t capacity_;
    std::list<std::pair<Key, Value>> entries_;
    std::unordered_map<Key, typename std::list<std::pair<Key, Value>>::iterator, Hash, Equal> index_;
};

}  // namespace mlxlite::cuda
