// What an encoder pools: embeddings of texts, scores of pairs.
#pragma once

#include <string>
#include <vector>

#include "context.h"
#include "model.h"
#include "types.h"

namespace specrag {

// As many texts per pass as the batch holds; a text longer than the batch or the model's training
// context is cut at its end. Throws Cancelled and DecodeError.
std::vector<float> embed(const Model& model, Context& context,
                         const std::vector<std::string>& texts, CallControl& control, Usage& usage);

// The score of `first` with each of `seconds`, a logit. Pairs are cut as tokenize_pair cuts them,
// and to what one pass holds. Throws Cancelled and DecodeError.
std::vector<float> rank(const Model& model, Context& context, const std::string& first,
                        const std::vector<std::string>& seconds, const RankOptions& options,
                        CallControl& control, Usage& usage);

}  // namespace specrag
