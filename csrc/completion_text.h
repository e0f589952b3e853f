// The text of a completion as it grows token by token: where a stop string cuts it, and how much
// of it can be shown already. Pure: knows bytes and offsets, nothing of models.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace specrag {

class CompletionText {
public:
    explicit CompletionText(std::vector<std::string> stop);

    // Appends the bytes of one token. Returns true when a stop string is complete; the text is
    // then cut before it and must not grow further.
    bool append(const std::string& piece);

    const std::string& text() const { return text_; }

    // Tokens that lie wholly inside the text, and tokens that begin inside it. They differ by one
    // when the stop string begins inside a token.
    std::size_t n_whole_tokens() const;
    std::size_t n_begun_tokens() const;

    // The bytes of the text behind its last whole token (empty unless a stop cut a token).
    std::string remainder() const;

    // Text not yet taken that is certain: no stop string may still begin in it and no UTF-8
    // character is cut. `finished` releases everything but an incomplete last character.
    std::string take_certain(bool finished);

private:
    std::vector<std::string> stop_;
    std::string text_;
    std::vector<std::size_t> ends_;  // end offset of each token appended
    std::size_t taken_ = 0;
    std::size_t longest_stop_ = 0;
};

// Whether there is nothing but white space.
bool is_blank(const std::string& text);

// Length of the longest prefix of `bytes` that ends at a character boundary of UTF-8.
std::size_t whole_utf8_length(const std::string& bytes);

// `bytes` with every byte that is not part of well-formed UTF-8 replaced by U+FFFD.
std::string to_valid_utf8(const std::string& bytes);

}  // namespace specrag
