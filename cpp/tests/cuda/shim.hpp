/// @file
/// Runs CUDA kernels on the CPU, for tests: blocks one after another, the threads of a block as fibers, both in random order from a seed,
/// so that a missing barrier shows. It aborts where a GPU would go on: barriers and warp operations that not all threads reach, lanes that
/// take part in a warp operation or shuffle from a lane outside of its mask, shared memory that is read before this block wrote it, or used
/// by two threads without a barrier between. What is copied asynchronously is there after the wait, not before. Devices and errors:
/// runtime.hpp.
#pragma once

#include <cstring>
#include <source_location>

#include "exodus/types.hpp"
#include "fibers.hpp"
#include "runtime.hpp"
#include "watched_memory.hpp"

#define EXODUS_KERNEL_OF(threads, blocks) void
#define EXODUS_KERNEL(threads) void
#define EXODUS_DEVICE_SCALAR EXODUS_SCALAR
#define EXODUS_DEVICE
#define EXODUS_UNROLL
#define EXODUS_ROLLED
#define EXODUS_INLINE
#define EXODUS_GRID_CONSTANT const

namespace exodus::cuda::shim {

using Place = std::source_location;

/// The value of a lane, or one's own where there is no such lane.
template <class T>
T shuffle(std::uint32_t mask, T value, int from, Place here) {
  std::uint64_t given = 0;
  static_assert(sizeof value <= sizeof given);
  std::memcpy(&given, &value, sizeof value);
  const bool exists = from >= 0 && from < 32;
  if (exists && (mask >> from & 1) == 0) fail("a lane shuffles from one outside of the mask");
  const std::uint64_t* const taken = exchange(Wait::warp, mask, given, here.line());
  if (exists) std::memcpy(&value, &taken[from], sizeof value);
  return value;
}

inline std::uint32_t ballot(std::uint32_t mask, bool vote, Place here) {
  const std::uint64_t* const votes = exchange(Wait::warp, mask, vote, here.line());
  std::uint32_t yes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) yes |= (mask >> lane & 1) != 0 && votes[lane] != 0 ? 1u << lane : 0;
  return yes;
}

inline int lane() {
  return static_cast<int>(threadIdx.x % 32);
}

}   // namespace exodus::cuda::shim

inline void __syncthreads(exodus::cuda::shim::Place here = exodus::cuda::shim::Place::current()) {
  exodus::cuda::shim::pause({exodus::cuda::shim::Wait::barrier, 0, here.line()});
}

inline void __syncwarp(std::uint32_t mask = 0xffffffffu, exodus::cuda::shim::Place here = exodus::cuda::shim::Place::current()) {
  exodus::cuda::shim::exchange(exodus::cuda::shim::Wait::warp_barrier, mask, 0, here.line());
}

template <class T>
T __shfl_sync(std::uint32_t mask, T value, int from, exodus::cuda::shim::Place here = exodus::cuda::shim::Place::current()) {
  return exodus::cuda::shim::shuffle(mask, value, from & 31, here);
}

template <class T>
T __shfl_up_sync(std::uint32_t mask, T value, unsigned delta, exodus::cuda::shim::Place here = exodus::cuda::shim::Place::current()) {
  return exodus::cuda::shim::shuffle(mask, value, exodus::cuda::shim::lane() - static_cast<int>(delta), here);
}

template <class T>
T __shfl_down_sync(std::uint32_t mask, T value, unsigned delta, exodus::cuda::shim::Place here = exodus::cuda::shim::Place::current()) {
  return exodus::cuda::shim::shuffle(mask, value, exodus::cuda::shim::lane() + static_cast<int>(delta), here);
}

template <class T>
T __shfl_xor_sync(std::uint32_t mask, T value, int bits, exodus::cuda::shim::Place here = exodus::cuda::shim::Place::current()) {
  return exodus::cuda::shim::shuffle(mask, value, exodus::cuda::shim::lane() ^ bits, here);
}

inline unsigned __ballot_sync(std::uint32_t mask, int vote, exodus::cuda::shim::Place here = exodus::cuda::shim::Place::current()) {
  return exodus::cuda::shim::ballot(mask, vote != 0, here);
}

inline int __any_sync(std::uint32_t mask, int vote, exodus::cuda::shim::Place here = exodus::cuda::shim::Place::current()) {
  return exodus::cuda::shim::ballot(mask, vote != 0, here) != 0;
}

inline int __all_sync(std::uint32_t mask, int vote, exodus::cuda::shim::Place here = exodus::cuda::shim::Place::current()) {
  return exodus::cuda::shim::ballot(mask, vote != 0, here) == mask;
}

/// Copies 4, 8 or 16 bytes to shared memory, `to` being `&shared[k]`.
template <class Reference, class T>
void __pipeline_memcpy_async(Reference to, const T* from, std::size_t bytes) {
  using namespace exodus::cuda::shim;
  if ((bytes != 4 && bytes != 8 && bytes != 16) || bytes % sizeof(T) != 0) fail("an asynchronous copy of other than 4, 8 or 16 bytes");
  if (reinterpret_cast<std::uintptr_t>(from) % bytes != 0) fail("an asynchronous copy from memory that is not aligned");
  for (std::size_t k = 0; k < bytes / sizeof(T); ++k) {
    copy_later([to = to[static_cast<std::int64_t>(k)], value = from[k]] { to = value; });
  }
}

inline void __pipeline_commit() {
  exodus::cuda::shim::close_group();
}

/// Waits for all committed groups of copies but the newest ones.
inline void __pipeline_wait_prior(std::size_t newest) {
  exodus::cuda::shim::finish_groups(newest);
}

namespace exodus::cuda {

constexpr std::int64_t max_blocks = 3;   // so that blocks go on to further work
constexpr bool copies_asynchronously = true;

inline const char* why_unavailable() {
  return nullptr;
}

template <class... P, class... A>
void start(void (*kernel)(P...), Grid grid, cudaStream_t, A&&... arguments) {
  if (shim::fails("launch")) return;
  ++shim::runtime.launches;
  shim::run(grid.blocks, grid.threads, grid.shared_bytes, [&] { kernel(arguments...); });
}

}   // namespace exodus::cuda
