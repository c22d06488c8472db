/// @file
/// The shim (shim.hpp) runs correct kernels and aborts at each fault that it promises to notice; a GPU would go on, often with the right
/// result.
#include <gtest/gtest.h>

#include "launch.hpp"

namespace exodus::cuda {
namespace {

constexpr int threads = 64;

/// Runs a body as a kernel of one block.
template <class Body>
void run(Body body, std::int64_t blocks = 1) {
  ASSERT_EQ(launch(+[](Body kernel) { kernel(); }, blocks, threads, nullptr, body), Status::ok);
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
    shim::machine.random.seed(seed);
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
  std::vector<int> sums(threads);
  run([&sums] {
    int value = me();
    for (unsigned delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(0xffffffffu, value, delta);
    sums[threadIdx.x] = value;
  });
  EXPECT_EQ(sums[0], 31 * 32 / 2);
  EXPECT_EQ(sums[32], 31 * 32 / 2 + 32 * 32);
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

}   // namespace
}   // namespace exodus::cuda
