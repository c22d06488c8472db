/// @file
/// The exported functions of cuda.hpp for one model, EXODUS_CUDA_MODEL: argument checks, selection and launch of kernels, and the sums of
/// parameter gradients. Compiled once per model, with its header as EXODUS_MODEL_HEADER.
#include EXODUS_MODEL_HEADER

#include <algorithm>

#include "exodus/cuda_functions.hpp"

#include "arena.hpp"
#include "checks.hpp"
#include "kernels.hpp"
#include "recurrence.hpp"
#include "reduce.hpp"
#include "split.hpp"

namespace exodus::cuda {
namespace {

/// Whether passes by a method have kernels of their own. Without spikes all methods are the same.
template <template <class> class N>
constexpr bool has_method(Method method) {
  return N<float>::fires || method == Method::exodus;
}
template <template <class> class N>
int kernels_method(Method method) {
  return static_cast<int>(has_method<N>(method) ? method : Method::exodus);
}

/// Whether a call can ask for a kernel. Stepped kernels run one step at a time: for a FIR kernel of the spikes, and for recurrent weights,
/// which every neuron that spikes may have. With a FIR kernel of the current, arrays are accessed in any format.
template <template <class> class N, int Variant, bool Stepped, Access A>
constexpr bool is_asked_for = (Stepped ? N<float>::fires : !has_taps<N, Variant>(1)) && (A == Access::lanes || !has_taps<N, Variant>(0));

template <class V>
bool steps_one_by_one(const FirRole<V> (&fir)[2], const Recurrence<V>& recurrent) {
  return fir[1].taps.length > 0 || recurrent.features > 0;
}
template <class Call>
bool steps_one_by_one(const Call& call) {
  return steps_one_by_one(call.fir, call.recurrent);
}

/// Tables of kernels, indexed by the model's variants, with separate ones for stepped kernels. Kernels that no call can ask for are null
/// and are not compiled.
template <class V>
using ForwardKernel = void (*)(Formatted<ForwardCall, V>, Groups, FirMemory<V>, RecurrentMemory<V>);
template <class V>
using BackwardKernel = void (*)(Formatted<BackwardCall, V>, Groups, Tape<V>, FirMemory<V>, RecurrentMemory<V>);

template <template <class> class N, int Variant, class V, bool Stepped, Access A>
constexpr ForwardKernel<V> forward_kernel_or_null() {
  if constexpr (is_asked_for<N, Variant, Stepped, A>) return forward_kernel<N, Variant, V, Stepped, A>;
  return nullptr;
}

template <template <class> class N, bool Stepped, Access A, class V, int... Variant>
ForwardKernel<V> forward_kernel_of(int variant, std::integer_sequence<int, Variant...>) {
  constexpr ForwardKernel<V> kernels[] = {forward_kernel_or_null<N, Variant, V, Stepped, A>()...};
  return kernels[variant];
}

template <template <class> class N, Method M, int Form, class V, bool Terms, bool Plain, bool Stepped, Access A>
constexpr BackwardKernel<V> backward_kernel_or_null() {
  if constexpr (has_method<N>(M) && is_asked_for<N, Form, Stepped, A>) return backward_kernel<N, M, Form, V, Terms, Plain, Stepped, A>;
  return nullptr;
}

template <template <class> class N, bool Terms, bool Plain, bool Stepped, Access A, class V, int... Form>
BackwardKernel<V> backward_kernel_of(Method method, int variant, std::integer_sequence<int, Form...>) {
  constexpr int forms = sizeof...(Form);
  constexpr BackwardKernel<V> kernels[][forms] = {{backward_kernel_or_null<N, Method::exodus, Form, V, Terms, Plain, Stepped, A>()...},
                                                  {backward_kernel_or_null<N, Method::slayer, Form, V, Terms, Plain, Stepped, A>()...},
                                                  {backward_kernel_or_null<N, Method::bptt, Form, V, Terms, Plain, Stepped, A>()...}};
  return kernels[kernels_method<N>(method)][variant % forms];
}

/// Whether a model has kernels that run steps side by side.
template <template <class> class N, class V>
constexpr bool has_split = std::is_same_v<V, float> && splits<N>;

template <class V>
using SplitKernel = void (*)(Formatted<BackwardCall, V>, Groups);

template <template <class> class N, Method M, int Form, class V>
constexpr SplitKernel<V> split_kernel_or_null() {
  if constexpr (has_method<N>(M) && is_asked_for<N, Form, false, Access::direct>) return split_kernel<N, M, Form, V>;
  return nullptr;
}

template <template <class> class N, class V, int... Form>
SplitKernel<V> split_kernel_of(Method method, int variant, std::integer_sequence<int, Form...>) {
  constexpr int forms = sizeof...(Form);
  constexpr SplitKernel<V> kernels[][forms] = {{split_kernel_or_null<N, Method::exodus, Form, V>()...},
                                               {split_kernel_or_null<N, Method::slayer, Form, V>()...}};
  return kernels[kernels_method<N>(method)][variant % forms];
}

/// The widest entry of a recurrence that a block of a forward pass processes. With taps a thread needs more registers.
template <class V>
int widest_forward(const FirRole<V> (&fir)[2]) {
  return with_fir(fir) ? widest_entry<V> : widest_forward_entry<V>;
}

/// `ring_slots`: those in shared memory for each thread.
template <class V>
Grid grid_of(const Groups& groups, std::int64_t ring_slots = 0) {
  const std::size_t rings = static_cast<std::size_t>(ring_slots) * block_threads * sizeof(V);
  return {blocks_for(groups.count), groups.threads, (groups.features == 0 ? 0 : exchange_bytes<V>(groups.threads)) + rings};
}

/// Whether each thread accesses the elements of its neuron, which have the type of the arithmetic. Such kernels, like the tiled ones, exist
/// only for float: double is for checks, and does not justify their compile time.
template <class Call>
bool is_direct(const Groups& groups, const Call& call) {
  return !groups.tiled && call.format == Format::arithmetic && !with_fir(call.fir);
}

/// Whether direct access can move four neurons at once: those of a warp lie side by side, and so do the elements of these arrays in memory.
template <class... Array>
bool lie_in_rows(const Layout& layout, const Array*... arrays) {
  const auto is_aligned = [](const void* array) { return reinterpret_cast<std::uintptr_t>(array) % (4 * sizeof(float)) == 0; };
  return layout.inner % warp_threads == 0 && (is_aligned(arrays) && ...);
}

template <template <class> class N, class V>
ForwardKernel<V> forward_kernel_for(const Formatted<ForwardCall, V>& call, const Groups& groups) {
  constexpr std::make_integer_sequence<int, N<V>::variants> variants;
  if constexpr (N<V>::fires) {
    if (steps_one_by_one(call)) return forward_kernel_of<N, true, Access::lanes, V>(call.variant, variants);
  }
  if constexpr (std::is_same_v<V, float>) {
    if (groups.tiled) return forward_kernel_of<N, false, Access::tiled, V>(call.variant, variants);
    const bool complete = call.potential != nullptr && (!N<V>::fires || call.spikes != nullptr);
    if (complete && is_direct(groups, call)) return forward_kernel_of<N, false, Access::direct, V>(call.variant, variants);
  }
  return forward_kernel_of<N, false, Access::lanes, V>(call.variant, variants);
}

template <class V>
Status filter_current(const Formatted<ForwardCall, V>& call, const FirMemory<V>& memory, Stream stream) {
  FirLaunch<V> fir(call.layout, call.fir[0], 0);
  fir.inputs = {call.current, call.format};
  fir.filtered = memory.filtered;
  return filter(fir, stream);
}

template <template <class> class N, class V>
Status launch_forward(const Formatted<ForwardCall, V>& call, const FirMemory<V>& memory, RecurrentMemory<V> recurrent, Stream stream) {
  const int widest = widest_forward(call.fir);
  Groups groups(call.layout, call.parameters, call.fir, call.recurrent, widest);
  groups.in_rows = lie_in_rows(call.layout, call.current, call.potential, call.spikes);
  const auto kernel = forward_kernel_for<N>(call, groups);
  recurrent.end = call.layout.time;
  if (memory.filtered != nullptr) {
    if (const Status status = filter_current(call, memory, stream); status != Status::ok) return status;
  }
  const Grid grid = grid_of<V>(groups, memory.pending == nullptr ? call.fir[1].taps.length : 0);
  if (!launches_each_step(call.recurrent, widest)) return launch(kernel, grid, stream, call, groups, memory, recurrent);

  const Entries entries(call.layout, call.recurrent);
  Formatted<ForwardCall, V> one = call;
  Status status = Status::ok;
  for (std::int64_t n = 0; status == Status::ok && n < call.layout.time; ++n) {
    recurrent.begin = n, recurrent.end = n + 1;
    for (int k = 0; k < Traits<N<V>>::states; ++k) {
      one.initial[k] = n == 0 ? call.initial[k] : recurrent.state[k];
      one.final[k] = n + 1 == call.layout.time ? call.final[k] : recurrent.state[k];
    }
    status = multiply_spikes(entries, one.initial[1], call.recurrent.weights, recurrent.sums, stream);
    if (status == Status::ok) status = launch(kernel, grid, stream, one, groups, memory, recurrent);
  }
  return status;
}

/// The backward pass step by step: a' of all steps forward in time, if the adjoint reads it, then the adjoint in reverse.
template <class V>
Status go_step_by_step(BackwardKernel<V> kernel, const Formatted<BackwardCall, V>& call, const Groups& groups, const Tape<V>& tape,
                       const FirMemory<V>& memory, RecurrentMemory<V> recurrent, Stream stream) {
  const Entries entries(call.layout, call.recurrent);
  const std::int64_t time = call.layout.time;
  const auto run = [&](std::int64_t n) {
    recurrent.begin = n, recurrent.end = n + 1;
    return launch(kernel, grid_of<V>(groups), stream, call, groups, tape, memory, recurrent);
  };
  Status status = Status::ok;
  recurrent.adjoins = false;
  for (std::int64_t n = 0; status == Status::ok && recurrent.total_current != nullptr && n < time; ++n) {
    const V* const spikes = n == 0 ? call.initial[1] : recurrent.state[1];
    status = multiply_spikes(entries, spikes, call.recurrent.weights, recurrent.sums, stream);
    if (status == Status::ok) status = run(n);
  }
  recurrent.adjoins = true, recurrent.sums_current = false;
  const auto gather = [&](V* out, bool adds) { return multiply<V>(entries, recurrent.gradient, recurrent.transposed, out, adds, stream); };
  for (std::int64_t n = time - 1; status == Status::ok && n >= 0; --n) {
    if (n < time - 1) status = gather(recurrent.sums, false);
    if (status == Status::ok) status = run(n);
  }
  return status == Status::ok && call.grad_initial[1] != nullptr ? gather(call.grad_initial[1], true) : status;
}

template <class V>
bool reads_final(const Formatted<BackwardCall, V>& call) {
  return std::ranges::any_of(call.grad_final, [](const V* final) { return final != nullptr; });
}

/// Whether a pass is Plain (see inputs_backward in kernels.hpp).
template <bool Fires, class V>
bool is_plain(const Formatted<BackwardCall, V>& call) {
  return !Fires || (call.grad_potential == nullptr && call.surrogate.values == nullptr && !reads_final(call));
}

/// Whether a pass finds all arrays that it reads at every step.
template <bool Fires, class V>
bool is_complete(const Formatted<BackwardCall, V>& call, bool terms) {
  const void* const gradient = Fires ? static_cast<const void*>(call.grad_spikes) : call.grad_potential;
  return call.potential != nullptr && gradient != nullptr && call.grad_current != nullptr && (!terms || call.current != nullptr);
}

/// Whether a plain pass with gradients of parameters has a kernel of its own. Tiled, that of a model with hidden states would need local
/// memory.
template <template <class> class N, Access A, class V>
constexpr bool has_plain_terms = A != Access::tiled || !reads_hidden_states<N, V, true>;

/// The kernel of a pass that has access to arrays in one way. Kernels that omit parameter gradients or the rarely used arrays exist only
/// for float, as direct ones.
template <template <class> class N, Access A, class V>
BackwardKernel<V> backward_kernel_for(const Formatted<BackwardCall, V>& call, bool terms) {
  constexpr std::make_integer_sequence<int, Traits<N<V>>::adjoint_variants> forms;
  constexpr bool fires = N<V>::fires;
  if constexpr (std::is_same_v<V, float>) {
    if (is_plain<fires>(call) && !terms) return backward_kernel_of<N, false, true, false, A, V>(call.method, call.variant, forms);
    if constexpr (has_plain_terms<N, A, V>) {
      if (is_plain<fires>(call)) return backward_kernel_of<N, true, true, false, A, V>(call.method, call.variant, forms);
    }
  }
  if constexpr (A != Access::direct) return backward_kernel_of<N, true, !fires, false, A, V>(call.method, call.variant, forms);
  return nullptr;
}

template <template <class> class N, class V>
BackwardKernel<V> backward_kernel_for(const Formatted<BackwardCall, V>& call, const Groups& groups, bool terms) {
  constexpr std::make_integer_sequence<int, Traits<N<V>>::adjoint_variants> forms;
  constexpr bool fires = N<V>::fires;
  if constexpr (N<V>::fires) {
    if (steps_one_by_one(call)) return backward_kernel_of<N, true, !fires, true, Access::lanes, V>(call.method, call.variant, forms);
  }
  if constexpr (std::is_same_v<V, float>) {
    if (groups.tiled) return backward_kernel_for<N, Access::tiled>(call, terms);
    const bool direct = is_direct(groups, call) && is_plain<fires>(call) && is_complete<fires>(call, terms);
    if (direct) return backward_kernel_for<N, Access::direct>(call, terms);
  }
  return backward_kernel_for<N, Access::lanes>(call, terms);
}

/// Whether steps of a pass without gradients of parameters run side by side.
template <bool Fires, class V>
bool is_split_pass(const Formatted<BackwardCall, V>& call, const Groups& groups) {
  if (!is_neuron_alone(call.fir, call.recurrent)) return false;
  if ((Fires && call.method == Method::bptt) || !is_plain<Fires>(call) || reads_final(call)) return false;
  return is_split<V>(call.layout, groups);
}

template <template <class> class N, class V>
Status launch_split(const Formatted<BackwardCall, V>& call, const Groups& groups, Stream stream) {
  constexpr std::make_integer_sequence<int, Traits<N<V>>::adjoint_variants> forms;
  const Groups split = split_groups<V>(call.layout, groups);
  return launch(split_kernel_of<N, V>(call.method, call.variant, forms), {blocks_for(split.count), split.threads}, stream, call, split);
}

template <template <class> class N, class V>
Status launch_backward(const Formatted<BackwardCall, V>& call, const Groups& groups, const Tape<V>& tape, const FirMemory<V>& memory,
                       RecurrentMemory<V> recurrent, bool terms, Stream stream) {
  if constexpr (has_split<N, V>) {
    if (!terms && is_split_pass<N<V>::fires>(call, groups)) return launch_split<N>(call, groups, stream);
  }
  const auto kernel = backward_kernel_for<N>(call, groups, terms);
  recurrent.end = call.layout.time;
  if (call.recurrent.features > 0) {
    const Status status = transpose(call.recurrent.weights, call.recurrent.features, recurrent.transposed, stream);
    if (status != Status::ok) return status;
  }
  if (launches_each_step(call.recurrent, widest_entry<V>)) return go_step_by_step(kernel, call, groups, tape, memory, recurrent, stream);
  return launch(kernel, grid_of<V>(groups), stream, call, groups, tape, memory, recurrent);
}

using Carver = Arena<8>;

/// The largest number of fields that an adjoint of the model carries.
template <class N, class V = typename Traits<N>::V, Method... M>
constexpr int most_carried_by() {
  return std::max({field_count<carry_of<N, M, V>, V>...});
}
template <class N>
constexpr int most_carried = most_carried_by<N, typename Traits<N>::V, Method::exodus, Method::slayer, Method::bptt>();

/// Allocates the workspace of a recurrence whose launches run a single step, for `neurons` neurons, with `states` states each. Other passes
/// have it for 0 neurons.
template <class V>
void take_steps(Carver& carver, std::int64_t neurons, int states, RecurrentMemory<V>& memory) {
  memory.sums = carver.take<V>(neurons);
  for (int k = 0; k < states; ++k) memory.state[k] = carver.take<V>(neurons);
}

/// The workspace of a forward pass.
template <class N, class V = typename Traits<N>::V>
struct ForwardParts {
  FirMemory<V> fir;
  RecurrentMemory<V> recurrent;
  std::size_t bytes;

