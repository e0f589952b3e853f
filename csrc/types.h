// Plain values that cross the border between the core and Python.
// No llama.h and no pybind11 here: a reader learns the vocabulary from this file alone.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace specrag {

using Token = std::int32_t;

// A piece of a prompt. Segments are tokenised separately, so scored spans are exact.
struct Segment {
    std::string text;
    bool scored = false;   // report the log-probability of each of its tokens
    bool control = false;  // template text of ours: special tokens are parsed only here
    // Sees what stands before all standalone segments of its prompt and itself, but no other one of
    // them. They stand together, start at the same position, and are computed once for all prompts.
    bool standalone = false;
};

using Prompt = std::vector<Segment>;

// One stretch of generation. A stage ends at a stop string, at an end-of-generation token or after
// `max_tokens`; then the tokens of `then` are forced and the next stage begins.
struct Stage {
    std::int32_t max_tokens = 128;
    std::int32_t min_tokens =
        0;  // tokens before which the stage cannot end, whatever the model says
    std::vector<std::string> stop;
    Prompt then;
    std::vector<std::string> watch;  // texts whose first tokens are watched; see Completion
    std::vector<std::string> last;   // texts of this stage, trimmed, after which none follows
    // Above 0: the stage begins with a watched text from this probability on, and below it never.
    double watch_from = 0.0;
};

struct GenerateOptions {
    std::vector<Stage> stages;
    float temperature = 0.0F;  // 0: greedy
    std::uint64_t seed = 0;    // used only when temperature > 0
    std::int32_t lookup = 0;   // tokens proposed per step from what the prompt holds; greedy only
    // Above 0: of the prompts of a call only so many are continued, those whose first stage is
    // least likely to begin with its first watched text. Of a call that needs several passes
    // through the context, each pass continues those that are among the best so far.
    std::int32_t keep = 0;
    // Whether equal prompts of a call begin differently: the second with the token that is next
    // likeliest to the first one's, and so on; greedy only.
    bool distinct = false;
};

// outranked: not continued, since others were kept.
enum class FinishReason { stop, length, cancelled, outranked };

// What one stage produced. `logprobs` holds one natural-log probability per token, under the
// model's own distribution (temperature 1). A token that only carries the stop is not included.
struct Completion {
    std::vector<Token> tokens;
    std::vector<double> logprobs;
    std::string text;
    FinishReason finish_reason = FinishReason::length;
    // Of each watched text, the log-probability that the stage begins with its first token.
    std::vector<double> watched;
};

struct Generation {
    std::vector<Completion> completions;  // one per stage that was begun
};

// Teacher-forced log-probabilities of one scored segment, natural logarithm, one per token.
struct SegmentScore {
    std::vector<Token> tokens;
    std::vector<double> logprobs;
};

struct Score {
    std::vector<SegmentScore> segments;  // one per scored segment, in prompt order
};

// Tokens and seconds of one call.
struct Usage {
    std::int64_t prefilled = 0;  // prompt tokens computed
    std::int64_t reused = 0;     // prompt tokens another prompt or an earlier call had computed
    std::int64_t decoded = 0;    // tokens generated or forced between stages
    std::int64_t proposed = 0;   // tokens computed on a guess
    std::int64_t accepted = 0;   // of those, the ones that greedy agreed with
    double prefill_s = 0.0;      // inside the library's decode call, for prompts
    double decode_s = 0.0;       // inside the library's decode call, for generated tokens
    double total_s = 0.0;        // the whole call
};

// Called with (prompt index, stage index, new text). The text is always whole UTF-8.
using TextCallback = std::function<void(std::size_t, std::size_t, const std::string&)>;

struct ModelFacts {
    std::string path;
    std::string architecture;
    std::string description;
    std::string chat_template;  // empty when the file has none
    std::uint64_t n_params = 0;
    std::uint64_t size_bytes = 0;
    std::int32_t n_ctx_train = 0;
    std::int32_t n_embd = 0;
    std::int32_t n_layer = 0;
    std::int32_t n_vocab = 0;
    bool is_embedding = false;      // pooled encoder: embeds or ranks, does not generate
    bool is_cross_encoder = false;  // its pooled output is the score of a pair of texts
};

// How a cross-encoder reads a pair of texts.
struct RankOptions {
    std::int32_t first_tokens = 64;  // of the first text
    std::int32_t pair_tokens = 192;  // of both, with its own tokens
};

struct EngineOptions {
    std::int32_t n_ctx = 4096;             // KV cells for all sequences together
    std::int32_t n_batch = 512;            // tokens per decode call (also the physical batch)
    std::int32_t n_seq_max = 64;           // sequences in flight
    std::int32_t n_outputs_max = 128;      // logit rows kept per decode call; bounds memory
    std::int32_t threads = 0;              // 0: the library's choice
    std::string flash_attention = "auto";  // "auto" | "on" | "off"
    std::string kv_type = "f16";           // "f16" | "q8_0", of keys and values
};

// Where the cells of standalone runs are kept for later calls. Budgets in bytes, 0: none.
struct RunCacheOptions {
    std::uint64_t host_bytes = 0;
    std::uint64_t disk_bytes = 0;
    std::string folder;    // of the files; empty: none
    bool evict = true;     // whether files may be removed to make room for others
    std::string identity;  // of model, adapter and library: files of another one are not read
};

struct RunCacheFacts {
    std::uint64_t hits = 0;         // runs that were not computed again
    std::uint64_t misses = 0;       // runs that were computed
    std::uint64_t disk_hits = 0;    // of the hits, those read from files
    std::uint64_t disk_errors = 0;  // files that could not be read or written; never fatal
    std::uint64_t host_bytes = 0;   // in use
    std::uint64_t disk_bytes = 0;   // in use, as of the last write
    std::uint64_t restored = 0;     // tokens put back
    double restore_s = 0.0;         // seconds that took, reading included
    double keep_s = 0.0;            // seconds spent on keeping computed runs
};

struct EngineFacts {
    std::int32_t n_ctx = 0;
    std::int32_t n_batch = 0;
    std::int32_t n_seq_max = 0;
    std::int32_t threads = 0;
    std::uint64_t kv_bytes = 0;  // size of the KV cache
    std::uint64_t model_bytes = 0;
};

struct ModelOptions {
    std::int32_t n_gpu_layers = 0;  // negative: all
    std::int32_t main_gpu = 0;      // index among the GPU devices of the library
    bool use_mmap = true;
    std::string adapter;  // a LoRA adapter (GGUF) that every context uses; empty: none
};

}  // namespace specrag
