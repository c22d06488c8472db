/// @file
/// Functions that do not depend on a model: sums over neurons, decays and rotations, and the query for a device.
#include "exodus/cuda_functions.hpp"

#include "checks.hpp"
#include "fir.hpp"
#include "items.hpp"
#include "reduce.hpp"

namespace exodus::cuda {
namespace {

constexpr int sum_threads = 256, terms_ahead = 8;

/// The sums of one launch, passed by value.
struct SumPlan {
  Sum sums[Sums::most];
  int count;
};

/// The sum of every `stride`-th term of value c, starting at term `begin`. The loads of terms_ahead terms are issued before the first is
/// used.
EXODUS_DEVICE_SCALAR double sum_of(const Sum& sum, const Summand& summand, std::int64_t c, std::int64_t begin, std::int64_t stride) {
  const std::int64_t row = quotient(c, sum.count), count = sum.count.value, repeat = sum.repeat.value, length = summand.length;
  const double* const from = summand.from + row * length;
  c -= row * count;
  double total = 0;
  for (std::int64_t k = begin;; k += terms_ahead * stride) {
    std::int64_t index = 0;
    double terms[terms_ahead];
    EXODUS_UNROLL
    for (int d = 0; d < terms_ahead; ++d) {
      const std::int64_t kth = k + d * stride;
      index = (quotient(kth, sum.repeat) * (count - 1) + c) * repeat + kth;   // the k-th term of value c
      terms[d] = index < length ? from[index] : 0.0;
    }
    EXODUS_UNROLL
    for (int d = 0; d < terms_ahead; ++d) total += terms[d];
    if (index >= length) return total;
  }
}

/// A block computes `wide` values of a sum at a time: one, one per lane of a warp, or one per thread. Its threads divide the terms of each
/// value among them. The partial sums are then added by warp shuffles if all lanes have the same value, and across warps in order, so the
/// result is deterministic.
EXODUS_KERNEL(sum_threads)
sum_kernel(EXODUS_GRID_CONSTANT SumPlan plan, std::int64_t blocks) {
  constexpr int warps = sum_threads / warp_threads;
  EXODUS_SHARED(double, of_warps, sum_threads);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / warp_threads, lane = thread % warp_threads;
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    int which = 0;
    while (block >= plan.sums[which].end) ++which;
    const Sum& sum = plan.sums[which];
    const int wide = sum.wide;
    const std::int64_t c = (block - (which == 0 ? 0 : plan.sums[which - 1].end)) * wide + thread % wide;
    double total = 0;
    for (const Summand& summand : sum.summands) {
      if (summand.length > 0 && c < sum.values) total += summand.sign * sum_of(sum, summand, c, thread / wide, sum_threads / wide);
    }
    if (wide == 1) {
      for (unsigned delta = warp_threads / 2u; delta > 0; delta /= 2) total += __shfl_down_sync(0xffffffffu, total, delta);
    }
    if (wide < sum_threads) {
      if (lane < wide) of_warps[warp * wide + lane] = total;
      __syncthreads();
      if (thread < wide) {
        total = 0;
        for (int k = 0; k < warps; ++k) total += of_warps[k * wide + thread];
      }
      __syncthreads();
    }
    if (thread < wide && c < sum.values) sum.out[c] = total;
  }
}

/// The number of values that a block computes at a time. It gives every thread enough terms, and coalesced loads where possible.
int width_of(const Sum& sum) {
  constexpr std::int64_t few = 32, short_runs = 4;
  if (sum.summands[0].length / sum.count.value <= few) return sum_threads;
  return sum.values >= warp_threads && sum.repeat.value <= short_runs ? warp_threads : 1;
}

/// The offset of step 0 of a neuron in the layout of the call.
template <class V>
EXODUS_DEVICE_SCALAR std::int64_t offset_of(const FirLaunch<V>& fir, std::int64_t neuron) {
  return quotient(neuron, fir.inner) * (fir.layout.time - 1) * fir.layout.inner + neuron;
}

/// Where the steps of a neuron are in an array that is in the layout of the call or not (see FirLaunch).
template <class V>
class Offsets {
 public:
  EXODUS_DEVICE Offsets(const FirLaunch<V>& fir, bool in_layout, std::int64_t neuron)
      : first_(in_layout ? offset_of(fir, neuron) : neuron), stride_(in_layout ? fir.layout.inner : fir.neurons.value) {}
  EXODUS_DEVICE std::int64_t operator[](std::int64_t step) const { return first_ + step * stride_; }

