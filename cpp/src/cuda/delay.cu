/// @file
/// Delays (exodus/delay.hpp) on a device. As on the CPU, a pass counts steps r in its own direction: r = n in the forward pass, and
/// r = T-1-n in the adjoint. Step r of the result then reads steps r-k and r-k-1 of the input of the pass. A thread computes several steps
/// of a neuron, whose loads are in flight together. For the gradient of the delay, a thread loops over all steps of a neuron.
#include "checks.hpp"
#include "exodus/cuda_delay.hpp"
#include "items.hpp"
#include "reduce.hpp"
#include "tiles.hpp"

namespace exodus::cuda {
namespace {

/// A call as passed to kernels. Pointers are null if an array is not given or not wanted.
template <class V>
struct DelayCall {
  Layout layout;
  Param<V> steps;
  std::int64_t most = 0;
  Divisor inner, time, neurons, repeat, count;
  bool backwards = false;
  Source from;                 ///< the input of the pass: x, or dL/dy
  const V* before = nullptr;   ///< the inputs before the first step; zero in the adjoint
  void* to = nullptr;          ///< y, or dL/dx, in the format of `from`
  V* state = nullptr;          ///< the final state, or the gradient of the initial state
  const V* direct = nullptr;   ///< adjoint: dL/d(final state)
  Source x;                    ///< adjoint: x, if `sums` is wanted
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

/// A neuron, the offset of its step 0 in arrays over time, and its delay.
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

/// The input of the pass at a step that may be before the first or after the last.
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

/// The work of warps. A warp processes neighbouring elements; if the inner axis is narrower than a warp, they span several steps.
struct WarpWork {
  int lanes, rows;          ///< neurons, and steps that a warp covers at once
  Divisor groups, chunks;   ///< the number of groups of neurons per outer index, and of chunks of time
  std::int64_t items;

  WarpWork(const Layout& layout, int steps_of_thread)
      : lanes(layout.inner < warp_threads ? static_cast<int>(layout.inner) : warp_threads),
        rows(warp_threads / lanes),
        groups((layout.inner + lanes - 1) / lanes),
        chunks((layout.time + rows * steps_of_thread - 1) / (rows * steps_of_thread)),
        items(layout.outer * groups.value * chunks.value) {}
};

/// Several steps of a neuron, r = first + d * rows.
template <class V, int D>
struct DelayedSteps {
  std::int64_t first;
  int rows, steps;   ///< steps: the number of steps, at most D

  /// bits[d] = the bits of the input at r - lag, or 0 if it is outside the array.
  template <class T>
  EXODUS_DEVICE void load(const DelayCall<V>& call, const DelayedNeuron<V>& own, std::int64_t lag, V (&bits)[D]) const {
    const T* const array = static_cast<const T*>(call.from.data);
    const std::int64_t from = first - lag, begin = place_of(call, own, from), time = call.layout.time;
    const std::int64_t stride = (call.backwards ? -rows : rows) * call.layout.inner;
    if (array != nullptr && from >= 0 && from + (D - 1) * rows < time) {
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) bits[d] = carried<V>(array[begin + d * stride]);
    } else {
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) {
        const std::int64_t r = from + d * rows;
        const bool there = array != nullptr && d < steps && r >= 0;
        bits[d] = there ? carried<V>(array[begin + d * stride]) : V(0);
      }
    }
  }

  /// values[d] = the input at r - lag, which may precede the first step.
  EXODUS_DEVICE void read(const DelayCall<V>& call, const DelayedNeuron<V>& own, std::int64_t lag, V (&values)[D]) const {
    if (in_halves<V>(call.from.format)) {
      load<std::uint16_t>(call, own, lag, values);
    } else {
      load<V>(call, own, lag, values);
    }
    decode(call.from.format, values);
    if (call.before == nullptr || first - lag >= 0) return;
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) {
      const std::int64_t r = first + d * rows - lag;
      if (d < steps && r < 0) values[d] = call.before[(-1 - r) * call.neurons.value + own.neuron];
    }
  }
};

