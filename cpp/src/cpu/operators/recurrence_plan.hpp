/// @file
/// Recurrent weights outside of rows: their copies in the workspace, and their gradient after a backward pass.
#pragma once

#include <cstring>

#include "../store.hpp"
#include "../work.hpp"

namespace exodus {
namespace {

template <class V>
std::int64_t weight_stride(const Recurrence<V>& recurrent) {
  constexpr std::int64_t line = 64 / sizeof(V);
  return ceil_div(recurrent.features, line) * line;
}

/// Bytes of the recurrent weights as rows of whole cache lines.
template <class V>
std::size_t weights_size(const Recurrence<V>& recurrent) {
  return static_cast<std::size_t>(recurrent.features * weight_stride(recurrent)) * sizeof(V);
}

/// Copies rows [first, first + count) of the weights, or of their transpose.
template <class V>
void copy_weight_rows(const Recurrence<V>& recurrent, bool transposed, std::int64_t first, std::int64_t count,
                      const cpu::WeightRows<V>& rows) {
  const std::int64_t features = recurrent.features;
  V* const to = rows.first + first * rows.stride;
  if (transposed) cpu::transpose(recurrent.weights + first, features, to, rows.stride, features, count);
  for (std::int64_t r = 0; r < count; ++r) {
    V* const row = to + r * rows.stride;
    if (!transposed) std::memcpy(row, recurrent.weights + (first + r) * features, static_cast<std::size_t>(features) * sizeof(V));
    for (std::int64_t k = features; k < rows.stride; ++k) row[k] = V(0);
  }
}

/// Copies the weights or their transpose, if the plan has memory for them.
template <class V>
void copy_weights(const Recurrence<V>& recurrent, bool transposed, const cpu::WeightRows<V>& rows, int threads) {
  if (rows.first == nullptr) return;
  for_some_rows(recurrent.features, recurrent.features, threads,
                [&](std::int64_t first, std::int64_t count) { copy_weight_rows(recurrent, transposed, first, count, rows); });
}

/// The number of words for the bits of the features that fired before each step.
template <class V>
std::int64_t fired_size(const Layout& layout, const Recurrence<V>& recurrent) {
  return layout.time * (layout.outer * layout.inner / recurrent.features) * ceil_div(recurrent.features, 64);
}

template <class V>
void clear_weights_gradient(double* grad, const Recurrence<V>& recurrent) {   // since tiles are added to it
  for (std::int64_t k = 0; grad != nullptr && k < recurrent.features * recurrent.features; ++k) grad[k] = 0;
}

/// dL/d(recurrent weights), after the pass, from the spikes of the forward pass.
template <class V>
void sum_weights_gradient(const cpu::IsaFunctions<V>& isa, const cpu::BackwardPlan<V>& pass, const void* spikes, double* sums) {
  cpu::WeightGradientPlan<V> plan{pass, pass.layout};
  plan.counts = pass.most_spikes != V(1);
  plan.format = pass.format;
  plan.spikes = spikes;
  plan.initial_spikes = pass.initial[1];
  plan.grad_current = pass.grad_current;
  plan.fired = pass.fired;
  plan.sums = sums;
  const std::int64_t features = plan.rows.features;
  auto pack = [&](std::int64_t step, int /*thread*/) { isa.pack_spikes(plan, step); };
  cpu::parallel_for(plan.layout.time, plan.threads, pack);
  auto tile = [&](std::int64_t k, int thread) { isa.weight_gradient(plan, k, thread); };
  cpu::parallel_for(ceil_div(features, cpu::weight_tile_sources) * ceil_div(features, cpu::weight_tile_targets), plan.threads, tile);
}

}   // namespace
}   // namespace exodus
