#include "run_cache.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

#include "errors.h"

namespace specrag {
namespace {

namespace fs = std::filesystem;

constexpr std::array<char, 8> kMagic = {'S', 'P', 'K', 'V', 'R', 'U', 'N', '1'};
constexpr const char* kSuffix = ".kv";
constexpr const char* kUnfinished = ".part";
constexpr auto kAbandoned = std::chrono::hours(1);  // age of an unfinished file nobody writes

std::uint64_t mix(std::uint64_t h) {
    h ^= h >> 30;
    h *= 0xbf58476d1ce4e5b9ULL;
    h ^= h >> 27;
    h *= 0x94d049bb133111ebULL;
    return h ^ (h >> 31);
}

// A hash of bytes, eight at a time.
std::uint64_t hash_bytes(const void* data, std::size_t size, std::uint64_t seed) {
    const auto* at = static_cast<const unsigned char*>(data);
    std::uint64_t h = mix(seed ^ (size * 0x9e3779b97f4a7c15ULL));
    for (; size >= 8; at += 8, size -= 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, at, 8);
        h = (h ^ word) * 0x9fb21c651e98df25ULL;
        h ^= h >> 32;
    }
    std::uint64_t word = 0;
    if (size > 0) std::memcpy(&word, at, size);
    return mix(h ^ word);
}

std::uint64_t hash_tokens(const std::vector<Token>& tokens, std::uint64_t seed) {
    return hash_bytes(tokens.data(), tokens.size() * sizeof(Token), seed);
}

std::string hex(std::uint64_t value) {
    static const char* digits = "0123456789abcdef";
    std::string out(16, '0');
    for (std::size_t i = 0; i < 16; ++i) out[15 - i] = digits[(value >> (4 * i)) & 15U];
    return out;
}

// What stands before the cells in a file; the tokens themselves follow it, then the identity.
struct Header {
    std::array<char, 8> magic = kMagic;
    std::uint64_t n_head = 0;
    std::uint64_t n_tokens = 0;
    std::uint64_t n_identity = 0;
    std::uint64_t n_bytes = 0;
    std::uint64_t checksum = 0;  // of the cells
};

Header header_of(const SpliceTable::Run& run, const std::string& identity,
                 const RunCache::Bytes& bytes) {
    Header header;
    header.n_head = run.head.size();
    header.n_tokens = run.tokens.size();
    header.n_identity = identity.size();
    header.n_bytes = bytes.size();
    header.checksum = hash_bytes(bytes.data(), bytes.size(), 1);
    return header;
}

bool same(const SpliceTable::Run& a, const SpliceTable::Run& b) {
    return a.head == b.head && a.tokens == b.tokens;
}

}  // namespace

RunCache::RunCache(RunCacheOptions options) : options_(std::move(options)) {
    if (!on_disk()) return;
    folder_ = fs::u8path(options_.folder);
    std::error_code error;
    fs::create_directories(folder_, error);
    if (!fs::is_directory(folder_, error))
        throw ModelError(options_.folder + " cannot be made a folder for cached runs");
    make_room(0);
}

std::string RunCache::name_of(const SpliceTable::Run& run) const {
    std::string name;
    for (const std::uint64_t seed : {2ULL, 3ULL}) {
        const std::uint64_t identity =
            hash_bytes(options_.identity.data(), options_.identity.size(), seed);
        name += hex(hash_tokens(run.tokens, hash_tokens(run.head, identity)));
    }
    return name;
}

std::shared_ptr<const RunCache::Bytes> RunCache::get(const SpliceTable::Run& run) {
    if (!enabled()) return nullptr;
    const std::string name = name_of(run);
    const auto it = by_name_.find(name);
    if (it != by_name_.end() && same(it->second->run, run)) {
        entries_.splice(entries_.begin(), entries_, it->second);
        ++facts.hits;
        return entries_.front().bytes;
    }
    if (on_disk()) {
        if (auto bytes = get_disk(name, run)) {
            ++facts.hits;
            ++facts.disk_hits;
            put_host(name, run, bytes);
            return bytes;
        }
    }
    ++facts.misses;
    return nullptr;
}

void RunCache::put(const SpliceTable::Run& run, Bytes bytes) {
    if (!enabled()) return;
    const std::string name = name_of(run);
    if (on_disk()) put_disk(name, run, bytes);
    put_host(name, run, std::make_shared<const Bytes>(std::move(bytes)));
}

void RunCache::drop(const SpliceTable::Run& run) {
    const std::string name = name_of(run);
    const auto it = by_name_.find(name);
    if (it != by_name_.end()) {
        facts.host_bytes -= it->second->bytes->size();
        entries_.erase(it->second);
        by_name_.erase(it);
    }
    std::error_code error;
    if (on_disk()) fs::remove(folder_ / (name + kSuffix), error);
}

