/// @file
/// A call as passed to both engines: plain structs that number a model's parameters and states.
#pragma once

#include <cstdint>

#include "exodus/half.hpp"
#include "exodus/kernel.hpp"
#include "exodus/surrogate.hpp"
#include "registry.hpp"

namespace exodus {

inline constexpr int max_parameters = 9;   // the most parameters of a model
inline constexpr int max_states = 6;

/// The storage format of arrays that may be stored in two bytes per element. Engines are compiled for the arithmetic type only, and receive
/// the format at run time. `arithmetic` is the arithmetic type itself.
enum class Format { arithmetic, float16, bfloat16 };

template <class S>
inline constexpr Format format_of = Format::arithmetic;
template <>
inline constexpr Format format_of<float16> = Format::float16;
template <>
inline constexpr Format format_of<bfloat16> = Format::bfloat16;

/// A FIR kernel, of the current (role 0) or of the spikes (role 1). Arrays of its state have (taps - 1) x neurons elements.
template <class V>
struct FirRole {
  Taps<V> taps;   ///< empty if the role has a recursive kernel, or no kernel
  const V* initial = nullptr;
  V* final = nullptr;
  const V* grad_final = nullptr;
  V* grad_initial = nullptr;
  bool summed = false;      ///< whether the gradient of the taps is wanted
  double* sums = nullptr;   ///< taps x neurons: the gradient of each neuron's own copy
};

template <class V>
static inline bool with_fir(const FirRole<V>* fir) {
  return fir[0].taps.length > 0 || fir[1].taps.length > 0;
}

/// The part that all calls share. `Element` is the type of arrays that may be stored in a shorter type than V; it is void if the type is
/// known only at run time.
template <class V, class Element = V>
struct Call {
  Layout layout;
  Model model{};
  int variant = 0;
  V most_spikes{};   ///< the most spikes in a step
  Param<V> parameters[max_parameters];
  const Element* current = nullptr;   ///< backward: null unless a wanted gradient reads it, or the potential is recomputed
  const V* initial[max_states] = {};
  FirRole<V> fir[2];
  Recurrence<V> recurrent;
};

template <class V, class Element = V>
struct ForwardCall : Call<V, Element> {
  V* potential = nullptr;
  Element* spikes = nullptr;
  ElementBits fired, support;
  Surrogate<V> surrogate;   ///< of `support`
  V* final[max_states] = {};
};

template <class V, class Element = V>
struct BackwardCall : Call<V, Element> {
  Method method{};
  Surrogate<V> surrogate;
  const V* potential = nullptr;
  const Element* grad_spikes = nullptr;
  const V* grad_potential = nullptr;
  const V* grad_final[max_states] = {};
  Element* grad_current = nullptr;
  V* grad_initial[max_states] = {};
  double* sums[max_parameters] = {};   ///< for each neuron, the gradient of its own copy of the parameter; null if it is not wanted
};

}   // namespace exodus
