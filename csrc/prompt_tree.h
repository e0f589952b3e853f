// Prompts as a radix tree of token runs: what several prompts share stands in the tree once.
// Pure: knows tokens and prompt indices, nothing of models or sequences.
#pragma once

#include <cstddef>
#include <vector>

#include "types.h"

namespace specrag {

class PromptTree {
public:
    // A run of tokens that the same set of prompts shares. `start` is the position of its first
    // token in each of them.
    struct Run {
        std::vector<Token> tokens;
        std::size_t start = 0;
        std::vector<std::size_t> children;  // indices of runs, in order of insertion
        std::vector<std::size_t> prompts;   // all prompts that pass through, ascending
    };

    // Number of tokens that inserting `tokens` would add.
    std::size_t missing(const std::vector<Token>& tokens) const;

    // Adds a prompt and returns its index. Prompts are numbered from 0 in order of insertion.
    std::size_t insert(const std::vector<Token>& tokens);

    std::size_t n_prompts() const { return n_prompts_; }
    std::size_t n_tokens() const { return n_tokens_; }  // distinct tokens in the tree

    // The runs, a parent always before its children, depth first. Runs are never empty.
    std::vector<const Run*> depth_first() const;

    // The tokens that every prompt starts with.
    std::vector<Token> shared_prefix() const;

private:
    std::vector<Run> runs_;
    std::vector<std::size_t> roots_;
    std::size_t n_prompts_ = 0;
    std::size_t n_tokens_ = 0;

    void split(std::size_t run, std::size_t at);
};

}  // namespace specrag
