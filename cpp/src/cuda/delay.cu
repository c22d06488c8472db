/// @file
/// Delays (exodus/delay.hpp) on a device. As on the CPU, a pass counts steps r in its own direction: forward r = n, in the adjoint
/// r = T-1-n. Step r of the result then reads steps r-k and r-k-1 of what is delayed. A thread takes an element, or for the gradient of the
/// delay a neuron, through time.
#include "checks.hpp"
#include "exodus/cuda_delay.hpp"
#include "items.hpp"
#include "reduce.hpp"
#include "tiles.hpp"

namespace exodus::cuda {
namespace {

/// A call as the kernels see it; null: not given, not wanted.
template <class V>
struct DelayCall {
  Layout layout;
  Param<V> steps;
  std::int64_t most = 0;
  Divisor inner, time, neurons, repeat, count;
  bool backwards = false;
  Source from;                 ///< what is delayed: x, or dL/dy
  const V* before = nullptr;   ///< it before the first step; in the adjoint zero
  void* to = nullptr;          ///< y, or dL/dx, in the format of `from`
  V* state = nullptr;          ///< the final one, or the gradient of the initial one
  const V* direct = nullptr;   ///< adjoint: dL/d(final state)
  Source x;                    ///< adjoint, with `sums`: the input
  const V* initial = nullptr;
  double* sums = nullptr;

