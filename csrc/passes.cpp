#include "passes.h"

#include <algorithm>

#include "errors.h"

namespace specrag {

std::vector<Pass> plan_passes(const std::vector<std::vector<Token>>& prompts,
                              const SpliceTable& table, std::size_t room,
                              const PassLimits& limits) {
    std::vector<Pass> passes;
    const std::vector<std::size_t> none;
    for (std::size_t p = 0; p < prompts.size(); ++p) {
        const std::vector<Token>& tokens = prompts[p];
        const std::size_t n_tokens = table.n_tokens(tokens);
        const std::size_t at = SpliceTable::find(tokens);
        const std::vector<std::size_t>& runs =
            at < tokens.size() ? table.splice(tokens[at]).runs : none;
        const std::size_t positions = table.n_positions(tokens) + room;
        if (n_tokens + room > limits.capacity || positions > limits.max_length)
            throw ContextFullError(
                static_cast<std::int64_t>(n_tokens + room),
                static_cast<std::int64_t>(std::min(limits.capacity, limits.max_length)));
        bool fits = !passes.empty() && passes.back().prompts.size() < limits.max_prompts;
        if (fits) {
            const Pass& pass = passes.back();
            std::size_t more = pass.tree.missing(tokens);
            for (const std::size_t run : runs)
                if (pass.runs.count(run) == 0) more += table.run(run).tokens.size();
            fits = pass.tree.n_tokens() + pass.n_run_tokens + more +
                       room * std::min(pass.prompts.size() + 1, limits.max_continued) <=
                   limits.capacity;
        }
        if (!fits) passes.emplace_back();
        Pass& pass = passes.back();
        pass.tree.insert(tokens);
        pass.prompts.push_back(p);
        pass.flat.push_back(tokens);
        pass.n_prompt_tokens += n_tokens;
        for (const std::size_t run : runs)
            if (pass.runs.insert(run).second) pass.n_run_tokens += table.run(run).tokens.size();
    }
    return passes;
}

}  // namespace specrag
