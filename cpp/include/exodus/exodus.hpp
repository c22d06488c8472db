/// @file
/// The C++ interface of exodus_core: spiking neurons over time, forward and backward, on raw buffers.
///
///     exodus::Lif<float> neuron;
///     neuron.alpha = 0.95f;
///     const exodus::Layout layout{.outer = 1, .time = T, .inner = N};
///     const exodus::Lif<float>::Forward arrays{.current = a, .spikes = s, .potential = u};
///     exodus::Workspace workspace = exodus::workspace(layout, neuron, arrays);
///     workspace.data = ...;   // workspace.bytes of memory
///     exodus::Status status = exodus::forward(layout, neuron, arrays, workspace);
///
/// Functions allocate nothing, throw nothing and keep no state but a pool of threads. They are defined for any parameter value; NaN and
/// infinities in the data stay in their own neuron. They compute in the default floating-point mode, whatever the caller's is. Equations:
/// in the models' headers.
#pragma once

#include "alif.hpp"
#include "cuba_lif.hpp"
#include "delay.hpp"
#include "exp_leak.hpp"
#include "functions.hpp"
#include "kernel_filter.hpp"
#include "lif.hpp"
#include "srm.hpp"
#include "surrogate.hpp"
#include "types.hpp"
