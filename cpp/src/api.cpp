/// @file
/// The exported functions: from a model's named fields to the plan of a call, checks, partition of the work, sums of parameter gradients.
#include <type_traits>

#include "checks.hpp"
#include "cpu/isa.hpp"
#include "cpu/memory.hpp"
#include "cpu/operators/recurrence_plan.hpp"
#include "cpu/plan.hpp"
#include "cpu/threads.hpp"
#include "cpu/work.hpp"
#include "exodus/exodus.hpp"
#include "floating_point.hpp"

#ifndef EXODUS_VERSION
#error "the build defines EXODUS_VERSION"
#endif

static_assert(static_cast<int>(exodus::Model::count) == EXODUS_MODEL_COUNT, "CMake finds other models in the registry than the compiler");

namespace exodus {
namespace {

using cpu::narrow_lanes;

/// Steps of a tile of arrays whose inner axis is narrow.
std::int64_t steps_of_tile(const Layout& layout) {
  std::int64_t steps = ceil_div(narrow_lanes, layout.inner * cpu::max_fir_steps) * cpu::max_fir_steps;
  steps = steps < 16 ? 16 : steps;
  return steps < layout.time ? steps : layout.time;
}

/// Rows of whole batch entries of a recurrence, some at least: the product backward reads the weights once for all of a row. They are used
/// in place where an entry's neurons follow each other, and steps are wide enough.
template <class V>
cpu::Rows partition_entries(const Layout& layout, int threads, const Recurrence<V>& recurrent) {
  constexpr std::int64_t least = 4;
  cpu::Rows rows;
  rows.neurons = layout.outer * layout.inner;
  rows.features = recurrent.features;
  rows.repeat = recurrent.repeat;
  const std::int64_t entries = rows.neurons / rows.features, share = ceil_div(entries, threads);
  std::int64_t in_row = cpu::max_row_lanes<V> / rows.features;
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
cpu::Rows partition(const Layout& layout, int threads, const Recurrence<V>& recurrent, std::int64_t page = cpu::max_row_lanes<V>) {
  if (recurrent.features > 0) return partition_entries(layout, threads, recurrent);
  constexpr std::int64_t tile = 4096, least = 256, narrow = narrow_lanes;
  cpu::Rows rows;
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
    const std::int64_t steps = steps_of_tile(layout);
    const std::int64_t lanes = tile / steps < cpu::max_row_lanes<V> ? tile / steps : cpu::max_row_lanes<V>;
    const std::int64_t whole = lanes / layout.inner * layout.inner;
    rows.tile_steps = steps;
    rows.lanes = whole < rows.neurons ? whole : rows.neurons;
  }
  rows.count = ceil_div(rows.neurons, rows.lanes);
  return rows;
}

/// Steps whose hidden states are rebuilt at a time: a tile, or where rows have none about as many as there are segments, in whole groups of
/// steps of FIR kernels.
std::int64_t segment_steps(const cpu::Rows& rows, std::int64_t time) {
  if (rows.tile_steps > 0) return rows.tile_steps;
  std::int64_t steps = cpu::max_fir_steps;
  while (steps * steps < time) steps += cpu::max_fir_steps;
  return steps;
}

/// Elements of the tapes of all rows. They do not depend on the number of threads: rows have few lanes more than there are neurons.
template <class N, class V = arithmetic_t<typename N::Storage>>
std::int64_t tapes_size(const Layout& layout, const Recurrence<V>& recurrent) {
  const cpu::Rows rows = partition<V>(layout, 1, recurrent);
  const std::int64_t lanes = rows.neurons + (rows.features > 0 ? rows.lanes : cpu::max_row_lanes<V>);
  return cpu::tape_size(Traits<N>::states, lanes, layout.time, segment_steps(rows, layout.time));
}

/// What a thread works in.
struct Slots {
  std::int64_t lanes = 0;   ///< of the widest row
  std::size_t bytes = 0;    ///< of each
};

/// Lanes of a row whose FIR kernels' memory stays in the second-level cache, of whole blocks. `take(carver, rows)` takes that memory.
template <class V, class Take>
std::int64_t lanes_with_fir(Take take) {
  constexpr std::size_t cache = 384 << 10;
  cpu::Rows narrowest;
  narrowest.lanes = narrow_lanes;
  const std::size_t bytes = bytes_of([&](cpu::Carver& carver) { take(carver, narrowest); });
  const std::int64_t fit = static_cast<std::int64_t>(cache / bytes) * narrow_lanes / cpu::block_lanes * cpu::block_lanes;
  return fit < narrow_lanes ? narrow_lanes : (fit < cpu::max_row_lanes<V> ? fit : cpu::max_row_lanes<V>);
}

template <class N>
constexpr cpu::ModelSize size_of = {Traits<N>::parameters, Traits<N>::states};

template <class N, class V = arithmetic_t<typename N::Storage>>
Slots forward_slots(const Layout& layout, const FirRole<V>* roles, const Recurrence<V>& recurrent) {
  Slots slots{cpu::max_row_lanes<V>};
  if (with_fir(roles)) {
    slots.lanes = lanes_with_fir<V>([&](cpu::Carver& carver, const cpu::Rows& rows) {
      cpu::FirForwardMemory<V>(carver, roles, rows.lanes, cpu::segment_of(roles, rows, layout.time));
    });
  }
  const cpu::Rows widest = partition<V>(layout, 1, recurrent, slots.lanes);
  slots.bytes = bytes_of([&](cpu::Carver& carver) {
    cpu::ForwardMemory<V>(carver, size_of<N>, roles, widest, widest.lanes, cpu::segment_of(roles, widest, layout.time));
  });
  return slots;
}

/// Steps that a backward pass goes at a time.
template <class V>
std::int64_t backward_segment(const FirRole<V>* roles, const cpu::Rows& rows, std::int64_t time, bool with_tapes) {
  return with_tapes ? segment_steps(rows, time) : cpu::segment_of(roles, rows, time);
}

template <class N, class V = arithmetic_t<typename N::Storage>>
Slots backward_slots(const Layout& layout, const FirRole<V>* roles, const Recurrence<V>& recurrent, bool with_terms, bool with_tapes,
                     bool bptt) {
  const auto segment = [&](const cpu::Rows& rows) { return backward_segment(roles, rows, layout.time, with_tapes); };
  Slots slots{cpu::max_row_lanes<V>};
  if (with_fir(roles)) {
    slots.lanes = lanes_with_fir<V>(
        [&](cpu::Carver& carver, const cpu::Rows& rows) { cpu::FirBackwardMemory<V>(carver, roles, rows.lanes, segment(rows), bptt); });
  }
  const cpu::Rows widest = partition<V>(layout, 1, recurrent, slots.lanes);
  slots.bytes = bytes_of([&](cpu::Carver& carver) {
    cpu::BackwardMemory<V>(carver, size_of<N>, roles, widest, widest.lanes, segment(widest), with_terms, bptt);
  });
  if (recurrent.features > 0) {   // after the pass, a tile of the weights' gradient
    const std::size_t tile = bytes_of([](cpu::Carver& carver) { carver.take<V>(cpu::weight_tile_sources * cpu::weight_tile_targets); });
    slots.bytes = slots.bytes < tile ? tile : slots.bytes;
  }
  return slots;
}

/// The bytes of the slots that a call fills.
template <class V>
std::size_t slots_size(const Layout& layout, const Slots& slots, const Recurrence<V>& recurrent, int threads) {
  const std::int64_t rows = partition<V>(layout, threads, recurrent, slots.lanes).count;
  return static_cast<std::size_t>(rows < threads ? rows : threads) * slots.bytes;
}

/// Where the parts of a backward pass's workspace begin, in bytes: sums of parameters and taps as doubles, what fired before each step, the
/// tapes, recurrent weights, the slots.
template <class N, class V = arithmetic_t<typename N::Storage>>
struct Parts {
  std::size_t taps[2], fired, tapes, weights, transposed_weights, slots;

