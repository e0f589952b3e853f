// Computes a tree of prompts, every run once for all prompts that share it, and keeps the prefix
// that all of them share for the next call. Standalone runs are computed apart, or taken from the
// cache, and then belong to every prompt that holds them.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "context.h"
#include "passes.h"
#include "prompt_tree.h"
#include "run_cache.h"

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
    Prefill(Context& context, RunCache& cache);

    // Called with an index of the order and its logits, which are valid during the call only.
    using OnLogits = std::function<void(std::size_t, const float*)>;

    // Computes the tree of a pass; prompt i of the tree becomes sequence i. `wanted[j]` marks the
    // entries of the order whose logits are handed to `on_logits`; none may stand for a splice.
    void run(const Pass& pass, const SpliceTable& table, const TreeOrder& order,
             const std::vector<char>& wanted, CallControl& control, const OnLogits& on_logits,
             Usage& usage);

    // Drops everything but the shared prefix of the last run.
    void release(std::size_t n_prompts);

    // Drops everything; after a call that did not end well.
    void invalidate();

    // Sequences left for prompts: one is kept for the shared prefix, one to compute runs in.
    std::size_t max_prompts(const SpliceTable& table) const;

private:
    Context& context_;
    RunCache& cache_;
    // Tokens whose cells the resident sequence owns, flat, and the runs of the splice in them.
    std::vector<Token> resident_;
    std::vector<std::vector<Token>> resident_runs_;
    SequenceId resident_sequence() const;
    std::size_t reuse(const PromptTree& tree, const SpliceTable& table,
                      const std::vector<char>& wanted);
    // Makes the runs of a pass part of its prompts, and of the resident sequence where all prompts
    // have the same; returns how many tokens were computed.
    std::size_t splice(const Pass& pass, const SpliceTable& table, bool resident,
                       CallControl& control, Usage& usage);
    void compute(const std::vector<std::pair<SequenceId, const SpliceTable::Run*>>& runs,
                 CallControl& control, Usage& usage);
};

// What one pass can hold with this model and context.
PassLimits limits_of(const Model& model, const Context& context, const Prefill& prefill,
                     const SpliceTable& table);

}  // namespace specrag
