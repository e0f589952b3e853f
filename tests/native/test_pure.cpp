// Tests of the parts of the core that need no model, built with AddressSanitizer and UBSan.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "batch.h"
#include "completion_text.h"
#include "errors.h"
#include "logprob.h"
#include "lookup.h"
#include "passes.h"
#include "prompt_tree.h"
#include "run_cache.h"
#include "splice.h"

using namespace specrag;

namespace {

int failures = 0;
int checks = 0;

void check(bool ok, const char* what, int line) {
    ++checks;
    if (ok) return;
    ++failures;
    std::fprintf(stderr, "line %d: %s\n", line, what);
}
#define CHECK(condition) check((condition), #condition, __LINE__)
#define CHECK_NEAR(a, b, tolerance) check(std::abs((a) - (b)) <= (tolerance), #a " ~ " #b, __LINE__)

double exact_log_sum_exp(const std::vector<float>& logits) {
    long double peak = -std::numeric_limits<long double>::infinity();
    for (const float x : logits) peak = std::max(peak, static_cast<long double>(x));
    long double total = 0.0L;
    for (const float x : logits) total += std::exp(static_cast<long double>(x) - peak);
    return static_cast<double>(peak + std::log(total));
}

void log_probabilities_are_exact() {
    std::mt19937 random(1);
    for (const std::size_t n : {1, 2, 15, 16, 17, 1000, 49152, 151936}) {
        for (const float spread : {0.01F, 3.0F, 40.0F, 900.0F}) {
            std::normal_distribution<float> normal(-5.0F, spread);
            std::vector<float> logits(n);
            for (float& x : logits) x = normal(random);
            const double exact = exact_log_sum_exp(logits);
            CHECK_NEAR(log_sum_exp(logits.data(), n), exact, 1e-6 * std::max(1.0, std::abs(exact)));
            const TokenLogprob best = greedy(logits.data(), n);
            for (const float x : logits) CHECK(logits[static_cast<std::size_t>(best.token)] >= x);
            CHECK_NEAR(best.logprob, logprob_of(logits.data(), n, best.token), 1e-5);
            CHECK(best.logprob <= 1e-9);
        }
    }
}

void extreme_logits_stay_finite() {
    std::vector<float> logits(100, -std::numeric_limits<float>::infinity());
    logits[3] = 88.0F;
    CHECK_NEAR(log_sum_exp(logits.data(), logits.size()), 88.0, 1e-6);
    CHECK(greedy(logits.data(), logits.size()).token == 3);
    CHECK(logprob_of(logits.data(), logits.size(), 4) == -std::numeric_limits<double>::infinity());
    logits.assign(100, 3.0e4F);
    CHECK_NEAR(logprob_of(logits.data(), logits.size(), 7), -std::log(100.0), 1e-6);
    CHECK(greedy(logits.data(), logits.size()).token == 0);  // the lowest index among equals
}

void draws_follow_the_distribution() {
    const std::vector<float> logits = {std::log(0.5F), std::log(0.3F), std::log(0.2F)};
    std::vector<int> counts(3, 0);
    const int n = 10000;
    for (int i = 0; i < n; ++i) {
        const TokenLogprob t = draw(logits.data(), 3, 1.0, (i + 0.5) / n);
        ++counts[static_cast<std::size_t>(t.token)];
        CHECK_NEAR(t.logprob, static_cast<double>(logits[static_cast<std::size_t>(t.token)]), 1e-6);
    }
    CHECK_NEAR(counts[0], 5000, 2);
    CHECK_NEAR(counts[1], 3000, 2);
    CHECK(draw(logits.data(), 3, 0.01, 0.999).token == 0);
}

// What the tree holds for a prompt, read back run by run.
std::vector<Token> path_of(const PromptTree& tree, std::size_t prompt) {
    std::vector<Token> out;
    for (const PromptTree::Run* run : tree.depth_first()) {
        bool mine = false;
        for (const std::size_t p : run->prompts) mine = mine || p == prompt;
        if (!mine) continue;
        CHECK(run->start == out.size());
        out.insert(out.end(), run->tokens.begin(), run->tokens.end());
    }
    return out;
}

std::size_t distinct_prefixes(const std::vector<std::vector<Token>>& prompts) {
    std::vector<std::vector<Token>> seen;
    for (const auto& prompt : prompts) {
        for (std::size_t n = 1; n <= prompt.size(); ++n) {
            std::vector<Token> prefix(prompt.begin(),
                                      prompt.begin() + static_cast<std::ptrdiff_t>(n));
            bool known = false;
            for (const auto& s : seen) known = known || s == prefix;
            if (!known) seen.push_back(prefix);
        }
    }
    return seen.size();
}

void a_tree_holds_every_prefix_once() {
    std::mt19937 random(2);
    for (int round = 0; round < 300; ++round) {
        std::vector<std::vector<Token>> prompts(1 + random() % 6);
        for (auto& prompt : prompts) {
            prompt.resize(1 + random() % 8);
            for (Token& t : prompt) t = static_cast<Token>(random() % 2);
        }
        PromptTree tree;
        for (const auto& prompt : prompts) {
            const std::size_t before = tree.n_tokens();
            const std::size_t missing = tree.missing(prompt);
            tree.insert(prompt);
            CHECK(tree.n_tokens() == before + missing);
            CHECK(tree.missing(prompt) == 0);
        }
        CHECK(tree.n_prompts() == prompts.size());
        CHECK(tree.n_tokens() == distinct_prefixes(prompts));
        std::size_t stored = 0;
        for (const PromptTree::Run* run : tree.depth_first()) {
            CHECK(!run->tokens.empty());
            stored += run->tokens.size();
        }
        CHECK(stored == tree.n_tokens());
        for (std::size_t p = 0; p < prompts.size(); ++p) CHECK(path_of(tree, p) == prompts[p]);
        const std::vector<Token> shared = tree.shared_prefix();
        for (const auto& prompt : prompts) {
            CHECK(prompt.size() >= shared.size());
            for (std::size_t i = 0; i < shared.size() && i < prompt.size(); ++i)
                CHECK(prompt[i] == shared[i]);
        }
    }
}

void passes_keep_within_their_limits() {
    std::mt19937 random(3);
    for (int round = 0; round < 200; ++round) {
        std::vector<std::vector<Token>> prompts(1 + random() % 20);
        for (auto& prompt : prompts) {
            prompt.assign(1 + random() % 30, 0);
            for (Token& t : prompt) t = static_cast<Token>(random() % 3);
        }
        const std::size_t room = random() % 5;
        const PassLimits limits{40, 40, 1 + random() % 5};
        std::vector<std::size_t> order;
        for (const Pass& pass : plan_passes(prompts, SpliceTable(), room, limits)) {
            CHECK(pass.prompts.size() <= limits.max_prompts);
            CHECK(pass.tree.n_tokens() + room * pass.prompts.size() <= limits.capacity);
            std::size_t tokens = 0;
            for (const std::size_t p : pass.prompts) {
                order.push_back(p);
                tokens += prompts[p].size();
            }
            CHECK(tokens == pass.n_prompt_tokens);
        }
        CHECK(order.size() == prompts.size());
        for (std::size_t i = 0; i < order.size(); ++i) CHECK(order[i] == i);
    }
    bool refused = false;
    try {
        plan_passes({std::vector<Token>(10, 1)}, SpliceTable(), 5, {100, 12, 4});
    } catch (const ContextFullError& e) {
        refused = e.n_tokens == 15 && e.n_ctx == 12;
    }
    CHECK(refused);
}

// A prompt of one-token segments: head, standalone runs (each of one segment), tail.
FlatPrompt flat_of(SpliceTable& table, const std::vector<Token>& head,
                   const std::vector<std::vector<Token>>& runs, const std::vector<Token>& tail) {
    Prompt prompt(1 + runs.size() + 1);
    std::vector<Token> tokens = head;
    std::vector<std::int32_t> segment(head.size(), 0);
    for (std::size_t i = 0; i < runs.size(); ++i) {
        prompt[i + 1].standalone = true;
        tokens.insert(tokens.end(), runs[i].begin(), runs[i].end());
        segment.insert(segment.end(), runs[i].size(), static_cast<std::int32_t>(i + 1));
    }
    tokens.insert(tokens.end(), tail.begin(), tail.end());
    segment.insert(segment.end(), tail.size(), static_cast<std::int32_t>(runs.size() + 1));
    return table.flatten(prompt, std::move(tokens), std::move(segment));
}

void standalone_runs_become_one_mark() {
    SpliceTable table;
    const FlatPrompt a = flat_of(table, {1, 2}, {{5, 6, 7}, {8}}, {3, 4});
    const FlatPrompt b = flat_of(table, {1, 2}, {{8}, {5, 6, 7}}, {3, 4});
    const FlatPrompt c = flat_of(table, {1, 2}, {{8}, {9, 9}}, {3, 4});
    const FlatPrompt other_head = flat_of(table, {1}, {{8}, {9, 9}}, {3, 4});
    const FlatPrompt exact = flat_of(table, {1, 2}, {}, {3, 4});
    CHECK((a.tokens == std::vector<Token>{1, 2, -1, 3, 4}));
    CHECK((a.segment == std::vector<std::int32_t>{0, 0, -1, 3, 3}));
    CHECK(b.tokens == a.tokens);  // the order of runs does not matter
    CHECK(c.tokens != a.tokens);
    CHECK((exact.tokens == std::vector<Token>{1, 2, 3, 4}));
    CHECK(table.n_runs() == 5);  // 567, 8 and 99 behind one head, 8 and 99 behind the other
    CHECK(table.n_tokens(a.tokens) == 8 && table.n_positions(a.tokens) == 7);
    CHECK(table.n_tokens(c.tokens) == 7 && table.n_positions(c.tokens) == 6);
    CHECK(table.n_tokens(exact.tokens) == 4 && table.n_positions(exact.tokens) == 4);
    CHECK(other_head.tokens.size() == 4);
    // Runs are counted once for all prompts of a pass, and limits hold with them.
    const auto passes = plan_passes({a.tokens, b.tokens, c.tokens}, table, 1, {100, 100, 10});
    CHECK(passes.size() == 1);
    CHECK(passes[0].runs.size() == 3 && passes[0].n_run_tokens == 6);
    CHECK(passes[0].n_prompt_tokens == 8 + 8 + 7);
    CHECK(passes[0].tree.n_tokens() == 2 + 3 + 3);
    const auto tight = plan_passes({a.tokens, b.tokens, c.tokens}, table, 1, {11, 100, 10});
    CHECK(tight.size() == 2);

    const auto refuses = [](std::vector<bool> standalone, bool scored) {
        SpliceTable fresh;
        Prompt prompt(standalone.size());
        std::vector<Token> tokens;
        std::vector<std::int32_t> segment;
        for (std::size_t i = 0; i < standalone.size(); ++i) {
            prompt[i].standalone = standalone[i];
            prompt[i].scored = scored;
            tokens.push_back(static_cast<Token>(i));
            segment.push_back(static_cast<std::int32_t>(i));
        }
        try {
            fresh.flatten(prompt, tokens, segment);
        } catch (const ModelError&) {
            return true;
        }
        return false;
    };
    CHECK(refuses({false, true, false, true}, false));
    CHECK(refuses({false, true}, true));
    CHECK(!refuses({true, true, false}, false));
}

void guesses_follow_what_was_there() {
    Lookup text({1, 2, 3, 4, 5, 9, 1, 2, 3});
    CHECK((text.propose(2) == std::vector<Token>{4, 5}));
    CHECK((text.propose(100) == std::vector<Token>{4, 5, 9, 1, 2, 3}));
    CHECK(text.propose(0).empty());
    text.append(7);
    CHECK(text.propose(3).empty());
    text.append(2);
    text.append(3);  // the last three never stood before, the last two did: lately before 7
    CHECK((text.propose(2) == std::vector<Token>{7, 2}));
    CHECK(Lookup({4, 4, 4, 4}).propose(1) == std::vector<Token>{4});
    CHECK(Lookup({}).propose(3).empty());
    CHECK(Lookup({1, 2}).propose(3).empty());
}

RunCache::Bytes some_bytes(std::size_t n, std::uint8_t seed) {
    RunCache::Bytes bytes(n);
    for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::uint8_t>(seed + i * 7);
    return bytes;
}

void the_cache_keeps_to_its_budget() {
    std::mt19937 random(5);
    RunCacheOptions options;
    options.host_bytes = 1000;
    RunCache cache(options);
    std::vector<Token> last_used;
    for (int round = 0; round < 2000; ++round) {
        const auto token = static_cast<Token>(random() % 30);
        const SpliceTable::Run run{{1}, {token}};
        if (const auto found = cache.get(run)) {
            CHECK(*found == some_bytes(50 + static_cast<std::size_t>(token) * 10,
                                       static_cast<std::uint8_t>(token)));
        } else {
            cache.put(run, some_bytes(50 + static_cast<std::size_t>(token) * 10,
                                      static_cast<std::uint8_t>(token)));
            CHECK(cache.get(run) != nullptr);
        }
        CHECK(cache.facts.host_bytes <= options.host_bytes);
    }
    CHECK(cache.facts.hits > 0 && cache.facts.misses > 0);
    cache.put({{1}, {99}}, some_bytes(1001, 0));  // larger than all there is
    CHECK(cache.get({{1}, {99}}) == nullptr);
    CHECK(cache.get({{2}, {3}}) == nullptr);  // the same run behind another head is another one
    // The least recently used goes first.
    RunCache small(options);
    small.put({{}, {1}}, some_bytes(400, 1));
    small.put({{}, {2}}, some_bytes(400, 2));
    CHECK(small.get({{}, {1}}) != nullptr);
    small.put({{}, {3}}, some_bytes(400, 3));
    CHECK(small.get({{}, {1}}) != nullptr && small.get({{}, {2}}) == nullptr);
    CHECK(!RunCache(RunCacheOptions()).enabled());
}

std::uint64_t folder_bytes(const std::filesystem::path& folder) {
    std::uint64_t total = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        total += entry.file_size();
    return total;
}

void files_of_the_cache_are_safe() {
    namespace fs = std::filesystem;
    const fs::path folder =
        fs::temp_directory_path() / ("specrag-run-cache-" + std::to_string(std::random_device()()));
    RunCacheOptions options;
    options.disk_bytes = 5000;
    options.folder = folder.string();
    options.identity = "one model";
    const SpliceTable::Run run{{1, 2}, {3, 4, 5}};
    {
        RunCache cache(options);
        cache.put(run, some_bytes(1000, 4));
    }
    RunCache again(options);
    const auto found = again.get(run);
    CHECK(found && *found == some_bytes(1000, 4));
    CHECK(again.facts.disk_hits == 1);

    RunCacheOptions other = options;
    other.identity = "two model";
    CHECK(RunCache(other).get(run) == nullptr);
    CHECK(RunCache(options).get(run) != nullptr);  // and the file is still there

    // Whatever happens to a file, it is a miss and never other bytes.
    const fs::path file = fs::directory_iterator(folder)->path();
    const auto size = fs::file_size(file);
    std::mt19937 random(6);
    for (int round = 0; round < 200; ++round) {
        RunCache cache(options);
        cache.put(run, some_bytes(1000, 4));
        CHECK(fs::exists(file) && fs::file_size(file) == size);
        if (round % 2 == 0) {
            fs::resize_file(file, random() % size);
        } else {
            std::fstream damage(file, std::ios::in | std::ios::out | std::ios::binary);
            const auto at = static_cast<std::streamoff>(random() % size);
            damage.seekg(at);
            const auto old = static_cast<char>(damage.get());
            damage.seekp(at);
            damage.put(static_cast<char>(old ^ static_cast<char>(1 + random() % 255)));
        }
        const auto damaged = RunCache(options).get(run);
        CHECK(damaged == nullptr);
        CHECK(!fs::exists(file));
    }

    // The budget holds with several writers, and a file left by a killed one is removed in time.
    RunCache first(options);
    RunCache second(options);
    for (Token t = 0; t < 40; ++t) {
        (t % 2 == 0 ? first : second).put({{}, {t}}, some_bytes(900, static_cast<std::uint8_t>(t)));
        CHECK(folder_bytes(folder) <= options.disk_bytes);
    }
    CHECK(first.get({{}, {39}}) != nullptr && first.get({{}, {0}}) == nullptr);
    const fs::path left = folder / "killed.part";
    std::ofstream(left) << "half";
    fs::last_write_time(left, fs::file_time_type::clock::now() - std::chrono::hours(2));
    RunCache opened(options);
    CHECK(!fs::exists(left));

    // A folder that vanishes, or is none, is no harm.
    fs::remove_all(folder);
    opened.put(run, some_bytes(1000, 4));
    CHECK(opened.facts.disk_errors > 0);
    CHECK(opened.get(run) == nullptr);
    std::ofstream(folder) << "a file";
    bool refused = false;
    try {
        RunCache cache(options);
    } catch (const ModelError&) {
        refused = true;
    }
    CHECK(refused);
    fs::remove(folder);
}

void batches_keep_their_sequences() {
    Batch batch;
    for (int round = 0; round < 2; ++round) {
        batch.clear();
        for (int i = 0; i < 100; ++i) {
            std::vector<SequenceId> sequences;
            for (int s = 0; s <= i % 5; ++s) sequences.push_back(s);
            batch.add(i, i, sequences, i % 3 == 0);
        }
        const llama_batch view = batch.view();
        CHECK(view.n_tokens == 100);
        CHECK(batch.n_outputs() == 34);
        for (int i = 0; i < 100; ++i) {
            CHECK(view.token[i] == i && view.pos[i] == i && view.n_seq_id[i] == i % 5 + 1);
            for (int s = 0; s <= i % 5; ++s) CHECK(view.seq_id[i][s] == s);
            CHECK((view.logits[i] != 0) == (i % 3 == 0));
        }
    }
}

void a_stop_string_cuts_the_text() {
    CompletionText text({"\n\n", "END"});
    CHECK(!text.append("one"));
    CHECK(!text.append(".\n"));
    CHECK(text.take_certain(false) == "one.");  // the line end may begin a stop
    CHECK(text.append("\nmore"));
    CHECK(text.text() == "one.");
    CHECK(text.n_whole_tokens() == 1);
    CHECK(text.n_begun_tokens() == 2);
    CHECK(text.remainder() == ".");
    CHECK(text.take_certain(true).empty());

    CompletionText whole({"\n"});
    CHECK(!whole.append("a"));
    CHECK(whole.append("\n"));
    CHECK(whole.n_whole_tokens() == 1 && whole.n_begun_tokens() == 1);
    CHECK(whole.remainder().empty());
}

void streamed_pieces_join_to_the_text() {
    std::mt19937 random(4);
    const std::string alphabet = "ab\n";
    for (int round = 0; round < 500; ++round) {
        CompletionText text({"aab", "\n\n", "ba\n"});
        std::string streamed;
        for (int i = 0; i < 12; ++i) {
            std::string piece;
            for (unsigned j = 0; j <= random() % 3; ++j) piece += alphabet[random() % 3];
            if (text.append(piece)) break;
            streamed += text.take_certain(false);
        }
        streamed += text.take_certain(true);
        CHECK(streamed == text.text());
        for (const char* stop : {"aab", "\n\n", "ba\n"})
            CHECK(text.text().find(stop) == std::string::npos);
    }
}

void utf8_is_never_cut() {
    const std::string euro = "\xE2\x82\xAC";
    CompletionText text({});
    text.append("1 " + euro.substr(0, 1));
    CHECK(text.take_certain(false) == "1 ");
    text.append(euro.substr(1));
    CHECK(text.take_certain(false) == euro);
    CHECK(is_blank("") && is_blank(" \t\r\n") && !is_blank("  a ") && !is_blank("\xC2\xA0"));
    CHECK(whole_utf8_length("a\xF0\x9F\x98") == 1);
    CHECK(whole_utf8_length("a\xF0\x9F\x98\x80") == 5);
    CHECK(to_valid_utf8(euro) == euro);
    CHECK(to_valid_utf8("\xFF"
                        "a") ==
          "\xEF\xBF\xBD"
          "a");
    CHECK(to_valid_utf8("\xC0\xAF") == "\xEF\xBF\xBD\xEF\xBF\xBD");                  // overlong
    CHECK(to_valid_utf8("\xED\xA0\x80") == "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // surrogate
    CHECK(to_valid_utf8(euro.substr(0, 2)) == "\xEF\xBF\xBD\xEF\xBF\xBD");
}

}  // namespace

int main() {
    log_probabilities_are_exact();
    extreme_logits_stay_finite();
    draws_follow_the_distribution();
    a_tree_holds_every_prefix_once();
    passes_keep_within_their_limits();
    standalone_runs_become_one_mark();
    guesses_follow_what_was_there();
    the_cache_keeps_to_its_budget();
    files_of_the_cache_are_safe();
    batches_keep_their_sequences();
    a_stop_string_cuts_the_text();
    streamed_pieces_join_to_the_text();
    utf8_is_never_cut();
    std::printf("%d checks, %d failed\n", checks, failures);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
