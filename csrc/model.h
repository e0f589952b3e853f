// A loaded GGUF: its facts, its tokeniser and its chat template.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "types.h"

struct llama_adapter_lora;
struct llama_model;
struct llama_vocab;

namespace specrag {

// A message of a chat: role ("system", "user", "assistant") and content.
using ChatMessage = std::pair<std::string, std::string>;

class Model {
public:
    // Throws ModelError when the file is no usable model, or its adapter does not fit. `cancel`
    // (may be null) stops loading.
    Model(const std::string& path, const ModelOptions& options, const std::atomic<bool>* cancel);
    ~Model();
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    const ModelFacts& facts() const { return facts_; }
    llama_model* raw() const { return model_.get(); }
    llama_adapter_lora* adapter() const { return adapter_; }

    // Tokens of the prompt and, per token, the index of its segment. The model's own
    // beginning-of-sequence token comes first where the model wants one (segment -1).
    struct Tokens {
        std::vector<Token> ids;
        std::vector<std::int32_t> segment;
    };
    Tokens tokenize(const Prompt& prompt) const;

    // Tokens of a text without any special token added; parsed only when `control`.
    std::vector<Token> tokenize_text(const std::string& text, bool control) const;

    // For an encoder: with its own start and end tokens, cut to `limit` tokens, the end token kept.
    std::vector<Token> tokenize_for_embedding(const std::string& text, std::size_t limit) const;

    // For a cross-encoder: a pair of texts with its own tokens before, between and after. The first
    // is cut to `first_limit` tokens, the pair to `limit`, the end token kept.
    std::vector<Token> tokenize_pair(const std::string& first, const std::string& second,
                                     std::size_t first_limit, std::size_t limit) const;

    // The bytes of a token; empty for control tokens.
    std::string piece(Token token) const;
    bool ends_generation(Token token) const;
    std::size_t n_vocab() const { return static_cast<std::size_t>(facts_.n_vocab); }

    // The chat as the model's template writes it. Throws ModelError when the model has no template
    // or the library does not know it.
    std::string apply_chat_template(const std::vector<ChatMessage>& messages,
                                    bool add_assistant) const;

private:
    struct Deleter {
        void operator()(llama_model* model) const;
    };
    std::unique_ptr<llama_model, Deleter> model_;
    llama_adapter_lora* adapter_ = nullptr;  // freed with the model
    const llama_vocab* vocab_ = nullptr;
    ModelFacts facts_;
};

// Writes `src` to `dst` with its weights in another type ("Q8_0", "Q4_0", ...).
void quantise(const std::string& src, const std::string& dst, const std::string& type,
              std::int32_t threads);

// The names that `quantise` accepts.
std::vector<std::string> quantisation_types();

}  // namespace specrag
