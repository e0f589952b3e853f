// One prompt of a call of generate, on its way through the stages: which token comes next, and
// where a stage ends.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "completion_text.h"
#include "context.h"
#include "logprob.h"
#include "lookup.h"
#include "model.h"
#include "types.h"

namespace specrag {

class Slot {
public:
    // `position` is the one behind the prompt, `tokens` are the prompt's own. `earlier`: how many
    // prompts before it are equal to it and begin otherwise.
    Slot(std::size_t prompt, SequenceId sequence, std::size_t position, std::vector<Token> tokens,
         std::size_t earlier, const Model& model, const GenerateOptions& options,
         const TextCallback& on_text, Generation& result)
        : prompt_(prompt),
          earlier_(earlier),
          sequence_{sequence},
          position_(static_cast<std::int32_t>(position)),
          lookup_(std::move(tokens)),
          model_(model),
          options_(options),
          on_text_(on_text),
          result_(result),
          random_(options.seed + prompt) {
        begin_stage();
    }

    bool active() const { return active_; }
    std::size_t prompt() const { return prompt_; }
    const std::vector<SequenceId>& sequences() const { return sequence_; }
    const std::vector<Token>& pending() const { return pending_; }
    std::int32_t position() const { return position_; }

    std::size_t stage_index() const { return stage_; }

    // The pending tokens have been computed.
    void advance() {
        position_ += static_cast<std::int32_t>(pending_.size());
        for (const Token token : pending_) lookup_.append(token);
    }

    // Tokens that may follow the pending ones, to be computed with them.
    std::vector<Token> guess() const {
        if (options_.lookup < 1 || options_.temperature > 0.0F || pending_.empty()) return {};
        const std::size_t written = result_.completions.back().tokens.size();
        const auto most = static_cast<std::size_t>(stage().max_tokens);
        if (written + 1 >= most) return {};
        Lookup ahead = lookup_;
        for (const Token token : pending_) ahead.append(token);
        return ahead.propose(
            std::min(static_cast<std::size_t>(options_.lookup), most - written - 1));
    }

    // Whether the next token to compute is this one, and nothing else is.
    bool expects(Token token) const {
        return active_ && pending_.size() == 1 && pending_.front() == token;
    }

    // Takes the next token from the logits behind the last computed token. `context` is told when
    // computed tokens must be forgotten because a stop string began in them.
    void take(const float* logits, Context& context) {
        watch(logits);
        const TokenLogprob next = choose(logits);
        if (model_.ends_generation(next.token)) {
            end_stage(FinishReason::stop, context);
            return;
        }
        Completion& completion = result_.completions.back();
        completion.tokens.push_back(next.token);
        completion.logprobs.push_back(next.logprob);
        pending_ = {next.token};
        if (text_.append(model_.piece(next.token))) {
            end_stage(FinishReason::stop, context);
        } else if (completion.tokens.size() >= static_cast<std::size_t>(stage().max_tokens)) {
            end_stage(FinishReason::length, context);
        } else {
            emit(false);
        }
    }

    void cancel() {
        if (!active_) return;
        finish_completion(FinishReason::cancelled);
        active_ = false;
    }

    // Keeps the logits behind the prompt until it is clear whether the slot goes on.
    void hold(const float* logits) {
        watch(logits);
        held_.assign(logits, logits + model_.n_vocab());
    }

    // The log-probability that the first stage begins with its first watched text.
    double watched() const { return result_.completions.front().watched.front(); }

    // Goes on with the logits that were held.
    void take_held(Context& context) {
        const std::vector<float> logits = std::move(held_);
        take(logits.data(), context);
    }

    // Does not go on: others do.
    void outrank(Context& context) {
        held_ = {};
        context.forget(sequence_.front());
        finish_completion(FinishReason::outranked);
        active_ = false;
    }

private:
    const Stage& stage() const { return options_.stages[stage_]; }

    TokenLogprob pick(const float* logits) {
        const std::size_t n = model_.n_vocab();
        if (options_.temperature <= 0.0F) return greedy(logits, n);
        return draw(logits, n, static_cast<double>(options_.temperature),
                    std::uniform_real_distribution<double>(0.0, 1.0)(random_));
    }

    // Before the first token of a stage: how probable other beginnings were.
    void watch(const float* logits) {
        Completion& completion = result_.completions.back();
        if (!completion.tokens.empty() || !completion.watched.empty()) return;
        watched_.clear();
        for (const std::string& text : stage().watch) {
            const std::vector<Token> tokens = model_.tokenize_text(text, false);
            watched_.push_back(tokens.empty() ? Token{-1} : tokens.front());
            completion.watched.push_back(
                tokens.empty() ? 0.0 : logprob_of(logits, model_.n_vocab(), tokens.front()));
        }
    }

    // Whether a token would end the stage before it has `min_tokens` and says anything. A space may
    // stand first, as it does before a number in vocabularies of single digits, and then no other.
    bool ends_too_early(Token token, std::size_t n_tokens) const {
        const std::size_t least = static_cast<std::size_t>(stage().min_tokens);
        const bool says_nothing = is_blank(text_.text());
        if (least == 0 || (n_tokens >= least && !says_nothing)) return false;
        if (model_.ends_generation(token)) return true;
        const std::string piece = model_.piece(token);
        for (const std::string& stop : stage().stop)
            if (!stop.empty() && piece.find(stop) != std::string::npos) return true;
        const bool may_begin = n_tokens == 0 && stage().max_tokens > 1 && !piece.empty() &&
                               piece.find_first_not_of(' ') == std::string::npos;
        return says_nothing && is_blank(piece) && !may_begin;
    }