  Parts(const Layout& layout, const Wanted<N>& wanted, const FirRole<V>* roles, const Recurrence<V>& recurrent, bool with_tapes) {
    const std::int64_t neurons = layout.outer * layout.inner;
    fired = static_cast<std::size_t>(wanted.sums * neurons) * sizeof(double);
    for (int k = 0; k < 2; ++k) {
      taps[k] = fired;
      if (roles[k].summed) fired += static_cast<std::size_t>(roles[k].taps.length * neurons) * sizeof(double);
    }
    tapes = fired + (wanted.recurrent ? static_cast<std::size_t>(fired_size(layout, recurrent)) * sizeof(std::uint64_t) : 0);
    weights = tapes + (with_tapes ? static_cast<std::size_t>(tapes_size<N>(layout, recurrent)) * sizeof(V) : 0);
    transposed_weights = weights + (wanted.reads_current() ? weights_size(recurrent) : 0);   // the current is what it was with them
    slots = transposed_weights + weights_size(recurrent);
  }
};

/// Sets the wanted gradients to zero: sums over neurons are added to them.
template <class N, class V>
void clear_gradients(const Wanted<N>& wanted, const Param<V>* parameters, const FirRole<V>* roles) {
  const auto clear = [](double* grad, std::int64_t count) {
    for (std::int64_t c = 0; grad != nullptr && c < count; ++c) grad[c] = 0;
  };
  for (int k = 0; k < Traits<N>::parameters; ++k) clear(wanted.grad[k], parameters[k].count);
  for (int k = 0; k < Traits<N>::kernels; ++k) clear(wanted.taps[k], roles[k].taps.length * roles[k].taps.count);
}

}   // namespace

template <class N>
Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Workspace workspace) noexcept {
  using V = typename Traits<N>::V;
  const cpu::Kernels<V>* const kernels = kernels_for<V>();
  if (kernels == nullptr) return Status::unsupported;
  const FloatingPointMode mode;
  cpu::ForwardPlan<V> plan;
  if (const Status status = read(layout, neuron, arrays, plan); status != Status::ok) return status;
  if (empty(layout)) return Status::ok;
  const Slots slots = forward_slots<N>(layout, plan.fir, plan.recurrent);
  const std::size_t weights = weights_size(plan.recurrent);
  if (workspace.bytes < weights + slots.bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;
  const int threads = threads_with_slots(threads_for(layout, workspace.threads), slots.bytes, workspace.bytes - weights);
  plan.rows = partition<V>(layout, threads, plan.recurrent, slots.lanes);
  plan.stream = beyond_caches(layout, 3 * sizeof(V));
  plan.weights = copy_weights(plan.recurrent, false, static_cast<char*>(workspace.data));
  plan.slots = static_cast<char*>(workspace.data) + weights;
  plan.slot_bytes = slots.bytes;

  auto task = [&](std::int64_t row, int thread) { kernels->forward(plan, row, thread); };
  cpu::parallel_for(plan.rows.count, threads, task);
  return Status::ok;
}

template <class N>
Workspace workspace(const Layout& layout, const N& neuron, const typename N::Forward& arrays, int threads) noexcept {
  using V = typename Traits<N>::V;
  FirRole<V> roles[2];
  if (!valid(layout) || empty(layout) || !set_taps(neuron, layout.outer * layout.inner, roles)) return {};
  if (check<N>(arrays.recurrent, layout.outer * layout.inner) != Status::ok) return {};
  const Slots slots = forward_slots<N>(layout, roles, arrays.recurrent);
  const std::size_t bytes = slots_size<V>(layout, slots, arrays.recurrent, threads_for(layout, threads));
  return {nullptr, weights_size(arrays.recurrent) + bytes, threads};
}

template <class N>
Workspace workspace(const Layout& layout, const N& neuron, const typename N::Backward& arrays, int threads) noexcept {
  using V = typename Traits<N>::V;
  FirRole<V> roles[2];
  if (!valid(layout) || empty(layout) || !set_taps(neuron, layout.outer * layout.inner, roles)) return {};
  if (check<N>(arrays.recurrent, layout.outer * layout.inner) != Status::ok) return {};
  const Wanted<N> wanted(neuron, arrays);
  for (int k = 0; k < 2; ++k) roles[k].summed = wanted.taps[k] != nullptr;
  // Whatever the method and the surrogate are: the most that any needs.
  const bool may_rebuild = rebuilds<N>(Method::bptt, wanted, false, roles);
  std::size_t bytes = 0;
  for (const bool with_tapes : {false, may_rebuild}) {
    for (const bool bptt : {false, true}) {
      const Slots slots = backward_slots<N>(layout, roles, arrays.recurrent, wanted.sums > 0, with_tapes, bptt);
      const std::size_t needed = Parts<N>(layout, wanted, roles, arrays.recurrent, with_tapes).slots +
                                 slots_size<V>(layout, slots, arrays.recurrent, threads_for(layout, threads));
      bytes = bytes < needed ? needed : bytes;
    }
  }
  return {nullptr, bytes, threads};
}

template <class N>
Status backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                const typename N::Backward& arrays, Workspace workspace) noexcept {
  using T = Traits<N>;
  using V = typename T::V;
  const cpu::Kernels<V>* const kernels = kernels_for<V>();
  if (kernels == nullptr) return Status::unsupported;
  const FloatingPointMode mode;
  cpu::BackwardPlan<V> plan;
  const Wanted<N> wanted(neuron, arrays);
  if (const Status status = read(layout, neuron, method, surrogate, arrays, wanted, plan); status != Status::ok) return status;
  if (empty(layout)) {
    clear_gradients(wanted, plan.parameters, plan.fir);
    clear_weights_gradient(arrays.grad_recurrent, plan.recurrent);
    return Status::ok;
  }
  const bool with_tapes = rebuilds<N>(method, wanted, surrogate.values != nullptr, plan.fir);
  const Parts<N> parts(layout, wanted, plan.fir, plan.recurrent, with_tapes);
  const Slots slots = backward_slots<N>(layout, plan.fir, plan.recurrent, wanted.sums > 0, with_tapes, method == Method::bptt);
  if (workspace.bytes < parts.slots + slots.bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;

  const std::int64_t neurons = layout.outer * layout.inner;
  const int threads = threads_with_slots(threads_for(layout, workspace.threads), slots.bytes, workspace.bytes - parts.slots);
  char* const memory = static_cast<char*>(workspace.data);
  plan.rows = partition<V>(layout, threads, plan.recurrent, slots.lanes);
  plan.stream = beyond_caches(layout, 3 * sizeof(V));
  if (plan.current != nullptr) plan.weights = copy_weights(plan.recurrent, false, memory + parts.weights);
  plan.transposed_weights = copy_weights(plan.recurrent, true, memory + parts.transposed_weights);
  plan.slots = memory + parts.slots;
  plan.slot_bytes = slots.bytes;
  double* next = reinterpret_cast<double*>(memory);
  for (int k = 0; k < T::parameters; ++k) {
    if (wanted.summed[k]) plan.sums[k] = next, next += neurons;
  }
  for (FirRole<V>& role : plan.fir) {
    if (role.summed) role.sums = reinterpret_cast<double*>(memory + parts.taps[&role - plan.fir]);
  }
  plan.segment = backward_segment(plan.fir, plan.rows, layout.time, with_tapes);
  if (with_tapes) {
    plan.tape = reinterpret_cast<V*>(memory + parts.tapes);
    plan.tape_elements = cpu::tape_size(T::states, plan.rows.lanes, layout.time, plan.segment);
  }

  auto task = [&](std::int64_t row, int thread) { kernels->backward(plan, row, thread); };
  cpu::parallel_for(plan.rows.count, threads, task);

  if (wanted.recurrent) {
    cpu::WeightGradientPlan<V> after{layout, plan.rows};
    after.counts = plan.cap != V(1);
    after.spikes = arrays.spikes;
    after.initial_spikes = plan.initial[1];
    after.grad_current = plan.grad_current;
    after.fired = reinterpret_cast<std::uint64_t*>(memory + parts.fired);
    after.sums = arrays.grad_recurrent;
    after.slots = plan.slots;
    after.slot_bytes = plan.slot_bytes;
    sum_weights_gradient(*kernels, after, threads);
  }
  clear_gradients(wanted, plan.parameters, plan.fir);
  const auto reduce = [&](double* out, const double* sums, const Param<V>& p, int sign) { add_reduced(out, sums, plan.rows, p, sign); };
  for (int k = 0; k < T::parameters; ++k) {
    if (wanted.grad[k] != nullptr) reduce(wanted.grad[k], plan.sums[k], plan.parameters[k], +1);
  }
  for_each_tie(neuron, [&](const Tie& tie) {
    if (wanted.grad[tie.target] == nullptr) return;
    reduce(wanted.grad[tie.target], plan.sums[tie.source], plan.parameters[tie.target], tie.sign);
  });
  for (int k = 0; k < T::kernels; ++k) {
    const Taps<V>& taps = plan.fir[k].taps;
    for (std::int64_t tap = 0; wanted.taps[k] != nullptr && tap < taps.length; ++tap) {
      reduce(wanted.taps[k] + tap * taps.count, plan.fir[k].sums + tap * neurons, Param<V>(taps.data, taps.count, taps.repeat), +1);
    }
  }
  return Status::ok;
}

template <class S>
Status evaluate(const Surrogate<S>& surrogate, const Param<arithmetic_t<S>>& threshold, std::int64_t count,
                const arithmetic_t<S>* potential, arithmetic_t<S>* h) noexcept {
  using V = arithmetic_t<S>;
  const cpu::Kernels<V>* const kernels = kernels_for<V>();
  if (kernels == nullptr || !valid(surrogate.kind)) return Status::unsupported;
  if (count < 0) return Status::bad_layout;
  if (!valid(threshold)) return Status::bad_parameter;
  if (count > 0 && (potential == nullptr || h == nullptr)) return Status::null_pointer;
  const FloatingPointMode mode;
  constexpr std::int64_t chunk = 16384;
  auto task = [&](std::int64_t k, int /*thread*/) {
    const std::int64_t end = (k + 1) * chunk < count ? (k + 1) * chunk : count;
    kernels->evaluate(surrogate, threshold, k * chunk, end, potential, h);
  };
  cpu::parallel_for(ceil_div(count, chunk), get_num_threads(), task);
  return Status::ok;
}

Status decay(const Param<double>& dt, const Param<double>& tau, std::int64_t count, double* decays) noexcept {
  if (count < 0) return Status::bad_layout;
  if (!valid(dt) || !valid(tau)) return Status::bad_parameter;
  if (count > 0 && decays == nullptr) return Status::null_pointer;
  const FloatingPointMode mode;
  for (std::int64_t k = 0; k < count; ++k) decays[k] = decay(value_of(dt, k), value_of(tau, k));
  return Status::ok;
}

Status rotation(const Param<double>& angle, std::int64_t count, double* cosines, double* sines) noexcept {
  if (count < 0) return Status::bad_layout;
  if (!valid(angle)) return Status::bad_parameter;
  if (count > 0 && (cosines == nullptr || sines == nullptr)) return Status::null_pointer;
  const FloatingPointMode mode;
  for (std::int64_t k = 0; k < count; ++k) {
    const Rotation turned = rotation(value_of(angle, k));
    cosines[k] = turned.cosine, sines[k] = turned.sine;
  }
  return Status::ok;
}

const char* version() noexcept {
  return EXODUS_VERSION;
}

#define EXODUS_INSTANTIATE(N)                                                                                               \
  template EXODUS_API Status forward<N>(const Layout&, const N&, const N::Forward&, Workspace) noexcept;                    \
  template EXODUS_API Workspace workspace<N>(const Layout&, const N&, const N::Forward&, int) noexcept;                     \
  template EXODUS_API Workspace workspace<N>(const Layout&, const N&, const N::Backward&, int) noexcept;                    \
  template EXODUS_API Status backward<N>(const Layout&, const N&, Method, const Surrogate<N::Storage>&, const N::Backward&, \
                                         Workspace) noexcept;
#define EXODUS_MODEL(name)        \
  EXODUS_INSTANTIATE(name<float>) \
  EXODUS_INSTANTIATE(name<double>)
EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL

template EXODUS_API Status evaluate(const Surrogate<float>&, const Param<float>&, std::int64_t, const float*, float*) noexcept;
template EXODUS_API Status evaluate(const Surrogate<double>&, const Param<double>&, std::int64_t, const double*, double*) noexcept;

}   // namespace exodus
