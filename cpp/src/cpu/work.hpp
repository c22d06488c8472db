/// @file
/// Helpers of the exported functions on the CPU: the instruction set's functions, threads, slots, sums over neurons.
#pragma once

#include <type_traits>

#include "exodus/functions.hpp"
#include "isa.hpp"
#include "memory.hpp"
#include "threads.hpp"

namespace exodus {
namespace {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

template <class V>
const cpu::IsaFunctions<V>* isa_functions() {
  const cpu::IsaTable* const table = cpu::isa_table();
  if (table == nullptr) return nullptr;
  if constexpr (std::is_same_v<V, float>) {
    return &table->f32;
  } else {
    return &table->f64;
  }
}

/// The number of threads that a call may use. Small calls finish before another thread has woken, so they use one. `threads` 0 means the
/// setting of set_num_threads().
inline int threads_for(const Layout& layout, int threads) {
  constexpr std::int64_t small = 16384;
  if (layout.outer * layout.inner * layout.time < small) return 1;
  return threads <= 0 ? get_num_threads() : (threads < cpu::max_threads ? threads : cpu::max_threads);
}

/// Whether results exceed the last-level cache, so that they would be evicted before they are read and streaming stores pay off. The size
/// is a core's usual share of that cache, a constant: on a virtual machine sysconf may report the whole host's.
inline bool beyond_caches(const Layout& layout, std::size_t bytes_per_element) {
  constexpr double cache = 16 << 20;
  return static_cast<double>(layout.outer * layout.inner * layout.time) * static_cast<double>(bytes_per_element) > cache;
}

/// The bytes that `take(arena)` allocates.
template <class Take>
std::size_t bytes_of(Take take) {
  cpu::Arena arena(nullptr);
  take(arena);
  return arena.bytes();
}

/// The number of threads, at most `threads`, whose slots fit in `bytes`.
inline int threads_with_slots(int threads, std::size_t slot_bytes, std::size_t bytes) {
  const std::size_t slots = bytes / slot_bytes;
  return slots < static_cast<std::size_t>(threads) ? static_cast<int>(slots) : threads;
}

/// Calls f(first, count) for the rows of a matrix, some at a time, on several threads if it is large. A task that transposes reads whole
/// cache lines of that many columns, and the lines that it writes stay in the cache until they are full.
template <class F>
void for_some_rows(std::int64_t rows, std::int64_t columns, int threads, F f) {
  constexpr std::int64_t some = 64;
  constexpr std::int64_t worth_a_thread = std::int64_t{1} << 18;   // elements; waking a thread takes as long as copying some thousand
  auto task = [&](std::int64_t k, int /*thread*/) { f(k * some, rows - k * some < some ? rows - k * some : some); };
  cpu::parallel_for(ceil_div(rows, some), rows * columns < worth_a_thread ? 1 : threads, task);
}

/// out[c] += sign * (sum over the neurons j with (j / repeat) % count == c), in the order of rows. That is the order of j unless batch
/// entries interleave.
inline void add_reduced(double* out, const double* sums, const cpu::Rows& rows, std::int64_t count, std::int64_t repeat, int sign) {
  const std::int64_t neurons = rows.neurons;
  if (rows.repeat > 1) {
    for (std::int64_t place = 0; place < neurons; ++place) out[cpu::neuron_at(rows, place) / repeat % count] += sign * sums[place];
    return;
  }
  if (count == 1) {
    double total = 0;
    for (std::int64_t j = 0; j < neurons; ++j) total += sums[j];
    out[0] += sign * total;
    return;
  }
  for (std::int64_t j = 0, c = 0; j < neurons; c = c + 1 == count ? 0 : c + 1) {
    double total = 0;
    for (const std::int64_t end = j + repeat < neurons ? j + repeat : neurons; j < end; ++j) total += sums[j];
    out[c] += sign * total;
  }
}

}   // namespace
}   // namespace exodus
