// Generation: the tree of prompts is computed once, then all slots advance in lockstep.
#pragma once

#include <vector>

#include "model.h"
#include "prefill.h"
#include "types.h"

namespace specrag {

// When the call is cancelled, what was generated so far comes back with FinishReason::cancelled.
// Throws ContextFullError and DecodeError.
std::vector<Generation> generate(const Model& model, Context& context, Prefill& prefill,
                                 const std::vector<Prompt>& prompts, const GenerateOptions& options,
                                 const TextCallback& on_text, CallControl& control, Usage& usage);

}  // namespace specrag