    // The next token; while the stage is too short, the best one that does not end it, and at its
    // beginning what `watch_from` says of watched texts, or else, behind as many equal prompts, the
    // next best. Its log-probability is that of the model's own distribution all the same.
    TokenLogprob choose(const float* logits) {
        const Completion& completion = result_.completions.back();
        const std::size_t n_tokens = completion.tokens.size();
        const bool begins = stage().watch_from > 0.0 && n_tokens == 0;
        for (std::size_t i = 0; begins && i < watched_.size(); ++i)
            if (watched_[i] >= 0 && std::exp(completion.watched[i]) >= stage().watch_from)
                return {watched_[i], completion.watched[i]};
        const auto refused = [&](Token token) {
            return ends_too_early(token, n_tokens) ||
                   (begins && std::find(watched_.begin(), watched_.end(), token) != watched_.end());
        };
        std::size_t better = stage_ == 0 && n_tokens == 0 ? earlier_ : 0;  // others begin so
        const TokenLogprob first = pick(logits);
        if (better == 0 && !refused(first.token)) return first;
        std::vector<float> allowed(logits, logits + model_.n_vocab());
        TokenLogprob next = first;
        // Few tokens are white space or an end; the bound is for vocabularies of nothing else.
        for (int tries = 0; tries < 64;) {
            if (refused(next.token))
                ++tries;
            else if (better-- == 0)
                break;
            allowed[static_cast<std::size_t>(next.token)] = -std::numeric_limits<float>::infinity();
            next = pick(allowed.data());
        }
        return {next.token, logprob_of(logits, model_.n_vocab(), next.token)};
    }

    // Whether the stage's text says that none follows.
    bool is_last() const {
        const std::string& text = result_.completions.back().text;
        const auto begin = text.find_first_not_of(" \t\r\n");
        const auto end = text.find_last_not_of(" \t\r\n.");
        if (begin == std::string::npos || end == std::string::npos || end < begin) return false;
        const std::string trimmed = text.substr(begin, end - begin + 1);
        return std::find(stage().last.begin(), stage().last.end(), trimmed) != stage().last.end();
    }

    void begin_stage() {
        text_ = CompletionText(stage().stop);
        stage_start_ = position_;
        result_.completions.emplace_back();
    }

    void emit(bool finished) {
        const std::string fresh = text_.take_certain(finished);
        if (on_text_ && !fresh.empty()) on_text_(prompt_, stage_, fresh);
    }

    void finish_completion(FinishReason reason) {
        Completion& completion = result_.completions.back();
        const std::size_t kept = text_.n_begun_tokens();
        completion.tokens.resize(kept);
        completion.logprobs.resize(kept);
        completion.text = to_valid_utf8(text_.text());
        completion.finish_reason = reason;
        emit(true);
    }

    // Ends the stage; what follows continues the text exactly: tokens that belong to the stop are
    // forgotten, and the bytes before it inside a cut token are tokenised again.
    void end_stage(FinishReason reason, Context& context) {
        finish_completion(reason);
        if (stage_ + 1 == options_.stages.size() || is_last()) {
            active_ = false;
            pending_.clear();
            return;
        }
        const std::size_t whole = text_.n_whole_tokens();
        const std::vector<Token>& tokens = result_.completions.back().tokens;
        pending_.clear();
        const auto computed = static_cast<std::size_t>(position_ - stage_start_);
        if (whole < computed) {
            position_ = stage_start_ + static_cast<std::int32_t>(whole);
            context.forget_from(sequence_.front(), position_);
        } else {
            pending_.assign(tokens.begin() + static_cast<std::ptrdiff_t>(computed),
                            tokens.begin() + static_cast<std::ptrdiff_t>(whole));
        }
        const auto append = [&](const std::string& text, bool control) {
            const std::vector<Token> ids = model_.tokenize_text(text, control);
            pending_.insert(pending_.end(), ids.begin(), ids.end());
        };
        append(text_.remainder(), false);
        for (const Segment& segment : stage().then) append(segment.text, segment.control);
        ++stage_;
        begin_stage();
        stage_start_ = position_ + static_cast<std::int32_t>(pending_.size());
    }

    std::size_t prompt_;
    std::size_t earlier_;
    std::vector<SequenceId> sequence_;
    std::int32_t position_;  // of the next token to compute
    Lookup lookup_;          // of the tokens computed
    const Model& model_;
    const GenerateOptions& options_;
    const TextCallback& on_text_;
    Generation& result_;
    std::mt19937_64 random_;
    std::size_t stage_ = 0;
    std::int32_t stage_start_ = 0;  // position of the stage's first generated token
    CompletionText text_{std::vector<std::string>()};
    std::vector<Token> pending_;  // to be computed in the next step
    std::vector<float> held_;     // logits behind the prompt, while they are held
    std::vector<Token> watched_;  // first tokens of the watched texts of this stage, -1 for none
    bool active_ = true;
};

}  // namespace specrag
