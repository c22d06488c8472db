/// @file
/// The functions of the CUDA twin. cuda.hpp has them with all neurons, and the documentation.
#pragma once

#include "functions.hpp"
#include "learnt.hpp"

struct CUstream_st;   // cudaStream_t points to it

namespace exodus::cuda {

/// cudaStream_t; null is the default stream.
using Stream = CUstream_st*;

/// As exodus::forward, on the device. Only kernels with taps, and recurrent weights between many features, need a workspace.
/// @return Status::cuda if a launch failed, or there is no usable device; last_error() says why.
template <class N>
EXODUS_API Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Workspace workspace = {},
                          Stream stream = nullptr) noexcept;

/// As exodus::backward, on the device; `arrays.grad` too points to doubles on the device.
template <class N>
EXODUS_API Status backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                           const typename N::Backward& arrays, Workspace workspace = {}, Stream stream = nullptr) noexcept;

/// The workspace, in bytes of device memory, that forward() needs: with taps for the pending contributions of spikes, and with recurrent
/// weights between more features than a block has threads for the neurons' states.
template <class N>
EXODUS_API Workspace workspace(const Layout& layout, const N& neuron, const typename N::Forward& arrays) noexcept;

/// The workspace, in bytes of device memory, that backward() needs for these arrays, whatever the method.
template <class N>
EXODUS_API Workspace workspace(const Layout& layout, const N& neuron, const typename N::Backward& arrays) noexcept;

/// As exodus::decay, on the device, with its bits.
EXODUS_API Status decay(const Param<double>& dt, const Param<double>& tau, std::int64_t count, double* decays,
                        Stream stream = nullptr) noexcept;

/// As exodus::rotation, on the device, with its bits.
EXODUS_API Status rotation(const Param<double>& angle, std::int64_t count, double* cosines, double* sines,
                           Stream stream = nullptr) noexcept;

/// Puts numbers that an optimiser has on the device into their ranges, and makes parameters of them: numbers[k] of values[k], and
/// parameters[k] is its `model`, rounded. The lists of ranges and of addresses lie on the host.
/// @return Status::bad_parameter for more numbers than a model has parameters.
template <class T, class V>
EXODUS_API Status learnt_numbers(int count, const LearntRange* ranges, const T* const* values, LearntNumber* numbers, V* parameters,
                                 Stream stream = nullptr) noexcept;

/// Computes the gradients of such numbers, rounded: *gradients[k] of *sums[k], dL/d(parameter k). The lists lie on the host. A gradient
/// whose address is null is not wanted.
template <class V>
EXODUS_API Status learnt_gradients(int count, const LearntRange* ranges, const LearntNumber* numbers, const double* const* sums,
                                   V* const* gradients, Stream stream = nullptr) noexcept;

/// Waits for a stream of the device that has this memory: for callers without the CUDA runtime.
EXODUS_API Status wait(const void* memory, Stream stream = nullptr) noexcept;

/// The CUDA runtime's message for the last call on this thread that returned Status::cuda, such as "an illegal memory access was
/// encountered". Null if there was none.
EXODUS_API const char* last_error() noexcept;

/// Why this machine cannot run any of it (no driver, one that is too old, no device), as one line of English; null if it can.
EXODUS_API const char* unavailable() noexcept;

}   // namespace exodus::cuda
