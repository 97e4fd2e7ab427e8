// SPDX-License-Identifier: Apache-2.0
// The arithmetic of one row: one source for every compiler.
//
// A row is worked on by a team: one thread on a processor, where the loops become vectors, or a
// block of threads on a GPU. Everything is computed in float32 and rounded where PyTorch's own
// composition of operators rounds, so that the numbers are its numbers, up to the order of a sum.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__) || defined(__MUSACC__) || defined(__MUSA__)
#define UNISCALE_FN __host__ __device__ __forceinline__
#else
#define UNISCALE_FN inline __attribute__((always_inline))
#endif
// Names the build of these templates: equal names from builds with other compiler options must
// not be taken for each other by the linker.
#ifndef UNISCALE_LEVEL
#define UNISCALE_LEVEL baseline
#endif

namespace uniscale_ops {
inline namespace UNISCALE_LEVEL {

UNISCALE_FN float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

UNISCALE_FN uint32_t to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// The numbers of tensors: read() widens to float32, made() rounds to nearest, ties to even.
struct Float32 {
  float value;
  UNISCALE_FN float read() const { return value; }
  UNISCALE_FN static Float32 made(float value) { return {value}; }
};

struct BFloat16 {
  uint16_t bits;
  UNISCALE_FN float read() const { return from_bits(static_cast<uint32_t>(bits) << 16); }
  UNISCALE_FN static BFloat16 made(float value) {
    const uint32_t wide = to_bits(value);
    const uint32_t rounded = wide + 0x7FFFu + ((wide >> 16) & 1u);
    const uint32_t chosen = (wide & 0x7FFFFFFFu) > 0x7F800000u ? (wide | 0x400000u) : rounded;
    return {static_cast<uint16_t>(chosen >> 16)};
  }
};

struct Float16 {
  uint16_t bits;
  UNISCALE_FN float read() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t rest = static_cast<uint32_t>(bits & 0x7FFFu);
    // Exponent and fraction moved to their places; 2^112 mends the bias. Infinities and NaNs get
    // the exponent that says so; numbers below 2^-14 are exact multiples of 2^-24.
    const float normal = from_bits(rest << 13) * from_bits(0x77800000u);
    const float tiny = static_cast<float>(static_cast<int32_t>(rest)) * from_bits(0x33800000u);
    const uint32_t special = 0x7F800000u | (rest << 13);
    const uint32_t small = to_bits(rest < 0x0400u ? tiny : normal);
    return from_bits(sign | (rest >= 0x7C00u ? special : small));
  }
  UNISCALE_FN static Float16 made(float value) {
    const uint32_t wide = to_bits(value);
    const uint32_t sign = (wide >> 16) & 0x8000u;
    const uint32_t rest = wide & 0x7FFFFFFFu;
    // Normal: round at bit 13 and mend the bias. Below 2^-14: the sum with 0.5 rounds to multiples
    // of 2^-24 and leaves them in the fraction.
    const uint32_t normal = (rest + 0xFFFu + ((rest >> 13) & 1u) - 0x38000000u) >> 13;
    const uint32_t tiny = to_bits(from_bits(rest) + 0.5f) - 0x3F000000u;
    const uint32_t finite = rest < 0x38800000u ? tiny : normal;
    const uint32_t large = rest > 0x7F800000u ? 0x7E00u : 0x7C00u;
    return {static_cast<uint16_t>(sign | (rest >= 0x477FF000u ? large : finite))};
  }
};

// What a number of type T is after the way through memory.
template <class T>
UNISCALE_FN float rounded(float value) {
  return T::made(value).read();
}

// e^x to within 2 units in the last place: x = n ln 2 + r, a polynomial for e^r. The same on every
// chip, and without a call, so that the loop around it becomes a vector loop.
UNISCALE_FN float exponential(float x) {
  const float low = -87.0f, high = 88.7f, magic = 12582912.0f;  // 1.5 * 2^23: rounds to integers
  const float clamped = x < low ? low : (x > high ? high : x);
  const float shifted = clamped * 1.44269504f + magic;
  const float n = shifted - magic;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two steps: n goes up to 128, which is one more than an exponent holds.
  const int32_t whole = static_cast<int32_t>(to_bits(shifted) - to_bits(magic));
  const int32_t half = whole >> 1;
  const float first = from_bits(static_cast<uint32_t>(half + 127) << 23);
  const float second = from_bits(static_cast<uint32_t>(whole - half + 127) << 23);
  const float value = p * first * second;
  return x > high ? from_bits(0x7F800000u) : value;
}

UNISCALE_FN float silu(float x) { return x / (1.0f + exponential(-x)); }

// One thread that does a row alone.
struct Alone {
  static constexpr int64_t first = 0;
  static constexpr int64_t step = 1;
  UNISCALE_FN float sum(float value) const { return value; }
};

#if defined(__CUDACC__) || defined(__MUSACC__) || defined(__MUSA__)
#define UNISCALE_LOOP
#define UNISCALE_SUM(name)
#else
#define UNISCALE_PRAGMA(text) _Pragma(#text)
#define UNISCALE_LOOP UNISCALE_PRAGMA(omp simd)
#define UNISCALE_SUM(name) UNISCALE_PRAGMA(omp simd reduction(+ : name))
#endif

// out = x / sqrt(mean(x^2) + epsilon) * weight over `columns` numbers, the mean over the first
// `spread` of them. With a residual x + residual is normalised and also written to `sum_out`.
// `out` may be x and `sum_out` may be the residual. `weight` may be null.
template <class T, class W, bool kResidual, class Team>
UNISCALE_FN void rms_norm_row(const Team& team, const T* x, const T* residual, const W* weight,
                              T* out, T* sum_out, int64_t columns, int64_t spread, float epsilon) {
  const int64_t first = team.first, step = team.step;
  float squares = 0.0f;
  UNISCALE_SUM(squares)
  for (int64_t i = first; i < spread; i += step) {
    float value = x[i].read();
    if (kResidual) value += residual[i].read();
    squares += value * value;
  }
  const float mean = team.sum(squares) / static_cast<float>(spread);
  const float scale = 1.0f / sqrtf(mean + epsilon);
  if (weight == nullptr) {
    UNISCALE_LOOP
    for (int64_t i = first; i < columns; i += step) {
      float value = x[i].read();
      if (kResidual) {
        value += residual[i].read();
        sum_out[i] = T::made(value);
      }
      out[i] = T::made(value * scale);
    }
    return;
  }
  UNISCALE_LOOP
  for (int64_t i = first; i < columns; i += step) {
    float value = x[i].read();
    if (kResidual) {
      value += residual[i].read();
      sum_out[i] = T::made(value);
    }
    out[i] = T::made(rounded<W>(rounded<W>(value * scale) * weight[i].read()));
  }
}

// out = silu(x) * x[columns:] over the first `columns` numbers of x.
template <class T, class Team>
UNISCALE_FN void silu_and_mul_row(const Team& team, const T* x, T* out, int64_t columns) {
  const T* gate = x + columns;
  const int64_t first = team.first, step = team.step;
  UNISCALE_LOOP
  for (int64_t i = first; i < columns; i += step) {
    out[i] = T::made(rounded<T>(silu(x[i].read())) * gate[i].read());
  }
}

}  // inline namespace
}  // namespace uniscale_ops
