/// @file
/// Runs CUDA kernels on the CPU, for tests: blocks one after another, the threads of a block as fibers, both in random order from a seed,
/// so that a missing barrier shows. It aborts where a GPU would go on: barriers and warp operations that not all threads reach, shuffles
/// from lanes outside of the mask, shared memory that is read before this block wrote it, or used by two threads without a barrier between.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <source_location>
#include <vector>

#include "exodus/types.hpp"
#include "watched_memory.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define EXODUS_KERNEL(threads) void
#define EXODUS_DEVICE_SCALAR EXODUS_SCALAR
#define EXODUS_DEVICE
#define EXODUS_UNROLL
#define EXODUS_GRID_CONSTANT const

using cudaStream_t = struct CUstream_st*;
namespace exodus::cuda::shim {

/// What a fiber waits for: a barrier, or the other lanes of a warp operation, at a line of the source.
struct Wait {
  enum Kind { nothing, barrier, warp, ended } kind = nothing;
  std::uint32_t mask = 0, line = 0;
  bool operator==(const Wait&) const = default;
};

struct Fiber {
  static constexpr std::size_t stack_bytes = 256 << 10;
  ucontext_t context;
  std::unique_ptr<char[]> stack = std::make_unique_for_overwrite<char[]>(stack_bytes);
  Wait wait;
  std::uint64_t given = 0, taken[32] = {};   // to a warp operation, and by all lanes of it
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<unsigned> order;
  std::function<void()> body;
  ucontext_t scheduler;
  const void* stack = nullptr;   ///< the scheduler's
  std::size_t stack_bytes = 0;
  std::mt19937 random{1};   ///< seeded by a test: the order of threads and blocks
};
inline Machine machine;

inline void switch_to(ucontext_t& from, ucontext_t& to, [[maybe_unused]] const void* stack, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, stack, bytes);
  swapcontext(&from, &to);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  swapcontext(&from, &to);
#endif
}

inline void pause(Wait wait) {
  Fiber& fiber = machine.fibers[threadIdx.x];
  fiber.wait = wait;
  switch_to(fiber.context, machine.scheduler, machine.stack, machine.stack_bytes);
}

inline void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.stack, &machine.stack_bytes);
#endif
  machine.body();
  pause({Wait::ended});
}

/// Lets the lanes [first, last) of a warp go on whose operation has all of its mask there; whether there were any.
inline bool finish_warp(unsigned first, unsigned last) {
  bool finished = false;
  for (unsigned t = first; t < last; ++t) {
    const Wait wait = machine.fibers[t].wait;
    std::uint32_t there = 0;
    for (unsigned other = first; other < last; ++other) there |= machine.fibers[other].wait == wait ? 1u << (other - first) : 0;
    if (wait.kind != Wait::warp || there != wait.mask) continue;
    for (unsigned to = first; to < last; ++to) {
      if ((there >> (to - first) & 1) == 0) continue;
      for (unsigned from = first; from < last; ++from) machine.fibers[to].taken[from - first] = machine.fibers[from].given;
      machine.fibers[to].wait = {};
    }
    finished = true;
  }
  return finished;
}

inline void run_block(unsigned threads) {
  ++present_block, epoch = 1;
  if (machine.fibers.size() < threads) machine.fibers.resize(threads);   // never smaller: their stacks are kept
  machine.order.resize(threads);
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = machine.fibers[t];
    machine.order[t] = t, fiber.wait = {};
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get(), fiber.context.uc_stack.ss_size = Fiber::stack_bytes;
    makecontext(&fiber.context, enter, 0);
  }
  while (true) {
    std::shuffle(machine.order.begin(), machine.order.end(), machine.random);
    bool moved = false;
    for (const unsigned t : machine.order) {
      if (machine.fibers[t].wait.kind != Wait::nothing) continue;
      moved = true, threadIdx.x = t;
      switch_to(machine.scheduler, machine.fibers[t].context, machine.fibers[t].stack.get(), Fiber::stack_bytes);
    }
    for (unsigned first = 0; first < threads; first += 32) moved = finish_warp(first, std::min(first + 32, threads)) || moved;
    if (moved) continue;
    const Wait wait = machine.fibers[0].wait;
    const auto same = [&wait](const Fiber& fiber) { return fiber.wait == wait; };
    if (!std::all_of(machine.fibers.begin(), machine.fibers.begin() + threads, same))
      fail("some threads wait where others do not, or ended");
    if (wait.kind == Wait::ended) return;
    if (wait.kind == Wait::warp) fail("a warp operation whose mask names lanes that never come");
    ++epoch;
    for (unsigned t = 0; t < threads; ++t) machine.fibers[t].wait = {};
  }
}

}   // namespace exodus::cuda::shim

inline void __syncthreads(std::source_location here = std::source_location::current()) {
  exodus::cuda::shim::pause({exodus::cuda::shim::Wait::barrier, 0, here.line()});
}

/// The value of the lane `delta` further on, or the lane's own beyond the warp.
template <class T>
T __shfl_down_sync(std::uint32_t mask, T value, unsigned delta, std::source_location here = std::source_location::current()) {
  using namespace exodus::cuda::shim;
  const unsigned lane = threadIdx.x % 32, from = lane + delta;
  if ((mask >> lane & 1) == 0) fail("a lane shuffles that is not in its mask");
  if (from < 32 && (mask >> from & 1) == 0) fail("a lane shuffles from one outside of the mask");
  Fiber& fiber = machine.fibers[threadIdx.x];
  std::memcpy(&fiber.given, &value, sizeof value);
  pause({Wait::warp, mask, here.line()});
  if (from < 32) std::memcpy(&value, &fiber.taken[from], sizeof value);
  return value;
}

namespace exodus::cuda {

constexpr std::int64_t max_blocks = 3;   // so that blocks go on to further work

struct DeviceOf {
  explicit DeviceOf(const void*) {}
  bool ok() const { return true; }
};

inline Status wait_for(cudaStream_t) {
  return Status::ok;
}

inline const char* why_unavailable() {
  return nullptr;
}

template <class... P, class... A>
Status launch(void (*kernel)(P...), std::int64_t blocks, int threads, cudaStream_t, A&&... arguments) {
  using shim::machine;
  std::vector<unsigned> order(static_cast<std::size_t>(blocks));
  for (unsigned b = 0; b < order.size(); ++b) order[b] = b;
  std::shuffle(order.begin(), order.end(), machine.random);
  machine.body = [&] { kernel(arguments...); };
  blockDim.x = static_cast<unsigned>(threads), gridDim.x = static_cast<unsigned>(blocks);
  for (const unsigned b : order) {
    blockIdx.x = b;
    shim::run_block(blockDim.x);
  }
  return Status::ok;
}

}   // namespace exodus::cuda
