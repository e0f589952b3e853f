#include "lookup.h"

#include <algorithm>

namespace specrag {

std::vector<Token> Lookup::propose(std::size_t n) const {
    for (const std::size_t width : {std::size_t{3}, std::size_t{2}}) {
        if (n == 0 || tokens_.size() <= width) continue;
        const auto last = tokens_.end() - static_cast<std::ptrdiff_t>(width);
        // Searched backwards; an occurrence may overlap the last tokens but not be them.
        for (auto at = last; at != tokens_.begin();) {
            --at;
            if (!std::equal(last, tokens_.end(), at)) continue;
            const auto from = at + static_cast<std::ptrdiff_t>(width);
            const auto left = static_cast<std::size_t>(tokens_.end() - from);
            return {from, from + static_cast<std::ptrdiff_t>(std::min(n, left))};
        }
    }
    return {};
}

}  // namespace specrag
