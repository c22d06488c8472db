/// @file
/// The code that mutations.py puts into a copy of the kernels: comparisons and barriers of which the environment (EXODUS_CHANGES) changes
/// some, by their numbers. `a < choice<7, less> > b` is a < b, or where change 7 is made a <= b; its operators are those of a < b, so that
/// nothing needs parentheses.
#pragma once

#include <array>
#include <cstddef>
#include <cstdlib>

namespace exodus::changes {

inline constexpr int most_changes = 1024;

/// Whether each change is made. EXODUS_CHANGES has their numbers, with a space after each.
inline const std::array<bool, most_changes> made = [] {
  std::array<bool, most_changes> result{};
  const char* numbers = std::getenv("EXODUS_CHANGES");
  for (char* end = nullptr; numbers != nullptr && *numbers != 0; numbers = end + 1) {
    result.at(static_cast<std::size_t>(std::strtol(numbers, &end, 10))) = true;
  }
  return result;
}();

enum Operator { less, at_most, more, at_least };

template <int Number, Operator Is>
struct Choice {};
template <int Number, Operator Is>
inline constexpr Choice<Number, Is> choice{};

template <class X, int Number, Operator Is>
struct Left {
  const X& x;
};

template <class X, int Number, Operator Is>
[[gnu::always_inline]] inline Left<X, Number, Is> operator<(const X& x, Choice<Number, Is>) {
  return {x};
}

template <class X, int Number, Operator Is, class Y>
[[gnu::always_inline]] inline bool operator>(const Left<X, Number, Is>& left, const Y& y) {
  static_assert(Number < most_changes);
  const bool shifted = made[Number];
  if constexpr (Is == less) return shifted ? left.x <= y : left.x < y;
  if constexpr (Is == at_most) return shifted ? left.x < y : left.x <= y;
  if constexpr (Is == more) return shifted ? left.x >= y : left.x > y;
  if constexpr (Is == at_least) return shifted ? left.x > y : left.x >= y;
}

}   // namespace exodus::changes