void RunCache::put_host(const std::string& name, const SpliceTable::Run& run,
                        std::shared_ptr<const Bytes> bytes) {
    const auto known = by_name_.find(name);
    if (known != by_name_.end()) {
        facts.host_bytes -= known->second->bytes->size();
        entries_.erase(known->second);
        by_name_.erase(known);
    }
    if (bytes->size() > options_.host_bytes) return;
    while (facts.host_bytes + bytes->size() > options_.host_bytes) {
        facts.host_bytes -= entries_.back().bytes->size();
        by_name_.erase(entries_.back().name);
        entries_.pop_back();
    }
    facts.host_bytes += bytes->size();
    entries_.push_front({name, run, std::move(bytes)});
    by_name_[name] = entries_.begin();
}

std::shared_ptr<const RunCache::Bytes> RunCache::get_disk(const std::string& name,
                                                          const SpliceTable::Run& run) {
    const fs::path path = folder_ / (name + kSuffix);
    std::ifstream file(path, std::ios::binary);
    if (!file) return nullptr;
    const auto read = [&file](void* to, std::size_t size) {
        return static_cast<bool>(
            file.read(static_cast<char*>(to), static_cast<std::streamsize>(size)));
    };
    std::error_code error;
    Header header;
    SpliceTable::Run found;
    std::string identity;
    auto bytes = std::make_shared<Bytes>();
    // Sizes are compared with what is expected before anything of that size is made.
    bool good = read(&header, sizeof header) && header.magic == kMagic &&
                header.n_head == run.head.size() && header.n_tokens == run.tokens.size() &&
                header.n_identity == options_.identity.size() &&
                header.n_bytes <= fs::file_size(path, error);
    if (good) {
        found.head.resize(header.n_head);
        found.tokens.resize(header.n_tokens);
        identity.resize(header.n_identity);
        bytes->resize(header.n_bytes);
        good = read(found.head.data(), found.head.size() * sizeof(Token)) &&
               read(found.tokens.data(), found.tokens.size() * sizeof(Token)) &&
               read(identity.data(), identity.size()) && read(bytes->data(), bytes->size()) &&
               hash_bytes(bytes->data(), bytes->size(), 1) == header.checksum;
    }
    if (!good || !same(found, run) || identity != options_.identity) {
        ++facts.disk_errors;
        file.close();
        fs::remove(path, error);
        return nullptr;
    }
    fs::last_write_time(path, fs::file_time_type::clock::now(), error);  // the order of use
    return bytes;
}

void RunCache::put_disk(const std::string& name, const SpliceTable::Run& run, const Bytes& bytes) {
    static std::atomic<std::uint64_t> counter{0};
    const Header header = header_of(run, options_.identity, bytes);
    const std::uint64_t size = sizeof header +
                               (run.head.size() + run.tokens.size()) * sizeof(Token) +
                               options_.identity.size() + bytes.size();
    if (!make_room(size)) return;
    const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
    const fs::path part =
        folder_ / (name + hex(mix(static_cast<std::uint64_t>(now) + counter++)) + kUnfinished);
    std::error_code error;
    {
        std::ofstream file(part, std::ios::binary);
        const auto write = [&file](const void* from, std::size_t n) {
            file.write(static_cast<const char*>(from), static_cast<std::streamsize>(n));
        };
        write(&header, sizeof header);
        write(run.head.data(), run.head.size() * sizeof(Token));
        write(run.tokens.data(), run.tokens.size() * sizeof(Token));
        write(options_.identity.data(), options_.identity.size());
        write(bytes.data(), bytes.size());
        file.close();
        if (!file) {
            ++facts.disk_errors;
            fs::remove(part, error);
            return;
        }
    }
    fs::rename(part, folder_ / (name + kSuffix), error);
    if (error) {
        ++facts.disk_errors;
        fs::remove(part, error);
        return;
    }
    facts.disk_bytes += size;
}

// Removes the least recently used files until `wanted` more bytes are within the budget. Other
// processes may use the folder, so its files are counted anew each time.
bool RunCache::make_room(std::uint64_t wanted) {
    struct File {
        fs::file_time_type used;
        std::uint64_t size;
        fs::path path;
    };
    if (wanted > options_.disk_bytes) return false;
    std::vector<File> files;
    std::uint64_t total = 0;
    std::error_code error;
    const auto now = fs::file_time_type::clock::now();
    for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error)) {
        std::error_code ignored;
        const fs::path& path = it->path();
        const auto used = fs::last_write_time(path, ignored);
        if (path.extension() == kUnfinished && !ignored && now - used > kAbandoned) {
            fs::remove(path, ignored);
            continue;
        }
        const auto size = fs::file_size(path, ignored);
        if (ignored || (path.extension() != kSuffix && path.extension() != kUnfinished)) continue;
        files.push_back({used, size, path});
        total += size;
    }
    std::sort(files.begin(), files.end(),
              [](const File& a, const File& b) { return a.used < b.used; });
    for (const File& file : files) {
        if (total + wanted <= options_.disk_bytes || !options_.evict) break;
        if (file.path.extension() != kSuffix) continue;
        fs::remove(file.path, error);
        if (!error) total -= file.size;
    }
    facts.disk_bytes = total;
    return total + wanted <= options_.disk_bytes;
}

}  // namespace specrag
