/// @file
/// The exported functions of cuda.hpp for one model, EXODUS_CUDA_MODEL: checks, the choice of a kernel, its launch, sums of parameter
/// gradients. Compiled once for each model.
#include "exodus/cuda.hpp"

#include "checks.hpp"
#include "kernels.hpp"
#include "reduce.hpp"

namespace exodus::cuda {
namespace {

template <template <class> class N, int Variant, class V>
Status launch_forward(const Formatted<ForwardCall, V>& call, Stream stream) {
  const Groups groups(call.layout, call.parameters);
  return launch(forward_kernel<N, Variant, V>, blocks_for(groups.count), block_threads, stream, call, groups);
}

template <template <class> class N, Method M, int Form, class V>
Status launch_backward(const Formatted<BackwardCall, V>& call, const Tape<V>& tape, bool terms, Stream stream) {
  const Groups groups(call.layout, call.parameters);
  const auto kernel = terms ? backward_kernel<N, M, Form, V, true> : backward_kernel<N, M, Form, V, false>;
  return launch(kernel, blocks_for(groups.count), block_threads, stream, call, groups, tape);
}

template <class V>
using LaunchForward = Status (*)(const Formatted<ForwardCall, V>&, Stream);
template <class V>
using LaunchBackward = Status (*)(const Formatted<BackwardCall, V>&, const Tape<V>&, bool terms, Stream);

template <template <class> class N, class V, int... Variant>
LaunchForward<V> forward_launcher(int variant, std::integer_sequence<int, Variant...>) {
  constexpr LaunchForward<V> launchers[] = {launch_forward<N, Variant, V>...};
  return launchers[variant];
}

template <template <class> class N, class V, int... Form>
LaunchBackward<V> backward_launcher(Method method, int variant, std::integer_sequence<int, Form...>) {
  constexpr LaunchBackward<V> launchers[][sizeof...(Form)] = {{launch_backward<N, Method::exodus, Form, V>...},
                                                              {launch_backward<N, Method::slayer, Form, V>...},
                                                              {launch_backward<N, Method::bptt, Form, V>...}};
  return launchers[static_cast<int>(method)][variant % static_cast<int>(sizeof...(Form))];
}

template <class V>
Repeats shape_of(const Param<V>& p) {
  return {p.count, p.repeat};
}

/// Steps whose hidden states are on the tape at a time: whole chunks, about as many as there are segments.
template <class V>
std::int64_t segment_steps(std::int64_t time) {
  std::int64_t steps = backward_steps<V>;
  while (steps * steps < time) steps += backward_steps<V>;
  return steps;
}

/// Where the parts of a backward pass's workspace begin, in bytes: sums of the parameters, the tape's steps, its marks.
template <class N, class V = arithmetic_t<typename N::Storage>>
struct Parts {
  std::size_t steps, marks, bytes;
  std::int64_t segment;

  Parts(const Layout& layout, const Wanted<N>& wanted, bool with_tape) : segment(segment_steps<V>(layout.time)) {
    const std::int64_t neurons = layout.outer * layout.inner, slot = (Traits<N>::states - 1) * neurons;
    steps = static_cast<std::size_t>(wanted.sums * neurons) * sizeof(double);
    marks = steps + static_cast<std::size_t>(with_tape ? (segment + 1) * slot : 0) * sizeof(V);
    bytes = marks + static_cast<std::size_t>(with_tape ? (layout.time + segment - 1) / segment * slot : 0) * sizeof(V);
  }
};

/// An array that the caller wants; null if there is none.
template <class N>
const void* some_result(const Formatted<BackwardCall, typename Traits<N>::V>& call, const Wanted<N>& wanted) {
  const void* result = call.grad_current;
  for (const auto* const state : call.grad_initial) result = result == nullptr ? state : result;
  for (const double* const sum : wanted.grad) result = result == nullptr ? sum : result;
  return result;
}

}   // namespace

template <class N>
Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Workspace, Stream stream) noexcept {
  using V = typename Traits<N>::V;
  Formatted<ForwardCall, V> call;
  call.format = format_of<typename N::Storage>;
  if (const Status status = read(layout, neuron, arrays, call); status != Status::ok) return status;
  if (with_fir(call.fir)) return Status::unsupported;
  const DeviceOf device(arrays.current);
  if (!device.ok()) return Status::cuda;
  return [&]<template <class> class M>(const M<typename N::Storage>&) {
    return forward_launcher<M, V>(call.variant, std::make_integer_sequence<int, N::variants>{})(call, stream);
  }(neuron);
}

template <class N>
Workspace workspace(const Layout&, const N&, const typename N::Forward&) noexcept {
  return {};
}

template <class N>
Workspace workspace(const Layout& layout, const N& neuron, const typename N::Backward& arrays) noexcept {
  const FirRole<typename Traits<N>::V> no_taps[2];
  if (!valid(layout)) return {};
  const Wanted<N> wanted(neuron, arrays);
  return {nullptr, Parts<N>(layout, wanted, rebuilds<N>(Method::bptt, wanted, false, no_taps)).bytes};
}

template <class N>
Status backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                const typename N::Backward& arrays, Workspace workspace, Stream stream) noexcept {
  using T = Traits<N>;
  using V = typename T::V;
  Formatted<BackwardCall, V> call;
  call.format = format_of<typename N::Storage>;
  const Wanted<N> wanted(neuron, arrays);
  if (Status status = read(layout, neuron, method, surrogate, arrays, wanted, call); status != Status::ok) return status;
  if (with_fir(call.fir)) return Status::unsupported;
  const bool with_tape = rebuilds<N>(method, wanted, surrogate.values != nullptr, call.fir);
  const Parts<N> parts(layout, wanted, with_tape);
  if (workspace.bytes < parts.bytes) return Status::workspace_too_small;
  if (parts.bytes > 0 && workspace.data == nullptr) return Status::null_pointer;

  const std::int64_t neurons = layout.outer * layout.inner;
  char* const memory = static_cast<char*>(workspace.data);
  double* next = reinterpret_cast<double*>(memory);
  for (int k = 0; k < T::parameters; ++k) {
    if (wanted.summed[k]) call.sums[k] = next, next += neurons;
  }
  Tape<V> tape{nullptr, nullptr, parts.segment, (layout.time + parts.segment - 1) / parts.segment};
  if (with_tape) tape.steps = reinterpret_cast<V*>(memory + parts.steps), tape.marks = reinterpret_cast<V*>(memory + parts.marks);

  const void* const result = some_result(call, wanted);
  if (result == nullptr) return Status::ok;
  const DeviceOf device(result);
  if (!device.ok()) return Status::cuda;
  Status status = [&]<template <class> class M>(const M<typename N::Storage>&) {
    const auto launcher = backward_launcher<M, V>(method, call.variant, std::make_integer_sequence<int, N::adjoint_variants>{});
    return launcher(call, tape, wanted.sums > 0, stream);
  }(neuron);
  for (int k = 0; status == Status::ok && k < T::parameters; ++k) {
    if (wanted.grad[k] != nullptr) status = reduce(call.sums[k], neurons, shape_of(call.parameters[k]), wanted.grad[k], +1, false, stream);
  }
  for_each_tie(neuron, [&](const Tie& tie) {
    if (wanted.grad[tie.target] == nullptr || status != Status::ok) return;
    status = reduce(call.sums[tie.source], neurons, shape_of(call.parameters[tie.target]), wanted.grad[tie.target], tie.sign, true, stream);
  });
  return status;
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
