#include "prefill.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "errors.h"
#include "model.h"

namespace specrag {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

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

Prefill::Prefill(Context& context, RunCache& cache) : context_(context), cache_(cache) {}

SequenceId Prefill::resident_sequence() const { return context_.facts().n_seq_max - 1; }

std::size_t Prefill::max_prompts(const SpliceTable& table) const {
    const std::int32_t spared = table.empty() ? 1 : 2;
    if (context_.facts().n_seq_max <= spared)
        throw ModelError("standalone segments need n_seq_max of at least 3");
    return static_cast<std::size_t>(context_.facts().n_seq_max - spared);
}

// Number of tokens of the shared prefix that are already computed, made ready for every prompt; a
// splice counts as one. The prefix stands first in the order, so `wanted` speaks of it directly: a
// token whose logits are wanted must be computed again, and with it what follows.
std::size_t Prefill::reuse(const PromptTree& tree, const SpliceTable& table,
                           const std::vector<char>& wanted) {
    std::vector<Token> prefix = tree.shared_prefix();
    const std::size_t splice_at = SpliceTable::find(prefix);
    std::vector<std::vector<Token>> runs;
    std::size_t longest = 0;
    if (splice_at < prefix.size()) {
        longest = table.splice(prefix[splice_at]).longest;
        for (const std::size_t run : table.splice(prefix[splice_at]).runs)
            runs.push_back(table.run(run).tokens);
        std::sort(runs.begin(), runs.end());
    }
    const auto is_resident = [&](std::size_t i) {
        if (!is_splice(prefix[i])) return prefix[i] == resident_[i];
        return is_splice(resident_[i]) && runs == resident_runs_;
    };
    const std::size_t limit = std::min(prefix.size(), resident_.size());
    std::size_t n = 0;
    while (n < limit && wanted[n] == 0 && is_resident(n)) ++n;
    const auto end = static_cast<std::int32_t>(n <= splice_at ? n : n - 1 + longest);
    if (n == 0 || !context_.forget_from(resident_sequence(), end)) {
        context_.clear();
        n = 0;
    }
    resident_ = std::move(prefix);
    resident_runs_ = std::move(runs);
    for (std::size_t p = 0; n > 0 && p < tree.n_prompts(); ++p)
        context_.share(resident_sequence(), static_cast<SequenceId>(p), 0, end);
    return n;
}

void Prefill::run(const Pass& pass, const SpliceTable& table, const TreeOrder& order,
                  const std::vector<char>& wanted, CallControl& control, const OnLogits& on_logits,
                  Usage& usage) {
    const std::size_t reused = reuse(pass.tree, table, wanted);
    // Of each prompt, where its splice stands: what comes before is computed before the runs.
    std::vector<std::size_t> splice_at;
    std::vector<std::size_t> shift;  // from an index behind the splice to a position
    for (const std::vector<Token>& tokens : pass.flat) {
        splice_at.push_back(SpliceTable::find(tokens));
        shift.push_back(
            splice_at.back() < tokens.size() ? table.splice(tokens[splice_at.back()]).longest : 0);
    }
    std::size_t computed = 0;
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
        const auto sweep = [&](bool tails) {
            const PromptTree::Run* run = nullptr;
            std::vector<SequenceId> sequences;
            for (std::size_t i = reused; i < order.size(); ++i) {
                const TreeOrder::Entry& entry = order[i];
                const std::size_t prompt = entry.run->prompts.front();
                const std::size_t index = entry.run->start + entry.offset;
                if (index == splice_at[prompt] || (index > splice_at[prompt]) != tails) continue;
                if (entry.run != run) {
                    run = entry.run;
                    sequences.assign(run->prompts.begin(), run->prompts.end());
                    if (index < resident_.size()) sequences.push_back(resident_sequence());
                }
                const bool output = wanted[i] != 0;
                if (batch.size() == context_.n_batch() ||
                    (output && batch.n_outputs() == context_.n_outputs_max()))
                    flush();
                const std::size_t position = tails ? index - 1 + shift[prompt] : index;
                batch.add(run->tokens[entry.offset], static_cast<std::int32_t>(position), sequences,
                          output);
                rows.push_back(i);
                ++computed;
            }
            flush();
        };
        sweep(false);
        if (!pass.runs.empty()) {
            const bool resident = SpliceTable::find(resident_) < resident_.size();
            if (!resident || reused <= SpliceTable::find(resident_))
                computed += splice(pass, table, resident, control, usage);
            sweep(true);
        }
    } catch (...) {
        invalidate();
        throw;
    }
    usage.prefilled += static_cast<std::int64_t>(computed);
    usage.reused +=
        static_cast<std::int64_t>(pass.n_prompt_tokens) - static_cast<std::int64_t>(computed);
}

