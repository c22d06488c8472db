/// @file
/// Every neuron model. A new one is its header and a line here (and a descriptor in Python). A test of the engines brings models of
/// its own: EXODUS_TEST_MODELS names its header, which has the list.
#pragma once

#include "exodus/exodus.hpp"

#if defined(EXODUS_TEST_MODELS)
#include EXODUS_TEST_MODELS
#else
#define EXODUS_MODELS(X) \
  X(Lif)                 \
  X(ExpLeak)             \
  X(CubaLif)             \
  X(Alif)                \
  X(Srm)                 \
  X(KernelFilter)
#endif

namespace exodus {

enum class Model {
#define EXODUS_MODEL(name) name,
  EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL
      count
};

}   // namespace exodus