  template <class S>
  DelayCall(const Layout& of, const Delay<S>& delays)
      : layout(of),
        steps(delays.steps),
        most(delays.most),
        inner(of.inner),
        time(of.time),
        neurons(of.outer * of.inner),
        repeat(delays.steps.repeat),
        count(delays.steps.count),
        from{nullptr, format_of<S>},
        x{nullptr, format_of<S>} {}
};

/// A neuron, its delay, and its step 0 in arrays over time.
template <class V>
struct DelayedNeuron {
  std::int64_t neuron, base;
  Lag<V> lag;
};

template <class V>
EXODUS_DEVICE_SCALAR DelayedNeuron<V> neuron_of(const DelayCall<V>& call, std::int64_t outer, std::int64_t lane) {
  const std::int64_t neuron = outer * call.layout.inner + lane;
  V steps = call.steps.value;
  if (call.steps.data != nullptr) {
    const std::int64_t turn = quotient(neuron, call.repeat);
    steps = call.steps.data[turn - quotient(turn, call.count) * call.steps.count];
  }
  return {neuron, outer * call.layout.time * call.layout.inner + lane, lag_of(steps, call.most)};
}

template <class V>
EXODUS_DEVICE_SCALAR std::int64_t place_of(const DelayCall<V>& call, const DelayedNeuron<V>& own, std::int64_t r) {
  return own.base + (call.backwards ? call.layout.time - 1 - r : r) * call.layout.inner;
}

/// What is delayed, at a step that may be before the first or after the last.
template <class V>
EXODUS_DEVICE_SCALAR V value_at(const DelayCall<V>& call, const DelayedNeuron<V>& own, std::int64_t r) {
  if (r < 0) return call.before == nullptr ? V(0) : call.before[(-1 - r) * call.neurons.value + own.neuron];
  return r >= call.layout.time || call.from.data == nullptr ? V(0) : element<V>(call.from, place_of(call, own, r));
}

template <class V>
EXODUS_DEVICE_SCALAR V result_at(const DelayCall<V>& call, const DelayedNeuron<V>& own, std::int64_t r) {
  const std::int64_t delayed = r - own.lag.whole;
  const V near = value_at(call, own, delayed), far = own.lag.fraction == V(0) ? V(0) : value_at(call, own, delayed - 1);
  const V result = interpolate(own.lag.fraction, near, far);
  if (call.direct == nullptr || r > call.most) return result;
  return result + call.direct[r * call.neurons.value + own.neuron];
}

/// A thread for each element over time.
template <class V>
EXODUS_KERNEL(item_threads)
delay_kernel(EXODUS_GRID_CONSTANT DelayCall<V> call) {
  const std::int64_t items = call.neurons.value * call.layout.time;
  for (std::int64_t item = first_item(); item < items; item += next_item()) {
    const std::int64_t row = quotient(item, call.inner), lane = item - row * call.layout.inner;
    const std::int64_t outer = quotient(row, call.time), n = row - outer * call.layout.time;
    const DelayedNeuron<V> own = neuron_of(call, outer, lane);
    V result[1] = {result_at(call, own, call.backwards ? call.layout.time - 1 - n : n)};
    encode(call.from.format, result);
    put_bits(call.to, call.from.format, item, result[0]);
  }
}

/// A thread for each entry of a state: of the last steps, or of the gradients of those before the first.
template <class V>
EXODUS_KERNEL(item_threads)
delay_state_kernel(EXODUS_GRID_CONSTANT DelayCall<V> call) {
  const std::int64_t items = (call.most + 1) * call.neurons.value;
  for (std::int64_t item = first_item(); item < items; item += next_item()) {
    const std::int64_t entry = quotient(item, call.neurons), neuron = item - entry * call.neurons.value;
    const std::int64_t outer = quotient(neuron, call.inner);
    const DelayedNeuron<V> own = neuron_of(call, outer, neuron - outer * call.layout.inner);
    call.state[item] = call.backwards ? result_at(call, own, call.layout.time + entry) : value_at(call, own, call.layout.time - 1 - entry);
  }
}

/// A thread for each neuron: dL/dt.
template <class V>
EXODUS_KERNEL(item_threads)
delay_sums_kernel(EXODUS_GRID_CONSTANT DelayCall<V> call) {
  for (std::int64_t neuron = first_item(); neuron < call.neurons.value; neuron += next_item()) {
    const std::int64_t outer = quotient(neuron, call.inner), whole_time = call.layout.time;
    const DelayedNeuron<V> own = neuron_of(call, outer, neuron - outer * call.layout.inner);
    const std::int64_t last = whole_time + (call.initial == nullptr ? -1 : own.lag.whole);
    V far = V(0);
    double sum = 0;
    for (std::int64_t r = own.lag.whole; r <= last; ++r) {
      const V near = value_at(call, own, r - own.lag.whole);
      const V x =
          r < whole_time ? element<V>(call.x, place_of(call, own, r)) : call.initial[(r - whole_time) * call.neurons.value + neuron];
      sum += static_cast<double>(lag_term(x, near, far));
      far = near;
    }
    call.sums[neuron] = sum;
  }
}

template <class V>
Status launch_delay(const DelayCall<V>& call, Stream stream) {
  Status status = Status::ok;
  const std::int64_t neurons = call.neurons.value;
  if (call.to != nullptr) status = launch(delay_kernel<V>, {blocks_of(neurons * call.layout.time), item_threads}, stream, call);
  if (status == Status::ok && call.state != nullptr) {
    status = launch(delay_state_kernel<V>, {blocks_of((call.most + 1) * neurons), item_threads}, stream, call);
  }
  if (status == Status::ok && call.sums != nullptr) {
    status = launch(delay_sums_kernel<V>, {blocks_of(neurons), item_threads}, stream, call);
  }
  return status;
}

}   // namespace

template <class S>
Status delay(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Forward& arrays, Workspace, Stream stream) noexcept {
  if (const Status status = check_delay(layout, delays); status != Status::ok) return status;
  if (empty(layout)) return Status::ok;
  if (arrays.x == nullptr) return Status::null_pointer;
  const DeviceOf device(arrays.x);
  if (!device.ok()) return Status::cuda;
  DelayCall<arithmetic_t<S>> call(layout, delays);
  call.from.data = arrays.x;
  call.before = arrays.initial;
  call.to = arrays.output;
  call.state = arrays.final;
  return launch_delay(call, stream);
}

template <class S>
Status delay_adjoint(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Backward& arrays, Workspace workspace,
                     Stream stream) noexcept {
  if (const Status status = check_delay(layout, delays); status != Status::ok) return status;
  const bool with_sums = arrays.grad_steps != nullptr;
  const std::int64_t neurons = layout.outer * layout.inner;
  if (with_sums && !empty(layout)) {
    if (arrays.x == nullptr) return Status::null_pointer;
    if (workspace.bytes < cuda::workspace(layout, delays, arrays).bytes) return Status::workspace_too_small;
    if (workspace.data == nullptr) return Status::null_pointer;
  }
  const void* result = arrays.grad_x;
  if (result == nullptr) result = arrays.grad_initial;
  if (result == nullptr) result = arrays.grad_steps;
  if (result == nullptr || (empty(layout) && !with_sums)) return Status::ok;
  const DeviceOf device(empty(layout) ? arrays.grad_steps : result);
  if (!device.ok()) return Status::cuda;
  const Repeats shape{delays.steps.count, delays.steps.repeat};
  Sums sums;
  if (with_sums) sums.set(arrays.grad_steps, shape, {static_cast<const double*>(workspace.data), neurons});
  if (empty(layout)) return sums.launch(stream);
  DelayCall<arithmetic_t<S>> call(layout, delays);
  call.backwards = true;
  call.from.data = arrays.grad_output;
  call.to = arrays.grad_x;
  call.state = arrays.grad_initial;
  call.direct = arrays.grad_final;
  call.x.data = arrays.x;
  call.initial = arrays.initial;
  call.sums = with_sums ? static_cast<double*>(workspace.data) : nullptr;
  const Status status = launch_delay(call, stream);
  return status == Status::ok ? sums.launch(stream) : status;
}

template <class S>
Workspace workspace(const Layout&, const Delay<S>&, const typename Delay<S>::Forward&) noexcept {
  return {};
}

template <class S>
Workspace workspace(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Backward& arrays) noexcept {
  if (arrays.grad_steps == nullptr || check_delay(layout, delays) != Status::ok) return {};
  return {nullptr, static_cast<std::size_t>(layout.outer * layout.inner) * sizeof(double)};
}

#define EXODUS_INSTANTIATE(S)                                                                                                         \
  template EXODUS_API Status delay<S>(const Layout&, const Delay<S>&, const Delay<S>::Forward&, Workspace, Stream) noexcept;          \
  template EXODUS_API Status delay_adjoint<S>(const Layout&, const Delay<S>&, const Delay<S>::Backward&, Workspace, Stream) noexcept; \
  template EXODUS_API Workspace workspace<S>(const Layout&, const Delay<S>&, const Delay<S>::Forward&) noexcept;                      \
  template EXODUS_API Workspace workspace<S>(const Layout&, const Delay<S>&, const Delay<S>::Backward&) noexcept;
EXODUS_INSTANTIATE(float)
EXODUS_INSTANTIATE(double)
EXODUS_INSTANTIATE(float16)
EXODUS_INSTANTIATE(bfloat16)

}   // namespace exodus::cuda
