#include "context.h"

#include <algorithm>
#include <chrono>

#include "errors.h"
#include "library.h"
#include "llama.h"
#include "model.h"

namespace specrag {
namespace {

llama_flash_attn_type flash_attention_type(const std::string& name) {
    if (name == "auto") return LLAMA_FLASH_ATTN_TYPE_AUTO;
    if (name == "on") return LLAMA_FLASH_ATTN_TYPE_ENABLED;
    if (name == "off") return LLAMA_FLASH_ATTN_TYPE_DISABLED;
    throw ModelError("flash_attention must be auto, on or off, got " + name);
}

ggml_type kv_type_of(const std::string& name) {
    if (name == "f16") return GGML_TYPE_F16;
    if (name == "q8_0") return GGML_TYPE_Q8_0;
    throw ModelError("kv_type must be f16 or q8_0, got " + name);
}

std::uint64_t kv_bytes_of(const llama_model* model, std::uint64_t cells, ggml_type type) {
    const auto heads = static_cast<std::uint64_t>(std::max(1, llama_model_n_head(model)));
    const auto kv_heads = static_cast<std::uint64_t>(std::max(1, llama_model_n_head_kv(model)));
    const auto width = static_cast<std::uint64_t>(llama_model_n_embd(model)) / heads * kv_heads;
    const auto layers = static_cast<std::uint64_t>(llama_model_n_layer(model));
    return cells * layers * 2 /* K and V */ * ggml_row_size(type, static_cast<std::int64_t>(width));
}

}  // namespace

void Context::Deleter::operator()(llama_context* context) const { llama_free(context); }

Context::Context(const Model& model, const EngineOptions& options) {
    const bool embedding = model.facts().is_embedding;
    if (!embedding && (llama_model_is_recurrent(model.raw()) || llama_model_is_hybrid(model.raw())))
        throw ModelError(
            model.facts().path + " (" + model.facts().architecture +
            ") keeps a recurrent state, which prompts cannot share: use a transformer");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<std::uint32_t>(options.n_ctx);
    params.n_batch = static_cast<std::uint32_t>(options.n_batch);
    params.n_ubatch = params.n_batch;
    params.n_seq_max = static_cast<std::uint32_t>(options.n_seq_max);
    params.flash_attn_type = flash_attention_type(options.flash_attention);
    params.type_k = params.type_v = kv_type_of(options.kv_type);
    params.kv_unified = true;
    params.swa_full = true;
    params.no_perf = true;
    if (embedding) {
        params.embeddings = true;
        n_outputs_max_ = static_cast<std::size_t>(options.n_batch);
    } else {
        n_outputs_max_ = static_cast<std::size_t>(
            std::max(std::min(options.n_outputs_max, options.n_batch), options.n_seq_max));
        params.n_outputs_max = static_cast<std::uint32_t>(n_outputs_max_);
    }
    if (options.threads > 0) {
        params.n_threads = options.threads;
        params.n_threads_batch = options.threads;
    }
    params.abort_callback = [](void* self) {
        CallControl* control = static_cast<Context*>(self)->control_;
        return control != nullptr && control->should_stop();
    };
    params.abort_callback_data = this;

    take_library_error();
    context_.reset(llama_init_from_model(model.raw(), params));
    if (!context_) {
        const std::string why = take_library_error();
        throw ModelError("no context of " + std::to_string(options.n_ctx) + " tokens for " +
                         model.facts().path + (why.empty() ? std::string() : ": " + why));
    }
    if (llama_adapter_lora* adapter = model.adapter(); adapter != nullptr) {
        float scale = 1.0F;
        if (llama_set_adapters_lora(context_.get(), &adapter, 1, &scale) != 0)
            throw ModelError("the adapter of " + model.facts().path + " cannot be applied");
    }
    facts_.n_ctx = static_cast<std::int32_t>(llama_n_ctx(context_.get()));
    facts_.n_batch = static_cast<std::int32_t>(llama_n_batch(context_.get()));
    facts_.n_seq_max = static_cast<std::int32_t>(llama_n_seq_max(context_.get()));
    facts_.threads = llama_n_threads(context_.get());
    facts_.model_bytes = model.facts().size_bytes;
    if (!embedding)
        facts_.kv_bytes =
            kv_bytes_of(model.raw(), static_cast<std::uint64_t>(facts_.n_ctx), params.type_k);
}

Context::~Context() = default;

void Context::decode(Batch& batch, CallControl& control, double& seconds) {
    if (control.should_stop()) {
        clear();
        throw Cancelled();
    }
    control_ = &control;
    take_library_error();
    const auto begin = std::chrono::steady_clock::now();
    const std::int32_t rc = llama_decode(context_.get(), batch.view());
    llama_synchronize(context_.get());
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    control_ = nullptr;
    if (rc == 0) return;
    clear();
    if (rc == 2) throw Cancelled();
    if (rc == 1) throw DecodeError("the KV cache has no room for the batch");
    const std::string why = take_library_error();
    throw DecodeError("the library's decode call failed with code " + std::to_string(rc) +
                      (why.empty() ? std::string() : ": " + why));
}

const float* Context::logits(std::size_t i) const {
    const float* row = llama_get_logits_ith(context_.get(), static_cast<std::int32_t>(i));
    if (row == nullptr) throw DecodeError("the library returned no logits for an output token");
    return row;
}

const float* Context::pooled_embedding(SequenceId sequence) const {
    const float* row = llama_get_embeddings_seq(context_.get(), sequence);
    if (row == nullptr) throw DecodeError("the library returned no embedding for a sequence");
    return row;
}

void Context::clear() {
    if (llama_memory_t memory = llama_get_memory(context_.get())) llama_memory_clear(memory, false);
}

void Context::forget(SequenceId sequence) {
    llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, -1, -1);
}

bool Context::forget_from(SequenceId sequence, std::int32_t from) {
    return llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, from, -1);
}

void Context::forget_range(SequenceId sequence, std::int32_t begin, std::int32_t end) {
    if (begin < end) llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, begin, end);
}

void Context::share(SequenceId from, SequenceId to, std::int32_t begin, std::int32_t end) {
    if (begin < end) llama_memory_seq_cp(llama_get_memory(context_.get()), from, to, begin, end);
}

std::vector<std::uint8_t> Context::save(SequenceId sequence) const {
    std::vector<std::uint8_t> bytes(llama_state_seq_get_size(context_.get(), sequence));
    bytes.resize(llama_state_seq_get_data(context_.get(), bytes.data(), bytes.size(), sequence));
    return bytes;
}

bool Context::restore(SequenceId sequence, const std::vector<std::uint8_t>& bytes) {
    take_library_error();
    const std::size_t read =
        llama_state_seq_set_data(context_.get(), bytes.data(), bytes.size(), sequence);
    if (read == bytes.size() && read > 0) return true;
    forget(sequence);
    return false;
}

}  // namespace specrag
