#include "library.h"

#include <cstdlib>
#include <mutex>

#include "amx.h"
#include "ggml-backend.h"
#include "llama.h"

#ifndef SPECRAG_LLAMA_BUILD_VERSION
#error "SPECRAG_LLAMA_BUILD_VERSION is set by CMakeLists.txt"
#endif

namespace specrag {
namespace {

thread_local std::string last_error;
thread_local std::string line;

void on_log(ggml_log_level level, const char* text, void*) {
    static const bool verbose = std::getenv("SPECRAG_LLAMA_LOG") != nullptr;
    if (verbose) std::fputs(text, stderr);
    if (level == GGML_LOG_LEVEL_CONT) {
        line += text;
    } else if (level == GGML_LOG_LEVEL_ERROR) {
        line = text;
    } else {
        return;
    }
    while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) last_error = line;
}

}  // namespace

void start_library() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_log_set(on_log, nullptr);
        llama_backend_init();
        keep_amx_off();
    });
}

std::string take_library_error() {
    std::string out;
    out.swap(last_error);
    return out;
}

std::string library_version() { return llama_version(); }
std::string library_build_version() { return SPECRAG_LLAMA_BUILD_VERSION; }
std::string system_info() { return llama_print_system_info(); }
bool supports_gpu_offload() { return llama_supports_gpu_offload(); }

std::vector<Device> devices() {
    start_library();
    std::vector<Device> out;
    for (std::size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        Device device;
        device.name = ggml_backend_dev_name(dev);
        device.description = ggml_backend_dev_description(dev);
        std::size_t free = 0;
        std::size_t total = 0;
        ggml_backend_dev_memory(dev, &free, &total);
        device.memory_total = total;
        switch (ggml_backend_dev_type(dev)) {
            case GGML_BACKEND_DEVICE_TYPE_CPU: device.kind = "cpu"; break;
            case GGML_BACKEND_DEVICE_TYPE_GPU: device.kind = "gpu"; break;
            case GGML_BACKEND_DEVICE_TYPE_IGPU: device.kind = "integrated-gpu"; break;
            default: device.kind = "accelerator"; break;
        }
        out.push_back(device);
    }
    return out;
}

}  // namespace specrag
