// Causal attention of rows around its matrix products: tokens turn and go into padded rows, scores become weights, and
// back. Row r has the tokens starts[r] to starts[r + 1] of a pack. In rows [rows, key heads, group, length, width],
// padding is 0. passes.py holds the plain twin.
#include "numbers.h"

namespace {

constexpr int64_t LONGEST = 512, LANES = 16;  // tokens of a row; numbers that a loop should take at once

struct Rows {
  int64_t rows, key_heads, group, length, width;
};

// [a, b] turns to [a cos - b sin, b cos + a sin]; BACK turns the other way, with the transposed matrix.
template <bool BACK, class T>
inline void turn(const T* in, const T* cos, const T* sin, T* out, int64_t width, float scale) {
  const int64_t half = width / 2;
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float a = load(in[i]), b = load(in[i + half]);
    const float ca = load(cos[i]), cb = load(cos[i + half]), sa = load(sin[i]), sb = load(sin[i + half]);
    store(out + i, scale * (BACK ? a * ca + b * sb : a * ca - b * sa));
    store(out + i + half, scale * (BACK ? b * cb - a * sa : b * cb + a * sb));
  }
}

// heads of tokens [tokens, heads * width] <-> rows [rows, heads, length, width]. cos and sin [tokens, width], or
// [length, width] with shared positions; null where nothing turns.
template <bool BACK, class T>
void place(const T* from, const T* cos, const T* sin, T* to, const int64_t* starts, int64_t rows, int64_t heads,
           int64_t length, int64_t width, int64_t shared, float scale) {
#pragma omp parallel for collapse(2)
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t first = starts[row], num = starts[row + 1] - first;
      const int64_t there = (row * heads + head) * length * width;
      for (int64_t i = 0; i < num; ++i) {
        const int64_t here = ((first + i) * heads + head) * width, at = (shared ? i : first + i) * width;
        const T* in = from + (BACK ? there + i * width : here);
        T* out = to + (BACK ? here : there + i * width);
        if (cos)
          turn<BACK>(in, cos + at, sin + at, out, width, scale);
        else
          std::memcpy(out, in, width * sizeof(T));
      }
      if (!BACK) std::memset(to + there + num * width, 0, (length - num) * width * sizeof(T));
    }
}

// scores [rows, key heads, group, length, length] become weights in place: the softmax over the keys up to each query.
// Lines of padding stay as they are: 0, as the product of queries that are 0.
template <class T>
void causal_softmax(T* scores, const int64_t* starts, const Rows* shape) {
  const Rows s = *shape;
  const int64_t heads = s.key_heads * s.group;
#pragma omp parallel for collapse(2)
  for (int64_t row = 0; row < s.rows; ++row)
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t num = starts[row + 1] - starts[row];
      T* all = scores + (row * heads + head) * s.length * s.length;
      for (int64_t i = 0; i < num; ++i) {
        T* line = all + i * s.length;
        const int64_t end = i + 1, whole = (end + LANES - 1) / LANES * LANES;
        float values[LONGEST], largest = -INFINITY, total = 0;
        for (int64_t j = 0; j < end; ++j) values[j] = load(line[j]);
        for (int64_t j = end; j < whole; ++j) values[j] = -INFINITY;
#pragma omp simd reduction(max : largest)
        for (int64_t j = 0; j < whole; ++j) largest = values[j] > largest ? values[j] : largest;
#pragma omp simd
        for (int64_t j = 0; j < whole; ++j) values[j] = exponential(values[j] - largest);
        for (int64_t j = end; j < whole; ++j) values[j] = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < whole; ++j) total += values[j];
        const float part = 1.0f / total;
#pragma omp simd
        for (int64_t j = 0; j < end; ++j) store(line + j, values[j] * part);
        std::memset(line + end, 0, (s.length - end) * sizeof(T));
      }
    }
}

// grads of the weights become those of the scores in place.
template <class T>
void causal_softmax_backward(T* grads, const T* weights, const int64_t* starts, const Rows* shape) {
  const Rows s = *shape;
  const int64_t heads = s.key_heads * s.group;
#pragma omp parallel for collapse(2)
  for (int64_t row = 0; row < s.rows; ++row)
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t num = starts[row + 1] - starts[row], at = (row * heads + head) * s.length * s.length;
      for (int64_t i = 0; i < num; ++i) {
        T* grad = grads + at + i * s.length;
        const T* weight = weights + at + i * s.length;
        float mean = 0;
#pragma omp simd reduction(+ : mean)
        for (int64_t j = 0; j <= i; ++j) mean += load(grad[j]) * load(weight[j]);
#pragma omp simd
        for (int64_t j = 0; j <= i; ++j) store(grad + j, load(weight[j]) * (load(grad[j]) - mean));
        std::memset(grad + i + 1, 0, (s.length - i - 1) * sizeof(T));
      }
    }
}

}  // namespace

#define EXPORT(NAME, T)                                                                                               \
  extern "C" void to_rows_##NAME(const T* from, const T* cos, const T* sin, T* to, const int64_t* starts,              \
                                 int64_t rows, int64_t heads, int64_t length, int64_t width, int64_t shared,          \
                                 float scale) {                                                                       \
    place<false>(from, cos, sin, to, starts, rows, heads, length, width, shared, scale);                              \
  }                                                                                                                   \
  extern "C" void to_tokens_##NAME(const T* from, const T* cos, const T* sin, T* to, const int64_t* starts,            \
                                   int64_t rows, int64_t heads, int64_t length, int64_t width, int64_t shared,        \
                                   float scale) {                                                                     \
    place<true>(from, cos, sin, to, starts, rows, heads, length, width, shared, scale);                               \
  }                                                                                                                   \
  extern "C" void causal_softmax_##NAME(T* scores, const int64_t* starts, const Rows* shape) {                         \
    causal_softmax(scores, starts, shape);                                                                            \
  }                                                                                                                   \
  extern "C" void causal_softmax_backward_##NAME(T* grads, const T* weights, const int64_t* starts,                    \
                                                 const Rows* shape) {                                                 \
    causal_softmax_backward(grads, weights, starts, shape);                                                           \
  }

EXPORT(float32, float)
EXPORT(bfloat16, uint16_t)
