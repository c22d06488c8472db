/// @file
/// Compiled once per instruction set, with EXODUS_ISA its name; exports one table. Everything else here has internal linkage.
#include "engine.hpp"

namespace exodus::cpu::EXODUS_ISA {

extern const KernelTable kernels;
constinit const KernelTable kernels = {{forward_row<float>, backward_row<float>, evaluate_range<float>},
                                       {forward_row<double>, backward_row<double>, evaluate_range<double>}};

}   // namespace exodus::cpu::EXODUS_ISA
