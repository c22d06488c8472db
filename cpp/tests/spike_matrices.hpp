/// @file
/// Shared by the tests of products with spikes: elements of every type, matrices of spikes, comparisons.
#pragma once

#include <exodus/half.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "support.hpp"

namespace exodus::test {

using ElementTypes = testing::Types<float, double, float16, bfloat16>;

/// Names the types of a typed suite.
struct ElementName {
  template <class T>
  static std::string GetName(int) {
    if (std::is_same_v<T, float16>) return "float16";
    if (std::is_same_v<T, bfloat16>) return "bfloat16";
    return TypeName::GetName<T>(0);
  }
};

template <class S>
S element(double x) {
  if constexpr (std::is_same_v<S, float16>) return to_float16(static_cast<float>(x));
  if constexpr (std::is_same_v<S, bfloat16>) return to_bfloat16(static_cast<float>(x));
  if constexpr (std::is_floating_point_v<S>) return static_cast<S>(x);
}

template <class S>
arithmetic_t<S> number(S x) {
  if constexpr (std::is_floating_point_v<S>) {
    return x;
  } else {
    return to_float(x);
  }
}

template <class S>
std::uint64_t bits_of(S x) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}

/// Which spikes a matrix has.
struct Spikes {
  double rate;
  bool binary = true;
  bool special = false;   ///< -0, NaN and infinities among them
};

template <class S>
void fill_with_spikes(Random& random, Input<S>& x, std::int64_t count, const Spikes& kind) {
  for (std::int64_t k = 0; k < count; ++k) {
    const bool spike = random.uniform(0, 1) < kind.rate;
    x[k] = element<S>(spike ? (kind.binary ? 1 : random.uniform(-2, 2)) : 0);
    if (kind.special && k % 17 == 0) {
      constexpr double special[] = {-0.0, INFINITY, NAN, -1};
      x[k] = element<S>(special[random.below(4)]);
    }
  }
}

template <class S>
void fill(Random& random, Input<S>& array, std::int64_t count) {
  for (std::int64_t k = 0; k < count; ++k) array[k] = element<S>(random.uniform(-1, 1));
}

/// Whether two elements have the same bits, or are both NaN.
template <class S>
bool same_number(S a, S b) {
  const bool nan = number(a) != number(a) && number(b) != number(b);
  return nan || bits_of(a) == bits_of(b);
}

/// Whether a sum in the arithmetic of S, stored as S, is near the exact one, whose terms have magnitudes that add up to `size`.
template <class S>
bool near(double found, double sum, double size) {
  constexpr double unit = sizeof(arithmetic_t<S>) == 8 ? 0x1p-52 : 0x1p-23;
  constexpr double stored = std::is_same_v<S, float16> ? 0x1p-11 : (std::is_same_v<S, bfloat16> ? 0x1p-8 : 0);
  if (!std::isfinite(size)) return !std::isfinite(found);
  return std::fabs(found - sum) <= 60 * unit * size + stored * std::fabs(sum) + 1e-7 * (stored > 0);
}

}   // namespace exodus::test
