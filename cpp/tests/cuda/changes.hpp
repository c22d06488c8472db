/// @file
/// What mutations.py puts into a copy of the kernels: comparisons and barriers of which the environment (EXODUS_CHANGE) changes one, by its
/// number. `a < choice<7, less> > b` is a < b, or where change 7 is made a <= b; its operators are those of a < b, so that nothing needs
/// parentheses.
#pragma once

#include <cstdlib>

namespace exodus::changes {

/// The number of the change that is made; negative: none.
inline const int made = [] {
  const char* const number = std::getenv("EXODUS_CHANGE");
  return number == nullptr ? -1 : std::atoi(number);
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
  const bool shifted = made == Number;
  if constexpr (Is == less) return shifted ? left.x <= y : left.x < y;
  if constexpr (Is == at_most) return shifted ? left.x < y : left.x <= y;
  if constexpr (Is == more) return shifted ? left.x >= y : left.x > y;
  if constexpr (Is == at_least) return shifted ? left.x > y : left.x >= y;
}

}   // namespace exodus::changes
