/// @file
/// The leaky integrate-and-fire neuron (docs/mathematics.md, LIF): parameters, state, step, adjoints.
///
/// Forward, with x[n] = gain a[n] and rho the reset amount:
///
///     u[n] = alpha u[n-1] + x[n] - amount s[n-1]       reset after decay (S10, S11)
///     u[n] = alpha (u[n-1] - amount s[n-1]) + x[n]     reset before decay
///     u[n] = alpha u[n-1] 1[s[n-1] = 0] + x[n]         reset to zero
///     u[n] = max(u[n], v_min),  s[n] = f(u[n])
///
/// EXODUS, exact for the given surrogate h (S16 collapsed to one recurrence, equal to S19):
///
///     S[n] = e[n] - rho d[n+1]                                  the total dL/ds[n]
///     w[n] = q[n] + h[n] e[n] + (alpha - rho h[n]) d[n+1]       rho: amount, or alpha amount when the reset precedes the decay
///     d[n] = w[n] unless step n was clipped, then 0             clipped: u[n] == v_min
///     dL/da[n] = gain d[n]
///
/// Reset to zero has S[n] = e[n] - alpha u[n] d[n+1] and w[n] = q[n] + h[n] S[n] + alpha 1[s[n] = 0] d[n+1].
/// SLAYER is the same with s detached in the reset: S = e, rho = 0. BPTT is the reverse of the step, statement by statement.
#pragma once

#include <type_traits>

#include "neuron.hpp"

namespace exodus {

template <class X>
struct LifParameters {
  X alpha{}, threshold{}, gain{}, reset_amount{}, v_min{};
};

/// `potential` is the potential before the reset of its own step.
template <class X>
struct LifState {
  X potential{}, spikes{};
};

/// What EXODUS and SLAYER carry from step to step: d[n+1].
template <class X>
struct LifCarry {
  X d{};
};

enum class LifReset { after_decay, before_decay, zero, none };

/// A variant: the kind of reset, and whether a step may have several spikes.
template <int Variant>
struct LifVariant {
  static constexpr LifReset reset = static_cast<LifReset>(Variant % 4);
  static constexpr bool multi = Variant / 4 != 0;
};

/// A LIF, or a model whose membrane is one: its options, and the variants that they make.
template <class S, template <class> class ParameterStruct, template <class> class StateStruct>
struct LifModel : NeuronModel<S, ParameterStruct, StateStruct> {
  Reset reset = Reset::subtract;
  ResetTiming reset_timing = ResetTiming::after_decay;
  std::int64_t max_spikes = 1;       ///< the most spikes in a step; 0: any number
  bool gain_follows_alpha = false;   ///< the gain given is 1 - alpha: its gradient is counted to alpha

  static constexpr int variants = 8;           ///< see LifVariant
  static constexpr int adjoint_variants = 4;   ///< the adjoint does not depend on how many spikes a step may have
  static constexpr bool carries_gradient = true;
};

/// LIF for data of type S. Defaults: alpha 1 (the integrate-and-fire neuron, IF), threshold 1, gain 1, reset_amount the threshold (whose
/// gradient then counts both roles), no v_min.
template <class S>
struct Lif : LifModel<S, LifParameters, LifState> {
  template <class X>
  using Carry = LifCarry<X>;

  static constexpr ParameterFacts parameter_table[] = {
      {.name = "alpha", .domain = Domain::decay, .default_value = 1},
      {.name = "threshold", .domain = Domain::positive, .default_value = 1, .role = Role::threshold},
      {.name = "gain", .default_value = 1, .complement_of = "alpha", .reads_current = true, .role = Role::gain},
      {.name = "reset_amount", .same_as = "threshold"},
      {.name = "v_min", .domain = Domain::below_threshold, .default_value = never_clips},
  };
  static constexpr const char* state_names[] = {"potential", "spikes"};

