// The facade: one model, one context, one mutex. Calls from any thread queue here.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cancel.h"
#include "context.h"
#include "model.h"
#include "prefill.h"
#include "run_cache.h"
#include "types.h"

namespace specrag {

class Engine {
public:
    Engine(std::shared_ptr<const Model> model, const EngineOptions& options, RunCacheOptions cache);

    // The verbs. `usage` is overwritten with the call's own figures.
    std::vector<Generation> generate(const std::vector<Prompt>& prompts,
                                     const GenerateOptions& options, const TextCallback& on_text,
                                     CallControl control, Usage& usage);
    std::vector<Score> score(const std::vector<Prompt>& prompts, CallControl control, Usage& usage);
    // Pooled, L2-normalised embeddings, row by row, n_embd floats each.
    std::vector<float> embed(const std::vector<std::string>& texts, CallControl control,
                             Usage& usage);

    // The score of a text with each of some others by a cross-encoder, a logit.
    std::vector<float> rank(const std::string& first, const std::vector<std::string>& seconds,
                            const RankOptions& options, CallControl control, Usage& usage);

    const Model& model() const { return *model_; }
    const EngineFacts& facts() const { return context_.facts(); }
    RunCacheFacts run_cache_facts();

private:
    void require(bool embedding) const;

    std::shared_ptr<const Model> model_;
    Context context_;
    RunCache cache_;
    Prefill prefill_;
    std::mutex mutex_;
};

}  // namespace specrag