  ForwardParts(const Layout& layout, const FirRole<V> (&roles)[2], const typename N::Forward& arrays, void* memory) {
    Carver carver(memory);
    const Recurrence<V>& weights = arrays.recurrent;
    const std::int64_t taps = roles[1].taps.length, neurons = layout.outer * layout.inner;
    if (roles[0].taps.length > 0 && weights.features == 0) {
      // Where the potential is wanted, it replaces the filtered current step by step.
      const void* const current = arrays.current;
      const bool apart = arrays.potential == nullptr || arrays.potential == current;
      V* const own = carver.take<V>(apart ? layout.time * neurons : 0);
      fir.filtered = apart ? own : arrays.potential;
    }
    fir.pending = carver.take<V>(ring_in_shared<V>(taps, weights.features) ? 0 : taps * neurons);
    fir.past = carver.take<V>(taps > 1 ? (taps - 1) * neurons : 0);
    fir.inputs = carver.take<V>(weights.features > 0 ? roles[0].taps.length * neurons : 0);
    take_steps(carver, launches_each_step(weights, widest_forward(roles)) ? neurons : 0, Traits<N>::states, recurrent);
    bytes = carver.bytes();
  }
};

/// The workspace of a backward pass.
template <class N, class V = typename Traits<N>::V>
struct BackwardParts {
  double* sums[max_parameters] = {};
  double* taps[2];
  double* weights;
  Tape<V> tape;
  FirMemory<V> fir;
  RecurrentMemory<V> recurrent;
  std::size_t bytes;

