// Guesses the next tokens of a text that copies from itself: what followed the same last tokens
// before. Pure.
#pragma once

#include <cstddef>
#include <vector>

#include "types.h"

namespace specrag {

class Lookup {
public:
    explicit Lookup(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

    void append(Token token) { tokens_.push_back(token); }

    // Up to `n` tokens that followed the latest earlier occurrence of the last three tokens, or of
    // the last two; none when neither occurred before.
    std::vector<Token> propose(std::size_t n) const;

private:
    std::vector<Token> tokens_;
};

}  // namespace specrag
