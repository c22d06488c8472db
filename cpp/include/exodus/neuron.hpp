/// @file
/// The parts that neuron models share: the table of a model's parameters, defaults of its description, the spike function, and the record
/// of a step that a backward pass reads.
#pragma once

#include <iterator>
#include <limits>

#include "fields.hpp"
#include "scalar.hpp"
#include "types.hpp"

namespace exodus {

/// s = f(u): one spike at u >= threshold, or with `Multi` min(floor(u / threshold), most_spikes). NaN never fires.
template <bool Multi, class V>
EXODUS_SCALAR V fire(V u, V threshold, V most_spikes) {
  if constexpr (!Multi) {
    return u >= threshold ? V(1) : V(0);
  } else {
    const V count = round_down(u / threshold);
    return u >= threshold ? (count < most_spikes ? count : most_spikes) : V(0);
  }
}

/// Beside a bit for each parameter: what a backward pass carries from step to step.
inline constexpr unsigned carry_bit = 1u << 31;

/// The index of a model's first state that is neither potential nor spikes.
template <class N>
inline constexpr int first_hidden = N::fires ? 2 : 1;

/// The inputs of a step. An adjoint returns their gradients in the same struct.
template <class V, bool Feedback = false>
struct StepInputs {
  V current{};   ///< a[n]
};
/// For a neuron whose earlier spikes also reach its potential through an operator outside it (the taps of a kernel).
template <class V>
struct StepInputs<V, true> {
  V current{};
  V feedback{};   ///< their contribution to the potential of this step
};

/// Step n in a backward pass. What an adjoint reads of `before` decides what a pass recomputes: the terms of parameters may read all of it,
/// the rest of BPTT the potential and the spikes, if they follow from it, and EXODUS and SLAYER nothing else.
template <class V, class State>
struct StepRecord {
  V potential;        ///< u[n], before the reset
  State before;       ///< the state after step n-1
  State grad_state;   ///< dL/d(hidden states after step n), from the loss itself; zero except at the last step
  V surrogate;        ///< h[n] = f'(u[n])
  V grad_spikes;      ///< e[n] = dL/ds[n], from the loss itself
  V grad_potential;   ///< q[n] = dL/du[n], from the loss itself
  V current;          ///< a[n]; only some parameters' gradients read it
};

/// Which values a parameter may have.
enum class Domain {
  decay,             ///< a factor per step, in [0, 1]
  positive,          ///< above 0
  below_threshold,   ///< any finite number below the threshold
  free,              ///< any finite number
};
template <>
inline constexpr const char* enumerators<Domain>[] = {"decay", "positive", "below_threshold", "free"};

/// What the engines use a parameter for.
enum class Role {
  none,
  threshold,   ///< the surrogate reads it
  gain,        ///< it multiplies the current, before anything else
};
template <>
inline constexpr const char* enumerators<Role>[] = {"none", "threshold", "gain"};

/// A row of a model's table of parameters. Rows are in the order of its struct, and have the names of its members.
struct ParameterFacts {
  const char* name;
  Domain domain = Domain::free;
  double default_value = 0;              ///< its value where it is not given,
  const char* same_as = nullptr;         ///< or that of this parameter, whose gradient then counts both
  const char* complement_of = nullptr;   ///< it is 1 - this parameter where the option gain_follows_alpha is set
  bool reads_current = false;            ///< its gradient needs the current
  bool reads_hidden_states = true;       ///< its gradient may need states beyond potential and spikes, which are then recomputed
  Role role = Role::none;
};

/// A v_min below every potential: no comparison with NaN holds.
inline constexpr double never_clips = std::numeric_limits<double>::quiet_NaN();

/// The base of a model for data of type S with these structs. A model declares for itself what differs from these defaults.
template <class S, template <class> class ParameterStruct, template <class> class StateStruct, template <class> class Kernels = NoKernels>
struct NeuronModel : ParameterStruct<Param<arithmetic_t<S>>> {
  using Storage = S;
  template <class X>
  using Parameters = ParameterStruct<X>;
  template <class X>
  using State = StateStruct<X>;
  using Forward = ForwardArrays<S, StateStruct>;
  using Backward = BackwardArrays<S, StateStruct, ParameterStruct, Kernels>;

  static constexpr bool fires = true;               ///< false: the model is linear, so all methods are the same
  static constexpr int variants = 1;                ///< compile-time variants of its functions
  static constexpr int adjoint_variants = 0;        ///< how many of them differ in the adjoint, the first ones; 0: all
  static constexpr bool carries_gradient = false;   ///< the first carry of EXODUS, after the adjoint of step n, is dL/d(gain a[n])
};

/// Whether two names are the same.
constexpr bool same_name(const char* a, const char* b) {
  for (; *a != 0 && *a == *b; ++a, ++b) {
  }
  return *a == *b;
}

/// The row of a model's parameter with this name; -1: none.
template <class N>
constexpr int parameter_index(const char* name) {
  int index = 0;
  for (const ParameterFacts& facts : N::parameter_table) {
    if (name != nullptr && same_name(facts.name, name)) return index;
    ++index;
  }
  return -1;
}

/// dL/d(parameter `source`) belongs to the parameter `target` as well, with this sign.
struct Tie {
  int source, target, sign;
};

/// Whether a neuron has the option gain_follows_alpha, and it is set.
template <class N>
static inline bool gain_follows(const N& neuron) {
  if constexpr (requires { neuron.gain_follows_alpha; }) return neuron.gain_follows_alpha;
  return false;
}

/// Calls tie(Tie) for each tie of a neuron.
template <class N, class F>
static inline void for_each_tie(const N& neuron, F&& tie) {
  constexpr int count = static_cast<int>(std::size(N::parameter_table));
  const typename N::template Parameters<Param<arithmetic_t<typename N::Storage>>>& parameters = neuron;
  for_each_field<count>(parameters, [&](const auto& parameter, int k) {
    const ParameterFacts& facts = N::parameter_table[k];
    if (facts.complement_of != nullptr && gain_follows(neuron)) tie(Tie{k, parameter_index<N>(facts.complement_of), -1});
    if (facts.same_as != nullptr && parameter.count == 0) tie(Tie{k, parameter_index<N>(facts.same_as), +1});
  });
}

/// Calls field(name, member) for everything that is neither parameter nor state: nothing, unless a model has an overload.
template <class N, class F>
static inline void for_each_option(N&, F&&) {}

/// The variant that a neuron is: the only one, unless a model has an overload.
template <class N>
static inline int variant_of(const N&) {
  return 0;
}

/// dL/d(initial state) by BPTT, whose carry is dL/d(state).
template <Method M, int Variant, class Parameters, class State>
EXODUS_SCALAR State initial_gradient(const Parameters&, const State&, const State& carry) {
  return carry;
}

}   // namespace exodus
