/// @file
/// The spike response model (docs/mathematics.md, Forward): the input passes the response kernel eps, spikes pass the refractory
/// kernel nu (kernel.hpp).
///
///     u[n] = (eps * a)[n] + sum_{k<n} nu[n-1-k] s[k],   s[n] = f(u[n])
///
/// EXODUS is the exact gradient (S16) as two correlations, the first of which runs step by step:
///
///     S[n] = e[n] + sum_{k>n} nu[k-1-n] lam[k],   lam[n] = q[n] + h[n] S[n],   dL/da[n] = sum_{m>=n} eps[m-n] lam[m]
///     dL/d theta = -sum_n h[n] S[n]   (nu is not tied to the threshold)
///
/// SLAYER has S = e. BPTT is the reverse of the step, statement by statement.
#pragma once

#include <type_traits>

#include "kernel.hpp"
#include "neuron.hpp"

namespace exodus {

/// The kernels' parameters, eps first, then the threshold.
template <class X>
struct SrmParameters {
  X epsilon_a{}, epsilon_b{}, epsilon_scale{}, nu_a{}, nu_b{}, nu_scale{}, threshold{};
};

/// nu takes `spikes` at the next step.
template <class X>
struct SrmState {
  X potential{}, spikes{}, epsilon_x{}, epsilon_y{}, nu_x{}, nu_y{};
};

/// One value for each kernel.
template <class X>
struct SrmKernels {
  X epsilon{}, nu{};
};

/// X[n+1] and Y[n+1] of both kernels' correlations.
template <class X>
struct SrmCarry {
  X epsilon_x{}, epsilon_y{}, nu_x{}, nu_y{};
};

/// A variant: the forms of both kernels, and whether a step may have several spikes.
template <int Variant>
struct SrmVariant {
  static constexpr int forms = kernel_forms * kernel_forms;
  static constexpr KernelForm epsilon = static_cast<KernelForm>(Variant % kernel_forms);
  static constexpr KernelForm nu = static_cast<KernelForm>(Variant / kernel_forms % kernel_forms);
  static constexpr bool feedback =
      nu == KernelForm::taps;   ///< an operator outside the neuron computes the spikes' contribution to the potential
  static constexpr bool multi = Variant / forms != 0;
};

/// SRM for data of type S. Defaults: decays 0, scales 1 (for nu, -1), threshold 1.
template <class S>
struct Srm : NeuronModel<S, SrmParameters, SrmState, SrmKernels> {
  template <class X>
  using Carry = SrmCarry<X>;

  FilterTiming epsilon = FilterTiming::prompt;
  FilterTiming nu = FilterTiming::prompt;
  SrmKernels<Taps<arithmetic_t<S>>> taps{};   ///< given, a kernel is FIR; its kind and parameters are ignored
  std::int64_t max_spikes = 1;                ///< the most spikes in a step; 0: any number

