/// @file
/// The engine, which runs the stages of the models (model.cpp). Compiled once for each instruction set, with EXODUS_ISA its name; it
/// exports one table, and everything else here has internal linkage.
#include "delay.hpp"
#include "engine.hpp"

namespace exodus::cpu::EXODUS_ISA {

extern const KernelTable kernels;
constinit const KernelTable kernels = {{forward_row<float>, backward_row<float>, evaluate_range<float>, delay_row<float>},
                                       {forward_row<double>, backward_row<double>, evaluate_range<double>, delay_row<double>}};

}   // namespace exodus::cpu::EXODUS_ISA