  /// The parameters whose terms read the spikes of the step before, one bit each, and `carry_bit` if the carry does.
  template <Method M, int Variant>
  static consteval unsigned spike_readers() {
    constexpr unsigned alpha = 1u << parameter_index<Lif>("alpha"), reset_amount = 1u << parameter_index<Lif>("reset_amount");
    constexpr LifReset kind = LifVariant<Variant>::reset;
    if (kind == LifReset::zero) return alpha | (M == Method::bptt ? carry_bit : 0);
    if (kind == LifReset::before_decay) return alpha | reset_amount;
    return kind == LifReset::after_decay ? reset_amount : 0;
  }
};

/// Whether N is a LifModel.
template <class N>
concept HasLifMembrane = requires(const N& neuron) { neuron.reset_timing; };

template <HasLifMembrane N, class F>
static inline void for_each_option(N& neuron, F&& field) {
  field("reset", neuron.reset);
  field("reset_timing", neuron.reset_timing);
  field("max_spikes", neuron.max_spikes);
  field("gain_follows_alpha", neuron.gain_follows_alpha);
}

template <HasLifMembrane N>
static inline int variant_of(const N& neuron) {
  const LifReset reset = neuron.reset == Reset::none                        ? LifReset::none
                         : neuron.reset == Reset::zero                      ? LifReset::zero
                         : neuron.reset_timing == ResetTiming::before_decay ? LifReset::before_decay
                                                                            : LifReset::after_decay;
  return static_cast<int>(reset) + (neuron.max_spikes == 1 ? 0 : 4);
}

/// One step, in the order of operations that the interface promises. `most_spikes` bounds the spikes of a step.
template <int Variant, class V>
EXODUS_SCALAR void step(const LifParameters<V>& p, V most_spikes, LifState<V>& state, const StepInputs<V>& in) {
  constexpr LifReset reset = LifVariant<Variant>::reset;
  const V x = p.gain * in.current;
  V u;
  if constexpr (reset == LifReset::after_decay) {
    u = ((p.alpha * state.potential) + x) - (p.reset_amount * state.spikes);
  } else if constexpr (reset == LifReset::before_decay) {
    u = (p.alpha * (state.potential - (p.reset_amount * state.spikes))) + x;
  } else if constexpr (reset == LifReset::zero) {
    u = (p.alpha * (state.spikes > V(0) ? V(0) : state.potential)) + x;
  } else {
    u = (p.alpha * state.potential) + x;
  }
  u = u < p.v_min ? p.v_min : u;
  state.potential = u;
  state.spikes = fire<LifVariant<Variant>::multi>(u, p.threshold, most_spikes);
}

/// The state after a step, from its potential. (Other models also need the state before the step and the current.)
template <int Variant, class V>
EXODUS_SCALAR LifState<V> restore_state(const LifParameters<V>& p, V most_spikes, const LifState<V>& /*before*/, V u, V /*a*/) {
  return {u, fire<LifVariant<Variant>::multi>(u, p.threshold, most_spikes)};
}

/// The terms of step n in the parameters' gradients (docs/mathematics.md, Parameters).
template <LifReset R, class V>
EXODUS_SCALAR LifParameters<V> gradient_terms(const LifParameters<V>& p, const StepRecord<V, LifState<V>>& at, V grad_s, V w, V d) {
  const LifState<V>& before = at.before;
  LifParameters<V> terms{};
  terms.threshold = -(at.surrogate * grad_s);
  terms.gain = d * at.current;
  terms.v_min = at.potential == p.v_min ? w : V(0);
  if constexpr (R == LifReset::after_decay) {
    terms.alpha = d * before.potential;
    terms.reset_amount = -(d * before.spikes);
  } else if constexpr (R == LifReset::before_decay) {
    terms.alpha = d * (before.potential - p.reset_amount * before.spikes);
    terms.reset_amount = -(p.alpha * d * before.spikes);
  } else if constexpr (R == LifReset::zero) {
    terms.alpha = d * (before.spikes > V(0) ? V(0) : before.potential);
  } else {
    terms.alpha = d * before.potential;
  }
  return terms;
}

/// rho, the weight of a spike in the next potential, for resets that subtract; 0 for none.
template <LifReset R, class V>
EXODUS_SCALAR V reset_weight(const LifParameters<V>& p) {
  if constexpr (R == LifReset::after_decay) return p.reset_amount;
  if constexpr (R == LifReset::before_decay) return p.alpha * p.reset_amount;
  return V(0);
}

/// The factor of u[n] in u[n+1].
template <LifReset R, class V>
EXODUS_SCALAR V leak(const LifParameters<V>& p, bool fired) {
  if constexpr (R == LifReset::zero) return fired ? V(0) : p.alpha;
  return p.alpha;
}

/// One step of the backward pass: takes the carry from step n+1 to step n, sets the terms of the parameters' gradients, returns dL/da[n].
template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const LifParameters<V>& p, const StepRecord<V, LifState<V>>& at, LifCarry<V>& carry,
                                    LifParameters<V>& terms) {
  constexpr LifReset reset = LifVariant<Variant>::reset;
  const V decay = leak<reset>(p, at.potential >= p.threshold);
  V grad_s, w;
  if constexpr (M == Method::slayer) {
    grad_s = at.grad_spikes;
    w = multiply_add(decay, carry.d, multiply_add(at.surrogate, at.grad_spikes, at.grad_potential));
  } else if constexpr (reset == LifReset::zero) {
    grad_s = multiply_add(-p.alpha * at.potential, carry.d, at.grad_spikes);
    w = multiply_add(decay, carry.d, multiply_add(at.surrogate, grad_s, at.grad_potential));
  } else {
    const V rho = reset_weight<reset>(p);
    grad_s = multiply_add(-rho, carry.d, at.grad_spikes);
    w = multiply_add(multiply_add(-rho, at.surrogate, decay), carry.d, multiply_add(at.surrogate, at.grad_spikes, at.grad_potential));
  }
  const V d = at.potential == p.v_min ? V(0) : w;
  terms = gradient_terms<reset>(p, at, grad_s, w, d);
  carry.d = d;
  return {p.gain * d};
}

