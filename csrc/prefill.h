// Computes a tree of prompts, every run once for all prompts that share it, and keeps the prefix
// that all of them share for the next call.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "context.h"
#include "passes.h"
#include "prompt_tree.h"

namespace specrag {

// The tokens of a tree in the order they are computed.
class TreeOrder {
public:
    explicit TreeOrder(const PromptTree& tree);

    struct Entry {
        const PromptTree::Run* run;
        std::size_t offset;  // within the run
    };
    std::size_t size() const { return entries_.size(); }
    const Entry& operator[](std::size_t i) const { return entries_[i]; }

    // Where the token at `position` of `prompt` stands in the order.
    std::size_t index(std::size_t prompt, std::size_t position) const;

private:
    std::vector<Entry> entries_;
    // Per prompt: (first position of a run, its first index in the order), ascending.
    std::vector<std::vector<std::pair<std::size_t, std::size_t>>> runs_;
};

class Prefill {
public:
    explicit Prefill(Context& context);

    // Called with an index of the order and its logits, which are valid during the call only.
    using OnLogits = std::function<void(std::size_t, const float*)>;

    // Computes the tree; prompt i of the tree becomes sequence i. `wanted[j]` marks the entries of
    // the order whose logits are handed to `on_logits`. Adds to `usage`, where `n_prompt_tokens` is
    // what the prompts would cost one by one.
    void run(const PromptTree& tree, const TreeOrder& order, const std::vector<char>& wanted,
             std::size_t n_prompt_tokens, CallControl& control, const OnLogits& on_logits,
             Usage& usage);

    // Drops everything but the shared prefix of the last run.
    void release(std::size_t n_prompts);

    // Drops everything; after a call that did not end well.
    void invalidate();

    // Sequences left for prompts; one is kept for the shared prefix.
    std::size_t max_prompts() const;

private:
    Context& context_;
    std::vector<Token> resident_;  // tokens whose cells the resident sequence owns
    SequenceId resident_sequence() const;
    std::size_t reuse(const PromptTree& tree, const std::vector<char>& wanted);
};

// What one pass can hold with this model and context.
PassLimits limits_of(const Model& model, const Context& context, const Prefill& prefill);

}  // namespace specrag
