/// @file
/// The state-space neuron: two coupled states, driven by the input and by the neuron's own spikes. AdLIF, the adaptive LIF whose adaptation
/// also follows the potential, and resonate-and-fire are this neuron with particular matrices.
///
///     kept[n-1] = u[n-1]     (reset to zero: 0 where s[n-1] fired)
///     u[n] = A00 kept[n-1] + A01 v[n-1] + b0 a[n] + r0 s[n-1],   s[n] = 1[u[n] >= theta]
///     v[n] = A10 kept[n-1] + A11 v[n-1] + b1 a[n] + r1 s[n-1]
///
/// With X = dL/d(u, v) and Y[n] = A^T X[n+1], EXODUS carries X (docs/mathematics.md, Coupled states):
///
///     S[n]  = dL/ds[n] = e[n] + r . X[n+1]   (reset to zero: - u[n] Y0[n])
///     X0[n] = q[n] + h[n] S[n] + Y0[n]       (reset to zero: Y0[n] only where step n did not fire),   X1[n] = direct + Y1[n]
///     dL/da = b . X[n],  dL/dA_ij = sum X_i[n] (kept, v)_j[n-1],  dL/db_i = sum X_i[n] a[n],  dL/dr_i = sum X_i[n] s[n-1]
///     dL/d theta = - sum h[n] S[n]
///
/// SLAYER detaches s in its contributions to the states and in the reset: S = e. BPTT is the reverse of the step, statement by statement.
/// The backward pass rebuilds v forward from the recorded potential and the current.
#pragma once

#include <type_traits>

#include "neuron.hpp"

namespace exodus {

template <class X>
struct StateSpaceParameters {
  X A00{}, A01{}, A10{}, A11{}, b0{}, b1{}, r0{}, r1{}, threshold{};
};

template <class X>
struct StateSpaceState {
  X potential{}, spikes{}, second{};
};

/// X0[n+1] and X1[n+1].
template <class X>
struct StateSpaceCarry {
  X potential{}, second{};
};

/// The state-space neuron for data of type S. Defaults: A the identity, b (1, 0), r (-1, 0), threshold 1.
template <class S>
struct StateSpace : NeuronModel<S, StateSpaceParameters, StateSpaceState> {
  template <class X>
  using Carry = StateSpaceCarry<X>;

  Reset reset = Reset::subtract;   ///< besides r: zero also drops the potential before A, subtract and none do nothing more

