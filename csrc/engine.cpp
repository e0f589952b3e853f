#include "engine.h"

#include <chrono>
#include <utility>

#include "embed.h"
#include "errors.h"
#include "generate.h"
#include "score.h"

namespace specrag {
namespace {

// Writes the time of a whole call, waiting for other callers not included.
class Stopwatch {
public:
    explicit Stopwatch(Usage& usage) : usage_(usage) { usage_ = Usage(); }
    ~Stopwatch() {
        usage_.total_s =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;

private:
    Usage& usage_;
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace

Engine::Engine(std::shared_ptr<const Model> model, const EngineOptions& options,
               RunCacheOptions cache)
    : model_(std::move(model)),
      context_(*model_, options),
      cache_(std::move(cache)),
      prefill_(context_, cache_) {}

RunCacheFacts Engine::run_cache_facts() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return cache_.facts;
}

void Engine::require(bool embedding) const {
    if (model_->facts().is_embedding == embedding) return;
    throw ModelError(model_->facts().path + " (" + model_->facts().architecture + ") " +
                     (embedding ? "is no embedding model: it cannot embed"
                                : "is an embedding model: it cannot generate or score"));
}

std::vector<Generation> Engine::generate(const std::vector<Prompt>& prompts,
                                         const GenerateOptions& options,
                                         const TextCallback& on_text, CallControl control,
                                         Usage& usage) {
    require(false);
    const std::lock_guard<std::mutex> lock(mutex_);
    const Stopwatch stopwatch(usage);
    return specrag::generate(*model_, context_, prefill_, prompts, options, on_text, control,
                             usage);
}

std::vector<Score> Engine::score(const std::vector<Prompt>& prompts, CallControl control,
                                 Usage& usage) {
    require(false);
    const std::lock_guard<std::mutex> lock(mutex_);
    const Stopwatch stopwatch(usage);
    return specrag::score(*model_, context_, prefill_, prompts, control, usage);
}

std::vector<float> Engine::embed(const std::vector<std::string>& texts, CallControl control,
                                 Usage& usage) {
    require(true);
    if (model_->facts().is_cross_encoder)
        throw ModelError(model_->facts().path + " is a cross-encoder: it ranks and cannot embed");
    const std::lock_guard<std::mutex> lock(mutex_);
    const Stopwatch stopwatch(usage);
    return specrag::embed(*model_, context_, texts, control, usage);
}

std::vector<float> Engine::rank(const std::string& first, const std::vector<std::string>& seconds,
                                const RankOptions& options, CallControl control, Usage& usage) {
    if (!model_->facts().is_cross_encoder)
        throw ModelError(model_->facts().path + " (" + model_->facts().architecture +
                         ") is no cross-encoder: it cannot rank");
    const std::lock_guard<std::mutex> lock(mutex_);
    const Stopwatch stopwatch(usage);
    return specrag::rank(*model_, context_, first, seconds, options, control, usage);
}

}  // namespace specrag
