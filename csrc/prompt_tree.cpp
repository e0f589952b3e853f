#include "prompt_tree.h"

#include <algorithm>
#include <utility>

namespace specrag {
namespace {

std::size_t common_length(const std::vector<Token>& run, const std::vector<Token>& tokens,
                          std::size_t from) {
    const std::size_t limit = std::min(run.size(), tokens.size() - from);
    std::size_t n = 0;
    while (n < limit && run[n] == tokens[from + n]) ++n;
    return n;
}

}  // namespace

std::size_t PromptTree::missing(const std::vector<Token>& tokens) const {
    std::size_t at = 0;
    const std::vector<std::size_t>* level = &roots_;
    while (at < tokens.size()) {
        const Run* next = nullptr;
        for (const std::size_t i : *level) {
            if (runs_[i].tokens.front() == tokens[at]) {
                next = &runs_[i];
                break;
            }
        }
        if (next == nullptr) break;
        const std::size_t n = common_length(next->tokens, tokens, at);
        at += n;
        if (n < next->tokens.size()) break;
        level = &next->children;
    }
    return tokens.size() - at;
}

// Cuts a run in two: the first `at` tokens stay, the rest moves into a new child.
void PromptTree::split(std::size_t run, std::size_t at) {
    Run tail;
    Run& head = runs_[run];
    tail.tokens.assign(head.tokens.begin() + static_cast<std::ptrdiff_t>(at), head.tokens.end());
    tail.start = head.start + at;
    tail.children = std::move(head.children);
    tail.prompts = head.prompts;
    head.tokens.resize(at);
    head.children = {runs_.size()};
    runs_.push_back(std::move(tail));
}

std::size_t PromptTree::insert(const std::vector<Token>& tokens) {
    const std::size_t prompt = n_prompts_++;
    std::size_t at = 0;
    std::size_t parent = 0;
    bool at_root = true;
    while (at < tokens.size()) {
        const std::vector<std::size_t>& level = at_root ? roots_ : runs_[parent].children;
        const auto it = std::find_if(level.begin(), level.end(), [&](std::size_t i) {
            return runs_[i].tokens.front() == tokens[at];
        });
        if (it == level.end()) break;
        const std::size_t run = *it;
        const std::size_t n = common_length(runs_[run].tokens, tokens, at);
        if (n < runs_[run].tokens.size()) {
            split(run, n);
            // A prompt that ends inside the run leaves the tail to the others.
        }
        runs_[run].prompts.push_back(prompt);
        at += n;
        parent = run;
        at_root = false;
    }
    if (at < tokens.size()) {
        Run leaf;
        leaf.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(at), tokens.end());
        leaf.start = at;
        leaf.prompts = {prompt};
        n_tokens_ += leaf.tokens.size();
        const std::size_t index = runs_.size();
        runs_.push_back(std::move(leaf));
        (at_root ? roots_ : runs_[parent].children).push_back(index);
    }
    return prompt;
}

std::vector<const PromptTree::Run*> PromptTree::depth_first() const {
    std::vector<const Run*> order;
    order.reserve(runs_.size());
    std::vector<std::size_t> stack(roots_.rbegin(), roots_.rend());
    while (!stack.empty()) {
        const Run& run = runs_[stack.back()];
        stack.pop_back();
        order.push_back(&run);
        stack.insert(stack.end(), run.children.rbegin(), run.children.rend());
    }
    return order;
}

std::vector<Token> PromptTree::shared_prefix() const {
    if (roots_.size() != 1) return {};
    const Run& root = runs_[roots_.front()];
    if (root.prompts.size() != n_prompts_) return {};
    return root.tokens;
}

}  // namespace specrag