 private:
  const std::int64_t first_, stride_;
};

/// One thread per neuron and `fir_results` steps. Also stores the last inputs as the final history.
template <class V>
EXODUS_KERNEL(item_threads)
filter_kernel(EXODUS_GRID_CONSTANT FirLaunch<V> fir, std::int64_t items) {
  constexpr int results = fir_results;
  const std::int64_t neurons = fir.neurons.value, time = fir.layout.time, inner = fir.layout.inner;
  for (std::int64_t item = first_item(); item < items; item += next_item()) {
    const std::int64_t row = quotient(item, fir.neurons), first = row * results, neuron = item - row * neurons;
    const std::int64_t offset = offset_of(fir, neuron), newest = first + results - 1;
    const OwnTaps<V> taps = taps_of(fir.role.taps, fir.repeat, fir.count, neuron);
    const Before<V> before{fir.role.initial, nullptr, neurons, neuron, false};
    const auto input = [&](std::int64_t step)
                           EXODUS_INLINE { return step < 0 ? before[step] : element<V>(fir.inputs, offset + step * inner); };
    const std::int64_t begin = newest < time ? 0 : newest - time + 1, all = taps.count + results - 1;
    V sums[results] = {};
    slide<false>(
        taps, begin, before.given() || all < newest + 1 ? all : newest + 1, [&](std::int64_t m) EXODUS_INLINE { return input(newest - m); },
        sums);
    EXODUS_UNROLL
    for (int d = 0; d < results; ++d) {
      if (first + d < time) fir.filtered[offset + (first + d) * inner] = sums[d];
    }
    // Each thread has the entries of its own steps, and the first also those of steps before the pass.
    std::int64_t entry = newest < time ? time - 1 - newest : 0;
    const std::int64_t entries = first == 0 || time - first > taps.count - 1 ? taps.count - 1 : time - first;
    if (fir.role.final == nullptr) continue;
    for (; entry < entries; ++entry) fir.role.final[entry * neurons + neuron] = input(time - 1 - entry);
  }
}

/// One thread per neuron and `fir_results` steps of [begin, end). `begin` may be negative.
template <class V>
EXODUS_KERNEL(item_threads)
correlate_kernel(EXODUS_GRID_CONSTANT FirLaunch<V> fir, std::int64_t begin, std::int64_t end, std::int64_t items) {
  constexpr int results = fir_results;
  const std::int64_t neurons = fir.neurons.value, time = fir.layout.time;
  for (std::int64_t item = first_item(); item < items; item += next_item()) {
    const std::int64_t row = quotient(item, fir.neurons), first = begin + row * results, neuron = item - row * neurons;
    const std::int64_t offset = offset_of(fir, neuron), oldest = first + fir.lead;   // the first step that the first of the inputs reaches
    const OwnTaps<V> taps = taps_of(fir.role.taps, fir.repeat, fir.count, neuron);
    const Offsets<V> of_lam(fir, fir.lam_in_layout, neuron);
    const std::int64_t all = taps.count + results - 1;
    V sums[results] = {};   // the last step first
    slide<true>(
        taps, oldest < 0 ? -oldest : 0, all < time - oldest ? all : time - oldest,
        [&](std::int64_t m) EXODUS_INLINE { return fir.lam[of_lam[oldest + m]]; }, sums);
    EXODUS_UNROLL
    for (int d = 0; d < results; ++d) {
      const std::int64_t step = first + d, entry = time - 1 - fir.lead - step, of_initial = -1 - fir.lead - step;
      V sum[1] = {sums[results - 1 - d]};
      if (step >= end) continue;
      if (fir.role.grad_final != nullptr && entry >= 0 && entry < taps.count - 1) sum[0] += fir.role.grad_final[entry * neurons + neuron];
      if (step >= 0) {
        encode(fir.inputs.format, sum);
        put_bits(fir.grad_inputs, fir.inputs.format, offset + step * fir.layout.inner, sum[0]);
      } else if (of_initial >= 0) {   // the pass itself computes the gradient of the spikes of step -1
        fir.role.grad_initial[of_initial * neurons + neuron] = sum[0];
      }
    }
  }
}

/// One thread per neuron and `fir_results` taps.
template <class V>
EXODUS_KERNEL(item_threads)
sum_taps_kernel(EXODUS_GRID_CONSTANT FirLaunch<V> fir, std::int64_t items) {
  constexpr int results = fir_results;
  constexpr std::int64_t terms_steps = 32;   // terms summed in V before they are added to the double
  const std::int64_t neurons = fir.neurons.value, time = fir.layout.time;
  for (std::int64_t item = first_item(); item < items; item += next_item()) {
    const std::int64_t row = quotient(item, fir.neurons), tap = row * results, neuron = item - row * neurons;
    const std::int64_t lag = tap + fir.lead;   // from the newest of the inputs to the step that reads it
    const Offsets<V> of_inputs(fir, fir.inputs_in_layout, neuron), of_lam(fir, fir.lam_in_layout, neuron);
    const Before<V> before{fir.role.initial, fir.last, neurons, neuron, fir.lead == 1};
    const auto input = [&](std::int64_t step) EXODUS_INLINE {
      if (step < 0) return before.given() ? before[step] : V(0);
      return element<V>(fir.inputs, of_inputs[step]);
    };
    const std::int64_t begin = before.given() ? 0 : lag;
    double totals[results] = {};
    V partial[results] = {}, window[results];   // window[d]: the input that tap + d multiplies
    EXODUS_UNROLL
    for (int d = 1; d < results; ++d) window[d - 1] = tap + d < fir.role.taps.length ? input(begin - lag - d) : V(0);
    const auto add = [&](std::int64_t n) EXODUS_INLINE {
      EXODUS_UNROLL
      for (int d = results - 1; d > 0; --d) window[d] = window[d - 1];
      window[0] = input(n - lag);
      const V lam = fir.lam[of_lam[n]];
      EXODUS_UNROLL
      for (int d = 0; d < results; ++d) {
        if (before.given() || n >= lag + d) partial[d] = multiply_add(lam, window[d], partial[d]);
      }
    };
    for (std::int64_t n = begin; n < time;) {
      const std::int64_t stop = n + terms_steps < time ? n + terms_steps : time;
      for (; n + results <= stop; n += results) {
        EXODUS_UNROLL
        for (int r = 0; r < results; ++r) add(n + r);
      }
      for (; n < stop; ++n) add(n);
      EXODUS_UNROLL
      for (int d = 0; d < results; ++d) totals[d] += static_cast<double>(partial[d]), partial[d] = V(0);
    }
    EXODUS_UNROLL
    for (int d = 0; d < results; ++d) {
      if (tap + d < fir.role.taps.length) fir.role.sums[(tap + d) * neurons + neuron] = totals[d];
    }
  }
}

/// The threads for `count` results of each neuron.
template <class V>
std::int64_t items_of(const FirLaunch<V>& fir, std::int64_t count) {
  return (count + fir_results - 1) / fir_results * fir.neurons.value;
}

/// One thread per decay.
EXODUS_KERNEL(item_threads)
decay_kernel(EXODUS_GRID_CONSTANT Param<double> dt, EXODUS_GRID_CONSTANT Param<double> tau, std::int64_t count, double* decays) {
  for (std::int64_t k = first_item(); k < count; k += next_item()) decays[k] = exodus::decay(value_of(dt, k), value_of(tau, k));
}

/// One thread per angle.
EXODUS_KERNEL(item_threads)
rotation_kernel(EXODUS_GRID_CONSTANT Param<double> angle, std::int64_t count, double* cosines, double* sines) {
  for (std::int64_t k = first_item(); k < count; k += next_item()) {
    const Rotation turned = exodus::rotation(value_of(angle, k));
    cosines[k] = turned.cosine, sines[k] = turned.sine;
  }
}

/// The lists of learnt_numbers() and learnt_gradients(), as they are passed to a kernel.
template <class In, class Out>
struct LearntLists {
  LearntRange ranges[max_parameters];
  const In* in[max_parameters];
  Out* out[max_parameters];
};

template <class T, class V>
EXODUS_KERNEL(item_threads)
learnt_numbers_kernel(EXODUS_GRID_CONSTANT LearntLists<T, V> lists, std::int64_t count, LearntNumber* numbers) {
  for (std::int64_t k = first_item(); k < count; k += next_item()) {
    const LearntNumber number = learnt_number(lists.ranges[k], static_cast<double>(*lists.in[k]));
    numbers[k] = number;
    *lists.out[k] = static_cast<V>(number.model);
  }
}

template <class V>
EXODUS_KERNEL(item_threads)
learnt_gradients_kernel(EXODUS_GRID_CONSTANT LearntLists<double, V> lists, std::int64_t count, const LearntNumber* numbers) {
  for (std::int64_t k = first_item(); k < count; k += next_item()) {
    if (lists.out[k] != nullptr) *lists.out[k] = static_cast<V>(learnt_gradient(lists.ranges[k], numbers[k], *lists.in[k]));
  }
}

}   // namespace

