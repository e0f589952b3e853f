// Splits work that is larger than the context or the sequence limit into several passes. Pure.
#pragma once

#include <cstddef>
#include <limits>
#include <set>
#include <vector>

#include "prompt_tree.h"
#include "splice.h"

namespace specrag {

struct Pass {
    PromptTree tree;                       // prompt i of the tree is ...
    std::vector<std::size_t> prompts;      // ... prompts[i] of the caller
    std::vector<std::vector<Token>> flat;  // the tokens of each, in the order of the tree
    std::set<std::size_t> runs;            // standalone runs that its prompts hold
    std::size_t n_run_tokens = 0;          // of those runs, each once
    std::size_t n_prompt_tokens = 0;       // of all its prompts, one by one
};

struct PassLimits {
    std::size_t capacity = 0;     // tokens of all prompts of a pass together
    std::size_t max_length = 0;   // tokens of one prompt
    std::size_t max_prompts = 0;  // prompts of a pass
    // Prompts of a pass that are continued, and so need room.
    std::size_t max_continued = std::numeric_limits<std::size_t>::max();
};

// Takes flat prompts in order into a pass while the distinct tokens of its tree, those of the
// standalone runs and `room` more tokens per continued prompt are within the limits. Throws
// ContextFullError for a prompt that does not fit alone.
std::vector<Pass> plan_passes(const std::vector<std::vector<Token>>& prompts,
                              const SpliceTable& table, std::size_t room, const PassLimits& limits);

}  // namespace specrag
