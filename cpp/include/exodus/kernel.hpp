/// @file
/// The recursive kernels of the spike response model: a filter of an input over time in one or two states, its correlation (what the
/// exact gradient needs of it), and the reverse of its step (what BPTT needs of it).
///
/// With w the scale, in[n] the input and out[n] = sum_{k<=n} kernel[n-k] in[k]:
///
///     exponential          w a^n                    x[n] = a x[n-1] + in[n]                                  out[n] = w x[n]
///     double exponential   w (a^n * b^n)[n]         x[n] = a x[n-1] + in[n],   y[n] = b y[n-1] + x[n]        out[n] = w y[n]
///     alpha                w n a^n                  y[n] = a (y[n-1] + x[n-1]),  x[n] = a x[n-1] + in[n]     out[n] = w y[n]
///
/// The alpha kernel (n/tau) e^(1-n/tau) has a = e^(-1/tau) and w = e/tau. With g[n] = dL/dout[n], the correlations are
///
///     exponential          X[n] = w g[n] + a X[n+1]
///     double exponential   Y[n] = w g[n] + b Y[n+1],   X[n] = Y[n] + a X[n+1]
///     alpha                X[n] = a (X[n+1] + Y[n+1]),  Y[n] = w g[n] + a Y[n+1]
///
/// and dL/din[n] = X[n] in all three.
#pragma once

#include "scalar.hpp"

namespace exodus {

enum class Kernel { exponential, double_exponential, alpha };

/// `b` is read by the double exponential alone.
template <class X>
struct KernelParameters {
  X a{}, b{}, scale{};
};

/// x[n] and y[n], or for the correlation X[n] and Y[n]. The exponential has no y.
template <class X>
struct KernelState {
  X x{}, y{};
};

template <Kernel K, class V>
EXODUS_SCALAR KernelState<V> advance(const KernelParameters<V>& p, const KernelState<V>& state, V in) {
  const V x = (p.a * state.x) + in;
  if constexpr (K == Kernel::exponential) return {x, V(0)};
  if constexpr (K == Kernel::double_exponential) return {x, (p.b * state.y) + x};
  return {x, p.a * (state.y + state.x)};
}

template <Kernel K, class V>
EXODUS_SCALAR V output(const KernelParameters<V>& p, const KernelState<V>& state) {
  return p.scale * (K == Kernel::exponential ? state.x : state.y);
}

/// X[n] and Y[n] from those at n+1; `direct` is dL/d(state after step n).
template <Kernel K, class V>
EXODUS_SCALAR KernelState<V> correlate(const KernelParameters<V>& p, const KernelState<V>& later, V g, const KernelState<V>& direct) {
  if constexpr (K == Kernel::exponential) {
    return {multiply_add(p.scale, g, multiply_add(p.a, later.x, direct.x)), V(0)};
  }
  if constexpr (K == Kernel::double_exponential) {
    const V y = multiply_add(p.scale, g, multiply_add(p.b, later.y, direct.y));
    return {multiply_add(p.a, later.x, y + direct.x), y};
  }
  return {multiply_add(p.a, later.x + later.y, direct.x), multiply_add(p.scale, g, multiply_add(p.a, later.y, direct.y))};
}

/// The terms of step n in the parameters' gradients, from X[n] and Y[n].
template <Kernel K, class V>
EXODUS_SCALAR KernelParameters<V> kernel_terms(const KernelParameters<V>& p, const KernelState<V>& before, V in, V g,
                                               const KernelState<V>& at) {
  const KernelState<V> after = advance<K>(p, before, in);
  if constexpr (K == Kernel::exponential) return {at.x * before.x, V(0), g * after.x};
  if constexpr (K == Kernel::double_exponential) return {at.x * before.x, at.y * before.y, g * after.y};
  return {at.x * before.x + at.y * (before.y + before.x), V(0), g * after.y};
}

/// dL/d(state before step 0) from X[0] and Y[0].
template <Kernel K, class V>
EXODUS_SCALAR KernelState<V> before_first(const KernelParameters<V>& p, const KernelState<V>& at) {
  if constexpr (K == Kernel::exponential) return {p.a * at.x, V(0)};
  if constexpr (K == Kernel::double_exponential) return {p.a * at.x, p.b * at.y};
  return {p.a * (at.x + at.y), p.a * at.y};
}

/// BPTT: every statement of advance() and output() in reverse. The carry is dL/d(state after step n) on entry and dL/d(state before it) on
/// return; sets the terms, returns dL/din[n].
template <Kernel K, class V>
EXODUS_SCALAR V reverse(const KernelParameters<V>& p, const KernelState<V>& before, V in, V g, KernelState<V>& carry,
                        KernelParameters<V>& terms) {
  const KernelState<V> after = advance<K>(p, before, in);
  terms = {};
  if constexpr (K == Kernel::exponential) {
    const V grad_x = carry.x + p.scale * g;   // out = scale x
    terms.scale = g * after.x;
    terms.a = grad_x * before.x;   // x = a x' + in
    carry = {p.a * grad_x, V(0)};
    return grad_x;
  } else if constexpr (K == Kernel::double_exponential) {
    const V grad_y = carry.y + p.scale * g;   // out = scale y
    terms.scale = g * after.y;
    const V grad_x = carry.x + grad_y;   // y = b y' + x
    terms.b = grad_y * before.y;
    terms.a = grad_x * before.x;   // x = a x' + in
    carry = {p.a * grad_x, p.b * grad_y};
    return grad_x;
  } else {
    const V grad_y = carry.y + p.scale * g;   // out = scale y
    terms.scale = g * after.y;
    const V grad_x = carry.x;
    terms.a = grad_y * (before.y + before.x) + grad_x * before.x;   // y = a (y' + x'), x = a x' + in
    carry = {p.a * grad_y + p.a * grad_x, p.a * grad_y};
    return grad_x;
  }
}

}   // namespace exodus
