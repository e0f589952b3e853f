#include "passes.h"

#include <algorithm>

#include "errors.h"

namespace specrag {

std::vector<Pass> plan_passes(const std::vector<std::vector<Token>>& prompts, std::size_t room,
                              const PassLimits& limits) {
    std::vector<Pass> passes;
    for (std::size_t p = 0; p < prompts.size(); ++p) {
        const std::vector<Token>& tokens = prompts[p];
        const std::size_t most = std::min(limits.capacity, limits.max_length);
        if (tokens.size() + room > most)
            throw ContextFullError(static_cast<std::int64_t>(tokens.size() + room),
                                   static_cast<std::int64_t>(most));
        bool fits = !passes.empty() && passes.back().prompts.size() < limits.max_prompts;
        if (fits) {
            const Pass& pass = passes.back();
            fits = pass.tree.n_tokens() + pass.tree.missing(tokens) +
                       room * (pass.prompts.size() + 1) <=
                   limits.capacity;
        }
        if (!fits) passes.emplace_back();
        Pass& pass = passes.back();
        pass.tree.insert(tokens);
        pass.prompts.push_back(p);
        pass.n_prompt_tokens += tokens.size();
    }
    return passes;
}

}  // namespace specrag
