/// @file
/// The types of a suite that runs for every model of the registry, in float and double.
#pragma once

#include <gtest/gtest.h>
#include <exodus/exodus.hpp>
#include <iterator>
#include <type_traits>

#include "../src/registry.hpp"

namespace exodus::test {

/// The first type is only there so that a comma may stand before every other.
template <class, class... N>
using AllBut = testing::Types<N...>;
#define EXODUS_MODEL(name) , name<float>, name<double>
using EveryModel = AllBut<void EXODUS_MODELS(EXODUS_MODEL)>;
#undef EXODUS_MODEL

/// The models of a list for which `Is<N>::value`.
template <class List, template <class> class Is, class Kept = testing::Types<>>
struct Those {
  using Types = Kept;
};
template <class N, class... Others, template <class> class Is, class... Kept>
struct Those<testing::Types<N, Others...>, Is, testing::Types<Kept...>>
    : Those<testing::Types<Others...>, Is, std::conditional_t<Is<N>::value, testing::Types<Kept..., N>, testing::Types<Kept...>>> {};

template <class N>
using Fires = std::bool_constant<N::fires>;
/// Whether a model has states beside potential and spikes.
template <class N>
using HasHiddenStates = std::bool_constant<(std::size(N::state_names) > (N::fires ? 2 : 1))>;

using EveryFiringModel = Those<EveryModel, Fires>::Types;
using EveryModelWithHiddenStates = Those<EveryModel, HasHiddenStates>::Types;

}   // namespace exodus::test