std::size_t Prefill::splice(const Pass& pass, const SpliceTable& table, bool resident,
                            CallControl& control, Usage& usage) {
    std::map<std::size_t, std::vector<SequenceId>> readers;
    for (std::size_t p = 0; p < pass.flat.size(); ++p) {
        const std::size_t at = SpliceTable::find(pass.flat[p]);
        if (at == pass.flat[p].size()) continue;
        for (const std::size_t run : table.splice(pass.flat[p][at]).runs)
            readers[run].push_back(static_cast<SequenceId>(p));
    }
    if (resident)
        for (auto& [run, sequences] : readers) sequences.push_back(resident_sequence());
    const auto begin = static_cast<SequenceId>(pass.flat.size());
    std::size_t computed = 0;
    for (auto next = readers.begin(); next != readers.end();) {
        // As many runs at once as there are sequences free.
        std::vector<std::pair<SequenceId, std::size_t>> wave;
        for (SequenceId s = begin; s < resident_sequence() && next != readers.end(); ++s, ++next)
            wave.emplace_back(s, next->first);
        std::vector<std::pair<SequenceId, const SpliceTable::Run*>> missing;
        for (const auto& [sequence, index] : wave) {
            const SpliceTable::Run& run = table.run(index);
            const auto started = std::chrono::steady_clock::now();
            const auto bytes = cache_.get(run);
            bool known = false;
            if (bytes) {
                known = context_.restore(sequence, *bytes);
                if (known)
                    cache_.facts.restored += run.tokens.size();
                else
                    cache_.drop(run);
                cache_.facts.restore_s += seconds_since(started);
            }
            if (known) continue;
            context_.share(readers[index].front(), sequence, 0,
                           static_cast<std::int32_t>(run.head.size()));
            missing.emplace_back(sequence, &run);
            computed += run.tokens.size();
        }
        compute(missing, control, usage);
        for (const auto& [sequence, index] : wave) {
            const auto head = static_cast<std::int32_t>(table.run(index).head.size());
            const auto end = head + static_cast<std::int32_t>(table.run(index).tokens.size());
            for (const SequenceId reader : readers[index])
                context_.share(sequence, reader, head, end);
            context_.forget(sequence);
        }
    }
    return computed;
}

void Prefill::compute(const std::vector<std::pair<SequenceId, const SpliceTable::Run*>>& runs,
                      CallControl& control, Usage& usage) {
    Batch batch;
    for (const auto& [sequence, run] : runs) {
        const std::vector<SequenceId> sequences = {sequence};
        for (std::size_t i = 0; i < run->tokens.size(); ++i) {
            if (batch.size() == context_.n_batch()) {
                context_.decode(batch, control, usage.prefill_s);
                batch.clear();
            }
            batch.add(run->tokens[i], static_cast<std::int32_t>(run->head.size() + i), sequences,
                      false);
        }
    }
    if (batch.size() > 0) context_.decode(batch, control, usage.prefill_s);
    if (!cache_.enabled()) return;
    const auto started = std::chrono::steady_clock::now();
    for (const auto& [sequence, run] : runs) {
        // Nothing more is computed in this sequence, so the head need not stay in it.
        context_.forget_range(sequence, 0, static_cast<std::int32_t>(run->head.size()));
        cache_.put(*run, context_.save(sequence));
    }
    cache_.facts.keep_s += seconds_since(started);
}

void Prefill::invalidate() {
    context_.clear();
    resident_.clear();
    resident_runs_.clear();
}

void Prefill::release(std::size_t n_prompts) {
    for (std::size_t p = 0; p < n_prompts; ++p) context_.forget(static_cast<SequenceId>(p));
}

PassLimits limits_of(const Model& model, const Context& context, const Prefill& prefill,
                     const SpliceTable& table) {
    const auto n_ctx = static_cast<std::size_t>(context.facts().n_ctx);
    const auto trained = static_cast<std::size_t>(std::max(0, model.facts().n_ctx_train));
    return {n_ctx, trained > 0 ? std::min(n_ctx, trained) : n_ctx, prefill.max_prompts(table)};
}

}  // namespace specrag
