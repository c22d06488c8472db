/// @file
/// What a call does for recurrent weights besides its rows: their copies in the workspace, and after a backward pass their gradient.
#pragma once

#include "../threads.hpp"
#include "../work.hpp"

namespace exodus {
namespace {

template <class V>
std::int64_t weight_stride(const Recurrence<V>& recurrent) {
  constexpr std::int64_t line = 64 / sizeof(V);
  return ceil_div(recurrent.features, line) * line;
}

/// Bytes of the recurrent weights as rows of whole vectors.
template <class V>
std::size_t weights_size(const Recurrence<V>& recurrent) {
  return static_cast<std::size_t>(recurrent.features * weight_stride(recurrent)) * sizeof(V);
}

/// Copies them, or their transpose.
template <class V>
cpu::WeightRows<V> copy_weights(const Recurrence<V>& recurrent, bool transposed, char* memory) {
  if (recurrent.features == 0) return {};
  const cpu::WeightRows<V> rows{reinterpret_cast<V*>(memory), weight_stride(recurrent)};
  const std::int64_t features = recurrent.features;
  for (std::int64_t to = 0; to < features; ++to) {
    for (std::int64_t k = 0; k < rows.stride; ++k) {
      const std::int64_t at = transposed ? k * features + to : to * features + k;
      rows.first[to * rows.stride + k] = k < features ? recurrent.weights[at] : V(0);
    }
  }
  return rows;
}

/// Words of the bits that tell who fired before each step.
template <class V>
std::int64_t fired_size(const Layout& layout, const Recurrence<V>& recurrent) {
  return layout.time * (layout.outer * layout.inner / recurrent.features) * ceil_div(recurrent.features, 64);
}

template <class V>
void clear_weights_gradient(double* grad, const Recurrence<V>& recurrent) {   // tiles are added to it
  for (std::int64_t k = 0; grad != nullptr && k < recurrent.features * recurrent.features; ++k) grad[k] = 0;
}

/// dL/d(recurrent weights), after the pass.
template <class V>
void sum_weights_gradient(const cpu::Kernels<V>& kernels, const cpu::WeightGradientPlan<V>& plan, int threads) {
  const std::int64_t features = plan.rows.features;
  auto pack = [&](std::int64_t step, int /*thread*/) { kernels.pack_spikes(plan, step); };
  cpu::parallel_for(plan.layout.time, threads, pack);
  auto tile = [&](std::int64_t k, int thread) { kernels.weight_gradient(plan, k, thread); };
  cpu::parallel_for(ceil_div(features, cpu::weight_tile_sources) * ceil_div(features, cpu::weight_tile_targets), threads, tile);
}

}   // namespace
}   // namespace exodus
