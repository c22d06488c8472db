/// @file
/// The leaky integrator: a filter without spikes, the field's LI readout.
///
///     u[n] = alpha u[n-1] + gain a[n],      d[n] = q[n] + alpha d[n+1],  dL/da[n] = gain d[n]
///
/// It has no reset, so that EXODUS, SLAYER and BPTT are the same.
#pragma once

#include "neuron.hpp"

namespace exodus {

template <class X>
struct ExpLeakParameters {
  X alpha{}, gain{};
};

template <class X>
struct ExpLeakState {
  X potential{};
};

/// d[n+1].
template <class X>
struct ExpLeakCarry {
  X d{};
};

/// Leaky integrator for data of type S. Not given: alpha 1, gain 1. `spikes` and `grad_spikes` of its arrays are ignored.
template <class S>
struct ExpLeak : ExpLeakParameters<Param<arithmetic_t<S>>> {
  using Storage = S;
  template <class X>
  using Parameters = ExpLeakParameters<X>;
  template <class X>
  using State = ExpLeakState<X>;
  template <Method M, class X>
  using Carry = ExpLeakCarry<X>;
  using Forward = ForwardArrays<S, ExpLeakState>;
  using Backward = BackwardArrays<S, ExpLeakState, ExpLeakParameters>;

  bool gain_follows_alpha = false;   ///< the gain given is 1 - alpha: its gradient is counted to alpha

  static constexpr bool fires = false;
  static constexpr int variants = 1;
  static constexpr int adjoint_variants = 1;
  static constexpr int threshold_index = 0;   // no surrogate reads it
  static constexpr int gain_index = 1;
  template <Method M>
  static constexpr bool carries_gradient = true;
  static constexpr bool reads_current(int parameter) { return parameter == gain_index; }
  static constexpr const char* parameter_names[] = {"alpha", "gain"};
  static constexpr const char* state_names[] = {"potential"};
};

template <class S, class F>
static inline void for_each_option(ExpLeak<S>& neuron, F&& field) {
  field("gain_follows_alpha", neuron.gain_follows_alpha);
}

template <class S>
static inline int variant_of(const ExpLeak<S>&) {
  return 0;
}

template <class S>
static inline ExpLeakParameters<Param<arithmetic_t<S>>> resolved(const ExpLeak<S>& neuron) {
  using P = Param<arithmetic_t<S>>;
  return {given(neuron.alpha, P(1)), given(neuron.gain, P(1))};
}

template <class S, class F>
static inline void for_each_tie(const ExpLeak<S>& neuron, F&& tie) {
  enum { alpha, gain };
  if (neuron.gain_follows_alpha) tie(Tie{gain, alpha, -1});
}

template <int Variant, class V>
EXODUS_SCALAR void step(const ExpLeakParameters<V>& p, V /*cap*/, ExpLeakState<V>& state, const StepInputs<V>& in) {
  state.potential = (p.alpha * state.potential) + (p.gain * in.current);
}

template <int Variant, class V>
EXODUS_SCALAR ExpLeakState<V> recorded(const ExpLeakParameters<V>&, V /*cap*/, const ExpLeakState<V>&, V u, V /*a*/) {
  return {u};
}

template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const ExpLeakParameters<V>& p, const Moment<V, ExpLeakState<V>>& at, ExpLeakCarry<V>& carry,
                                    ExpLeakParameters<V>& terms) {
  const V d = multiply_add(p.alpha, carry.d, at.q);
  terms = {d * at.before.potential, d * at.a};
  carry.d = d;
  return {p.gain * d};
}

template <Method M, int Variant, class V>
EXODUS_SCALAR ExpLeakState<V> initial_gradient(const ExpLeakParameters<V>& p, const ExpLeakState<V>&, const ExpLeakCarry<V>& carry) {
  return {p.alpha * carry.d};
}

}   // namespace exodus
