/// @file
/// Views neurons and arrays of two-byte numbers as those of the arithmetic type, so that passes are compiled for that type only. The arrays
/// keep their addresses; a Format states how they are stored.
#pragma once

#include <type_traits>

#include "../model.hpp"

namespace exodus {
namespace {

template <class N>
struct InArithmetic;
template <template <class> class Neuron, class S>
struct InArithmetic<Neuron<S>> {
  using type = Neuron<arithmetic_t<S>>;
};
template <class N>
using in_arithmetic_t = typename InArithmetic<N>::type;

template <class N>
constexpr bool is_in_arithmetic = std::is_same_v<N, in_arithmetic_t<N>>;

/// Copies the options of a neuron to one of another type.
template <class N, class Other>
void copy_options(const N& from, Other& to) {
  N source = from;
  for_each_option(source, [&](const char* name, const auto& value) {
    for_each_option(to, [&](const char* other, auto& target) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, std::remove_cvref_t<decltype(target)>>) {
        if (same_name(name, other)) target = value;
      }
    });
  });
}

template <class N>
decltype(auto) in_arithmetic(const N& neuron) {
  if constexpr (is_in_arithmetic<N>) {
    return (neuron);
  } else {
    using Parameters = typename N::template Parameters<Param<typename Traits<N>::V>>;
    in_arithmetic_t<N> same;
    static_cast<Parameters&>(same) = neuron;
    if constexpr (Traits<N>::kernels > 0) same.taps = neuron.taps;
    copy_options(neuron, same);
    return same;
  }
}

template <class V, class S>
const V* as_numbers(const S* elements) {
  return reinterpret_cast<const V*>(elements);
}
template <class V, class S>
V* as_numbers(S* elements) {
  return reinterpret_cast<V*>(elements);
}

template <class N>
decltype(auto) in_arithmetic(const typename N::Forward& arrays) {
  if constexpr (is_in_arithmetic<N>) {
    return (arrays);
  } else {
    using V = typename Traits<N>::V;
    typename in_arithmetic_t<N>::Forward same;
    same.current = as_numbers<V>(arrays.current);
    same.initial = arrays.initial;
    same.spikes = as_numbers<V>(arrays.spikes);
    same.fired = arrays.fired;
    same.support = arrays.support;
    same.surrogate = arrays.surrogate;
    same.potential = arrays.potential;
    same.final = arrays.final;
    same.recurrent = arrays.recurrent;
    return same;
  }
}

template <class N>
decltype(auto) in_arithmetic(const typename N::Backward& arrays) {
  if constexpr (is_in_arithmetic<N>) {
    return (arrays);
  } else {
    using V = typename Traits<N>::V;
    typename in_arithmetic_t<N>::Backward same;
    same.potential = arrays.potential;
    same.current = as_numbers<V>(arrays.current);
    same.initial = arrays.initial;
    same.grad_spikes = as_numbers<V>(arrays.grad_spikes);
    same.grad_potential = arrays.grad_potential;
    same.grad_final = arrays.grad_final;
    same.grad_current = as_numbers<V>(arrays.grad_current);
    same.grad_initial = arrays.grad_initial;
    same.grad = arrays.grad;
    same.grad_taps = arrays.grad_taps;
    same.recurrent = arrays.recurrent;
    same.spikes = as_numbers<V>(arrays.spikes);
    same.grad_recurrent = arrays.grad_recurrent;
    return same;
  }
}

template <class S>
Surrogate<arithmetic_t<S>> in_arithmetic(const Surrogate<S>& surrogate) {
  const auto& [a, b, c] = surrogate.shape;
  return {surrogate.kind, surrogate.scale, {a, b, c}, surrogate.values};
}

}   // namespace
}   // namespace exodus
