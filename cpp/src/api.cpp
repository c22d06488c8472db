/// @file
/// The exported functions. Each checks its arguments, makes a plan, distributes rows over threads, and sums the gradients of parameters.
#include <type_traits>

#include "checks.hpp"
#include "cpu/in_arithmetic.hpp"
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

template <class N, class V = typename Traits<N>::V>
cpu::Pass<V> forward_pass(const Layout& layout, const FirRole<V>* fir, const Recurrence<V>& recurrent, Format format) {
  return {layout, Traits<N>::parameters, Traits<N>::states, fir, recurrent, format};
}

template <class N, class V = typename Traits<N>::V>
cpu::BackwardPass<V> backward_pass(const Layout& layout, const FirRole<V>* fir, const Recurrence<V>& recurrent, Format format,
                                   Method method, bool surrogate_given, const RequestedGradients<N>& requested,
                                   const typename N::Backward& arrays) {
  const bool recomputes = recomputes_potential(requested, arrays);
  cpu::BackwardPass<V> pass{forward_pass<N>(layout, fir, recurrent, format), method, requested.summed};
  pass.reads_current = recomputes || requested.reads_current();
  pass.weights_gradient = requested.recurrent;
  const bool hidden = rebuilds<N>(requested.reads_hidden_states(), surrogate_given, fir);
  pass.taped = recomputes ? cpu::Taped::all : hidden ? cpu::Taped::hidden : cpu::Taped::none;
  return pass;
}

/// Whether a workspace size can be computed: checks the arguments it depends on, and lists the taps.
template <class N, class V>
bool has_workspace(const Layout& layout, const N& neuron, const Recurrence<V>& recurrent, FirRole<V>* roles) {
  return valid(layout) && !empty(layout) && set_taps(neuron, layout.outer * layout.inner, roles) &&
         check<N>(recurrent, layout.outer * layout.inner) == Status::ok;
}

/// The gradients of parameters and taps: sums over neurons in the order of rows.
template <class N, class V>
void sum_gradients(const N& neuron, const RequestedGradients<N>& requested, const cpu::BackwardPlan<V>& plan) {
  const cpu::Rows& rows = plan.rows;
  for_each_reduction(neuron, requested, plan, [&](const Reduction& reduction) {
    for (std::int64_t k = 0; !reduction.adds && k < reduction.rows * reduction.count; ++k) reduction.out[k] = 0;
    for (std::int64_t row = 0; row < reduction.rows; ++row) {
      add_reduced(reduction.out + row * reduction.count, reduction.sums + row * rows.neurons, rows, reduction.count, reduction.repeat,
                  reduction.sign);
    }
  });
}

// The passes below are compiled for neurons of the arithmetic type. `format` states how the current and the spikes are stored.

template <class N>
Workspace forward_workspace(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Format format, int threads) {
  FirRole<typename Traits<N>::V> roles[2];
  if (!has_workspace(layout, neuron, arrays.recurrent, roles)) return {};
  return {nullptr, workspace_bytes(forward_pass<N>(layout, roles, arrays.recurrent, format), threads), threads};
}

template <class N>
Status run_forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Format format, const Workspace& workspace) {
  using V = typename Traits<N>::V;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr) return Status::unsupported;
  const FloatingPointMode mode;
  cpu::ForwardPlan<V> plan;
  plan.format = format;
  if (const Status status = read(layout, neuron, arrays, plan); status != Status::ok) return status;
  const cpu::Pass<V> pass = forward_pass<N>(layout, plan.fir, plan.recurrent, format);
  if (!empty(layout)) {
    if (const Status status = make_plan(pass, workspace, plan); status != Status::ok) return status;
  }
  for (const ElementBits& bits : {plan.fired, plan.support}) {
    if (bits.words != nullptr && bits.count != nullptr) *bits.count = 0;
  }
  if (empty(layout)) return Status::ok;
  copy_weights(plan.recurrent, false, plan.weights, plan.threads);
  auto task = [&](std::int64_t row, int thread) { isa->forward(plan, row, thread); };
  cpu::parallel_for(plan.rows.count, plan.threads, task);
  return Status::ok;
}

template <class N>
Workspace backward_workspace(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                             const typename N::Backward& arrays, Format format, int threads) {
  FirRole<typename Traits<N>::V> roles[2];
  if (!valid(method) || !has_workspace(layout, neuron, arrays.recurrent, roles)) return {};
  const RequestedGradients<N> requested(neuron, arrays);
  for (int k = 0; k < 2; ++k) roles[k].summed = requested.taps[k] != nullptr;
  const auto pass = backward_pass(layout, roles, arrays.recurrent, format, method, surrogate.values != nullptr, requested, arrays);
  return {nullptr, workspace_bytes(pass, threads), threads};
}

