/// @file
/// The threads of a block as fibers of one thread of the CPU, for the shim (shim.hpp): in random order from a seed, each until it waits at
/// a barrier or for other lanes of its warp. It aborts at barriers and warp operations that not all threads reach.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace exodus::cuda::shim {

/// What a fiber waits for: a barrier, or the other lanes of a warp operation or of a warp's barrier, at a line of the source.
struct Wait {
  enum Kind { nothing, barrier, warp, warp_barrier, ended } kind = nothing;
  bool of_warp() const { return kind == warp || kind == warp_barrier; }
  std::uint32_t mask = 0, line = 0;
  bool operator==(const Wait&) const = default;
};

/// Seeds the order of threads and blocks.
void seed(unsigned value);

/// Runs a kernel: blocks of threads, each thread a call of the body, with so much dynamic shared memory for each block.
void run(std::int64_t blocks, int threads, std::size_t shared_bytes, std::function<void()> body);

/// Lets other threads run until what this one waits for is there.
void pause(Wait wait);

/// Waits for the lanes of a mask, each of which gives a value, and returns those of all lanes.
const std::uint64_t* exchange(Wait::Kind kind, std::uint32_t mask, std::uint64_t value, std::uint32_t line);

/// Asynchronous copies of this thread, in groups: adds one to the open group, closes the group, makes those of all closed groups but the
/// newest ones.
void copy_later(std::function<void()> copy);
void close_group();
void finish_groups(std::size_t newest);

}   // namespace exodus::cuda::shim
