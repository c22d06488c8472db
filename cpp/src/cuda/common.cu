/// @file
/// What the models share: sums over neurons, decays and rotations, and whether there is a device.
#include "exodus/cuda_functions.hpp"

#include "checks.hpp"
#include "fir.hpp"
#include "items.hpp"

namespace exodus::cuda {
namespace {

/// The sum over every `stride`-th neuron of value c, from the `begin`-th on; the values of a row come after those of the row before.
EXODUS_DEVICE_SCALAR double sum_of(const double* sums, std::int64_t neurons, const Repeats& shape, std::int64_t c, std::int64_t begin,
                                   std::int64_t stride) {
  const std::int64_t period = shape.count * shape.repeat, end = (neurons + period - 1) / period * shape.repeat;
  sums += c / shape.count * neurons, c %= shape.count;
  double total = 0;
  for (std::int64_t k = begin; k < end; k += stride) {   // some are beyond the last neuron
    const std::int64_t neuron = (k / shape.repeat * shape.count + c) * shape.repeat + k % shape.repeat;
    if (neuron < neurons) total += sums[neuron];
  }
  return total;
}

EXODUS_DEVICE_SCALAR void write_sum(double* out, double total, int sign, bool adds) {
  *out = (adds ? *out : 0.0) + sign * total;
}

/// A thread for each value: few neurons have it.
EXODUS_KERNEL(item_threads)
sum_few_kernel(const double* sums, std::int64_t neurons, const Repeats shape, double* out, int sign, bool adds, std::int64_t values) {
  for (std::int64_t c = std::int64_t{blockIdx.x} * item_threads + threadIdx.x; c < values; c += std::int64_t{gridDim.x} * item_threads) {
    write_sum(out + c, sum_of(sums, neurons, shape, c, 0, 1), sign, adds);
  }
}

/// A block for each value: each of its threads takes every so many of the neurons that have it; then they add up in pairs.
EXODUS_KERNEL(item_threads)
sum_many_kernel(const double* sums, std::int64_t neurons, const Repeats shape, double* out, int sign, bool adds, std::int64_t values) {
  constexpr int warps = item_threads / warp_threads;
  EXODUS_SHARED(double, of_warps, warps);
  const int thread = static_cast<int>(threadIdx.x);
  for (std::int64_t c = blockIdx.x; c < values; c += gridDim.x) {
    double total = sum_of(sums, neurons, shape, c, thread, item_threads);
    for (unsigned delta = warp_threads / 2u; delta > 0; delta /= 2) total += __shfl_down_sync(0xffffffffu, total, delta);
    if (thread % warp_threads == 0) of_warps[thread / warp_threads] = total;
    __syncthreads();
    if (thread == 0) {
      total = 0;
      for (int warp = 0; warp < warps; ++warp) total += of_warps[warp];
      write_sum(out + c, total, sign, adds);
    }
    __syncthreads();
  }
}

template <class V>
EXODUS_DEVICE_SCALAR std::int64_t place_of(const FirAfter<V>& fir, std::int64_t neuron, std::int64_t step) {
  const std::int64_t outer = quotient(neuron, fir.inner);
  return (outer * (fir.layout.time - 1) + step) * fir.layout.inner + neuron;
}

/// A thread for each neuron and step from `begin` on, before step 0 too.
template <class V>
EXODUS_KERNEL(item_threads)
correlate_kernel(EXODUS_GRID_CONSTANT FirAfter<V> fir, std::int64_t begin, std::int64_t end) {
  const std::int64_t neurons = fir.neurons.value;
  for (std::int64_t item = first_item(); item < (end - begin) * neurons; item += next_item()) {
    const std::int64_t row = quotient(item, fir.neurons), step = begin + row, neuron = item - row * neurons;
    const OwnTaps<V> taps = taps_of(fir.role.taps, fir.repeat, fir.count, neuron);
    V sum[1] = {correlation(taps, fir.lam, fir.role.grad_final, neurons, neuron, step + fir.lead, fir.layout.time)};
    const std::int64_t of_initial = -1 - fir.lead - step;
    if (step >= 0) {
      encode(fir.inputs.format, sum);
      put_bits(fir.grad_inputs, fir.inputs.format, place_of(fir, neuron, step), sum[0]);
    } else if (of_initial >= 0) {   // the pass has what the spikes of step -1 get
      fir.role.grad_initial[of_initial * neurons + neuron] = sum[0];
    }
  }
}

/// A thread for each neuron and tap.
template <class V>
EXODUS_KERNEL(item_threads)
sum_taps_kernel(EXODUS_GRID_CONSTANT FirAfter<V> fir) {
  constexpr std::int64_t terms_steps = 32;   // summed in V before they go to the double
  const std::int64_t neurons = fir.neurons.value;
  for (std::int64_t item = first_item(); item < fir.role.taps.length * neurons; item += next_item()) {
    const std::int64_t tap = quotient(item, fir.neurons), neuron = item - tap * neurons;
    const Before<V> before{fir.role.initial, fir.last, neurons, neuron, fir.lead == 1};
    double total = 0;
    for (std::int64_t begin = before.given() ? 0 : tap + fir.lead; begin < fir.layout.time; begin += terms_steps) {
      V partial = V(0);
      for (std::int64_t n = begin; n < begin + terms_steps && n < fir.layout.time; ++n) {
        const std::int64_t step = n - fir.lead - tap;
        const std::int64_t at = fir.inputs_lie ? place_of(fir, neuron, step) : step * neurons + neuron;
        partial = multiply_add(fir.lam[n * neurons + neuron], step < 0 ? before[step] : element<V>(fir.inputs, at), partial);
      }
      total += static_cast<double>(partial);
    }
    fir.role.sums[item] = total;
  }
}

/// A thread for each decay.
EXODUS_KERNEL(item_threads)
decay_kernel(EXODUS_GRID_CONSTANT Param<double> dt, EXODUS_GRID_CONSTANT Param<double> tau, std::int64_t count, double* decays) {
  for (std::int64_t k = first_item(); k < count; k += next_item()) decays[k] = exodus::decay(value_of(dt, k), value_of(tau, k));
}

/// A thread for each angle.
EXODUS_KERNEL(item_threads)
rotation_kernel(EXODUS_GRID_CONSTANT Param<double> angle, std::int64_t count, double* cosines, double* sines) {
  for (std::int64_t k = first_item(); k < count; k += next_item()) {
    const Rotation turned = exodus::rotation(value_of(angle, k));
    cosines[k] = turned.cosine, sines[k] = turned.sine;
  }
}

}   // namespace

Status reduce(const double* sums, std::int64_t neurons, Repeats shape, double* out, int sign, bool adds, cudaStream_t stream,
              std::int64_t rows) {
  const bool few = neurons / shape.count <= warp_threads;
  const std::int64_t values = shape.count * rows;
  return launch(few ? sum_few_kernel : sum_many_kernel, {few ? blocks_of(values) : blocks_for(values), item_threads}, stream, sums, neurons,
                shape, out, sign, adds, values);
}

template <class V>
Status correlate(const FirAfter<V>& fir, cudaStream_t stream) {
  const std::int64_t begin = fir.role.grad_initial != nullptr ? 1 - fir.lead - fir.role.taps.length : 0;
  const std::int64_t end = fir.grad_inputs != nullptr ? fir.layout.time : 0;
  if (begin == end) return Status::ok;
  return launch(correlate_kernel<V>, {blocks_of((end - begin) * fir.neurons.value), item_threads}, stream, fir, begin, end);
}

template <class V>
Status sum_taps(const FirAfter<V>& fir, cudaStream_t stream) {
  return launch(sum_taps_kernel<V>, {blocks_of(fir.role.taps.length * fir.neurons.value), item_threads}, stream, fir);
}

template Status correlate(const FirAfter<float>&, cudaStream_t);
template Status correlate(const FirAfter<double>&, cudaStream_t);
template Status sum_taps(const FirAfter<float>&, cudaStream_t);
template Status sum_taps(const FirAfter<double>&, cudaStream_t);

Status decay(const Param<double>& dt, const Param<double>& tau, std::int64_t count, double* decays, Stream stream) noexcept {
  if (count < 0) return Status::bad_layout;
  if (!valid(dt) || !valid(tau)) return Status::bad_parameter;
  if (count == 0) return Status::ok;
  if (decays == nullptr) return Status::null_pointer;
  const DeviceOf device(decays);
  if (!device.ok()) return Status::cuda;
  return launch(decay_kernel, {blocks_of(count), item_threads}, stream, dt, tau, count, decays);
}

Status rotation(const Param<double>& angle, std::int64_t count, double* cosines, double* sines, Stream stream) noexcept {
  if (count < 0) return Status::bad_layout;
  if (!valid(angle)) return Status::bad_parameter;
  if (count == 0) return Status::ok;
  if (cosines == nullptr || sines == nullptr) return Status::null_pointer;
  const DeviceOf device(cosines);
  if (!device.ok()) return Status::cuda;
  return launch(rotation_kernel, {blocks_of(count), item_threads}, stream, angle, count, cosines, sines);
}

Status wait(const void* memory, Stream stream) noexcept {
  const DeviceOf device(memory);
  return device.ok() ? checked(cudaStreamSynchronize(stream)) : Status::cuda;
}

const char* last_error() noexcept {
  return last_words;
}

const char* unavailable() noexcept {
  return why_unavailable();
}

}   // namespace exodus::cuda
