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
/// The other neurons are structs of the same form. A neuron of two coupled states that resonates with a period of 20 steps:
///
///     double cosine, sine;   // the same bits on every machine, since spikes depend on them
///     exodus::Status made = exodus::rotation(exodus::Param<double>(2 * std::numbers::pi / 20), 1, &cosine, &sine);
///     exodus::StateSpace<float> resonator;
///     resonator.A00 = resonator.A11 = static_cast<float>(0.97 * cosine);
///     resonator.A10 = static_cast<float>(0.97 * sine), resonator.A01 = static_cast<float>(-0.97 * sine);
///
/// Functions allocate nothing, throw nothing and keep no state except a pool of threads. They are defined for any parameter value, and NaN
/// and infinities in the data stay in their own neuron. They compute in the default floating-point mode, whatever the caller's is. The
/// models' headers have the equations.
#pragma once

#include "alif.hpp"
#include "convolution.hpp"
#include "cuba_lif.hpp"
#include "delay.hpp"
#include "exp_leak.hpp"
#include "functions.hpp"
#include "kernel_filter.hpp"
#include "lif.hpp"
#include "pooling.hpp"
#include "product.hpp"
#include "srm.hpp"
#include "state_space.hpp"
#include "surrogate.hpp"
#include "types.hpp"
