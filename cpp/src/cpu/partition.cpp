#include "partition.hpp"

#include "../gradient_plan.hpp"
#include "memory.hpp"
#include "operators/recurrence_plan.hpp"
#include "work.hpp"

namespace exodus::cpu {
namespace {

/// The threads' memory.
struct Slots {
  std::int64_t lanes = 0;   ///< the most lanes of a row
  std::size_t bytes = 0;    ///< of each thread's slot
};

/// The offsets of the parts of a workspace, in bytes: sums of parameters (at 0) and of taps, the bits of neurons that fired before each
/// step, recurrent weights, slots. The parts before the slots do not depend on the number of threads.
struct WorkspaceParts {
  std::size_t taps[2] = {}, fired = 0, weights = 0, transposed_weights = 0, slots = 0;
};

/// Steps of a tile, for arrays whose inner axis is narrow: a neuron's should fill two cache lines.
std::int64_t steps_of_tile(const Layout& layout) {
  constexpr std::int64_t least = 32;   // elements; with 64 fewer lanes fit, and a step has fewer vectors (benchmarks/bandwidth.py)
  std::int64_t steps = ceil_div(least, layout.inner * max_fir_steps) * max_fir_steps;
  steps = steps < 16 ? 16 : steps;
  return steps < layout.time ? steps : layout.time;
}

/// Tiles for two-byte numbers, where the inner axis is not narrow.
void convert_in_tiles(Rows& rows, const Layout& layout) {
  rows.access = Access::pieces;
  rows.tile_steps = half_steps < layout.time ? half_steps : layout.time;
}

/// Rows of whole batch entries of a recurrence, if possible at least four: the backward product loads the weights once for all entries of a
/// row. Arrays are used in place if the neurons of an entry are contiguous and steps are wide enough.
template <class V>
Rows partition_entries(const Layout& layout, const Recurrence<V>& recurrent, bool converts, int threads) {
  constexpr std::int64_t least = 4;
  Rows rows;
  rows.neurons = layout.outer * layout.inner;
  rows.features = recurrent.features;
  rows.repeat = recurrent.repeat;
  const std::int64_t entries = rows.neurons / rows.features, share = ceil_div(entries, threads);
  std::int64_t in_row = max_row_lanes<V> / rows.features;
  in_row = in_row < least ? least : in_row;
  in_row = in_row < share ? in_row : share;
  const bool whole = rows.repeat == 1 && layout.inner % rows.features == 0;   // each entry is contiguous within a step
  if (!(whole && layout.inner >= narrow_lanes)) {
    rows.tile_steps = steps_of_tile(layout);
    rows.access = rows.repeat > 1 ? Access::elements : (layout.inner == 1 ? Access::strips : Access::pieces);
    if (whole) in_row = ceil_div(in_row * rows.features, layout.inner) * layout.inner / rows.features;   // whole outer indices
  }
  if (converts && rows.access == Access::in_place) convert_in_tiles(rows, layout);
  rows.lanes = in_row * rows.features;
  rows.count = ceil_div(rows.neurons, rows.lanes);
  return rows;
}

/// Rows of whole outer indices, for a narrow inner axis. Up to an inner axis of 16, transposed strips are faster than pieces, which would
/// not fill vectors (benchmarks/bandwidth.py, ten neurons). Strips are transposed in squares, so whole squares make a row.
template <class V>
void set_tiles(Rows& rows, const Layout& layout) {
  constexpr std::int64_t tile = 4096, square = 16;   // elements; lanes of the widest vector
  rows.tile_steps = steps_of_tile(layout);
  const std::int64_t lanes = tile / rows.tile_steps < max_row_lanes<V> ? tile / rows.tile_steps : max_row_lanes<V>;
  std::int64_t outers = lanes / layout.inner;
  rows.access = layout.inner == 1 || (layout.inner <= square && layout.outer >= square) ? Access::strips : Access::pieces;
  if (rows.access == Access::strips) outers = outers / square * square;
  outers = outers < layout.outer ? outers : layout.outer;
  rows.lanes = outers * layout.inner;
}

/// Rows of at most `page` lanes: a page per array and step, or less. If the inner axis is shorter, a row is an outer index, which is
/// contiguous through time. A narrow inner axis uses tiles; the rows are then whole outer indices, and the steps of a neuron in a tile
/// should fill some cache lines.
template <class V>
Rows partition_neurons(const Layout& layout, bool converts, int threads, std::int64_t page) {
  if (converts && page > half_lanes) page = half_lanes;
  constexpr std::int64_t least = 256, narrow = narrow_lanes;
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
    set_tiles<V>(rows, layout);
  }
  if (converts && rows.access == Access::in_place) convert_in_tiles(rows, layout);
  rows.count = ceil_div(rows.neurons, rows.lanes);
  return rows;
}

/// The steps whose hidden states are recomputed together: a tile or, without tiles, whole groups of steps of FIR kernels.
std::int64_t rebuilt_steps(const Rows& rows, std::int64_t time) {
  return rows.tile_steps > 0 ? rows.tile_steps : exodus::rebuilt_steps(time, max_fir_steps);
}

/// The rows of a pass on `threads` threads, each of at most the slots' lanes.
template <class V>
Rows partition(const Pass<V>& pass, const Slots& slots, int threads) {
  const bool converts = pass.format != Format::arithmetic;
  if (pass.recurrent.features > 0) return partition_entries(pass.layout, pass.recurrent, converts, threads);
  return partition_neurons<V>(pass.layout, converts, threads, slots.lanes);
}

/// The steps of a segment, the unit of time in which a row is processed.
template <class V>
std::int64_t segment_steps_of(const Pass<V>& pass, const Rows& rows) {
  return segment_steps_of(pass.fir, rows, pass.layout.time);
}

template <class V>
std::int64_t segment_steps_of(const BackwardPass<V>& pass, const Rows& rows) {
  return pass.taped == Taped::none ? segment_steps_of(pass.fir, rows, pass.layout.time) : rebuilt_steps(rows, pass.layout.time);
}

template <class V>
int sums_of(const BackwardPass<V>& pass) {
  int sums = 0;
  for (int k = 0; k < pass.parameters; ++k) sums += pass.summed[k] ? 1 : 0;
  return sums;
}

/// The most lanes of a row: whole small blocks whose memory for FIR kernels stays in the second-level cache, or a page without such
/// kernels. `take(arena, rows)` allocates that memory.
template <class V, class Take>
std::int64_t widest_row(const Pass<V>& pass, Take take) {
  if (!with_fir(pass.fir)) return max_row_lanes<V>;
  constexpr std::size_t cache = 384 << 10;
  Rows narrowest;
  narrowest.lanes = narrow_lanes;
  const std::size_t bytes = bytes_of([&](Arena& arena) { take(arena, narrowest); });
  const std::int64_t fit = static_cast<std::int64_t>(cache / bytes) * narrow_lanes / summing_block_lanes * summing_block_lanes;
  return fit < narrow_lanes ? narrow_lanes : (fit < max_row_lanes<V> ? fit : max_row_lanes<V>);
}

template <class V>
Slots slots_of(const Pass<V>& pass) {
  Slots slots;
  slots.lanes = widest_row(
      pass, [&](Arena& arena, const Rows& rows) { FirForwardMemory<V>(arena, pass.fir, rows.lanes, segment_steps_of(pass, rows)); });
  const Rows widest = partition(pass, slots, 1);
  slots.bytes = bytes_of([&](Arena& arena) {
    ForwardMemory<V>(arena, {pass.parameters, pass.states}, pass.fir, widest, widest.lanes, segment_steps_of(pass, widest));
  });
  return slots;
}

template <class V>
Slots slots_of(const BackwardPass<V>& pass) {
  const bool bptt = pass.method == Method::bptt;
  Slots slots;
  slots.lanes = widest_row<V>(
      pass, [&](Arena& arena, const Rows& rows) { FirBackwardMemory<V>(arena, pass.fir, rows.lanes, segment_steps_of(pass, rows), bptt); });
  const Rows widest = partition<V>(pass, slots, 1);
  slots.bytes = bytes_of([&](Arena& arena) {
    BackwardMemory<V>(arena, {pass.parameters, pass.states}, pass.fir, widest, widest.lanes, pass.layout.time,
                      segment_steps_of(pass, widest), pass.taped, sums_of(pass) > 0, bptt);
  });
  if (pass.weights_gradient) {   // after the pass, one of its tiles
    const std::size_t tile = bytes_of([](Arena& arena) { arena.take<V>(weight_tile_sources * weight_tile_targets); });
    slots.bytes = slots.bytes < tile ? tile : slots.bytes;
  }
  return slots;
}

template <class V>
WorkspaceParts parts_of(const Pass<V>& pass) {
  WorkspaceParts parts;
  parts.slots = weights_size(pass.recurrent);
  return parts;
}

template <class V>
WorkspaceParts parts_of(const BackwardPass<V>& pass) {
  const std::int64_t neurons = pass.layout.outer * pass.layout.inner;
  WorkspaceParts parts;
  parts.fired = static_cast<std::size_t>(sums_of(pass) * neurons) * sizeof(double);
  for (int k = 0; k < 2; ++k) {
    parts.taps[k] = parts.fired;
    if (pass.fir[k].summed) parts.fired += static_cast<std::size_t>(pass.fir[k].taps.length * neurons) * sizeof(double);
  }
  const std::int64_t fired = pass.weights_gradient ? fired_size(pass.layout, pass.recurrent) : 0;
  parts.weights = parts.fired + static_cast<std::size_t>(fired) * sizeof(std::uint64_t);
  // What reads the current needs the recurrent contribution too, so that is computed once more.
  parts.transposed_weights = parts.weights + (pass.reads_current ? weights_size(pass.recurrent) : 0);
  parts.slots = parts.transposed_weights + weights_size(pass.recurrent);
  return parts;
}

template <class V, class AnyPass>
std::size_t bytes_for(const AnyPass& pass, int threads) {
  const Slots slots = slots_of(pass);
  threads = threads_for(pass.layout, threads);
  const std::int64_t rows = partition<V>(pass, slots, threads).count;
  return parts_of(pass).slots + static_cast<std::size_t>(rows < threads ? rows : threads) * slots.bytes;
}

/// Rows, and a slot of the workspace for each thread.
template <class V, class AnyPass>
Status set_rows(const AnyPass& pass, const WorkspaceParts& parts, const Workspace& workspace, RowPlan& plan) {
  const Slots slots = slots_of(pass);
  if (workspace.bytes < parts.slots + slots.bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;
  plan.threads = threads_with_slots(threads_for(pass.layout, workspace.threads), slots.bytes, workspace.bytes - parts.slots);
  plan.rows = partition<V>(pass, slots, plan.threads);
  plan.slots = static_cast<char*>(workspace.data) + parts.slots;
  plan.slot_bytes = slots.bytes;
  plan.stream = beyond_caches(pass.layout, 3 * sizeof(V));
  return Status::ok;
}

/// The location of the recurrent weights as rows; empty without a recurrence.
template <class V>
WeightRows<V> weight_rows(const Recurrence<V>& recurrent, char* memory) {
  if (recurrent.features == 0) return {};
  return {reinterpret_cast<V*>(memory), weight_stride(recurrent)};
}

/// Sets the locations of each neuron's sums: those of parameters, then those of taps.
template <class V>
void set_sums(const BackwardPass<V>& pass, const WorkspaceParts& parts, char* memory, BackwardPlan<V>& plan) {
  double* next = reinterpret_cast<double*>(memory);
  for (int k = 0; k < pass.parameters; ++k) {
    if (pass.summed[k]) plan.sums[k] = next, next += pass.layout.outer * pass.layout.inner;
  }
  for (int k = 0; k < 2; ++k) {
    if (plan.fir[k].summed) plan.fir[k].sums = reinterpret_cast<double*>(memory + parts.taps[k]);
  }
}

}   // namespace

template <class V>
std::size_t workspace_bytes(const Pass<V>& pass, int threads) {
  return bytes_for<V>(pass, threads);
}

template <class V>
std::size_t workspace_bytes(const BackwardPass<V>& pass, int threads) {
  return bytes_for<V>(pass, threads);
}

template <class V>
Status make_plan(const Pass<V>& pass, const Workspace& workspace, ForwardPlan<V>& plan) {
  if (const Status status = set_rows<V>(pass, parts_of(pass), workspace, plan); status != Status::ok) return status;
  plan.weights = weight_rows(pass.recurrent, static_cast<char*>(workspace.data));
  return Status::ok;
}

template <class V>
Status make_plan(const BackwardPass<V>& pass, const Workspace& workspace, BackwardPlan<V>& plan) {
  const WorkspaceParts parts = parts_of(pass);
  if (const Status status = set_rows<V>(pass, parts, workspace, plan); status != Status::ok) return status;
  char* const memory = static_cast<char*>(workspace.data);
  set_sums(pass, parts, memory, plan);
  if (pass.weights_gradient) plan.fired = reinterpret_cast<std::uint64_t*>(memory + parts.fired);
  if (pass.reads_current) plan.weights = weight_rows(pass.recurrent, memory + parts.weights);
  plan.transposed_weights = weight_rows(pass.recurrent, memory + parts.transposed_weights);
  plan.segment_steps = segment_steps_of(pass, plan.rows);
  plan.taped = pass.taped;
  return Status::ok;
}

#define EXODUS_INSTANTIATE(V)                                                   \
  template std::size_t workspace_bytes(const Pass<V>&, int);                    \
  template std::size_t workspace_bytes(const BackwardPass<V>&, int);            \
  template Status make_plan(const Pass<V>&, const Workspace&, ForwardPlan<V>&); \
  template Status make_plan(const BackwardPass<V>&, const Workspace&, BackwardPlan<V>&);
EXODUS_INSTANTIATE(float)
EXODUS_INSTANTIATE(double)

}   // namespace exodus::cpu
