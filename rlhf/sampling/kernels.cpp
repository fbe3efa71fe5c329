// The three steps of a decoding block that torch runs in many small kernels: norm, attention with its cache, gate.
// T is float, or uint16_t for bfloat16; every sum is taken in float. kernels.py holds the plain twins.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

inline float load(float x) { return x; }
inline float load(uint16_t x) {
  uint32_t bits = uint32_t(x) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

inline void store(float* at, float x) { *at = x; }
inline void store(uint16_t* at, float x) {  // to nearest, ties to even; a NaN stays one
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  uint16_t rounded = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  *at = x != x ? uint16_t(0x7fc0) : rounded;
}

// exp in float without a call, so that loops over it become vector code: 2^n * e^f with |f| <= ln 2 / 2, the series of
// e^f to the sixth power. x - n ln 2 is one fused step, so that its error does not grow with x (without FMA, by
// |x| 2^-24). Below -87 it yields about 1e-38, not 0; above 88.4 infinity; a NaN stays one.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x > 89.0f ? 89.0f : x;
  float n = std::nearbyint(x * 1.44269504f), f = x - n * 0.693147181f;
  float power = 1 + f * (1 + f * (0.5f + f * (1 / 6.0f + f * (1 / 24.0f + f * (1 / 120.0f + f * (1 / 720.0f))))));
  int32_t bits = (int32_t(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return power * scale;
}

template <class T>
void rms_norm(const T* x, const T* weight, T* out, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const T* in = x + row * width;
    T* to = out + row * width;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += load(in[i]) * load(in[i]);
    float scale = 1.0f / std::sqrt(sum / width + eps);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      T normed;
      store(&normed, load(in[i]) * scale);
      store(to + i, load(normed) * load(weight[i]));
    }
  }
}

template <class T>
void silu_mul(const T* gate_up, T* out, int64_t rows, int64_t width) {
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const T* gate = gate_up + row * 2 * width;
    const T* up = gate + width;
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
  extern "C" void rms_norm_##NAME(const T* x, const T* weight, T* out, int64_t rows, int64_t width, float eps) {       \
    rms_norm(x, weight, out, rows, width, eps);                                                                       \
  }                                                                                                                   \
  extern "C" void silu_mul_##NAME(const T* gate_up, T* out, int64_t rows, int64_t width) {                             \
    silu_mul(gate_up, out, rows, width);                                                                              \
  }                                                                                                                   \
  extern "C" void attend_##NAME(const T* qkv, const float* cos, const float* sin, const int64_t* slots,                \
                                const int64_t* first, int64_t column, T* keys, T* values, T* out, const Shape* shape, \
                                float scale) {                                                                        \
    attend(qkv, cos, sin, slots, first, column, keys, values, out, shape, scale);                                     \
  }

EXPORT(float32, float)
EXPORT(bfloat16, uint16_t)
