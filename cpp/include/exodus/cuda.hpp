/// @file
/// The CUDA twin of exodus.hpp: the same functions on device memory, with a stream.
///
///     exodus::cuda::forward(layout, neuron, {.current = a, .spikes = s, .potential = u}, {}, stream);
///
/// Every pointer, those of parameters, gradients and the workspace included, is to memory of one device; the calls run there, on the given
/// stream of that device, and leave the caller's current device as it was. They neither allocate nor wait: results are there when the
/// stream has come to them. Forward has the bits of exodus::forward; backward agrees with it to rounding, and gives the same bits on every
/// run.
///
/// Neurons are of float, double, float16 or bfloat16. The last two are types of `current`, `spikes`, `grad_spikes` and `grad_current`
/// alone: all else is float, and so is what a neuron computes.
#pragma once

#include "exodus.hpp"

struct CUstream_st;   // cudaStream_t points to it

namespace exodus::cuda {

/// cudaStream_t; null is the default stream.
using Stream = CUstream_st*;

/// As exodus::forward, on the device. Only kernels with taps need a workspace.
/// @return Status::cuda if a launch failed, or there is no usable device.
template <class N>
EXODUS_API Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Workspace workspace = {},
                          Stream stream = nullptr) noexcept;

/// As exodus::backward, on the device; `arrays.grad` too points to doubles on the device.
template <class N>
EXODUS_API Status backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                           const typename N::Backward& arrays, Workspace workspace = {}, Stream stream = nullptr) noexcept;

/// The workspace, in bytes of device memory, that forward() needs: where the spikes' kernel has taps, what is to come of them.
template <class N>
EXODUS_API Workspace workspace(const Layout& layout, const N& neuron, const typename N::Forward& arrays) noexcept;

/// The workspace, in bytes of device memory, that backward() needs for these arrays, whatever the method.
template <class N>
EXODUS_API Workspace workspace(const Layout& layout, const N& neuron, const typename N::Backward& arrays) noexcept;

/// Waits until a stream of the current device has come to its end: for callers without the CUDA runtime.
EXODUS_API Status wait(Stream stream) noexcept;

/// Why this machine cannot run any of it (no driver, one that is too old, no device), as one line of English; null if it can.
EXODUS_API const char* unavailable() noexcept;

}   // namespace exodus::cuda
