/// @file
/// The current-based leaky integrate-and-fire neuron: a synaptic current with its own decay drives a LIF.
///
///     i[n] = alpha_syn i[n-1] + gain a[n],   u[n], s[n]: LIF (lif.hpp) with x[n] = i[n]
///
/// It is the spike response model with eps = alpha^n * alpha_syn^n (convolved) and nu = -amount alpha^n. Backward, d[n] is LIF's, and one
/// more reverse recurrence follows it (docs/mathematics.md, CubaLIF):
///
///     p[n] = dL/di[n] = d[n] + alpha_syn p[n+1],   dL/da[n] = gain p[n]
///     dL/d alpha_syn = sum_n p[n] i[n-1],   dL/d gain = sum_n p[n] a[n],   dL/di[-1] = alpha_syn p[0]
#pragma once

#include "lif.hpp"

namespace exodus {

template <class X>
struct CubaLifParameters {
  X alpha{}, alpha_syn{}, threshold{}, gain{}, reset_amount{}, v_min{};
};

template <class X>
struct CubaLifState {
  X potential{}, spikes{}, current{};
};

/// p[n+1] and d[n+1].
template <class X>
struct CubaLifCarry {
  X p{}, d{};
};

/// CubaLIF for data of type S. Defaults: alpha and alpha_syn 1, threshold 1, gain 1, reset_amount the threshold (whose gradient then counts
/// both roles), no v_min.
template <class S>
struct CubaLif : LifModel<S, CubaLifParameters, CubaLifState> {
  template <class X>
  using Carry = CubaLifCarry<X>;

  static constexpr ParameterFacts parameter_table[] = {
      {.name = "alpha", .domain = Domain::decay, .default_value = 1, .reads_hidden_states = false},
      {.name = "alpha_syn", .domain = Domain::decay, .default_value = 1, .reads_current = true},
      {.name = "threshold", .domain = Domain::positive, .default_value = 1, .reads_hidden_states = false, .role = Role::threshold},
      {.name = "gain",
       .default_value = 1,
       .complement_of = "alpha",
       .reads_current = true,
       .reads_hidden_states = false,
       .role = Role::gain},
      {.name = "reset_amount", .same_as = "threshold", .reads_hidden_states = false},
      {.name = "v_min", .domain = Domain::below_threshold, .default_value = never_clips, .reads_hidden_states = false},
  };
  static constexpr const char* state_names[] = {"potential", "spikes", "current"};
};

/// The LIF that the synaptic current drives; its own gain is 1.
template <class V>
EXODUS_SCALAR LifParameters<V> membrane(const CubaLifParameters<V>& p) {
  return {p.alpha, p.threshold, V(1), p.reset_amount, p.v_min};
}

template <class V>
EXODUS_SCALAR LifState<V> membrane(const CubaLifState<V>& state) {
  return {state.potential, state.spikes};
}

/// i[n].
template <class V>
EXODUS_SCALAR V synaptic(const CubaLifParameters<V>& p, V before, V a) {
  return (p.alpha_syn * before) + (p.gain * a);
}

template <int Variant, class V>
EXODUS_SCALAR void step(const CubaLifParameters<V>& p, V most_spikes, CubaLifState<V>& state, const StepInputs<V>& in) {
  state.current = synaptic(p, state.current, in.current);
  LifState<V> lif = membrane(state);
  step<Variant>(membrane(p), most_spikes, lif, {state.current});
  state.potential = lif.potential;
  state.spikes = lif.spikes;
}

template <int Variant, class V>
EXODUS_SCALAR CubaLifState<V> restore_state(const CubaLifParameters<V>& p, V most_spikes, const CubaLifState<V>& before, V u, V a) {
  const LifState<V> lif = restore_state<Variant>(membrane(p), most_spikes, membrane(before), u, a);
  return {lif.potential, lif.spikes, synaptic(p, before.current, a)};
}

/// Step n as the membrane's adjoint reads it.
template <class V>
EXODUS_SCALAR StepRecord<V, LifState<V>> membrane(const StepRecord<V, CubaLifState<V>>& at) {
  return {at.potential, membrane(at.before), {}, at.surrogate, at.grad_spikes, at.grad_potential, V(0)};
}

/// The membrane's terms, and those of the synapse from dL/di[n].
template <class V>
EXODUS_SCALAR CubaLifParameters<V> with_synapse(const LifParameters<V>& lif, const StepRecord<V, CubaLifState<V>>& at, V grad_current) {
  return {lif.alpha, grad_current * at.before.current, lif.threshold, grad_current * at.current, lif.reset_amount, lif.v_min};
}

template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const CubaLifParameters<V>& p, const StepRecord<V, CubaLifState<V>>& at, CubaLifCarry<V>& carry,
                                    CubaLifParameters<V>& terms) {
  LifCarry<V> lif{carry.d};
  LifParameters<V> lif_terms;
  carry.d = adjoint<M, Variant>(membrane(p), membrane(at), lif, lif_terms).current;
  carry.p = multiply_add(p.alpha_syn, carry.p, carry.d + at.grad_state.current);
  terms = with_synapse(lif_terms, at, carry.p);
  return {p.gain * carry.p};
}

template <Method M, int Variant, class V>
EXODUS_SCALAR CubaLifState<V> initial_gradient(const CubaLifParameters<V>& p, const CubaLifState<V>& initial,
                                               const CubaLifCarry<V>& carry) {
  const LifState<V> lif = initial_gradient<M, Variant>(membrane(p), membrane(initial), LifCarry<V>{carry.d});
  return {lif.potential, lif.spikes, p.alpha_syn * carry.p};
}

/// BPTT: every statement of step() in reverse.
template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const CubaLifParameters<V>& p, const StepRecord<V, CubaLifState<V>>& at, CubaLifState<V>& carry,
                                    CubaLifParameters<V>& terms) {
  LifState<V> lif{carry.potential, carry.spikes};
  LifParameters<V> lif_terms;
  const V through_membrane = adjoint<M, Variant>(membrane(p), membrane(at), lif, lif_terms).current;
  const V grad_current = (at.grad_state.current + carry.current) + through_membrane;   // i = alpha_syn i' + gain a
  carry = {lif.potential, lif.spikes, p.alpha_syn * grad_current};
  terms = with_synapse(lif_terms, at, grad_current);
  return {p.gain * grad_current};
}

}   // namespace exodus