void Sums::set(double* out, Repeats shape, Summand summand, std::int64_t rows) {
  Sum& sum = sums_[count_++];
  sum.out = out, sum.count = Divisor(shape.count), sum.repeat = Divisor(shape.repeat), sum.values = shape.count * rows;
  sum.summands[0] = summand;
}

void Sums::add(const double* out, Summand summand) {
  for (int k = 0; k < count_; ++k) {
    if (sums_[k].out == out) sums_[k].summands[1] = summand;
  }
}

Status Sums::launch(cudaStream_t stream) const {
  if (count_ == 0) return Status::ok;
  SumPlan plan{{}, count_};
  std::int64_t end = 0;
  for (int k = 0; k < count_; ++k) {
    Sum& sum = plan.sums[k];
    sum = sums_[k];
    sum.wide = width_of(sum);
    sum.end = end += (sum.values + sum.wide - 1) / sum.wide;
  }
  return cuda::launch(sum_kernel, {blocks_for(end), sum_threads}, stream, plan, end);
}

template <class V>
Status filter(const FirLaunch<V>& fir, cudaStream_t stream) {
  const std::int64_t items = items_of(fir, fir.layout.time);
  return launch(filter_kernel<V>, {blocks_of(items), item_threads}, stream, fir, items);
}

template <class V>
Status correlate(const FirLaunch<V>& fir, cudaStream_t stream) {
  const std::int64_t begin = fir.role.grad_initial != nullptr ? 1 - fir.lead - fir.role.taps.length : 0;
  const std::int64_t end = fir.grad_inputs != nullptr ? fir.layout.time : 0, items = items_of(fir, end - begin);
  if (items == 0) return Status::ok;
  return launch(correlate_kernel<V>, {blocks_of(items), item_threads}, stream, fir, begin, end, items);
}

