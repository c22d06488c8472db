/// @file
/// Checks of a call's arguments, which turn a model's named fields into the lists of a Call.
#pragma once

#include <iterator>
#include <limits>
#include <type_traits>

#include "exodus/delay.hpp"
#include "exodus/product.hpp"
#include "gradient_plan.hpp"

namespace exodus {

template <template <class> class N, class S>
constexpr Model model_of(const N<S>&) {
#define EXODUS_MODEL(name) \
  if constexpr (std::is_same_v<N<S>, name<S>>) return Model::name;
  EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL
}

inline bool multiply(std::int64_t a, std::int64_t b, std::int64_t& product) {
  return !__builtin_mul_overflow(a, b, &product);
}

inline bool valid(const Layout& layout) {
  if (layout.outer < 0 || layout.time < 1 || layout.inner < 0) return false;
  std::int64_t neurons, elements, bytes;
  constexpr std::int64_t most = 32 * sizeof(double);   // the most bytes per element, of arrays and workspace together
  return multiply(layout.outer, layout.inner, neurons) && multiply(neurons, layout.time, elements) && multiply(elements, most, bytes);
}

/// Whether there are no neurons, as in an empty share of a batch.
inline bool empty(const Layout& layout) {
  return layout.outer == 0 || layout.inner == 0;
}

template <class V>
bool valid(const Param<V>& p) {
  std::int64_t period;
  return p.count >= 1 && p.repeat >= 1 && (p.count == 1 || p.data != nullptr) && multiply(p.count, p.repeat, period);
}

inline bool valid(Method method) {
  return Method::exodus <= method && method <= Method::bptt;
}

inline bool valid(SurrogateKind kind) {
  return SurrogateKind{} <= kind && kind < SurrogateKind::count;
}

/// Checks that every enumerator is in its range and max_spikes is not negative.
struct OptionCheck {
  bool ok = true;
  template <class Enum>
  void operator()(const char*, Enum value) {
    ok = ok && Enum{} <= value && value < static_cast<Enum>(std::size(enumerators<Enum>));
  }
  void operator()(const char*, std::int64_t count) { ok = ok && count >= 0; }
  void operator()(const char*, bool) {}
};

/// Lists the neuron's parameters, with the values of the table for those not given. A kernel with taps ignores its own.
template <class N, class V = arithmetic_t<typename N::Storage>>
Status set_parameters(const N& neuron, const FirRole<V>* roles, Param<V>* parameters) {
  const typename N::template Parameters<Param<V>>& given = neuron;
  to_list<Traits<N>::parameters>(given, parameters);
  for (int k = 0; k < Traits<N>::parameters; ++k) {
    const ParameterFacts& facts = N::parameter_table[k];
    const int kernel = k / kernel_parameters;
    const bool ignored = kernel < Traits<N>::kernels && roles[kernel].taps.length > 0;
    if (parameters[k].count == 0 || ignored) {
      const int other = parameter_index<N>(facts.same_as);
      parameters[k] = other < 0 ? Param<V>(static_cast<V>(facts.default_value)) : parameters[other];
    }
    if (!valid(parameters[k])) return Status::bad_parameter;
  }
  OptionCheck check;
  N copy = neuron;
  for_each_option(copy, check);
  return check.ok ? Status::ok : Status::bad_parameter;
}

/// The most spikes in a step; infinite if the option max_spikes is 0.
template <class N, class V = arithmetic_t<typename N::Storage>>
V spike_cap(const N& neuron) {
  if constexpr (requires { neuron.max_spikes; }) {
    if (neuron.max_spikes != 0) return static_cast<V>(neuron.max_spikes);
  }
  return std::numeric_limits<V>::infinity();
}

/// The most neurons by which an engine pads its rows.
inline constexpr std::int64_t largest_padding = 4096;

/// Copies the taps of a neuron's kernels into the roles; false if they are not valid.
template <class N, class V>
bool set_taps(const N& neuron, std::int64_t neurons, FirRole<V>* roles) {
  Taps<V> taps[2];
  if constexpr (Traits<N>::kernels > 0) to_list<Traits<N>::kernels>(neuron.taps, taps);
  for (int k = 0; k < 2; ++k) {
    if (taps[k].length == 0) continue;
    std::int64_t elements, bytes;
    if (taps[k].length < 0 || !valid(Param<V>(taps[k].data, taps[k].count, taps[k].repeat)) || taps[k].data == nullptr) return false;
    if (!multiply(taps[k].length, neurons + largest_padding, elements) || !multiply(elements, 256, bytes)) return false;
    roles[k].taps = taps[k];
  }
  return true;
}

/// Checks that the neurons of a recurrence are whole batch entries, and that its weights fit in memory.
template <class N, class V>
Status check(const Recurrence<V>& recurrent, std::int64_t neurons) {
  if (recurrent.features == 0 && recurrent.weights == nullptr) return Status::ok;
  if (!N::fires) return Status::unsupported;
  if (neurons == 0) return Status::ok;
  std::int64_t neuron_group, elements, bytes;
  if (recurrent.features < 1 || recurrent.repeat < 1 || !multiply(recurrent.features, recurrent.repeat, neuron_group))
    return Status::bad_parameter;
  if (neurons % neuron_group != 0 || !multiply(recurrent.features, recurrent.features + largest_padding, elements))
    return Status::bad_parameter;
  if (!multiply(elements, 256, bytes)) return Status::bad_parameter;
  return recurrent.weights == nullptr ? Status::null_pointer : Status::ok;
}

/// Moves the histories of FIR kernels, each given as the first state of its kernel, from a list of states to the roles.
template <class N, class V, class X>
void take_histories(FirRole<V>* roles, X* FirRole<V>::* field, X** states) {
  for (int k = 0; k < Traits<N>::kernels; ++k) {
    if (roles[k].taps.length == 0) continue;
    X** const own = states + first_hidden<N> + kernel_states * k;
    roles[k].*field = own[0];
    own[0] = own[1] = nullptr;
  }
}

/// Checks the neuron and fills in the part that all calls share, except for the current.
template <class N, class State, class Element>
Status read_neuron(const Layout& layout, const N& neuron, const State& initial, const Recurrence<typename Traits<N>::V>& recurrent,
                   Call<typename Traits<N>::V, Element>& call) {
  if (!set_taps(neuron, layout.outer * layout.inner, call.fir)) return Status::bad_parameter;
  if (const Status status = set_parameters(neuron, call.fir, call.parameters); status != Status::ok) return status;
  if (const Status status = check<N>(recurrent, layout.outer * layout.inner); status != Status::ok) return status;
  call.recurrent = recurrent;
  call.layout = layout;
  call.model = model_of(neuron);
  call.variant = variant_of(neuron);
  call.most_spikes = spike_cap(neuron);
  to_list<Traits<N>::states>(initial, call.initial);
  take_histories<N>(call.fir, &FirRole<typename Traits<N>::V>::initial, call.initial);
  return Status::ok;
}

/// Whether the bits of the spikes of a row, whatever its neurons, are whole words.
template <class V>
bool in_whole_words(const Layout& layout, const Recurrence<V>& recurrent) {
  constexpr std::int64_t word = 64;
  return layout.inner % word == 0 && (recurrent.features == 0 || (recurrent.features % word == 0 && recurrent.repeat == 1));
}

/// Checks and fills in what is written as bits.
template <class N, class Element>
Status read_bits(const Layout& layout, const typename N::Forward& arrays, ForwardCall<typename Traits<N>::V, Element>& call) {
  const bool wanted = arrays.fired.words != nullptr || arrays.support.words != nullptr;
  if (wanted && !(N::fires && in_whole_words(layout, arrays.recurrent))) return Status::unsupported;
  call.fired = arrays.fired;
  call.support = arrays.support;
  if (arrays.support.words == nullptr) return Status::ok;
  if (arrays.surrogate == nullptr) return Status::null_pointer;
  call.surrogate = *arrays.surrogate;
  const bool of_table = call.surrogate.values == nullptr && valid(call.surrogate.kind);
  return of_table && !surrogate_reads_hidden_state<N> ? Status::ok : Status::unsupported;
}

/// Checks the arguments and fills in a call.
template <class N, class Element>
Status read(const Layout& layout, const N& neuron, const typename N::Forward& arrays, ForwardCall<typename Traits<N>::V, Element>& call) {
  using T = Traits<N>;
  if (!valid(layout)) return Status::bad_layout;
  if (arrays.current == nullptr && !empty(layout)) return Status::null_pointer;
  if (const Status status = read_neuron(layout, neuron, arrays.initial, arrays.recurrent, call); status != Status::ok) return status;
  call.current = arrays.current;
  call.potential = arrays.potential;
  call.spikes = N::fires ? arrays.spikes : nullptr;
  if (const Status status = read_bits<N>(layout, arrays, call); status != Status::ok) return status;
  to_list<T::states>(arrays.final, call.final);
  take_histories<N>(call.fir, &FirRole<typename T::V>::final, call.final);
  return Status::ok;
}

template <class N, class Element>
Status read(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
            const typename N::Backward& arrays, const RequestedGradients<N>& requested,
            BackwardCall<typename Traits<N>::V, Element>& call) {
  using T = Traits<N>;
  using Role = FirRole<typename T::V>;
  if (!valid(layout)) return Status::bad_layout;
  if (!valid(method) || !(surrogate.values != nullptr || valid(surrogate.kind))) return Status::unsupported;
  if (const Status status = read_neuron(layout, neuron, arrays.initial, arrays.recurrent, call); status != Status::ok) return status;
  if (!requested.possible(call.fir)) return Status::unsupported;
  const bool needed = !empty(layout);
  const bool recomputes = recomputes_potential(requested, arrays), reads_current = recomputes || requested.reads_current();
  if (needed && arrays.current == nullptr && reads_current) return Status::null_pointer;
  if (needed && recomputes && with_fir(call.fir)) return Status::unsupported;
  if (arrays.grad_recurrent != nullptr) {
    if (arrays.recurrent.weights == nullptr) return Status::unsupported;
    if (needed && (arrays.spikes == nullptr || arrays.grad_current == nullptr)) return Status::null_pointer;
  }
  for (int k = 0; k < 2; ++k) call.fir[k].summed = requested.taps[k] != nullptr;
  call.method = method;
  const auto& [a, b, c] = surrogate.shape;
  call.surrogate = {surrogate.kind, surrogate.scale, {a, b, c}, surrogate.values};
  call.potential = arrays.potential;
  call.current = reads_current ? arrays.current : nullptr;
  call.grad_spikes = N::fires ? arrays.grad_spikes : nullptr;
  call.grad_potential = arrays.grad_potential;
  call.grad_current = arrays.grad_current;
  to_list<T::states>(arrays.grad_final, call.grad_final);
  to_list<T::states>(arrays.grad_initial, call.grad_initial);
  take_histories<N>(call.fir, &Role::grad_final, call.grad_final);
  take_histories<N>(call.fir, &Role::grad_initial, call.grad_initial);
  return Status::ok;
}

/// Whether packed spikes have the arrays that they need.
template <class S>
bool valid(const PackedSpikes<S>& x) {
  return x.bits != nullptr && (x.values == nullptr || x.first != nullptr);
}

/// Checks the arguments that all calls of a delay have.
template <class S>
Status check_delay(const Layout& layout, const Delay<S>& delays) {
  if (!valid(layout)) return Status::bad_layout;
  std::int64_t entries, elements, bytes;
  const bool ok = valid(delays.steps) && delays.most >= 0 && !__builtin_add_overflow(delays.most, 1, &entries) &&
                  multiply(entries, layout.outer * layout.inner, elements) && multiply(elements, 2 * sizeof(double), bytes);
  return ok ? Status::ok : Status::bad_parameter;
}

}   // namespace exodus
