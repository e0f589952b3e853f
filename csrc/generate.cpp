#include "generate.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "errors.h"
#include "passes.h"
#include "slot.h"
#include "splice.h"

namespace specrag {
namespace {

// Tokens that one prompt may add to the memory: what stages generate and what is forced between.
std::size_t room_of(const Model& model, const GenerateOptions& options) {
    std::size_t room = 0;
    for (const Stage& stage : options.stages) {
        room += static_cast<std::size_t>(stage.max_tokens) + 4;  // a cut token may be split anew
        for (const Segment& segment : stage.then)
            room += model.tokenize_text(segment.text, segment.control).size();
    }
    return room + static_cast<std::size_t>(std::max(0, options.lookup));
}

void check(const GenerateOptions& options) {
    if (options.stages.empty()) throw ModelError("generate needs at least one stage");
    if (options.keep > 0 && options.stages.front().watch.empty())
        throw ModelError("to keep some prompts the first stage needs a text to watch");
    if (options.distinct && options.temperature > 0.0F)
        throw ModelError("equal prompts begin differently only with a temperature of 0");
    for (std::size_t i = 0; i < options.stages.size(); ++i) {
        const Stage& stage = options.stages[i];
        if (stage.min_tokens > stage.max_tokens)
            throw ModelError("a stage's min_tokens cannot be larger than its max_tokens");
        if (stage.max_tokens < 1) throw ModelError("a stage needs max_tokens of at least 1");
        bool forces = false;
        for (const Segment& segment : stage.then) forces = forces || !segment.text.empty();
        if (!forces && i + 1 < options.stages.size())
            throw ModelError("a stage that is followed by another needs a text to force between");
    }
}

// What a slot added to a batch: where the logits behind its pending tokens stand, and its guesses
// behind them.
struct Row {
    Slot* slot;
    std::size_t output;
    std::vector<Token> guess;
};

// One step of all active slots.
void step(Context& context, std::vector<Slot>& slots, CallControl& control, Usage& usage) {
    Batch batch;
    std::vector<Row> rows;
    const auto flush = [&] {
        if (batch.size() == 0) return;
        context.decode(batch, control, usage.decode_s);
        for (const auto& [slot, output, guess] : rows) {
            usage.decoded += static_cast<std::int64_t>(slot->pending().size());
            usage.proposed += static_cast<std::int64_t>(guess.size());
            slot->advance();
            slot->take(context.logits(output), context);
            // A guess that is the next token of the same stage has been computed already.
            const std::size_t stage = slot->stage_index();
            std::size_t accepted = 0;
            while (accepted < guess.size() && slot->stage_index() == stage &&
                   slot->expects(guess[accepted])) {
                ++accepted;
                slot->advance();
                slot->take(context.logits(output + accepted), context);
            }
            usage.accepted += static_cast<std::int64_t>(accepted);
            usage.decoded += static_cast<std::int64_t>(accepted);
            if (!slot->active())
                context.forget(slot->sequences().front());
            else if (accepted < guess.size())
                context.forget_from(slot->sequences().front(), slot->position());
        }
        batch.clear();
        rows.clear();
    };
    for (Slot& slot : slots) {
        if (!slot.active()) continue;
        const std::vector<Token>& pending = slot.pending();
        std::vector<Token> guess = slot.guess();
        const std::size_t n_outputs = 1 + guess.size();
        if (n_outputs > context.n_outputs_max()) guess.clear();
        if (batch.size() + pending.size() + guess.size() > context.n_batch() ||
            batch.n_outputs() + 1 + guess.size() > context.n_outputs_max())
            flush();
        std::int32_t position = slot.position();
        for (std::size_t i = 0; i < pending.size(); ++i)
            batch.add(pending[i], position++, slot.sequences(), i + 1 == pending.size());
        const std::size_t output = batch.size() - 1;
        for (const Token token : guess) batch.add(token, position++, slot.sequences(), true);
        rows.push_back({&slot, output, std::move(guess)});
    }
    flush();
}

// Prompts by how likely they are to begin with the watched text, the least likely first.
using Ranking = std::set<std::pair<double, std::size_t>>;

// Of the slots that hold their logits those go on that are among the best of all so far.
void go_on_with_best(std::vector<Slot>& slots, std::size_t best, Ranking& ranking,
                     Context& context) {
    for (const Slot& slot : slots) ranking.emplace(slot.watched(), slot.prompt());
    std::set<std::size_t> kept;
    for (auto next = ranking.begin(); next != ranking.end() && kept.size() < best; ++next)
        kept.insert(next->second);
    for (Slot& slot : slots) {
        if (kept.count(slot.prompt()) > 0)
            slot.take_held(context);
        else
            slot.outrank(context);
    }
}

}  // namespace

std::vector<Generation> generate(const Model& model, Context& context, Prefill& prefill,
                                 const std::vector<Prompt>& prompts, const GenerateOptions& options,
                                 const TextCallback& on_text, CallControl& control, Usage& usage) {
    std::vector<Generation> results(prompts.size());
    check(options);
    std::vector<std::vector<Token>> tokens;  // flat
    std::vector<std::vector<Token>> own;     // in the order of the prompt, for lookup
    SpliceTable table;
    for (const Prompt& prompt : prompts) {
        Model::Tokens all = model.tokenize(prompt);
        if (all.ids.empty()) throw ModelError("an empty prompt cannot be continued");
        own.push_back(options.lookup > 0 ? all.ids : std::vector<Token>());
        tokens.push_back(table.flatten(prompt, std::move(all.ids), std::move(all.segment)).tokens);
        if (is_splice(tokens.back().back()))
            throw ModelError("a prompt that ends in a standalone segment cannot be continued");
    }

    std::map<std::vector<Token>, std::size_t> equal;
    std::vector<std::size_t> earlier;  // of each prompt, those before it that are equal to it
    for (const std::vector<Token>& flat : tokens)
        earlier.push_back(options.distinct ? equal[flat]++ : 0);

    const auto best = static_cast<std::size_t>(std::max(0, options.keep));
    PassLimits limits = limits_of(model, context, prefill, table);
    if (best > 0) limits.max_continued = best;
    Ranking ranking;
    bool cancelled = false;
    for (const Pass& pass : plan_passes(tokens, table, room_of(model, options), limits)) {
        std::vector<Slot> slots;
        slots.reserve(pass.prompts.size());
        for (std::size_t i = 0; i < pass.prompts.size(); ++i) {
            const std::size_t p = pass.prompts[i];
            slots.emplace_back(p, static_cast<SequenceId>(i), table.n_positions(tokens[p]),
                               std::move(own[p]), earlier[p], model, options, on_text, results[p]);
        }
        if (!cancelled) {
            const TreeOrder order(pass.tree);
            std::vector<char> wanted(order.size(), 0);
            std::vector<std::vector<Slot*>> readers(order.size());
            for (std::size_t i = 0; i < slots.size(); ++i) {
                const std::size_t last = order.index(i, tokens[pass.prompts[i]].size() - 1);
                wanted[last] = 1;
                readers[last].push_back(&slots[i]);
            }
            try {
                prefill.run(
                    pass, table, order, wanted, control,
                    [&](std::size_t at, const float* logits) {
                        for (Slot* slot : readers[at])
                            if (best > 0)
                                slot->hold(logits);
                            else
                                slot->take(logits, context);
                    },
                    usage);
                if (best > 0) go_on_with_best(slots, best, ranking, context);
                const auto any_active = [&] {
                    for (const Slot& slot : slots)
                        if (slot.active()) return true;
                    return false;
                };
                while (any_active()) step(context, slots, control, usage);
                prefill.release(slots.size());
            } catch (const Cancelled&) {
                prefill.invalidate();
                cancelled = true;
            } catch (...) {
                prefill.invalidate();
                throw;
            }
        }
        if (cancelled)
            for (Slot& slot : slots) slot.cancel();
    }
    return results;
}

}  // namespace specrag
