/// @file
/// Numbers of any type that arrays on a device have, and those of the arithmetic.
#pragma once

#include <exodus/types.hpp>
#include <type_traits>
#include <vector>

namespace exodus::test {

/// A number of the arithmetic as the nearest S, and back.
template <class S>
S stored(arithmetic_t<S> x) {
  if constexpr (std::is_same_v<S, float16>) {
    return to_float16(x);
  } else if constexpr (std::is_same_v<S, bfloat16>) {
    return to_bfloat16(x);
  } else {
    return x;
  }
}
template <class S>
arithmetic_t<S> number(S x) {
  if constexpr (sizeof(S) == 2) {
    return to_float(x);
  } else {
    return x;
  }
}
template <class S>
std::vector<arithmetic_t<S>> numbers(const std::vector<S>& list) {
  std::vector<arithmetic_t<S>> result;
  for (const S x : list) result.push_back(number(x));
  return result;
}

}   // namespace exodus::test
