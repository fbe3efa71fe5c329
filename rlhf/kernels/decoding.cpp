// One token of every row turns, enters the cache and attends to it. decoding.py holds the plain twin.
#include <vector>

#include "numbers.h"

namespace {

template <class T>
void rotate(const T* in, const float* cos, const float* sin, float* out, int64_t width) {
  int64_t half = width / 2;
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    float a = load(in[i]), b = load(in[i + half]);
    out[i] = a * cos[i] - b * sin[i];
    out[i + half] = b * cos[i + half] + a * sin[i + half];
  }
}

struct Shape {
  int64_t rows, heads, key_heads, width, capacity;
};

// WIDTH is the head width if it is a common one, so that loops over it unroll; else 0.
template <class T, int WIDTH>
void attend_width(const T* qkv, const float* cos, const float* sin, const int64_t* slots, const int64_t* first, int64_t column,
            T* keys, T* values, T* out, const Shape* shape, float scale) {
  const Shape s = *shape;
  const int64_t group = s.heads / s.key_heads, d = WIDTH ? WIDTH : s.width;
#pragma omp parallel
  {
    std::vector<float> query(group * d), key(d), mixed(group * d), scores(group * s.capacity);
#pragma omp for
    for (int64_t task = 0; task < s.rows * s.key_heads; ++task) {
      const int64_t row = task / s.key_heads, head = task % s.key_heads;
      const T* base = qkv + row * (s.heads + 2 * s.key_heads) * d;
      const int64_t position = column - first[row], place = (slots[row] * s.key_heads + head) * s.capacity * d;
      const float *c = cos + position * d, *n = sin + position * d;
      T *K = keys + place, *V = values + place;
      rotate(base + (s.heads + head) * d, c, n, key.data(), d);
      for (int64_t i = 0; i < d; ++i) store(K + column * d + i, key[i]);
      std::memcpy(V + column * d, base + (s.heads + s.key_heads + head) * d, d * sizeof(T));
      for (int64_t g = 0; g < group; ++g) rotate(base + (head * group + g) * d, c, n, query.data() + g * d, d);
      for (int64_t at = first[row]; at <= column; ++at)
        for (int64_t g = 0; g < group; ++g) {
          float dot = 0;
          const float* q = query.data() + g * d;
          const T* k = K + at * d;
#pragma omp simd reduction(+ : dot)
          for (int64_t i = 0; i < d; ++i) dot += q[i] * load(k[i]);
          scores[g * s.capacity + at] = dot * scale;
        }
      for (int64_t g = 0; g < group; ++g) {
        float* score = scores.data() + g * s.capacity;
        float largest = score[first[row]], total = 0;
#pragma omp simd reduction(max : largest)
        for (int64_t at = first[row]; at <= column; ++at) largest = score[at] > largest ? score[at] : largest;
#pragma omp simd reduction(+ : total)
        for (int64_t at = first[row]; at <= column; ++at) total += score[at] = exponential(score[at] - largest);
        for (int64_t at = first[row]; at <= column; ++at) score[at] /= total;
      }
      std::memset(mixed.data(), 0, group * d * sizeof(float));
      for (int64_t at = first[row]; at <= column; ++at)
        for (int64_t g = 0; g < group; ++g) {
          const float weight = scores[g * s.capacity + at];
          float* m = mixed.data() + g * d;
          const T* v = V + at * d;
#pragma omp simd
          for (int64_t i = 0; i < d; ++i) m[i] += weight * load(v[i]);
        }
      for (int64_t i = 0; i < group * d; ++i) store(out + (row * s.heads + head * group) * d + i, mixed[i]);
    }
  }
}

template <class T>
void attend(const T* qkv, const float* cos, const float* sin, const int64_t* slots, const int64_t* first, int64_t column,
            T* keys, T* values, T* out, const Shape* shape, float scale) {
  auto* run = shape->width == 64 ? attend_width<T, 64> : shape->width == 128 ? attend_width<T, 128> : attend_width<T, 0>;
  run(qkv, cos, sin, slots, first, column, keys, values, out, shape, scale);
}

}  // namespace

#define EXPORT(NAME, T)                                                                                               \
  extern "C" void attend_##NAME(const T* qkv, const float* cos, const float* sin, const int64_t* slots,                \
                                const int64_t* first, int64_t column, T* keys, T* values, T* out, const Shape* shape, \
                                float scale) {                                                                        \
    attend(qkv, cos, sin, slots, first, column, keys, values, out, shape, scale);                                     \
  }

EXPORT(float32, float)
EXPORT(bfloat16, uint16_t)
