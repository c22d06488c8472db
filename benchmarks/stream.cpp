/// The bound that the kernels are compared with: reading and writing the same bytes with nothing in between, by plain or by streaming
/// stores, on a number of threads. Built by bandwidth.py.
#include <immintrin.h>

#include <cstdint>
#include <thread>
#include <vector>

namespace {

void store(float* to, __m256 value, bool around) {
  if (around) {
    _mm256_stream_ps(to, value);
  } else {
    _mm256_storeu_ps(to, value);
  }
}

/// Streaming stores need aligned addresses, which small arrays may not have.
bool aligned(const float* to) {
  return reinterpret_cast<std::uintptr_t>(to) % 32 == 0;
}

template <class Range>
void on_threads(std::int64_t count, int threads, Range range) {
  const std::int64_t share = count / threads / 8 * 8;
  std::vector<std::thread> others;
  for (int k = 1; k < threads; ++k) others.emplace_back(range, k * share, k + 1 == threads ? count : (k + 1) * share);
  range(std::int64_t{0}, threads == 1 ? count : share);
  for (std::thread& other : others) other.join();
}

}   // namespace

/// Forward's bytes: one array in, two out. `count` is a multiple of 8.
extern "C" void one_in_two_out(const float* in, float* out, float* out2, std::int64_t count, int threads, int around) {
  const bool streams = around != 0 && aligned(out) && aligned(out2);
  on_threads(count, threads, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; i += 8) {
      const __m256 value = _mm256_loadu_ps(in + i);
      store(out + i, value, streams);
      store(out2 + i, value, streams);
    }
    _mm_sfence();
  });
}

/// A delay's bytes: one array in, one out.
extern "C" void one_in_one_out(const float* in, float* out, std::int64_t count, int threads, int around) {
  const bool streams = around != 0 && aligned(out);
  on_threads(count, threads, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; i += 8) store(out + i, _mm256_loadu_ps(in + i), streams);
    _mm_sfence();
  });
}

/// Backward's bytes: two arrays in, one out.
extern "C" void two_in_one_out(const float* in, const float* in2, float* out, std::int64_t count, int threads, int around) {
  const bool streams = around != 0 && aligned(out);
  on_threads(count, threads, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; i += 8) {
      store(out + i, _mm256_add_ps(_mm256_loadu_ps(in + i), _mm256_loadu_ps(in2 + i)), streams);
    }
    _mm_sfence();
  });
}
