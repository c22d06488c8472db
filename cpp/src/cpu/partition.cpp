#include "partition.hpp"

#include "../gradient_plan.hpp"
#include "memory.hpp"
#include "operators/recurrence_plan.hpp"
#include "work.hpp"

namespace exodus::cpu {
namespace {

/// Steps of a tile of arrays whose inner axis is narrow.
std::int64_t steps_of_tile(const Layout& layout) {
  std::int64_t steps = ceil_div(narrow_lanes, layout.inner * max_fir_steps) * max_fir_steps;
  steps = steps < 16 ? 16 : steps;
  return steps < layout.time ? steps : layout.time;
}

/// Rows of whole batch entries of a recurrence, some at least: the product backward reads the weights once for all of a row. They are used
/// in place where an entry's neurons follow each other, and steps are wide enough.
template <class V>
Rows partition_entries(const Layout& layout, const Recurrence<V>& recurrent, int threads) {
  constexpr std::int64_t least = 4;
  Rows rows;
  rows.neurons = layout.outer * layout.inner;
  rows.features = recurrent.features;
  rows.repeat = recurrent.repeat;
  const std::int64_t entries = rows.neurons / rows.features, share = ceil_div(entries, threads);
  std::int64_t in_row = max_row_lanes<V> / rows.features;
  in_row = in_row < least ? least : in_row;
  in_row = in_row < share ? in_row : share;
  const bool whole = rows.repeat == 1 && layout.inner % rows.features == 0;   // entries lie within a step
  if (!(whole && layout.inner >= narrow_lanes)) {
    rows.tile_steps = steps_of_tile(layout);
    if (whole) in_row = ceil_div(in_row * rows.features, layout.inner) * layout.inner / rows.features;   // whole outer indices
  }
  rows.lanes = in_row * rows.features;
  rows.count = ceil_div(rows.neurons, rows.lanes);
  return rows;
}

/// Rows of about a page per array and step (or of `page` lanes, if that is less), or of an outer index where the inner axis is shorter:
/// such a row is contiguous through time. A narrow inner axis takes tiles, whose rows are whole outer indices, and where a copy of a
/// neuron's steps should fill some cache lines.
template <class V>
Rows partition_neurons(const Layout& layout, int threads, std::int64_t page) {
  constexpr std::int64_t tile = 4096, least = 256, narrow = narrow_lanes;
  Rows rows;
  rows.neurons = layout.outer * layout.inner;
  if (layout.inner >= page || (layout.inner >= narrow && layout.outer == 1)) {
    const std::int64_t busy = rows.neurons / least < threads ? rows.neurons / least : threads;
    std::int64_t count = ceil_div(rows.neurons, page);
    count = count < busy ? busy : count;
    rows.lanes = ceil_div(ceil_div(rows.neurons, count), narrow) * narrow;
    rows.lanes = rows.lanes < page ? rows.lanes : page;
  } else if (layout.inner >= narrow) {
    rows.lanes = layout.inner;
  } else {
    rows.tile_steps = steps_of_tile(layout);
    const std::int64_t lanes = tile / rows.tile_steps < max_row_lanes<V> ? tile / rows.tile_steps : max_row_lanes<V>;
    const std::int64_t whole = lanes / layout.inner * layout.inner;
    rows.lanes = whole < rows.neurons ? whole : rows.neurons;
  }
  rows.count = ceil_div(rows.neurons, rows.lanes);
  return rows;
}

/// Steps whose hidden states are rebuilt at a time: a tile, or where rows have none whole groups of steps of FIR kernels.
std::int64_t rebuilt_steps(const Rows& rows, std::int64_t time) {
  return rows.tile_steps > 0 ? rows.tile_steps : exodus::rebuilt_steps(time, max_fir_steps);
}

/// Elements of the tapes of all rows. They do not depend on the number of threads: rows have few lanes more than there are neurons.
template <class V>
std::int64_t tapes_size(const Pass<V>& pass) {
  const Rows rows = partition(pass, {.lanes = max_row_lanes<V>}, 1);
  const std::int64_t lanes = rows.neurons + (rows.features > 0 ? rows.lanes : max_row_lanes<V>);
  return tape_size(pass.states, lanes, pass.layout.time, rebuilt_steps(rows, pass.layout.time));
}

/// Lanes of a row whose FIR kernels' memory stays in the second-level cache, of whole blocks; a page where there are none. `take(carver,
/// rows)` takes that memory.
template <class V, class Take>
std::int64_t widest_row(const Pass<V>& pass, Take take) {
  if (!with_fir(pass.fir)) return max_row_lanes<V>;
  constexpr std::size_t cache = 384 << 10;
  Rows narrowest;
  narrowest.lanes = narrow_lanes;
  const std::size_t bytes = bytes_of([&](Carver& carver) { take(carver, narrowest); });
  const std::int64_t fit = static_cast<std::int64_t>(cache / bytes) * narrow_lanes / block_lanes * block_lanes;
  return fit < narrow_lanes ? narrow_lanes : (fit < max_row_lanes<V> ? fit : max_row_lanes<V>);
}

}   // namespace

template <class V>
Rows partition(const Pass<V>& pass, const Slots& slots, int threads) {
  if (pass.recurrent.features > 0) return partition_entries(pass.layout, pass.recurrent, threads);
  return partition_neurons<V>(pass.layout, threads, slots.lanes);
}

template <class V>
Slots slots_of(const Pass<V>& pass) {
  const auto segment = [&](const Rows& rows) { return segment_of(pass.fir, rows, pass.layout.time); };
  Slots slots;
  slots.lanes =
      widest_row(pass, [&](Carver& carver, const Rows& rows) { FirForwardMemory<V>(carver, pass.fir, rows.lanes, segment(rows)); });
  const Rows widest = partition(pass, slots, 1);
  slots.bytes = bytes_of(
      [&](Carver& carver) { ForwardMemory<V>(carver, {pass.parameters, pass.states}, pass.fir, widest, widest.lanes, segment(widest)); });
  return slots;
}

template <class V>
Slots slots_of(const BackwardPass<V>& pass) {
  Slots slots;
  slots.lanes = widest_row<V>(pass, [&](Carver& carver, const Rows& rows) {
    FirBackwardMemory<V>(carver, pass.fir, rows.lanes, segment_of(pass, rows), pass.bptt);
  });
  const Rows widest = partition<V>(pass, slots, 1);
  slots.bytes = bytes_of([&](Carver& carver) {
    BackwardMemory<V>(carver, {pass.parameters, pass.states}, pass.fir, widest, widest.lanes, segment_of(pass, widest), pass.sums > 0,
                      pass.bptt);
  });
  if (pass.weights_gradient) {   // after the pass, one of its tiles
    const std::size_t tile = bytes_of([](Carver& carver) { carver.take<V>(weight_tile_sources * weight_tile_targets); });
    slots.bytes = slots.bytes < tile ? tile : slots.bytes;
  }
  return slots;
}

template <class V>
std::size_t slots_size(const Pass<V>& pass, const Slots& slots, int threads) {
  const std::int64_t rows = partition(pass, slots, threads).count;
  return static_cast<std::size_t>(rows < threads ? rows : threads) * slots.bytes;
}

template <class V>
std::int64_t segment_of(const BackwardPass<V>& pass, const Rows& rows) {
  return pass.with_tapes ? rebuilt_steps(rows, pass.layout.time) : segment_of(pass.fir, rows, pass.layout.time);
}

template <class V>
BackwardParts parts_of(const BackwardPass<V>& pass) {
  const std::int64_t neurons = pass.layout.outer * pass.layout.inner;
  BackwardParts parts;
  parts.fired = static_cast<std::size_t>(pass.sums * neurons) * sizeof(double);
  for (int k = 0; k < 2; ++k) {
    parts.taps[k] = parts.fired;
    if (pass.fir[k].summed) parts.fired += static_cast<std::size_t>(pass.fir[k].taps.length * neurons) * sizeof(double);
  }
  const std::int64_t fired = pass.weights_gradient ? fired_size(pass.layout, pass.recurrent) : 0;
  parts.tapes = parts.fired + static_cast<std::size_t>(fired) * sizeof(std::uint64_t);
  parts.weights = parts.tapes + static_cast<std::size_t>(pass.with_tapes ? tapes_size<V>(pass) : 0) * sizeof(V);
  // The current is what it was with what came through them.
  parts.transposed_weights = parts.weights + (pass.reads_current ? weights_size(pass.recurrent) : 0);
  parts.slots = parts.transposed_weights + weights_size(pass.recurrent);
  return parts;
}

#define EXODUS_INSTANTIATE(V)                                            \
  template Slots slots_of(const Pass<V>&);                               \
  template Slots slots_of(const BackwardPass<V>&);                       \
  template Rows partition(const Pass<V>&, const Slots&, int);            \
  template std::size_t slots_size(const Pass<V>&, const Slots&, int);    \
  template std::int64_t segment_of(const BackwardPass<V>&, const Rows&); \
  template BackwardParts parts_of(const BackwardPass<V>&);
EXODUS_INSTANTIATE(float)
EXODUS_INSTANTIATE(double)

}   // namespace exodus::cpu
