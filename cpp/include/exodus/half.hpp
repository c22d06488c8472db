/// @file
/// Numbers of two bytes, only for storage: arithmetic is in float.
///
/// Conversions give the same bits on the host and on a device. From float16 to float, and from float to either type, NaN becomes the one
/// NaN that GPUs produce. From bfloat16 to float every bit stays.
#pragma once

#include <cstdint>

#include "macros.hpp"

namespace exodus {

/// IEEE 754's binary16: 5 bits of exponent, 10 of mantissa. Integers above 2048 are rounded, counts of spikes too.
struct float16 {
  std::uint16_t bits;
};

/// The upper half of a float: 8 bits of exponent, 7 of mantissa. Integers above 256 are rounded, counts of spikes too.
struct bfloat16 {
  std::uint16_t bits;
};

EXODUS_SCALAR float to_float(float16 x) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
  return result;
#else
  const std::uint32_t sign = (x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  // Subnormal numbers count steps of 2^-24, the spacing of float from 1/2 on.
  const float subnormal = __builtin_bit_cast(float, 0x3f000000u + magnitude) - 0.5f;
  const std::uint32_t normal = (magnitude << 13) + ((127u - 15u) << 23);
  const std::uint32_t finite = sign | (magnitude < 0x400u ? __builtin_bit_cast(std::uint32_t, subnormal) : normal);
  const std::uint32_t other = magnitude > 0x7c00u ? 0x7fffffffu : sign | 0x7f800000u;
  return __builtin_bit_cast(float, magnitude < 0x7c00u ? finite : other);
#endif
}

EXODUS_SCALAR float to_float(bfloat16 x) {
  return __builtin_bit_cast(float, std::uint32_t{x.bits} << 16);
}

/// Rounds to nearest, ties to even; from 65520 on to infinity.
EXODUS_SCALAR float16 to_float16(float x) {
#if defined(__CUDA_ARCH__)
  float16 result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
  return result;
#else
  // Signed integers, since SSE compares no others: with unsigned ones GCC 12 leaves loops around this unvectorised.
  const std::int32_t bits = __builtin_bit_cast(std::int32_t, x), magnitude = bits & 0x7fffffff;
  const float near_half = __builtin_bit_cast(float, magnitude) + 0.5f;   // rounded to steps of 2^-24
  const std::int32_t subnormal = __builtin_bit_cast(std::int32_t, near_half) - 0x3f000000;
  const std::int32_t normal = (magnitude - ((127 - 15) << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  const std::int32_t finite = magnitude < 0x38800000 ? subnormal : normal;   // 2^-14
  const std::int32_t rounded = magnitude < 0x47800000 ? finite : 0x7c00;     // 2^16
  return {static_cast<std::uint16_t>(magnitude > 0x7f800000 ? 0x7fff : (bits >> 16 & 0x8000) | rounded)};
#endif
}

/// Rounds to nearest, ties to even.
EXODUS_SCALAR bfloat16 to_bfloat16(float x) {
  // The instruction for this exists from compute_80 on, but GPUs of compute_75 are served, too.
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return {static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded)};
}

}   // namespace exodus
