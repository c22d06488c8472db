/// @file
/// A call as the engines see it, CPU or CUDA: plain structs, the model's name gone, its parameters and states as lists.
#pragma once

#include <cstdint>

#include "exodus/kernel.hpp"
#include "exodus/surrogate.hpp"
#include "registry.hpp"

namespace exodus {

inline constexpr int max_parameters = 9;   // of a model
inline constexpr int max_states = 6;

/// A FIR kernel: of the current (role 0), or of the spikes (role 1). Arrays of its state have (taps - 1) x neurons elements.
template <class V>
struct FirRole {
  Taps<V> taps;   ///< none: the role's kernel, if there is one, is recursive
  const V* initial = nullptr;
  V* final = nullptr;
  const V* grad_final = nullptr;
  V* grad_initial = nullptr;
  bool summed = false;      ///< the gradient of the taps is wanted
  double* sums = nullptr;   ///< taps x neurons: of each neuron's own copies
};

template <class V>
static inline bool with_fir(const FirRole<V>* fir) {
  return fir[0].taps.length > 0 || fir[1].taps.length > 0;
}

/// What every call has. `Element` is the type of the arrays that may be stored shorter than V; void where it is known at run time.
template <class V, class Element = V>
struct Call {
  Layout layout;
  Model model{};
  int variant = 0;
  V cap{};   ///< spikes in a step, at most
  Param<V> parameters[max_parameters];
  const Element* current = nullptr;   ///< backward null unless a wanted gradient reads it
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
  double* sums[max_parameters] = {};   ///< per neuron: the gradient of its own copy of the parameter; null: not wanted
};

}   // namespace exodus
