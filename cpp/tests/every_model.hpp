/// @file
/// The types of a suite that runs for every model in the registry, in float and double.
#pragma once

#include <gtest/gtest.h>
#include <exodus/exodus.hpp>

#include "../src/registry.hpp"

namespace exodus::test {

/// The first type is only there so that a comma may stand before every other.
template <class, class... N>
using AllBut = testing::Types<N...>;
#define EXODUS_MODEL(name) , name<float>, name<double>
using EveryModel = AllBut<void EXODUS_MODELS(EXODUS_MODEL)>;
#undef EXODUS_MODEL

}   // namespace exodus::test
