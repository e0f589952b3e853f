#include "splice.h"

#include <algorithm>

#include "errors.h"

namespace specrag {

FlatPrompt SpliceTable::flatten(const Prompt& prompt, std::vector<Token> tokens,
                                std::vector<std::int32_t> segment) {
    const auto standalone = [&](std::size_t i) {
        return segment[i] >= 0 && prompt[static_cast<std::size_t>(segment[i])].standalone;
    };
    std::size_t begin = 0;
    while (begin < tokens.size() && !standalone(begin)) ++begin;
    if (begin == tokens.size()) return {std::move(tokens), std::move(segment)};
    std::size_t end = begin;
    const std::vector<Token> head(tokens.begin(),
                                  tokens.begin() + static_cast<std::ptrdiff_t>(begin));
    Splice splice;
    splice.head = begin;
    while (end < tokens.size() && standalone(end)) {
        const std::size_t from = end;
        const std::int32_t s = segment[from];
        if (prompt[static_cast<std::size_t>(s)].scored)
            throw ModelError("a standalone segment cannot be scored");
        while (end < tokens.size() && segment[end] == s) ++end;
        splice.longest = std::max(splice.longest, end - from);
        splice.runs.push_back(
            intern(head, std::vector<Token>(tokens.begin() + static_cast<std::ptrdiff_t>(from),
                                            tokens.begin() + static_cast<std::ptrdiff_t>(end))));
    }
    for (std::size_t i = end; i < tokens.size(); ++i)
        if (standalone(i))
            throw ModelError("the standalone segments of a prompt must stand together");
    std::sort(splice.runs.begin(), splice.runs.end());
    splice.runs.erase(std::unique(splice.runs.begin(), splice.runs.end()), splice.runs.end());
    for (const std::size_t run : splice.runs) splice.n_tokens += runs_[run].tokens.size();

    const auto known = splice_index_.find(splice.runs);
    Token mark = 0;
    if (known != splice_index_.end()) {
        mark = known->second;
    } else {
        splices_.push_back(splice);
        mark = -static_cast<Token>(splices_.size());
        splice_index_.emplace(splice.runs, mark);
    }
    FlatPrompt flat{head, {segment.begin(), segment.begin() + static_cast<std::ptrdiff_t>(begin)}};
    flat.tokens.push_back(mark);
    flat.segment.push_back(-1);
    flat.tokens.insert(flat.tokens.end(), tokens.begin() + static_cast<std::ptrdiff_t>(end),
                       tokens.end());
    flat.segment.insert(flat.segment.end(), segment.begin() + static_cast<std::ptrdiff_t>(end),
                        segment.end());
    return flat;
}

std::size_t SpliceTable::intern(const std::vector<Token>& head, std::vector<Token> tokens) {
    const auto [it, added] = run_index_.emplace(std::make_pair(head, tokens), runs_.size());
    if (added) runs_.push_back({head, std::move(tokens)});
    return it->second;
}

std::size_t SpliceTable::find(const std::vector<Token>& flat) {
    return static_cast<std::size_t>(std::find_if(flat.begin(), flat.end(), is_splice) -
                                    flat.begin());
}

std::size_t SpliceTable::n_tokens(const std::vector<Token>& flat) const {
    const std::size_t at = find(flat);
    return at == flat.size() ? at : flat.size() - 1 + splice(flat[at]).n_tokens;
}

std::size_t SpliceTable::n_positions(const std::vector<Token>& flat) const {
    const std::size_t at = find(flat);
    return at == flat.size() ? at : flat.size() - 1 + splice(flat[at]).longest;
}

}  // namespace specrag
