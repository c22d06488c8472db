/// @file
/// The kernels of the spike response model. A recursive kernel filters an input over time with two states. The exact gradient needs its
/// correlation, and BPTT the reverse of its step.
///
/// With w the scale, in[n] the input and out[n] = sum_{k<=n} kernel[n-k] in[k]:
///
///     x[n] = a x[n-1] + in[n],   y[n] = b y[n-1] + x[n] (prompt) or + x[n-1] (late),   out[n] = w y[n]
///
/// The prompt kernel is w (a^n * b^n)[n], a double exponential, and with b = 0 the exponential w a^n. The late kernel comes a step later:
/// with a = b = p = e^(-1/tau) and w = scale (e/tau) p it is the alpha kernel scale (n/tau) e^(1-n/tau). With g[n] = dL/dout[n], the
/// correlation is
///
///     Y[n] = w g[n] + b Y[n+1],   X[n] = a X[n+1] + Y[n] (prompt) or + Y[n+1] (late),   dL/din[n] = X[n]
///
/// A FIR kernel has taps in place of a recursion, and remembers the last inputs in place of x and y:
///
///     out[n] = sum_{k<K} tap[k] in[n-k],   dL/din[n] = sum_{k<K} tap[k] g[n+k],   dL/dtap[k] = sum_n g[n] in[n-k]
///
/// out starts at 0 and sums a current from the newest input to the oldest, and spikes from the oldest to the newest, since each spike adds
/// to later steps. An operator outside the neuron applies the taps: it gives the step out[n], as the current or as the feedback, and takes
/// g[n], the gradient of either. The state's array x holds K-1 earlier inputs of each neuron, x[k * neurons + j], newest first: those of
/// steps n-k for the current, and of steps n-1-k for the spikes, since the state has the last spikes already. y is unused.
///
/// The outputs of a neuron's kernels add up to its potential, so g[n] = dL/du[n] is the same for all of them.
#pragma once

#include "neuron.hpp"
#include "scalar.hpp"

namespace exodus {

/// Whether y adds the x of its own step or of the step before.
enum class FilterTiming { prompt, late };
template <>
inline constexpr const char* enumerators<FilterTiming>[] = {"prompt", "late"};

/// How a kernel is evaluated: in the neuron by a recursion, or outside it with taps, and then without states in the neuron.
enum class KernelForm { prompt, late, taps };
inline constexpr int kernel_forms = 3;

template <class X>
struct KernelParameters {
  X a{}, b{}, scale{};
};

/// How many parameters and states a kernel has. Kernels' parameters come first in a model's table. Kernels' states are all of its hidden
/// states and carries. Both are in the order of its struct of kernels, with the kernel of the current first.
inline constexpr int kernel_parameters = 3, kernel_states = 2;

template <class V>
static inline KernelForm form_of(FilterTiming timing, const Taps<V>& taps) {
  return taps.length > 0 ? KernelForm::taps : static_cast<KernelForm>(timing);
}

/// x[n] and y[n], or for the correlation X[n] and Y[n].
template <class X>
struct KernelState {
  X x{}, y{};
};

template <KernelForm F, class V>
EXODUS_SCALAR KernelState<V> advance(const KernelParameters<V>& p, const KernelState<V>& state, V in) {
  if constexpr (F == KernelForm::taps) return {};
  const V x = (p.a * state.x) + in;
  return {x, (p.b * state.y) + (F == KernelForm::late ? state.x : x)};
}

/// out[n] from the state after the step; with taps it is what came from outside.
template <KernelForm F, class V>
EXODUS_SCALAR V output(const KernelParameters<V>& p, const KernelState<V>& state, V outside) {
  return F == KernelForm::taps ? outside : p.scale * state.y;
}

/// X[n] and Y[n] from those at n+1; `direct` is dL/d(state after step n).
template <KernelForm F, class V>
EXODUS_SCALAR KernelState<V> correlate(const KernelParameters<V>& p, const KernelState<V>& later, V g, const KernelState<V>& direct) {
  if constexpr (F == KernelForm::taps) return {};
  const V y = multiply_add(p.scale, g, multiply_add(p.b, later.y, direct.y));
  return {multiply_add(p.a, later.x, (F == KernelForm::late ? later.y : y) + direct.x), y};
}

/// The gradient of the kernel's input at a step, or with taps of its output, from the correlation at that step.
template <KernelForm F, class V>
EXODUS_SCALAR V input_gradient(const KernelState<V>& at, V g) {
  return F == KernelForm::taps ? g : at.x;
}

/// The terms of step n in the parameters' gradients, from X[n] and Y[n].
template <KernelForm F, class V>
EXODUS_SCALAR KernelParameters<V> kernel_terms(const KernelParameters<V>& p, const KernelState<V>& before, V in, V g,
                                               const KernelState<V>& at) {
  if constexpr (F == KernelForm::taps) return {};
  return {at.x * before.x, at.y * before.y, g * advance<F>(p, before, in).y};
}

/// dL/d(state before step 0) from X[0] and Y[0].
template <KernelForm F, class V>
EXODUS_SCALAR KernelState<V> before_first(const KernelParameters<V>& p, const KernelState<V>& at) {
  if constexpr (F == KernelForm::taps) return {};
  return {F == KernelForm::late ? multiply_add(p.a, at.x, at.y) : p.a * at.x, p.b * at.y};
}

/// BPTT: every statement of advance() and output() in reverse. The carry is dL/d(state after step n) on entry and dL/d(state before it) on
/// return; sets the terms, returns dL/din[n] (with taps, dL/dout[n]).
template <KernelForm F, class V>
EXODUS_SCALAR V reverse(const KernelParameters<V>& p, const KernelState<V>& before, V in, V g, KernelState<V>& carry,
                        KernelParameters<V>& terms) {
  if constexpr (F == KernelForm::taps) {
    terms = {}, carry = {};
    return g;
  }
  terms.scale = g * advance<F>(p, before, in).y;   // out = scale y
  const V grad_y = carry.y + p.scale * g;
  terms.b = grad_y * before.y;   // y = b y' + x, or + x'
  const V grad_x = F == KernelForm::late ? carry.x : carry.x + grad_y;
  terms.a = grad_x * before.x;   // x = a x' + in
  carry = {F == KernelForm::late ? p.a * grad_x + grad_y : p.a * grad_x, p.b * grad_y};
  return grad_x;
}

}   // namespace exodus