  static constexpr int variants = 2;   ///< 1: reset to zero
  static constexpr int adjoint_variants = 2;
  static constexpr ParameterFacts parameter_table[] = {
      // Gradients of b need the current, and those of A01 and A11 the second state, which is rebuilt from it.
      {.name = "A00", .default_value = 1, .reads_hidden_states = false},
      {.name = "A01", .reads_current = true},
      {.name = "A10", .reads_hidden_states = false},
      {.name = "A11", .default_value = 1, .reads_current = true},
      {.name = "b0", .default_value = 1, .reads_current = true, .reads_hidden_states = false},
      {.name = "b1", .reads_current = true, .reads_hidden_states = false},
      {.name = "r0", .default_value = -1, .reads_hidden_states = false},
      {.name = "r1", .reads_hidden_states = false},
      {.name = "threshold", .domain = Domain::positive, .default_value = 1, .reads_hidden_states = false, .role = Role::threshold},
  };
  static constexpr const char* state_names[] = {"potential", "spikes", "second"};
};

template <class S, class F>
static inline void for_each_option(StateSpace<S>& neuron, F&& field) {
  field("reset", neuron.reset);
}

template <class S>
static inline int variant_of(const StateSpace<S>& neuron) {
  return neuron.reset == Reset::zero ? 1 : 0;
}

/// The part of the previous potential that a step keeps.
template <int Variant, class V>
EXODUS_SCALAR V kept(const StateSpaceState<V>& before) {
  if constexpr (Variant == 1) return before.spikes > V(0) ? V(0) : before.potential;
  return before.potential;
}

/// v[n], from the state before the step.
template <int Variant, class V>
EXODUS_SCALAR V second_state(const StateSpaceParameters<V>& p, const StateSpaceState<V>& before, V a) {
  return (((p.A10 * kept<Variant>(before)) + (p.A11 * before.second)) + (p.b1 * a)) + (p.r1 * before.spikes);
}

/// The state after a step, from its potential.
template <int Variant, class V>
EXODUS_SCALAR StateSpaceState<V> restore_state(const StateSpaceParameters<V>& p, V most_spikes, const StateSpaceState<V>& before, V u,
                                               V a) {
  return {u, fire<false>(u, p.threshold, most_spikes), second_state<Variant>(p, before, a)};
}

template <int Variant, class V>
EXODUS_SCALAR void step(const StateSpaceParameters<V>& p, V most_spikes, StateSpaceState<V>& state, const StepInputs<V>& in) {
  const V u = (((p.A00 * kept<Variant>(state)) + (p.A01 * state.second)) + (p.b0 * in.current)) + (p.r0 * state.spikes);
  state = restore_state<Variant>(p, most_spikes, state, u, in.current);
}

/// The terms of step n in the parameters' gradients, from dL/du[n], dL/dv[n] and h[n] S[n].
template <int Variant, class V>
EXODUS_SCALAR StateSpaceParameters<V> gradient_terms(const StepRecord<V, StateSpaceState<V>>& at, V grad_u, V grad_v, V fired) {
  const V u = kept<Variant>(at.before), v = at.before.second, s = at.before.spikes;
  return {grad_u * u, grad_u * v, grad_v * u, grad_v * v, grad_u * at.current, grad_v * at.current, grad_u * s, grad_v * s, -fired};
}

/// direct + r . X: the gradient of a spike through the states of the next step.
template <class V>
EXODUS_SCALAR V through_spike(const StateSpaceParameters<V>& p, V grad_u, V grad_v, V direct) {
  return multiply_add(p.r1, grad_v, multiply_add(p.r0, grad_u, direct));
}

template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const StateSpaceParameters<V>& p, const StepRecord<V, StateSpaceState<V>>& at,
                                    StateSpaceCarry<V>& carry, StateSpaceParameters<V>& terms) {
  const V Y0 = multiply_add(p.A10, carry.second, p.A00 * carry.potential);
  V grad_s = at.grad_spikes, kept_gradient = Y0;
  if constexpr (M != Method::slayer) grad_s = through_spike(p, carry.potential, carry.second, at.grad_spikes);
  if constexpr (Variant == 1) {
    if constexpr (M != Method::slayer) grad_s = multiply_add(-at.potential, Y0, grad_s);
    kept_gradient = at.potential >= p.threshold ? V(0) : Y0;
  }
  const V fired = at.surrogate * grad_s;
  const V grad_u = (at.grad_potential + fired) + kept_gradient;
  const V grad_v = multiply_add(p.A11, carry.second, multiply_add(p.A01, carry.potential, at.grad_state.second));
  terms = gradient_terms<Variant>(at, grad_u, grad_v, fired);
  carry = {grad_u, grad_v};
  return {multiply_add(p.b1, grad_v, p.b0 * grad_u)};
}

/// dL/d(initial state) from the carry after step 0.
template <Method M, int Variant, class V>
EXODUS_SCALAR StateSpaceState<V> initial_gradient(const StateSpaceParameters<V>& p, const StateSpaceState<V>& initial,
                                                  const StateSpaceCarry<V>& carry) {
  const V Y0 = multiply_add(p.A10, carry.second, p.A00 * carry.potential);
  const V Y1 = multiply_add(p.A11, carry.second, p.A01 * carry.potential);
  if constexpr (Variant == 0) {
    return {Y0, M == Method::slayer ? V(0) : through_spike(p, carry.potential, carry.second, V(0)), Y1};
  } else {
    const V of_spikes = through_spike(p, carry.potential, carry.second, -(initial.potential * Y0));
    return {initial.spikes > V(0) ? V(0) : Y0, M == Method::slayer ? V(0) : of_spikes, Y1};
  }
}

/// BPTT: every statement of step() in reverse. The carry is dL/d(state after step n) on entry, dL/d(state after step n-1) on return.
template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const StateSpaceParameters<V>& p, const StepRecord<V, StateSpaceState<V>>& at,
                                    StateSpaceState<V>& carry, StateSpaceParameters<V>& terms) {
  const StateSpaceState<V>& before = at.before;

  const V fired = at.surrogate * (at.grad_spikes + carry.spikes);   // s = f(u - threshold)
  const V grad_u = (at.grad_potential + carry.potential) + fired;
  const V grad_v = at.grad_state.second + carry.second;
  terms = gradient_terms<Variant>(at, grad_u, grad_v, fired);

  const V grad_kept = grad_u * p.A00 + grad_v * p.A10;   // (u, v) = A (kept, v') + b a + r s'
  carry = {grad_kept, grad_u * p.r0 + grad_v * p.r1, grad_u * p.A01 + grad_v * p.A11};
  if constexpr (Variant == 1) {   // kept = u' (1 - s')
    carry.potential = before.spikes > V(0) ? V(0) : grad_kept;
    carry.spikes = carry.spikes - grad_kept * before.potential;
  }
  return {grad_u * p.b0 + grad_v * p.b1};
}

}   // namespace exodus
