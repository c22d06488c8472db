/// @file
/// The choice of the instruction set.
#pragma once

#include "plan.hpp"

namespace exodus::cpu {

/// The functions for this processor. Null if EXODUS_ISA names an instruction set that is unknown or that the processor lacks.
const IsaTable* isa_table() noexcept;

}   // namespace exodus::cpu
