// What this process shares with the library: one-time start-up, its log, its version and devices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace specrag {

// Starts the library's backends once and takes over its log. Safe to call often.
void start_library();

// The last warning or error the library logged on this thread since the previous call, one line.
std::string take_library_error();

std::string library_version();        // of the library that is loaded
std::string library_build_version();  // of the headers this module was compiled against
std::string system_info();            // CPU features the library was built with

struct Device {
    std::string name;
    std::string description;
    std::string kind;                // "cpu" | "gpu" | "integrated-gpu" | "accelerator"
    std::uint64_t memory_total = 0;  // bytes
};
std::vector<Device> devices();
bool supports_gpu_offload();

}  // namespace specrag
