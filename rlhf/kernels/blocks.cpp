// Norm and gate of a block, forward and backward. decoding.py and passes.py hold the plain twins.
#include "numbers.h"

namespace {

// scales: where 1 / root mean square of each row goes, for the way back; may be null.
template <class T>
void rms_norm(const T* x, const T* weight, T* out, float* scales, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const T* in = x + row * width;
    T* to = out + row * width;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += load(in[i]) * load(in[i]);
    float scale = 1.0f / std::sqrt(sum / width + eps);
    if (scales) scales[row] = scale;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      T normed;
      store(&normed, load(in[i]) * scale);
      store(to + i, load(normed) * load(weight[i]));
    }
  }
}

// weight_grads: [chunks, width], sums over `chunk` rows each, so that they do not depend on the threads; may be null.
template <class T>
void rms_norm_backward(const T* grad, const T* x, const T* weight, const float* scales, T* out, float* weight_grads,
                       int64_t rows, int64_t width, int64_t chunk) {
#pragma omp parallel for
  for (int64_t first = 0; first < rows; first += chunk) {
    float* sums = weight_grads ? weight_grads + first / chunk * width : nullptr;
    for (int64_t row = first; row < rows && row < first + chunk; ++row) {
      const T *g = grad + row * width, *in = x + row * width;
      T* to = out + row * width;
      const float scale = scales[row];
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < width; ++i) dot += load(g[i]) * load(weight[i]) * load(in[i]);
      const float back = dot * scale * scale / width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) store(to + i, scale * (load(g[i]) * load(weight[i]) - load(in[i]) * back));
      if (!sums) continue;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sums[i] += load(g[i]) * load(in[i]) * scale;
    }
  }
}

// Row r of gate and up begins at r * stride: two tensors, or the halves of one.
template <class T>
void silu_mul(const T* gates, const T* ups, T* out, int64_t rows, int64_t width, int64_t stride) {
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const T *gate = gates + row * stride, *up = ups + row * stride;
    T* to = out + row * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      T activated;
      float g = load(gate[i]);
      store(&activated, g / (1.0f + exponential(-g)));
      store(to + i, load(activated) * load(up[i]));
    }
  }
}

template <class T>
void silu_mul_backward(const T* grads, const T* gates, const T* ups, T* gate_grads, T* up_grads, int64_t rows,
                       int64_t width) {
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * width;
    const T *grad = grads + at, *gate = gates + at, *up = ups + at;
    T *to_gate = gate_grads + at, *to_up = up_grads + at;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      float g = load(gate[i]), d = load(grad[i]), open = 1.0f / (1.0f + exponential(-g));
      T activated;
      store(&activated, g * open);
      store(to_up + i, d * load(activated));
      store(to_gate + i, d * load(up[i]) * open * (1.0f + g * (1.0f - open)));
    }
  }
}

}  // namespace

#define EXPORT(NAME, T)                                                                                               \
  extern "C" void rms_norm_##NAME(const T* x, const T* weight, T* out, float* scales, int64_t rows, int64_t width,     \
                                  float eps) {                                                                        \
    rms_norm(x, weight, out, scales, rows, width, eps);                                                               \
  }                                                                                                                   \
  extern "C" void rms_norm_backward_##NAME(const T* grad, const T* x, const T* weight, const float* scales, T* out,    \
                                           float* weight_grads, int64_t rows, int64_t width, int64_t chunk) {         \
    rms_norm_backward(grad, x, weight, scales, out, weight_grads, rows, width, chunk);                                \
  }                                                                                                                   \
  extern "C" void silu_mul_##NAME(const T* gates, const T* ups, T* out, int64_t rows, int64_t width, int64_t stride) { \
    silu_mul(gates, ups, out, rows, width, stride);                                                                   \
  }                                                                                                                   \
  extern "C" void silu_mul_backward_##NAME(const T* grads, const T* gates, const T* ups, T* gate_grads, T* up_grads,   \
                                           int64_t rows, int64_t width) {                                             \
    silu_mul_backward(grads, gates, ups, gate_grads, up_grads, rows, width);                                          \
  }

EXPORT(float32, float)
EXPORT(bfloat16, uint16_t)
