/// @file
/// The adaptive leaky integrate-and-fire neuron: each spike raises the threshold by an adaptation that decays.
///
///     b[n] = alpha_adapt b[n-1] + adapt_scale s[n-1]
///     u[n] = alpha u[n-1] + gain a[n] - theta s[n-1],   u[n] = max(u[n], v_min)      the reset subtracts the base threshold theta
///     s[n] = 1[u[n] - b[n] >= theta];   h[n] is the surrogate at u[n] - b[n]
///
/// Since b is linear in past spikes, u - b is the potential of a spike response model with nu[j] = -theta alpha^j - adapt_scale
/// alpha_adapt^j, so (S9) and (S16) hold as they stand. With r = alpha_adapt, kappa = adapt_scale, EXODUS carries two numbers
/// (docs/mathematics.md, ALIF):
///
///     S[n] = dL/ds[n] = e[n] - theta d[n+1] + kappa g[n+1]
///     w[n] = q[n] + h[n] S[n] + alpha d[n+1],   d[n] = dL/dx[n] = w[n] unless step n was clipped, then 0
///     g[n] = dL/db[n] = r g[n+1] - h[n] S[n]
///     dL/da = gain d,  dL/d alpha = sum d[n] u[n-1],  dL/dr = sum g[n] b[n-1],  dL/d kappa = sum g[n] s[n-1]
///     dL/d theta = -sum (h[n] S[n] + d[n] s[n-1])
///
/// SLAYER detaches s in the reset and in b: S = e. BPTT is the reverse of the step, statement by statement. Backward rebuilds b forward
/// from the recorded potential. (In reverse, divisions by r would amplify rounding errors.)
#pragma once

#include <type_traits>

#include "neuron.hpp"

namespace exodus {

template <class X>
struct AlifParameters {
  X alpha{}, alpha_adapt{}, adapt_scale{}, threshold{}, gain{}, v_min{};
};

template <class X>
struct AlifState {
  X potential{}, spikes{}, adaptation{};
};

/// d[n+1] and g[n+1].
template <class X>
struct AlifCarry {
  X d{}, g{};
};

/// ALIF for data of type S. Defaults: alpha and alpha_adapt 1, adapt_scale 0, threshold 1, gain 1, no v_min.
template <class S>
struct Alif : NeuronModel<S, AlifParameters, AlifState> {
  template <class X>
  using Carry = AlifCarry<X>;

  static constexpr bool surrogate_reads_hidden_state = true;   ///< the surrogate's argument is more than the potential
  static constexpr bool carries_gradient = true;
  static constexpr ParameterFacts parameter_table[] = {
      {.name = "alpha", .domain = Domain::decay, .default_value = 1},
      {.name = "alpha_adapt", .domain = Domain::decay, .default_value = 1},
      {.name = "adapt_scale"},
      {.name = "threshold", .domain = Domain::positive, .default_value = 1, .role = Role::threshold},
      {.name = "gain", .default_value = 1, .reads_current = true, .role = Role::gain},
      {.name = "v_min", .domain = Domain::below_threshold, .default_value = never_clips},
  };
  static constexpr const char* state_names[] = {"potential", "spikes", "adaptation"};
};

/// u - b, which the threshold is compared with, and the surrogate's argument.
template <class V>
EXODUS_SCALAR V surrogate_argument(const AlifState<V>& state) {
  return state.potential - state.adaptation;
}

/// b[n], from the state before the step.
template <class V>
EXODUS_SCALAR V adaptation(const AlifParameters<V>& p, const AlifState<V>& before) {
  return (p.alpha_adapt * before.adaptation) + (p.adapt_scale * before.spikes);
}

/// The state after a step, from its potential.
template <int Variant, class V>
EXODUS_SCALAR AlifState<V> restore_state(const AlifParameters<V>& p, V most_spikes, const AlifState<V>& before, V u, V /*a*/) {
  AlifState<V> state{u, V(0), adaptation(p, before)};
  state.spikes = fire<false>(surrogate_argument(state), p.threshold, most_spikes);
  return state;
}

template <int Variant, class V>
EXODUS_SCALAR void step(const AlifParameters<V>& p, V most_spikes, AlifState<V>& state, const StepInputs<V>& in) {
  const V u = ((p.alpha * state.potential) + (p.gain * in.current)) - (p.threshold * state.spikes);
  state = restore_state<Variant>(p, most_spikes, state, u < p.v_min ? p.v_min : u, in.current);
}

template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const AlifParameters<V>& p, const StepRecord<V, AlifState<V>>& at, AlifCarry<V>& carry,
                                    AlifParameters<V>& terms) {
  const AlifState<V>& before = at.before;
  const V grad_s =
      M == Method::slayer ? at.grad_spikes : multiply_add(p.adapt_scale, carry.g, multiply_add(-p.threshold, carry.d, at.grad_spikes));
  const V fired = at.surrogate * grad_s;
  const V w = multiply_add(p.alpha, carry.d, at.grad_potential + fired);
  const bool clipped = at.potential == p.v_min;
  const V d = clipped ? V(0) : w;
  const V g = multiply_add(p.alpha_adapt, carry.g, at.grad_state.adaptation - fired);
  terms.alpha = d * before.potential;
  terms.alpha_adapt = g * before.adaptation;
  terms.adapt_scale = g * before.spikes;
  terms.threshold = -(fired + d * before.spikes);
  terms.gain = d * at.current;
  terms.v_min = clipped ? w : V(0);
  carry = {d, g};
  return {p.gain * d};
}

/// dL/d(initial state) from the carry after step 0.
template <Method M, int Variant, class V>
EXODUS_SCALAR AlifState<V> initial_gradient(const AlifParameters<V>& p, const AlifState<V>&, const AlifCarry<V>& carry) {
  const V through_spikes = multiply_add(p.adapt_scale, carry.g, -(p.threshold * carry.d));
  return {p.alpha * carry.d, M == Method::slayer ? V(0) : through_spikes, p.alpha_adapt * carry.g};
}

/// BPTT: every statement of step() in reverse. The carry is dL/d(state after step n) on entry, dL/d(state after step n-1) on return.
template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const AlifParameters<V>& p, const StepRecord<V, AlifState<V>>& at, AlifState<V>& carry,
                                    AlifParameters<V>& terms) {
  const AlifState<V>& before = at.before;

  const V grad_fire = at.surrogate * (at.grad_spikes + carry.spikes);   // s = f(u - b - threshold)
  const V grad_u = (at.grad_potential + carry.potential) + grad_fire;
  const V grad_b = (at.grad_state.adaptation + carry.adaptation) - grad_fire;
  terms.threshold = -grad_fire;

  const bool clipped = at.potential == p.v_min;   // u = max(v, v_min)
  const V grad_v = clipped ? V(0) : grad_u;
  terms.v_min = clipped ? grad_u : V(0);

  terms.alpha = grad_v * before.potential;   // v = alpha u' + gain a - threshold s'
  terms.gain = grad_v * at.current;
  terms.threshold = terms.threshold - grad_v * before.spikes;

  terms.alpha_adapt = grad_b * before.adaptation;   // b = alpha_adapt b' + adapt_scale s'
  terms.adapt_scale = grad_b * before.spikes;

  carry = {grad_v * p.alpha, grad_b * p.adapt_scale - grad_v * p.threshold, grad_b * p.alpha_adapt};
  return {grad_v * p.gain};
}

}   // namespace exodus