/// dL/d(initial state) from the carry after step 0.
template <Method M, int Variant, class V>
EXODUS_SCALAR LifState<V> initial_gradient(const LifParameters<V>& p, const LifState<V>& initial, const LifCarry<V>& carry) {
  constexpr LifReset reset = LifVariant<Variant>::reset;
  const V through_spikes = reset == LifReset::zero ? p.alpha * initial.potential : reset_weight<reset>(p);
  return {leak<reset>(p, initial.spikes > V(0)) * carry.d, M == Method::slayer ? V(0) : -(through_spikes * carry.d)};
}

/// BPTT: every statement of step() in reverse. The carry is dL/d(state after step n) on entry, dL/d(state after step n-1) on return.
template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const LifParameters<V>& p, const StepRecord<V, LifState<V>>& at, LifState<V>& carry,
                                    LifParameters<V>& terms) {
  constexpr LifReset reset = LifVariant<Variant>::reset;
  const LifState<V>& before = at.before;
  terms = {};

  const V grad_spikes = at.grad_spikes + carry.spikes;   // s = f(u - threshold)
  const V grad_u = (at.grad_potential + carry.potential) + at.surrogate * grad_spikes;
  terms.threshold = -(at.surrogate * grad_spikes);

  const bool clipped = at.potential == p.v_min;   // u = max(v, v_min)
  const V grad_v = clipped ? V(0) : grad_u;
  terms.v_min = clipped ? grad_u : V(0);

  if constexpr (reset == LifReset::after_decay) {   // v = alpha u' + x - amount s'
    terms.alpha = grad_v * before.potential;
    terms.reset_amount = -(grad_v * before.spikes);
    carry = {grad_v * p.alpha, -(grad_v * p.reset_amount)};
  } else if constexpr (reset == LifReset::before_decay) {   // kept = u' - amount s', v = alpha kept + x
    const V kept = before.potential - p.reset_amount * before.spikes;
    const V grad_kept = grad_v * p.alpha;
    terms.alpha = grad_v * kept;
    terms.reset_amount = -(grad_kept * before.spikes);
    carry = {grad_kept, -(grad_kept * p.reset_amount)};
  } else if constexpr (reset == LifReset::zero) {   // kept = u' (1 - s'), v = alpha kept + x
    const bool fired = before.spikes > V(0);
    const V grad_kept = grad_v * p.alpha;
    terms.alpha = grad_v * (fired ? V(0) : before.potential);
    carry = {fired ? V(0) : grad_kept, -(grad_kept * before.potential)};
  } else {   // v = alpha u' + x
    terms.alpha = grad_v * before.potential;
    carry = {grad_v * p.alpha, V(0)};
  }

  terms.gain = grad_v * at.current;   // x = gain a
  return {grad_v * p.gain};
}

}   // namespace exodus
