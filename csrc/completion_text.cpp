#include "completion_text.h"

#include <algorithm>
#include <utility>

namespace specrag {
namespace {

// Bytes of the character that `lead` begins; 0 when it cannot begin one.
std::size_t character_length(unsigned char lead) {
    if (lead < 0x80) return 1;
    if (lead >= 0xC2 && lead <= 0xDF) return 2;
    if (lead >= 0xE0 && lead <= 0xEF) return 3;
    if (lead >= 0xF0 && lead <= 0xF4) return 4;
    return 0;
}

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// Whether the second byte makes an overlong form, a surrogate or a value past U+10FFFF.
bool is_forbidden_second(unsigned char lead, unsigned char second) {
    return (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
           (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F);
}

}  // namespace

bool is_blank(const std::string& text) {
    return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

std::size_t whole_utf8_length(const std::string& bytes) {
    // Only the last character can be incomplete: look back at most three bytes for its lead.
    const std::size_t n = bytes.size();
    for (std::size_t back = 1; back <= std::min<std::size_t>(3, n); ++back) {
        const auto byte = static_cast<unsigned char>(bytes[n - back]);
        if (is_continuation(byte)) continue;
        return character_length(byte) > back ? n - back : n;
    }
    return n;
}

std::string to_valid_utf8(const std::string& bytes) {
    std::string out;
    out.reserve(bytes.size());
    std::size_t i = 0;
    while (i < bytes.size()) {
        const auto lead = static_cast<unsigned char>(bytes[i]);
        const std::size_t length = character_length(lead);
        bool valid = length > 0 && i + length <= bytes.size();
        for (std::size_t j = 1; valid && j < length; ++j)
            valid = is_continuation(static_cast<unsigned char>(bytes[i + j]));
        if (valid && length > 2)
            valid = !is_forbidden_second(lead, static_cast<unsigned char>(bytes[i + 1]));
        if (valid) {
            out.append(bytes, i, length);
            i += length;
        } else {
            out += "\xEF\xBF\xBD";
            ++i;
        }
    }
    return out;
}

CompletionText::CompletionText(std::vector<std::string> stop) : stop_(std::move(stop)) {
    stop_.erase(std::remove(stop_.begin(), stop_.end(), std::string()), stop_.end());
    for (const std::string& s : stop_) longest_stop_ = std::max(longest_stop_, s.size());
}

bool CompletionText::append(const std::string& piece) {
    // A stop string that ends in the new bytes begins at most its length before them.
    const std::size_t from =
        text_.size() > longest_stop_ ? text_.size() - longest_stop_ : std::size_t{0};
    text_ += piece;
    ends_.push_back(text_.size());
    std::size_t cut = std::string::npos;
    for (const std::string& s : stop_) cut = std::min(cut, text_.find(s, from));
    if (cut == std::string::npos) return false;
    text_.resize(cut);
    return true;
}

std::size_t CompletionText::n_whole_tokens() const {
    return static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), text_.size()) -
                                    ends_.begin());
}

std::size_t CompletionText::n_begun_tokens() const {
    const std::size_t whole = n_whole_tokens();
    const std::size_t whole_end = whole == 0 ? 0 : ends_[whole - 1];
    return whole + (whole_end < text_.size() ? 1 : 0);
}

std::string CompletionText::remainder() const {
    const std::size_t whole = n_whole_tokens();
    return text_.substr(whole == 0 ? 0 : ends_[whole - 1]);
}

std::string CompletionText::take_certain(bool finished) {
    std::size_t end = text_.size();
    if (!finished) {
        // Hold back the longest suffix that may still become a stop string.
        for (const std::string& s : stop_) {
            const std::size_t most = std::min(s.size() - 1, text_.size());
            for (std::size_t n = most; n > 0; --n) {
                if (text_.compare(text_.size() - n, n, s, 0, n) == 0) {
                    end = std::min(end, text_.size() - n);
                    break;
                }
            }
        }
    }
    if (end <= taken_) return {};
    std::string fresh = text_.substr(taken_, end - taken_);
    if (!finished) fresh.resize(whole_utf8_length(fresh));
    taken_ += fresh.size();
    return to_valid_utf8(fresh);
}

}  // namespace specrag
