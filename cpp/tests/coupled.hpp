/// @file
/// A neuron for tests: two coupled states, each of which drives the other, and an input into both. Its hidden state depends on the
/// potential before, on the hidden state before and on the current, so that a backward pass that rebuilds it from anything else is wrong.
///
///     u[n] = a00 u[n-1] + a01 v[n-1] + gain a[n] + spike_weight s[n-1],   s[n] = f(u[n])
///     v[n] = a10 u[n-1] + a11 v[n-1] + gain a[n]
///
/// With X0 = dL/du, X1 = dL/dv (docs/mathematics.md, Coupled states):
///
///     S[n]  = e[n] + spike_weight X0[n+1]
///     X0[n] = q[n] + h[n] S[n] + a00 X0[n+1] + a10 X1[n+1],   X1[n] = dL/dv[n], direct, + a01 X0[n+1] + a11 X1[n+1]
#pragma once

#include <type_traits>

#include "exodus/neuron.hpp"

#define EXODUS_MODELS(X) X(Coupled)

namespace exodus {

template <class X>
struct CoupledParameters {
  X a00{}, a01{}, a10{}, a11{}, gain{}, spike_weight{}, threshold{};
};

template <class X>
struct CoupledState {
  X potential{}, spikes{}, second{};
};

template <class X>
struct CoupledCarry {
  X potential{}, second{};
};

template <class S>
struct Coupled : NeuronModel<S, CoupledParameters, CoupledState> {
  template <class X>
  using Carry = CoupledCarry<X>;

  static constexpr ParameterFacts parameter_table[] = {
      {.name = "a00", .default_value = 1, .reads_current = true},
      {.name = "a01", .reads_current = true},
      {.name = "a10", .reads_current = true},
      {.name = "a11", .default_value = 1, .reads_current = true},
      {.name = "gain", .default_value = 1, .reads_current = true},
      {.name = "spike_weight", .default_value = -1, .reads_current = true},
      {.name = "threshold", .domain = Domain::positive, .default_value = 1, .role = Role::threshold},
  };
  static constexpr const char* state_names[] = {"potential", "spikes", "second"};
};

template <int Variant, class V>
EXODUS_SCALAR CoupledState<V> restore_state(const CoupledParameters<V>& p, V most_spikes, const CoupledState<V>& before, V u, V a) {
  return {u, fire<false>(u, p.threshold, most_spikes), ((p.a10 * before.potential) + (p.a11 * before.second)) + (p.gain * a)};
}

template <int Variant, class V>
EXODUS_SCALAR void step(const CoupledParameters<V>& p, V most_spikes, CoupledState<V>& state, const StepInputs<V>& in) {
  const V u = (((p.a00 * state.potential) + (p.a01 * state.second)) + (p.gain * in.current)) + (p.spike_weight * state.spikes);
  state = restore_state<Variant>(p, most_spikes, state, u, in.current);
}

/// The terms of the parameters' gradients, from X0[n], X1[n] and h[n] S[n].
template <class V>
EXODUS_SCALAR CoupledParameters<V> coupled_terms(const StepRecord<V, CoupledState<V>>& at, V grad_u, V grad_v, V fired) {
  const CoupledState<V>& before = at.before;
  return {grad_u * before.potential,
          grad_u * before.second,
          grad_v * before.potential,
          grad_v * before.second,
          (grad_u + grad_v) * at.current,
          grad_u * before.spikes,
          -fired};
}

template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const CoupledParameters<V>& p, const StepRecord<V, CoupledState<V>>& at, CoupledCarry<V>& carry,
                                    CoupledParameters<V>& terms) {
  const V grad_s = M == Method::slayer ? at.grad_spikes : at.grad_spikes + p.spike_weight * carry.potential;
  const V fired = at.surrogate * grad_s;
  carry = {((at.grad_potential + fired) + p.a00 * carry.potential) + p.a10 * carry.second,
           (at.grad_state.second + p.a01 * carry.potential) + p.a11 * carry.second};
  terms = coupled_terms(at, carry.potential, carry.second, fired);
  return {p.gain * (carry.potential + carry.second)};
}

template <Method M, int Variant, class V>
EXODUS_SCALAR CoupledState<V> initial_gradient(const CoupledParameters<V>& p, const CoupledState<V>&, const CoupledCarry<V>& carry) {
  return {p.a00 * carry.potential + p.a10 * carry.second, M == Method::slayer ? V(0) : p.spike_weight * carry.potential,
          p.a01 * carry.potential + p.a11 * carry.second};
}

/// BPTT: every statement of step() in reverse.
template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const CoupledParameters<V>& p, const StepRecord<V, CoupledState<V>>& at, CoupledState<V>& carry,
                                    CoupledParameters<V>& terms) {
  const V fired = at.surrogate * (at.grad_spikes + carry.spikes);
  const V grad_u = (at.grad_potential + carry.potential) + fired, grad_v = at.grad_state.second + carry.second;
  terms = coupled_terms(at, grad_u, grad_v, fired);
  carry = {grad_u * p.a00 + grad_v * p.a10, grad_u * p.spike_weight, grad_u * p.a01 + grad_v * p.a11};
  return {p.gain * (grad_u + grad_v)};
}

}   // namespace exodus
