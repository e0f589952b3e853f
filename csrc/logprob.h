// Log-probabilities from one row of logits. Pure floats: no model, no state.
// The maximum is subtracted before exponentiation and the sum is kept in double.
#pragma once

#include <cstddef>

#include "types.h"

namespace specrag {

struct TokenLogprob {
    Token token;
    double logprob;
};

// log(sum(exp(logits))) of `n` finite-or-minus-infinity logits, n > 0.
double log_sum_exp(const float* logits, std::size_t n);

// Natural-log probability of `token`, 0 <= token < n.
double logprob_of(const float* logits, std::size_t n, Token token);

// The most probable token (the lowest index among equals) with its log-probability.
TokenLogprob greedy(const float* logits, std::size_t n);

// A draw at `temperature` > 0 by inverting the distribution at `uniform` in [0, 1).
// The log-probability is that of the model's own distribution (temperature 1).
TokenLogprob draw(const float* logits, std::size_t n, double temperature, double uniform);

}  // namespace specrag
