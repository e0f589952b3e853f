// The exceptions of the core. Return codes of the library become one of these in one place.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace specrag {

// The file is no usable model, or the model cannot do what was asked of it.
struct ModelError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// One prompt alone is larger than what fits.
struct ContextFullError : std::runtime_error {
    ContextFullError(std::int64_t n_tokens_, std::int64_t n_ctx_)
        : std::runtime_error("the prompt needs " + std::to_string(n_tokens_) +
                             " tokens with its completion, and " + std::to_string(n_ctx_) +
                             " fit: shorten it or raise n_ctx"),
          n_tokens(n_tokens_),
          n_ctx(n_ctx_) {}
    std::int64_t n_tokens;
    std::int64_t n_ctx;
};

// The library's decode call failed.
struct DecodeError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The caller asked to stop.
struct Cancelled : std::runtime_error {
    Cancelled() : std::runtime_error("cancelled") {}
};

}  // namespace specrag
