#include "logprob.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

// A vocabulary has 50,000 to 250,000 entries, so the sum of exponentials is the only loop of ours
// that costs anything beside the model. It is written so that compilers vectorise it; on x86-64
// with glibc the widest clone that the processor supports is chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(SPECRAG_NO_CLONES)
#define SPECRAG_CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define SPECRAG_CLONES
#endif

namespace specrag {
namespace {

constexpr std::size_t kLanes = 16;

// exp(x) for x <= 0 with a relative error under 3e-7; 0 below -87.
inline float exp_nonpositive(float x) {
    const float clamped = x < -87.0F ? -87.0F : x;
    // exp(x) = 2^k * exp(r), |r| <= ln(2) / 2. Adding and removing 1.5 * 2^23 rounds to nearest.
    constexpr float magic = 12582912.0F;
    const float k = (clamped * 1.44269504F + magic) - magic;
    float r = clamped - k * 0.693359375F;
    r = r + k * 2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    const std::int32_t bits = (static_cast<std::int32_t>(k) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    const float y = p * scale;
    return x < -87.0F ? 0.0F : y;
}

SPECRAG_CLONES
float maximum(const float* logits, std::size_t n) {
    float lanes[kLanes];
    for (std::size_t j = 0; j < kLanes; ++j) lanes[j] = -std::numeric_limits<float>::infinity();
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (std::size_t j = 0; j < kLanes; ++j) {
            const float v = logits[i + j];
            lanes[j] = v > lanes[j] ? v : lanes[j];
        }
    }
    float best = -std::numeric_limits<float>::infinity();
    for (std::size_t j = 0; j < kLanes; ++j) best = lanes[j] > best ? lanes[j] : best;
    for (; i < n; ++i) best = logits[i] > best ? logits[i] : best;
    return best;
}

// sum(exp(logits - shift)): exponentials in float, the sum in double.
SPECRAG_CLONES
double sum_exp(const float* logits, std::size_t n, float shift) {
    double lanes[kLanes];
    for (std::size_t j = 0; j < kLanes; ++j) lanes[j] = 0.0;
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        float e[kLanes];
        for (std::size_t j = 0; j < kLanes; ++j) e[j] = exp_nonpositive(logits[i + j] - shift);
        for (std::size_t j = 0; j < kLanes; ++j) lanes[j] += static_cast<double>(e[j]);
    }
    double total = 0.0;
    for (std::size_t j = 0; j < kLanes; ++j) total += lanes[j];
    for (; i < n; ++i) total += static_cast<double>(exp_nonpositive(logits[i] - shift));
    return total;
}

}  // namespace

double log_sum_exp(const float* logits, std::size_t n) {
    const float shift = maximum(logits, n);
    if (!std::isfinite(shift)) return static_cast<double>(shift);
    return static_cast<double>(shift) + std::log(sum_exp(logits, n, shift));
}

double logprob_of(const float* logits, std::size_t n, Token token) {
    return static_cast<double>(logits[token]) - log_sum_exp(logits, n);
}

TokenLogprob greedy(const float* logits, std::size_t n) {
    const float best = maximum(logits, n);
    std::size_t index = 0;
    while (index + 1 < n && logits[index] != best) ++index;
    return {static_cast<Token>(index), -std::log(sum_exp(logits, n, best))};
}

TokenLogprob draw(const float* logits, std::size_t n, double temperature, double uniform) {
    const double shift = static_cast<double>(maximum(logits, n));
    double total = 0.0;
    for (std::size_t i = 0; i < n; ++i)
        total += std::exp((static_cast<double>(logits[i]) - shift) / temperature);
    double left = uniform * total;
    std::size_t index = n - 1;
    for (std::size_t i = 0; i < n; ++i) {
        left -= std::exp((static_cast<double>(logits[i]) - shift) / temperature);
        if (left < 0.0) {
            index = i;
            break;
        }
    }
    const auto token = static_cast<Token>(index);
    return {token, logprob_of(logits, n, token)};
}

}  // namespace specrag
