#include "prefill.h"

#include <algorithm>

#include "model.h"

namespace specrag {

TreeOrder::TreeOrder(const PromptTree& tree) : runs_(tree.n_prompts()) {
    entries_.reserve(tree.n_tokens());
    for (const PromptTree::Run* run : tree.depth_first()) {
        for (const std::size_t prompt : run->prompts)
            runs_[prompt].emplace_back(run->start, entries_.size());
        for (std::size_t i = 0; i < run->tokens.size(); ++i) entries_.push_back({run, i});
    }
}

std::size_t TreeOrder::index(std::size_t prompt, std::size_t position) const {
    const auto& runs = runs_[prompt];
    const auto after =
        std::upper_bound(runs.begin(), runs.end(), position,
                         [](std::size_t p, const std::pair<std::size_t, std::size_t>& run) {
                             return p < run.first;
                         });
    const auto& run = *(after - 1);
    return run.second + (position - run.first);
}

Prefill::Prefill(Context& context) : context_(context) {}

SequenceId Prefill::resident_sequence() const { return context_.facts().n_seq_max - 1; }

std::size_t Prefill::max_prompts() const {
    return static_cast<std::size_t>(context_.facts().n_seq_max - 1);
}

// Number of tokens of the shared prefix that are already computed, made ready for every prompt.
// The prefix stands first in the order, so `wanted` speaks of it directly: a token whose logits are
// wanted must be computed again, and with it what follows.
std::size_t Prefill::reuse(const PromptTree& tree, const std::vector<char>& wanted) {
    const std::vector<Token> prefix = tree.shared_prefix();
    const std::size_t limit = std::min(prefix.size(), resident_.size());
    std::size_t n = 0;
    while (n < limit && prefix[n] == resident_[n] && wanted[n] == 0) ++n;
    if (n == 0 || !context_.forget_from(resident_sequence(), static_cast<std::int32_t>(n))) {
        context_.clear();
        n = 0;
    }
    resident_ = prefix;
    for (std::size_t p = 0; n > 0 && p < tree.n_prompts(); ++p)
        context_.share_prefix(resident_sequence(), static_cast<SequenceId>(p),
                              static_cast<std::int32_t>(n));
    return n;
}

void Prefill::run(const PromptTree& tree, const TreeOrder& order, const std::vector<char>& wanted,
                  std::size_t n_prompt_tokens, CallControl& control, const OnLogits& on_logits,
                  Usage& usage) {
    const std::size_t reused = reuse(tree, wanted);
    try {
        Batch batch;
        std::vector<std::size_t> rows;  // order index of each token in the batch
        const auto flush = [&] {
            if (batch.size() == 0) return;
            context_.decode(batch, control, usage.prefill_s);
            for (std::size_t i = 0; i < rows.size(); ++i)
                if (batch.is_output(i)) on_logits(rows[i], context_.logits(i));
            batch.clear();
            rows.clear();
        };
        const PromptTree::Run* run = nullptr;
        std::vector<SequenceId> sequences;
        for (std::size_t i = reused; i < order.size(); ++i) {
            const TreeOrder::Entry& entry = order[i];
            if (entry.run != run) {
                run = entry.run;
                sequences.assign(run->prompts.begin(), run->prompts.end());
                if (run->start + entry.offset < resident_.size())
                    sequences.push_back(resident_sequence());
            }
            const bool output = wanted[i] != 0;
            if (batch.size() == context_.n_batch() ||
                (output && batch.n_outputs() == context_.n_outputs_max()))
                flush();
            batch.add(run->tokens[entry.offset],
                      static_cast<std::int32_t>(run->start + entry.offset), sequences, output);
            rows.push_back(i);
        }
        flush();
    } catch (...) {
        invalidate();
        throw;
    }
    const auto computed = static_cast<std::int64_t>(order.size() - reused);
    usage.prefilled += computed;
    usage.reused += static_cast<std::int64_t>(n_prompt_tokens) - computed;
}

void Prefill::invalidate() {
    context_.clear();
    resident_.clear();
}

void Prefill::release(std::size_t n_prompts) {
    for (std::size_t p = 0; p < n_prompts; ++p) context_.forget(static_cast<SequenceId>(p));
}

PassLimits limits_of(const Model& model, const Context& context, const Prefill& prefill) {
    const auto n_ctx = static_cast<std::size_t>(context.facts().n_ctx);
    const auto trained = static_cast<std::size_t>(std::max(0, model.facts().n_ctx_train));
    return {n_ctx, trained > 0 ? std::min(n_ctx, trained) : n_ctx, prefill.max_prompts()};
}

}  // namespace specrag
