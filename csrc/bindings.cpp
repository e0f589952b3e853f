// The only file that includes pybind11. Every call that works releases the GIL.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "amx.h"
#include "engine.h"
#include "errors.h"
#include "library.h"

namespace py = pybind11;
using namespace py::literals;

namespace specrag {
namespace {

using MaybeCancelFlag = std::optional<std::shared_ptr<CancelFlag>>;

// Asks Python whether a signal (Ctrl-C) wants to stop the call. Only the main thread has signals;
// elsewhere this is a cheap no.
bool interrupted_by_signal() {
    const py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

// Runs `work` without the GIL; when a signal stopped it, raises what the handler raised.
template <typename Work>
auto without_gil(const std::shared_ptr<CancelFlag>& flag, Work work) {
    bool interrupted = false;
    CallControl control(flag, [&interrupted] { return interrupted = interrupted_by_signal(); });
    try {
        auto result = [&] {
            const py::gil_scoped_release release;
            return work(std::move(control));
        }();
        if (interrupted) throw py::error_already_set();
        return result;
    } catch (const Cancelled&) {
        if (interrupted) throw py::error_already_set();
        throw;
    }
}

// Hands text to Python; an exception in the callback is kept and raised after the call.
TextCallback make_text_callback(const py::object& on_text, const std::shared_ptr<CancelFlag>& stop,
                                std::exception_ptr& error) {
    if (on_text.is_none()) return nullptr;
    return
        [&on_text, stop, &error](std::size_t prompt, std::size_t stage, const std::string& text) {
            const py::gil_scoped_acquire gil;
            if (error) return;
            try {
                on_text(prompt, stage, text);
            } catch (...) {
                error = std::current_exception();
                stop->cancel();
            }
        };
}

std::string finish_reason_name(FinishReason reason) {
    switch (reason) {
        case FinishReason::stop: return "stop";
        case FinishReason::length: return "length";
        case FinishReason::outranked: return "outranked";
        default: return "cancelled";
    }
}

void bind_errors(py::module_& m) {
    static py::exception<ModelError> model_error(m, "ModelError", PyExc_RuntimeError);
    static py::exception<ContextFullError> context_full(m, "ContextFullError", PyExc_RuntimeError);
    static py::exception<DecodeError> decode_error(m, "DecodeError", PyExc_RuntimeError);
    static py::exception<Cancelled> cancelled(m, "Cancelled", PyExc_RuntimeError);
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const ContextFullError& e) {
            // args: message, tokens needed, tokens that fit
            const py::tuple args = py::make_tuple(e.what(), e.n_tokens, e.n_ctx);
            PyErr_SetObject(context_full.ptr(), args.ptr());
        } catch (const ModelError& e) {
            py::set_error(model_error, e.what());
        } catch (const DecodeError& e) {
            py::set_error(decode_error, e.what());
        } catch (const Cancelled& e) {
            py::set_error(cancelled, e.what());
        }
    });
}

