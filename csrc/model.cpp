#include "model.h"

#include <array>
#include <map>

#include "amx.h"
#include "errors.h"
#include "ggml-backend.h"
#include "library.h"
#include "llama.h"

namespace specrag {
namespace {

std::string meta(const llama_model* model, const std::string& key) {
    std::array<char, 256> buffer{};
    const int n = llama_model_meta_val_str(model, key.c_str(), buffer.data(), buffer.size());
    return n < 0 ? std::string() : std::string(buffer.data());
}

bool is_pooled_encoder(const llama_model* model, const std::string& architecture) {
    if (llama_model_has_encoder(model) && !llama_model_has_decoder(model)) return true;
    if (meta(model, architecture + ".attention.causal") == "false") return true;
    const std::string pooling = meta(model, architecture + ".pooling_type");
    return !pooling.empty() && pooling != "0";
}

const std::map<std::string, llama_ftype>& ftypes() {
    static const std::map<std::string, llama_ftype> types = {
        {"F32", LLAMA_FTYPE_ALL_F32},          {"F16", LLAMA_FTYPE_MOSTLY_F16},
        {"BF16", LLAMA_FTYPE_MOSTLY_BF16},     {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
        {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},     {"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},
        {"Q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},     {"Q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},
        {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M}, {"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S},
        {"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M}, {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},
    };
    return types;
}

std::vector<Token> tokenize_raw(const llama_vocab* vocab, const std::string& text, bool add_special,
                                bool parse_special) {
    std::vector<Token> tokens(text.size() + 8);
    int n =
        llama_tokenize(vocab, text.data(), static_cast<std::int32_t>(text.size()), tokens.data(),
                       static_cast<std::int32_t>(tokens.size()), add_special, parse_special);
    if (n < 0) {
        tokens.resize(static_cast<std::size_t>(-static_cast<std::int64_t>(n)));
        n = llama_tokenize(vocab, text.data(), static_cast<std::int32_t>(text.size()),
                           tokens.data(), static_cast<std::int32_t>(tokens.size()), add_special,
                           parse_special);
        if (n < 0) throw ModelError("the text could not be tokenised: it is too long");
    }
    tokens.resize(static_cast<std::size_t>(n));
    return tokens;
}

}  // namespace

void Model::Deleter::operator()(llama_model* model) const { llama_model_free(model); }

Model::Model(const std::string& path, const ModelOptions& options,
             const std::atomic<bool>* cancel) {
    start_library();
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = options.n_gpu_layers;
    params.main_gpu = options.main_gpu;
    if (must_avoid_amx()) params.use_extra_bufts = false;
    if (!options.use_mmap) params.load_mode = LLAMA_LOAD_MODE_NONE;
    params.progress_callback = [](float, void* flag) {
        return flag == nullptr || !static_cast<const std::atomic<bool>*>(flag)->load();
    };
    params.progress_callback_user_data =
        const_cast<std::atomic<bool>*>(cancel);  // NOLINT: only read through the callback

    take_library_error();
    model_.reset(llama_model_load_from_file(path.c_str(), params));
    if (!model_) {
        if (cancel != nullptr && cancel->load()) throw Cancelled();
        const std::string why = take_library_error();
        throw ModelError(path + " cannot be loaded as a GGUF model" +
                         (why.empty() ? std::string() : ": " + why));
    }
    if (!options.adapter.empty()) {
        adapter_ = llama_adapter_lora_init(model_.get(), options.adapter.c_str());
        if (adapter_ == nullptr) {
            const std::string why = take_library_error();
            throw ModelError(options.adapter + " cannot be used as an adapter of " + path +
                             (why.empty() ? std::string() : ": " + why));
        }
    }
    vocab_ = llama_model_get_vocab(model_.get());

    facts_.path = path;
    facts_.architecture = meta(model_.get(), "general.architecture");
    std::array<char, 256> description{};
    llama_model_desc(model_.get(), description.data(), description.size());
    facts_.description = description.data();
    const char* chat_template = llama_model_chat_template(model_.get(), nullptr);
    facts_.chat_template = chat_template == nullptr ? "" : chat_template;
    facts_.n_params = llama_model_n_params(model_.get());
    facts_.size_bytes = llama_model_size(model_.get());
    facts_.n_ctx_train = llama_model_n_ctx_train(model_.get());
    facts_.n_embd = llama_model_n_embd(model_.get());
    facts_.n_layer = llama_model_n_layer(model_.get());
    facts_.n_vocab = llama_vocab_n_tokens(vocab_);
    facts_.is_embedding = is_pooled_encoder(model_.get(), facts_.architecture);
    facts_.is_cross_encoder =
        facts_.is_embedding && meta(model_.get(), facts_.architecture + ".pooling_type") ==
                                   std::to_string(LLAMA_POOLING_TYPE_RANK);
}

Model::~Model() = default;

Model::Tokens Model::tokenize(const Prompt& prompt) const {
    Tokens out;
    if (llama_vocab_get_add_bos(vocab_)) {
        const Token bos = llama_vocab_bos(vocab_);
        // A template that writes the token itself keeps its own.
        const bool written = !prompt.empty() && prompt.front().control && [&] {
            const auto ids = tokenize_raw(vocab_, prompt.front().text, false, true);
            return !ids.empty() && ids.front() == bos;
        }();
        if (!written && bos >= 0) {
            out.ids.push_back(bos);
            out.segment.push_back(-1);
        }
    }
    for (std::size_t i = 0; i < prompt.size(); ++i) {
        if (prompt[i].text.empty()) continue;
        for (const Token id : tokenize_raw(vocab_, prompt[i].text, false, prompt[i].control)) {
            out.ids.push_back(id);
            out.segment.push_back(static_cast<std::int32_t>(i));
        }
    }
    return out;
}

std::vector<Token> Model::tokenize_text(const std::string& text, bool control) const {
    return text.empty() ? std::vector<Token>() : tokenize_raw(vocab_, text, false, control);
}

std::vector<Token> Model::tokenize_for_embedding(const std::string& text, std::size_t limit) const {
    std::vector<Token> tokens = tokenize_raw(vocab_, text, true, false);
    if (tokens.size() > limit && limit > 0) {
        const Token last = tokens.back();
        const bool has_end = last == llama_vocab_sep(vocab_) || last == llama_vocab_eos(vocab_);
        tokens.resize(limit);
        if (has_end) tokens.back() = last;
    }
    return tokens;
}

std::vector<Token> Model::tokenize_pair(const std::string& first, const std::string& second,
                                        std::size_t first_limit, std::size_t limit) const {
    const Token sep = llama_vocab_sep(vocab_);
    std::vector<Token> head = tokenize_raw(vocab_, first, false, false);
    if (head.size() > first_limit) head.resize(first_limit);
    std::vector<Token> tokens{llama_vocab_bos(vocab_)};
    tokens.insert(tokens.end(), head.begin(), head.end());
    tokens.push_back(sep);
    // The RoBERTa family writes the token between two texts twice.
    if (llama_vocab_type(vocab_) != LLAMA_VOCAB_TYPE_WPM) tokens.push_back(sep);
    const std::vector<Token> tail = tokenize_raw(vocab_, second, false, false);
    tokens.insert(tokens.end(), tail.begin(), tail.end());
    if (tokens.size() + 1 > limit && limit > 1) tokens.resize(limit - 1);
    tokens.push_back(sep);
    return tokens;
}

std::string Model::piece(Token token) const {
    std::array<char, 128> buffer{};
    const int n = llama_token_to_piece(vocab_, token, buffer.data(), buffer.size(), 0, false);
    if (n >= 0) return {buffer.data(), static_cast<std::size_t>(n)};
    std::string large(static_cast<std::size_t>(-n), '\0');
    const int m = llama_token_to_piece(vocab_, token, large.data(),
                                       static_cast<std::int32_t>(large.size()), 0, false);
    large.resize(m < 0 ? 0 : static_cast<std::size_t>(m));
    return large;
}

bool Model::ends_generation(Token token) const { return llama_vocab_is_eog(vocab_, token); }

std::string Model::apply_chat_template(const std::vector<ChatMessage>& messages,
                                       bool add_assistant) const {
    if (facts_.chat_template.empty()) throw ModelError(facts_.path + " has no chat template");
    std::vector<llama_chat_message> chat;
    std::size_t bytes = 256;
    for (const auto& [role, content] : messages) {
        chat.push_back({role.c_str(), content.c_str()});
        bytes += 2 * (role.size() + content.size());
    }
    std::string out(bytes, '\0');
    const auto apply = [&] {
        return llama_chat_apply_template(facts_.chat_template.c_str(), chat.data(), chat.size(),
                                         add_assistant, out.data(),
                                         static_cast<std::int32_t>(out.size()));
    };
    std::int32_t n = apply();
    if (n > static_cast<std::int32_t>(out.size())) {
        out.resize(static_cast<std::size_t>(n));
        n = apply();
    }
    if (n < 0)
        throw ModelError(facts_.path + " has a chat template that the library does not know");
    out.resize(static_cast<std::size_t>(n));
    return out;
}

void quantise(const std::string& src, const std::string& dst, const std::string& type,
              std::int32_t threads) {
    start_library();
    const auto it = ftypes().find(type);
    if (it == ftypes().end()) throw ModelError("unknown quantisation type " + type);
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.nthread = threads;
    params.ftype = it->second;
    params.allow_requantize = true;
    take_library_error();
    if (llama_model_quantize(src.c_str(), dst.c_str(), &params) != 0) {
        const std::string why = take_library_error();
        throw ModelError(src + " cannot be quantised to " + type +
                         (why.empty() ? std::string() : ": " + why));
    }
}

std::vector<std::string> quantisation_types() {
    std::vector<std::string> names;
    for (const auto& [name, ftype] : ftypes()) names.push_back(name);
    return names;
}

}  // namespace specrag
