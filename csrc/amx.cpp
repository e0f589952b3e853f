#include "amx.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ggml-backend.h"

#if defined(__linux__) && defined(__x86_64__)
#include <signal.h>
#endif

namespace specrag {
namespace {

template <typename Function>
Function of_cpu(ggml_backend_dev_t cpu, const char* name) {
    return reinterpret_cast<Function>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), name));
}

ggml_backend_dev_t cpu_device() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

bool is_compiled_in() {
    ggml_backend_dev_t cpu = cpu_device();
    if (cpu == nullptr) return false;
    const auto features = of_cpu<ggml_backend_get_features_t>(cpu, "ggml_backend_get_features");
    if (features == nullptr) return false;
    for (auto* f = features(ggml_backend_dev_backend_reg(cpu)); f->name != nullptr; ++f) {
        if (std::strcmp(f->name, "AMX_INT8") == 0) return std::strcmp(f->value, "1") == 0;
    }
    return false;
}

// Whether the library would lay out weights for tiles. It decides that when it is first asked for,
// and keeps to it.
bool has_tiles() {
    ggml_backend_dev_t cpu = cpu_device();
    if (cpu == nullptr) return false;
    const auto layouts =
        of_cpu<ggml_backend_dev_get_extra_bufts_t>(cpu, "ggml_backend_dev_get_extra_bufts");
    if (layouts == nullptr) return false;
    for (auto* layout = layouts(cpu); layout != nullptr && *layout != nullptr; ++layout) {
        if (std::strcmp(ggml_backend_buft_name(*layout), "AMX") == 0) return true;
    }
    return false;
}

bool is_wanted() {
    const char* value = std::getenv("SPECRAG_AMX");
    return value != nullptr && std::strcmp(value, "1") == 0;
}

// The library says on the standard error that it was refused: nothing that a user can act on.
class Quiet {
public:
#if defined(__GLIBC__)
    Quiet() : nowhere_(std::fopen("/dev/null", "w")), before_(stderr) {
        if (nowhere_ != nullptr) stderr = nowhere_;
    }
    ~Quiet() {
        stderr = before_;
        if (nowhere_ != nullptr) std::fclose(nowhere_);
    }

private:
    std::FILE* nowhere_;
    std::FILE* before_;
#endif
};

}  // namespace

void keep_amx_off() {
#if defined(__linux__) && defined(__x86_64__)
    if (is_wanted() || !is_compiled_in()) return;
    // Linux grants AMX only where every alternative signal stack of the process could hold its
    // registers, some 11 KB. This one cannot, though it is large enough for AVX-512.
    static std::array<char, 8192> memory;
    stack_t small{};
    stack_t before{};
    small.ss_sp = memory.data();
    small.ss_size = memory.size();
    if (sigaltstack(&small, &before) != 0) return;
    {
        const Quiet quiet;
        has_tiles();
    }
    sigaltstack(&before, nullptr);
#endif
}

bool must_avoid_amx() {
#if defined(__linux__) && defined(__x86_64__)
    return !is_wanted() && has_tiles();
#else
    return false;
#endif
}

std::string amx_state() {
    if (!is_compiled_in()) return "absent";
    return has_tiles() && !must_avoid_amx() ? "on" : "off";
}

}  // namespace specrag