void bind_values(py::module_& m) {
    py::class_<Segment>(m, "Segment")
        .def(py::init([](std::string text, bool scored, bool control, bool standalone) {
                 return Segment{std::move(text), scored, control, standalone};
             }),
             "text"_a, py::kw_only(), "scored"_a = false, "control"_a = false,
             "standalone"_a = false)
        .def_readonly("text", &Segment::text)
        .def_readonly("scored", &Segment::scored)
        .def_readonly("control", &Segment::control)
        .def_readonly("standalone", &Segment::standalone);

    py::class_<Stage>(m, "Stage")
        .def(py::init([](std::int32_t max_tokens, std::int32_t min_tokens,
                         std::vector<std::string> stop, std::vector<Segment> then,
                         std::vector<std::string> watch, std::vector<std::string> last,
                         double watch_from) {
                 return Stage{max_tokens,       min_tokens,      std::move(stop), std::move(then),
                              std::move(watch), std::move(last), watch_from};
             }),
             py::kw_only(), "max_tokens"_a, "min_tokens"_a, "stop"_a, "then"_a, "watch"_a, "last"_a,
             "watch_from"_a = 0.0);

    py::class_<Completion>(m, "Completion")
        .def_readonly("tokens", &Completion::tokens)
        .def_readonly("logprobs", &Completion::logprobs)
        .def_readonly("text", &Completion::text)
        .def_readonly("watched", &Completion::watched)
        .def_property_readonly("finish_reason", [](const Completion& c) {
            return finish_reason_name(c.finish_reason);
        });

    py::class_<SegmentScore>(m, "SegmentScore")
        .def_readonly("tokens", &SegmentScore::tokens)
        .def_readonly("logprobs", &SegmentScore::logprobs);

    py::class_<Usage>(m, "Usage")
        .def_readonly("prefilled", &Usage::prefilled)
        .def_readonly("reused", &Usage::reused)
        .def_readonly("decoded", &Usage::decoded)
        .def_readonly("proposed", &Usage::proposed)
        .def_readonly("accepted", &Usage::accepted)
        .def_readonly("prefill_s", &Usage::prefill_s)
        .def_readonly("decode_s", &Usage::decode_s)
        .def_readonly("total_s", &Usage::total_s);

    py::class_<ModelFacts>(m, "ModelFacts")
        .def_readonly("path", &ModelFacts::path)
        .def_readonly("architecture", &ModelFacts::architecture)
        .def_readonly("description", &ModelFacts::description)
        .def_readonly("chat_template", &ModelFacts::chat_template)
        .def_readonly("n_params", &ModelFacts::n_params)
        .def_readonly("size_bytes", &ModelFacts::size_bytes)
        .def_readonly("n_ctx_train", &ModelFacts::n_ctx_train)
        .def_readonly("n_embd", &ModelFacts::n_embd)
        .def_readonly("n_layer", &ModelFacts::n_layer)
        .def_readonly("n_vocab", &ModelFacts::n_vocab)
        .def_readonly("is_embedding", &ModelFacts::is_embedding)
        .def_readonly("is_cross_encoder", &ModelFacts::is_cross_encoder);

    py::class_<EngineFacts>(m, "EngineFacts")
        .def_readonly("n_ctx", &EngineFacts::n_ctx)
        .def_readonly("n_batch", &EngineFacts::n_batch)
        .def_readonly("n_seq_max", &EngineFacts::n_seq_max)
        .def_readonly("threads", &EngineFacts::threads)
        .def_readonly("kv_bytes", &EngineFacts::kv_bytes)
        .def_readonly("model_bytes", &EngineFacts::model_bytes);

    py::class_<RunCacheFacts>(m, "RunCacheFacts")
        .def_readonly("hits", &RunCacheFacts::hits)
        .def_readonly("misses", &RunCacheFacts::misses)
        .def_readonly("disk_hits", &RunCacheFacts::disk_hits)
        .def_readonly("disk_errors", &RunCacheFacts::disk_errors)
        .def_readonly("host_bytes", &RunCacheFacts::host_bytes)
        .def_readonly("disk_bytes", &RunCacheFacts::disk_bytes)
        .def_readonly("restored", &RunCacheFacts::restored)
        .def_readonly("restore_s", &RunCacheFacts::restore_s)
        .def_readonly("keep_s", &RunCacheFacts::keep_s);

    py::class_<Device>(m, "Device")
        .def_readonly("name", &Device::name)
        .def_readonly("description", &Device::description)
        .def_readonly("kind", &Device::kind)
        .def_readonly("memory_total", &Device::memory_total);

    py::class_<CancelFlag, std::shared_ptr<CancelFlag>>(m, "CancelFlag")
        .def(py::init<>())
        .def("cancel", &CancelFlag::cancel)
        .def_property_readonly("cancelled", &CancelFlag::cancelled);
}

void bind_model(py::module_& m) {
    py::class_<Model, std::shared_ptr<Model>>(m, "Model")
        .def(py::init([](const std::string& path, std::int32_t n_gpu_layers, std::int32_t main_gpu,
                         bool use_mmap, const std::string& adapter, const MaybeCancelFlag& cancel) {
                 const ModelOptions options{n_gpu_layers, main_gpu, use_mmap, adapter};
                 const py::gil_scoped_release release;
                 return std::make_shared<Model>(path, options,
                                                cancel ? &(*cancel)->raw() : nullptr);
             }),
             "path"_a, py::kw_only(), "n_gpu_layers"_a = 0, "main_gpu"_a = 0, "use_mmap"_a = true,
             "adapter"_a = "", "cancel"_a = py::none())
        .def_property_readonly("facts", &Model::facts)
        .def(
            "tokenize",
            [](const Model& model, const Prompt& prompt) { return model.tokenize(prompt).ids; },
            "prompt"_a, py::call_guard<py::gil_scoped_release>())
        .def(
            "piece", [](const Model& model, Token token) { return py::bytes(model.piece(token)); },
            "token"_a)
        .def("apply_chat_template", &Model::apply_chat_template, "messages"_a, "add_assistant"_a);
}

