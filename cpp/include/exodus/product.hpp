/// @file
/// Products of spikes with weights. A matrix x of spikes, (rows, inputs), is packed once to a bit for each element, and the products visit
/// the spikes only (docs/mathematics.md, Products with spikes):
///
///     y[r, j]     = b[j] + sum over the spikes k of row r of x[r, k] w[k, j]
///     dL/dw[k, j] = sum over the rows r with a spike at k of x[r, k] g[r, j],     dL/db[j] = sum over r of g[r, j],     g = dL/dy
///
/// The gradient of x, dL/dx[r, k] = sum_j g[r, j] w[k, j], is a dense product, for which other libraries are made. Where x are a neuron's
/// spikes and its surrogate is 0 at most elements, few of the sums are needed: product_input_gradient() computes these.
#pragma once

#include "half.hpp"
#include "macros.hpp"
#include "types.hpp"

namespace exodus {

/// The sizes of a product: x is (rows, inputs) and y is (rows, outputs), both without gaps.
struct ProductShape {
  std::int64_t rows = 0, inputs = 0, outputs = 0;
};

/// The words of a row of packed spikes.
EXODUS_SCALAR constexpr std::int64_t packed_words(std::int64_t inputs) {
  return inputs / 64 + (inputs % 64 != 0);
}

/// A matrix of packed spikes. Element k of a row is not 0 where bit k % 64 of the row's word k / 64 is set. NaN is a spike.
template <class S>
struct PackedSpikes {
  const std::uint64_t* bits = nullptr;   ///< rows x packed_words(inputs)
  const std::int64_t* first = nullptr;   ///< the index in `values` of each row's first spike
  const S* values = nullptr;             ///< the spikes in order; null if all are 1
};

/// The number of a matrix's spikes, and whether all are 1.
struct SpikeCount {
  std::int64_t spikes = 0;
  bool binary = true;
};

/// An array of weights, or of their gradient, with any strides: w[k, j] is data[k * input_stride + j * output_stride].
template <class X>
struct WeightMatrix {
  X* data = nullptr;
  std::int64_t input_stride = 0, output_stride = 0;
};

/// Packs x: writes rows x packed_words(inputs) words to `bits` and counts the spikes. `outputs` is not read. S is float, double, float16 or
/// bfloat16, here and below.
template <class S>
EXODUS_API Status pack(const ProductShape& shape, const S* x, std::uint64_t* bits, SpikeCount* count, int threads = 0) noexcept;

/// Estimates the share of elements of x that are not 0, from a sixteenth of them and at most 16384, spread over all rows and columns: it
/// reads a small part of what pack() reads. It is content with 2048 of them where their share is above `enough`. For a matrix of fewer than
/// 32768 elements, and with `enough` below 0, the estimate is 0. `outputs` is not read.
template <class S>
EXODUS_API Status estimate_share(const ProductShape& shape, const S* x, double* share, double enough = 1) noexcept;

/// Collects the spikes of a matrix that is not binary: writes the index of each row's first one to `first`, and their values.
template <class S>
EXODUS_API Status pack_values(const ProductShape& shape, const S* x, const std::uint64_t* bits, std::int64_t* first, S* values,
                              int threads = 0) noexcept;

/// y = x w + b, by adding the rows of w where there are spikes, in ascending order, without fused operations. `bias` may be null. The
/// results have the same bits for every instruction set and thread count. Where x is 0, infinite and NaN weights have no effect.
template <class S>
EXODUS_API Status product(const ProductShape& shape, const PackedSpikes<S>& x, const WeightMatrix<const S>& weights, const S* bias, S* y,
                          Workspace workspace = {}) noexcept;

/// The gradients of weights and bias, from g = dL/dy. Either may be null. The results have the same bits for every thread count.
template <class S>
EXODUS_API Status product_gradients(const ProductShape& shape, const PackedSpikes<S>& x, const S* grad_y,
                                    const WeightMatrix<S>& grad_weights, S* grad_bias, Workspace workspace = {}) noexcept;

/// dL/dx where a bit is set, and 0 elsewhere. `wanted` has a bit for each element of x, like PackedSpikes::bits. A neuron's backward pass
/// multiplies dL/ds by the surrogate, so it needs no more than ForwardArrays::support. The results have the same bits for every thread
/// count.
template <class S>
EXODUS_API Status product_input_gradient(const ProductShape& shape, const std::uint64_t* wanted, const S* grad_y,
                                         const WeightMatrix<const S>& weights, S* grad_x, Workspace workspace = {}) noexcept;

/// The workspace that product() needs, like workspace() of a neuron.
template <class S>
EXODUS_API Workspace product_workspace(const ProductShape& shape, int threads = 0) noexcept;

/// The same for product_gradients().
template <class S>
EXODUS_API Workspace product_gradients_workspace(const ProductShape& shape, int threads = 0) noexcept;

/// The same for product_input_gradient().
template <class S>
EXODUS_API Workspace product_input_gradient_workspace(const ProductShape& shape, int threads = 0) noexcept;

}   // namespace exodus
