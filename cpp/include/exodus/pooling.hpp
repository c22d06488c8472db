/// @file
/// Average pooling of planes by windows that lie side by side:
///
///     y[i, j] = 1 / (K L) * sum over k < K, l < L of x[i K + k, j L + l]
///
/// The gradient of x is that of its window divided by K L. Rows and columns beyond the last whole window have no effect, and no gradient.
/// Neither function reads the other's arrays, so nothing is kept for a backward pass.
#pragma once

#include "half.hpp"
#include "macros.hpp"
#include "types.hpp"

namespace exodus {

/// The sizes of a pooling: x is (planes, height, width), y is (planes, height / window_height, width / window_width), without gaps.
struct PoolingShape {
  std::int64_t planes = 0, height = 0, width = 0, window_height = 2, window_width = 2;
};

/// y from x. A window is summed in the order of memory, and then divided. S is float, double, float16 or bfloat16, and sums of two-byte
/// numbers are float.
template <class S>
EXODUS_API Status average_pool(const PoolingShape& shape, const S* x, S* y, int threads = 0) noexcept;

/// dL/dx from dL/dy.
template <class S>
EXODUS_API Status average_pool_gradient(const PoolingShape& shape, const S* grad_y, S* grad_x, int threads = 0) noexcept;

}   // namespace exodus