void bind_engine(py::module_& m) {
    py::class_<Engine>(m, "Engine")
        .def(py::init([](const std::shared_ptr<Model>& model, std::int32_t n_ctx,
                         std::int32_t n_batch, std::int32_t n_seq_max, std::int32_t n_outputs_max,
                         std::int32_t threads, const std::string& flash_attention,
                         const std::string& kv_type, std::uint64_t cache_host_bytes,
                         std::uint64_t cache_disk_bytes, const std::string& cache_folder,
                         bool cache_evicts, const std::string& cache_identity) {
                 EngineOptions options;
                 options.n_ctx = n_ctx;
                 options.n_batch = n_batch;
                 options.n_seq_max = n_seq_max;
                 options.n_outputs_max = n_outputs_max;
                 options.threads = threads;
                 options.flash_attention = flash_attention;
                 options.kv_type = kv_type;
                 RunCacheOptions cache{cache_host_bytes, cache_disk_bytes, cache_folder,
                                       cache_evicts, cache_identity};
                 const py::gil_scoped_release release;
                 return std::make_unique<Engine>(model, options, std::move(cache));
             }),
             "model"_a, py::kw_only(), "n_ctx"_a, "n_batch"_a, "n_seq_max"_a, "n_outputs_max"_a,
             "threads"_a, "flash_attention"_a, "kv_type"_a = "f16", "cache_host_bytes"_a = 0,
             "cache_disk_bytes"_a = 0, "cache_folder"_a = "", "cache_evicts"_a = true,
             "cache_identity"_a = "")
        .def_property_readonly("facts", &Engine::facts)
        .def("run_cache_facts", &Engine::run_cache_facts, py::call_guard<py::gil_scoped_release>())
        .def(
            "generate",
            [](Engine& engine, const std::vector<Prompt>& prompts, std::vector<Stage> stages,
               float temperature, std::uint64_t seed, std::int32_t lookup, std::int32_t keep,
               bool distinct, const py::object& on_text, const MaybeCancelFlag& cancel) {
                const GenerateOptions options{std::move(stages), temperature, seed, lookup, keep,
                                              distinct};
                const auto flag = cancel.value_or(std::make_shared<CancelFlag>());
                std::exception_ptr error;
                const TextCallback callback = make_text_callback(on_text, flag, error);
                Usage usage;
                auto results = without_gil(flag, [&](CallControl control) {
                    return engine.generate(prompts, options, callback, std::move(control), usage);
                });
                if (error) std::rethrow_exception(error);
                std::vector<std::vector<Completion>> out;
                out.reserve(results.size());
                for (Generation& g : results) out.push_back(std::move(g.completions));
                return std::make_pair(std::move(out), usage);
            },
            "prompts"_a, py::kw_only(), "stages"_a, "temperature"_a, "seed"_a, "lookup"_a = 0,
            "keep"_a = 0, "distinct"_a = false, "on_text"_a = py::none(), "cancel"_a = py::none())
        .def(
            "score",
            [](Engine& engine, const std::vector<Prompt>& prompts, const MaybeCancelFlag& cancel) {
                Usage usage;
                auto results = without_gil(cancel.value_or(nullptr), [&](CallControl control) {
                    return engine.score(prompts, std::move(control), usage);
                });
                std::vector<std::vector<SegmentScore>> out;
                out.reserve(results.size());
                for (Score& s : results) out.push_back(std::move(s.segments));
                return std::make_pair(std::move(out), usage);
            },
            "prompts"_a, py::kw_only(), "cancel"_a = py::none())
        .def(
            "embed",
            [](Engine& engine, const std::vector<std::string>& texts,
               const MaybeCancelFlag& cancel) {
                Usage usage;
                const std::vector<float> rows =
                    without_gil(cancel.value_or(nullptr), [&](CallControl control) {
                        return engine.embed(texts, std::move(control), usage);
                    });
                py::array_t<float> out({static_cast<py::ssize_t>(texts.size()),
                                        static_cast<py::ssize_t>(engine.model().facts().n_embd)});
                std::copy(rows.begin(), rows.end(), out.mutable_data());
                return std::make_pair(out, usage);
            },
            "texts"_a, py::kw_only(), "cancel"_a = py::none())
        .def(
            "rank",
            [](Engine& engine, const std::string& first, const std::vector<std::string>& seconds,
               std::int32_t first_tokens, std::int32_t pair_tokens, const MaybeCancelFlag& cancel) {
                Usage usage;
                const RankOptions options{first_tokens, pair_tokens};
                const std::vector<float> scores =
                    without_gil(cancel.value_or(nullptr), [&](CallControl control) {
                        return engine.rank(first, seconds, options, std::move(control), usage);
                    });
                py::array_t<float> out(static_cast<py::ssize_t>(scores.size()));
                std::copy(scores.begin(), scores.end(), out.mutable_data());
                return std::make_pair(out, usage);
            },
            "first"_a, "seconds"_a, py::kw_only(), "first_tokens"_a, "pair_tokens"_a,
            "cancel"_a = py::none());
}

}  // namespace
}  // namespace specrag

PYBIND11_MODULE(_core, m) {
    using namespace specrag;
    m.doc() = "Native core: models, sequences, KV cells and log-probabilities.";
    bind_errors(m);
    bind_values(m);
    bind_model(m);
    bind_engine(m);
    m.def("start_library", &start_library);
    m.def("library_version", &library_version);
    m.def("library_build_version", &library_build_version);
    m.def("system_info", &system_info);
    m.def("amx_state", [] {
        start_library();
        return amx_state();
    });
    m.def("supports_gpu_offload", &supports_gpu_offload);
    m.def("devices", &devices);
    m.def("quantise", &quantise, "src"_a, "dst"_a, "type"_a, "threads"_a = 0,
          py::call_guard<py::gil_scoped_release>());
    m.def("quantisation_types", &quantisation_types);
}