/// One warp per piece of work.
template <class V, int D>
EXODUS_KERNEL(item_threads)
delay_kernel(EXODUS_GRID_CONSTANT DelayCall<V> call, EXODUS_GRID_CONSTANT WarpWork work) {
  const int thread = static_cast<int>(threadIdx.x) % warp_threads, row = thread / work.lanes;
  const std::int64_t inner = call.layout.inner;
  for (std::int64_t item = first_item() / warp_threads; item < work.items; item += next_item() / warp_threads) {
    const std::int64_t piece = quotient(item, work.groups), outer = quotient(piece, work.chunks);
    const std::int64_t lane = (item - piece * work.groups.value) * work.lanes + (thread - row * work.lanes);
    const std::int64_t first = (piece - outer * work.chunks.value) * (work.rows * D) + row, left = call.layout.time - first;
    if (row >= work.rows || lane >= inner || left <= 0) continue;
    const std::int64_t turns = (left - 1) / work.rows + 1;
    const DelayedSteps<V, D> at{first, work.rows, turns < D ? static_cast<int>(turns) : D};
    const DelayedNeuron<V> own = neuron_of(call, outer, lane);
    V near[D], far[D] = {}, result[D];
    at.read(call, own, own.lag.whole, near);
    if (own.lag.fraction != V(0)) at.read(call, own, own.lag.whole + 1, far);
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) result[d] = interpolate(own.lag.fraction, near[d], far[d]);
    if (call.direct != nullptr) {
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) {
        const std::int64_t r = first + d * work.rows;
        if (d < at.steps && r <= call.most) result[d] = result[d] + call.direct[r * call.neurons.value + own.neuron];
      }
    }
    encode(call.from.format, result);
    const std::int64_t begin = place_of(call, own, first), stride = (call.backwards ? -work.rows : work.rows) * inner;
    if (in_halves<V>(call.from.format)) {
      store_lane(static_cast<std::uint16_t*>(call.to), begin, stride, {0, at.steps, at.steps == D}, result);
    } else {
      store_lane(static_cast<V*>(call.to), begin, stride, {0, at.steps, at.steps == D}, result);
    }
  }
}

template <int D, class V>
Status launch_steps(const DelayCall<V>& call, Stream stream) {
  const WarpWork work(call.layout, D);
  return launch(delay_kernel<V, D>, {blocks_of(work.items * warp_threads), item_threads}, stream, call, work);
}

/// One thread per entry of the state: the last inputs, or the gradients of those before the first step.
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

/// dL/dt, with one thread per neuron. The loads of steps_ahead steps are issued together.
template <class V>
EXODUS_KERNEL(item_threads)
delay_sums_kernel(EXODUS_GRID_CONSTANT DelayCall<V> call) {
  constexpr int steps_ahead = 8;
  for (std::int64_t neuron = first_item(); neuron < call.neurons.value; neuron += next_item()) {
    const std::int64_t outer = quotient(neuron, call.inner), whole_time = call.layout.time;
    const DelayedNeuron<V> own = neuron_of(call, outer, neuron - outer * call.layout.inner);
    const std::int64_t last = whole_time + (call.initial == nullptr ? -1 : own.lag.whole);
    V far = V(0);
    double sum = 0;
    for (std::int64_t first = own.lag.whole; first <= last; first += steps_ahead) {
      V near[steps_ahead], x[steps_ahead];
      EXODUS_UNROLL
      for (int d = 0; d < steps_ahead; ++d) {
        const std::int64_t r = first + d, delayed = r - own.lag.whole;
        near[d] = delayed < whole_time && call.from.data != nullptr ? bits_at<V>(call.from, place_of(call, own, delayed)) : V(0);
        x[d] = r < whole_time ? bits_at<V>(call.x, place_of(call, own, r)) : V(0);
      }
      decode(call.from.format, near);
      decode(call.x.format, x);
      EXODUS_UNROLL
      for (int d = 0; d < steps_ahead; ++d) {
        const std::int64_t r = first + d;
        if (r > last) break;
        if (r >= whole_time) x[d] = call.initial[(r - whole_time) * call.neurons.value + neuron];
        sum += static_cast<double>(lag_term(x[d], near[d], far));
        far = near[d];
      }
    }
    call.sums[neuron] = sum;
  }
}

template <class V>
Status launch_delay(const DelayCall<V>& call, Stream stream) {
  Status status = Status::ok;
  const std::int64_t neurons = call.neurons.value;
  if (call.to != nullptr) status = call.layout.inner < warp_threads ? launch_steps<8>(call, stream) : launch_steps<16>(call, stream);
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
