/// @file
/// Every neuron model. A new one is its header and a line here (and a descriptor in Python).
#pragma once

#include "exodus/exodus.hpp"

#define EXODUS_MODELS(X) \
  X(Lif)                 \
  X(ExpLeak)             \
  X(CubaLif)             \
  X(Alif)                \
  X(Srm)                 \
  X(KernelFilter)

namespace exodus {

enum class Model {
#define EXODUS_MODEL(name) name,
  EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL
      count
};

}   // namespace exodus
