#include "backend_cuda/runtime/algorithm_file.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <vector>

#include "backend_cuda/runtime/driver.h"

namespace mlxlite::cuda {

namespace {

constexpr std::size_t kMostRecords = 4096;

struct Record {
    MatmulKey key;
    lt::Algo algo;
    std::uint64_t checksum;
};
static_assert(std::has_unique_object_representations_v<Record>);

std::string directory;

// FNV-1a: the same in every build, unlike std::hash.
std::uint64_t checksum_of(const void* data, std::size_t nbytes) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (auto byte : std::span(static_cast<const unsigned char*>(data), nbytes)) hash = (hash ^ byte) * 0x100000001b3;
    return hash;
}
std::uint64_t checksum_of(const Record& record) { return checksum_of(&record, offsetof(Record, checksum)); }

// The names of the key's fields: another version may have others.
constexpr const char* kFields =
#define MLXLITE_NAME(type, name) #type " " #name "\n"
    MLXLITE_MATMUL_KEY_FIELDS(MLXLITE_NAME)
#undef MLXLITE_NAME
    ;

// What the file is about.
std::string header() {
    return "mlxlite algorithms 1\n" + device_info().name + "\ncuBLASLt " + std::to_string(lt::version()) + "\ndriver " +
           std::to_string(device_info().driver_version) + "\n" + kFields;
}

std::filesystem::path file() {
    std::string about = header();
    char name[64];
    std::snprintf(name, sizeof name, "matmul-%016llx.algorithms",
                  static_cast<unsigned long long>(checksum_of(about.data(), about.size())));
    return std::filesystem::path(directory) / name;
}

bool same_key(const Record& record, const MatmulKey& key) { return std::memcmp(&record.key, &key, sizeof key) == 0; }

std::vector<Record> read() {
    std::ifstream stream(file(), std::ios::binary);
    std::string expected = header(), found(expected.size(), '\0');
    std::vector<Record> records;
    if (!stream.read(found.data(), static_cast<std::streamsize>(found.size())) || found != expected) return records;
    Record record;
    while (records.size() < kMostRecords && stream.read(reinterpret_cast<char*>(&record), sizeof record))
        if (record.checksum == checksum_of(record)) records.push_back(record);
    return records;
}

// A reader sees all of it or nothing.
void write(std::span<const Record> records) {
    std::error_code ignored;
    std::filesystem::create_directories(directory, ignored);
    auto target = file();
    auto temporary = target;
    temporary += ".new-" + std::to_string(getpid());
    std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
    std::string about = header();
    stream.write(about.data(), static_cast<std::streamsize>(about.size()));
    stream.write(reinterpret_cast<const char*>(records.data()), static_cast<std::streamsize>(records.size_bytes()));
    stream.close();
    if (stream) std::filesystem::rename(temporary, target, ignored);
    if (!stream || ignored) std::filesystem::remove(temporary, ignored);
}

// Those of the file when this process first asked, and those that it has chosen itself.
std::vector<Record>& known() {
    static std::vector<Record> records = directory.empty() ? std::vector<Record>() : read();
    return records;
}

void put(std::vector<Record>& records, const Record& record) {
    std::erase_if(records, [&](const Record& other) { return same_key(other, record.key); });
    if (records.size() >= kMostRecords) records.erase(records.begin());
    records.push_back(record);
}

}  // namespace

void set_algorithms_directory(std::string path) { directory = std::move(path); }

std::optional<lt::Algo> stored_algorithm(const MatmulKey& key) {
    for (const Record& record : known())
        if (same_key(record, key)) return record.algo;
    return std::nullopt;
}

void store_algorithm(const MatmulKey& key, const lt::Algo& algo) {
    Record record{key, algo, 0};
    record.checksum = checksum_of(record);
    put(known(), record);
    if (directory.empty()) return;
    auto records = read();  // other processes may have written since
    put(records, record);
    write(records);
}

}  // namespace mlxlite::cuda
