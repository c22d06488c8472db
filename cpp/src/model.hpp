/// @file
/// Properties of a model that engines use at compile time: counts, variants, and the functions that it has.
#pragma once

#include <iterator>
#include <type_traits>

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
  static constexpr int kernels = field_count<decltype(typename N::Backward{}.grad_taps), double*>;   // kernels that may have taps
  static constexpr int variants = N::variants;
  static constexpr int adjoint_variants = N::adjoint_variants > 0 ? N::adjoint_variants : N::variants;
  static_assert(parameters == static_cast<int>(std::size(N::parameter_table)) && states == static_cast<int>(std::size(N::state_names)));
  static_assert(parameters <= max_parameters && states <= max_states);
};

/// The carry of a backward pass from a step to the one before. BPTT carries dL/d(state). For a linear neuron all methods are the same.
template <class N, Method M, class X>
using carry_of = std::conditional_t<M == Method::bptt && N::fires, typename N::template State<X>, typename N::template Carry<X>>;

/// The index of the parameter with a role, or -1.
template <class N>
consteval int parameter_of(Role role) {
  for (int k = 0; k < Traits<N>::parameters; ++k) {
    if (N::parameter_table[k].role == role) return k;
  }
  return -1;
}

/// Copies the fields of an aggregate into a list.
template <int Count, class Aggregate, class X>
void to_list(const Aggregate& aggregate, X* list) {
  for_each_field<Count>(aggregate, [list](const X& value, int k) { list[k] = value; });
}

/// Whether the surrogate takes surrogate_argument(state) in place of the potential. What it reads then follows from potentials alone:
/// restore_state() does not read the current.
template <class N>
inline constexpr bool surrogate_reads_hidden_state = requires { N::surrogate_reads_hidden_state; };

/// What reads the spikes of the step before in the adjoint: parameters' terms, one bit each, and the carry (carry_bit).
template <template <class> class N, Method M, int Variant>
consteval unsigned spike_readers() {
  if constexpr (requires { N<float>::template spike_readers<M, Variant>(); }) {
    return N<float>::template spike_readers<M, Variant>();
  }
  return ~0u;
}

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

/// The states (or the fields of a carry), out of `count`, that a variant has, one bit each. Those of kernels come last; a kernel with taps
/// has none.
template <template <class> class N, int Variant>
consteval unsigned fields_of(int count) {
  unsigned bits = 0;
  for (int k = 0, of_kernels = kernel_states * Traits<N<float>>::kernels - count; k < count; ++k, ++of_kernels) {
    if (of_kernels < 0 || !has_taps<N, Variant>(of_kernels / kernel_states)) bits |= 1u << k;
  }
  return bits;
}

}   // namespace exodus
