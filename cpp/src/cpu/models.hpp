/// @file
/// The tables of stages that the models' objects (model.cpp) export to the engine of their instruction set.
#pragma once

#include "stage_tables.hpp"

namespace exodus::cpu::EXODUS_ISA {

#define EXODUS_MODEL(name) extern const ModelTable name##_stages;
EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL

}   // namespace exodus::cpu::EXODUS_ISA

namespace exodus::cpu {
namespace {

/// Indexed by Model.
constexpr const ModelTable* models[] = {
#define EXODUS_MODEL(name) &EXODUS_ISA::name##_stages,
    EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL
};

template <class V>
const ModelStages<V>& stages_of(Model model) {
  const ModelTable& table = *models[static_cast<int>(model)];
  if constexpr (sizeof(V) == sizeof(float)) {
    return table.f32;
  } else {
    return table.f64;
  }
}

}   // namespace
}   // namespace exodus::cpu