template <class N>
Status run_backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                    const typename N::Backward& arrays, Format format, const Workspace& workspace) {
  using V = typename Traits<N>::V;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr) return Status::unsupported;
  const FloatingPointMode mode;
  cpu::BackwardPlan<V> plan;
  plan.format = format;
  const RequestedGradients<N> requested(neuron, arrays);
  if (const Status status = read(layout, neuron, method, surrogate, arrays, requested, plan); status != Status::ok) return status;
  if (!empty(layout)) {
    const auto pass = backward_pass(layout, plan.fir, plan.recurrent, format, method, surrogate.values != nullptr, requested, arrays);
    if (const Status status = make_plan(pass, workspace, plan); status != Status::ok) return status;
    copy_weights(plan.recurrent, false, plan.weights, plan.threads);
    copy_weights(plan.recurrent, true, plan.transposed_weights, plan.threads);
    auto task = [&](std::int64_t row, int thread) { isa->backward(plan, row, thread); };
    cpu::parallel_for(plan.rows.count, plan.threads, task);
  }
  clear_weights_gradient(arrays.grad_recurrent, plan.recurrent);
  if (requested.recurrent && !empty(layout)) sum_weights_gradient(*isa, plan, arrays.spikes, arrays.grad_recurrent);
  sum_gradients(neuron, requested, plan);
  return Status::ok;
}

}   // namespace

template <class N>
Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Workspace workspace) noexcept {
  return run_forward(layout, in_arithmetic(neuron), in_arithmetic<N>(arrays), format_of<typename N::Storage>, workspace);
}

template <class N>
Workspace workspace(const Layout& layout, const N& neuron, const typename N::Forward& arrays, int threads) noexcept {
  return forward_workspace(layout, in_arithmetic(neuron), in_arithmetic<N>(arrays), format_of<typename N::Storage>, threads);
}

template <class N>
Workspace workspace(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                    const typename N::Backward& arrays, int threads) noexcept {
  return backward_workspace(layout, in_arithmetic(neuron), method, in_arithmetic(surrogate), in_arithmetic<N>(arrays),
                            format_of<typename N::Storage>, threads);
}

template <class N>
Status backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                const typename N::Backward& arrays, Workspace workspace) noexcept {
  return run_backward(layout, in_arithmetic(neuron), method, in_arithmetic(surrogate), in_arithmetic<N>(arrays),
                      format_of<typename N::Storage>, workspace);
}

template <class S>
Status evaluate(const Surrogate<S>& surrogate, const Param<arithmetic_t<S>>& threshold, std::int64_t count,
                const arithmetic_t<S>* potential, arithmetic_t<S>* h) noexcept {
  using V = arithmetic_t<S>;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr || !valid(surrogate.kind)) return Status::unsupported;
  if (count < 0) return Status::bad_layout;
  if (!valid(threshold)) return Status::bad_parameter;
  if (count > 0 && (potential == nullptr || h == nullptr)) return Status::null_pointer;
  const FloatingPointMode mode;
  constexpr std::int64_t chunk = 16384;
  auto task = [&](std::int64_t k, int /*thread*/) {
    const std::int64_t end = (k + 1) * chunk < count ? (k + 1) * chunk : count;
    isa->evaluate(surrogate, threshold, k * chunk, end, potential, h);
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

#define EXODUS_INSTANTIATE(N)                                                                                                   \
  template EXODUS_API Status forward<N>(const Layout&, const N&, const N::Forward&, Workspace) noexcept;                        \
  template EXODUS_API Workspace workspace<N>(const Layout&, const N&, const N::Forward&, int) noexcept;                         \
  template EXODUS_API Workspace workspace<N>(const Layout&, const N&, Method, const Surrogate<N::Storage>&, const N::Backward&, \
                                             int) noexcept;                                                                     \
  template EXODUS_API Status backward<N>(const Layout&, const N&, Method, const Surrogate<N::Storage>&, const N::Backward&,     \
                                         Workspace) noexcept;
#define EXODUS_MODEL(name)          \
  EXODUS_INSTANTIATE(name<float>)   \
  EXODUS_INSTANTIATE(name<double>)  \
  EXODUS_INSTANTIATE(name<float16>) \
  EXODUS_INSTANTIATE(name<bfloat16>)
EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL

template EXODUS_API Status evaluate(const Surrogate<float>&, const Param<float>&, std::int64_t, const float*, float*) noexcept;
template EXODUS_API Status evaluate(const Surrogate<double>&, const Param<double>&, std::int64_t, const double*, double*) noexcept;

}   // namespace exodus
