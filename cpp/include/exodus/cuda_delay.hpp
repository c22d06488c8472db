/// @file
/// The CUDA twin of delay.hpp: the same functions on device memory, with a stream. See cuda.hpp.
#pragma once

#include "cuda_functions.hpp"
#include "delay.hpp"

namespace exodus::cuda {

/// As exodus::delay, on the device, with its bits. S may be float16 or bfloat16: then states and arithmetic are in float.
template <class S>
EXODUS_API Status delay(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Forward& arrays, Workspace workspace = {},
                        Stream stream = nullptr) noexcept;

/// As exodus::delay_adjoint, on the device; `grad_steps` too points to doubles on the device.
template <class S>
EXODUS_API Status delay_adjoint(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Backward& arrays,
                                Workspace workspace = {}, Stream stream = nullptr) noexcept;

/// The workspace, in bytes of device memory: delay() needs none.
template <class S>
EXODUS_API Workspace workspace(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Forward& arrays) noexcept;

/// The same for delay_adjoint(), which sums the gradient of the delay in it.
template <class S>
EXODUS_API Workspace workspace(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Backward& arrays) noexcept;

}   // namespace exodus::cuda
