// Keeps the cells of standalone runs, as bytes, for later calls: in memory, and in files. The least
// recently used go first. Pure: knows tokens, bytes and files, nothing of models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "splice.h"
#include "types.h"

namespace specrag {

class RunCache {
public:
    using Bytes = std::vector<std::uint8_t>;

    // Throws ModelError when a folder is named that cannot be made.
    explicit RunCache(RunCacheOptions options);

    bool enabled() const { return options_.host_bytes > 0 || on_disk(); }

    // The cells of a run, or null. A file that is damaged or of another model is no hit.
    std::shared_ptr<const Bytes> get(const SpliceTable::Run& run);

    // Keeps the cells of a run, within the budgets. What cannot be written is not kept.
    void put(const SpliceTable::Run& run, Bytes bytes);

    // Forgets a run whose bytes turned out to be of no use.
    void drop(const SpliceTable::Run& run);

    RunCacheFacts facts;

private:
    struct Entry {
        std::string name;
        SpliceTable::Run run;
        std::shared_ptr<const Bytes> bytes;
    };
    RunCacheOptions options_;
    std::filesystem::path folder_;
    std::list<Entry> entries_;  // most recently used first
    std::unordered_map<std::string, std::list<Entry>::iterator> by_name_;

    bool on_disk() const { return options_.disk_bytes > 0 && !options_.folder.empty(); }
    std::string name_of(const SpliceTable::Run& run) const;
    void put_host(const std::string& name, const SpliceTable::Run& run,
                  std::shared_ptr<const Bytes> bytes);
    std::shared_ptr<const Bytes> get_disk(const std::string& name, const SpliceTable::Run& run);
    void put_disk(const std::string& name, const SpliceTable::Run& run, const Bytes& bytes);
    bool make_room(std::uint64_t wanted);
};

}  // namespace specrag
