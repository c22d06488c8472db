/// @file
/// Delays: each neuron's input arrives later by a number of steps, which need not be whole and can be learnt.
///
/// A delay of t steps is t = k + f with k = floor(t). Between steps the output is linear:
///
///     y[n] = (1-f) x[n-k] + f x[n-k-1]
///
/// For f = 0 only x[n-k] counts, so a NaN or an infinity in x[n-k-1] does not spread. The adjoint, with g[n] = dL/dy[n] and g = 0 after the
/// last step, is the same sum with time reversed:
///
///     dL/dx[m] = (1-f) g[m+k] + f g[m+k+1]
///     dL/dt    = sum_n g[n] (x[n-k-1] - x[n-k]) = sum_m x[m] (g[m+k+1] - g[m+k])
///
/// The output has a kink at every integer t, where dL/dt is the derivative from the right. The second sum has the terms of the first in
/// another order: it reads x undelayed, and the values of g that dL/dx reads too.
#pragma once

#include "functions.hpp"
#include "types.hpp"

namespace exodus {

/// A delay of `whole` + `fraction` steps.
template <class V>
struct Lag {
  std::int64_t whole;
  V fraction;
};

/// The delay in [0, most] nearest to `steps`. NaN stays in the fraction, so that the output is NaN and accesses stay inside their arrays.
template <class V>
EXODUS_SCALAR Lag<V> lag_of(V steps, std::int64_t most) {
  if (steps != steps) return {0, steps};
  if (!(steps > V(0))) return {0, V(0)};
  if (steps >= static_cast<V>(most)) return {most, V(0)};
  const auto whole = static_cast<std::int64_t>(steps);
  return {whole, steps - static_cast<V>(whole)};
}

/// (1-f) near + f far, or near for f = 0. Forward, near is x[n-k] and far x[n-k-1]; in the adjoint they are g[m+k] and g[m+k+1].
/// X is a number or a vector of them.
template <class X>
EXODUS_SCALAR X interpolate(X fraction, X near, X far) {
  const X mixed = ((1 - fraction) * near) + (fraction * far);
  return fraction == 0 ? near : mixed;
}

/// A term of dL/dt, which is summed in double: x[m] (g[m+k+1] - g[m+k]), for -1 <= m + k <= T - 1.
template <class V>
EXODUS_SCALAR V lag_term(V x, V near, V far) {
  return x * (far - near);
}

/// Delays of data of type S. Arrays of a state have most + 1 entries of one value per neuron, newest first: entry j is x[-1-j].
template <class S>
struct Delay {
  using Storage = S;
  using V = arithmetic_t<S>;

  Param<V> steps = V(0);   ///< the delay; values outside of [0, most] are taken as the nearest bound
  std::int64_t most = 0;   ///< the longest delay that the state is kept for

  struct Forward {
    const S* x = nullptr;         ///< in
    const V* initial = nullptr;   ///< x before step 0, in; null is zero
    S* output = nullptr;          ///< y[n], out; null if not wanted
    V* final = nullptr;           ///< the last most + 1 steps of x, out; null if not wanted
  };

  /// The gradient of the delay is in the Param's own `count`. At a bound it is passed straight through.
  struct Backward {
    const S* grad_output = nullptr;   ///< g[n] = dL/dy[n], in; null is zero
    const S* x = nullptr;             ///< as given to delay(); only the gradient of the delay needs it
    const V* initial = nullptr;       ///< likewise
    const V* grad_final = nullptr;    ///< dL/d(final state), in; null is zero
    S* grad_x = nullptr;              ///< dL/dx[m], out; null if not wanted
    V* grad_initial = nullptr;        ///< dL/d(initial state), out; null if not wanted
    double* grad_steps = nullptr;     ///< dL/dt, out; null if not wanted
  };
};

/// Delays the input of every neuron. S is float, double, float16 or bfloat16. The results have the same bits for every
/// instruction set, thread count, layout and chunking of time. Outputs must not overlap inputs or each other.
template <class S>
EXODUS_API Status delay(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Forward& arrays,
                        Workspace workspace = {}) noexcept;

/// The gradients of a loss, by the adjoint.
template <class S>
EXODUS_API Status delay_adjoint(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Backward& arrays,
                                Workspace workspace = {}) noexcept;

/// The workspace that delay() needs, like workspace() of a neuron.
template <class S>
EXODUS_API Workspace workspace(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Forward& arrays,
                               int threads = 0) noexcept;

/// The same for delay_adjoint() with these arrays.
template <class S>
EXODUS_API Workspace workspace(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Backward& arrays,
                               int threads = 0) noexcept;

}   // namespace exodus
