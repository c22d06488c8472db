/// @file
/// What engines ask of a model at compile time.
#pragma once

#include "call.hpp"

namespace exodus {

template <class N>
struct Traits {
  using S = typename N::Storage;
  using V = arithmetic_t<S>;
  using Parameters = typename N::template Parameters<V>;
  using State = typename N::template State<V>;
  static constexpr int parameters = field_count<Parameters, V>;
  static constexpr int states = field_count<State, V>;
  static constexpr int kernels = field_count<decltype(typename N::Backward{}.grad_taps), double*>;   // that may have taps
  static_assert(parameters <= max_parameters && states <= max_states);
};

/// Whether the surrogate sees drive(state) in place of the potential.
template <template <class> class N, class V>
inline constexpr bool fires_by_hidden = requires { N<V>::fires_by_hidden; };

/// Whether a variant is of kernels with taps alone.
template <template <class> class N, int Variant>
constexpr bool variant_needs_taps() {
  if constexpr (requires { N<float>::template needs_taps<Variant>; }) return N<float>::template needs_taps<Variant>;
  return false;
}
template <template <class> class N, int Variant>
inline constexpr bool needs_taps = variant_needs_taps<N, Variant>();

}   // namespace exodus
