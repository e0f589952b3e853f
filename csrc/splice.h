// Prompts with standalone runs: stretches that see what stands before all of them (the head) and
// themselves, but not each other, and that all start at the same position. What follows (the tail)
// starts behind the longest. Pure: knows tokens and positions, nothing of models.
#pragma once

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "types.h"

namespace specrag {

// Several runs between a head and a tail.
struct Splice {
    std::size_t head = 0;           // tokens of the head, and so the position of every run
    std::size_t longest = 0;        // tokens of the longest run
    std::size_t n_tokens = 0;       // tokens of all runs together
    std::vector<std::size_t> runs;  // indices of SpliceTable::run(), ascending, without repeats
};

// A prompt in one row: the tokens of head and tail, and between them one negative token that stands
// for the splice. So prompts with the same head share it in a tree, and tails are shared only
// behind the same runs.
struct FlatPrompt {
    std::vector<Token> tokens;
    std::vector<std::int32_t> segment;  // per token, the index of its segment; -1: of none
};

inline bool is_splice(Token token) { return token < 0; }

class SpliceTable {
public:
    // A run with the head it was computed behind.
    struct Run {
        std::vector<Token> head;
        std::vector<Token> tokens;
    };

    // Takes tokens with their segments. Throws ModelError when standalone segments do not stand
    // together, or are scored.
    FlatPrompt flatten(const Prompt& prompt, std::vector<Token> tokens,
                       std::vector<std::int32_t> segment);

    bool empty() const { return splices_.empty(); }
    const Splice& splice(Token token) const {
        return splices_[static_cast<std::size_t>(-token - 1)];
    }
    const Run& run(std::size_t index) const { return runs_[index]; }
    std::size_t n_runs() const { return runs_.size(); }

    // Index of the splice in a flat prompt; the number of tokens when it has none.
    static std::size_t find(const std::vector<Token>& flat);
    // Tokens of the prompt without sharing, and the position behind its last token.
    std::size_t n_tokens(const std::vector<Token>& flat) const;
    std::size_t n_positions(const std::vector<Token>& flat) const;

private:
    std::vector<Run> runs_;
    std::vector<Splice> splices_;
    std::map<std::pair<std::vector<Token>, std::vector<Token>>, std::size_t> run_index_;
    std::map<std::vector<std::size_t>, Token> splice_index_;

    std::size_t intern(const std::vector<Token>& head, std::vector<Token> tokens);
};

}  // namespace specrag
