/// @file
/// A filter by one kernel (kernel.hpp), without spikes, for readouts and losses on filtered spikes.
///
///     v[n] = sum_{k<=n} kernel[n-k] a[k],      dL/da[n] = sum_{m>=n} kernel[m-n] q[m]
///
/// It has no reset, so EXODUS, SLAYER and BPTT are the same.
#pragma once

#include "kernel.hpp"
#include "neuron.hpp"

namespace exodus {

/// The filtered value and the kernel's state.
template <class X>
struct KernelFilterState {
  X potential{}, x{}, y{};
};

template <class X>
struct FilterKernels {
  X kernel{};
};

/// The filter for data of type S. Defaults: decays 0, scale 1. `spikes` and `grad_spikes` of its arrays are ignored.
template <class S>
struct KernelFilter : NeuronModel<S, KernelParameters, KernelFilterState, FilterKernels> {
  template <class X>
  using Carry = KernelState<X>;

  FilterTiming kernel = FilterTiming::prompt;
  FilterKernels<Taps<arithmetic_t<S>>> taps{};   ///< given, the kernel is FIR; its kind and parameters are ignored

  static constexpr bool fires = false;
  static constexpr int variants = kernel_forms;   ///< the kernel's form
  static constexpr int adjoint_variants = kernel_forms;
  static constexpr bool carries_gradient = true;
  template <int Variant>
  static constexpr KernelForm kernel_form(int /*kernel*/) {
    return static_cast<KernelForm>(Variant);
  }
  static constexpr ParameterFacts parameter_table[] = {
      {.name = "a", .domain = Domain::decay, .reads_current = true},
      {.name = "b", .domain = Domain::decay, .reads_current = true},
      {.name = "scale", .default_value = 1, .reads_current = true},
  };
  static constexpr const char* taps_names[] = {"taps"};
  static constexpr const char* state_names[] = {"potential", "x", "y"};
};

template <class S, class F>
static inline void for_each_option(KernelFilter<S>& filter, F&& field) {
  field("kernel", filter.kernel);
}

template <class S>
static inline int variant_of(const KernelFilter<S>& filter) {
  return static_cast<int>(form_of(filter.kernel, filter.taps.kernel));
}

template <int Variant, class V>
EXODUS_SCALAR KernelFilterState<V> restore_state(const KernelParameters<V>& p, V /*most_spikes*/, const KernelFilterState<V>& before, V u,
                                                 V a) {
  const KernelState<V> state = advance<static_cast<KernelForm>(Variant)>(p, KernelState<V>{before.x, before.y}, a);
  return {u, state.x, state.y};
}

template <int Variant, class V>
EXODUS_SCALAR void step(const KernelParameters<V>& p, V most_spikes, KernelFilterState<V>& state, const StepInputs<V>& in) {
  state = restore_state<Variant>(p, most_spikes, state, V(0), in.current);
  state.potential = output<static_cast<KernelForm>(Variant)>(p, KernelState<V>{state.x, state.y}, in.current);
}

template <Method M, int Variant, class V>
EXODUS_SCALAR StepInputs<V> adjoint(const KernelParameters<V>& p, const StepRecord<V, KernelFilterState<V>>& at, KernelState<V>& carry,
                                    KernelParameters<V>& terms) {
  constexpr KernelForm form = static_cast<KernelForm>(Variant);
  carry = correlate<form>(p, carry, at.grad_potential, KernelState<V>{at.grad_state.x, at.grad_state.y});
  terms = kernel_terms<form>(p, KernelState<V>{at.before.x, at.before.y}, at.current, at.grad_potential, carry);
  return {input_gradient<form>(carry, at.grad_potential)};
}

template <Method M, int Variant, class V>
EXODUS_SCALAR KernelFilterState<V> initial_gradient(const KernelParameters<V>& p, const KernelFilterState<V>&,
                                                    const KernelState<V>& carry) {
  const KernelState<V> before = before_first<static_cast<KernelForm>(Variant)>(p, carry);
  return {V(0), before.x, before.y};
}

}   // namespace exodus
