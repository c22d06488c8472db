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

/// Copies the fields of an aggregate into a list.
template <int Count, class Aggregate, class X>
void to_list(const Aggregate& aggregate, X* list) {
  for_each_field<Count>(aggregate, [list](const X& value, int k) { list[k] = value; });
}

/// Whether the surrogate sees drive(state) in place of the potential.
template <template <class> class N, class V>
inline constexpr bool fires_by_hidden = requires { N<V>::fires_by_hidden; };

/// Whether a kernel of a variant has taps, which an operator applies outside the neuron. The kernel of the current is 0, that of the
/// spikes 1. (Immediate, like what follows: an object of an instruction set must not define a function that could be merged.)
template <template <class> class N, int Variant>
consteval bool has_taps(int kernel) {
  if constexpr (requires { N<float>::template kernel_form<Variant>(0); }) {
    return kernel < Traits<N<float>>::kernels && N<float>::template kernel_form<Variant>(kernel) == KernelForm::taps;
  }
  return false;
}

/// Whether earlier spikes reach the potential of a variant through an operator outside it.
template <template <class> class N, int Variant>
inline constexpr bool takes_feedback = has_taps<N, Variant>(1);

/// Which of `count` states, or of what an adjoint carries, are there, a bit each: those of kernels come last, and with taps are not.
template <template <class> class N, int Variant>
consteval unsigned fields_of(int count) {
  unsigned bits = 0;
  for (int k = 0, of_kernels = kernel_states * Traits<N<float>>::kernels - count; k < count; ++k, ++of_kernels) {
    if (of_kernels < 0 || !has_taps<N, Variant>(of_kernels / kernel_states)) bits |= 1u << k;
  }
  return bits;
}

}   // namespace exodus
