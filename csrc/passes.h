// Splits work that is larger than the context or the sequence limit into several passes. Pure.
#pragma once

#include <cstddef>
#include <vector>

#include "prompt_tree.h"

namespace specrag {

struct Pass {
    PromptTree tree;                   // prompt i of the tree is ...
    std::vector<std::size_t> prompts;  // ... prompts[i] of the caller
    std::size_t n_prompt_tokens = 0;   // of all its prompts, one by one
};

struct PassLimits {
    std::size_t capacity = 0;     // tokens of all prompts of a pass together
    std::size_t max_length = 0;   // tokens of one prompt
    std::size_t max_prompts = 0;  // prompts of a pass
};

// Takes prompts in order into a pass while the distinct tokens of its tree and `room` more tokens
// per prompt are within the limits. Throws ContextFullError for a prompt that does not fit alone.
std::vector<Pass> plan_passes(const std::vector<std::vector<Token>>& prompts, std::size_t room,
                              const PassLimits& limits);

}  // namespace specrag