  BackwardParts(const Layout& layout, const RequestedGradients<N>& requested, const FirRole<V> (&roles)[2], const Recurrence<V>& given,
                bool with_tape, void* memory) {
    Carver carver(memory);
    const std::int64_t neurons = layout.outer * layout.inner, slot = with_tape ? (Traits<N>::states - 1) * neurons : 0;
    for (int k = 0; k < Traits<N>::parameters; ++k) sums[k] = carver.take<double>(requested.summed[k] ? neurons : 0);
    for (int k = 0; k < 2; ++k) taps[k] = carver.take<double>(requested.taps[k] != nullptr ? roles[k].taps.length * neurons : 0);
    const std::int64_t square = given.features * given.features;
    weights = carver.take<double>(requested.recurrent ? weight_parts(layout, given.features) * square : 0);
    const bool stepped = steps_one_by_one(roles, given);
    const std::int64_t time = numbered_steps(layout, is_tiled(layout, roles, given));
    tape.segment = stepped ? rebuilt_steps(time, whole_chunk<V>) : half_chunk<V>;   // the shortest chunk of the kernels
    tape.segments = (time + tape.segment - 1) / tape.segment;
    tape.marks = carver.take<V>(tape.segments * slot);
    tape.steps = carver.take<V>(stepped ? (tape.segment + 1) * slot : 0);
    fir.lam = carver.take<V>(with_fir(roles) ? layout.time * neurons : 0);
    fir.spikes = carver.take<V>(requested.taps[1] != nullptr ? layout.time * neurons : 0);
    recurrent.transposed = carver.take<V>(square);
    recurrent.total_current = carver.take<V>(given.features > 0 && requested.reads_current() ? layout.time * neurons : 0);
    const std::int64_t step = launches_each_step(given, widest_entry<V>) ? neurons : 0;
    take_steps(carver, step, Traits<N>::states, recurrent);
    recurrent.gradient = carver.take<V>(step);
    recurrent.carry = carver.take<V>(most_carried<N> * step);
    bytes = carver.bytes();
  }
};

/// Checks the size and the pointer of a workspace.
Status check(const Workspace& workspace, std::size_t bytes) {
  if (workspace.bytes < bytes) return Status::workspace_too_small;
  return bytes > 0 && workspace.data == nullptr ? Status::null_pointer : Status::ok;
}

/// An array that the caller requests, or null. Gradients of parameters come first, because with zero neurons the other pointers may be
/// invalid.
template <class N>
const void* some_result(const typename N::Backward& arrays, const RequestedGradients<N>& requested,
                        const Formatted<BackwardCall, typename Traits<N>::V>& call) {
  const void* result = arrays.grad_recurrent;
  const auto take = [&result](const void* array) { result = result == nullptr ? array : result; };
  for (const double* const sum : requested.grad) take(sum);
  for (const double* const sum : requested.taps) take(sum);
  take(call.grad_current);
  for (const auto* const state : call.grad_initial) take(state);
  for (const auto& role : call.fir) take(role.grad_initial);
  return result;
}

/// The parameter whose terms a reduction sums, as a bit.
template <class N, class V>
std::uint32_t bit_of(const Reduction& sum, const Formatted<BackwardCall, V>& call) {
  std::uint32_t bit = 0;
  for (int k = 0; k < Traits<N>::parameters; ++k) bit |= call.sums[k] == sum.sums ? 1u << k : 0;
  return bit;
}

/// The parameters, one bit each, whose gradients are sums over all neurons. For these, each warp stores a single sum over its own neurons.
template <class N, class V>
std::uint32_t whole_sums(const N& neuron, const RequestedGradients<N>& requested, const Formatted<BackwardCall, V>& call) {
  if (steps_one_by_one(call)) return 0;   // the sums of a neuron are then accumulated over launches
  std::uint32_t read = 0, by_neuron = 0;
  for_each_reduction(neuron, requested, call, [&](const Reduction& sum) {
    read |= bit_of<N>(sum, call);
    if (sum.count > 1) by_neuron |= bit_of<N>(sum, call);
  });
  return read & ~by_neuron;
}

/// The reductions for the gradients: over one term per neuron or, for the parameters in `whole`, one term per warp. With zero neurons the
/// gradients are zero.
template <class N, class V>
Sums sums_of_gradients(const N& neuron, const RequestedGradients<N>& requested, const Formatted<BackwardCall, V>& call,
                       std::int64_t neurons, std::int64_t warps = 0, std::uint32_t whole = 0) {
  Sums sums;
  for_each_reduction(neuron, requested, call, [&](const Reduction& sum) {
    const Summand summand{sum.sums, (whole & bit_of<N>(sum, call)) != 0 ? warps : neurons, sum.sign};
    if (sum.adds) {
      sums.add(sum.out, summand);
    } else {
      sums.set(sum.out, {sum.count, sum.repeat}, summand, sum.rows);
    }
  });
  return sums;
}

/// The gradients of FIR kernels after the pass over time: those of their inputs, and the sums of each neuron's taps.
template <class N, class V>
Status finish_taps(const Formatted<BackwardCall, V>& call, const BackwardParts<N>& parts, Stream stream) {
  for (int k = 0; k < 2; ++k) {
    if (call.fir[k].taps.length == 0) continue;
    FirLaunch<V> fir(call.layout, call.fir[k], k);
    fir.lam = parts.fir.lam, fir.lam_in_layout = !steps_one_by_one(call);
    if (k == 0) {
      fir.inputs = {call.current, call.format};
      fir.grad_inputs = call.grad_current;
      if (call.recurrent.features > 0) {   // the pass has computed the gradient of the current
        fir.inputs = {parts.recurrent.total_current}, fir.inputs_in_layout = false;
        fir.grad_inputs = nullptr;
      }
    } else {
      fir.inputs = {parts.fir.spikes}, fir.inputs_in_layout = false;
      fir.last = call.initial[1];
    }
    if (const Status status = correlate(fir, stream); status != Status::ok) return status;
    if (!fir.role.summed) continue;
    if (const Status status = sum_taps(fir, stream); status != Status::ok) return status;
  }
  return Status::ok;
}

}   // namespace

template <class N>
Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Workspace workspace, Stream stream) noexcept {
  using V = typename Traits<N>::V;
  Formatted<ForwardCall, V> call;
  call.format = format_of<typename N::Storage>;
  if (const Status status = read(layout, neuron, arrays, call); status != Status::ok) return status;
  if (arrays.fired.words != nullptr || arrays.support.words != nullptr) return Status::unsupported;
  if (empty(layout)) return Status::ok;
  ForwardParts<N> parts(layout, call.fir, arrays, workspace.data);
  parts.fir.last = call.initial[1];
  if (const Status status = check(workspace, parts.bytes); status != Status::ok) return status;
  const DeviceOf device(arrays.current);
  if (!device.ok()) return Status::cuda;
  return [&]<template <class> class M>(const M<typename N::Storage>&) {
    return launch_forward<M, V>(call, parts.fir, parts.recurrent, stream);
  }(neuron);
}

