/// @file
/// Average pooling (exodus/pooling.hpp) on the CPU, a plane at a time.
#pragma once

#include "plan.hpp"
#include "store.hpp"

namespace exodus::cpu {
namespace {

/// The mean of a window of x, whose rows are `pitch` apart.
template <class V, class E>
EXODUS_SCALAR V mean_of_window(std::int64_t height, std::int64_t width, std::int64_t pitch, const E* x) {
  V sum = V(0);
  for (std::int64_t k = 0; k < height; ++k) {
    for (std::int64_t l = 0; l < width; ++l) sum += number_of<V>(x[k * pitch + l]);
  }
  return sum / static_cast<V>(height * width);
}

/// A row of means. With a constant window the compiler unrolls the loops over it, and vectorises the one along the row.
template <class V, class E>
EXODUS_SCALAR void pool_row(const PoolingShape& shape, const E* x, E* y) {
  const std::int64_t height = shape.window_height, width = shape.window_width, pitch = shape.width, count = pitch / width;
  if (height == 2 && width == 2) {
    EXODUS_LANES
    for (std::int64_t j = 0; j < count; ++j) set_element<V>(y[j], mean_of_window<V>(2, 2, pitch, x + j * 2));
  } else {
    for (std::int64_t j = 0; j < count; ++j) set_element<V>(y[j], mean_of_window<V>(height, width, pitch, x + j * width));
  }
}

/// A row of the gradient of x from a row of that of y. `Width` is that of a window, a constant, or 0.
template <int Width, class V, class E>
EXODUS_SCALAR void spread_row(const PoolingShape& shape, const E* grad_y, E* grad_x) {
  const std::int64_t count = shape.width / shape.window_width;
  const V size = static_cast<V>(shape.window_height * shape.window_width);
  if constexpr (Width > 0) {
    EXODUS_LANES
    for (std::int64_t j = 0; j < count; ++j) {
      E share;
      set_element<V>(share, number_of<V>(grad_y[j]) / size);
      for (int l = 0; l < Width; ++l) grad_x[j * Width + l] = share;
    }
  } else {
    for (std::int64_t j = 0; j < count; ++j) {
      E share;
      set_element<V>(share, number_of<V>(grad_y[j]) / size);
      for (std::int64_t l = 0; l < shape.window_width; ++l) grad_x[j * shape.window_width + l] = share;
    }
  }
  for (std::int64_t j = count * shape.window_width; j < shape.width; ++j) set_element<V>(grad_x[j], V(0));
}

/// The planes of a task of y.
template <class V>
void pool_planes(const PoolingPlan<V>& plan, std::int64_t task) {
  const PoolingShape& shape = plan.shape;
  const std::int64_t height = shape.height / shape.window_height, width = shape.width / shape.window_width;
  const std::int64_t end = smaller(shape.planes, (task + 1) * plan.task_planes);
  with_elements<V>(plan.from, plan.format, [&](const auto* from) {
    auto* const to = static_cast<std::remove_const_t<std::remove_pointer_t<decltype(from)>>*>(plan.to);
    for (std::int64_t p = task * plan.task_planes; p < end; ++p) {
      for (std::int64_t i = 0; i < height; ++i) {
        const auto* const x = from + (p * shape.height + i * shape.window_height) * shape.width;
        auto* const y = to + (p * height + i) * width;
        pool_row<V>(shape, x, y);
      }
    }
  });
}

/// The planes of a task of dL/dx.
template <class V>
void spread_planes(const PoolingPlan<V>& plan, std::int64_t task) {
  const PoolingShape& shape = plan.shape;
  const std::int64_t height = shape.height / shape.window_height, width = shape.width / shape.window_width;
  const std::int64_t end = smaller(shape.planes, (task + 1) * plan.task_planes);
  with_elements<V>(plan.from, plan.format, [&](const auto* from) {
    using E = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
    auto* const to = static_cast<E*>(plan.to);
    for (std::int64_t p = task * plan.task_planes; p < end; ++p) {
      E* const grad_x = to + p * shape.height * shape.width;
      for (std::int64_t n = 0; n < height * shape.window_height; ++n) {
        const E* const grad_y = from + (p * height + n / shape.window_height) * width;
        E* const row = grad_x + n * shape.width;
        shape.window_width == 2 ? spread_row<2, V>(shape, grad_y, row) : spread_row<0, V>(shape, grad_y, row);
      }
      for (std::int64_t n = height * shape.window_height * shape.width; n < shape.height * shape.width; ++n) {
        set_element<V>(grad_x[n], V(0));
      }
    }
  });
}

}   // namespace
}   // namespace exodus::cpu
