// Logprob and entropy of one token a row from its logits, and the gradient of both. models/passes/head.py holds the twin.
#include "numbers.h"

namespace {

// With z = scale * logits: normaliser = log sum exp z, logprob = z[target] - normaliser, spread = normaliser - E[z].
template <class T>
void head_forward(const T* logits, const int64_t* targets, float* logprobs, float* spread, float* normaliser,
                  int64_t rows, int64_t width, float scale, int64_t with_entropy) {
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const T* in = logits + row * width;
    float largest = -INFINITY, total = 0, mean = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < width; ++i) {
      float z = load(in[i]) * scale;
      largest = z > largest ? z : largest;
    }
    // One loop, whether entropies are wanted or not: the total must not depend on that by a bit.
#pragma omp simd reduction(+ : total, mean)
    for (int64_t i = 0; i < width; ++i) {
      float z = load(in[i]) * scale - largest, e = exponential(z);
      total += e;
      mean += e * z;
    }
    normaliser[row] = largest + std::log(total);
    logprobs[row] = load(in[targets[row]]) * scale - normaliser[row];
    if (with_entropy) spread[row] = std::log(total) - mean / total;
  }
}

// d logprob / dz = onehot - p, d entropy / dz = -p (log p + entropy), and dz = scale * d logits, which replaces the logits.
template <class T>
void head_backward(T* logits, const int64_t* targets, const float* normaliser, const float* spread, const float* grads,
                   const float* spread_grads, int64_t rows, int64_t width, float scale, int64_t with_entropy) {
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    T* line = logits + row * width;
    const float g = grads[row], norm = normaliser[row];
    const int64_t target = targets[row];
    const float target_log_p = load(line[target]) * scale - norm, target_p = std::exp(target_log_p);
    if (with_entropy) {
      const float h = spread_grads[row], s = spread[row];
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        float log_p = load(line[i]) * scale - norm;
        store(line + i, -scale * exponential(log_p) * (g + h * (log_p + s)));
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) store(line + i, -scale * g * exponential(load(line[i]) * scale - norm));
    }
    const float more = with_entropy ? spread_grads[row] * target_p * (target_log_p + spread[row]) : 0.0f;
    store(line + target, scale * (g * (1.0f - target_p) - more));
  }
}

}  // namespace

#define EXPORT(NAME, T)                                                                                               \
  extern "C" void head_forward_##NAME(const T* logits, const int64_t* targets, float* logprobs, float* spread,         \
                                      float* normaliser, int64_t rows, int64_t width, float scale,                    \
                                      int64_t with_entropy) {                                                         \
    head_forward(logits, targets, logprobs, spread, normaliser, rows, width, scale, with_entropy);                    \
  }                                                                                                                   \
  extern "C" void head_backward_##NAME(T* logits, const int64_t* targets, const float* normaliser,                     \
                                       const float* spread, const float* grads, const float* spread_grads,            \
                                       int64_t rows, int64_t width, float scale, int64_t with_entropy) {              \
    head_backward(logits, targets, normaliser, spread, grads, spread_grads, rows, width, scale, with_entropy);        \
  }

EXPORT(float32, float)
EXPORT(bfloat16, uint16_t)
