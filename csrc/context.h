// The only caller of the library's decode and memory functions. Return codes become exceptions
// here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "batch.h"
#include "cancel.h"
#include "types.h"

struct llama_context;

namespace specrag {

class Model;

class Context {
public:
    // Throws ModelError when the library cannot make a context for this model and these options.
    Context(const Model& model, const EngineOptions& options);
    ~Context();
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    const EngineFacts& facts() const { return facts_; }
    std::size_t n_batch() const { return static_cast<std::size_t>(facts_.n_batch); }
    std::size_t n_outputs_max() const { return n_outputs_max_; }

    // Computes a batch of at most n_batch() tokens and n_outputs_max() outputs and adds the seconds
    // it took to `seconds`. Throws Cancelled when `control` says stop, DecodeError when the library
    // fails; the memory is empty after either.
    void decode(Batch& batch, CallControl& control, double& seconds);

    // Logits of the batch's i-th token, which must be an output; valid until the next decode.
    const float* logits(std::size_t i) const;

    // Pooled embedding of a sequence of the last batch; n_embd floats.
    const float* pooled_embedding(SequenceId sequence) const;

    void clear();
    void forget(SequenceId sequence);
    // Removes positions >= `from`. False when the memory cannot remove a part of a sequence.
    bool forget_from(SequenceId sequence, std::int32_t from);
    // Removes the positions from `begin` up to `end`.
    void forget_range(SequenceId sequence, std::int32_t begin, std::int32_t end);
    // Lets `to` own the positions of `from` from `begin` up to `end` as well; nothing is copied.
    void share(SequenceId from, SequenceId to, std::int32_t begin, std::int32_t end);

    // The cells of a sequence as bytes, and back into an empty sequence. restore() returns false,
    // and leaves the sequence empty, when the bytes do not fit this context or no cells are free.
    std::vector<std::uint8_t> save(SequenceId sequence) const;
    bool restore(SequenceId sequence, const std::vector<std::uint8_t>& bytes);

private:
    struct Deleter {
        void operator()(llama_context* context) const;
    };
    std::unique_ptr<llama_context, Deleter> context_;
    CallControl* control_ = nullptr;  // of the call in progress
    EngineFacts facts_;
    std::size_t n_outputs_max_ = 0;
};

}  // namespace specrag
