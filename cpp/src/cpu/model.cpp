/// @file
/// The stages of one model. Compiled once for each model and instruction set, with the model's name as EXODUS_CPU_MODEL, its header as
/// EXODUS_MODEL_HEADER and the instruction set's name as EXODUS_ISA. It exports one table; everything else has internal linkage.
#include EXODUS_MODEL_HEADER

#include "stages.hpp"

#define EXODUS_CONCATENATED(a, b) a##b
#define EXODUS_TABLE_OF(model) EXODUS_CONCATENATED(model, _stages)

namespace exodus::cpu {
namespace {

template <template <class> class N, class V>
constexpr ModelStages<V> all_stages = model_stages<N, V>(std::make_integer_sequence<int, N<V>::variants>{});

}   // namespace

namespace EXODUS_ISA {

extern const ModelTable EXODUS_TABLE_OF(EXODUS_CPU_MODEL);
constinit const ModelTable EXODUS_TABLE_OF(EXODUS_CPU_MODEL) = {all_stages<EXODUS_CPU_MODEL, float>, all_stages<EXODUS_CPU_MODEL, double>};

}   // namespace EXODUS_ISA
}   // namespace exodus::cpu
