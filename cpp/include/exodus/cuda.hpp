/// @file
/// The CUDA twin of exodus.hpp: the same functions on device memory, with a stream.
///
///     exodus::cuda::forward(layout, neuron, {.current = a, .spikes = s, .potential = u}, {}, stream);
///
/// Every pointer, those of parameters, gradients and the workspace included, is to memory of one device; the calls run there, on the given
/// stream of that device, and leave the caller's current device as it was. They neither allocate nor wait: results are complete when the
/// stream has reached the end of the call. Forward has the bits of exodus::forward; backward agrees with it to rounding, and gives the same
/// bits on every run.
///
/// Neurons are of float, double, float16 or bfloat16. The last two are only the types of `current`, `spikes`, `grad_spikes` and
/// `grad_current`. All else is float, and neurons compute in float.
#pragma once

#include "cuda_delay.hpp"
#include "cuda_functions.hpp"
#include "exodus.hpp"
