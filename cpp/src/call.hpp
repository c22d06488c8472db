/// @file
/// A call as both engines see it: plain structs that number a model's parameters and states.
#pragma once

#include <cstdint>

#include "exodus/half.hpp"
#include "exodus/kernel.hpp"
#include "exodus/surrogate.hpp"
#include "registry.hpp"

namespace exodus {

inline constexpr int max_parameters = 9;   // the most that a model has
inline constexpr int max_states = 6;

/// How the arrays that may be stored in two bytes lie in memory. Engines are compiled for the type of the arithmetic only, and are told the
/// format at run time. The first is the type of the arithmetic itself.
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
  Taps<V> taps;   ///< none: the role has a recursive kernel, or no kernel
  const V* initial = nullptr;
  V* final = nullptr;
  const V* grad_final = nullptr;
  V* grad_initial = nullptr;
  bool summed = false;      ///< the gradient of the taps is wanted
  double* sums = nullptr;   ///< taps x neurons: the gradient of each neuron's own copy
};

template <class V>
static inline bool with_fir(const FirRole<V>* fir) {
  return fir[0].taps.length > 0 || fir[1].taps.length > 0;
}

/// The part that all calls share. `Element` is the type of arrays whose storage may be shorter than V; void where only the run knows it.
template <class V, class Element = V>
struct Call {
  Layout layout;
  Model model{};
  int variant = 0;
  V cap{};   ///< the most spikes in a step
  Param<V> parameters[max_parameters];
  const Element* current = nullptr;   ///< backward: null unless a wanted gradient reads it
  const V* initial[max_states] = {};
  FirRole<V> fir[2];
  Recurrence<V> recurrent;
};

template <class V, class Element = V>
struct ForwardCall : Call<V, Element> {
  V* potential = nullptr;
  Element* spikes = nullptr;
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
  double* sums[max_parameters] = {};   ///< for each neuron, the gradient of its own copy of the parameter; null: not wanted
};

}   // namespace exodus
