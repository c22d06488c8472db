/// @file
/// Parameters and states are structs of named members of one type, which engines and bindings see as short lists. This is the bridge.
#pragma once

#include <utility>

#include "macros.hpp"

namespace exodus {

/// How many members of type X the aggregate T has.
template <class T, class X>
inline constexpr int field_count = static_cast<int>(sizeof(T) / sizeof(X));

/// Calls f(member, index) for the N members of the aggregate, in order of declaration.
EXODUS_CALLS_ITS_ARGUMENT
template <int N, class T, class F>
EXODUS_SCALAR void for_each_field(T& aggregate, F&& f) {
  static_assert(1 <= N && N <= 9, "add a line below");
  if constexpr (N == 1) {
    auto& [a] = aggregate;
    f(a, 0);
  } else if constexpr (N == 2) {
    auto& [a, b] = aggregate;
    f(a, 0), f(b, 1);
  } else if constexpr (N == 3) {
    auto& [a, b, c] = aggregate;
    f(a, 0), f(b, 1), f(c, 2);
  } else if constexpr (N == 4) {
    auto& [a, b, c, d] = aggregate;
    f(a, 0), f(b, 1), f(c, 2), f(d, 3);
  } else if constexpr (N == 5) {
    auto& [a, b, c, d, e] = aggregate;
    f(a, 0), f(b, 1), f(c, 2), f(d, 3), f(e, 4);
  } else if constexpr (N == 6) {
    auto& [a, b, c, d, e, g] = aggregate;
    f(a, 0), f(b, 1), f(c, 2), f(d, 3), f(e, 4), f(g, 5);
  } else if constexpr (N == 7) {
    auto& [a, b, c, d, e, g, i] = aggregate;
    f(a, 0), f(b, 1), f(c, 2), f(d, 3), f(e, 4), f(g, 5), f(i, 6);
  } else if constexpr (N == 8) {
    auto& [a, b, c, d, e, g, i, j] = aggregate;
    f(a, 0), f(b, 1), f(c, 2), f(d, 3), f(e, 4), f(g, 5), f(i, 6), f(j, 7);
  } else {
    auto& [a, b, c, d, e, g, i, j, k] = aggregate;
    f(a, 0), f(b, 1), f(c, 2), f(d, 3), f(e, 4), f(g, 5), f(i, 6), f(j, 7), f(k, 8);
  }
}

}   // namespace exodus
