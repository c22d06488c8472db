/// @file
/// Surrogate gradients, which replace f'(u), the derivative of the spike function, in a backward pass.
#pragma once

#include "scalar.hpp"
#include "types.hpp"

namespace exodus {

// Each function first computes the parts that depend only on threshold and shape. Where all neurons share these, they leave the loop.

/// The density of a normal distribution at x.
template <class V>
EXODUS_SCALAR V normal_density(V x, V mean, V sigma) {
  const V rate = V(-0.5) * log2_e<V>() / (sigma * sigma), peak = V(0.39894228040143267794) / sigma;   // 1 / sqrt(2 pi)
  const V y = x - mean;
  return exp2_nonpositive(y * y * rate) * peak;
}

/// SLAYER's curve: e^(-|x| / w) / w with the width w relative to the threshold.
template <class V>
EXODUS_SCALAR V single_exponential(V x, V threshold, V width, V scale) {
  const V w = width * threshold;
  const V rate = -log2_e<V>() / w, peak = scale / w;
  return exp2_nonpositive(magnitude(x) * rate) * peak;
}

/// A peak at every multiple of the threshold, for neurons that emit several spikes in a step.
template <class V>
EXODUS_SCALAR V periodic_exponential(V u, V threshold, V width) {
  const V rate = -log2_e<V>() / width;
  const V phase = u / threshold - V(0.5);
  const V above = threshold * (V(2) * (phase - round_down(phase)) - V(1));
  const V y = u < threshold ? u - threshold : above;
  return exp2_nonpositive(magnitude(y) * rate);
}

/// The derivative of the logistic function of slope*x, without overflow.
template <class V>
EXODUS_SCALAR V logistic_slope(V x, V slope) {
  const V decayed = exp2_nonpositive(magnitude(x) * (-log2_e<V>() * slope));
  return slope * decayed / ((V(1) + decayed) * (V(1) + decayed));
}

template <class V>
EXODUS_SCALAR V square(V x) {
  return x * x;
}

// The table: name, h as a function of x = u - threshold, u, th = threshold, up to three numbers a, b, c, and the factor `scale`.
// clang-format off
#define EXODUS_SURROGATES(X)                                                                                          \
  X(single_exponential,   single_exponential(x, th, a, scale))                                 /* width */            \
  X(periodic_exponential, scale * periodic_exponential(u, th, a))                              /* width */            \
  X(boxcar,               magnitude(x) <= a / 2 ? scale / a : (x == x ? V(0) : x))             /* width; NaN stays */ \
  X(triangle,             (scale / a) * (magnitude(x) > a ? V(0) : 1 - magnitude(x) / a))      /* width */            \
  X(gaussian,             scale * normal_density(x, a, b))                                     /* mean, sigma */      \
  X(multi_gaussian,       scale * ((1 + b) * normal_density(x, V(0), a)                                               \
                                   - b * (normal_density(x, a, c * a) + normal_density(x, -a, c * a)))) /* sigma, ratio, s */ \
  X(fast_sigmoid,         scale / square(a * magnitude(x) + 1))                                /* slope */            \
  X(atan,                 (scale * a / 2) / (1 + square(V(1.57079632679489661923) * a * x)))   /* slope */            \
  X(sigmoid,              scale * logistic_slope(x, a))                                        /* slope */            \
  X(straight_through,     scale)
// clang-format on

enum class SurrogateKind {
#define EXODUS_KIND(name, expression) name,
  EXODUS_SURROGATES(EXODUS_KIND)
#undef EXODUS_KIND
      count
};

/// A surrogate of the table, or its values h[n] as an array over time, for instance of a custom function.
template <class S>
struct Surrogate {
  using V = arithmetic_t<S>;
  SurrogateKind kind = SurrogateKind::single_exponential;
  V scale{0.5};
  V shape[3] = {V(0.5), V(0), V(0)};   ///< a, b, c of the table
  const V* values = nullptr;           ///< if given, used in place of the table
};

/// h at potential u.
template <SurrogateKind Kind, class V>
EXODUS_SCALAR V surrogate_at(V u, V th, V scale, V a, V b, V c) {
  [[maybe_unused]] const V x = u - th;
  (void)a, (void)b, (void)c;
#define EXODUS_CASE(name, expression) \
  if constexpr (Kind == SurrogateKind::name) return static_cast<V>(expression);
  EXODUS_SURROGATES(EXODUS_CASE)
#undef EXODUS_CASE
}

}   // namespace exodus
