/// @file
/// The threads of a block as fibers of one thread of the CPU, for the shim (shim.hpp): in random order from a seed, each until it waits at
/// a barrier or for other lanes of its warp. It aborts at barriers and warp operations that not all threads reach.
#pragma once

#include <ucontext.h>

#include <deque>
#include <functional>
#include <memory>
#include <random>

#include "watched_memory.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace exodus::cuda::shim {

/// What a fiber waits for: a barrier, or the other lanes of a warp operation or of a warp's barrier, at a line of the source.
struct Wait {
  enum Kind { nothing, barrier, warp, warp_barrier, ended } kind = nothing;
  bool of_warp() const { return kind == warp || kind == warp_barrier; }
  std::uint32_t mask = 0, line = 0;
  bool operator==(const Wait&) const = default;
};

struct Fiber {
  static constexpr std::size_t stack_bytes = 256 << 10;
  ucontext_t context;
  std::unique_ptr<char[]> stack = std::make_unique_for_overwrite<char[]>(stack_bytes);
  Wait wait;
  std::uint64_t given = 0, taken[32] = {};                 // to a warp operation, and by all lanes of it
  std::deque<std::vector<std::function<void()>>> copies;   // asynchronous ones on their way, in groups; the last is still open
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

/// Lets some lanes of the warp that begins at a thread go on: each gets what all gave, and after a barrier knows what all did.
inline void finish_lanes(unsigned first, std::uint32_t lanes, bool barrier) {
  const auto in = [lanes](unsigned lane) { return (lanes >> lane & 1) != 0; };
  Clock joint;
  std::uint64_t given[32] = {};
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!in(lane)) continue;
    given[lane] = machine.fibers[first + lane].given;
    for (unsigned k = 0; k < 32; ++k) joint.of[k] = std::max(joint.of[k], clocks[first + lane].of[k]);
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!in(lane)) continue;
    std::copy(given, given + 32, machine.fibers[first + lane].taken);
    machine.fibers[first + lane].wait = {};
    if (!barrier) continue;
    clocks[first + lane] = joint;
    ++clocks[first + lane].of[lane];
  }
}

/// Lets the lanes [first, last) of a warp go on whose operation has all of its mask there; whether there were any.
inline bool finish_warp(unsigned first, unsigned last) {
  bool finished = false;
  for (unsigned t = first; t < last; ++t) {
    const Wait wait = machine.fibers[t].wait;
    std::uint32_t there = 0;
    for (unsigned other = first; other < last; ++other) there |= machine.fibers[other].wait == wait ? 1u << (other - first) : 0;
    if (!wait.of_warp() || there != wait.mask) continue;
    finish_lanes(first, there, wait.kind == Wait::warp_barrier);
    finished = true;
  }
  return finished;
}

inline void run_block(unsigned threads) {
  ++present_block, epoch = 1;
  if (machine.fibers.size() < threads) machine.fibers.resize(threads);   // never smaller: their stacks are kept
  machine.order.resize(threads);
  clocks.assign(threads, {});
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = machine.fibers[t];
    machine.order[t] = t, fiber.wait = {}, fiber.copies.assign(1, {}), clocks[t].of[t % 32] = 1;
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
    if (wait.of_warp()) fail("a warp operation whose mask names lanes that never come");
    ++epoch;
    for (unsigned t = 0; t < threads; ++t) machine.fibers[t].wait = {};
  }
}

}   // namespace exodus::cuda::shim
