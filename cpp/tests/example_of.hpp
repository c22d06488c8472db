/// @file
/// Values for a neuron of any model, by the table of its parameters.
#pragma once

#include <exodus/functions.hpp>
#include <exodus/neuron.hpp>
#include <iterator>
#include <type_traits>
#include <utility>

namespace exodus::test {

/// A range of a parameter's values with which a neuron fires now and then, and its states do not grow.
inline std::pair<double, double> range_of(const ParameterFacts& facts) {
  if (facts.domain == Domain::decay) return {0.5, 0.95};
  if (facts.domain == Domain::positive) return {0.8, 1.3};
  if (facts.domain == Domain::below_threshold) return {-0.6, -0.1};
  if (facts.same_as != nullptr) return {0.5, 1.1};   // as a threshold
  if (facts.role == Role::gain) return {0.6, 1.4};
  if (facts.default_value > 0) return {0.5 * facts.default_value, 0.95 * facts.default_value};
  if (facts.default_value < 0) return {facts.default_value, 0.3 * facts.default_value};
  return {-0.3, 0.3};
}

/// Gives a neuron values of these ranges, the others being those of its table; with `second_options` also the second of each option.
template <class N>
N example_of(bool second_options = false) {
  using V = arithmetic_t<typename N::Storage>;
  N neuron;
  typename N::template Parameters<Param<V>>& parameters = neuron;
  for_each_field<std::size(N::parameter_table)>(parameters, [](Param<V>& parameter, int k) {
    const ParameterFacts& facts = N::parameter_table[k];
    if (facts.same_as != nullptr || facts.domain == Domain::below_threshold) return;
    const auto [low, high] = range_of(facts);
    parameter = Param<V>(static_cast<V>(low + (high - low) * (0.9 - 0.16 * (k % 6))));
  });
  if (second_options) {
    for_each_option(neuron, []<class Option>(const char*, Option& option) {
      if constexpr (std::is_enum_v<Option>) option = static_cast<Option>(1);
    });
  }
  return neuron;
}

/// Calls use(k) for each parameter whose gradient may be asked for: one that is tied to another has none of its own.
template <class N, class F>
void for_each_free_parameter(const N& neuron, F use) {
  bool tied[std::size(N::parameter_table)] = {};
  for_each_tie(neuron, [&](const Tie& tie) { tied[tie.source] = true; });
  for (int k = 0; k < static_cast<int>(std::size(N::parameter_table)); ++k) {
    if (!tied[k]) use(k);
  }
}

}   // namespace exodus::test
