/// @file
/// The shim (shim.hpp) runs correct kernels and aborts at each fault that it promises to notice; a GPU would go on, often with the right
/// result.
#include <gtest/gtest.h>

#include "launch.hpp"

namespace exodus::cuda {
namespace {

constexpr int threads = 64;

constexpr std::uint32_t all = 0xffffffff;

/// Runs a body as a kernel.
template <class Body>
void run(Body body, std::int64_t blocks = 1, std::size_t shared_bytes = 0) {
  ASSERT_EQ(launch(+[](Body kernel) { kernel(); }, {blocks, threads, shared_bytes}, nullptr, body), Status::ok);
}

int me() {
  return static_cast<int>(threadIdx.x);
}

TEST(Shim, RunsEveryThreadOfEveryBlock) {
  std::vector<int> visits(5 * threads);
  run([&visits] { ++visits[blockIdx.x * threads + threadIdx.x]; }, 5);
  for (const int count : visits) EXPECT_EQ(count, 1);
}

TEST(Shim, HandsValuesOverThroughSharedMemory) {
  std::vector<int> got(threads);
  for (unsigned seed = 0; seed < 5; ++seed) {
    shim::seed(seed);
    run([&got] {
      EXODUS_SHARED(int, shared, threads);
      shared[me()] = me() * me();
      __syncthreads();
      got[threadIdx.x] = shared[threads - 1 - me()];
    });
    for (int t = 0; t < threads; ++t) EXPECT_EQ(got[static_cast<std::size_t>(t)], (threads - 1 - t) * (threads - 1 - t));
  }
}

TEST(Shim, ShufflesWithinWarps) {
  std::vector<int> sums(threads), scans(threads), turned(threads), first(threads);
  run([&] {
    int sum = me(), scan = me();
    for (unsigned delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(all, sum, delta);
    for (unsigned delta = 1; delta < 32; delta *= 2) {
      const int before = __shfl_up_sync(all, scan, delta);
      if (threadIdx.x % 32 >= delta) scan += before;
    }
    sums[threadIdx.x] = sum, scans[threadIdx.x] = scan;
    turned[threadIdx.x] = __shfl_xor_sync(all, me(), 31);
    first[threadIdx.x] = __shfl_sync(all, me(), 0);
  });
  EXPECT_EQ(sums[0], 31 * 32 / 2);
  EXPECT_EQ(sums[32], 31 * 32 / 2 + 32 * 32);
  for (int t = 0, scan = 0; t < threads; ++t) {
    const std::size_t k = static_cast<std::size_t>(t);
    scan = t % 32 == 0 ? t : scan + t;
    EXPECT_EQ(scans[k], scan);
    EXPECT_EQ(turned[k], t / 32 * 32 + 31 - t % 32);
    EXPECT_EQ(first[k], t / 32 * 32);
  }
}

TEST(Shim, CountsVotesOfTheLanesInTheMask) {
  std::vector<unsigned> votes(threads);
  std::vector<int> any(threads), every(threads);
  run([&] {
    votes[threadIdx.x] = __ballot_sync(all, me() % 3 == 0);
    const std::uint32_t half = me() % 32 < 16 ? 0xffffu : 0xffff0000u;
    any[threadIdx.x] = __any_sync(half, me() % 32 == 20);
    every[threadIdx.x] = __all_sync(half, me() % 32 < 16);
  });
  for (unsigned t = 0; t < threads; ++t) {
    unsigned expected = 0;
    for (unsigned lane = 0; lane < 32; ++lane) expected |= (t / 32 * 32 + lane) % 3 == 0 ? 1u << lane : 0;
    EXPECT_EQ(votes[t], expected);
    EXPECT_EQ(any[t], t % 32 >= 16);
    EXPECT_EQ(every[t], t % 32 < 16);
  }
}

TEST(Shim, HandsValuesOverWithinAWarpAtItsBarrier) {
  std::vector<int> got(threads);
  for (unsigned seed = 0; seed < 5; ++seed) {
    shim::seed(seed);
    run([&got] {
      EXODUS_SHARED(int, shared, threads);
      for (int round = 0; round < 3; ++round) {
        shared[me()] = me() + round;
        __syncwarp();
        got[threadIdx.x] = shared[me() ^ 5];
        __syncwarp();
      }
    });
    for (int t = 0; t < threads; ++t) EXPECT_EQ(got[static_cast<std::size_t>(t)], (t ^ 5) + 2);
  }
}

TEST(Shim, KnowsThroughOthersWhatCameBefore) {
  int got = 0;
  run([&got] {
    EXODUS_SHARED(int, shared, 1);
    if (me() >= 3) return;
    if (me() == 0) shared[0] = 7;
    if (me() <= 1) __syncwarp(0b011);
    if (me() >= 1) __syncwarp(0b110);
    if (me() == 2) got = shared[0];
  });
  EXPECT_EQ(got, 7);
}

TEST(Shim, CopiesThroughTwoBuffersOfDynamicMemory) {
  constexpr int steps = 6;
  std::vector<double> from(steps * threads * 2), to(from.size());
  for (std::size_t k = 0; k < from.size(); ++k) from[k] = static_cast<double>(k);
  const auto body = [&] {
    EXODUS_DYNAMIC_SHARED(double, buffer);
    const auto fetch = [&](int step) {
      const int at = 2 * (step % 2 * threads + me());
      if (step < steps) __pipeline_memcpy_async(&buffer[at], &from[static_cast<std::size_t>(2 * (step * threads + me()))], 16);
      __pipeline_commit();
    };
    fetch(0);
    for (int step = 0; step < steps; ++step) {
      fetch(step + 1);
      __pipeline_wait_prior(1);
      __syncthreads();
      const int other = 2 * (step % 2 * threads + threads - 1 - me());
      for (int k = 0; k < 2; ++k) to[static_cast<std::size_t>(2 * (step * threads + me()) + k)] = buffer[other + k];
      __syncthreads();
    }
  };
  run(body, 2, 2 * 2 * threads * sizeof(double));
  for (int step = 0; step < steps; ++step) {
    for (int k = 0; k < 2 * threads; ++k) {
      const int other = 2 * (step * threads + threads - 1 - k / 2) + k % 2;
      EXPECT_EQ(to[static_cast<std::size_t>(2 * step * threads + k)], other);
    }
  }
}

TEST(ShimDeathTest, LaunchesThatAGpuRefuses) {
  const auto nothing = [] {};
  EXPECT_DEATH(run(nothing, 0), "has no blocks");
  EXPECT_DEATH(run(nothing, 1, (48 << 10) + 1), "more than 48 kB of shared memory");
  const auto launched = [&](int of_threads) { (void)launch(+[](decltype(nothing)) {}, {1, of_threads}, nullptr, nothing); };
  EXPECT_DEATH(launched(0), "no threads, or more than 1024");
  EXPECT_DEATH(launched(1025), "no threads, or more than 1024");
}

TEST(ShimDeathTest, AMissingBarrier) {
  EXPECT_DEATH(run([] {
                 EXODUS_SHARED(int, shared, threads);
                 shared[me()] = 0;
                 __syncthreads();
                 shared[me()] = me();
                 [[maybe_unused]] const int other = shared[(me() + 1) % threads];
               }),
               "without a barrier after another's");
}

TEST(ShimDeathTest, TwoWriters) {
  EXPECT_DEATH(run([] {
                 EXODUS_SHARED(int, shared, 1);
                 shared[0] = me();
               }),
               "written by two threads without a barrier");
}

TEST(ShimDeathTest, MemoryThatThisBlockDidNotWrite) {
  EXPECT_DEATH(run(
                   [] {
                     EXODUS_SHARED(int, shared, threads);
                     if (shim::present_block % 2 == 1) shared[me()] = 1;
                     [[maybe_unused]] const int own = shared[me()];
                   },
                   2),
               "read before it was written");
}

TEST(ShimDeathTest, BeyondTheEnd) {
  EXPECT_DEATH(run([] {
                 EXODUS_SHARED(int, shared, threads);
                 shared[me() + 1] = 0;
               }),
               "beyond its end");
}

TEST(ShimDeathTest, ABarrierThatSomeDoNotReach) {
  EXPECT_DEATH(run([] {
                 if (me() != 5) __syncthreads();
               }),
               "wait where others do not");
  const auto two_barriers = [] {   // outside of a macro, which would be one line
    if (me() < 32) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  };
  EXPECT_DEATH(run(two_barriers), "wait where others do not");
}

TEST(ShimDeathTest, WarpOperationsOfLanesThatNeverComeOrAreNotMeant) {
  EXPECT_DEATH(run([] {
                 if (me() != 3) __shfl_down_sync(0xffffffffu, me(), 1);
               }),
               "wait where others do not|lanes that never come");
  EXPECT_DEATH(run([] {
                 if (me() % 32 < 8) __shfl_down_sync(0xffu, me(), 1);
               }),
               "shuffles from one outside of the mask");
  EXPECT_DEATH(run([] { __shfl_down_sync(0x1u, me(), 1); }), "not in its mask|outside of the mask");
}

TEST(ShimDeathTest, AMissingBarrierOfAWarp) {
  const auto race = [](bool written, bool read) {
    return [written, read] {
      EXODUS_SHARED(int, shared, threads);
      shared[me()] = me();
      if (written) __syncwarp();
      [[maybe_unused]] const int other = shared[me() ^ 1];
      if (read) __syncwarp();
      shared[me()] = 0;
    };
  };
  run(race(true, true));
  EXPECT_DEATH(run(race(false, true)), "read before it was written|without a barrier after another's");
  EXPECT_DEATH(run(race(true, false)), "without a barrier after another's");
}

TEST(ShimDeathTest, BarriersOfAWarpAndShufflesThatOrderNothing) {
  EXPECT_DEATH(run([] {
                 EXODUS_SHARED(int, shared, threads);
                 shared[me()] = me();
                 __syncwarp();
                 [[maybe_unused]] const int of_other_warp = shared[me() ^ 32];
               }),
               "read before it was written|without a barrier after another's write");
  EXPECT_DEATH(run([] {
                 EXODUS_SHARED(int, shared, threads);
                 shared[me()] = me();
                 __shfl_down_sync(all, me(), 1);
                 [[maybe_unused]] const int other = shared[me() ^ 1];
               }),
               "without a barrier after another's write");
  EXPECT_DEATH(run([] {
                 EXODUS_SHARED(int, shared, threads);
                 shared[me()] = me();
                 __syncwarp(me() % 32 < 16 ? 0xffffu : 0xffff0000u);
                 [[maybe_unused]] const int of_other_half = shared[me() ^ 16];
               }),
               "read before it was written|without a barrier after another's write");
}

TEST(ShimDeathTest, AWriteAfterOneOfManyReads) {
  EXPECT_DEATH(run([] {
                 EXODUS_SHARED(int, shared, 1);
                 if (me() == 0) shared[0] = 1;
                 __syncthreads();
                 [[maybe_unused]] const int value = shared[0];
                 if (me() < 32 && me() != 9) __syncwarp(~(1u << 9));
                 if (me() == 0) shared[0] = 2;   // lanes of its warp are done but for one, and the other warp
               }),
               "without a barrier after another's read");
}

TEST(ShimDeathTest, AsynchronousCopiesThatNobodyWaitedFor) {
  const std::vector<float> from(4 * threads, 1.0f);
  const auto copy = [&from](int newest, std::size_t bytes, int shift) {
    return [&from, newest, bytes, shift] {
      EXODUS_SHARED(float, shared, 4 * threads);
      __pipeline_memcpy_async(&shared[4 * me()], &from[static_cast<std::size_t>(4 * (me() / 2) + shift)], bytes);
      __pipeline_commit();
      __pipeline_wait_prior(static_cast<std::size_t>(newest));
      [[maybe_unused]] const float value = shared[4 * me() + 3];
    };
  };
  run(copy(0, 16, 0));
  EXPECT_DEATH(run(copy(1, 16, 0)), "read before it was written");
  EXPECT_DEATH(run(copy(0, 8, 0)), "read before it was written");
  EXPECT_DEATH(run(copy(0, 12, 0)), "other than 4, 8 or 16 bytes");
  EXPECT_DEATH(run(copy(0, 16, 1)), "not aligned");
}

}   // namespace
}   // namespace exodus::cuda
