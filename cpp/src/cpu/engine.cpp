/// @file
/// The engine, which runs the models' stages (model.cpp). Compiled once for each instruction set, with its name as EXODUS_ISA. It exports
/// one table; everything else has internal linkage.
#include "engine.hpp"
#include "delay.hpp"

namespace exodus::cpu::EXODUS_ISA {

extern const IsaTable table;
template <class V>
constexpr IsaFunctions<V> all = {forward_row<V>, backward_row<V>, pack_spikes<V>, weight_gradient<V>,      evaluate_range<V>,
                                 delay_row<V>,   read_range<V>,   write_range<V>, DelaySteps<V>::in_blocks};
constinit const IsaTable table = {all<float>, all<double>};

}   // namespace exodus::cpu::EXODUS_ISA
