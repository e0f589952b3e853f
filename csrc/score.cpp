#include "score.h"

#include "errors.h"
#include "logprob.h"
#include "passes.h"
#include "splice.h"

namespace specrag {
namespace {

// One scored token: where its log-probability goes, and which logits hold it.
struct Target {
    std::size_t prompt;    // of the caller
    std::size_t segment;   // among the scored segments
    std::size_t index;     // within the segment
    std::size_t position;  // of the token in its prompt; its logits stand one before
    Token token;
};

// Lays out the result of one prompt and lists its targets.
std::vector<Target> targets_of(std::size_t prompt, const Prompt& segments, const FlatPrompt& flat,
                               Score& result) {
    std::vector<Target> targets;
    std::int32_t current = -2;
    for (std::size_t i = 0; i < flat.tokens.size(); ++i) {
        const std::int32_t s = flat.segment[i];
        if (s < 0 || !segments[static_cast<std::size_t>(s)].scored) continue;
        if (i == 0)
            throw ModelError("the first token of a prompt cannot be scored: nothing precedes it");
        if (is_splice(flat.tokens[i - 1]))
            throw ModelError("a scored segment cannot follow a standalone one at once");
        if (s != current) {
            result.segments.emplace_back();
            current = s;
        }
        SegmentScore& segment = result.segments.back();
        targets.push_back(
            {prompt, result.segments.size() - 1, segment.tokens.size(), i, flat.tokens[i]});
        segment.tokens.push_back(flat.tokens[i]);
        segment.logprobs.push_back(0.0);
    }
    return targets;
}

}  // namespace

std::vector<Score> score(const Model& model, Context& context, Prefill& prefill,
                         const std::vector<Prompt>& prompts, CallControl& control, Usage& usage) {
    std::vector<Score> results(prompts.size());
    std::vector<std::vector<Target>> targets(prompts.size());
    std::vector<std::vector<Token>> tokens(prompts.size());
    SpliceTable table;
    for (std::size_t p = 0; p < prompts.size(); ++p) {
        Model::Tokens all = model.tokenize(prompts[p]);
        FlatPrompt flat = table.flatten(prompts[p], std::move(all.ids), std::move(all.segment));
        targets[p] = targets_of(p, prompts[p], flat, results[p]);
        // The last scored token is read from the logits before it and never computed. Where nothing
        // is scored, the standalone runs are all there is to compute.
        const std::size_t splice = SpliceTable::find(flat.tokens);
        std::size_t needed = splice < flat.tokens.size() ? splice + 1 : 0;
        if (!targets[p].empty()) needed = targets[p].back().position;
        flat.tokens.resize(needed);
        tokens[p] = std::move(flat.tokens);
    }

    for (const Pass& pass :
         plan_passes(tokens, table, 0, limits_of(model, context, prefill, table))) {
        const TreeOrder order(pass.tree);
        std::vector<char> wanted(order.size(), 0);
        std::vector<std::vector<const Target*>> readers(order.size());
        for (std::size_t i = 0; i < pass.prompts.size(); ++i) {
            for (const Target& target : targets[pass.prompts[i]]) {
                const std::size_t at = order.index(i, target.position - 1);
                wanted[at] = 1;
                readers[at].push_back(&target);
            }
        }
        prefill.run(
            pass, table, order, wanted, control,
            [&](std::size_t at, const float* logits) {
                const double normaliser = log_sum_exp(logits, model.n_vocab());
                for (const Target* t : readers[at])
                    results[t->prompt].segments[t->segment].logprobs[t->index] =
                        static_cast<double>(logits[t->token]) - normaliser;
            },
            usage);
        prefill.release(pass.prompts.size());
    }
    return results;
}

}  // namespace specrag
