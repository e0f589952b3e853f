#include "embed.h"

#include <algorithm>
#include <cmath>

namespace specrag {
namespace {

void append_normalised(const float* row, std::size_t n, std::vector<float>& out) {
    double square = 0.0;
    for (std::size_t i = 0; i < n; ++i)
        square += static_cast<double>(row[i]) * static_cast<double>(row[i]);
    const double scale = square > 0.0 ? 1.0 / std::sqrt(square) : 0.0;
    for (std::size_t i = 0; i < n; ++i)
        out.push_back(static_cast<float>(static_cast<double>(row[i]) * scale));
}

// Computes texts given as tokens, as many per pass as the batch holds, and hands the pooled row of
// each to `take`, in order.
template <typename Tokens, typename Take>
void pooled(Context& context, std::size_t n_texts, const Tokens& tokens_of, const Take& take,
            CallControl& control, Usage& usage) {
    const auto n_seq_max = static_cast<std::size_t>(context.facts().n_seq_max);
    Batch batch;
    std::size_t waiting = 0;  // texts in the batch
    const auto flush = [&] {
        if (waiting == 0) return;
        context.clear();
        context.decode(batch, control, usage.prefill_s);
        usage.prefilled += static_cast<std::int64_t>(batch.size());
        for (std::size_t s = 0; s < waiting; ++s)
            take(context.pooled_embedding(static_cast<SequenceId>(s)));
        batch.clear();
        waiting = 0;
    };
    for (std::size_t text = 0; text < n_texts; ++text) {
        const std::vector<Token> tokens = tokens_of(text);
        if (batch.size() + tokens.size() > context.n_batch() || waiting == n_seq_max) flush();
        const std::vector<SequenceId> sequence{static_cast<SequenceId>(waiting)};
        for (std::size_t i = 0; i < tokens.size(); ++i)
            batch.add(tokens[i], static_cast<std::int32_t>(i), sequence, true);
        ++waiting;
    }
    flush();
}

std::size_t longest(const Model& model, const Context& context) {
    return std::min(context.n_batch(), static_cast<std::size_t>(model.facts().n_ctx_train));
}

}  // namespace

std::vector<float> embed(const Model& model, Context& context,
                         const std::vector<std::string>& texts, CallControl& control,
                         Usage& usage) {
    const auto n_embd = static_cast<std::size_t>(model.facts().n_embd);
    const std::size_t limit = longest(model, context);
    std::vector<float> out;
    out.reserve(texts.size() * n_embd);
    pooled(
        context, texts.size(),
        [&](std::size_t i) { return model.tokenize_for_embedding(texts[i], limit); },
        [&](const float* row) { append_normalised(row, n_embd, out); }, control, usage);
    return out;
}

std::vector<float> rank(const Model& model, Context& context, const std::string& first,
                        const std::vector<std::string>& seconds, const RankOptions& options,
                        CallControl& control, Usage& usage) {
    const std::size_t limit =
        std::min(longest(model, context), static_cast<std::size_t>(options.pair_tokens));
    std::vector<float> out;
    out.reserve(seconds.size());
    pooled(
        context, seconds.size(),
        [&](std::size_t i) {
            return model.tokenize_pair(first, seconds[i],
                                       static_cast<std::size_t>(options.first_tokens), limit);
        },
        [&](const float* row) { out.push_back(row[0]); }, control, usage);
    return out;
}

}  // namespace specrag
