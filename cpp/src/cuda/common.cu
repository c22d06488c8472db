/// @file
/// What the models share: sums over neurons, and whether there is a device.
#include "exodus/cuda.hpp"

#include "reduce.hpp"

namespace exodus::cuda {
namespace {

constexpr int reduce_threads = 128;

/// The sum over every `stride`-th neuron of value c, from the `begin`-th on.
EXODUS_DEVICE_SCALAR double sum_of(const double* sums, std::int64_t neurons, const Repeats& shape, std::int64_t c, std::int64_t begin,
                                   std::int64_t stride) {
  const std::int64_t period = shape.count * shape.repeat, end = (neurons + period - 1) / period * shape.repeat;
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
EXODUS_KERNEL(reduce_threads)
sum_few_kernel(const double* sums, std::int64_t neurons, const Repeats shape, double* out, int sign, bool adds) {
  for (std::int64_t c = std::int64_t{blockIdx.x} * reduce_threads + threadIdx.x; c < shape.count;
       c += std::int64_t{gridDim.x} * reduce_threads) {
    write_sum(out + c, sum_of(sums, neurons, shape, c, 0, 1), sign, adds);
  }
}

/// A block for each value: each of its threads takes every so many of the neurons that have it; then they add up in pairs.
EXODUS_KERNEL(reduce_threads)
sum_many_kernel(const double* sums, std::int64_t neurons, const Repeats shape, double* out, int sign, bool adds) {
  constexpr int warps = reduce_threads / warp_threads;
  EXODUS_SHARED(double, of_warps, warps);
  const int thread = static_cast<int>(threadIdx.x);
  for (std::int64_t c = blockIdx.x; c < shape.count; c += gridDim.x) {
    double total = sum_of(sums, neurons, shape, c, thread, reduce_threads);
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

}   // namespace

Status reduce(const double* sums, std::int64_t neurons, Repeats shape, double* out, int sign, bool adds, cudaStream_t stream) {
  const bool few = neurons / shape.count <= warp_threads;
  const std::int64_t blocks = few ? (shape.count + reduce_threads - 1) / reduce_threads : shape.count;
  return launch(few ? sum_few_kernel : sum_many_kernel, blocks_for(blocks), reduce_threads, stream, sums, neurons, shape, out, sign, adds);
}

Status wait(Stream stream) noexcept {
  return wait_for(stream);
}

const char* unavailable() noexcept {
  return why_unavailable();
}

}   // namespace exodus::cuda
