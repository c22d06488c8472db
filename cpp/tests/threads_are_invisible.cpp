/// @file
/// Many threads may call the library at once, and change its number of threads meanwhile. Each gets the bits of a single call.
#include <atomic>
#include <thread>

#include "workload.hpp"

namespace exodus::test {
namespace {

constexpr Method methods[] = {Method::exodus, Method::slayer, Method::bptt};
constexpr int callers = 8, rounds = 12;

/// Runs `body(k)` on as many threads at once, started together.
template <class Body>
void at_once(int count, Body body) {
  std::atomic<int> waiting{count};
  std::vector<std::thread> threads;
  for (int k = 0; k < count; ++k) {
    threads.emplace_back([&, k] {
      --waiting;
      while (waiting.load() > 0) std::this_thread::yield();
      body(k);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ThreadsAreInvisible, WhenManyCallAtOnce) {
  // Different work for each caller, so that results which went to the wrong one are noticed.
  std::vector<Workload> work;
  std::vector<Results> alone;
  for (int k = 0; k < callers; ++k) {
    const Layout layouts[] = {{1, 20, 3000}, {40, 20, 70}, {3000, 20, 1}, {200, 20, 13}};
    const std::int64_t features[] = {0, 70, 30, 0, 100, 0, 0, 13};
    work.emplace_back(layouts[k % 4], static_cast<std::uint64_t>(k), features[k]);
    alone.push_back(work.back().results());
    ASSERT_TRUE(work.back().run(alone.back(), methods[k % 3], 1));
  }
  std::atomic<int> wrong{0};
  at_once(callers, [&](int k) {
    const auto index = static_cast<std::size_t>(k);
    for (int round = 0; round < rounds; ++round) {
      Results mine = work[index].results();
      if (!work[index].run(mine, methods[k % 3], 1 + (k + round) % 5) || !Workload::same_bits(mine, alone[index])) ++wrong;
    }
  });
  EXPECT_EQ(wrong.load(), 0);
}

TEST(ThreadsAreInvisible, WhenTheirNumberChangesMeanwhile) {
  const int before = get_num_threads();
  const Workload work({1, 20, 4000}, 1);
  Results alone = work.results();
  ASSERT_TRUE(work.run(alone, Method::exodus, 1));
  std::atomic<int> wrong{0}, busy{callers - 2};
  at_once(callers, [&](int k) {
    if (k < 2) {
      for (int n = 0; busy.load() > 0; ++n) {
        set_num_threads(n % 9 - 1);
        if (get_num_threads() < 1) ++wrong;
        std::this_thread::yield();
      }
      return;
    }
    for (int round = 0; round < rounds; ++round) {
      Results mine = work.results();
      if (!work.run(mine, Method::exodus, 0) || !Workload::same_bits(mine, alone)) ++wrong;
    }
    --busy;
  });
  EXPECT_EQ(wrong.load(), 0);
  set_num_threads(before);
}

/// Threads that end after their call leave nothing behind that the next ones need.
TEST(ThreadsAreInvisible, WhenCallersComeAndGo) {
  const Workload work({3, 20, 1500}, 2);
  Results alone = work.results();
  ASSERT_TRUE(work.run(alone, Method::bptt, 1));
  for (int round = 0; round < rounds; ++round) {
    bool right = false;
    std::thread([&] {
      Results mine = work.results();
      right = work.run(mine, Method::bptt, 4) && Workload::same_bits(mine, alone);
    }).join();
    ASSERT_TRUE(right);
  }
}

TEST(ThreadsAreInvisible, WhenManyEvaluateAtOnce) {
  const int before = get_num_threads();
  set_num_threads(3);
  const std::int64_t count = 100000;
  Input<float> u(count);
  Random random(3);
  u.fill(random, -2, 4);
  Output<float> alone(count);
  ASSERT_EQ(evaluate(Surrogate<float>{}, Param<float>(1), count, u.data(), alone.data()), Status::ok);
  std::atomic<int> wrong{0};
  at_once(callers, [&](int) {
    for (int round = 0; round < rounds; ++round) {
      Output<float> mine(count);
      const Status status = evaluate(Surrogate<float>{}, Param<float>(1), count, u.data(), mine.data());
      if (status != Status::ok || !mine.same_bits(alone)) ++wrong;
    }
  });
  EXPECT_EQ(wrong.load(), 0);
  set_num_threads(before);
}

}   // namespace
}   // namespace exodus::test
