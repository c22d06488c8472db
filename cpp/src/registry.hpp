/// @file
/// The list of neuron models. A new model is its header and a line here, and a descriptor in Python. CMake reads the list too: some sources
/// are compiled once for each model. They include only that model's header (CubaLif: exodus/cuba_lif.hpp), so this file includes none.
/// A test of the engines has its own models: EXODUS_TEST_MODELS names the header with their list.
#pragma once

#if defined(EXODUS_TEST_MODELS)
#include EXODUS_TEST_MODELS
#else
#define EXODUS_MODELS(X) \
  X(Lif)                 \
  X(ExpLeak)             \
  X(CubaLif)             \
  X(Alif)                \
  X(Srm)                 \
  X(StateSpace)          \
  X(KernelFilter)
#endif

namespace exodus {

#define EXODUS_MODEL(name) \
  template <class S>       \
  struct name;
EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL

enum class Model {
#define EXODUS_MODEL(name) name,
  EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL
      count
};

}   // namespace exodus
