// Numbers as the kernels read and write them. T is float, or uint16_t for bfloat16; every sum is taken in float.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

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

}  // namespace
