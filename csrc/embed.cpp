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

}  // namespace

std::vector<float> embed(const Model& model, Context& context,
                         const std::vector<std::string>& texts, CallControl& control,
                         Usage& usage) {
    const auto n_embd = static_cast<std::size_t>(model.facts().n_embd);
    const auto n_seq_max = static_cast<std::size_t>(context.facts().n_seq_max);
    const std::size_t limit =
        std::min(context.n_batch(), static_cast<std::size_t>(model.facts().n_ctx_train));
    std::vector<float> out;
    out.reserve(texts.size() * n_embd);

    Batch batch;
    std::size_t n_texts = 0;  // in the batch
    const auto flush = [&] {
        if (n_texts == 0) return;
        context.clear();
        context.decode(batch, control, usage.prefill_s);
        usage.prefilled += static_cast<std::int64_t>(batch.size());
        for (std::size_t s = 0; s < n_texts; ++s)
            append_normalised(context.pooled_embedding(static_cast<SequenceId>(s)), n_embd, out);
        batch.clear();
        n_texts = 0;
    };
    for (const std::string& text : texts) {
        const std::vector<Token> tokens = model.tokenize_for_embedding(text, limit);
        if (batch.size() + tokens.size() > context.n_batch() || n_texts == n_seq_max) flush();
        const std::vector<SequenceId> sequence{static_cast<SequenceId>(n_texts)};
        for (std::size_t i = 0; i < tokens.size(); ++i)
            batch.add(tokens[i], static_cast<std::int32_t>(i), sequence, true);
        ++n_texts;
    }
    flush();
    return out;
}

}  // namespace specrag