  static constexpr int variants = 2 * SrmVariant<0>::forms;
  static constexpr int adjoint_variants = SrmVariant<0>::forms;   ///< the adjoint does not depend on how many spikes a step may have
  static constexpr bool carries_gradient = true;
  template <int Variant>
  static constexpr KernelForm kernel_form(int kernel) {
    return kernel == 0 ? SrmVariant<Variant>::epsilon : SrmVariant<Variant>::nu;
  }
  static constexpr ParameterFacts parameter_table[] = {
      {.name = "epsilon_a", .domain = Domain::decay, .reads_current = true},
      {.name = "epsilon_b", .domain = Domain::decay, .reads_current = true},
      {.name = "epsilon_scale", .default_value = 1, .reads_current = true},
      {.name = "nu_a", .domain = Domain::decay},
      {.name = "nu_b", .domain = Domain::decay},
      {.name = "nu_scale", .default_value = -1},
      {.name = "threshold", .domain = Domain::positive, .default_value = 1, .reads_hidden_states = false, .role = Role::threshold},
  };
  static constexpr const char* taps_names[] = {"epsilon_taps", "nu_taps"};
  static constexpr const char* state_names[] = {"potential", "spikes", "epsilon_x", "epsilon_y", "nu_x", "nu_y"};
};

template <class S, class F>
static inline void for_each_option(Srm<S>& neuron, F&& field) {
  field("epsilon", neuron.epsilon);
  field("nu", neuron.nu);
  field("max_spikes", neuron.max_spikes);
}

template <class S>
static inline int variant_of(const Srm<S>& neuron) {
  const auto& [of_current, of_spikes] = neuron.taps;
  const int form = static_cast<int>(form_of(neuron.epsilon, of_current)) + kernel_forms * static_cast<int>(form_of(neuron.nu, of_spikes));
  return form + (neuron.max_spikes == 1 ? 0 : SrmVariant<0>::forms);
}

template <class V>
EXODUS_SCALAR KernelParameters<V> epsilon_of(const SrmParameters<V>& p) {
  return {p.epsilon_a, p.epsilon_b, p.epsilon_scale};
}
template <class V>
EXODUS_SCALAR KernelParameters<V> nu_of(const SrmParameters<V>& p) {
  return {p.nu_a, p.nu_b, p.nu_scale};
}
template <template <class> class Struct, class V>   // of a state, a carry, or the direct gradients of a state
EXODUS_SCALAR KernelState<V> epsilon_of(const Struct<V>& s) {
  return {s.epsilon_x, s.epsilon_y};
}
template <template <class> class Struct, class V>
EXODUS_SCALAR KernelState<V> nu_of(const Struct<V>& s) {
  return {s.nu_x, s.nu_y};
}

/// The state after a step, from its potential.
template <int Variant, class V>
EXODUS_SCALAR SrmState<V> restore_state(const SrmParameters<V>& p, V most_spikes, const SrmState<V>& before, V u, V a) {
  using Form = SrmVariant<Variant>;
  const KernelState<V> epsilon = advance<Form::epsilon>(epsilon_of(p), epsilon_of(before), a);
  const KernelState<V> nu = advance<Form::nu>(nu_of(p), nu_of(before), before.spikes);
  return {u, fire<Form::multi>(u, p.threshold, most_spikes), epsilon.x, epsilon.y, nu.x, nu.y};
}

template <int Variant, class V>
EXODUS_SCALAR void step(const SrmParameters<V>& p, V most_spikes, SrmState<V>& state,
                        const StepInputs<V, SrmVariant<Variant>::feedback>& in) {
  using Form = SrmVariant<Variant>;
  V feedback = V(0);
  if constexpr (Form::feedback) feedback = in.feedback;
  SrmState<V> after = restore_state<Variant>(p, most_spikes, state, V(0), in.current);
  after.potential =
      output<Form::epsilon>(epsilon_of(p), epsilon_of(after), in.current) + output<Form::nu>(nu_of(p), nu_of(after), feedback);
  after.spikes = fire<Form::multi>(after.potential, p.threshold, most_spikes);
  state = after;
}

template <class V>
EXODUS_SCALAR SrmParameters<V> join(const KernelParameters<V>& epsilon, const KernelParameters<V>& nu, V threshold) {
  return {epsilon.a, epsilon.b, epsilon.scale, nu.a, nu.b, nu.scale, threshold};
}

/// The gradients of a step's inputs; with taps of nu, also of the feedback.
template <int Variant, class V>
EXODUS_SCALAR StepInputs<V, SrmVariant<Variant>::feedback> input_gradients(V current, V lam) {
  if constexpr (SrmVariant<Variant>::feedback) {
    return {current, lam};
  } else {
    return {current};
  }
}

template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V, SrmVariant<Variant>::feedback> adjoint(const SrmParameters<V>& p, const StepRecord<V, SrmState<V>>& at,
                                                                   SrmCarry<V>& carry, SrmParameters<V>& terms) {
  using Form = SrmVariant<Variant>;
  const V grad_s = M == Method::slayer || Form::feedback ? at.grad_spikes : at.grad_spikes + carry.nu_x;
  const V lam = multiply_add(at.surrogate, grad_s, at.grad_potential);
  const KernelState<V> epsilon = correlate<Form::epsilon>(epsilon_of(p), epsilon_of(carry), lam, epsilon_of(at.grad_state));
  const KernelState<V> nu = correlate<Form::nu>(nu_of(p), nu_of(carry), lam, nu_of(at.grad_state));
  carry = {epsilon.x, epsilon.y, nu.x, nu.y};
  terms = join(kernel_terms<Form::epsilon>(epsilon_of(p), epsilon_of(at.before), at.current, lam, epsilon),
               kernel_terms<Form::nu>(nu_of(p), nu_of(at.before), at.before.spikes, lam, nu), -(at.surrogate * grad_s));
  return input_gradients<Variant>(input_gradient<Form::epsilon>(epsilon, lam), lam);
}

/// dL/d(initial state) from the carry after step 0.
template <Method M, int Variant, class V>
EXODUS_SCALAR SrmState<V> initial_gradient(const SrmParameters<V>& p, const SrmState<V>&, const SrmCarry<V>& carry) {
  using Form = SrmVariant<Variant>;
  const KernelState<V> epsilon = before_first<Form::epsilon>(epsilon_of(p), epsilon_of(carry));
  const KernelState<V> nu = before_first<Form::nu>(nu_of(p), nu_of(carry));
  return {V(0), M == Method::slayer || Form::feedback ? V(0) : carry.nu_x, epsilon.x, epsilon.y, nu.x, nu.y};
}

/// BPTT: every statement of step() in reverse. The carry is dL/d(state after step n) on entry, dL/d(state after step n-1) on return.
template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V, SrmVariant<Variant>::feedback> adjoint(const SrmParameters<V>& p, const StepRecord<V, SrmState<V>>& at,
                                                                   SrmState<V>& carry, SrmParameters<V>& terms) {
  using Form = SrmVariant<Variant>;
  const V grad_spikes = at.grad_spikes + carry.spikes;   // s = f(u)
  const V grad_fire = at.surrogate * grad_spikes;
  const V grad_u = (at.grad_potential + carry.potential) + grad_fire;

  KernelState<V> epsilon{carry.epsilon_x + at.grad_state.epsilon_x, carry.epsilon_y + at.grad_state.epsilon_y};   // u = z + r
  KernelState<V> nu{carry.nu_x + at.grad_state.nu_x, carry.nu_y + at.grad_state.nu_y};
  KernelParameters<V> epsilon_terms, nu_terms;
  const V grad_a = reverse<Form::epsilon>(epsilon_of(p), epsilon_of(at.before), at.current, grad_u, epsilon, epsilon_terms);
  const V grad_before = reverse<Form::nu>(nu_of(p), nu_of(at.before), at.before.spikes, grad_u, nu, nu_terms);
  carry = {V(0), Form::feedback ? V(0) : grad_before, epsilon.x, epsilon.y, nu.x, nu.y};   // with taps, the operator adds it
  terms = join(epsilon_terms, nu_terms, -grad_fire);
  return input_gradients<Variant>(grad_a, grad_u);
}

}   // namespace exodus
