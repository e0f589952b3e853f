// Teacher-forced log-probabilities of the scored segments of prompts.
#pragma once

#include <vector>

#include "model.h"
#include "prefill.h"
#include "types.h"

namespace specrag {

// One forward pass for all prompts where they fit, several otherwise. Tokens whose logits nobody
// wants at the end of a prompt are never computed. Throws Cancelled, ContextFullError, DecodeError,
// and ModelError for a scored token that nothing precedes.
std::vector<Score> score(const Model& model, Context& context, Prefill& prefill,
                         const std::vector<Prompt>& prompts, CallControl& control, Usage& usage);

}  // namespace specrag
