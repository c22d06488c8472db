/// @file
/// The exported functions: from a model's named fields to the plan of a call, checks, sums of parameter gradients.
#include <type_traits>

#include "checks.hpp"
#include "cpu/isa.hpp"
#include "cpu/operators/recurrence_plan.hpp"
#include "cpu/partition.hpp"
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

template <class N, class V = arithmetic_t<typename N::Storage>>
cpu::Pass<V> forward_pass(const Layout& layout, const FirRole<V>* fir, const Recurrence<V>& recurrent) {
  return {layout, Traits<N>::parameters, Traits<N>::states, fir, recurrent};
}

template <class N, class V = arithmetic_t<typename N::Storage>>
cpu::BackwardPass<V> backward_pass(const Layout& layout, const FirRole<V>* fir, const Recurrence<V>& recurrent,
                                   const RequestedGradients<N>& requested) {
  cpu::BackwardPass<V> pass{forward_pass<N>(layout, fir, recurrent)};
  pass.sums = requested.sums;
  pass.reads_current = requested.reads_current();
  pass.weights_gradient = requested.recurrent;
  return pass;
}

/// The gradients of parameters and taps: sums over neurons in the order of rows.
template <class N, class V>
void sum_gradients(const N& neuron, const RequestedGradients<N>& requested, const BackwardCall<V>& call, const cpu::Rows& rows) {
  for_each_reduction(neuron, requested, call, [&](const Reduction& reduction) {
    for (std::int64_t k = 0; !reduction.adds && k < reduction.rows * reduction.count; ++k) reduction.out[k] = 0;
    for (std::int64_t row = 0; row < reduction.rows; ++row) {
      add_reduced(reduction.out + row * reduction.count, reduction.sums + row * rows.neurons, rows, reduction.count, reduction.repeat,
                  reduction.sign);
    }
  });
}

}   // namespace

template <class N>
Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Workspace workspace) noexcept {
  using V = typename Traits<N>::V;
  const cpu::IsaFunctions<V>* const kernels = kernels_for<V>();
  if (kernels == nullptr) return Status::unsupported;
  const FloatingPointMode mode;
  cpu::ForwardPlan<V> plan;
  if (const Status status = read(layout, neuron, arrays, plan); status != Status::ok) return status;
  if (empty(layout)) return Status::ok;
  const cpu::Pass<V> pass = forward_pass<N>(layout, plan.fir, plan.recurrent);
  const cpu::Slots slots = slots_of(pass);
  const std::size_t weights = weights_size(plan.recurrent);
  if (workspace.bytes < weights + slots.bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;
  const int threads = threads_with_slots(threads_for(layout, workspace.threads), slots.bytes, workspace.bytes - weights);
  plan.rows = partition(pass, slots, threads);
  plan.stream = beyond_caches(layout, 3 * sizeof(V));
  plan.weights = copy_weights(plan.recurrent, false, static_cast<char*>(workspace.data), threads);
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
  const cpu::Pass<V> pass = forward_pass<N>(layout, roles, arrays.recurrent);
  return {nullptr, weights_size(arrays.recurrent) + slots_size(pass, slots_of(pass), threads_for(layout, threads)), threads};
}

template <class N>
Workspace workspace(const Layout& layout, const N& neuron, const typename N::Backward& arrays, int threads) noexcept {
  using V = typename Traits<N>::V;
  FirRole<V> roles[2];
  if (!valid(layout) || empty(layout) || !set_taps(neuron, layout.outer * layout.inner, roles)) return {};
  if (check<N>(arrays.recurrent, layout.outer * layout.inner) != Status::ok) return {};
  const RequestedGradients<N> requested(neuron, arrays);
  for (int k = 0; k < 2; ++k) roles[k].summed = requested.taps[k] != nullptr;
  // Whatever the method and the surrogate are: the most that any needs.
  const bool may_rebuild = rebuilds<N>(Method::bptt, requested, false, roles);
  std::size_t bytes = 0;
  cpu::BackwardPass<V> pass = backward_pass(layout, roles, arrays.recurrent, requested);
  for (const bool with_tapes : {false, may_rebuild}) {
    for (const bool bptt : {false, true}) {
      pass.with_tapes = with_tapes, pass.bptt = bptt;
      const std::size_t needed = parts_of(pass).slots + slots_size<V>(pass, slots_of(pass), threads_for(layout, threads));
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
  const cpu::IsaFunctions<V>* const kernels = kernels_for<V>();
  if (kernels == nullptr) return Status::unsupported;
  const FloatingPointMode mode;
  cpu::BackwardPlan<V> plan;
  const RequestedGradients<N> requested(neuron, arrays);
  if (const Status status = read(layout, neuron, method, surrogate, arrays, requested, plan); status != Status::ok) return status;
  if (empty(layout)) {
    sum_gradients(neuron, requested, plan, {});
    clear_weights_gradient(arrays.grad_recurrent, plan.recurrent);
    return Status::ok;
  }
  cpu::BackwardPass<V> pass = backward_pass(layout, plan.fir, plan.recurrent, requested);
  pass.with_tapes = rebuilds<N>(method, requested, surrogate.values != nullptr, plan.fir);
  pass.bptt = method == Method::bptt;
  const cpu::BackwardParts parts = parts_of(pass);
  const cpu::Slots slots = slots_of(pass);
  if (workspace.bytes < parts.slots + slots.bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;

  const std::int64_t neurons = layout.outer * layout.inner;
  const int threads = threads_with_slots(threads_for(layout, workspace.threads), slots.bytes, workspace.bytes - parts.slots);
  char* const memory = static_cast<char*>(workspace.data);
  plan.rows = partition<V>(pass, slots, threads);
  plan.stream = beyond_caches(layout, 3 * sizeof(V));
  if (plan.current != nullptr) plan.weights = copy_weights(plan.recurrent, false, memory + parts.weights, threads);
  plan.transposed_weights = copy_weights(plan.recurrent, true, memory + parts.transposed_weights, threads);
  plan.slots = memory + parts.slots;
  plan.slot_bytes = slots.bytes;
  double* next = reinterpret_cast<double*>(memory);
  for (int k = 0; k < T::parameters; ++k) {
    if (requested.summed[k]) plan.sums[k] = next, next += neurons;
  }
  for (FirRole<V>& role : plan.fir) {
    if (role.summed) role.sums = reinterpret_cast<double*>(memory + parts.taps[&role - plan.fir]);
  }
  plan.segment = segment_of(pass, plan.rows);
  if (pass.with_tapes) {
    plan.tape = reinterpret_cast<V*>(memory + parts.tapes);
    plan.tape_elements = cpu::tape_size(T::states, plan.rows.lanes, layout.time, plan.segment);
  }

  auto task = [&](std::int64_t row, int thread) { kernels->backward(plan, row, thread); };
  cpu::parallel_for(plan.rows.count, threads, task);

  if (requested.recurrent) {
    clear_weights_gradient(arrays.grad_recurrent, plan.recurrent);
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
  sum_gradients(neuron, requested, plan, plan.rows);
  return Status::ok;
}

template <class S>
Status evaluate(const Surrogate<S>& surrogate, const Param<arithmetic_t<S>>& threshold, std::int64_t count,
                const arithmetic_t<S>* potential, arithmetic_t<S>* h) noexcept {
  using V = arithmetic_t<S>;
  const cpu::IsaFunctions<V>* const kernels = kernels_for<V>();
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