template <class N>
Workspace workspace(const Layout& layout, const N& neuron, const typename N::Forward& arrays) noexcept {
  FirRole<typename Traits<N>::V> roles[2];
  if (!valid(layout) || empty(layout) || !set_taps(neuron, layout.outer * layout.inner, roles)) return {};
  if (check<N>(arrays.recurrent, layout.outer * layout.inner) != Status::ok) return {};
  return {nullptr, ForwardParts<N>(layout, roles, arrays, nullptr).bytes};
}

template <class N>
Workspace workspace(const Layout& layout, const N& neuron, const typename N::Backward& arrays) noexcept {
  FirRole<typename Traits<N>::V> roles[2];
  if (!valid(layout) || empty(layout) || !set_taps(neuron, layout.outer * layout.inner, roles)) return {};
  if (check<N>(arrays.recurrent, layout.outer * layout.inner) != Status::ok) return {};
  const RequestedGradients<N> requested(neuron, arrays);
  const bool with_tape = rebuilds<N>(requested.reads_hidden_states(), false, roles);
  return {nullptr, BackwardParts<N>(layout, requested, roles, arrays.recurrent, with_tape, nullptr).bytes};
}

template <class N>
Status backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                const typename N::Backward& arrays, Workspace workspace, Stream stream) noexcept {
  using T = Traits<N>;
  using V = typename T::V;
  Formatted<BackwardCall, V> call;
  call.format = format_of<typename N::Storage>;
  const RequestedGradients<N> requested(neuron, arrays);
  if (Status status = read(layout, neuron, method, surrogate, arrays, requested, call); status != Status::ok) return status;
  if (recomputes_potential(requested, arrays) && !empty(layout)) return Status::unsupported;
  const bool with_tape = rebuilds<N>(requested.reads_hidden_states(), surrogate.values != nullptr, call.fir);
  const BackwardParts<N> parts(layout, requested, call.fir, call.recurrent, with_tape, workspace.data);
  if (const Status status = check(workspace, parts.bytes); status != Status::ok && !empty(layout)) return status;
  const void* const result = some_result(arrays, requested, call);
  if (result == nullptr) return Status::ok;
  const DeviceOf device(result);
  if (!device.ok()) return Status::cuda;
  const std::int64_t weights = requested.recurrent ? call.recurrent.features * call.recurrent.features : 0;
  if (empty(layout)) {
    Sums zeros = sums_of_gradients(neuron, requested, call, 0);
    if (requested.recurrent) zeros.set(arrays.grad_recurrent, Repeats{weights, 1}, Summand{});
    return zeros.launch(stream);
  }

  for (int k = 0; k < T::parameters; ++k) call.sums[k] = parts.sums[k];
  for (int k = 0; k < 2; ++k) call.fir[k].sums = parts.taps[k];
  Groups groups(layout, call.parameters, call.fir, call.recurrent, widest_entry<V>);
  groups.whole_sums = whole_sums(neuron, requested, call);
  groups.in_rows = lie_in_rows(layout, call.potential, call.current, call.grad_spikes, call.grad_potential, call.grad_current);
  Status status = [&]<template <class> class M>(const M<typename N::Storage>&) {
    return launch_backward<M, V>(call, groups, parts.tape, parts.fir, parts.recurrent, requested.sums > 0, stream);
  }(neuron);
  if (status == Status::ok) status = finish_taps(call, parts, stream);
  Sums sums = sums_of_gradients(neuron, requested, call, groups.neurons, groups.warps(), groups.whole_sums);
  if (status == Status::ok && requested.recurrent) {
    const WeightGradient<V> gradient{
        layout,       Entries(layout, call.recurrent), {arrays.spikes, call.format}, {call.grad_current, call.format}, call.initial[1],
        parts.weights};
    status = sum_weights(gradient, stream);
    // (nvcc 13 rejects braces without a type here.)
    const Summand of_parts{parts.weights, weight_parts(layout, call.recurrent.features) * weights};
    sums.set(arrays.grad_recurrent, Repeats{weights, 1}, of_parts);
  }
  return status == Status::ok ? sums.launch(stream) : status;
}

#define EXODUS_INSTANTIATE(N)                                                                                                          \
  template EXODUS_API Status forward<N>(const Layout&, const N&, const N::Forward&, Workspace, Stream) noexcept;                       \
  template EXODUS_API Workspace workspace<N>(const Layout&, const N&, const N::Forward&) noexcept;                                     \
  template EXODUS_API Workspace workspace<N>(const Layout&, const N&, const N::Backward&) noexcept;                                    \
  template EXODUS_API Status backward<N>(const Layout&, const N&, Method, const Surrogate<N::Storage>&, const N::Backward&, Workspace, \
                                         Stream) noexcept;
EXODUS_INSTANTIATE(EXODUS_CUDA_MODEL<float>)
EXODUS_INSTANTIATE(EXODUS_CUDA_MODEL<double>)
EXODUS_INSTANTIATE(EXODUS_CUDA_MODEL<float16>)
EXODUS_INSTANTIATE(EXODUS_CUDA_MODEL<bfloat16>)

}   // namespace exodus::cuda
