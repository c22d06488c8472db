/// @file
/// The leaky integrator: a filter without spikes, the field's LI readout.
///
///     u[n] = alpha u[n-1] + gain a[n],      d[n] = q[n] + alpha d[n+1],  dL/da[n] = gain d[n]
///
/// It has no reset, so EXODUS, SLAYER and BPTT are the same.
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

/// Leaky integrator for data of type S. Defaults: alpha 1, gain 1. `spikes` and `grad_spikes` of its arrays are ignored.
template <class S>
struct ExpLeak : NeuronModel<S, ExpLeakParameters, ExpLeakState> {
  template <class X>
  using Carry = ExpLeakCarry<X>;

  bool gain_follows_alpha = false;   ///< the gain given is 1 - alpha: its gradient is counted to alpha

  static constexpr bool fires = false;
  static constexpr bool carries_gradient = true;
  static constexpr ParameterFacts parameter_table[] = {
      {.name = "alpha", .domain = Domain::decay, .default_value = 1},
      {.name = "gain", .default_value = 1, .complement_of = "alpha", .reads_current = true, .role = Role::gain},
  };
  static constexpr const char* state_names[] = {"potential"};
};

template <class S, class F>
static inline void for_each_option(ExpLeak<S>& neuron, F&& field) {
  field("gain_follows_alpha", neuron.gain_follows_alpha);
}

template <int Variant, class V>
EXODUS_SCALAR void step(const ExpLeakParameters<V>& p, V /*most_spikes*/, ExpLeakState<V>& state, const StepInputs<V>& in) {
  state.potential = (p.alpha * state.potential) + (p.gain * in.current);
}

template <int Variant, class V>
EXODUS_SCALAR ExpLeakState<V> restore_state(const ExpLeakParameters<V>&, V /*most_spikes*/, const ExpLeakState<V>&, V u, V /*a*/) {
  return {u};
}

template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const ExpLeakParameters<V>& p, const StepRecord<V, ExpLeakState<V>>& at, ExpLeakCarry<V>& carry,
                                    ExpLeakParameters<V>& terms) {
  const V d = multiply_add(p.alpha, carry.d, at.grad_potential);
  terms = {d * at.before.potential, d * at.current};
  carry.d = d;
  return {p.gain * d};
}

template <Method M, int Variant, class V>
EXODUS_SCALAR ExpLeakState<V> initial_gradient(const ExpLeakParameters<V>& p, const ExpLeakState<V>&, const ExpLeakCarry<V>& carry) {
  return {p.alpha * carry.d};
}

}   // namespace exodus
