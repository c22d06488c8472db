/// @file
/// What every neuron model shares: the spike function, and what the backward pass knows of a step.
#pragma once

#include <limits>

#include "fields.hpp"
#include "scalar.hpp"
#include "types.hpp"

namespace exodus {

/// s = f(u): one spike at u >= threshold, or with `Multi` min(floor(u / threshold), cap). NaN never fires.
template <bool Multi, class V>
EXODUS_SCALAR V fire(V u, V threshold, V cap) {
  if constexpr (!Multi) {
    return u >= threshold ? V(1) : V(0);
  } else {
    const V count = round_down(u / threshold);
    return u >= threshold ? (count < cap ? count : cap) : V(0);
  }
}

/// The index of a model's first state that is neither potential nor spikes.
template <class N>
inline constexpr int first_hidden = N::fires ? 2 : 1;

/// What a step takes from outside the neuron. An adjoint returns the gradient of each.
template <class V, bool Feedback = false>
struct StepInputs {
  V current{};   ///< a[n]
};
/// Of a neuron whose earlier spikes also reach its potential through an operator outside it (the taps of a kernel).
template <class V>
struct StepInputs<V, true> {
  V current{};
  V feedback{};   ///< what they add to the potential of this step
};

/// What a backward pass knows of step n.
template <class V, class State>
struct Moment {
  V u;            ///< u[n], before the reset
  State before;   ///< the state after step n-1; read by BPTT and by parameter gradients alone
  State direct;   ///< dL/d(state after step n), direct, of what is neither potential (q) nor spikes (e): not zero at the last step alone
  V h;            ///< f'(u[n]), the surrogate
  V e;            ///< dL/ds[n], direct
  V q;            ///< dL/du[n], direct
  V a;            ///< a[n]; read by the gradients of some parameters alone
};

/// The parameter, or its default where it was not given.
template <class V>
static inline Param<V> given(const Param<V>& p, const Param<V>& otherwise) {
  return p.count == 0 ? otherwise : p;
}

/// A v_min below every potential: no comparison with NaN holds.
template <class S>
static inline Param<arithmetic_t<S>> never_clips() {
  return {std::numeric_limits<arithmetic_t<S>>::quiet_NaN()};
}

/// dL/d(parameter `source`) belongs to the parameter `target` as well, with this sign.
struct Tie {
  int source, target, sign;
};

}   // namespace exodus
