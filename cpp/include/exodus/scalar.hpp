/// @file
/// Elementary functions as plain code, which vectorises. Those without multiply_add() give the same bits on every instruction set.
#pragma once

#include <cmath>
#include <cstdint>

#include "macros.hpp"

namespace exodus {

EXODUS_SCALAR float magnitude(float x) {
  return fabsf(x);
}
EXODUS_SCALAR double magnitude(double x) {
  return fabs(x);
}

EXODUS_SCALAR float round_down(float x) {
  return floorf(x);
}
EXODUS_SCALAR double round_down(double x) {
  return floor(x);
}

/// a*b + c, fused where the instruction set can. Only for backward passes, whose bits may depend on it; forward never fuses.
EXODUS_SCALAR float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__CUDA_ARCH__) || defined(__aarch64__)
  return fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
EXODUS_SCALAR double multiply_add(double a, double b, double c) {
#if defined(__FMA__) || defined(__CUDA_ARCH__) || defined(__aarch64__)
  return fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// The constants of exp2_nonpositive for a floating-point type. Adding `magic` rounds to an integer, which is then in the low bits.
template <class V>
struct ExpTraits;

template <>
struct ExpTraits<float> {
  using Bits = std::int32_t;
  static constexpr float magic = 12582912.0f;   // 1.5 * 2^23
  static constexpr float lowest = -126.0f;      // below it 2^t would not be a normal number
  static constexpr int mantissa = 23, bias = 127;
};

template <>
struct ExpTraits<double> {
  using Bits = std::int64_t;
  static constexpr double magic = 6755399441055744.0;   // 1.5 * 2^52
  static constexpr double lowest = -1022.0;
  static constexpr int mantissa = 52, bias = 1023;
};

/// (2^f - 1) / f for |f| <= 1/2, by a minimax polynomial: 2^f = 1 + f exp2_slope(f) has a relative error of 9e-8.
EXODUS_SCALAR float exp2_slope(float f) {
  float q = 1.326472696665013e-3f;
  q = multiply_add(q, f, 9.67151261036656e-3f);
  q = multiply_add(q, f, 5.550733743027591e-2f);
  q = multiply_add(q, f, 2.4022242085905812e-1f);
  return multiply_add(q, f, 6.931469776010084e-1f);
}

/// The same in double, interpolated at Chebyshev nodes: a relative error of 8e-18.
EXODUS_SCALAR double exp2_slope(double f) {
  double q = 4.4549605981865183938e-10;
  q = multiply_add(q, f, 7.0725859492692236999e-9);
  q = multiply_add(q, f, 1.0178062445845773521e-7);
  q = multiply_add(q, f, 1.3215442587921689653e-6);
  q = multiply_add(q, f, 1.5252733829836118394e-5);
  q = multiply_add(q, f, 1.5403530441736050155e-4);
  q = multiply_add(q, f, 1.333355814641693531e-3);
  q = multiply_add(q, f, 9.6181291076068885273e-3);
  q = multiply_add(q, f, 5.5504108664821594339e-2);
  q = multiply_add(q, f, 2.402265069591009822e-1);
  return multiply_add(q, f, 6.9314718055994530942e-1);
}

/// 2^t for t <= 0, with an error of a few roundings, and never below the smallest normal number. NaN stays NaN.
/// With t = k + f, k an integer: 2^t = 2^k 2^f.
template <class V>
EXODUS_SCALAR V exp2_nonpositive(V t) {
  using E = ExpTraits<V>;
  using Bits = typename E::Bits;
  const V clamped = t < E::lowest ? E::lowest : t;
  const V shifted = clamped + E::magic;
  const V f = clamped - (shifted - E::magic);
  const Bits k = __builtin_bit_cast(Bits, shifted) - __builtin_bit_cast(Bits, E::magic);
  const V power = __builtin_bit_cast(V, static_cast<Bits>((k + E::bias) << E::mantissa));
  return multiply_add(f, exp2_slope(f), V(1)) * power;
}

/// 1 / ln 2: e^y = 2^(y log2_e).
template <class V>
EXODUS_SCALAR V log2_e() {
  return V(1.44269504088896340736);
}

}   // namespace exodus
