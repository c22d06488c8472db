/// @file
/// From a time constant to a decay per step, e^(-dt/tau). Spikes depend on a decay's last bit, and the exponentials of libm, NumPy, torch
/// and CUDA differ there. This one consists of plain sums and products of doubles, so it gives the same bits everywhere.
#pragma once

#include <cstdint>

#include "macros.hpp"
#include "types.hpp"

namespace exodus {

/// 2^k for -1022 <= k <= 1023.
EXODUS_SCALAR double power_of_two(std::int64_t k) {
  return __builtin_bit_cast(double, (k + 1023) << 52);
}

/// (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2: the Taylor series, whose first missing term is below 2^-60 of e^r.
EXODUS_SCALAR double exp_curvature(double r) {
  double q = 1.0 / 87178291200.0;   // 1 / 14!
  q = q * r + 1.0 / 6227020800.0;
  q = q * r + 1.0 / 479001600.0;
  q = q * r + 1.0 / 39916800.0;
  q = q * r + 1.0 / 3628800.0;
  q = q * r + 1.0 / 362880.0;
  q = q * r + 1.0 / 40320.0;
  q = q * r + 1.0 / 5040.0;
  q = q * r + 1.0 / 720.0;
  q = q * r + 1.0 / 120.0;
  q = q * r + 1.0 / 24.0;
  q = q * r + 1.0 / 6.0;
  return q * r + 0.5;
}

/// e^x for x <= 0, with an error below 0.75 ulp, or below 1 ulp where the result is subnormal; 1 for x > 0; NaN for NaN.
///
/// x = k ln 2 + r with |r| <= ln(2) / 2 (Cody and Waite): the upper part of ln 2 ends in 20 zeros, so its product with k is exact, and so
/// is the difference from x. e^r = (1 + r) + (r^2 curvature(r) + error), where the error is the rounding error of 1 + r.
EXODUS_SCALAR double exp_nonpositive(double x) {
  constexpr double least = -746.0;                                                   // e^least rounds to 0
  constexpr double log2_e = 1.44269504088896340736, magic = 6755399441055744.0;      // 1.5 * 2^52: adding it rounds to an integer
  constexpr double ln2_upper = 0x1.62e42fefp-1, ln2_lower = 0x1.473de6af278edp-34;   // their sum is ln 2 to 85 bits
  const double clamped = x < least ? least : (x > 0.0 ? 0.0 : x);
  const double shifted = clamped * log2_e + magic;
  const double k = shifted - magic;
  const double upper = clamped - k * ln2_upper, lower = k * ln2_lower;
  const double r = upper - lower;
  const double lost = (upper - r) - lower;
  const double sum = 1.0 + r, error = r - (sum - 1.0);
  const double exponential = sum + (error + (r * r * exp_curvature(r) + lost));
  // 2^k in two factors: the first product is exact, so a subnormal result is rounded once.
  const std::int64_t exponent = __builtin_bit_cast(std::int64_t, shifted) - __builtin_bit_cast(std::int64_t, magic);
  const std::int64_t rest = exponent < -1000 ? -100 : 0;
  return exponential * power_of_two(exponent - rest) * power_of_two(rest);
}

/// The decay over a step of length dt, in [0, 1]. NaN where dt / tau is NaN.
EXODUS_SCALAR double decay(double dt, double tau) {
  return exp_nonpositive(-(dt / tau));
}

}   // namespace exodus
