/// @file
/// Cosine and sine of the angle by which a resonating neuron turns in a step. Spikes depend on their last bits, in which libm, NumPy, torch
/// and CUDA differ. Like the decay (decay.hpp), these consist of plain sums and products of doubles, so they have the same bits everywhere.
#pragma once

#include <cmath>
#include <cstdint>

#include "decay.hpp"
#include "macros.hpp"

namespace exodus {

/// cos and sin of one angle.
struct Rotation {
  double cosine, sine;
};

/// (sin r - r) / r^3 as a function of y = r^2, |r| <= pi/4: the Taylor series. The first missing term is below 2^-62 of sin r.
EXODUS_SCALAR double sine_tail(double y) {
  double q = 1.0 / 355687428096000.0;   // 1 / 17!
  q = q * y - 1.0 / 1307674368000.0;
  q = q * y + 1.0 / 6227020800.0;
  q = q * y - 1.0 / 39916800.0;
  q = q * y + 1.0 / 362880.0;
  q = q * y - 1.0 / 5040.0;
  q = q * y + 1.0 / 120.0;
  return q * y - 1.0 / 6.0;
}

/// (cos r - 1 + r^2 / 2) / r^4 as a function of y = r^2, |r| <= pi/4. The first missing term is below 2^-67.
EXODUS_SCALAR double cosine_tail(double y) {
  double q = -1.0 / 6402373705728000.0;   // 1 / 18!
  q = q * y + 1.0 / 20922789888000.0;
  q = q * y - 1.0 / 87178291200.0;
  q = q * y + 1.0 / 479001600.0;
  q = q * y - 1.0 / 3628800.0;
  q = q * y + 1.0 / 40320.0;
  q = q * y - 1.0 / 720.0;
  return q * y + 1.0 / 24.0;
}

/// cos and sin of r + lost, where |r| <= pi/4 and `lost` is below its last bit.
EXODUS_SCALAR Rotation small_rotation(double r, double lost) {
  const double y = r * r, half = 0.5 * y, rest = 1.0 - half;
  const double rounding = (1.0 - rest) - half;   // of 1 - y/2
  return {rest + (rounding + (y * y * cosine_tail(y) - r * lost)), r + (y * r * sine_tail(y) + lost * rest)};
}

/// cos and sin with errors below 0.8 ulp up to |angle| = 10^6, and below 2^-50 up to 10^15. Beyond that, where neighbouring doubles are
/// most of a turn apart, they are those of an arbitrary angle. NaN for infinities and NaN.
///
/// angle = k pi/2 + r (Cody and Waite): the upper two parts of pi/2 end in 20 zeros, so their products with k are exact.
EXODUS_SCALAR Rotation rotation(double angle) {
  constexpr double turn = 0x1.921fb54442d18p+2, turn_rest = 0x1.1a62633145c07p-52;   // 2 pi to 107 bits
  constexpr double most = 1e6;
  if (!(angle <= most && angle >= -most)) {
    const double within = fmod(angle, turn);   // exact by definition
    angle = within - fmod((angle - within) / turn * turn_rest, turn);
  }
  constexpr double two_over_pi = 0.63661977236758134308, magic = 6755399441055744.0;   // 1.5 * 2^52: adding it rounds to an integer
  constexpr double upper = 0x1.921fb544p+0, middle = 0x1.0b4611a6p-34, lower = 0x1.3198a2e037073p-69;   // their sum is pi/2 to 118 bits
  const double shifted = angle * two_over_pi + magic;
  const double k = shifted - magic;
  const double coarse = angle - k * upper, product = k * middle;
  const double fine = coarse - product, lost_by_fine = (coarse - fine) - product;
  const double last = k * lower - lost_by_fine;
  const double r = fine - last;
  const Rotation small = small_rotation(r, (fine - r) - last);
  const std::int64_t quarter = (__builtin_bit_cast(std::int64_t, shifted) - __builtin_bit_cast(std::int64_t, magic)) & 3;
  const double c = (quarter & 1) != 0 ? small.sine : small.cosine, s = (quarter & 1) != 0 ? small.cosine : small.sine;
  return {quarter == 1 || quarter == 2 ? -c : c, quarter >= 2 ? -s : s};
}

}   // namespace exodus
