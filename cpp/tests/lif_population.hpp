/// @file
/// LIF neurons as tests know them: parameters of every shape, and the formula of the neuron as plain scalar code.
#pragma once

#include <exodus/lif.hpp>

#include "support.hpp"

namespace exodus::test {

/// The four things that a spike can do to the next potential.
struct ResetForm {
  Reset reset;
  ResetTiming timing;
  const char* name;
};
inline constexpr ResetForm reset_forms[] = {{Reset::subtract, ResetTiming::after_decay, "after decay"},
                                            {Reset::subtract, ResetTiming::before_decay, "before decay"},
                                            {Reset::zero, ResetTiming::after_decay, "to zero"},
                                            {Reset::none, ResetTiming::after_decay, "none"}};

/// One neuron's numbers, in the type of the arithmetic.
template <class X>
struct Scalars {
  X alpha, threshold, gain, reset_amount, v_min;
  bool clamps;
  Reset reset;
  ResetTiming timing;
  std::int64_t max_spikes;

  template <class Y>
  Scalars<Y> as() const {
    return {Y(alpha), Y(threshold), Y(gain), Y(reset_amount), Y(v_min), clamps, reset, timing, max_spikes};
  }
};

/// u[n] from the state after step n-1, operation by operation as the interface promises.
template <class X>
X potential(const Scalars<X>& p, X u, X s, X a) {
  const X x = p.gain * a;
  X v;
  if (p.reset == Reset::none) {
    v = (p.alpha * u) + x;
  } else if (p.reset == Reset::zero) {
    v = (p.alpha * (s > 0 ? X(0) : u)) + x;
  } else if (p.timing == ResetTiming::before_decay) {
    v = (p.alpha * (u - (p.reset_amount * s))) + x;
  } else {
    v = ((p.alpha * u) + x) - (p.reset_amount * s);
  }
  if (p.clamps) v = v < p.v_min ? p.v_min : v;
  return v;
}

/// s[n] from u[n].
template <class X>
X spikes(const Scalars<X>& p, X u) {
  if (!(u >= p.threshold)) return 0;
  if (p.max_spikes == 1) return 1;
  const X count = std::floor(u / p.threshold);
  return p.max_spikes == 0 || count < static_cast<X>(p.max_spikes) ? count : static_cast<X>(p.max_spikes);
}

/// A population of LIF neurons as a test knows it.
template <class V>
struct Population {
  Values<V> alpha, threshold, gain, reset_amount, v_min;
  Reset reset = Reset::subtract;
  ResetTiming timing = ResetTiming::after_decay;
  std::int64_t max_spikes = 1;
  bool gain_follows_alpha = false;

  /// The library's view; it points into this object.
  Lif<V> neuron() const {
    Lif<V> neuron;
    neuron.alpha = alpha.param();
    neuron.threshold = threshold.param();
    neuron.gain = gain.param();
    neuron.reset_amount = reset_amount.param();
    neuron.v_min = v_min.param();
    neuron.reset = reset;
    neuron.reset_timing = timing;
    neuron.max_spikes = max_spikes;
    neuron.gain_follows_alpha = gain_follows_alpha;
    return neuron;
  }

  Scalars<V> scalars(std::int64_t j) const {
    const V theta = threshold.at(j, V(1));
    return {alpha.at(j, V(1)), theta, gain.at(j, V(1)), reset_amount.at(j, theta), v_min.at(j, V(0)), v_min.given(), reset, timing,
            max_spikes};
  }

  std::string describe() const {
    std::ostringstream text;
    const auto add = [&text](const char* name, const Values<V>& values) {
      text << ", " << name;
      if (!values.given()) {
        text << " absent";
      } else if (values.as_scalar) {
        text << " " << values.list[0];
      } else {
        text << " (" << values.count() << ", " << values.repeat << ")";
      }
    };
    text << "reset " << static_cast<int>(reset) << " timing " << static_cast<int>(timing) << " max_spikes " << max_spikes;
    add("alpha", alpha), add("threshold", threshold), add("gain", gain), add("reset_amount", reset_amount), add("v_min", v_min);
    return text.str();
  }
};

/// Which shapes the parameters have; a choice of reset amount means nothing to resets that do not subtract.
struct Shapes {
  Shape alpha = Shape::scalar, threshold = Shape::scalar, gain = Shape::absent, reset_amount = Shape::absent, v_min = Shape::absent;

  static Shapes any(Random& random) {
    const auto shape = [&random] { return static_cast<Shape>(random.below(static_cast<std::int64_t>(Shape::count))); };
    return {shape(), shape(), shape(), shape(), shape()};
  }
};

/// Values keep exact gradients from growing (the largest default surrogate times the reset amount stays below 1 + alpha), so that
/// results in float can be compared with results in double.
template <class V>
Population<V> population(Random& random, const Layout& layout, const ResetForm& form, std::int64_t max_spikes, const Shapes& shapes) {
  Population<V> p;
  p.alpha = Values<V>(random, shapes.alpha, layout, 0.5, 1.0);
  p.threshold = Values<V>(random, shapes.threshold, layout, 0.8, 1.3);
  p.gain = Values<V>(random, shapes.gain, layout, 0.6, 1.4);
  p.reset_amount = Values<V>(random, shapes.reset_amount, layout, 0.5, 1.1);
  p.v_min = Values<V>(random, shapes.v_min, layout, -0.6, -0.1);
  p.reset = form.reset;
  p.timing = form.timing;
  p.max_spikes = max_spikes;
  return p;
}

}   // namespace exodus::test
