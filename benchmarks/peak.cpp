/// The bound that sums over taps are compared with: multiply-adds of floats in registers, as a product and a sum (forward does not fuse
/// them) and fused, on a number of threads. Built by models.py.
#include <immintrin.h>

#include <chrono>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__)
using Vector = __m512;
Vector fused(Vector a, Vector b, Vector c) {
  return _mm512_fmadd_ps(a, b, c);
}
#elif defined(__FMA__)
using Vector = __m256;
Vector fused(Vector a, Vector b, Vector c) {
  return _mm256_fmadd_ps(a, b, c);
}
#else
using Vector = __m128;
Vector fused(Vector a, Vector b, Vector c) {
  return a * b + c;
}
#endif

constexpr int sums = 12, rounds = 2000000;   // long enough that starting a thread does not count

template <bool Fused>
void run(float* out) {
  Vector sum[sums] = {}, factor = Vector{} + 0.999f, input = Vector{} + 1e-3f;
  for (int k = 0; k < rounds; ++k) {
#pragma GCC unroll 12
    for (Vector& one : sum) {
      one = Fused ? fused(factor, input, one) : one + factor * input;
      asm volatile("" : "+v"(input));   // the compiler cannot know the next product
    }
  }
  for (int k = 1; k < sums; ++k) sum[0] += sum[k];
  *out = sum[0][0];
}

}   // namespace

/// Multiply-adds per second of all threads together.
extern "C" double multiply_adds(int threads, int is_fused) {
  std::vector<float> results(static_cast<std::size_t>(threads) * 16);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> others;
  const auto task = is_fused != 0 ? run<true> : run<false>;
  for (int k = 1; k < threads; ++k) others.emplace_back(task, &results[static_cast<std::size_t>(k) * 16]);
  task(results.data());
  for (std::thread& other : others) other.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return threads * static_cast<double>(rounds) * sums * (sizeof(Vector) / sizeof(float)) / seconds;
}
