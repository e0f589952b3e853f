// Pooled embeddings of texts.
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

}  // namespace specrag