template <class V>
Status sum_taps(const FirLaunch<V>& fir, cudaStream_t stream) {
  const std::int64_t items = items_of(fir, fir.role.taps.length);
  return launch(sum_taps_kernel<V>, {blocks_of(items), item_threads}, stream, fir, items);
}

#define EXODUS_INSTANTIATE(V)                                   \
  template Status filter(const FirLaunch<V>&, cudaStream_t);    \
  template Status correlate(const FirLaunch<V>&, cudaStream_t); \
  template Status sum_taps(const FirLaunch<V>&, cudaStream_t);
EXODUS_INSTANTIATE(float)
EXODUS_INSTANTIATE(double)
#undef EXODUS_INSTANTIATE

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

template <class T, class V>
Status learnt_numbers(int count, const LearntRange* ranges, const T* const* values, LearntNumber* numbers, V* parameters,
                      Stream stream) noexcept {
  if (count < 0 || count > max_parameters) return Status::bad_parameter;
  if (count == 0) return Status::ok;
  if (ranges == nullptr || values == nullptr || numbers == nullptr || parameters == nullptr) return Status::null_pointer;
  LearntLists<T, V> lists{};
  for (int k = 0; k < count; ++k) {
    if (values[k] == nullptr) return Status::null_pointer;
    lists.ranges[k] = ranges[k], lists.in[k] = values[k], lists.out[k] = parameters + k;
  }
  const DeviceOf device(numbers);
  if (!device.ok()) return Status::cuda;
  return launch(learnt_numbers_kernel<T, V>, {blocks_of(count), item_threads}, stream, lists, std::int64_t{count}, numbers);
}

template <class V>
Status learnt_gradients(int count, const LearntRange* ranges, const LearntNumber* numbers, const double* const* sums, V* const* gradients,
                        Stream stream) noexcept {
  if (count < 0 || count > max_parameters) return Status::bad_parameter;
  if (count == 0) return Status::ok;
  if (ranges == nullptr || numbers == nullptr || sums == nullptr || gradients == nullptr) return Status::null_pointer;
  LearntLists<double, V> lists{};
  for (int k = 0; k < count; ++k) {
    if (gradients[k] != nullptr && sums[k] == nullptr) return Status::null_pointer;
    lists.ranges[k] = ranges[k], lists.in[k] = sums[k], lists.out[k] = gradients[k];
  }
  const DeviceOf device(numbers);
  if (!device.ok()) return Status::cuda;
  return launch(learnt_gradients_kernel<V>, {blocks_of(count), item_threads}, stream, lists, std::int64_t{count}, numbers);
}

#define EXODUS_INSTANTIATE(V)                                                                                                   \
  template EXODUS_API Status learnt_numbers(int, const LearntRange*, const float* const*, LearntNumber*, V*, Stream) noexcept;  \
  template EXODUS_API Status learnt_numbers(int, const LearntRange*, const double* const*, LearntNumber*, V*, Stream) noexcept; \
  template EXODUS_API Status learnt_gradients(int, const LearntRange*, const LearntNumber*, const double* const*, V* const*,    \
                                              Stream) noexcept;
EXODUS_INSTANTIATE(float)
EXODUS_INSTANTIATE(double)
#undef EXODUS_INSTANTIATE

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
