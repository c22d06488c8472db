/// @file
/// Convolutions of spikes (docs/mathematics.md, Products with spikes). Each spike adds the kernel's taps where it meets an output:
///
///     y[o, i, j] = b[o] + sum over spikes of x[c, p, q] w[o, c, k, l]     with p + padding = i stride + k dilation,
///                                                                         and likewise for q, j and l
///
/// and the gradient of a tap is the sum of x[c, p, q] g[o, i, j] over the spikes, with g = dL/dy. The gradient of x, for few channels, is a
/// dense sum over the taps, along rows of g.
#pragma once

#include "product.hpp"

namespace exodus {

/// The axis of height or width of a convolution.
struct ConvolutionAxis {
  std::int64_t size = 1, kernel = 1, stride = 1, padding = 0, dilation = 1;

  /// The size of the output; 0 if there is none.
  constexpr std::int64_t output() const {
    const std::int64_t span = size + 2 * padding - dilation * (kernel - 1) - 1;
    return span < 0 ? 0 : span / stride + 1;
  }
};

/// The sizes of a convolution: x is (frames, channels, y.size, x.size), the weights are (outputs, channels / groups, y.kernel, x.kernel)
/// and the result is (frames, outputs, y.output(), x.output()), all without gaps.
struct ConvolutionShape {
  std::int64_t frames = 0, channels = 0, outputs = 0, groups = 1;
  ConvolutionAxis y, x;

  /// The matrix that pack() packs: a row for each frame.
  constexpr ProductShape packed() const { return {frames, channels * y.size * x.size, 0}; }
};

/// y = x * w + b, from packed spikes. `bias` may be null. `spikes` is the number of all spikes. The terms of an output are added in
/// ascending order of the spikes, to the bias, without fused operations, so results have the same bits for every instruction set and thread
/// count, apart from the sign of a zero.
template <class S>
EXODUS_API Status convolution(const ConvolutionShape& shape, const PackedSpikes<S>& x, std::int64_t spikes, const S* weights, const S* bias,
                              S* y, Workspace workspace = {}) noexcept;

/// The arrays of the gradients.
template <class S>
struct ConvolutionGradients {
  const S* grad_y = nullptr;    ///< g, in
  S* grad_weights = nullptr;    ///< out; null if not wanted
  S* grad_bias = nullptr;       ///< out; null if not wanted
  const S* weights = nullptr;   ///< in; only grad_x reads it
  S* grad_x = nullptr;          ///< out; null if not wanted. It needs strides of 1
};

/// The gradients. Results have the same bits for every thread count.
template <class S>
EXODUS_API Status convolution_gradients(const ConvolutionShape& shape, const PackedSpikes<S>& x, std::int64_t spikes,
                                        const ConvolutionGradients<S>& arrays, Workspace workspace = {}) noexcept;

/// The workspace that convolution() needs, like workspace() of a neuron.
template <class S>
EXODUS_API Workspace convolution_workspace(const ConvolutionShape& shape, std::int64_t spikes, int threads = 0) noexcept;

/// The same for convolution_gradients() with these arrays.
template <class S>
EXODUS_API Workspace convolution_gradients_workspace(const ConvolutionShape& shape, std::int64_t spikes,
                                                     const ConvolutionGradients<S>& arrays, int threads = 0) noexcept;

}   // namespace exodus
